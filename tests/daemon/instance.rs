//! One running sockd, started as systemd starts it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType};
use rustix::process::{Pid, Signal};
use sockd::control::message::{Outcome, Stacks, Status, Worker, WorkerState};
use sockd::control::{self, AskError, Origin, Request};

use super::http::{Address, Response};
use super::processes;
use super::transcript::{Entry, Mark, PATIENCE, START, Source, Transcript};

/// systemd's default: as many as the kernel allows, which is 4096 unless set otherwise.
const BACKLOG: i32 = i32::MAX;

/// A directory of one test, removed at its end.
#[derive(Debug)]
pub struct Scratch {
    pub path: PathBuf,
    /// Marks the test's processes.
    token: String,
}

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let token = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("sockd-daemon-test-{token}"));
        std::fs::create_dir(&path).expect("a directory of our own");
        Self { path, token }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// What the next instance is given.
pub struct Builder {
    scratch: Scratch,
    descriptors: Vec<OwnedFd>,
    addresses: Vec<Address>,
    names: Option<String>,
    environment: BTreeMap<String, String>,
    options: Vec<String>,
    most_descriptors: Option<u32>,
    hard_limit_of_descriptors: Option<u32>,
    log: Option<OwnedFd>,
    pid_namespace: bool,
    network_namespace: bool,
}

impl Builder {
    /// The directory of this test.
    pub fn path(&self) -> &Path {
        &self.scratch.path
    }

