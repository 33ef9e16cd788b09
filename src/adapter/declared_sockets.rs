//! What a server's own options state of its sockets, for those who must know without running it: `doctor`, and `adopt`,
//! which writes the socket unit that is the same to visitors. Where a template runs, its report is exact.
//!
//! Texts are those of [`text::from_os`]. Owns: how options and their variables are found in a command line.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use crate::app::text;

/// Where a server listens, and who may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredSockets {
    /// Where. Empty: a file of the server's says it.
    pub binds: Vec<Bind>,
    /// The server's own default is among them, and a file that it finds by itself may say otherwise.
    pub perhaps: bool,
    /// The permissions of its unix sockets.
    pub mode: Mode,
    /// What a relative path begins in, itself relative to the working directory. `None`: in that one.
    pub directory: Option<String>,
    /// Whether they speak uWSGI's own protocol, and not HTTP. `None`: only the server knows.
    pub uwsgi: Option<bool>,
    /// Where the server may say more.
    pub more: MoreSettings,
}

/// Where a server has settings besides its options, which win.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MoreSettings {
    /// Nowhere, or this code does not read it.
    Nowhere,
    /// In this file, if it is there; relative to the working directory.
    File(String),
    /// In a module that Python alone finds.
    Module,
}

/// One address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// In gunicorn's writing: see [`super::gunicorn::GunicornArgs::address`].
    pub address: String,
    /// As options say it, or would: `--uds /run/app.sock`.
    pub written: String,
}

/// The permissions of unix sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// These.
    Is(u32),
    /// All but those of the umask under which the service runs.
    ByUmask,
}

/// A server's arguments and environment, to be asked for its options.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// What follows the program, or the module's name.
    pub arguments: &'a [OsString],
    /// The variables of the service.
    pub environment: &'a BTreeMap<OsString, OsString>,
}

impl Options<'_> {
    /// Every value of an option in any of its spellings.
    pub fn all(&self, spellings: &[&str]) -> Vec<String> {
        values(self.arguments.iter().map(|word| text::from_os(word)), spellings)
    }

    /// The value that counts.
    pub fn last(&self, spellings: &[&str]) -> Option<String> {
        self.all(spellings).pop()
    }

    /// The same; where the option is not there its variable counts: `UVICORN_UDS`, for `--uds` and `prefix` UVICORN
    /// (click's `auto_envvar_prefix`).
    pub fn last_or_variable(&self, option: &str, prefix: &str) -> Option<String> {
        let variable = || {
            let name = format!("{prefix}_{}", option.trim_start_matches('-').replace('-', "_").to_uppercase());
            self.environment.get(OsStr::new(&name)).map(|value| text::from_os(value))
        };
        self.last(&[option]).or_else(variable)
    }
}

/// Every value of an option, in any of its spellings, among some words: behind `=`, as the next word, or behind a single
/// letter.
pub fn values(words: impl Iterator<Item = impl AsRef<str>>, spellings: &[impl AsRef<str>]) -> Vec<String> {
    let mut found = Vec::new();
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        let word = word.as_ref();
        found.extend(spellings.iter().map(AsRef::as_ref).find_map(|option| match word.strip_prefix(option)? {
            "" => words.peek().map(|next| next.as_ref().to_owned()),
            rest if option.starts_with("--") => rest.strip_prefix('=').map(str::to_owned),
            rest => Some(rest.strip_prefix('=').unwrap_or(rest).to_owned()),
        }));
    }
    found
}

impl DeclaredSockets {
    /// These addresses and permissions, in the service's own directory.
    pub fn new(binds: impl IntoIterator<Item = Bind>, mode: Mode) -> Self {
        Self {
            binds: binds.into_iter().collect(),
            perhaps: false,
            mode,
            directory: None,
            uwsgi: Some(false),
            more: MoreSettings::Nowhere,
        }
    }
}

impl Bind {
    /// An option's value in gunicorn's writing.
    pub fn new(option: &str, address: &str) -> Self {
        Self { address: address.to_owned(), written: format!("{option} {address}") }
    }

    /// A unix socket.
    pub fn unix(option: &str, path: &str) -> Self {
        Self { address: format!("unix:{path}"), written: format!("{option} {path}") }
    }

    /// A descriptor, of a socket that somebody else has bound.
    pub fn fds(option: &str, number: &str) -> Self {
        Self { address: format!("fd://{number}"), written: format!("{option} {number}") }
    }

