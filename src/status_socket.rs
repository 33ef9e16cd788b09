//! The status socket: HTTP for programs that watch an instance, and a line for HAProxy's agent-check.
//!
//! An agent-check connects and says nothing, or what agent-send has; it reads one line (HAProxy's configuration manual,
//! "agent-check"). Who speaks HTTP begins at once with a method. So the first bytes tell the two apart, and their absence
//! for [`AGENT_WAIT`] does.
//!
//! Owns: the limits on clients: how many at once and in a second, how long each may take, how much of a request is read.
//! Never: knows what is answered, which is the caller's. A client cannot hold anything up but itself and, at
//! [`MAX_CLIENTS`], those who wait in the queue behind it, for [`CLIENT_TIMEOUT`] at most.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, join, split};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};

use crate::peer;

/// How many clients are answered at once; the others wait in the queue.
pub const MAX_CLIENTS: usize = 16;
/// How long a client has from its connection to the last byte of its answer. Prometheus waits for ten seconds.
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one of [`MAX_CLIENTS`] places is taken at least: there are no more than 160 clients a second, however fast they
/// come.
pub const MIN_PLACE_TIME: Duration = Duration::from_millis(100);
/// A client that has sent nothing for so long is an agent-check. HAProxy waits for two seconds by default
/// (agent-inter).
pub const AGENT_WAIT: Duration = Duration::from_millis(250);
/// The most of a request's head that is read, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// The rest before accepting is tried again after an error that will not pass by itself (no descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The answer for a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// 200, or 503 where the answer is no.
    pub is_well: bool,
    /// Its Content-Type.
    pub content_type: &'static str,
    /// The whole of it.
    pub text: String,
}

impl Page {
    /// A text for people and programs.
    pub fn plain(is_well: bool, text: String) -> Self {
        Self { is_well, content_type: "text/plain; charset=utf-8", text }
    }
}

/// A listening socket.
#[derive(Debug)]
pub enum Socket {
    /// A unix socket.
    Unix(UnixListener),
    /// A TCP socket.
    Tcp(TcpListener),
}

impl Socket {
    /// Takes a listening unix socket. Must be called inside a tokio runtime, as [`Socket::tcp`].
    ///
    /// # Errors
    /// epoll takes no more descriptors.
    pub fn unix(socket: OwnedFd) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixListener::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self::Unix(UnixListener::from_std(socket)?))
    }

    /// Takes a listening TCP socket.
    ///
    /// # Errors
    /// As [`Socket::unix`].
    pub fn tcp(socket: OwnedFd) -> io::Result<Self> {
        let socket = std::net::TcpListener::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self::Tcp(TcpListener::from_std(socket)?))
    }

    async fn accept(&self) -> io::Result<Connection> {
        Ok(match self {
            Self::Unix(socket) => Box::pin(peer::Stream::new(socket.accept().await?.0)),
            Self::Tcp(socket) => Box::pin(socket.accept().await?.0),
        })
    }
}

trait ReadWrite: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> ReadWrite for T {}

/// A connection of either family.
type Connection = Pin<Box<dyn ReadWrite>>;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// A page.
    Path {
        /// One of the paths that there are.
        path: &'static str,
        /// The client's Accept header, empty without one.
        accept: String,
    },
    /// The line of an agent-check: the text of the answer.
    Agent,
}

/// Serves these paths for ever: run it as a task. `answer` makes their pages; without one the client hears that there is none
/// at this moment.
pub async fn serve<A, F>(socket: Socket, paths: &'static [&'static str], answer: A)
where
    A: Fn(Question) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Option<Page>> + Send,
{
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        // It is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let connection = match socket.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!("cannot accept on the status socket: {error}, ignoring");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let answer = answer.clone();
        tokio::spawn(async move {
            let free_at = Instant::now() + MIN_PLACE_TIME;
            // An error means that the client is gone, or too slow; nobody is left to hear of it.
            let _ = timeout(CLIENT_TIMEOUT, serve_client(connection, paths, &answer)).await;
            sleep_until(free_at).await;
            drop(place);
        });
    }
}

async fn serve_client<A, F>(mut connection: Connection, paths: &'static [&'static str], answer: &A) -> io::Result<()>
where
    A: Fn(Question) -> F,
    F: Future<Output = Option<Page>>,
{
    let mut first = [0; 8];
    let length = match timeout(AGENT_WAIT, connection.read(&mut first)).await {
        Ok(read) => read?,
        Err(_) => 0,
    };
    if !may_be_http(&first[..length]) {
        let line = answer(Question::Agent).await.map_or_else(|| "drain#stopping\n".to_owned(), |page| page.text);
        connection.write_all(line.as_bytes()).await?;
        return connection.shutdown().await;
    }
    let (rest, writer) = split(connection);
    let whole = join(io::Cursor::new(first).take(length as u64).chain(rest), writer);
    let service = service_fn(|request| respond(request, paths, answer));
    let serving = http1::Builder::new()
        .keep_alive(false)
        // A client that has asked and says no more may be waiting.
        .half_close(true)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(whole), service);
    serving.await.map_err(io::Error::other)
}

/// Whether these are the first bytes of a request: letters of a method, which are capitals.
fn may_be_http(first: &[u8]) -> bool {
    let method = first.split(|byte| *byte == b' ').next().unwrap_or_default();
    !method.is_empty() && method.iter().all(u8::is_ascii_uppercase)
}

/// GET and HEAD are answered; for HEAD hyper leaves the text out.
async fn respond<A, F>(
    request: Request<Incoming>,
    paths: &'static [&'static str],
    answer: &A,
) -> Result<Response<Full<Bytes>>, Infallible>
where
    A: Fn(Question) -> F,
    F: Future<Output = Option<Page>>,
{
    let plain = |status, text: String| page(status, Page::plain(true, text));
    let Some(path) = paths.iter().find(|path| **path == request.uri().path()) else {
        return Ok(plain(StatusCode::NOT_FOUND, format!("there is {}\n", paths.join(" and "))));
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(refusal);
    }
    let accept = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let question = Question::Path { path, accept: accept.collect::<Vec<_>>().join(",") };
    Ok(match answer(question).await {
        Some(answer) if answer.is_well => page(StatusCode::OK, answer),
        Some(answer) => page(StatusCode::SERVICE_UNAVAILABLE, answer),
        None => plain(StatusCode::SERVICE_UNAVAILABLE, "this sockd is stopping\n".to_owned()),
    })
}

fn page(status: StatusCode, Page { content_type, text, .. }: Page) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
