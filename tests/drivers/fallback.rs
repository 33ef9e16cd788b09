//! The helper process `sockd fallback` and its visitors.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use sockd::app::Address;
use sockd::queue;

use crate::descriptors::with_descriptors;
use crate::directory::{Directory, eventually};

/// A helper on one unix socket.
struct Helper {
    child: Child,
    orders: Option<ChildStdin>,
    visitors: BufReader<ChildStdout>,
    listener: Arc<UnixListener>,
    path: PathBuf,
    directory: Directory,
}

impl Helper {
    fn new() -> Self {
        let directory = Directory::new();
        let path = directory.join("x.sock");
        let listener = UnixListener::bind(&path).expect("a listener");
        rustix::net::listen(&listener, 512).expect("a backlog");
        let descriptor: OwnedFd = listener.as_fd().try_clone_to_owned().expect("a duplicate");
        let mut command = Command::new("sh");
        command.args(["-c", "unset LISTEN_PID; exec \"$@\" 3<&2 2>>\"$LOG\"", "sh"]);
        command.args([env!("CARGO_BIN_EXE_sockd"), "fallback", "--listeners", "1"]);
        command.env("LISTEN_FDS", "1").env("LOG", directory.join("log"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(descriptor);
        let mut child = command.spawn().expect("a helper");
        let (orders, visitors) = (child.stdin.take(), BufReader::new(child.stdout.take().expect("stdout")));
        Self { child, orders, visitors, listener: Arc::new(listener), path, directory }
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.path).expect("a connection")
    }

    fn ask(&self, request: &[u8]) -> String {
        let mut visitor = self.connect();
        visitor.write_all(request).expect("a request");
        read(visitor)
    }

    fn order(&mut self, line: &str) {
        writeln!(self.orders.as_mut().expect("stdin"), "{line}").expect("an order");
    }

    fn accepted(&self, connections: u32) {
        eventually(&format!("{connections} are accepted"), || {
            let found = queue::in_flight(&Address::Unix(self.path.clone())).expect("a count").connections;
            (found == connections).then_some(())
        });
    }

    /// Ends the orders; the exit code of the helper.
    fn stop(&mut self) -> Option<i32> {
        drop(self.orders.take());
        self.child.wait().expect("a status").code()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(mut visitor: impl Read) -> String {
    let mut text = String::new();
    visitor.read_to_string(&mut text).expect("an answer");
    text
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// That an answer is whole: a 503 whose body is as long as it says.
fn assert_whole(text: &str) {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
    assert!(head.contains("\r\nRetry-After: "), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{text}");
}

#[test]
fn visitors_are_answered_in_their_language_and_counted() {
    let mut helper = Helper::new();
    let plain = helper.ask(GET);
    assert_whole(&plain);
    assert!(plain.contains("text/plain"), "{plain}");
    let json = helper.ask(b"GET /api HTTP/1.1\r\nAccept: application/json\r\n\r\n");
    assert_whole(&json);
    assert!(json.contains("\"status\":503"), "{json}");
    let head = helper.ask(b"HEAD / HTTP/1.1\r\nAccept: text/html\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 503 ") && head.ends_with("\r\n\r\n"), "{head}");
    // As Nginx sends it with uwsgi_pass, the body of a POST after the variables.
    let packet = b"\0\x17\0\0\x0e\0REQUEST_METHOD\x05\0QUERYa=1&b=2";
    let uwsgi = helper.ask(packet);
    assert_whole(&uwsgi);
    let mut counted = [0; 4];
    helper.visitors.read_exact(&mut counted).expect("four visitors");
    assert_eq!(helper.stop(), Some(0));
    let mut more = Vec::new();
    helper.visitors.read_to_end(&mut more).expect("the end");
    assert_eq!((&counted, more.len()), (b"....", 0));
    assert_eq!(helper.log(), "");
}

#[test]
fn retry_after_is_what_the_supervisor_says() {
    let mut helper = Helper::new();
    helper.order("{\"retry_after\": 9}");
    helper.order("what?");
    eventually("Retry-After is 9", || helper.ask(GET).contains("\r\nRetry-After: 9\r\n").then_some(()));
    helper.order("{\"retry_after\": 0}");
    eventually("Retry-After is at least 1", || helper.ask(GET).contains("\r\nRetry-After: 1\r\n").then_some(()));
    assert!(helper.log().contains("an order makes no sense"), "{}", helper.log());
}

#[test]
fn a_request_in_pieces_is_answered() {
    let helper = Helper::new();
    let mut visitor = helper.connect();
    for byte in GET {
        visitor.write_all(&[*byte]).expect("a byte");
    }
    assert_whole(&read(visitor));
    let mut cut = helper.connect();
    cut.write_all(b"GET / HTT").expect("half a request");
    cut.shutdown(Shutdown::Write).expect("half a close");
    assert_whole(&read(cut));
}

#[test]
fn garbage_gets_an_answer_and_silence_gets_none() {
    let helper = Helper::new();
    assert_whole(&helper.ask(b"\x16\x03\x01\x02\x00\r\n\r\n"));
    let silent = helper.connect();
    silent.shutdown(Shutdown::Write).expect("half a close");
    assert_eq!(read(silent), "");
    assert_whole(&helper.ask(GET));
}

#[test]
fn a_slow_visitor_is_dropped_and_hinders_nobody() {
    let mut helper = Helper::new();
    let mut slow = helper.connect();
    slow.write_all(b"GET / HTTP/1.1\r\n").expect("half a request");
    helper.accepted(1);
    assert_whole(&helper.ask(GET));
    // The helper closes with nothing unread, so that this is an end and no reset.
    assert_eq!(read(slow), "");
    helper.accepted(0);
    let mut counted = Vec::new();
    assert_eq!(helper.stop(), Some(0));
    helper.visitors.read_to_end(&mut counted).expect("the end");
    assert_eq!(counted.len(), 1, "who was dropped is no visitor");
}

#[test]
fn two_hundred_at_once_are_all_answered() {
    let helper = Helper::new();
    // All connect before the first one asks: 64 are accepted, the queue holds the others.
    let visitors: Vec<_> = (0..200).map(|_| helper.connect()).collect();
    helper.accepted(64);
    let depth = queue::depth(&Address::Unix(helper.path.clone()), inode(&helper.listener)).expect("a queue");
    assert!(depth.waiting >= 135, "{depth:?}");
    let asking: Vec<_> = visitors
        .into_iter()
        .map(|mut visitor| {
            thread::spawn(move || {
                visitor.write_all(GET).expect("a request");
                read(visitor)
            })
        })
        .collect();
    for visitor in asking {
        assert_whole(&visitor.join().expect("an answer"));
    }
}

fn inode(socket: impl AsFd) -> u64 {
    rustix::fs::fstat(socket).expect("fstat").st_ino
}

#[test]
fn what_is_sent_after_the_head_does_not_destroy_the_answer() {
    let helper = Helper::new();
    let body = vec![b'x'; 32 << 10];
    let request = [&b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 32768\r\n\r\n"[..], &body].concat();
    for _ in 0..50 {
        assert_whole(&helper.ask(&request));
    }
}

/// Sends a head without an end, and reads meanwhile.
fn flood(visitor: impl Read + Write + Send, other_end: impl Write + Send + 'static) -> String {
    let flooding = thread::spawn(move || {
        let mut other_end = other_end;
        let line = [b'x'; 1024];
        // The helper hangs up in the middle: that ends the flood.
        (0..10_000).all(|_| other_end.write_all(&line).is_ok())
    });
    let mut visitor = visitor;
    let mut text = Vec::new();
    // A reset may follow the answer, for the helper reads a bounded amount only; what came before it counts.
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = visitor.read(&mut buffer) {
        text.extend(&buffer[..length]);
    }
    assert!(!flooding.join().expect("no panic"), "all ten megabytes were read");
    String::from_utf8(text).expect("text")
}

#[test]
fn a_huge_request_is_answered_and_cut_off() {
    let helper = Helper::new();
    let visitor = helper.connect();
    assert_whole(&flood(visitor.try_clone().expect("a duplicate"), visitor));
}

#[test]
fn unix_and_tcp_are_served_together_and_their_flags_stay() {
    let directory = Directory::new();
    let unix = UnixListener::bind(directory.join("x.sock")).expect("a listener");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = tcp.local_addr().expect("an address");
    let descriptors = [unix.as_fd(), tcp.as_fd()].map(|fd| fd.try_clone_to_owned().expect("a duplicate"));
    let program = [env!("CARGO_BIN_EXE_sockd"), "fallback", "--listeners", "2"];
    // Stdin is empty at once in this way of starting it: a FIFO that stays open stands in.
    let orders = directory.join("orders");
    let mode = rustix::fs::Mode::from_bits_truncate(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &orders, mode).expect("a FIFO");
    let hold = std::fs::File::options().read(true).write(true).open(&orders).expect("a FIFO");
    let line = ["sh", "-c", "exec \"$@\" <\"$ORDERS\" >\"$OUT\"", "sh"];
    let line: Vec<_> = line.into_iter().chain(program).collect();
    let mut command = with_descriptors(descriptors.into(), "unset LISTEN_PID", &line, &directory.join("log"));
    command.env("LISTEN_FDS", "2").env("ORDERS", &orders).env("OUT", directory.join("out"));
    let mut child = command.spawn().expect("a helper");
    drop(command);
    let mut visitor = UnixStream::connect(directory.join("x.sock")).expect("a connection");
    visitor.write_all(GET).expect("a request");
    assert_whole(&read(visitor));
    let mut visitor = TcpStream::connect(address).expect("a connection");
    visitor.write_all(GET).expect("a request");
    assert_whole(&read(visitor));
    let visitor = TcpStream::connect(address).expect("a connection");
    assert_whole(&flood(visitor.try_clone().expect("a duplicate"), visitor));
    for fd in [unix.as_fd(), tcp.as_fd()] {
        assert!(!rustix::fs::fcntl_getfl(fd).expect("flags").contains(OFlags::NONBLOCK));
    }
    drop(hold);
    assert!(child.wait().expect("a status").success());
    assert_eq!(std::fs::read(directory.join("out")).expect("the count"), b"...");
}

#[test]
fn an_answer_in_flight_is_finished_at_the_stop_and_nobody_else_is_accepted() {
    let mut helper = Helper::new();
    let mut visitor = helper.connect();
    visitor.write_all(b"GET / HTTP/1.1\r\n").expect("half a request");
    helper.accepted(1);
    drop(helper.orders.take());
    // The acceptor leaves at once, the one in flight keeps the helper alive.
    eventually("the acceptor is gone", || (threads(&helper.child) == Some(2)).then_some(()));
    let late = helper.connect();
    visitor.write_all(b"\r\n").expect("the other half");
    assert_whole(&read(visitor));
    assert_eq!(helper.stop(), Some(0));
    let depth = queue::depth(&Address::Unix(helper.path.clone()), inode(&helper.listener)).expect("a queue");
    assert_eq!(depth.waiting, 1, "the late one waits for a worker");
    drop(late);
}

fn threads(child: &Child) -> Option<usize> {
    Some(std::fs::read_dir(format!("/proc/{}/task", child.id())).ok()?.count())
}

#[test]
fn a_visitor_who_never_asks_does_not_hold_up_the_stop() {
    let mut helper = Helper::new();
    let _silent = helper.connect();
    helper.accepted(1);
    let begun = Instant::now();
    assert_eq!(helper.stop(), Some(0));
    // Two seconds are promised; a silent visitor would be dropped only after five.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[test]
fn nobody_is_lost_when_workers_take_connections_away() {
    let mut helper = Helper::new();
    let done = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let (done, listener) = (Arc::clone(&done), Arc::clone(&helper.listener));
            thread::spawn(move || steal(&listener, &done))
        })
        .collect();
    // Until an acceptor of the helper is seen in accept(2) with nobody there: its visitor was taken away.
    let mut visitors = 0;
    let mut by_helper = 0;
    let begun = Instant::now();
    loop {
        let burst: Vec<_> = (0..4).map(|_| helper.connect()).collect();
        for mut visitor in burst {
            visitor.write_all(GET).expect("a request");
            let text = read(visitor);
            visitors += 1;
            by_helper += usize::from(text.starts_with("HTTP/1.1 503 "));
            assert!(text.starts_with("HTTP/1.1 "), "visitor {visitors} was lost: {text:?}");
        }
        if by_helper > 0 && in_accept(&helper.child) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "no connection was taken away in {visitors} visits");
    }
    // Visitors go on coming while the helper stops, and each is answered by somebody.
    drop(helper.orders.take());
    let begun = Instant::now();
    let status = loop {
        let mut visitor = helper.connect();
        visitor.write_all(GET).expect("a request");
        let text = read(visitor);
        assert!(text.starts_with("HTTP/1.1 "), "a visitor was lost at the stop: {text:?}");
        if let Some(status) = helper.child.try_wait().expect("a status") {
            break status;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "the helper does not stop");
    };
    assert!(status.success());
    done.store(true, Ordering::Relaxed);
    // A worker may sit in accept(2) by now, as the helper did; one more visitor gets it out.
    eventually("the workers end", || {
        drop(helper.connect());
        workers.iter().all(thread::JoinHandle::is_finished).then_some(())
    });
}

/// A worker: takes what it can get without ever blocking in accept(2), as the listener stays in blocking mode.
fn steal(listener: &UnixListener, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        let mut fds = [PollFd::new(listener, PollFlags::IN)];
        let pause = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        if poll(&mut fds, Some(&pause)) != Ok(1) {
            continue;
        }
        // Another may be faster: then this blocks until the next visitor, of whom there are plenty.
        let Ok((mut visitor, _)) = listener.accept() else { continue };
        let mut request = [0; 1024];
        if matches!(visitor.read(&mut request), Ok(1..)) {
            let _ = visitor.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    }
}

/// Whether a thread of the process is asleep in accept(2), as the kernel tells (`/proc/PID/task/TID/wchan`).
fn in_accept(child: &Child) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", child.id())) else { return false };
    tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("syscall")).ok()).any(|line| {
        // 288 on x86-64, 242 on 64-bit ARM and RISC-V: accept4 of asm/unistd.h.
        let accept4 = if cfg!(target_arch = "x86_64") { "288 " } else { "242 " };
        line.starts_with(accept4)
    })
}

/// TasksMax=, or LimitNPROC=, which root is not subject to.
#[test]
fn where_there_can_be_no_thread_it_says_nothing_and_exits_with_a_code_of_its_own() {
    let directory = Directory::new();
    // Where everybody may run it; a copy has the permissions of the original.
    let program = std::env::temp_dir().join(format!("sockd-fallback-test-{}", std::process::id()));
    std::fs::copy(env!("CARGO_BIN_EXE_sockd"), &program).expect("a copy");
    let listener = UnixListener::bind(directory.join("x.sock")).expect("a listener");
    let mut command = Command::new("sh");
    command.args(["-c", "unset LISTEN_PID; exec 3<&0 </dev/null \"$@\"", "sh"]);
    if rustix::process::geteuid().is_root() {
        command.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    command.args(["prlimit", "--nproc=1"]).arg(&program).args(["fallback", "--listeners", "1"]);
    let output = command.env("LISTEN_FDS", "1").stdin(OwnedFd::from(listener)).current_dir("/").output();
    std::fs::remove_file(&program).expect("it is ours");
    let output = output.expect("util-linux is there");
    assert_eq!(output.status.code(), Some(i32::from(sockd::fallback::NO_THREAD)), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}
