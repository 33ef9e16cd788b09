//! Variables of the environment: which ones a worker must not inherit, and what one looks like.

/// What speaks of sockd's own process alone (sd_listen_fds(3), sd_notify(3), systemd.exec(5)). A worker that
/// inherited one of these would answer systemd in sockd's name, or look for sockets it was not given.
const OF_SOCKD_ALONE: &[&str] = &[
    "CPU_PRESSURE_WATCH",
    "CPU_PRESSURE_WRITE",
    "FDSTORE",
    "IO_PRESSURE_WATCH",
    "IO_PRESSURE_WRITE",
    "JOURNAL_STREAM",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_FDS_FIRST_FD",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "MAINPID",
    "MAINPIDFDID",
    "MANAGERPID",
    "MANAGERPIDFDID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "NOTIFY_SOCKET",
    "SYSTEMD_EXEC_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// Whether a variable speaks of sockd's own process alone, so that no worker may inherit it.
pub fn speaks_of_sockd_alone(name: &str) -> bool {
    OF_SOCKD_ALONE.contains(&name)
}

/// Checks the name of a variable as systemd does: letters, digits and underscores, no digit first.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let first = name.chars().next();
    if first.is_none() {
        return Err("the name of a variable is missing".to_owned());
    }
    if first.is_some_and(|c| c.is_ascii_digit()) || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        // It may be anything: the beginning of a line that was not meant for a name, a password among it.
        return Err("this is not the name of a variable: letters, digits and underscores, no digit first".to_owned());
    }
    if speaks_of_sockd_alone(name) {
        return Err(format!("{name} is not for setting: sockd gives each worker its own"));
    }
    Ok(())
}

/// Checks the value of a variable.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_value(value: &str) -> Result<(), String> {
    if value.contains('\0') { Err("a variable cannot hold a zero byte".to_owned()) } else { Ok(()) }
}

/// Reads `KEY=VALUE`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    check_name(name)?;
    check_value(value)?;
    Ok((name.to_owned(), value.to_owned()))
}
