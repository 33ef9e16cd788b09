//! From the head of a request to the bytes of the answer. Pure.
//!
//! Understood are HTTP/1 and the uwsgi protocol (uwsgi-docs, "The uwsgi protocol": modifier1, 16 bits of size in
//! little-endian order, modifier2, then pairs of strings with 16 bits of length before each). The answer is HTTP in
//! both cases: Nginx's `uwsgi_pass` reads a status line of HTTP.

use std::borrow::Cow;

use super::page::{self, Texts};

/// What the answer depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    method: Method,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Get,
    /// An answer without a body.
    Head,
    Other,
}

impl Method {
    fn named(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            _ => Self::Other,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Html,
    Json,
    Plain,
}

/// Whether `bytes` hold the whole head of a request. `searched` is how many of them were looked at before.
pub(super) fn is_complete(bytes: &[u8], searched: usize) -> bool {
    if let Some(size) = uwsgi_size(bytes) {
        return bytes.len() >= 4 + size;
    }
    if bytes.first() == Some(&0) {
        return false;
    }
    let fresh = &bytes[searched.saturating_sub(3).min(bytes.len())..];
    fresh.windows(4).any(|window| window == b"\r\n\r\n") || fresh.windows(2).any(|window| window == b"\n\n")
}

/// The 503 for a request whose head begins with `bytes`, with `page` in place of the built-in one, or with `message` in place of the usual words, which comes first. What is no request
/// gets the same answer as plain text: that the site is away is true for everybody. `random` is any number; pages that
/// come back by themselves are spread by it.
pub(super) fn answer(bytes: &[u8], texts: &Texts, retry_after: u32, random: u32) -> Vec<u8> {
    let message = texts.message.as_deref();
    let page = texts.page.as_deref().filter(|_| message.is_none());
    let request = if bytes.first() == Some(&0) { read_uwsgi(bytes) } else { read_http(bytes) };
    let (kind, body): (_, Cow<'_, str>) = match request.format {
        Format::Html => {
            let built_in = || page::built_in(request.method != Method::Other, retry_after, random, message);
            ("text/html; charset=utf-8", page.map_or_else(|| built_in().into(), Cow::from))
        }
        Format::Json => {
            let message = serde_json::Value::from(message.unwrap_or(MESSAGE));
            let text = format!(
                "{{\"status\":503,\"error\":\"Service Unavailable\",\"message\":{message},\
                 \"retry_after\":{retry_after}}}\n"
            );
            ("application/json", text.into())
        }
        Format::Plain => ("text/plain; charset=utf-8", {
            format!("503 Service Unavailable\n{}\n", message.unwrap_or(MESSAGE)).into()
        }),
    };
    let mut response = format!(
        "HTTP/1.1 503 Service Unavailable\r\n\
         Content-Type: {kind}\r\n\
         Content-Length: {}\r\n\
         Retry-After: {retry_after}\r\n\
         Cache-Control: no-store\r\n\
         Connection: close\r\n\
         \r\n",
        body.len()
    );
    if request.method != Method::Head {
        response.push_str(&body);
    }
    response.into_bytes()
}

const MESSAGE: &str = "The site is temporarily unavailable. Please try again in a moment.";

fn read_http(bytes: &[u8]) -> Request {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let method = Method::named(lines.next().and_then(|line| line.split(|byte| *byte == b' ').next()).unwrap_or(b""));
    let accept = lines.take_while(|line| !line.is_empty()).filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        line[..colon].eq_ignore_ascii_case(b"accept").then(|| String::from_utf8_lossy(&line[colon + 1..]))
    });
    // Several lines mean the same as one with commas (RFC 9110, section 5.2).
    Request { method, format: preferred(&accept.collect::<Vec<_>>().join(",")) }
}

/// The announced size of a uwsgi packet's variables, once its first four bytes are there.
fn uwsgi_size(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [0, low, high, _, ..] => Some(usize::from(u16::from_le_bytes([*low, *high]))),
        _ => None,
    }
}

fn read_uwsgi(bytes: &[u8]) -> Request {
    let mut request = Request { method: Method::Other, format: Format::Plain };
    let mut rest = bytes.get(4..).unwrap_or_default();
    while let Some((name, after)) = uwsgi_string(rest) {
        let Some((value, after)) = uwsgi_string(after) else { break };
        match name {
            b"REQUEST_METHOD" => request.method = Method::named(value),
            b"HTTP_ACCEPT" => request.format = preferred(&String::from_utf8_lossy(value)),
            _ => {}
        }
        rest = after;
    }
    request
}

fn uwsgi_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))
}

/// What an Accept header says of one format: its weight in thousandths, how exactly it is named, and where.
type Liking = (u32, u8, std::cmp::Reverse<usize>);

