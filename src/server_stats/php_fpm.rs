//! PHP-FPM's statistics: the status page of its pool, asked by FastCGI.
//!
//! The page is what FPM answers for the path `pm.status_path` (`sapi/fpm/fpm/fpm_status.c` of PHP 8.2). With
//! `pm.status_listen` (PHP 8.0 and later) FPM itself answers on a socket of its own, by a process that it starts when
//! somebody asks, so that a pool whose processes are all busy tells it, too. `accepted conn` counts the requests that were
//! begun. Of FastCGI (fast-cgi specification 1.0) it takes one request without a body, on a connection that is then closed.

use super::stats::{InFlight, Stats, StatsError};
use crate::printable;
use serde::Deserialize;
use std::time::Duration;

/// Record types of FastCGI.
const BEGIN_REQUEST: u8 = 1;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
/// A record's head: version, type, request, length of its content, length of its padding, nothing.
const HEAD: usize = 8;
/// So many requests are shown.
const MAX_IN_FLIGHT: usize = 15;
/// So much of a method and of a path is shown, in characters: as of a scoreboard.
const MAX_METHOD: usize = 8;
const MAX_PATH: usize = 88;

#[derive(Deserialize)]
struct Said {
    #[serde(rename = "accepted conn")]
    accepted: u64,
    #[serde(rename = "active processes")]
    active: u64,
    #[serde(default)]
    processes: Vec<Process>,
}

#[derive(Deserialize)]
struct Process {
    state: String,
    #[serde(rename = "request duration")]
    microseconds: u64,
    #[serde(rename = "request method")]
    method: String,
    #[serde(rename = "request uri")]
    uri: String,
}

/// The question for the page at this path; `full`: with each process.
pub(super) fn question(path: &str, full: bool) -> Vec<u8> {
    let query = if full { "json&full" } else { "json" };
    let variables = [
        ("REQUEST_METHOD", "GET"),
        ("SCRIPT_NAME", path),
        ("SCRIPT_FILENAME", path),
        ("REQUEST_URI", path),
        ("QUERY_STRING", query),
    ];
    let mut params = Vec::new();
    for (name, value) in variables {
        // Lengths below 128 are one byte each; these texts are all ours.
        params.extend([name, value].map(|word| u8::try_from(word.len()).unwrap_or(0) & 0x7f));
        params.extend(name.bytes().chain(value.bytes()));
    }
    let mut question = Vec::new();
    // The role of a responder, on a connection that FPM closes.
    for (kind, content) in
        [(BEGIN_REQUEST, &[0, 1, 0, 0, 0, 0, 0, 0][..]), (PARAMS, &params[..]), (PARAMS, &[]), (STDIN, &[])]
    {
        let [high, low] = u16::try_from(content.len()).unwrap_or(0).to_be_bytes();
        question.extend([1, kind, 0, 1, high, low, 0, 0]);
        question.extend(content);
    }
    question
}

/// What the answer says.
pub(super) fn parse(answer: &[u8]) -> Result<Stats, StatsError> {
    let page = stdout(answer);
    // Its head ends in an empty line.
    let end = page.windows(4).position(|four| four == b"\r\n\r\n").map_or(page.len(), |end| end + 4);
    // A visitor's path need not be UTF-8.
    let said: Said = serde_json::from_str(&String::from_utf8_lossy(&page[end..]))?;
    let serves = |process: &&Process| process.state == "Running" || process.state == "Finishing";
    let mut in_flight: Vec<InFlight> = said.processes.iter().filter(serves).map(in_flight).collect();
    in_flight.sort_by_key(|request| std::cmp::Reverse(request.since));
    in_flight.truncate(MAX_IN_FLIGHT);
    let busy = said.active.max(in_flight.len() as u64).min(said.accepted);
    in_flight.truncate(usize::try_from(busy).unwrap_or(MAX_IN_FLIGHT));
    Ok(Stats { begun: said.accepted, busy, in_flight })
}

fn in_flight(process: &Process) -> InFlight {
    let path = process.uri.split('?').next().unwrap_or_default();
    let cut = if path.chars().nth(MAX_PATH).is_some() { "…" } else { "" };
    let request = format!("{} {}{cut}", harmless(&process.method, MAX_METHOD), harmless(path, MAX_PATH));
    InFlight { request, since: Duration::from_micros(process.microseconds) }
}

/// So much of a text, without what acts on a terminal.
fn harmless(text: &str, length: usize) -> String {
    let letters = text.chars().take(length);
    letters.map(|letter| if printable::is_command(letter) { '\u{fffd}' } else { letter }).collect()
}

