//! HTTP as far as the tests need it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::transcript::PATIENCE;

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// An open connection.
pub trait Connection: Read + Write + Send {}
impl<T: Read + Write + Send> Connection for T {}

impl Address {
    /// Connects; reading and writing are limited to `patience`.
    pub fn connect(&self, patience: Duration) -> io::Result<Box<dyn Connection>> {
        Ok(match self {
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))?;
                Box::new(stream)
            }
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))?;
                Box::new(stream)
            }
        })
    }

    /// One GET, the connection closed afterwards.
    pub fn get(&self, path: &str) -> io::Result<Response> {
        let mut connection = self.connect(PATIENCE)?;
        send_get(&mut connection, path)?;
        read_response(&mut connection)
    }
}

pub fn send_get(connection: &mut impl Write, path: &str) -> io::Result<()> {
    write!(connection, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

/// Reads to the end of the connection.
pub fn read_response(connection: &mut impl Read) -> io::Result<Response> {
    let mut bytes = Vec::new();
    let ended = connection.read_to_end(&mut bytes);
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        ended?;
        let text = format!("no whole head: {:?}", String::from_utf8_lossy(&bytes));
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no status: {head:?}")))?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let mut response = Response { status, headers, body: String::new() };
    let mut body = bytes[end + 4..].to_vec();
    if response.header("Transfer-Encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        body = unchunked(&body)?;
    } else if let Some(length) = response.header("Content-Length").and_then(|value| value.parse::<usize>().ok())
        && body.len() < length
    {
        ended?;
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body ended early"));
    }
    response.body = String::from_utf8_lossy(&body).into_owned();
    Ok(response)
}

fn unchunked(mut rest: &[u8]) -> io::Result<Vec<u8>> {
    let broken = || io::Error::new(io::ErrorKind::UnexpectedEof, "a chunk ended early");
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n").ok_or_else(broken)?;
        let size = std::str::from_utf8(&rest[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.ok_or_else(broken)?;
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(rest.get(end + 2..end + 2 + size).ok_or_else(broken)?);
        rest = rest.get(end + 4 + size..).ok_or_else(broken)?;
    }
}
