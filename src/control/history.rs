//! The history of an instance, as it is said over the control socket and kept in a file: one entry for each reload and start.
//!
//! Owns: the shape of an entry. Never: reads or writes anything.

use serde::{Deserialize, Serialize};

/// A reload, a rollback or a start, once it has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryEntry {
    /// When it ended: milliseconds since 1970 (UTC).
    pub at_unix_ms: u64,
    /// How long it took.
    pub took_ms: u64,
    /// What was done.
    pub action: Action,
    /// Who asked for it, several where they shared one reload; empty for a start.
    pub asked_by: Vec<Asker>,
    /// The generation that serves, that was refused, or whose reload was cut short.
    pub generation: u64,
    /// What it was made from; `None` where the configuration could not be read.
    pub release: Option<Release>,
    /// How it ended.
    pub result: HistoryResult,
    /// Why it was refused, in one line.
    pub reason: Option<String>,
    /// What had shown by then that the new code works.
    pub proof: Proof,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The instance started.
    #[default]
    Start,
    /// A reload.
    Reload,
    /// A reload back to a release that served before.
    Rollback,
    /// Something this program does not know.
    #[serde(other)]
    Unknown,
}

/// How it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HistoryResult {
    /// The generation serves.
    Serving,
    /// The generation is proven and waits for the first connection.
    Waiting,
    /// It was refused before a worker of it was ready for visitors.
    Refused,
    /// It was refused when workers of it were ready for visitors already.
    TakenBack,
    /// It could not start, and visitors were answered 503.
    NotStarted,
    /// The service was stopped before the reload had ended.
    CutShort,
    /// A result this program does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

impl HistoryResult {
    /// Whether the release was good: it serves, or would.
    pub fn is_good(self) -> bool {
        match self {
            Self::Serving | Self::Waiting => true,
            Self::Refused | Self::TakenBack | Self::NotStarted | Self::CutShort | Self::Unknown => false,
        }
    }
}

/// The directory that a generation ran from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Release {
    /// Its path without symbolic links.
    pub directory: String,
    /// The commit in it, in hexadecimal digits; `None` where it is no repository and has no file REVISION.
    pub commit: Option<String>,
}

/// Who asked for a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Asker {
    /// How.
    pub means: Means,
    /// The user of the process that asked, as the kernel tells it; `None` where nobody did.
    pub uid: Option<u32>,
    /// That user's name in /etc/passwd.
    pub user: Option<String>,
    /// The user who had logged in and became root (by sudo or su), as the kernel keeps it for root's process
    /// (/proc/PID/loginuid).
    pub login_uid: Option<u32>,
    /// That user's name in /etc/passwd.
    pub login_user: Option<String>,
}

/// How a reload was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Means {
    /// By `sockd reload` or another client of the control socket.
    ControlSocket,
    /// By the same in ExecReload=: `systemctl reload`, by that client's own word.
    ExecReload,
    /// By SIGHUP.
    Signal,
    /// By SIGHUP of systemd itself.
    Systemd,
    /// By sockd itself: workers lacked a socket that was bound again.
    Sockd,
    /// By a way this program does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

/// What had shown that the new code works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Proof {
    /// So many programs of `reload.check` ended well.
    pub checks: u32,
    /// A canary answered.
    pub canary: bool,
    /// Visitors tried it on a few workers, with so many answers.
    pub tried: u64,
    /// So many workers were ready for visitors.
    pub workers: u32,
    /// All of them were watched for so long.
    pub soak_ms: u64,
}

/// What a client says of who asks, for the history and for nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// The user who had logged in (/proc/self/loginuid). It is believed of root's processes alone.
    pub login_uid: Option<u32>,
    /// Whether it is the command of an ExecReload=.
    pub exec_reload: bool,
}
