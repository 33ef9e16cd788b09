//! What gunicorn's command line and environment say by themselves, without Python.
//!
//! The command line is read as Python's argparse reads it, with the options of gunicorn 27 and its predecessors.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

use crate::app::{Address, text};
use crate::suggestion;

use super::super::shlex::split;

/// What is known of gunicorn's settings before gunicorn has been asked, texts as [`text::from_os`] makes them. `None`:
/// nothing is said; the configuration file may still say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GunicornArgs {
    /// The application: `myproject.wsgi:application`.
    pub application: Option<String>,
    /// Where to listen, in gunicorn's own writing (see [`GunicornArgs::address`]). Empty: nothing is said.
    pub bind: Vec<String>,
    /// Where gunicorn listens if the configuration file does not say either: by PORT, else 127.0.0.1:8000.
    pub default_bind: String,
    /// How many workers.
    pub workers: Option<u32>,
    /// How many workers there are if the configuration file does not say either: WEB_CONCURRENCY, else 1.
    pub default_workers: u32,
    /// A silent worker is killed after this time; zero: never.
    pub timeout: Option<Duration>,
    /// How long a worker may finish its requests.
    pub graceful_timeout: Option<Duration>,
    /// The umask of unix sockets and of the workers. gunicorn's default is 0: everybody may connect.
    pub umask: Option<u32>,
    /// Connections that may wait.
    pub backlog: Option<u32>,
    /// Whether its sockets speak uWSGI's own protocol.
    pub uwsgi: Option<bool>,
    /// Whether the application is loaded once, before the workers are forked.
    pub preload: bool,
    /// The configuration file (or `python:MODULE`). `None`: `gunicorn.conf.py` in the directory, if it is there.
    pub config: Option<String>,
    /// The directory to change to, relative to the working directory.
    pub chdir: Option<String>,
    /// Directories for Python's path, separated by commas.
    pub pythonpath: Option<String>,
    /// What gunicorn would not understand, or a later gunicorn might. For warnings.
    pub doubts: Vec<String>,
}

impl GunicornArgs {
    /// Reads gunicorn's arguments (see [`crate::adapter::python::Python::invocation`]) and the workers' environment. The command line wins
    /// over GUNICORN_CMD_ARGS, as in gunicorn.
    pub fn read(arguments: &[OsString], environment: &BTreeMap<OsString, OsString>) -> Self {
        let variable = |name: &str| environment.get(OsStr::new(name)).map(|value| text::from_os(value));
        let port = variable("PORT").map(|port| format!("0.0.0.0:{port}"));
        let mut known = Self {
            default_bind: port.unwrap_or_else(|| "127.0.0.1:8000".to_owned()),
            default_workers: 1,
            ..Self::default()
        };
        if let Some(text) = variable("WEB_CONCURRENCY") {
            match integer(&text) {
                Some(workers) => known.default_workers = workers,
                None => known.doubts.push(format!("WEB_CONCURRENCY={text:?} is not a number")),
            }
        }
        if let Some(line) = variable("GUNICORN_CMD_ARGS") {
            match split(&line) {
                Ok(words) => known.arguments(words.iter().map(String::as_str)),
                Err(why) => known.doubts.push(format!("GUNICORN_CMD_ARGS: {why}")),
            }
            // gunicorn takes no application from there.
            known.application = None;
        }
        let bound = std::mem::take(&mut known.bind);
        let words: Vec<_> = arguments.iter().map(|argument| text::from_os(argument)).collect();
        known.arguments(words.iter().map(String::as_str));
        if known.bind.is_empty() {
            known.bind = bound;
        }
        known
    }

    /// What gunicorn means by a `--bind`: a unix socket's relative path is relative to its directory. `None` for
    /// `fd://N`, a socket it was given.
    ///
    /// # Errors
    /// Why it is no address: a port that is no number, or a host name, which would have to be looked up.
    pub fn address(bind: &str) -> Result<Option<Address>, String> {
        let written = with_port(bind);
        if written.starts_with("fd://") {
            return Ok(None);
        }
        written.parse::<Address>().map(Some).map_err(|error| error.to_string())
    }