/// What an answer's records bring on the standard output; what is cut off is left out.
fn stdout(mut answer: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some((head, rest)) = answer.split_at_checked(HEAD) {
        let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
        let Some((content, rest)) = rest.split_at_checked(length) else { break };
        if head[1] == STDOUT {
            out.extend(content);
        }
        answer = rest.get(usize::from(head[6])..).unwrap_or_default();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of PHP-FPM 8.2.
    const PAGE: &str = r#"{"pool":"www","process manager":"static","start time":1796065582,"start since":1,"accepted conn":3,"listen queue":0,"max listen queue":0,"listen queue len":0,"idle processes":1,"active processes":1,"total processes":2,"max active processes":1,"max children reached":0,"slow requests":0, "processes":[{"pid":10803,"state":"Idle","start time":1796065582,"start since":1,"requests":1,"request duration":301,"request method":"GET","request uri":"\/app.php","content length":0,"user":"-","script":"\/app.php","last request cpu":0.00,"last request memory":2097152},{"pid":10802,"state":"Running","start time":1796065582,"start since":1,"requests":2,"request duration":509164,"request method":"GET","request uri":"\/slow.php?secret=1","content length":0,"user":"-","script":"\/slow.php","last request cpu":0.00,"last request memory":0}]}"#;

    fn record(kind: u8, content: &[u8], padding: u8) -> Vec<u8> {
        let [high, low] = u16::try_from(content.len()).expect("short").to_be_bytes();
        let mut record = vec![1, kind, 0, 1, high, low, padding, 0];
        record.extend(content);
        record.resize(record.len() + usize::from(padding), b'x');
        record
    }

    /// The page in two records, with the head before it.
    fn answer(page: &str) -> Vec<u8> {
        let page = format!("Content-Type: application/json\r\n\r\n{page}");
        let (begin, end) = page.as_bytes().split_at(page.len() / 2);
        [record(STDOUT, begin, 5), record(7, b"a warning", 0), record(STDOUT, end, 3), record(3, &[0; 8], 0)].concat()
    }

    #[test]
    fn what_fpm_says_is_read() {
        let stats = parse(&answer(PAGE)).expect("read");
        let request = InFlight { request: "GET /slow.php".to_owned(), since: Duration::from_micros(509_164) };
        assert_eq!(stats, Stats { begun: 3, busy: 1, in_flight: vec![request] });
        let brief = PAGE
            .replace(PAGE.split_once(", \"processes\"").expect("it is in it").1, "")
            .replace(", \"processes\"", "}");
        assert_eq!(parse(&answer(&brief)).expect("read"), Stats { begun: 3, busy: 1, in_flight: Vec::new() });
    }

    #[test]
    fn what_is_cut_off_or_garbage_is_not_known() {
        let whole = answer(PAGE);
        let end = whole.len() - 16 - 3;
        for length in 0..end {
            assert!(parse(&whole[..length]).is_err(), "{length}");
        }
        for garbage in [&b"\x1b[2J"[..], &[0xff; 4096], &record(STDOUT, b"\xff\xfe{", 255)] {
            assert!(parse(garbage).is_err());
        }
        for page in ["", "null", "[]", "{}", r#"{"accepted conn":-1,"active processes":0}"#] {
            assert!(parse(&answer(page)).is_err(), "{page}");
        }
    }

    #[test]
    fn paths_are_bounded_and_act_on_no_terminal() {
        let mean = format!("/\\u001b[2J\u{202e}{}?x", "é".repeat(200));
        let stats = parse(&answer(&PAGE.replace("\\/slow.php?secret=1", &mean))).expect("read");
        let request = &stats.in_flight[0].request;
        assert!(request.starts_with("GET /\u{fffd}[2J\u{fffd}éé") && request.ends_with("é…"), "{request}");
        assert_eq!(request.chars().count(), 4 + MAX_PATH + 1);
        let process = r#"{"state":"Running","request duration":9,"request method":"GET","request uri":"/"}"#;
        let page = format!(
            r#"{{"accepted conn":4000,"active processes":2000,"processes":[{}]}}"#,
            vec![process; 300].join(",")
        );
        let stats = parse(&answer(&page)).expect("read");
        assert_eq!((stats.busy, stats.in_flight.len()), (2000, MAX_IN_FLIGHT));
        let page = r#"{"accepted conn":1,"active processes":18446744073709551615}"#;
        assert_eq!(parse(&answer(page)).expect("read").busy, 1);
    }

    #[test]
    fn a_question_is_four_records() {
        let question = question("/status", true);
        assert_eq!(&question[..16], [1, 1, 0, 1, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert!(question.windows(23).any(|part| part == b"\x0c\x09QUERY_STRINGjson&full"));
        assert!(question.ends_with(&[1, 4, 0, 1, 0, 0, 0, 0, 1, 5, 0, 1, 0, 0, 0, 0]));
    }
}
