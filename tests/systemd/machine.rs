//! Test machines: a Debian booted by its own systemd as process 1, in namespaces of its own.
//!
//! Owns: the booting (with the script `boot`), the commands run inside, and the end of a machine.
//! Must never: write to the cached file system (a machine is an overlay of it), change anything
//! outside the machine's namespaces, or leave something behind when the test process is killed:
//! a machine lives as long as the pipe this module holds (see `boot`).

use std::fs::File;
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long one command inside may take before it is ended and the test fails.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);
/// How long a machine may take to boot; it takes about a second on an idle host.
const BOOT_LIMIT: Duration = Duration::from_secs(90);
/// How long a machine may take to shut down before it is simply taken away.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);
/// The pause between two looks at a condition that announces itself by no event.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A Debian release, and with it a version of systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Debian 12 with systemd 252.
    Bookworm,
    /// Debian 13 with systemd 257.
    Trixie,
}

impl Release {
    /// Every release there are machines for.
    pub const ALL: [Self; 2] = [Self::Bookworm, Self::Trixie];

    /// The code name, as package mirrors spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }

    /// The version of systemd that is process 1 in its machines.
    pub fn systemd(self) -> u32 {
        match self {
            Self::Bookworm => 252,
            Self::Trixie => 257,
        }
    }
}

/// Whether machines can be made here; if not, why, and what would help.
///
/// The first call builds the file systems that are missing, which takes minutes.
pub fn lab_available() -> Result<(), String> {
    static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
    ANSWER.get_or_init(look_for_lab).clone()
}

fn look_for_lab() -> Result<(), String> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|e| e.to_string())?;
    let root = status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"));
    if !root {
        return Err("test machines need root; run the tests as root".into());
    }
    let check = Command::new(beside("boot"))
        .arg("--check")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("cannot run {}: {e}", beside("boot").display()))?;
    if !check.status.success() {
        return Err(format!(
            "namespaces and mounts are not allowed here (a container without privileges?): {}",
            String::from_utf8_lossy(&check.stderr).trim()
        ));
    }
    Release::ALL.into_iter().try_for_each(|release| tree(release).map(drop))
}

/// The finished file system of a release, built if need be.
fn tree(release: Release) -> Result<PathBuf, String> {
    let output = Command::new(beside("rootfs"))
        .arg(release.name())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("cannot run {}: {e}", beside("rootfs").display()))?;
    if !output.status.success() {
        return Err(format!(
            "the file system for {} could not be built; run tests/systemd/rootfs {0} to see why",
            release.name()
        ));
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end()))
}

/// A script that lies next to this module.
fn beside(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd").join(script)
}

/// A booted machine. Dropping it shuts it down; if the test is failing, its journal is printed first.
pub struct Machine {
    release: Release,
    name: String,
    /// The script `boot`; its mount namespace is where the machine's control group can be seen.
    keeper: Child,
    /// The pipe that keeps the machine alive.
    lifeline: Option<ChildStdin>,
    /// Process 1 of the machine, as this process numbers it.
    leader: u32,
    console: Arc<Mutex<Vec<u8>>>,
    spawned: AtomicU32,
}