    /// The host and the port of a `--bind` that must be looked up: a name, or a number with a zone (`[fe80::1%eth0]`).
    pub fn name(bind: &str) -> Option<(String, u16)> {
        let written = with_port(bind);
        if written.starts_with("unix:") || written.starts_with("fd://") || written.parse::<Address>().is_ok() {
            return None;
        }
        let (host, port) = written.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
        let plain = |c: char| c.is_alphanumeric() || "-._:%".contains(c);
        let zoned = |host: &str| host.split_once('%').is_some_and(|(ip, _)| ip.parse::<std::net::Ipv6Addr>().is_ok());
        let is_name = host.chars().all(plain) && (zoned(host) || !host.contains([':', '%']));
        Some((host.to_owned(), port.parse().ok()?)).filter(|_| is_name && !host.is_empty())
    }

    /// The configuration file, named or not. `None`: it is a module, which Python alone finds.
    pub fn config_file(&self) -> Option<&str> {
        let named = self.config.as_deref().unwrap_or("gunicorn.conf.py");
        (!named.starts_with("python:")).then(|| named.strip_prefix("file:").unwrap_or(named))
    }

    /// Reads one list of arguments as argparse does.
    fn arguments<'a>(&mut self, words: impl Iterator<Item = &'a str>) {
        let mut words = words.peekable();
        while let Some(word) = words.next() {
            if word == "--" {
                words.by_ref().for_each(|word| self.positional(word));
            } else if !looks_like_option(word) {
                self.positional(word);
            } else {
                match options(word) {
                    Err(doubt) => self.doubts.push(doubt),
                    Ok(found) => found.into_iter().for_each(|(name, joined)| {
                        let value = match (takes(name), joined) {
                            (Takes::Nothing, Some(_)) => {
                                return self.doubts.push(format!("gunicorn takes no value for {name}"));
                            }
                            (Takes::Nothing, None) => Some(""),
                            (Takes::Perhaps(values), None) => words.next_if(|next| values.contains(next)).or(Some("")),
                            (Takes::Value, None) => words.next_if(|next| !looks_like_option(next)),
                            (Takes::Perhaps(_) | Takes::Value, Some(value)) => Some(value),
                        };
                        match value {
                            Some(value) => self.set(name, value),
                            None => self.doubts.push(format!("{name} has no value")),
                        }
                    }),
                }
            }
        }
    }

    fn positional(&mut self, word: &str) {
        // gunicorn looks at the first alone.
        self.application.get_or_insert_with(|| word.to_owned());
    }

    fn set(&mut self, name: &str, value: &str) {
        let mut number = |parse: fn(&str) -> Option<u32>| {
            let number = parse(value);
            if number.is_none() {
                self.doubts.push(format!("gunicorn does not take {value:?} for {name}"));
            }
            number
        };
        let seconds = |number: u32| Duration::from_secs(number.into());
        // gunicorn trims its texts, too.
        let text = || Some(value.trim().to_owned());
        match name {
            "--bind" => self.bind.extend(text()),
            "--workers" => self.workers = number(integer).or(self.workers),
            "--timeout" => self.timeout = number(integer).map(seconds).or(self.timeout),
            "--graceful-timeout" => self.graceful_timeout = number(integer).map(seconds).or(self.graceful_timeout),
            "--umask" => self.umask = number(any_base).or(self.umask),
            "--backlog" => self.backlog = number(integer).or(self.backlog),
            "--preload" => self.preload = true,
            "--protocol" => self.uwsgi = Some(value.trim() == "uwsgi"),
            "--config" => self.config = text(),
            "--chdir" => self.chdir = text(),
            "--pythonpath" => self.pythonpath = text(),
            _ => {}
        }
    }
}

/// A `--bind` with gunicorn's default port, if it has none; a lone word is a host.
fn with_port(bind: &str) -> String {
    let bind = bind.trim();
    let bind = bind.strip_prefix("tcp://").unwrap_or(bind);
    let complete = bind.starts_with("unix:") || bind.rsplit(']').next().is_some_and(|tail| tail.contains(':'));
    if complete { bind.to_owned() } else { format!("{bind}:8000") }
}

/// What an option wants after it.
#[derive(Clone, Copy)]
enum Takes {
    Nothing,
    Value,
    /// One of these words, or nothing.
    Perhaps(&'static [&'static str]),
}

/// The letters and what they stand for.
#[rustfmt::skip]
const LETTERS: &[(char, &str)] = &[
    ('D', "--daemon"), ('R', "--enable-stdio-inheritance"), ('b', "--bind"), ('c', "--config"), ('e', "--env"),
    ('g', "--group"), ('h', "--help"), ('k', "--worker-class"), ('m', "--umask"), ('n', "--name"), ('p', "--pid"),
    ('t', "--timeout"), ('u', "--user"), ('v', "--version"), ('w', "--workers"),
];

