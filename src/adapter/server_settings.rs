//! What a template reports of its server's settings: the server's own reading of command line, environment and file.

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::app::text;

/// The settings that matter to us, as the server itself understood them. Unknown ones are ignored.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ServerSettings {
    /// How many workers, 1 or more.
    pub workers: u32,
    /// Seconds without a heartbeat after which a worker hangs; 0 means never.
    pub timeout: u32,
    /// Seconds a worker may drain. `None`: the server sets no limit, and ours counts.
    pub graceful_timeout: Option<u32>,
    /// The directory it changed to, relative to where it was started.
    #[serde(deserialize_with = "path")]
    pub chdir: PathBuf,
    /// Where the server would listen by itself, as gunicorn writes it: see [`super::gunicorn::GunicornArgs::address`].
    #[serde(deserialize_with = "texts")]
    pub bind: Vec<String>,
    /// The user and the group that own its unix sockets. `None`: those who bind them.
    #[serde(default)]
    pub owner: Option<(u32, u32)>,
    /// The umask for unix sockets it would bind.
    pub umask: u32,
    /// The backlog it would ask for.
    pub backlog: u32,
    /// Whether the template holds the application.
    #[serde(default)]
    pub preload: bool,
    /// Why no copy of the template can answer requests to itself. `None`: it can, if the template holds the application.
    #[serde(default)]
    pub unfit_to_warm: Option<String>,
    /// Whether a worker serves one request at a time, so that a busy one is as silent as a hung one.
    #[serde(default)]
    pub silent_when_busy: bool,
    /// Whether its sockets speak TLS, its private one too.
    #[serde(default)]
    pub speaks_tls: bool,
    /// Whether they speak the uwsgi protocol.
    #[serde(default)]
    pub speaks_uwsgi: bool,
    /// Whether hooks of the user's in the template must know all workers, and of each that ends.
    #[serde(default)]
    pub follows_workers: bool,
    /// Whether hooks of the user's in the template must know when the service begins and ends.
    #[serde(default)]
    pub follows_service: bool,
    /// Whether hooks of the user's run in the template while workers are ordered.
    #[serde(default)]
    pub runs_hooks: bool,
}

#[derive(Deserialize)]
struct Message {
    hello: Hello,
}

#[derive(Deserialize)]
struct Hello {
    settings: ServerSettings,
}

impl ServerSettings {
    /// Reads the `settings` of a template's hello, the whole message in JSON. Its strings may hold bytes that are no
    /// UTF-8, as Python writes them.
    ///
    /// # Errors
    /// What is missing or of the wrong type.
    pub fn read(message: &[u8]) -> Result<Self, String> {
        let message: Result<Message, _> = serde_json::from_slice(message);
        message
            .map(|message| message.hello.settings)
            .map_err(|error| format!("the template reports no settings we know: {error}"))
    }

    /// When a worker's silence means that it hangs: `--timeout`, unless it is switched off.
    pub fn watchdog(&self) -> Option<Duration> {
        (self.timeout > 0).then(|| Duration::from_secs(self.timeout.into()))
    }
}

/// A string of Python's, as [`text::from_python`] reads it.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E: Error>(self, string: &[u8]) -> Result<Text, E> {
                Ok(Text(text::from_python(string)))
            }
        }
        // Only so does serde_json hand over surrogates, as WTF-8.
        deserializer.deserialize_bytes(Bytes)
    }
}

fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Vec::<Text>::deserialize(deserializer)?.into_iter().map(|Text(text)| text).collect())
}

fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    Text::deserialize(deserializer).map(|Text(text)| text::to_os(&text).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn paths_are_bytes() {
        let message = br#"{"hello":{"gunicorn":"27","settings":{"workers":1,"timeout":30,"graceful_timeout":30,
            "chdir":"/caf\udce9","bind":["unix:/run/caf\udce9.sock","unix:/run/caf\u00e9.sock"],"umask":0,"backlog":1,
            "wsgi":"\udcff:app","owner":[1,2]}}}"#;
        let report = ServerSettings::read(message).expect("it is understood");
        assert_eq!(report.chdir.as_os_str(), OsStr::from_bytes(b"/caf\xe9"));
        assert_eq!(text::to_os(&report.bind[0]), OsStr::from_bytes(b"unix:/run/caf\xe9.sock"));
        assert_eq!(report.bind[1], "unix:/run/caf\u{e9}.sock");
        assert_eq!(report.owner, Some((1, 2)));
        assert!(ServerSettings::read(br#"{"hello":{"settings":{"workers":"three"}}}"#).is_err());
    }
}