impl Machine {
    /// Boots a machine and waits until its systemd has nothing left to start.
    pub fn boot(release: Release) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("sockd-{}-{}-{number}", release.name(), std::process::id());
        let tree = tree(release).unwrap_or_else(|why| panic!("cannot boot {name}: {why}"));

        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        let ready = UnixDatagram::bind_addr(&address).expect("a name of our own");
        let mut keeper = Command::new(beside("boot"))
            .arg(tree)
            .arg(&name)
            .env("NOTIFY_SOCKET", format!("@{name}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // An interrupt typed at a terminal is for the test; the pipe tells the machine.
            .process_group(0)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot run {}: {e}", beside("boot").display()));
        let console = Arc::new(Mutex::new(Vec::new()));
        collect(keeper.stdout.take().expect("piped above"), &console);
        collect(keeper.stderr.take().expect("piped above"), &console);
        let mut machine = Self {
            release,
            lifeline: keeper.stdin.take(),
            keeper,
            leader: 0,
            name,
            console,
            spawned: AtomicU32::new(0),
        };
        machine.wait_ready(&ready);
        machine.leader = machine.find_leader();
        let state = machine.run("systemctl is-system-running --wait || systemctl --failed");
        assert_eq!(state.stdout.trim(), "running", "{} has failed units", machine.name);
        machine
    }

    /// nspawn passes the machine's own READY=1 on.
    fn wait_ready(&mut self, ready: &UnixDatagram) {
        let deadline = Instant::now() + BOOT_LIMIT;
        // Only to notice meanwhile that the machine has died.
        ready.set_read_timeout(Some(Duration::from_millis(200))).expect("not zero");
        let mut buffer = [0; 4096];
        loop {
            if let Ok(length) = ready.recv(&mut buffer)
                && buffer[..length].split(|&byte| byte == b'\n').any(|line| line == b"READY=1")
            {
                return;
            }
            if let Some(status) = self.keeper.try_wait().expect("our child") {
                panic!("{} ended while booting ({status}):\n{}", self.name, self.console());
            }
            assert!(Instant::now() < deadline, "{} did not boot within {BOOT_LIMIT:?}:\n{}", self.name, self.console());
        }
    }

    /// Beside process 1 its group may hold children of it that are not in their own group yet.
    fn find_leader(&self) -> u32 {
        let path = self.cgroup("payload/init.scope/cgroup.procs");
        let pids = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
        // "NSpid:", then its number in each process namespace from ours to its own.
        let is_first = |pid: &&str| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"))
        };
        let leader = pids.lines().find(is_first).unwrap_or_else(|| panic!("process 1 is not among {pids:?}"));
        leader.parse().expect("a number")
    }

    /// A file in the machine's control group, as the keeper's mount namespace shows it.
    fn cgroup(&self, file: &str) -> PathBuf {
        let root = format!("/proc/{}/root/sys/fs/cgroup", self.keeper.id());
        Path::new(&root).join(&self.name).join(file)
    }

    /// Which Debian this is.
    pub fn release(&self) -> Release {
        self.release
    }