    /// Writes a file into the directory.
    pub fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.path().join(name), text).expect("written");
        self
    }

    /// Another unix socket, as ListenStream= of a socket unit.
    pub fn unix(self, name: &str) -> Self {
        self.unix_with_backlog(name, BACKLOG)
    }

    /// The same with Backlog=.
    pub fn unix_with_backlog(mut self, name: &str, backlog: i32) -> Self {
        let path = self.path().join(name);
        let listener = UnixListener::bind(&path).expect("bound");
        self.addresses.push(Address::Unix(path));
        rustix::net::listen(&listener, backlog).expect("listens");
        self.descriptor(listener.into())
    }

    /// Another TCP socket.
    pub fn tcp(mut self, ip: impl Into<std::net::IpAddr>) -> Self {
        let listener = TcpListener::bind(SocketAddr::new(ip.into(), 0)).expect("bound");
        self.addresses.push(Address::Tcp(listener.local_addr().expect("its address")));
        rustix::net::listen(&listener, BACKLOG).expect("listens");
        self.descriptor(listener.into())
    }

    pub fn tcp4(self) -> Self {
        self.tcp(Ipv4Addr::LOCALHOST)
    }

    pub fn tcp6(self) -> Self {
        self.tcp(Ipv6Addr::LOCALHOST)
    }

    /// Another descriptor of any kind.
    pub fn descriptor(mut self, descriptor: OwnedFd) -> Self {
        self.descriptors.push(descriptor);
        self
    }

    /// LISTEN_FDNAMES.
    pub fn names(mut self, names: &str) -> Self {
        self.names = Some(names.to_owned());
        self
    }

    /// A variable of sockd's environment; `{pid}` becomes sockd's process id.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// The soft limit of LimitNOFILE=.
    pub fn most_descriptors(mut self, limit: u32) -> Self {
        self.most_descriptors = Some(limit);
        self
    }

    /// LimitNOFILE=, soft and hard.
    pub fn hard_limit_of_descriptors(mut self, limit: u32) -> Self {
        self.hard_limit_of_descriptors = Some(limit);
        self.most_descriptors(limit)
    }

    /// A stderr of the test's own, which nobody follows.
    pub fn log_to(mut self, stderr: OwnedFd) -> Self {
        self.log = Some(stderr);
        self
    }

    /// As the first process of a PID namespace, in a session that was made outside of it.
    pub fn in_pid_namespace(mut self) -> Self {
        self.pid_namespace = true;
        self
    }

    /// In a network namespace of its own: no other instance has its control socket there.
    pub fn in_network_namespace(mut self) -> Self {
        self.network_namespace = true;
        self
    }

    /// Options of `sockd run`, separated by white space.
    pub fn options(mut self, options: &str) -> Self {
        self.options.extend(options.split_whitespace().map(str::to_owned));
        self
    }

    /// A configuration file.
    pub fn config(self, text: &str) -> Self {
        let path = self.path().join("sockd.toml");
        let option = format!("--config={}", path.display());
        let mut builder = self.file("sockd.toml", text);
        builder.options.push(option);
        builder
    }

    /// Starts sockd with one of the test's own workers, with arguments for its behaviour.
    pub fn worker(mut self, script: &str, behaviour: &[&str]) -> Instance {
        if !self.options.iter().any(|option| option == "--ready-after") {
            // Python may start slowly: its silence shall not be taken for a proof.
            self = self.options("--ready-after 40s");
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/daemon/workers").join(script);
        // Isolated and without site-packages: it starts fastest.
        let mut command = vec!["python3", "-IS", script.to_str().expect("UTF-8")];
        command.extend_from_slice(behaviour);
        self.command(&command)
    }

    /// Starts sockd with this command.
    pub fn command(mut self, command: &[&str]) -> Instance {
        let path = self.scratch.path.clone();
        let transcript = Arc::new(Transcript::default());
        let notify = path.join("notify");
        hear(&notify, &transcript);
        let runtime = path.join("run");
        std::fs::create_dir(&runtime).expect("made");

        let mut environment = BTreeMap::from([
            ("PATH".to_owned(), std::env::var("PATH").expect("PATH")),
            ("NOTIFY_SOCKET".to_owned(), notify.display().to_string()),
            ("RUNTIME_DIRECTORY".to_owned(), runtime.display().to_string()),
            ("TMPDIR".to_owned(), path.display().to_string()),
            // A file written twice in a second must not be taken for the first one.
            ("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned()),
            (processes::MARKER.to_owned(), self.scratch.token.clone()),
        ]);
        if !self.descriptors.is_empty() {
            environment.insert("LISTEN_FDS".to_owned(), self.descriptors.len().to_string());
            environment.insert("LISTEN_PID".to_owned(), "{pid}".to_owned());
        }
        if let Some(names) = &self.names {
            environment.insert("LISTEN_FDNAMES".to_owned(), names.clone());
        }
        environment.append(&mut self.environment);
        let sockd = env!("CARGO_BIN_EXE_sockd");
        let mut arguments = vec![sockd.to_owned(), "run".to_owned()];
        arguments.append(&mut self.options);
        if !command.is_empty() {
            arguments.push("--".to_owned());
            arguments.extend(command.iter().map(|word| (*word).to_owned()));
        }
        let order = serde_json::json!({
            "program": sockd, "arguments": arguments, "environment": environment, "directory": path,
            "most_descriptors": self.most_descriptors, "hard_limit_of_descriptors": self.hard_limit_of_descriptors,
        });
        let log = self.log.map_or_else(Stdio::piped, Stdio::from);
        let namespaces: &[&str] = match (self.pid_namespace, self.network_namespace) {
            (true, _) => &["--pid", "--fork", "--kill-child", "--mount-proc"],
            (false, true) => &["--net"],
            (false, false) => &[],
        };
        let mut child = launch(&order.to_string(), &self.descriptors, log, namespaces);
        if let Some(log) = child.stderr.take() {
            transcript.follow(Source::Log, log);
        }
        transcript.follow(Source::Output, child.stdout.take().expect("a pipe"));
        let pid = match Pid::from_child(&child) {
            pid if self.pid_namespace => only_child(pid),
            pid => pid,
        };
        Instance {
            pid,
            child: Some(child),
            transcript,
            addresses: self.addresses,
            descriptors: self.descriptors,
            scratch: self.scratch,
        }
    }
}

/// Binds the manager's socket and copies what comes into the transcript.
fn hear(path: &Path, transcript: &Arc<Transcript>) {
    let socket = UnixDatagram::bind(path).expect("bound");
    let transcript = Arc::clone(transcript);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length) = socket.recv(&mut buffer) {
            if &buffer[..length] == GOODBYE {
                return;
            }
            transcript.push(Source::Manager, String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    });
}

