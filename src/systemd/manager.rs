//! Whose units the command-line tools are asked about: those of the system or those of our user.
//!
//! Owns: where each has its units and its bus. Never: asks one.

use std::path::PathBuf;

/// Whose units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Manager {
    /// The system's.
    #[default]
    System,
    /// Our user's own (`systemctl --user`).
    User,
}

impl Manager {
    /// Those whose units a command looks for where none is named: root's own manager is nobody's.
    pub fn all() -> &'static [Self] {
        match rustix::process::geteuid().is_root() {
            true => &[Self::System],
            false => &[Self::System, Self::User],
        }
    }

    /// The option of systemctl's.
    pub fn option(self) -> &'static str {
        match self {
            Self::System => "--system",
            Self::User => "--user",
        }
    }

    /// A unit's name as people type it behind a command of sockd's.
    pub fn name_typed(self, unit: &str) -> String {
        match self {
            Self::System => unit.to_owned(),
            Self::User => format!("--user {unit}"),
        }
    }

    /// systemctl as people type it.
    pub fn systemctl(self) -> &'static str {
        match self {
            Self::System => "systemctl",
            Self::User => "systemctl --user",
        }
    }

    /// Where it looks for units (systemd.unit(5), "Unit File Load Path"), without what only it writes.
    pub fn unit_directories(self) -> Vec<PathBuf> {
        match self {
            Self::System => [
                "/etc/systemd/system",
                "/run/systemd/system",
                "/run/systemd/generator",
                "/usr/local/lib/systemd/system",
                "/usr/lib/systemd/system",
                "/lib/systemd/system",
            ]
            .map(PathBuf::from)
            .into(),
            Self::User => [
                Some(config_home().join("systemd/user")),
                Some("/etc/systemd/user".into()),
                runtime_directory().map(|directory| directory.join("systemd/user")),
                Some("/run/systemd/user".into()),
                home_or_root("XDG_DATA_HOME", ".local/share").map(|directory| directory.join("systemd/user")),
                Some("/usr/local/lib/systemd/user".into()),
                Some("/usr/lib/systemd/user".into()),
            ]
            .into_iter()
            .flatten()
            .collect(),
        }
    }

    /// Where the directories of StateDirectory= are (systemd.exec(5)): a user's, before systemd 254, beside their
    /// configuration.
    pub fn state_directories(self) -> Vec<PathBuf> {
        match self {
            Self::System => vec!["/var/lib".into()],
            Self::User => home_or_root("XDG_STATE_HOME", ".local/state").into_iter().chain([config_home()]).collect(),
        }
    }

    /// Where units and drop-ins of one's own go.
    pub fn own_units(self) -> PathBuf {
        match self {
            Self::System => "/etc/systemd/system".into(),
            Self::User => config_home().join("systemd/user"),
        }
    }
}

/// The address of our user's bus; `None` where there is none. (The manager's own socket, which systemctl asks, sends names
/// that zbus refuses.)
pub(super) fn user_bus() -> Option<String> {
    let socket = runtime_directory().map(|directory| directory.join("bus")).filter(|socket| socket.exists());
    let usual = || socket.map(|socket| format!("unix:path={}", socket.display()));
    std::env::var("DBUS_SESSION_BUS_ADDRESS").ok().or_else(usual)
}

/// Where our user's services have their sockets: `$XDG_RUNTIME_DIR`, or where pam_systemd(8) puts it; `None` where the user
/// has no manager.
fn runtime_directory() -> Option<PathBuf> {
    let usual = || PathBuf::from(format!("/run/user/{}", rustix::process::geteuid().as_raw()));
    let directory = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(usual, PathBuf::from);
    directory.is_absolute().then_some(directory).filter(|directory| directory.is_dir())
}

/// `$XDG_CONFIG_HOME` or `~/.config`.
fn config_home() -> PathBuf {
    home_or_root("XDG_CONFIG_HOME", ".config").unwrap_or_else(|| "/nonexistent".into())
}

fn home_or_root(variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    let set = std::env::var_os(variable).map(PathBuf::from).and_then(absolute);
    set.or_else(|| std::env::var_os("HOME").map(PathBuf::from).and_then(absolute).map(|home| home.join(below_home)))
}
