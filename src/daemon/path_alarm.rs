//! The alarm about a listener whose path leads elsewhere: what is wrong with it, and the command that makes it right.

use crate::listener::{AtPath, Listener};

/// The words for what is wrong with a listener's path.
#[derive(Debug)]
pub(super) struct PathAlarm {
    address: String,
    remedy: String,
}

impl PathAlarm {
    pub(super) fn new(listener: &Listener, unit: Option<&str>) -> Self {
        Self { address: listener.address.to_string(), remedy: remedy(listener, unit) }
    }

    /// What is wrong, if something is, why it could not be bound again, and what to do about it.
    pub(super) fn text(&self, found: AtPath, refusal: Option<&str>) -> Option<String> {
        let what = match found {
            AtPath::Ours(_) | AtPath::Unknown => return None,
            AtPath::Nothing => "nothing is left at",
            AtPath::Another => "another file stands at",
        };
        let refusal = refusal.map_or_else(String::new, |why| format!(", and it cannot be bound again: {why}"));
        let Self { address, remedy } = self;
        Some(format!("{what} {address}: nobody can connect there{refusal}; to fix it: {remedy}"))
    }
}

/// What is wrong with a socket that was bound again and that workers lack.
pub(super) fn unserved(listener: &Listener) -> String {
    format!(
        "workers do not accept from {listener}, which was bound again: the reload that was to bring it to them was refused; it \
         is tried again every minute"
    )
}

/// The command that makes a lost path lead to a socket again.
fn remedy(listener: &Listener, unit: Option<&str>) -> String {
    if listener.is_bound_here() {
        return unit.map_or_else(|| "restart sockd".to_owned(), |unit| format!("systemctl restart {unit}"));
    }
    match (socket_unit(listener, unit), unit) {
        // Both at once: systemd starts no socket whose service runs.
        (Some(socket), Some(unit)) => format!("systemctl restart {socket} {unit}"),
        (Some(socket), None) => format!("systemctl restart {socket}"),
        (None, _) => format!("bind {} again and start sockd with it", listener.address),
    }
}

/// The socket unit: FileDescriptorName= is its name unless set otherwise, and its own name is the service's.
pub(super) fn socket_unit(listener: &Listener, unit: Option<&str>) -> Option<String> {
    if listener.name.ends_with(".socket") {
        return Some(listener.name.clone());
    }
    Some(format!("{}.socket", unit?.strip_suffix(".service")?))
}