/// The format that an Accept header likes best (RFC 9110, section 12.5.1); of equals the one that is named more
/// exactly, then the first. Plain text for those who do not care (`*/*`, such as curl) or who like nothing we have:
/// section 12.4.1 allows an answer nevertheless.
fn preferred(accept: &str) -> Format {
    let mut best = (None, Format::Plain);
    for format in [Format::Plain, Format::Html, Format::Json] {
        let liking = liking(accept, format).filter(|(weight, ..)| *weight > 0);
        if liking > best.0 {
            best = (liking, format);
        }
    }
    best.1
}

/// The most exact range that a format is in; of equally exact ones the first.
fn liking(accept: &str, format: Format) -> Option<Liking> {
    let mut found: Option<Liking> = None;
    for (index, range) in accept.split(',').enumerate() {
        let mut parts = range.split(';').map(str::trim);
        let exactness = exactness(&parts.next().unwrap_or_default().to_ascii_lowercase(), format);
        if exactness == 0 || found.is_some_and(|(_, known, _)| known >= exactness) {
            continue;
        }
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        found = Some((weight.map_or(1000, thousandths), exactness, std::cmp::Reverse(index)));
    }
    found
}

/// 3 for a range that names the format, 2 for `text/*`, 1 for `*/*`, 0 for one that it is not in.
fn exactness(range: &str, format: Format) -> u8 {
    let (named, family) = match format {
        Format::Html => (matches!(range, "text/html" | "application/xhtml+xml"), "text/*"),
        Format::Plain => (range == "text/plain", "text/*"),
        Format::Json => {
            let suffixed = range.starts_with("application/") && range.ends_with("+json");
            (suffixed || matches!(range, "application/json" | "text/json"), "application/*")
        }
    };
    match range {
        _ if named => 3,
        _ if range == family => 2,
        "*/*" => 1,
        _ => 0,
    }
}

