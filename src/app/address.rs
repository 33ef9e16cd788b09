//! The address of a listening socket, as people write it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use super::text;

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// A unix socket at a path of the file system.
    Unix(PathBuf),
    /// A unix socket in the abstract name space (unix(7)), without the leading zero byte.
    Abstract(String),
    /// TCP over IPv4 or IPv6.
    Tcp(SocketAddr),
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an address: {why}")]
pub struct ParseAddressError {
    text: String,
    why: &'static str,
}

impl FromStr for Address {
    type Err = ParseAddressError;

    /// Reads a text of [`text::from_os`]: `unix:PATH`, an absolute path, `@NAME`, `HOST:PORT`, `[V6]:PORT`, `:PORT` or a bare port. A host is a
    /// number or `localhost`: names are not looked up, so that starting never waits for a name server.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |why| ParseAddressError { text: text::to_os(text).display().to_string(), why };
        let unix = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:"));
        if let Some(path) = unix.or_else(|| text.starts_with('/').then_some(text)) {
            return match path.strip_prefix('@') {
                Some("") => Err(error("the abstract name is empty")),
                Some(name) => Ok(Self::Abstract(name.to_owned())),
                None if path.is_empty() => Err(error("the path is empty")),
                None => match text::to_os(path) {
                    // sun_path holds 108 bytes with its closing zero (unix(7)).
                    path if path.len() > 107 => Err(error("the path of a unix socket has at most 107 bytes")),
                    path => Ok(Self::Unix(PathBuf::from(path))),
                },
            };
        }
        if let Some(name) = text.strip_prefix('@') {
            return if name.is_empty() {
                Err(error("the abstract name is empty"))
            } else {
                Ok(Self::Abstract(name.to_owned()))
            };
        }
        let text = text.strip_prefix("tcp://").unwrap_or(text);
        if let Ok(port) = text.parse::<u16>() {
            return Ok(Self::Tcp(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(error("write unix:/run/NAME.sock, 127.0.0.1:8000 or [::1]:8000"));
        };
        let port = port.parse::<u16>().map_err(|_| error("the port is a number from 0 to 65535"))?;
        let host = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
        let ip = match host {
            "" | "*" => Ipv4Addr::UNSPECIFIED.into(),
            "localhost" => Ipv4Addr::LOCALHOST.into(),
            _ => host.parse::<IpAddr>().map_err(|_| error("the host is an IP address or localhost"))?,
        };
        Ok(Self::Tcp(SocketAddr::new(ip, port)))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Abstract(name) => write!(f, "unix:@{name}"),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_guides_write() {
        for (text, shown) in [
            ("unix:/run/gunicorn.sock", "unix:/run/gunicorn.sock"),
            ("unix:myproject.sock", "unix:myproject.sock"),
            ("/run/x.sock", "unix:/run/x.sock"),
            ("unix:@hidden", "unix:@hidden"),
            ("0.0.0.0:8000", "0.0.0.0:8000"),
            (":8000", "0.0.0.0:8000"),
            ("8000", "127.0.0.1:8000"),
            ("localhost:80", "127.0.0.1:80"),
            ("[::1]:8000", "[::1]:8000"),
        ] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), shown);
        }
    }

    #[test]
    fn refuses_what_is_none() {
        for text in ["", "unix:", "@", "example.com:80", "127.0.0.1:70000", "[::1]", "gunicorn.sock"] {
            assert!(text.parse::<Address>().is_err(), "{text:?} was taken");
        }
        assert!(format!("unix:/{}", "a".repeat(107)).parse::<Address>().is_err());
    }
}