    /// What the machine wrote to its console.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&self.console.lock().expect("never poisoned")).into_owned()
    }

    /// Runs a script as root with `bash -euo pipefail` and waits for its end and that of everything
    /// that inherited its output. It is ended, and reports code 124, after two minutes.
    pub fn run(&self, script: &str) -> Output {
        self.run_as("root", script)
    }

    /// The same as another user, in that user's home directory.
    pub fn run_as(&self, user: &str, script: &str) -> Output {
        let output = self.enter(user, script).stdin(Stdio::null()).output();
        Output::new(script, output.expect("bash exists"))
    }

    /// A command in all of the machine's namespaces and its control group, though no child of its systemd.
    fn enter(&self, user: &str, script: &str) -> Command {
        let home = if user == "root" { "/root".into() } else { format!("/home/{user}") };
        let mut command = Command::new("bash");
        command
            .arg("-c")
            // Joining the group from outside is allowed even where the host guards namespaces' borders.
            .arg("mkdir -p \"$1\" && echo $$ >\"$1/cgroup.procs\" && shift && exec \"$@\"")
            .arg("enter")
            .arg(self.cgroup("payload/user.slice/test.scope"))
            .args(["nsenter", "--target", &self.leader.to_string()])
            .args("--mount --pid --uts --ipc --net --cgroup --".split(' '))
            .args(["/usr/bin/setpriv", "--reuid", user, "--regid", user, "--init-groups"])
            .args(["/usr/bin/env", "-i", "--chdir", &home])
            .arg(format!("HOME={home}"))
            .args([format!("USER={user}"), format!("LOGNAME={user}")])
            .args(["LANG=C.UTF-8", "SHELL=/bin/bash", "SYSTEMD_PAGER=cat", "SYSTEMD_COLORS=0"])
            .arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")
            .args(["timeout", "--kill-after=5", &COMMAND_LIMIT.as_secs().to_string()])
            .args(["bash", "-euo", "pipefail", "-c", script]);
        command
    }

    /// Writes a file, owned by root, with every directory on the way to it.
    pub fn write_file(&self, path: &str, mode: u32, text: &str) {
        self.write_file_as("root", path, mode, text);
    }

    /// Writes a file for another owner.
    pub fn write_file_as(&self, owner: &str, path: &str, mode: u32, text: &str) {
        let mut child =
            self.install(owner, path, mode).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("bash exists");
        let mut input = child.stdin.take().expect("piped above");
        // A reader that went away says why on its standard error.
        let _ = input.write_all(text.as_bytes());
        drop(input);
        Output::new(path, child.wait_with_output().expect("our child")).succeeded();
    }

    /// Copies a file of the host, for example the program under test, with its mode.
    pub fn copy_in(&self, host_path: impl AsRef<Path>, inside_path: &str) {
        let host_path = host_path.as_ref();
        let file = File::open(host_path).unwrap_or_else(|e| panic!("cannot open {}: {e}", host_path.display()));
        let mode = file.metadata().expect("an open file").permissions().mode() & 0o7777;
        let output = self.install("root", inside_path, mode).stdin(file).output();
        Output::new(inside_path, output.expect("bash exists")).succeeded();
    }

    fn install(&self, owner: &str, path: &str, mode: u32) -> Command {
        self.enter("root", &format!("install -D -m {mode:o} -o {owner} -g {owner} /dev/stdin '{path}'"))
    }

    /// Everything the journal holds of a unit, what was written this moment included.
    pub fn journal(&self, unit: &str) -> String {
        self.run(&format!("journalctl --sync; journalctl --no-pager --quiet -o short-precise -u '{unit}'")).succeeded()
    }

    /// Looks again and again, inside, whether a script succeeds; returns what it printed when it did.
    ///
    /// For conditions that no event announces. Fails the test when `limit` has passed.
    #[track_caller]
    pub fn wait_for(&self, what: &str, limit: Duration, condition: &str) -> String {
        let pause = LOOK_AGAIN.as_secs_f32();
        let script = format!(
            "end=$((${{EPOCHREALTIME/./}} + {}))\n\
             until answer=$(bash -euo pipefail -c \"$condition\" 2>&1); do\n\
                 if [ ${{EPOCHREALTIME/./}} -gt $end ]; then echo \"$answer\"; exit 99; fi\n\
                 sleep {pause}\n\
             done\n\
             echo \"$answer\"",
            limit.as_micros()
        );
        let script = format!("condition={}\n{script}", quote(condition));
        let output = self.run(&script);
        assert!(
            output.code == 0,
            "waited {limit:?} in vain for {what}; the last look at `{condition}` said:\n{}{}",
            output.stdout,
            output.stderr
        );
        output.stdout
    }

    /// The same for a condition that is looked at from outside.
    #[track_caller]
    pub fn wait_until<T>(&self, what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(answer) = condition() {
                return answer;
            }
            assert!(
                Instant::now() < deadline,
                "waited {limit:?} in vain for {what}; the last lines of the journal:\n{}",
                self.run("journalctl --sync; journalctl --no-pager --quiet -o short-precise -n 80").stdout
            );
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Starts a script as root and lets it run beside the test, as a unit of the machine's systemd.
    /// It has begun when this returns.
    pub fn spawn(&self, script: &str) -> Spawned<'_> {
        self.spawn_as("root", script)
    }

    /// The same as another user.
    pub fn spawn_as(&self, user: &str, script: &str) -> Spawned<'_> {
        let number = self.spawned.fetch_add(1, Ordering::Relaxed);
        let unit = format!("spawned-{number}.service");
        let begun = format!("/run/spawned-{number}");
        let command = format!(
            "systemd-run --quiet --pipe --wait --collect --unit={unit} --uid={user} \
             --property=TimeoutStopSec=5 --property=ExecStartPre='+/usr/bin/touch {begun}' \
             --setenv=PATH=\"$PATH\" bash -euo pipefail -c {}",
            quote(script)
        );
        let mut client = self.enter("root", &command);
        client.stdin(Stdio::null());
        let script = script.to_owned();
        let client = thread::spawn(move || Output::new(&script, client.output().expect("bash exists")));
        self.wait_for(&unit, Duration::from_secs(30), &format!("test -e {begun}"));
        Spawned { machine: self, unit, client: Some(client) }
    }

    /// The last lines of the whole journal, without the visitors who got their page.
    pub fn journal_tail(&self) -> String {
        let all = "journalctl --sync; journalctl --no-pager --quiet -o short-precise -n 20000";
        self.run(&format!("{all} | grep -v 'HTTP/1.1\" 200 ' | tail -n 150")).stdout
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let failing = thread::panicking();
        if failing && self.leader != 0 {
            eprintln!("--- the end of the journal of {} ---\n{}", self.name, self.journal_tail());
        }
        // Nobody looks at how a machine of a failing test shuts down.
        if !failing && let Some(lifeline) = &mut self.lifeline {
            let _ = lifeline.write_all(b"off\n");
            let deadline = Instant::now() + SHUTDOWN_LIMIT;
            while Instant::now() < deadline && matches!(self.keeper.try_wait(), Ok(None)) {
                thread::sleep(LOOK_AGAIN);
            }
        }
        self.lifeline = None;
        let _ = self.keeper.wait();
    }
}

