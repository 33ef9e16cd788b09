//! Asking for a page, as a visitor does.
//!
//! Owns: one connection, one request, the beginning of the answer.
//! Never: reads more than [`LARGEST`], or waits longer than [`ANSWER_TIMEOUT`] in all. The connection is made, or refused,
//! at once: only sockets of this machine are asked.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::Answer;

/// How long an answer may take: the first one starts the service, which imports the application.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// The most that is read of an answer, in bytes: the head, and where a page says what is wrong.
const LARGEST: u64 = 64 << 10;
/// The most that is kept of its body, in bytes.
const BODY: usize = 4 << 10;

/// Asks `address` for a page.
pub fn ask(address: &str, nginx: bool, host: &str, path: &str) -> Answer {
    let mut answer = Answer { address: address.to_owned(), nginx, host: host.to_owned(), ..Answer::default() };
    let begun = Instant::now();
    match exchange(address, host, path) {
        Ok(bytes) => read(&bytes, &mut answer),
        Err(error) => answer.error = name(&error),
    }
    answer.took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    answer
}

/// EAGAIN of a read is the time that was up; of a connection it is the full queue, which `connect` tells apart.
const ERRORS: [(ErrorKind, &str); 9] = [
    (ErrorKind::ConnectionRefused, "refused"),
    (ErrorKind::NotFound, "missing"),
    (ErrorKind::PermissionDenied, "denied"),
    (ErrorKind::WouldBlock, "silent"),
    (ErrorKind::TimedOut, "silent"),
    (ErrorKind::ResourceBusy, "busy"),
    (ErrorKind::ConnectionReset, "closed"),
    (ErrorKind::BrokenPipe, "closed"),
    (ErrorKind::UnexpectedEof, "closed"),
];

fn name(error: &io::Error) -> String {
    let known = ERRORS.iter().find(|(kind, _)| *kind == error.kind());
    known.map_or_else(|| error.to_string(), |(_, name)| (*name).to_owned())
}

/// A connection.
pub trait Stream: Read + Write {
    /// Limits each reading and each writing.
    fn limit(&self, time: Duration) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn limit(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))?;
        self.set_write_timeout(Some(time))
    }
}

impl Stream for UnixStream {
    fn limit(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))?;
        self.set_write_timeout(Some(time))
    }
}

/// Connects, at once for a unix socket and within [`ANSWER_TIMEOUT`] for a port of this machine.
///
/// # Errors
/// Why not; the kind is `ResourceBusy` where the queue of a unix socket is full: to wait for room could take for ever.
pub fn connect(address: &str) -> io::Result<Box<dyn Stream>> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    if let Ok(address) = address.parse::<SocketAddr>() {
        return Ok(Box::new(TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?));
    }
    let name = match address.strip_prefix('@') {
        Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes())?,
        None => SocketAddrUnix::new(address)?,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &name).map_err(|errno| match errno {
        rustix::io::Errno::AGAIN => io::Error::from(ErrorKind::ResourceBusy),
        errno => errno.into(),
    })?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(Box::new(stream))
}

fn exchange(address: &str, host: &str, path: &str) -> io::Result<Vec<u8>> {
    let end = Instant::now() + ANSWER_TIMEOUT;
    let mut stream = connect(address)?;
    stream.limit(ANSWER_TIMEOUT)?;
    // HTTP/1.0: the answer is not cut into pieces, and the connection ends with it.
    let agent = concat!("sockd-doctor/", env!("CARGO_PKG_VERSION"));
    let request = format!(
        "GET {path} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: {agent}\r\nAccept: text/html\r\nConnection: close\r\n\r\n"
    );
    // In one piece: a server may answer the first one, and close.
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    let mut piece = [0; 8192];
    while (bytes.len() as u64) < LARGEST {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return if bytes.is_empty() { Err(ErrorKind::TimedOut.into()) } else { Ok(bytes) };
        }
        stream.limit(left)?;
        match stream.read(&mut piece) {
            Ok(0) if bytes.is_empty() => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(0) => break,
            Ok(length) => bytes.extend(&piece[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // What came before the end of its patience or of the connection is an answer.
            Err(_) if !bytes.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// `HTTP/1.1 200 OK`, headers, body.
fn read(bytes: &[u8], answer: &mut Answer) {
    let text = String::from_utf8_lossy(bytes);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    answer.status = status.filter(|_| text.starts_with("HTTP/"));
    if answer.status.is_none() {
        answer.error = "its answer is not HTTP".to_owned();
        return;
    }
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    answer.body = body.chars().take(BODY).collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn answered(reply: &'static [u8]) -> Answer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut head = [0; 1024];
            let length = stream.read(&mut head).expect("a request");
            stream.write_all(reply).expect("it listens");
            String::from_utf8_lossy(&head[..length]).into_owned()
        });
        let answer = ask(&address, false, "example.com", "/w/");
        let request = server.join().expect("it answered");
        assert!(request.starts_with("GET /w/ ") && request.contains("\r\nHost: example.com\r\n"), "{request}");
        answer
    }

    #[test]
    fn status_and_body_are_read() {
        let answer = answered(b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\nDisallowedHost");
        assert_eq!((answer.status, answer.body.as_str(), answer.error.as_str()), (Some(400), "DisallowedHost", ""));
        assert_eq!(answered(b"SSH-2.0-OpenSSH\r\n").error, "its answer is not HTTP");
        assert_eq!(answered(b"").error, "closed");
    }

    #[test]
    fn a_missing_server_is_distinguished_from_one_that_refuses() {
        assert_eq!(ask("/nowhere/at/all.sock", false, "x", "/").error, "missing");
        // No test that runs beside this one is ever given a port as low as that.
        assert_eq!(ask("127.0.0.1:1", false, "x", "/").error, "refused");
    }
}
