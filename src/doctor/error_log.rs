//! Lines of Nginx's error log, translated.
//!
//! Owns: what the few failures mean that a socket in front of an application can give.
//! Never: reads the log.

/// How Nginx failed to get an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// ENOENT: there is no such file.
    Missing,
    /// EACCES: a directory or the socket is closed to Nginx's user.
    Denied,
    /// ECONNREFUSED: the file is there, and nobody listens.
    Refused,
    /// EAGAIN: the queue is full.
    Full,
    /// No answer within proxy_read_timeout.
    TimedOut,
    /// The connection ended before an answer.
    Closed,
}

/// A line that tells of a failure to get an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// How it failed.
    pub failure: Failure,
    /// Who was asked: `/run/gunicorn.sock` or `127.0.0.1:8000`.
    pub address: &'a str,
    /// The failure in the log's own words.
    pub words: &'a str,
}

/// What each means, in one sentence.
pub fn meaning(failure: Failure) -> &'static str {
    match failure {
        Failure::Missing => {
            "the path that Nginx passes to does not exist: it is written differently, or nothing has made it"
        }
        Failure::Denied => "Nginx's user may not pass a directory of the path, or may not write to the socket",
        Failure::Refused => "the path is there, and nobody listens on it",
        Failure::Full => "the queue of the socket was full: more visitors at once than workers and backlog can take",
        Failure::TimedOut => "the application took longer than Nginx waits",
        Failure::Closed => "the worker ended, or closed the connection, before it answered",
    }
}

/// Reads a line. `None`: it is about something else.
pub fn read(line: &str) -> Option<Line<'_>> {
    if let Some((_, rest)) = line.split_once("connect() to ") {
        let (address, rest) = rest.split_once(" failed (")?;
        let (words, _) = rest.split_once(')')?;
        let failure = match words.split_once(':')?.0 {
            "2" => Failure::Missing,
            "13" => Failure::Denied,
            "111" => Failure::Refused,
            "11" => Failure::Full,
            "110" => Failure::TimedOut,
            _ => return None,
        };
        return Some(Line { failure, address: address.strip_prefix("unix:").unwrap_or(address), words });
    }
    let (failure, words) = [
        (Failure::TimedOut, "upstream timed out"),
        (Failure::Closed, "upstream prematurely closed connection"),
        (Failure::Closed, "Connection reset by peer"),
    ]
    .into_iter()
    .find(|(_, words)| line.contains(words))?;
    // upstream: "http://unix:/run/gunicorn.sock:/path"
    let (_, rest) = line.split_once("upstream: \"")?;
    let rest = rest.split('"').next()?;
    let rest = rest.split_once("://").map_or(rest, |(_, rest)| rest);
    let address = match rest.strip_prefix("unix:") {
        Some(path) => path.split(':').next()?,
        None => rest.split('/').next()?,
    };
    Some(Line { failure, address, words })
}

/// The last failure with one of these addresses.
pub fn last<'a>(lines: &'a [String], addresses: &[&str]) -> Option<Line<'a>> {
    lines.iter().rev().filter_map(|line| read(line)).find(|line| addresses.contains(&line.address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_is_distinguished() {
        let end = "client: 127.0.0.1, server: example.com, request: \"GET / HTTP/1.1\", upstream: \
                   \"http://unix:/run/gunicorn.sock:/\", host: \"example.com\"";
        let unix = "/run/gunicorn.sock";
        for (text, failure, address) in [
            (
                "connect() to unix:/run/gunicorn.sock failed (2: No such file or directory) while connecting",
                Failure::Missing,
                unix,
            ),
            (
                "connect() to unix:/run/gunicorn.sock failed (13: Permission denied) while connecting",
                Failure::Denied,
                unix,
            ),
            (
                "connect() to unix:/run/gunicorn.sock failed (111: Connection refused) while connecting",
                Failure::Refused,
                unix,
            ),
            (
                "connect() to unix:/run/gunicorn.sock failed (11: Resource temporarily unavailable) while",
                Failure::Full,
                unix,
            ),
            ("connect() to 127.0.0.1:8000 failed (111: Connection refused)", Failure::Refused, "127.0.0.1:8000"),
            ("upstream timed out (110: Connection timed out) while reading", Failure::TimedOut, unix),
            (
                "upstream prematurely closed connection while reading response header from upstream",
                Failure::Closed,
                unix,
            ),
            ("recv() failed (104: Connection reset by peer) while reading", Failure::Closed, unix),
        ] {
            let line = format!("2026/11/25 03:00:00 [crit] 7#7: *1 {text}, {end}");
            let read = read(&line).expect(&line);
            assert_eq!((read.failure, read.address), (failure, address), "{line}");
        }
        for line in
            ["", "open() \"/x\" failed (2: No such file or directory)", "connect() to ", "connect() to x failed ("]
        {
            assert_eq!(read(line), None, "{line}");
        }
    }
}