/// A weight of RFC 9110, section 12.4.2, in thousandths; 0 for what is none.
fn thousandths(weight: &str) -> u32 {
    match weight.parse::<f32>() {
        // Between 0 and 1000, so that nothing is cut off.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was just checked")]
        Ok(weight) if (0.0..=1.0).contains(&weight) => (weight * 1000.0) as u32,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(request: &[u8]) -> String {
        String::from_utf8(answer(request, &Texts::default(), 7, 0)).expect("an answer of text")
    }

    fn uwsgi(variables: &[(&str, &str)]) -> Vec<u8> {
        let mut body = Vec::new();
        for text in variables.iter().flat_map(|(name, value)| [name, value]) {
            body.extend(u16::try_from(text.len()).expect("short").to_le_bytes());
            body.extend(text.bytes());
        }
        let size = u16::try_from(body.len()).expect("short").to_le_bytes();
        [&[0, size[0], size[1], 0], &body[..]].concat()
    }

    #[test]
    fn the_head_of_an_answer_is_complete_and_true() {
        for accept in ["text/html", "application/json", "*/*"] {
            let text = text(format!("GET / HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n").as_bytes());
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
            for line in ["Retry-After: 7", "Connection: close", "Cache-Control: no-store"] {
                assert!(head.lines().any(|found| found == line), "{line} is missing in {head}");
            }
            assert!(head.lines().any(|found| found == format!("Content-Length: {}", body.len())), "{head}");
            assert!(!body.is_empty());
        }
    }

    #[test]
    fn the_format_follows_the_accept_header() {
        for (accept, kind) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"),
            ("application/json", "application/json"),
            ("application/problem+json, text/html;q=0.5", "application/json"),
            ("text/html;q=0.5, application/json;q=0.9", "application/json"),
            ("application/json;q=0, text/html;q=0.1", "text/html; charset=utf-8"),
            ("*/*", "text/plain; charset=utf-8"),
            ("image/png", "text/plain; charset=utf-8"),
            ("text/html;q=nonsense", "text/plain; charset=utf-8"),
            ("application/json, text/plain, */*", "application/json"),
            ("*/*, application/json;q=0.1", "text/plain; charset=utf-8"),
            ("*/*;q=0.1, text/html;q=0.1", "text/html; charset=utf-8"),
            ("text/plain;q=0, text/*", "text/html; charset=utf-8"),
            ("text/*;q=0.3, application/*;q=0.4", "application/json"),
            ("text/html;level=1;q=0.4, application/json;q=0.3", "text/html; charset=utf-8"),
            ("*/*;q=0", "text/plain; charset=utf-8"),
            (",;q=1,text", "text/plain; charset=utf-8"),
            ("", "text/plain; charset=utf-8"),
        ] {
            let line = format!("Content-Type: {kind}");
            let http = text(format!("GET / HTTP/1.1\r\naccept: {accept}\r\n\r\n").as_bytes());
            assert!(http.lines().any(|found| found == line), "{accept:?}: {http}");
            let packet = text(&uwsgi(&[("REQUEST_METHOD", "GET"), ("HTTP_ACCEPT", accept)]));
            assert!(packet.lines().any(|found| found == line), "{accept:?} by uwsgi: {packet}");
        }
    }

    #[test]
    fn json_is_json() {
        let text = text(b"GET / HTTP/1.1\r\nAccept: application/json\r\n\r\n");
        let body = text.split_once("\r\n\r\n").expect("a head").1;
        let value: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!((value["status"].as_u64(), value["retry_after"].as_u64()), (Some(503), Some(7)));
    }

    #[test]
    fn head_gets_the_length_and_no_body() {
        for request in [b"HEAD / HTTP/1.1\r\n\r\n".to_vec(), uwsgi(&[("REQUEST_METHOD", "HEAD")])] {
            let text = text(&request);
            assert!(text.ends_with("\r\n\r\n"), "{text}");
            assert!(!text.contains("Content-Length: 0"), "{text}");
        }
    }

    #[test]
    fn a_head_is_complete_at_its_empty_line() {
        let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        for end in 0..request.len() {
            assert!(!is_complete(&request[..end], end.saturating_sub(1)), "complete at {end}");
        }
        assert!(is_complete(request, request.len() - 1));
        assert!(is_complete(b"GET / HTTP/1.0\n\n", 0));
    }

    #[test]
    fn a_uwsgi_packet_is_complete_at_its_size() {
        // The packet holds an empty line of HTTP, which ends nothing here.
        let packet = uwsgi(&[("HTTP_X", "\r\n\r\n"), ("REQUEST_METHOD", "GET")]);
        for end in 0..packet.len() {
            assert!(!is_complete(&packet[..end], 0), "complete at {end}");
        }
        assert!(is_complete(&packet, 0));
    }

    #[test]
    fn garbage_is_answered_without_a_panic() {
        let mut packet = uwsgi(&[("HTTP_ACCEPT", "text/html")]);
        packet[4] = 0xff;
        let tls = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc];
        for garbage in [&b""[..], b"\r\n\r\n", b":", b"GET", &[0], &[0, 255, 255, 0], &tls, &packet] {
            assert!(text(garbage).starts_with("HTTP/1.1 503 "), "{garbage:?}");
        }
    }

    #[test]
    fn accept_headers_in_several_lines_are_one() {
        let text = text(b"GET / HTTP/1.1\r\nAccept: application/json;q=0.5\r\nX: y\r\nACCEPT: text/html\r\n\r\n");
        assert!(text.contains("\r\nContent-Type: text/html; charset=utf-8\r\n"), "{text}");
    }

    #[test]
    fn only_a_page_that_was_asked_for_asks_for_itself_again() {
        for (method, again) in [("GET", true), ("POST", false), ("DELETE", false)] {
            let http = text(format!("{method} / HTTP/1.1\r\nAccept: text/html\r\n\r\n").as_bytes());
            let packet = text(&uwsgi(&[("REQUEST_METHOD", method), ("HTTP_ACCEPT", "text/html")]));
            assert!([http, packet].iter().all(|text| text.contains("http-equiv=\"refresh\"") == again), "{method}");
        }
    }

    #[test]
    fn an_operators_page_is_for_those_who_want_html() {
        let texts = Texts { page: Some("<p>Später</p>".to_owned()), message: None };
        let of = |request: &[u8]| String::from_utf8(answer(request, &texts, 7, 0)).expect("text");
        let html = of(b"GET / HTTP/1.1\r\nAccept: text/html\r\n\r\n");
        assert!(html.contains("\r\nContent-Length: 14\r\n") && html.ends_with("\r\n\r\n<p>Später</p>"), "{html}");
        assert!(of(b"HEAD / HTTP/1.1\r\nAccept: text/html\r\n\r\n").ends_with("\r\n\r\n"));
        assert!(of(b"GET / HTTP/1.1\r\nAccept: application/json\r\n\r\n").contains("\"status\":503"));
    }

    #[test]
    fn a_message_is_for_everybody() {
        let texts =
            Texts { page: Some("<p>Später</p>".to_owned()), message: Some("Back at \"8\" <sharp>".to_owned()) };
        let of = |request: &[u8]| String::from_utf8(answer(request, &texts, 7, 0)).expect("text");
        assert!(
            of(b"GET / HTTP/1.1\r\nAccept: text/html\r\n\r\n").contains("<p>Back at &quot;8&quot; &lt;sharp&gt;</p>")
        );
        assert!(of(b"GET / HTTP/1.1\r\nAccept: text/plain\r\n\r\n").ends_with("\nBack at \"8\" <sharp>\n"));
        let json = of(b"GET / HTTP/1.1\r\nAccept: application/json\r\n\r\n");
        let body: serde_json::Value = serde_json::from_str(json.rsplit("\r\n").next().expect("a body")).expect("JSON");
        assert_eq!(body["message"], "Back at \"8\" <sharp>");
    }
}