/// A script that runs beside the test. Dropping it stops it.
pub struct Spawned<'machine> {
    machine: &'machine Machine,
    unit: String,
    client: Option<JoinHandle<Output>>,
}

impl Spawned<'_> {
    /// The name of its unit.
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// Waits until the script ends by itself, two minutes at most.
    pub fn finish(mut self) -> Output {
        self.join().expect("finished once")
    }

    /// Sends SIGTERM to the script and all it started, SIGKILL after five seconds.
    pub fn stop(mut self) -> Output {
        self.machine.run(&format!("systemctl stop {} || true", self.unit)).succeeded();
        self.join().expect("stopped once")
    }

    fn join(&mut self) -> Option<Output> {
        self.client.take().map(|client| client.join().expect("the thread only waits"))
    }
}

impl Drop for Spawned<'_> {
    fn drop(&mut self) {
        if self.client.is_some() {
            self.machine.run(&format!("systemctl stop {} || true", self.unit));
            self.join();
        }
    }
}

/// What a script inside a machine did.
#[derive(Debug)]
pub struct Output {
    script: String,
    /// The exit status; 124 when it took too long; 128 and the signal when it was killed.
    pub code: i32,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Output {
    fn new(script: &str, output: std::process::Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let status = output.status;
        Self {
            script: script.to_owned(),
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// What it printed; fails the test if the script failed.
    #[track_caller]
    pub fn succeeded(self) -> String {
        assert!(self.code == 0, "{self}");
        self.stdout
    }

    /// Fails the test unless the script printed `text` on its standard output, whatever its exit status.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "expected {text:?} of {self}");
        self
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { script, code, stdout, stderr } = self;
        write!(f, "this script, which exited with {code}:\n{script}\n")?;
        write!(f, "--- its output ---\n{stdout}\n--- its errors ---\n{stderr}")
    }
}

/// The command that lists the processes of a unit, one a line, by its place below the root of control groups. A group that
/// goes meanwhile, as that of a worker that leaves, has none.
pub fn list_processes(unit: &str) -> String {
    format!("find /sys/fs/cgroup/{unit} -name cgroup.procs -exec cat {{}} + 2>/dev/null || true")
}

/// One word for a shell.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Gathers what a stream says, until its end.
fn collect(mut stream: impl Read + Send + 'static, into: &Arc<Mutex<Vec<u8>>>) {
    let into = Arc::clone(into);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            into.lock().expect("never poisoned").extend_from_slice(&buffer[..length]);
        }
    });
}
