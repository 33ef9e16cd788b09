//! One request, over HTTP or in the uwsgi protocol, and the status of its answer.

use super::question::{AskError, Question};
use super::uwsgi;
use crate::peer;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// The longest answer head that is read, in bytes; a longer one is an error.
const LARGEST_HEAD: usize = 64 << 10;
/// Who asks.
const AGENT: &str = "sockd (probe)";

/// Sends `GET path` to the socket and returns the status. The body is not waited for.
///
/// # Errors
/// [`AskError`].
pub async fn ask(address: &str, question: &Question) -> Result<StatusCode, AskError> {
    let patience = question.patience;
    timeout(patience, exchange(address, question)).await.unwrap_or(Err(AskError::Timeout(patience)))
}

async fn exchange(address: &str, question: &Question) -> Result<StatusCode, AskError> {
    exchange_on(open(address).await?, question).await
}

/// A connection, or why there is none.
pub(super) async fn open(address: &str) -> Result<Stream, AskError> {
    let is_full = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
    connect(address).await.map_err(|error| if is_full(&error) { AskError::QueueFull } else { AskError::Connect(error) })
}

async fn exchange_on(mut stream: Stream, question: &Question) -> Result<StatusCode, AskError> {
    if question.uwsgi {
        let packet = uwsgi::packet(question, AGENT).ok_or(AskError::TooLong)?;
        match stream.write_all(&packet).await {
            Err(error) if !is_gone(&error) => return Err(AskError::Connect(error)),
            Ok(()) | Err(_) => {}
        }
    }
    let mut request = Request::get(&question.path).header(HOST, &question.host).header(CONNECTION, "close");
    for (name, value) in &question.headers {
        request = request.header(name, value);
    }
    if !question.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(USER_AGENT.as_str())) {
        request = request.header(USER_AGENT, AGENT);
    }
    let request = request.body(Empty::<Bytes>::new())?;
    let heard = Arc::new(AtomicBool::new(false));
    let stream = Hearing { stream, heard: Arc::clone(&heard), is_asked: question.uwsgi };
    let answered = |error: hyper::Error| {
        // A server that speaks before it is asked speaks no HTTP; hyper has no name for that error.
        let unasked = heard.load(Ordering::Relaxed) && !error.is_incomplete_message();
        if error.is_parse() || unasked { AskError::NotHttp(error) } else { AskError::Closed }
    };
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(LARGEST_HEAD)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(answered)?;
    let answer = sender.send_request(request);
    tokio::pin!(connection, answer);
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return answer.map(|answer| answer.status()).map_err(answered),
            // Its end, good or bad, reaches the answer too.
            _ = &mut connection, if open => open = false,
        }
    }
}

/// Connects without ever blocking the thread: a blocking connect(2) to a unix socket whose queue is full waits until its
/// worker accepts.
async fn connect(address: &str) -> io::Result<Stream> {
    if let Ok(address) = address.parse::<SocketAddr>() {
        return Ok(Box::pin(TcpStream::connect(address).await?));
    }
    // tokio takes a path that begins with a zero byte for an abstract name.
    let path = address.strip_prefix('@').map_or_else(|| address.to_owned(), |name| format!("\0{name}"));
    Ok(Box::pin(peer::Stream::new(UnixStream::connect(path).await?)))
}

pub(super) trait ReadWrite: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> ReadWrite for T {}

/// A connection of either family.
pub(super) type Stream = Pin<Box<dyn ReadWrite>>;

/// A connection on which what the other side has said counts, also when it closed before it was asked.
struct Hearing {
    stream: Stream,
    heard: Arc<AtomicBool>,
    /// The question is on its way, in another protocol; what is written goes nowhere.
    is_asked: bool,
}