/// Options without a value.
#[rustfmt::skip]
const FLAGS: &[&str] = &[
    "--capture-output", "--casefold-http-method", "--check-config", "--daemon",
    "--disable-redirect-access-to-syslog", "--do-handshake-on-connect", "--enable-backlog-metric",
    "--enable-stdio-inheritance", "--help", "--initgroups", "--log-syslog", "--no-control-socket", "--no-sendfile",
    "--permit-obsolete-folding", "--permit-unconventional-http-method", "--permit-unconventional-http-version",
    "--preload", "--print-config", "--reload", "--reuse-port", "--spew", "--strip-header-spaces",
    "--suppress-ragged-eofs", "--version",
];

/// A flag up to gunicorn 23, later an option with a value that may be left out.
const PROXY_PROTOCOL: &str = "--proxy-protocol";

/// Options with a value.
#[rustfmt::skip]
const VALUES: &[&str] = &[
    "--access-logfile", "--access-logformat", "--asgi-disconnect-grace-period", "--asgi-lifespan", "--asgi-loop",
    "--backlog", "--bind", "--ca-certs", "--cert-reqs", "--certfile", "--chdir", "--ciphers", "--config",
    "--control-socket", "--control-socket-mode", "--dirty-app", "--dirty-graceful-timeout", "--dirty-threads",
    "--dirty-timeout", "--dirty-workers", "--dogstatsd-tags", "--env", "--error-logfile", "--forwarded-allow-ips",
    "--forwarder-headers", "--graceful-timeout", "--group", "--header-map", "--http-parser", "--http-protocols",
    "--http2-cleartext", "--http2-initial-window-size", "--http2-max-concurrent-streams", "--http2-max-frame-size",
    "--http2-max-header-list-size", "--keep-alive", "--keyfile", "--limit-request-field_size",
    "--limit-request-fields", "--limit-request-line", "--log-config", "--log-config-json", "--log-file",
    "--log-level", "--log-syslog-facility", "--log-syslog-prefix", "--log-syslog-to", "--logger-class",
    "--max-requests", "--max-requests-jitter", "--name", "--paste", "--paste-global", "--paster", "--pid",
    "--protocol", "--proxy-allow-from", "--pythonpath", "--reload-engine", "--reload-extra-file", "--root-path",
    "--ssl-version", "--statsd-host", "--statsd-prefix", "--threads", "--timeout", "--umask", "--user",
    "--uwsgi-allow-from", "--websocket-max-message-size", "--worker-class", "--worker-connections",
    "--worker-tmp-dir", "--workers",
];

fn takes(name: &str) -> Takes {
    if name == PROXY_PROTOCOL {
        Takes::Perhaps(&["off", "v1", "v2", "auto", "true", "false"])
    } else if FLAGS.contains(&name) {
        Takes::Nothing
    } else {
        Takes::Value
    }
}

/// The options one word names, by their long names, the last perhaps with a value joined to it: `--workers=3`,
/// `--worker-cl=sync`, `-w3`, `-w=3`, `-Rw3`.
fn options(word: &str) -> Result<Vec<(&'static str, Option<&str>)>, String> {
    let unknown = || {
        let name = word.split('=').next().unwrap_or_default();
        let near = suggestion::nearest(name, FLAGS.iter().chain(VALUES).copied()).filter(|_| word.starts_with("--"));
        let help = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
        format!("gunicorn has no option {word:?}{help}")
    };
    if word.starts_with("--") {
        let (name, joined) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        let all = || FLAGS.iter().chain(VALUES).chain([&PROXY_PROTOCOL]).copied();
        if let Some(exact) = all().find(|option| *option == name) {
            return Ok(vec![(exact, joined)]);
        }
        let meant: Vec<_> = all().filter(|option| option.starts_with(name)).collect();
        return match meant[..] {
            [] => Err(unknown()),
            [option] => Ok(vec![(option, joined)]),
            _ => Err(format!("{word:?} may mean {}", meant.join(" or "))),
        };
    }
    let mut found = Vec::new();
    let mut letters = word[1..].chars();
    while let Some(letter) = letters.next() {
        let (_, name) = LETTERS.iter().find(|(known, _)| *known == letter).ok_or_else(unknown)?;
        let rest = letters.as_str();
        if found.is_empty() && rest.starts_with('=') || !matches!(takes(name), Takes::Nothing) {
            let joined = if found.is_empty() { rest.strip_prefix('=').unwrap_or(rest) } else { rest };
            found.push((*name, Some(joined).filter(|_| !rest.is_empty())));
            break;
        }
        found.push((*name, None));
    }
    Ok(found)
}