    /// A host and a port, each with its option; what is not said is the `default`'s, HOST:PORT.
    pub fn tcp(
        (host_option, host): (&str, Option<String>),
        (port_option, port): (&str, Option<String>),
        default: &str,
    ) -> Self {
        let (default_host, default_port) = default.rsplit_once(':').unwrap_or((default, ""));
        let (host, port) = (host.as_deref().unwrap_or(default_host), port.as_deref().unwrap_or(default_port));
        let plain = host.trim_matches(['[', ']']);
        let address = if plain.contains(':') { format!("[{plain}]:{port}") } else { format!("{plain}:{port}") };
        Self { address, written: format!("{host_option} {host} {port_option} {port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::{Making, recognise};

    fn stated(line: &str, variables: &[(&str, &str)]) -> Result<DeclaredSockets, String> {
        let command: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let environment = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let Making::Template(python) = recognise(&command).making else { panic!("{line}") };
        python.stated(&command, &environment).expect("the one that was recognised")
    }

    #[test]
    fn addresses_are_those_of_the_options() {
        for (line, addresses) in [
            ("gunicorn --bind unix:/run/g.sock a:b", &["unix:/run/g.sock"][..]),
            ("gunicorn -b:80 -b [::1]:81 a:b", &[":80", "[::1]:81"]),
            ("gunicorn a:b", &["127.0.0.1:8000"]),
            ("gunicorn -c conf.py a:b", &[]),
            ("uvicorn a:b", &["127.0.0.1:8000"]),
            ("uvicorn --host :: --port 9000 a:b", &["[::]:9000"]),
            ("uvicorn --uds /run/u.sock a:b", &["unix:/run/u.sock"]),
            ("uvicorn --fd 3 a:b", &["fd://3"]),
            ("granian --interface asgi --port=9000 a:b", &["127.0.0.1:9000"]),
            ("granian --uds r.sock a:b", &["unix:r.sock"]),
            ("hypercorn --bind=unix:/run/h.sock -b 127.0.0.1:1 a:b", &["unix:/run/h.sock", "127.0.0.1:1"]),
            ("hypercorn a:b", &["127.0.0.1:8000"]),
            ("hypercorn --config file:conf.py a:b", &[]),
            ("daphne a:b", &["127.0.0.1:8000"]),
            ("daphne -u /run/d.sock a:b", &["unix:/run/d.sock"]),
            ("daphne -u /run/d.sock -p 80 a:b", &["unix:/run/d.sock", "127.0.0.1:80"]),
            ("daphne -b ::1 a:b", &["[::1]:8000"]),
            ("waitress-serve a:b", &["0.0.0.0:8080"]),
            ("waitress-serve --listen=*:80 --listen=[::1]:81 a:b", &["0.0.0.0:80", "[::]:80", "[::1]:81"]),
            ("waitress-serve --listen=127.0.0.1 --listen=[::1] a:b", &["127.0.0.1:8080", "[::1]:8080"]),
            ("waitress-serve --host=* --port=80 a:b", &["0.0.0.0:80", "[::]:80"]),
            ("waitress-serve --port 9000 --host 127.0.0.1 a:b", &["127.0.0.1:9000"]),
            ("waitress-serve --unix-socket=/run/w.sock a:b", &["unix:/run/w.sock"]),
        ] {
            let found = stated(line, &[]).expect(line);
            let found: Vec<&str> = found.binds.iter().map(|bind| bind.address.as_str()).collect();
            assert_eq!(found, addresses, "{line}");
        }
        let perhaps = |line| stated(line, &[]).expect(line).perhaps;
        assert!(perhaps("gunicorn a:b") && !perhaps("gunicorn -b :80 a:b") && !perhaps("uvicorn a:b"));
        let endpoint = stated("daphne -e unix:/run/d.sock:mode=660 a:b", &[]).expect_err("Twisted's own writing");
        assert!(endpoint.contains("--endpoint unix:/run/d.sock:mode=660"), "{endpoint}");
        let by_variable = stated("uvicorn a:b", &[("UVICORN_UDS", "/run/v.sock")]).expect("no number");
        assert_eq!(by_variable.binds, [Bind::unix("--uds", "/run/v.sock")]);
    }

    #[test]
    fn permissions_are_as_each_server_writes_them() {
        for (line, mode) in [
            ("gunicorn a:b", Mode::Is(0o777)),
            ("gunicorn -m 007 a:b", Mode::Is(0o770)),
            ("uvicorn a:b", Mode::Is(0o666)),
            ("daphne a:b", Mode::Is(0o666)),
            ("hypercorn a:b", Mode::ByUmask),
            ("hypercorn -m 7 a:b", Mode::Is(0o770)),
            ("granian a:b", Mode::ByUmask),
            ("granian --uds-permissions 0660 a:b", Mode::Is(0o660)),
            ("granian --uds-permissions 432 a:b", Mode::Is(0o660)),
            ("waitress-serve a:b", Mode::Is(0o600)),
            ("waitress-serve --unix-socket-perms=660 a:b", Mode::Is(0o660)),
        ] {
            assert_eq!(stated(line, &[]).expect(line).mode, mode, "{line}");
        }
        for line in
            ["hypercorn -m x a:b", "granian --uds-permissions 9x a:b", "waitress-serve --unix-socket-perms=8 a:b"]
        {
            assert!(stated(line, &[]).expect_err(line).ends_with("is no number"), "{line}");
        }
    }
}
