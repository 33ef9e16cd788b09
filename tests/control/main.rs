//! The control socket against clients and servers that mean well, mean ill, or have gone away.
//!
//! The shell is played by the test: it takes the calls out of the channel. Nothing sleeps: every wait is for an event,
//! bounded by [`LIMIT`].

mod client;
mod foreign;
mod server;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sockd::control::{Call, Instance, Origin, Request, Server, Status};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// No event of these tests takes as long on the slowest machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs one test in a runtime like the supervisor's, and fails it after [`LIMIT`].
fn within_limit<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(LIMIT, test).await.expect("the test took too long") })
}

/// A reload that is waited for.
const RELOAD: Request = Request::Reload { wait: true, origin: Origin { login_uid: None, exec_reload: false } };

/// A server under test and the shell's end of it.
struct Lab {
    instance: Instance,
    calls: mpsc::Receiver<Call>,
    served: tokio::task::JoinHandle<()>,
}

impl Lab {
    fn new() -> Self {
        Self::with_patience(sockd::control::CLIENT_TIMEOUT)
    }

    fn with_patience(patience: Duration) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Not a name of sockd's: another test, or a `sockd status` on this machine, would find it and ask.
        let name = format!("sockd-test/{}/{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self::serve(Server::bind_to(name).expect("bind").with_patience(patience))
    }

    /// One that everybody finds, and may ask.
    fn public() -> Self {
        Self::serve(Server::bind().expect("bind"))
    }

    fn serve(server: Server) -> Self {
        let instance = Instance {
            pid: std::process::id(),
            uid: rustix::process::geteuid().as_raw(),
            unit: None,
            socket: server.name().to_owned(),
        };
        let (sender, calls) = mpsc::channel(4);
        let served = tokio::spawn(server.serve(sender));
        Self { instance, calls, served }
    }

    async fn call(&mut self) -> Call {
        self.calls.recv().await.expect("the server is gone")
    }

    /// Asks for the status and plays the shell that answers.
    async fn answers(&mut self) -> Result<Status, sockd::control::AskError> {
        let asking = sockd::control::status(&self.instance);
        tokio::pin!(asking);
        loop {
            tokio::select! {
                answer = &mut asking => return answer,
                Some(call) = self.calls.recv() => call.replier.status(status()),
            }
        }
    }

    async fn connect(&self) -> Raw {
        let stream = UnixStream::connect(format!("\0{}", self.instance.socket)).await.expect("connect");
        Raw { stream: BufReader::new(stream) }
    }
}

fn status() -> Status {
    Status { version: 1, pid: std::process::id(), status_line: "3 workers ready".to_owned(), ..Status::default() }
}

/// A client that writes what it likes.
struct Raw {
    stream: BufReader<UnixStream>,
}

impl Raw {
    async fn write(&mut self, text: impl AsRef<[u8]>) {
        self.stream.write_all(text.as_ref()).await.expect("write");
    }

    /// The next line; `None` at the end. A server that closes with something unread resets the connection, which says
    /// no more than its end.
    async fn line(&mut self) -> Option<serde_json::Value> {
        let mut line = String::new();
        match self.stream.read_line(&mut line).await {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Expects one line that refuses, and the end.
    async fn refused(&mut self) -> String {
        let line = self.line().await.expect("an answer");
        assert_eq!(self.line().await, None);
        line["error"]["kind"].as_str().unwrap_or_else(|| panic!("no refusal: {line}")).to_owned()
    }
}
