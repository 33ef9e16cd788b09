//! What one datagram says: `NAME=value` lines (sd_notify(3)).

/// A worker's status line is cut here (characters).
const STATUS_LIMIT: usize = 200;

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
    /// STATUS=…, without control characters and not too long.
    Status(String),
}

/// Reads one datagram. Lines that are not for us (MAINPID, FDSTORE, a variable of the application's own) are skipped,
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
            ("STATUS", status) => {
                let status = status.chars().filter(|c| !c.is_control()).take(STATUS_LIMIT).collect();
                messages.push(Message::Status(status));
            }
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
        assert_eq!(
            parse(b"READY=1\nSTATUS=up\nMAINPID=7\n"),
            Ok(vec![Message::Ready, Message::Status("up".to_owned())])
        );
        assert_eq!(parse(b"WATCHDOG=1"), Ok(vec![Message::Heartbeat]));
        assert_eq!(parse(b"READY=0"), Ok(vec![]));
        assert_eq!(parse(b""), Ok(vec![]));
    }

    #[test]
    fn a_status_cannot_smuggle_control_characters_or_length() {
        let long = format!("STATUS=\x1b[31m{}\r", "x".repeat(5000));
        let Ok(messages) = parse(long.as_bytes()) else { panic!("it is fine") };
        let [Message::Status(status)] = &messages[..] else { panic!("one status") };
        assert_eq!(status.chars().count(), STATUS_LIMIT);
        assert!(status.starts_with("[31mxxx"));
    }

    #[test]
    fn garbage_is_refused() {
        assert!(parse(b"\xff\xfe").is_err());
        assert!(parse(b"hello").is_err());
    }
}
