//! Clients and servers of other users. Only root can make some; for others these tests say so and pass.
//!
//! The other user's part is this same test program, started again under that user to run [`errand`] alone.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sockd::control::{self, AskError, Instance};

use crate::{Lab, within_limit};

/// Two users, neither of them root.
const SERVER: u32 = 65_534;
const CLIENT: u32 = 65_533;
/// The errand: `serve`, or `ask PID UID SOCKET`.
const ERRAND: &str = "SOCKD_TEST_ERRAND";

/// A copy of this program that every user may execute; removed at the end.
struct Program {
    directory: PathBuf,
}

impl Program {
    /// `None` for who cannot become another user.
    fn new(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can become another user");
            return None;
        }
        let directory = std::env::temp_dir().join(format!("sockd-test-{}-{test}", std::process::id()));
        std::fs::create_dir(&directory).expect("a directory");
        let open = |path: &Path| std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("chmod");
        open(&directory);
        let program = Self { directory };
        // By another process: a file that this one had open for writing may be inherited by a child that another test
        // starts at that moment, and cannot be executed while it is (ETXTBSY).
        let copied = Command::new("cp").arg(std::env::current_exe().expect("a path")).arg(program.file()).status();
        assert!(copied.expect("cp").success());
        open(&program.file());
        Some(program)
    }

    fn file(&self) -> PathBuf {
        self.directory.join("control")
    }

    fn errand(&self, uid: u32, errand: &str) -> Command {
        let mut command = Command::new(self.file());
        command.args(["--ignored", "--exact", "foreign::errand", "--nocapture"]).env(ERRAND, errand);
        command.uid(uid).gid(uid).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    }

    /// What asking says, in the words of [`AskError`] or `answered`.
    async fn ask(&self, uid: u32, instance: &Instance) -> String {
        let errand = format!("ask {} {} {}", instance.pid, instance.uid, instance.socket);
        let mut command = self.errand(uid, &errand);
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("started");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = text.lines().find_map(|line| line.split_once("errand: ")).map(|(_, said)| said.to_owned());
        said.unwrap_or_else(|| panic!("{text}"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[test]
#[ignore = "started by the other tests, as another user"]
fn errand() {
    let errand = std::env::var(ERRAND).expect("started by another test");
    let words: Vec<&str> = errand.split(' ').collect();
    within_limit(async {
        match words[..] {
            ["serve"] => {
                let mut lab = Lab::public();
                println!("\nerrand: {}", lab.instance.socket);
                std::io::stdout().flush().expect("stdout");
                // Until the other test closes our stdin.
                let end = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
                tokio::pin!(end);
                loop {
                    tokio::select! {
                        _ = &mut end => return,
                        Some(call) = lab.calls.recv() => call.replier.status(crate::status()),
                    }
                }
            }
            ["ask", pid, uid, socket] => {
                let instance = Instance {
                    pid: pid.parse().expect("a number"),
                    uid: uid.parse().expect("a number"),
                    unit: None,
                    socket: socket.to_owned(),
                };
                let seen = control::discover().await.expect("discover").contains(&instance);
                match control::status(&instance).await {
                    Ok(_) => println!("\nerrand: answered, seen {seen}"),
                    Err(AskError::NotPermitted { uid }) => println!("\nerrand: not asked of {uid}, seen {seen}"),
                    Err(error) => println!("\nerrand: {error}, seen {seen}"),
                }
            }
            _ => panic!("{errand}"),
        }
    });
}

#[test]
fn the_server_refuses_a_foreign_client() {
    let Some(program) = Program::new("client") else { return };
    within_limit(async {
        let mut lab = Lab::new();
        let said = program.ask(CLIENT, &lab.instance).await;
        assert_eq!(said, "only root and the user with id 0 may ask this sockd, seen false");
        assert!(lab.calls.try_recv().is_err(), "the request became a call");
        lab.answers().await.expect("it serves on");
    });
}

#[test]
fn a_foreign_server_is_asked_by_root_and_its_own_user_alone() {
    let Some(program) = Program::new("server") else { return };
    let mut child = program.errand(SERVER, "serve").spawn().expect("started");
    // Kept to the end: the child writes there once more.
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let socket = lines.find_map(|line| line.strip_prefix("errand: ").map(str::to_owned)).expect("a name");
    let instance = Instance { pid: child.id(), uid: SERVER, unit: None, socket };
    within_limit(async {
        assert!(control::discover().await.expect("discover").contains(&instance));
        assert_eq!(control::status(&instance).await.expect("root is answered").status_line, "3 workers ready");
        assert_eq!(program.ask(SERVER, &instance).await, "answered, seen true");
        assert_eq!(program.ask(CLIENT, &instance).await, format!("not asked of {SERVER}, seen true"));
    });
    drop(child.stdin.take());
    assert!(child.wait().expect("reaped").success());
}