/// Whether argparse takes a word for an option, even for one it does not know. `-`, negative numbers and texts with a
/// space are none.
fn looks_like_option(word: &str) -> bool {
    let Some(rest) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
        return false;
    };
    let negative_number = rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    options(word).is_ok() || !(negative_number || rest.contains(' '))
}

/// Python's `int(text)`, from 0.
fn integer(text: &str) -> Option<u32> {
    digits(text.trim().trim_start_matches('+'), 10)
}

/// gunicorn's `auto_int`: Python's `int(text, 0)`, and a leading zero means octal.
fn any_base(text: &str) -> Option<u32> {
    let text = text.trim();
    let lower = text.to_ascii_lowercase();
    match (lower.get(..2), lower.get(2..)) {
        (Some("0x"), Some(rest)) => digits(rest, 16),
        (Some("0o"), Some(rest)) => digits(rest, 8),
        (Some("0b"), Some(rest)) => digits(rest, 2),
        (Some(_), Some(_)) if lower.starts_with('0') => digits(&lower[1..], 8),
        _ => integer(text),
    }
}

/// Digits of a base, with Python's single underscores between them.
fn digits(text: &str, base: u32) -> Option<u32> {
    let well_formed = text.split('_').all(|part| !part.is_empty() && part.chars().all(|c| c.is_digit(base)));
    well_formed.then(|| u32::from_str_radix(&text.replace('_', ""), base).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str, variables: &[(&str, &str)]) -> GunicornArgs {
        let arguments: Vec<OsString> = split(line).expect(line).into_iter().map(OsString::from).collect();
        GunicornArgs::read(&arguments, &variables.iter().map(|(name, value)| (name.into(), value.into())).collect())
    }

    #[test]
    fn reads_the_guides_lines() {
        let known =
            read("--access-logfile - --workers 3 --bind unix:/run/gunicorn.sock myproject.wsgi:application", &[]);
        assert_eq!(known.application.as_deref(), Some("myproject.wsgi:application"));
        assert_eq!(
            (known.workers, known.bind, known.doubts),
            (Some(3), vec!["unix:/run/gunicorn.sock".into()], vec![])
        );

        let known = read("--workers 3 --bind unix:myproject.sock -m 007 wsgi:app", &[]);
        assert_eq!((known.umask, known.application.as_deref()), (Some(7), Some("wsgi:app")));
    }

    #[test]
    fn reads_as_argparse_does() {
        for (line, workers, application) in [
            ("-w3 a", 3, "a"),
            ("-w=3 a", 3, "a"),
            ("-w 3 a", 3, "a"),
            ("-Rw3 a", 3, "a"),
            ("-DRw 3 a", 3, "a"),
            ("--workers=3 a", 3, "a"),
            ("a --workers 3", 3, "a"),
            ("--workers 2 --workers 3 a", 3, "a"),
            ("--graceful 9 --workers 3 a", 3, "a"),
            ("--preload --workers 3 -- a", 3, "a"),
            ("--workers ' +1_0 ' a", 10, "a"),
            ("--proxy-protocol -w 3 a", 3, "a"),
            ("-w 3 --proxy-protocol a", 3, "a"),
            ("-w 3 --proxy-protocol auto a", 3, "a"),
            ("-w 3 --proxy-protocol=v1 a", 3, "a"),
            ("--access-logformat '-%(h)s %(t)s' -w 3 a", 3, "a"),
            ("--env A=-w9 -w 3 a b", 3, "a"),
        ] {
            let known = read(line, &[]);
            assert_eq!(known.workers, Some(workers), "{line}");
            assert_eq!(known.application.as_deref(), Some(application), "{line}");
            assert_eq!(known.doubts, Vec::<String>::new(), "{line}");
        }
    }

    #[test]
    fn reads_every_setting() {
        let known = read(
            "-b :80 --bind=unix:x -t 0 --graceful-timeout 7 -m 0x12 --backlog 9 --preload -c conf.py --chdir ' /srv ' \
             --pythonpath a,b --proto uwsgi m:a",
            &[],
        );
        let expected = GunicornArgs {
            application: Some("m:a".into()),
            bind: vec![":80".into(), "unix:x".into()],
            default_bind: "127.0.0.1:8000".into(),
            workers: None,
            default_workers: 1,
            timeout: Some(Duration::ZERO),
            graceful_timeout: Some(Duration::from_secs(7)),
            umask: Some(0o22),
            backlog: Some(9),
            uwsgi: Some(true),
            preload: true,
            config: Some("conf.py".into()),
            chdir: Some("/srv".into()),
            pythonpath: Some("a,b".into()),
            doubts: vec![],
        };
        assert_eq!(known, expected);
    }

    #[test]
    fn the_command_line_wins_over_the_environment() {
        let variables =
            [("GUNICORN_CMD_ARGS", "-b :1 -b :2 --workers 5 -t 9 other:app"), ("WEB_CONCURRENCY", "7"), ("PORT", "80")];
        let known = read("-w 3", &variables);
        assert_eq!((known.workers, known.default_workers, known.application), (Some(3), 7, None));
        assert_eq!(known.bind, [":1", ":2"]);
        assert_eq!(known.timeout, Some(Duration::from_secs(9)));
        assert_eq!(known.default_bind, "0.0.0.0:80");
        assert_eq!(read("-b :3", &variables).bind, [":3"]);
    }

    #[test]
    fn tells_its_doubts() {
        for (line, part) in [
            ("--wrokers 3", "no option \"--wrokers\""),
            ("--worker 3", "--worker-class or --worker-connections or --worker-tmp-dir or --workers"),
            ("-x", "no option"),
            ("-w", "has no value"),
            ("-w --preload", "has no value"),
            ("-w three", "\"three\""),
            ("-w -1", "\"-1\""),
            ("-m 08", "\"08\""),
            ("--preload=yes", "no value for --preload"),
            ("-R=1", "no value for --enable-stdio-inheritance"),
        ] {
            let known = read(line, &[]);
            assert_eq!(known.doubts.len(), 1, "{line}: {:?}", known.doubts);
            assert!(known.doubts[0].contains(part), "{line}: {:?}", known.doubts);
        }
        assert_eq!(read("", &[("GUNICORN_CMD_ARGS", "'x")]).doubts.len(), 1);
        assert_eq!(read("", &[("WEB_CONCURRENCY", "many")]).doubts.len(), 1);
    }

    #[test]
    fn umasks_are_octal_with_a_zero() {
        for (text, umask) in
            [("007", 7), ("022", 0o22), ("0o22", 0o22), ("18", 18), ("0X1f", 31), ("0b11", 3), ("0", 0), ("00", 0)]
        {
            assert_eq!(any_base(text), Some(umask), "{text}");
        }
        for text in ["08", "", "0x", "-1", "1__0", "_1", "u+x"] {
            assert_eq!(any_base(text), None, "{text}");
        }
    }

    #[test]
    fn understands_addresses() {
        for (bind, address) in [
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("unix:a.sock", "unix:a.sock"),
            (" 0.0.0.0:80", "0.0.0.0:80"),
            ("tcp://127.0.0.1:80", "127.0.0.1:80"),
            ("0.0.0.0", "0.0.0.0:8000"),
            ("", "0.0.0.0:8000"),
            ("[::1]", "[::1]:8000"),
            ("[::1]:80", "[::1]:80"),
            (":80", "0.0.0.0:80"),
            ("localhost", "127.0.0.1:8000"),
        ] {
            let found = GunicornArgs::address(bind).expect(bind).expect(bind);
            assert_eq!(found.to_string(), address, "{bind:?}");
        }
        assert_eq!(GunicornArgs::address("fd://3"), Ok(None));
        for (bind, name) in [
            ("example.com:80", Some(("example.com", 80))),
            ("web-1", Some(("web-1", 8000))),
            ("tcp://web:81", Some(("web", 81))),
            ("[fe80::1%lo]:80", Some(("fe80::1%lo", 80))),
            ("[fe80::1%lo]", Some(("fe80::1%lo", 8000))),
            ("web:http", None),
            ("a b:80", None),
            ("[::zz]:80", None),
            (":80", None),
            ("unix:web", None),
            ("fd://3", None),
        ] {
            let found = GunicornArgs::name(bind);
            assert_eq!(found.as_ref().map(|(host, port)| (host.as_str(), *port)), name, "{bind:?}");
            assert!(name.is_none() || GunicornArgs::address(bind).is_err(), "{bind:?}");
        }
        assert!(GunicornArgs::address("127.0.0.1:http").is_err());
    }
}
