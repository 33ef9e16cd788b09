//! Limits of memory and of tasks, what the kernel kills and what is said of it, and a disk that does not answer, in a virtual
//! machine: the booted machines lack the controllers and the device mapper.
//!
//! Owns: what must come of `vm-payload/run`, which says what is tried.
//! Must never: judge by time; the machine is emulated.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::PoisonError;

/// Without these no machine can be made or run; tests/run installs them.
const PROGRAMS: [&str; 3] = ["qemu-system-x86_64", "mke2fs", "mmdebstrap"];

fn script() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd/vm"))
}

/// Why there can be no virtual machine here.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it needs root to make the machine".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let lacks = |program: &str| !std::env::split_paths(&path).any(|directory| directory.join(program).exists());
    PROGRAMS.iter().find(|program| lacks(program)).map(|program| format!("{program} is not installed"))
}

/// Runs the payload; what each of its parts printed, by name.
fn tried() -> BTreeMap<String, String> {
    let _host = crate::HOST.read().unwrap_or_else(PoisonError::into_inner);
    let built = script().arg("build").stderr(Stdio::inherit()).output().expect("bash exists");
    assert!(built.status.success(), "no virtual machine could be built");
    let machine = String::from_utf8(built.stdout).expect("a path");
    let payload = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vm-payload");
    std::fs::create_dir_all(&payload).expect("a directory");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd/vm-payload");
    for file in ["run", "app.py", "site.service"] {
        std::fs::copy(source.join(file), payload.join(file)).expect(file);
    }
    std::fs::copy(env!("CARGO_BIN_EXE_sockd"), payload.join("sockd")).expect("the program");
    let ran = script().arg("run").arg(machine.trim()).arg(&payload).output().expect("bash exists");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{said}\n--- its errors ---\n{}", String::from_utf8_lossy(&ran.stderr));
    let parts = said.split("== ").skip(1);
    parts.filter_map(|part| part.split_once('\n')).map(|(name, text)| (name.to_owned(), text.to_owned())).collect()
}

/// The lines "ID PID".
fn workers(said: &str) -> Vec<&str> {
    let is_number = |word: &str| word.parse::<u32>().is_ok();
    said.lines().filter(|line| line.split_once(' ').is_some_and(|(id, pid)| is_number(id) && is_number(pid))).collect()
}

#[test]
fn memory_limits_and_a_disk_that_does_not_answer() {
    if let Some(why) = missing() {
        assert!(std::env::var_os("SOCKD_TEST_LAB").is_none_or(|lab| lab != "required"), "no virtual machine: {why}");
        // Not eprintln: the harness would keep it to itself while the test passes.
        let _ = writeln!(std::io::stderr(), "LEFT OUT: what needs a virtual machine: {why}");
        return;
    }
    let parts = tried();
    let says = |part: &str, text: &str| {
        let said = parts.get(part).unwrap_or_else(|| panic!("{part} was not tried: {parts:#?}"));
        assert!(said.contains(text), "{part} should say {text:?}:\n{said}");
    };
    // The others serve on and systemd's watchdog is fed, for longer than it waits; what cannot be read is named.
    says("disk", "reload of the suspended: 1\n");
    says("disk", "status of the suspended: 0\n");
    says("disk", "cannot be read: the disk has not answered for 20 s");
    says("disk", "\nhello\n");
    says("disk", "reload of the resumed: 0\nsockd lives\n");
    // TasksMax= leaves room for some of the workers, then for nothing that is new: who serves does, and the limit is named.
    says(
        "tasks",
        "\nhello\nfork: Resource temporarily unavailable; the unit's TasksMax= or LimitNPROC=\nat most 9: 9\n",
    );
    says("tasks", "reload to generation 2 refused: ");
    says("tasks", "reload with less room: 1\nserving, ");
    says("tasks", "lines that refuse: 1\nhello\none fewer\nhello\n");
    says("tasks", "reload with room: 0\nsockd lives\n");
    // A worker is killed at its own limit: the verdict says so, the other one never notices, its group goes.
    says("own-limit", "\n100663296\n");
    says("own-limit", "M/96M ");
    says("own-limit", ": killed by the kernel: out of memory, 96M of memory-max 96M; it served GET /");
    says("own-limit", "sockd_worker_exits_total{unit=\"site.service\",reason=\"oom\"} 1\n");
    let own = &parts["own-limit"];
    let [first, second, survivor, successor] = workers(own)[..] else { panic!("two workers, twice: {own}") };
    // Either of the two may have taken the request.
    let died = if survivor == first { second } else { first };
    assert!([first, second].contains(&survivor) && successor.starts_with("3 "), "{own}");
    let group = |worker: &str| format!("/worker-{}\n", worker.split(' ').next().unwrap_or_default());
    assert!(!own.contains(&group(died)), "{own}");
    assert!(own.contains(&group(survivor)) && own.contains(&group(successor)), "{own}");
    // What a worker had started is killed alone.
    says("child", "child ended with -9");
    says("child", "the kernel killed a process that worker ");
    says("child", ": out of memory, 96M of memory-max 96M; the worker lives on");
    let child = &parts["child"];
    let workers = workers(child);
    assert!(workers.len() == 4 && workers[..2] == workers[2..], "{child}");

    says("unit-limit", ": killed by the kernel: out of memory, the unit's limit (MemoryMax=128M) is reached; it had ");
    says("memory-high", "over memory-high");
    says("memory-high", "stalls are reported");
    says("recycling", "hello");
    says("recycling", "replaced");
    says("recycling", "of memory, more than 64.0M; its successor is started first");
    // With controllers enabled below the unit, systemd 252 must still find room for the next main process.
    says("killed", "hello");
    says("killed", "nothing is left\nsuccess\n");
    says("end", "");
}
