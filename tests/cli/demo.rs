//! `sockd demo`, as a newcomer goes through it: each command that it prints is typed.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

const PATIENCE: Duration = Duration::from_secs(30);

struct Demo {
    child: Child,
    log: Receiver<String>,
    commands: Vec<String>,
}

impl Demo {
    fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sockd"));
        command.arg("demo").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("started");
        let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let (sender, log) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut demo = Self { child, log, commands: Vec::new() };
        let greeting = demo.read_until("Ctrl-C stops it");
        let commands =
            greeting.lines().filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with('#')));
        demo.commands = commands.map(str::to_owned).collect();
        demo.read_until("serving, 3 of 3 workers");
        demo
    }

    /// What it says until a line has this text.
    fn read_until(&self, text: &str) -> String {
        let mut said = String::new();
        while !said.contains(text) {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) => said.extend([&*line, "\n"]),
                Err(error) => panic!("{error} before it said {text:?}:\n{said}"),
            }
        }
        said
    }

    /// Types the command that it has printed; what that prints.
    fn types(&self, beginning: &str) -> String {
        let output = self.run(beginning);
        assert!(output.status.success(), "{beginning}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn run(&self, beginning: &str) -> Output {
        let command = self.commands.iter().find(|command| command.starts_with(beginning));
        let command = command.unwrap_or_else(|| panic!("no {beginning:?} among {:?}", self.commands));
        Command::new("sh").args(["-c", command]).stdin(Stdio::null()).output().expect("sh")
    }

    /// Asks until the page begins with this.
    fn says(&self, beginning: &str) {
        let begun = Instant::now();
        while !self.types("curl").starts_with(beginning) {
            assert!(begun.elapsed() < PATIENCE, "nobody says {beginning:?}");
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn each_command_that_it_prints_does_what_it_promises() {
    let mut demo = Demo::start();
    assert!(demo.commands.len() >= 6, "{:?}", demo.commands);
    demo.says("Hello from worker process ");
    demo.types("kill -9");
    demo.read_until("killed by SIGKILL");
    demo.types("echo 'Welcome from {pid}");
    demo.read_until("generation 2 has taken over");
    demo.says("Welcome from ");
    demo.types("echo 'Welcome from {pid.'");
    let refused = demo.read_until("reload to generation 3 refused");
    assert!(refused.contains("hello.txt:1: a brace is not that of {pid}"), "{refused}");
    demo.says("Welcome from ");
    // Others may run beside it, in whatever state.
    let (status, sockd) = (demo.run(env!("CARGO_BIN_EXE_sockd")), demo.child.id());
    let shown = String::from_utf8_lossy(&status.stdout);
    assert!(shown.contains(&format!("sockd, process {sockd}")), "{status:?}");
    let directory = std::env::temp_dir().join(format!("sockd-demo-{sockd}"));
    assert!(directory.join("hello.txt").exists());
    let pidfd = pidfd_open(Pid::from_child(&demo.child), PidfdFlags::empty()).expect("not reaped");
    pidfd_send_signal(&pidfd, Signal::INT).expect("it runs");
    assert_eq!(demo.child.wait().expect("reaped").code(), Some(0));
    assert!(!directory.exists(), "left behind");
}
