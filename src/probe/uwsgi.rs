//! The uwsgi protocol, as far as one question goes: a head of four bytes, then names and values, each behind its length.
//! What answers is HTTP.
//!
//! <https://uwsgi-docs.readthedocs.io/en/latest/Protocol.html>. Pure.

use super::question::Question;

/// The question as one packet. `None`: it is longer than a packet can be.
pub(super) fn packet(question: &Question, agent: &str) -> Option<Vec<u8>> {
    let (path, query) = question.path.split_once('?').unwrap_or((&question.path, ""));
    // As Nginx's `uwsgi_params` has them.
    let variables = [
        ("REQUEST_METHOD", "GET"),
        ("REQUEST_URI", &question.path),
        ("PATH_INFO", path),
        ("QUERY_STRING", query),
        ("CONTENT_TYPE", ""),
        ("CONTENT_LENGTH", ""),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REQUEST_SCHEME", "http"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("SERVER_NAME", &question.host),
        ("SERVER_PORT", "80"),
        ("HTTP_HOST", &question.host),
        ("HTTP_CONNECTION", "close"),
        ("HTTP_USER_AGENT", agent),
    ];
    let given = |name: &str| question.headers.iter().any(|(header, _)| variable(header) == name);
    let mut body = Vec::new();
    for (name, value) in variables.into_iter().filter(|(name, _)| !given(name)) {
        push(&mut body, name, value)?;
    }
    for (header, value) in &question.headers {
        push(&mut body, &variable(header), value)?;
    }
    let [low, high] = u16::try_from(body.len()).ok()?.to_le_bytes();
    let mut packet = vec![0, low, high, 0];
    packet.append(&mut body);
    Some(packet)
}

/// `X-Forwarded-Proto` as `HTTP_X_FORWARDED_PROTO`.
fn variable(header: &str) -> String {
    format!("HTTP_{}", header.to_uppercase().replace('-', "_"))
}

fn push(body: &mut Vec<u8>, name: &str, value: &str) -> Option<()> {
    for text in [name, value] {
        body.extend_from_slice(&u16::try_from(text.len()).ok()?.to_le_bytes());
        body.extend_from_slice(text.as_bytes());
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn question(path: &str, headers: &[(&str, &str)]) -> Question {
        Question {
            path: path.to_owned(),
            host: "example.com".to_owned(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            patience: Duration::from_secs(1),
            uwsgi: true,
        }
    }

    /// Takes a packet apart as the protocol's page describes it.
    fn read(packet: &[u8]) -> BTreeMap<String, String> {
        assert_eq!((packet[0], packet[3]), (0, 0));
        assert_eq!(usize::from(u16::from_le_bytes([packet[1], packet[2]])), packet.len() - 4);
        let (mut rest, mut texts) = (&packet[4..], Vec::new());
        while !rest.is_empty() {
            let end = 2 + usize::from(u16::from_le_bytes([rest[0], rest[1]]));
            texts.push(String::from_utf8(rest[2..end].to_vec()).expect("text"));
            rest = &rest[end..];
        }
        let pairs: BTreeMap<String, String> = texts.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        assert_eq!(pairs.len() * 2, texts.len(), "a name twice: {texts:?}");
        pairs
    }

    #[test]
    fn a_question_is_one_packet_of_variables() {
        let headers = [("X-Forwarded-Proto", "https"), ("user-agent", "mine")];
        let packet = packet(&question("/a?b=c", &headers), "sockd").expect("short enough");
        let variables = read(&packet);
        for (name, value) in [
            ("REQUEST_METHOD", "GET"),
            ("REQUEST_URI", "/a?b=c"),
            ("PATH_INFO", "/a"),
            ("QUERY_STRING", "b=c"),
            ("HTTP_HOST", "example.com"),
            ("HTTP_X_FORWARDED_PROTO", "https"),
            ("HTTP_USER_AGENT", "mine"),
        ] {
            assert_eq!(variables.get(name).map(String::as_str), Some(value), "{name}");
        }
    }

    #[test]
    fn what_does_not_fit_is_not_asked() {
        assert_eq!(packet(&question("/", &[("X", &"x".repeat(0xffff))]), "sockd"), None);
    }
}
