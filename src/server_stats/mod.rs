//! Statistics of servers that have an interface of their own: what one worker says of its requests when it is asked, on a
//! socket that only this worker holds.
//!
//! Owns: one connection at a time, its limits in time and size, and the reading of what comes. Never: believes it. A worker
//! may say anything, or nothing: what comes of it concerns that worker alone.
#![forbid(unsafe_code)]

mod php_fpm;
mod puma;
mod stats;

pub use stats::{InFlight, Stats, StatsError};

use crate::adapter::exec::StatsInterface;
use crate::peer;
use stats::LARGEST_ANSWER;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Asks a worker at this address, a path or `@` and an abstract name, and takes no longer than `patience`.
///
/// # Errors
/// [`StatsError`].
pub async fn read(address: &str, interface: &StatsInterface, patience: Duration) -> Result<Stats, StatsError> {
    timeout(patience, ask(address, interface)).await.unwrap_or(Err(StatsError::Timeout(patience)))
}

async fn ask(address: &str, interface: &StatsInterface) -> Result<Stats, StatsError> {
    match interface {
        StatsInterface::Puma => puma::parse(&whole(connect(address).await?).await?),
        StatsInterface::PhpFpm { path } => match ask_php_fpm(address, path, true).await {
            // It has very many processes.
            Err(StatsError::TooLong) => ask_php_fpm(address, path, false).await,
            said => said,
        },
    }
}

async fn ask_php_fpm(address: &str, path: &str, full: bool) -> Result<Stats, StatsError> {
    let mut stream = connect(address).await?;
    stream.write_all(&php_fpm::question(path, full)).await?;
    php_fpm::parse(&whole(stream).await?)
}

/// A connection. It never waits for room in the queue.
async fn connect(address: &str) -> io::Result<peer::Stream> {
    // tokio takes a path that begins with a zero byte for an abstract name.
    let path = address.strip_prefix('@').map_or_else(|| address.to_owned(), |name| format!("\0{name}"));
    Ok(peer::Stream::new(UnixStream::connect(path).await?))
}

/// All that comes until the other side closes.
async fn whole(stream: impl AsyncRead + Unpin) -> Result<Vec<u8>, StatsError> {
    let mut text = Vec::new();
    stream.take(LARGEST_ANSWER + 1).read_to_end(&mut text).await?;
    if text.len() as u64 > LARGEST_ANSWER {
        return Err(StatsError::TooLong);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};

    /// What is read where this answers, and then closes or not.
    fn asked(name: &str, answer: &'static [u8], closes: bool) -> Result<Stats, StatsError> {
        let name = format!("sockd-server-stats-{name}-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let listener = UnixListener::bind_addr(&address).expect("nobody's yet");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            // Who has read enough goes.
            let _ = stream.write_all(answer);
            if !closes {
                let _ = std::io::Read::read(&mut stream, &mut [0; 1]);
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let patience = if closes { Duration::from_secs(10) } else { Duration::from_millis(50) };
        let said = runtime.block_on(read(&format!("@{name}"), &StatsInterface::Puma, patience));
        drop(runtime);
        server.join().expect("it answered");
        said
    }

    #[test]
    fn an_answer_is_bounded_in_time_and_size() {
        const ANSWER: &[u8] = br#"{"requests_count":9,"max_threads":5,"pool_capacity":3}"#;
        assert_eq!(asked("well", ANSWER, true).expect("read"), Stats { begun: 9, busy: 2, in_flight: Vec::new() });
        assert!(matches!(asked("silent", b"", false), Err(StatsError::Timeout(_))));
        assert!(matches!(asked("slow", ANSWER, false), Err(StatsError::Timeout(_))), "its end has not come");
        assert!(matches!(asked("giant", &[b' '; 1 << 20], true), Err(StatsError::TooLong)));
        assert!(matches!(asked("empty", b"", true), Err(StatsError::NotUnderstood(_))));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let nobody = read("@sockd-server-stats-nobody", &StatsInterface::Puma, Duration::from_secs(10));
        assert!(matches!(runtime.block_on(nobody), Err(StatsError::Connection(_))));
    }
}
