//! The beginning of a TLS handshake, and whether it is answered: what loads its certificate only for the first visitor, as gunicorn's
//! workers do, is found out before there is one.
//!
//! The greeting is a ClientHello of TLS 1.2 and 1.3 (RFC 8446, 4.1.2), with which nothing else is begun: no key is made,
//! and what would be answered to a request stays unknown. Any record of TLS is an answer, an alert too: a server that
//! sends one has read its certificate and its settings.

use super::http::{is_gone, open};
use super::question::AskError;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// The content types of a record (RFC 8446, 5.1).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
/// What current clients offer: the three of TLS 1.3, then those of 1.2, with and without elliptic curves.
const CIPHER_SUITES: [u16; 15] = [
    0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0x009c, 0x009d, 0xc013, 0xc014, 0x002f,
    0x0035,
];
const SIGNATURES: [u16; 10] = [0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0807];
const X25519: u16 = 0x001d;
const GROUPS: [u16; 3] = [X25519, 0x0017, 0x0018];
const VERSIONS: [u16; 2] = [0x0304, 0x0303];

/// Greets the listener at the address as a visitor of `host` would, and waits for the first byte of an answer.
///
/// # Errors
/// [`AskError`]; nothing of HTTP is asked.
pub async fn greet(address: &str, host: &str, patience: Duration) -> Result<(), AskError> {
    match timeout(patience, exchange(address, host)).await.unwrap_or(Err(AskError::Timeout(patience)))? {
        ALERT | HANDSHAKE => Ok(()),
        _ => Err(AskError::NotTls),
    }
}

/// The first byte of the answer.
async fn exchange(address: &str, host: &str) -> Result<u8, AskError> {
    let mut random = [0; 96];
    rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|error| AskError::Connect(error.into()))?;
    let mut stream = open(address).await?;
    match stream.write_all(&client_hello(host, &random)).await {
        Err(error) if !is_gone(&error) => return Err(AskError::Connect(error)),
        Ok(()) | Err(_) => {}
    }
    stream.read_u8().await.map_err(|_| AskError::Closed)
}

/// `random`: the greeting's own 32 bytes, the name of a session and a public key, which any 32 bytes are.
fn client_hello(host: &str, random: &[u8; 96]) -> Vec<u8> {
    let is_name = host.parse::<std::net::IpAddr>().is_err() && host.is_ascii() && (1..=255).contains(&host.len());
    let name = is_name.then(|| (0, sized16(&[&[0][..], &sized16(host.as_bytes())].concat())));
    let key = [&X25519.to_be_bytes()[..], &sized16(&random[64..])].concat();
    let extensions = name.into_iter().chain([
        (10, sized16(&words(&GROUPS))),
        // Points are not compressed.
        (11, sized8(&[0])),
        (13, sized16(&words(&SIGNATURES))),
        // Application-Layer Protocol Negotiation.
        (16, sized16(&sized8(b"http/1.1"))),
        (43, sized8(&words(&VERSIONS))),
        // Nothing that was agreed on before is resumed without a new key.
        (45, sized8(&[1])),
        (51, sized16(&key)),
    ]);
    let extensions: Vec<u8> = extensions
        .flat_map(|(number, content): (u16, Vec<u8>)| [&number.to_be_bytes()[..], &sized16(&content)].concat())
        .collect();
    let hello = [
        // What TLS 1.3 still calls itself here.
        &[3, 3][..],
        &random[..32],
        &sized8(&random[32..64]),
        &sized16(&words(&CIPHER_SUITES)),
        // Nothing is compressed.
        &sized8(&[0]),
        &sized16(&extensions),
    ]
    .concat();
    // A ClientHello is the first kind of handshake, and its length takes three bytes.
    let handshake = [&[1, 0][..], &sized16(&hello)].concat();
    [&[HANDSHAKE, 3, 1][..], &sized16(&handshake)].concat()
}

fn words(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// The bytes behind their number, in one byte. They are fewer than 256.
fn sized8(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap_or(u8::MAX)][..], bytes].concat()
}

/// The bytes behind their number, in two bytes. A greeting is shorter than 1 KiB.
fn sized16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes()[..], bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::super::Socket;
    use super::*;
    use crate::private_socket::Binder;
    use std::io::Write;
    use std::os::unix::net::UnixListener;
    use std::process::{Command, Stdio};

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
    }

    /// openssl's server greets back, whichever version it insists on, and not only with an alert.
    #[test]
    fn a_server_of_either_version_answers_with_its_own_greeting() {
        let place = std::env::temp_dir().join(format!("sockd-test-tls-{}", std::process::id()));
        std::fs::create_dir_all(&place).expect("room");
        let openssl = |words: &str| {
            let mut command = Command::new("openssl");
            command.args(words.split(' ')).current_dir(&place).stdin(Stdio::piped()).stderr(Stdio::null());
            command
        };
        let made =
            openssl("req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout key -out certificate").output();
        assert!(made.expect("openssl is installed").status.success());
        for version in ["-tls1_2", "-tls1_3"] {
            let words = format!("s_server -unix socket -unlink -cert certificate -key key {version}");
            let mut server = openssl(&words).stdout(Stdio::null()).spawn().expect("openssl is installed");
            let address = place.join("socket").to_string_lossy().into_owned();
            let asked = async {
                loop {
                    match exchange(&address, "localhost").await {
                        // It does not listen yet.
                        Err(AskError::Connect(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
                        answer => return answer,
                    }
                }
            };
            let answer = runtime().block_on(async { timeout(Duration::from_secs(60), asked).await });
            server.kill().and_then(|()| server.wait()).expect("it lives");
            assert!(matches!(answer, Ok(Ok(HANDSHAKE))), "{version}: {answer:?}");
        }
        std::fs::remove_dir_all(&place).expect("it is ours");
    }

    #[test]
    fn what_is_no_tls_is_distinguished() {
        for (reply, closed) in [(&b""[..], true), (b"HTTP/1.1 400 Bad Request\r\n\r\n", false), (b"\x15\x03", false)] {
            let (socket, fd) = Socket::listen(&Binder::new(None)).expect("a socket");
            let listener = UnixListener::from(fd);
            let server = std::thread::spawn(move || listener.accept().expect("a connection").0.write_all(reply));
            let answer = runtime().block_on(greet(socket.address(), "localhost", Duration::from_secs(60)));
            server.join().expect("it answered").expect("it listens");
            match (reply.first(), closed) {
                (Some(&ALERT), _) => assert!(answer.is_ok(), "{answer:?}"),
                (_, true) => assert!(matches!(answer, Err(AskError::Closed)), "{answer:?}"),
                (_, false) => assert!(matches!(answer, Err(AskError::NotTls)), "{answer:?}"),
            }
        }
    }
}
