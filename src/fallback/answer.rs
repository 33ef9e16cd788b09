//! From the head of a request to the bytes of the answer. Pure.
//!
//! Understood are HTTP/1 and the uwsgi protocol (uwsgi-docs, "The uwsgi protocol": modifier1, 16 bits of size in
//! little-endian order, modifier2, then pairs of strings with 16 bits of length before each). The answer is HTTP in
//! both cases: Nginx's `uwsgi_pass` reads a status line of HTTP.

/// What the answer depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    /// HEAD: an answer without a body.
    head: bool,
    format: Format,
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

/// The 503 for a request whose head begins with `bytes`. What is no request gets the same answer as plain text: that
/// the site is away is true for everybody.
pub(super) fn answer(bytes: &[u8], retry_after: u32) -> Vec<u8> {
    let request = if bytes.first() == Some(&0) { read_uwsgi(bytes) } else { read_http(bytes) };
    let (kind, body) = match request.format {
        Format::Html => ("text/html; charset=utf-8", PAGE.to_owned()),
        Format::Json => {
            let text = format!(
                "{{\"status\":503,\"error\":\"Service Unavailable\",\"message\":\"{MESSAGE}\",\
                 \"retry_after\":{retry_after}}}\n"
            );
            ("application/json", text)
        }
        Format::Plain => ("text/plain; charset=utf-8", format!("503 Service Unavailable\n{MESSAGE}\n")),
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
    if !request.head {
        response.push_str(&body);
    }
    response.into_bytes()
}

const MESSAGE: &str = "The site is temporarily unavailable. Please try again in a moment.";

// No meta refresh: it would turn a POST into a GET and send every open page back in the same second.
const PAGE: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Temporarily unavailable</title>
<style>
:root { color-scheme: light dark }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; font: 1.125rem/1.5 system-ui, sans-serif }
main { max-width: 30rem; padding: 2rem; text-align: center }
h1 { font-size: 1.5rem; line-height: 1.25 }
</style>
</head>
<body>
<main>
<h1>Temporarily unavailable</h1>
<p>The site cannot be reached at the moment. It should be back shortly: please try again.</p>
</main>
</body>
</html>
"#;

fn read_http(bytes: &[u8]) -> Request {
    let mut lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let head = lines.next().is_some_and(|line| line.starts_with(b"HEAD "));
    let accept = lines.take_while(|line| !line.is_empty()).find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        line[..colon].eq_ignore_ascii_case(b"accept").then(|| &line[colon + 1..])
    });
    Request { head, format: preferred(accept.unwrap_or_default()) }
}

/// The announced size of a uwsgi packet's variables, once its first four bytes are there.
fn uwsgi_size(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [0, low, high, _, ..] => Some(usize::from(u16::from_le_bytes([*low, *high]))),
        _ => None,
    }
}

fn read_uwsgi(bytes: &[u8]) -> Request {
    let mut request = Request { head: false, format: Format::Plain };
    let mut rest = bytes.get(4..).unwrap_or_default();
    while let Some((name, after)) = uwsgi_string(rest) {
        let Some((value, after)) = uwsgi_string(after) else { break };
        match name {
            b"REQUEST_METHOD" => request.head = value == b"HEAD",
            b"HTTP_ACCEPT" => request.format = preferred(value),
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

/// The format that an Accept header likes best; the first one of equals. Plain text for those who do not care (`*/*`,
/// such as curl) or who like nothing we have: RFC 9110, section 12.4.1, allows an answer nevertheless.
fn preferred(accept: &[u8]) -> Format {
    let accept = String::from_utf8_lossy(accept);
    let mut best = (0, Format::Plain);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let format = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "text/html" | "application/xhtml+xml" => Format::Html,
            "text/plain" => Format::Plain,
            "application/json" | "text/json" => Format::Json,
            kind if kind.starts_with("application/") && kind.ends_with("+json") => Format::Json,
            _ => continue,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let weight = weight.map_or(1000, thousandths);
        if weight > best.0 {
            best = (weight, format);
        }
    }
    best.1
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
        String::from_utf8(answer(request, 7)).expect("an answer of text")
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
    fn the_page_needs_nothing_from_elsewhere_and_tells_nothing_of_the_inside() {
        for word in ["http:", "https:", "src=", "href=", "sockd", "worker", "refresh"] {
            assert!(!PAGE.contains(word), "{word} is in the page");
        }
        assert!(PAGE.len() < 1400);
    }
}