impl AsyncRead for Hearing {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = self.stream.as_mut().poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.heard.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for Hearing {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_asked {
            return Poll::Ready(Ok(bytes.len()));
        }
        match self.stream.as_mut().poll_write(cx, bytes) {
            Poll::Ready(Err(error)) if is_gone(&error) => Poll::Ready(Ok(bytes.len())),
            written @ (Poll::Ready(_) | Poll::Pending) => written,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::super::Socket;
    use super::*;
    use crate::private_socket::Binder;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    fn asked(reply: &'static [u8], patience: Duration) -> Result<StatusCode, AskError> {
        let (socket, fd) = Socket::listen(&Binder::new(None)).expect("a socket");
        let listener = UnixListener::from(fd);
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut head = [0; 1024];
            let length = stream.read(&mut head).expect("a request");
            stream.write_all(reply).expect("it listens");
            if reply.is_empty() {
                // Neither answer nor end, until the other side has gone.
                let _ = stream.read(&mut head);
            }
            String::from_utf8_lossy(&head[..length]).into_owned()
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let headers = vec![("X-Forwarded-Proto".to_owned(), "https".to_owned())];
        let question =
            Question { path: "/healthz".to_owned(), host: "example.com".to_owned(), headers, patience, uwsgi: false };
        let answer = runtime.block_on(ask(socket.address(), &question));
        drop(runtime);
        let request = server.join().expect("it answered");
        assert!(request.starts_with("GET /healthz HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("host: example.com\r\n"), "{request}");
        assert!(request.to_lowercase().contains("x-forwarded-proto: https\r\n"), "{request}");
        answer
    }

    fn plain_question() -> Question {
        Question {
            path: "/".to_owned(),
            host: "localhost".to_owned(),
            headers: Vec::new(),
            patience: Duration::from_secs(10),
            uwsgi: false,
        }
    }

    #[test]
    fn the_status_counts_and_the_body_is_not_waited_for() {
        let long = Duration::from_secs(10);
        let reply = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 1000000\r\n\r\nstart of";
        assert_eq!(asked(reply, long).expect("an answer"), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(asked(b"HTTP/1.0 204 No Content\r\n\r\n", long).expect("an answer"), StatusCode::NO_CONTENT);
    }

    #[test]
    fn what_is_no_answer_is_distinguished() {
        let long = Duration::from_secs(10);
        assert!(matches!(asked(b"SSH-2.0-OpenSSH_9.2\r\n", long), Err(AskError::NotHttp(_))));
        assert!(matches!(asked(b"HTTP/1.1 20", long), Err(AskError::Closed)));
        assert!(matches!(asked(b"", Duration::from_millis(50)), Err(AskError::Timeout(_))));
    }

    #[test]
    fn who_greets_and_closes_is_heard_whenever_that_is() {
        for (greeting, says_nothing) in [(&b"* OK ready\r\n"[..], false), (b"", true)] {
            let (socket, fd) = Socket::listen(&Binder::new(None)).expect("a socket");
            let listener = UnixListener::from(fd);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            for early in [true, false] {
                let answer = runtime.block_on(async {
                    let stream = connect(socket.address()).await.expect("its queue has room");
                    let (mut server, _) = listener.accept().expect("a connection");
                    let greet = move || {
                        server.write_all(greeting).expect("it listens");
                        drop(server);
                    };
                    let late = if early {
                        greet();
                        None
                    } else {
                        Some(std::thread::spawn(greet))
                    };
                    let answer = exchange_on(stream, &plain_question()).await;
                    late.into_iter().for_each(|thread| thread.join().expect("it greeted"));
                    answer
                });
                let heard = matches!(answer, Err(AskError::NotHttp(_)));
                assert!(
                    heard != says_nothing && (heard || matches!(answer, Err(AskError::Closed))),
                    "{early}: {answer:?}"
                );
            }
        }
    }

    #[test]
    fn a_tcp_socket_is_asked_like_any_other() {
        for like in ["127.0.0.1:80", "[::1]:80"] {
            let (socket, fd) = Socket::listen_tcp(like.parse().expect("an address")).expect("a port");
            let listener = std::net::TcpListener::from(fd);
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("a connection");
                let _ = stream.read(&mut [0; 1024]);
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("it listens");
            });
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let question = plain_question();
            assert_eq!(runtime.block_on(ask(socket.address(), &question)).expect("an answer"), StatusCode::OK);
            server.join().expect("it answered");
        }
    }

    #[test]
    fn a_full_queue_is_no_answer_and_blocks_nobody() {
        let (socket, _fd) = Socket::listen(&Binder::new(None)).expect("a socket");
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let mut waiting = Vec::new();
            let full = runtime.block_on(async {
                while let Ok(stream) = connect(socket.address()).await {
                    waiting.push(stream);
                }
                ask(socket.address(), &plain_question()).await
            });
            let _ = sender.send(full);
        });
        let full = receiver.recv_timeout(Duration::from_secs(60)).expect("connecting blocks");
        assert!(matches!(full, Err(AskError::QueueFull)), "{full:?}");
    }

    #[test]
    fn a_dead_worker_cannot_be_reached() {
        let (socket, fd) = Socket::listen(&Binder::new(None)).expect("a socket");
        drop(fd);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let question = plain_question();
        assert!(matches!(runtime.block_on(ask(socket.address(), &question)), Err(AskError::Connect(_))));
    }
}