/// Ends the thread that reads the manager's socket.
const GOODBYE: &[u8] = b"X_TEST_ENDS=1";

/// The process that `unshare --fork` has started.
fn only_child(pid: Pid) -> Pid {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(child) = sockd::process::children(pid).first() {
            return *child;
        }
        assert!(Instant::now() < deadline, "{} starts nothing", processes::describe(pid));
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn launch(order: &str, descriptors: &[OwnedFd], log: Stdio, namespaces: &[&str]) -> Child {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .expect("a pair of sockets");
    let launcher = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/daemon/launcher.py");
    let mut command = if namespaces.is_empty() {
        Command::new("python3")
    } else {
        let mut command = Command::new("unshare");
        command.arg("--map-root-user").args(namespaces).arg("python3");
        command
    };
    let child = command
        .arg("-IS")
        .arg(launcher)
        .stdin(theirs)
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("python3 starts");
    let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let rights = SendAncillaryMessage::ScmRights(&borrowed);
    let mut space = vec![MaybeUninit::uninit(); rights.size()];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() {
        ancillary.push(rights);
    }
    rustix::net::sendmsg(&ours, &[IoSlice::new(order.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL)
        .expect("the order is sent");
    child
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A running sockd.
pub struct Instance {
    pub pid: Pid,
    child: Option<Child>,
    pub transcript: Arc<Transcript>,
    pub addresses: Vec<Address>,
    /// The sockets that were handed over; systemd keeps its own copies, too.
    pub descriptors: Vec<OwnedFd>,
    scratch: Scratch,
}

impl Instance {
    /// A new one without sockets.
    pub fn builder() -> Builder {
        Builder {
            scratch: Scratch::new(),
            descriptors: Vec::new(),
            addresses: Vec::new(),
            names: None,
            environment: BTreeMap::new(),
            options: Vec::new(),
            most_descriptors: None,
            hard_limit_of_descriptors: None,
            log: None,
            pid_namespace: false,
            network_namespace: false,
        }
    }

    /// A new one with one unix socket.
    pub fn on_unix() -> Builder {
        Self::builder().unix("web.sock")
    }

    /// The directory of this test, which is also sockd's.
    pub fn path(&self) -> &Path {
        &self.scratch.path
    }

    pub fn write(&self, name: &str, text: &str) {
        // In one step, so that nobody reads half of it.
        let new = self.path().join(format!("{name}.new"));
        std::fs::write(&new, text).expect("written");
        std::fs::rename(new, self.path().join(name)).expect("renamed");
    }

    // What is heard.

    pub fn mark(&self) -> Mark {
        self.transcript.mark()
    }

    /// Waits for a line of the log that contains `text`.
    pub fn log(&self, text: &str) -> Entry {
        self.log_since(START, text)
    }

    pub fn log_since(&self, since: Mark, text: &str) -> Entry {
        self.transcript.wait(since, Source::Log, &format!("the log line {text:?}"), |line| line.contains(text))
    }

    pub fn wait_log(&self, since: Mark, what: &str, wanted: impl Fn(&str) -> bool) -> Entry {
        self.transcript.wait(since, Source::Log, what, wanted)
    }

    /// The lines of the log so far that contain `text`.
    pub fn logged(&self, since: Mark, text: &str) -> Vec<Entry> {
        self.transcript.all(since, Source::Log).into_iter().filter(|entry| entry.text.contains(text)).collect()
    }

    /// Waits for a line that a worker printed.
    pub fn output(&self, text: &str) -> Entry {
        self.output_since(START, text)
    }

    pub fn output_since(&self, since: Mark, text: &str) -> Entry {
        self.transcript.wait(since, Source::Output, &format!("a worker's {text:?}"), |line| line.contains(text))
    }

    /// Waits for a datagram with this line: `READY=1`.
    pub fn notified(&self, line: &str) -> Entry {
        self.notified_since(START, line)
    }

    pub fn notified_since(&self, since: Mark, line: &str) -> Entry {
        self.transcript.wait(since, Source::Manager, line, |text| text.lines().any(|l| l == line))
    }

    /// The datagrams so far with this line.
    pub fn heard(&self, since: Mark, line: &str) -> Vec<Entry> {
        let all = self.transcript.all(since, Source::Manager);
        all.into_iter().filter(|entry| entry.text.lines().any(|l| l == line)).collect()
    }

    /// Waits for STATUS= with this text.
    pub fn status(&self, text: &str) -> Entry {
        self.status_since(START, text)
    }

    pub fn status_since(&self, since: Mark, text: &str) -> Entry {
        self.notified_since(since, &format!("STATUS={text}"))
    }

    /// Waits for a STATUS= that contains this text.
    pub fn status_like(&self, since: Mark, text: &str) -> Entry {
        let wanted = |line: &str| line.strip_prefix("STATUS=").is_some_and(|status| status.contains(text));
        self.transcript.wait(since, Source::Manager, &format!("a status with {text:?}"), |t| t.lines().any(wanted))
    }

    // What is asked.

    /// GET on the first socket; it must succeed.
    pub fn get(&self, path: &str) -> Response {
        self.get_at(0, path)
    }

    pub fn get_at(&self, socket: usize, path: &str) -> Response {
        match self.addresses[socket].get(path) {
            Ok(response) => response,
            Err(error) => panic!("GET {path} on {:?}: {error}\n{}", self.addresses[socket], self.transcript.show()),
        }
    }

    /// Where its control socket is.
    pub fn control(&self) -> control::Instance {
        let pid = self.pid.as_raw_nonzero().get().unsigned_abs();
        let found = runtime().block_on(control::of_process(pid));
        found.unwrap_or_else(|error| panic!("no control socket: {error}\n{}", self.transcript.show()))
    }

    /// Where the threads of a worker stand.
    pub fn stacks(&self, worker: u64) -> Result<Stacks, AskError> {
        runtime().block_on(control::stacks(&self.control(), worker))
    }

    /// `sockd status`, as the instance itself tells it.
    pub fn report(&self) -> Status {
        match runtime().block_on(control::status(&self.control())) {
            Ok(status) => status,
            Err(error) => panic!("no status: {error}\n{}", self.transcript.show()),
        }
    }

    /// `sockd reload`: the steps it was sent, and the outcome.
    pub fn reload(&self) -> (Vec<String>, Outcome) {
        self.ask_for(Request::Reload { wait: true, origin: Origin::default() })
    }

    /// A request of a reload: the steps, and the outcome.
    pub fn ask_for(&self, request: Request) -> (Vec<String>, Outcome) {
        let mut steps = Vec::new();
        let control = self.control();
        let asking = control::follow(&control, request, |step| steps.push(step.to_owned()));
        match runtime().block_on(async { tokio::time::timeout(PATIENCE, asking).await }) {
            Ok(Ok(outcome)) => (steps, outcome),
            failed => panic!("no outcome: {failed:?}\n{}", self.transcript.show()),
        }
    }

    /// Another worker is wanted in the place of this one: the outcome.
    pub fn replace(&self, worker: u64) -> Outcome {
        match runtime().block_on(control::replace(&self.control(), worker)) {
            Ok(outcome) => outcome,
            Err(error) => panic!("no outcome: {error}\n{}", self.transcript.show()),
        }
    }

    /// A program in this instance's network namespace, marked as one of its processes.
    pub fn beside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.pid.as_raw_nonzero())).args([
            "--user",
            "--net",
            "--preserve-credentials",
        ]);
        command.arg(program).env(processes::MARKER, &self.scratch.token).current_dir(self.path());
        command
    }

    pub fn workers(&self) -> Vec<Worker> {
        self.report().workers
    }

    /// The process ids of the workers that are ready.
    pub fn ready(&self) -> Vec<Pid> {
        let ready = |worker: &Worker| {
            let pid = worker.pid.filter(|_| worker.state == WorkerState::Ready)?;
            Pid::from_raw(pid.cast_signed())
        };
        self.workers().iter().filter_map(ready).collect()
    }

    /// One that is ready. The first visitor may be answered a moment before sockd hears that.
    pub fn ready_worker(&self) -> Pid {
        self.until("a ready worker", || self.ready().first().copied())
    }

    // What is done to it.

    pub fn signal(&self, signal: Signal) {
        // Not reaped: its number is its own.
        assert!(self.child.is_some(), "it was reaped");
        processes::signal(self.pid, signal);
    }

    /// Waits for its end.
    pub fn end(&mut self) -> ExitStatus {
        assert!(
            processes::ended(self.pid, PATIENCE),
            "sockd does not end\nleft: {}\n{}",
            self.left().join(", "),
            self.transcript.show()
        );
        self.child.take().expect("not reaped before").wait().expect("reaped")
    }

    /// TERM; it must say STOPPING=1, end with success, and leave nothing behind.
    pub fn stop(mut self) -> Arc<Transcript> {
        let mark = self.mark();
        self.signal(Signal::TERM);
        let status = self.end();
        assert_eq!(status.code(), Some(0), "{status}\n{}", self.transcript.show());
        self.notified_since(mark, "STOPPING=1");
        self.assert_nothing_left();
        Arc::clone(&self.transcript)
    }

    /// The processes of this instance that are there, sockd apart.
    pub fn left(&self) -> Vec<String> {
        self.others().into_iter().map(processes::describe).collect()
    }

    fn others(&self) -> Vec<Pid> {
        let sockd = self.child.as_ref().map(|_| self.pid);
        let mut all = processes::marked(&self.scratch.token);
        // The helper that answers 503 has an environment of its own, without the mark.
        all.extend(sockd.into_iter().flat_map(sockd::process::descendants));
        all.sort_unstable_by_key(|pid| pid.as_raw_nonzero());
        all.dedup();
        // A zombie is its parent's affair.
        all.retain(|pid| Some(*pid) != sockd && !processes::is_zombie(*pid));
        all
    }

    /// Once sockd has ended: no process, no socket and no directory of its own.
    pub fn assert_nothing_left(&self) {
        assert!(self.child.is_none(), "sockd has not ended");
        let left = self.left();
        assert!(left.is_empty(), "left behind: {}\n{}", left.join(", "), self.transcript.show());
        // The history stays for as long as the directory does.
        let history = |file: &std::fs::DirEntry| file.file_name() == sockd::history::FILE_NAME;
        let files = std::fs::read_dir(self.path().join("run")).expect("readable").flatten();
        let files: Vec<_> = files.filter(|file| !history(file)).collect();
        assert!(files.is_empty(), "left behind: {files:?}");
        let ours = |name: &OsStr| name.to_string_lossy().starts_with("sockd-");
        let files: Vec<_> = std::fs::read_dir(self.path()).expect("readable").flatten().collect();
        assert!(!files.iter().any(|file| ours(&file.file_name())), "left behind: {files:?}");
    }

    /// Waits until the condition holds, looking again at every event that is heard and every few milliseconds.
    pub fn until<T>(&self, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(result) = condition() {
                return result;
            }
            assert!(Instant::now() < deadline, "{what}: it did not happen\n{}", self.transcript.show());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let others = self.others();
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        processes::kill_all(&others);
        // Whatever they made meanwhile.
        processes::kill_all(&processes::marked(&self.scratch.token));
        if let Ok(socket) = UnixDatagram::unbound() {
            let _ = socket.send_to(GOODBYE, self.path().join("notify"));
        }
    }
}
