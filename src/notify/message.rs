//! What one datagram says: `NAME=value` lines (sd_notify(3)).

/// One assignment that means something to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// READY=1
    Ready,
    /// WATCHDOG=1
    Heartbeat,
    /// WATCHDOG=trigger: the worker itself says that it is not well.
    Sick,
    /// X_SOCKD_RETIRE=1: the worker has served as many requests as it should.
    Retire,
}

/// Reads one datagram. Lines that are not for us (STATUS, MAINPID, FDSTORE, a variable of the application's own) are skipped,
/// as systemd does.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse(datagram: &[u8]) -> Result<Vec<Message>, &'static str> {
    let text = std::str::from_utf8(datagram).map_err(|_| "it is not UTF-8")?;
    let mut messages = Vec::new();
    for line in text.split('\n').filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once('=').ok_or("a line has no equals sign")?;
        match (name, value) {
            ("READY", "1") => messages.push(Message::Ready),
            ("WATCHDOG", "1") => messages.push(Message::Heartbeat),
            ("WATCHDOG", "trigger") => messages.push(Message::Sick),
            ("X_SOCKD_RETIRE", "1") => messages.push(Message::Retire),
            (_, _) => {}
        }
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_services_say() {
        assert_eq!(parse(b"READY=1\nSTATUS=up\nMAINPID=7\n"), Ok(vec![Message::Ready]));
        assert_eq!(parse(b"WATCHDOG=1"), Ok(vec![Message::Heartbeat]));
        assert_eq!(parse(b"READY=0"), Ok(vec![]));
        assert_eq!(parse(b""), Ok(vec![]));
    }

    #[test]
    fn garbage_is_refused() {
        assert!(parse(b"\xff\xfe").is_err());
        assert!(parse(b"hello").is_err());
    }
}
