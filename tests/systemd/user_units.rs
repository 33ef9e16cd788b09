//! Units of a user's own service manager, without root: adopted, reloaded, looked at and given back.

use std::time::Duration;

use crate::adopt::next_command;
use crate::machine::{Machine, Output};

const PATIENCE: Duration = Duration::from_secs(30);

/// As sammy, whose manager goes on without a session.
pub fn run(machine: &Machine, script: &str) -> Output {
    machine.run_as("sammy", &format!("export XDG_RUNTIME_DIR=/run/user/$(id -u); {script}"))
}

/// The bus of a user, as dbus-user-session makes it. It is not in these machines, which is what it does for most.
pub fn session_bus(machine: &Machine) {
    let socket = "[Socket]\nListenStream=%t/bus\n";
    let service = "[Unit]\nRequires=dbus.socket\n[Service]\nType=notify\nExecStart=/usr/bin/dbus-daemon \
                   --session --address=systemd: --nofork --nopidfile --systemd-activation\n";
    machine.write_file("/etc/systemd/user/dbus.socket", 0o644, socket);
    machine.write_file("/etc/systemd/user/dbus.service", 0o644, service);
    run(machine, "systemctl --user daemon-reload; systemctl --user start dbus.socket dbus.service").succeeded();
    // The manager takes its name there when it has heard of the bus.
    machine.wait_until("sammy's manager on the bus", PATIENCE, || {
        (run(machine, "busctl --user status org.freedesktop.systemd1").code == 0).then_some(())
    });
}

/// Sammy's service manager, which goes on without a session.
pub fn begin_manager(machine: &Machine) {
    // What pam_systemd(8) does, which is not in these machines.
    let runtime_directory = "[Service]\nEnvironment=XDG_RUNTIME_DIR=/run/user/%i\n";
    machine.write_file("/etc/systemd/system/user@.service.d/environment.conf", 0o644, runtime_directory);
    machine
        .run("systemctl daemon-reload; loginctl enable-linger sammy; systemctl start user@$(id -u sammy).service")
        .succeeded();
    machine.wait_until("sammy's manager", PATIENCE, || {
        (run(machine, "systemctl --user is-system-running --wait").stdout.trim() != "").then_some(())
    });
}

/// A service of one's own comes to sockd and goes back, and every command finds it by its name alone.
pub fn a_site_of_ones_own(machine: &Machine) {
    begin_manager(machine);
    let page = |text: &str| {
        format!("def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'{text}\\n']\n")
    };
    run(machine, "mkdir -p site .config/systemd/user").succeeded();
    machine.write_file_as("sammy", "/home/sammy/site/mine.py", 0o644, &page("first"));
    machine.write_file_as(
        "sammy",
        "/home/sammy/.config/systemd/user/mine.socket",
        0o644,
        "[Socket]\nListenStream=%t/mine.sock\n[Install]\nWantedBy=sockets.target\n",
    );
    machine.write_file_as(
        "sammy",
        "/home/sammy/.config/systemd/user/mine.service",
        0o644,
        "[Service]\nWorkingDirectory=%h/site\n\
         ExecStart=%h/myprojectdir/myprojectenv/bin/gunicorn --workers 2 --bind unix:%t/mine.sock mine:app\n",
    );
    let ask = "curl -fsS --unix-socket $XDG_RUNTIME_DIR/mine.sock localhost";
    run(machine, "systemctl --user daemon-reload; systemctl --user enable --now mine.socket").succeeded();
    run(machine, ask).says("first").succeeded();
    run(machine, "sockd").says("mine.service (user)").says("sockd adopt --user mine.service").succeeded();

    let shown = run(machine, "sockd adopt mine").says("+ ExecStart=/usr/bin/sockd run -- %h/myprojectdir").succeeded();
    assert!(!shown.contains("sudo"), "{shown}");
    let write = next_command(&shown, "sockd adopt --write --user mine.service");
    let written = run(machine, &write).says("wrote /home/sammy/.config/systemd/user/mine.service.d/").succeeded();
    run(machine, &next_command(&written, "systemctl --user restart mine.service")).succeeded();
    run(machine, ask).says("first").succeeded();
    machine.wait_until("both workers", PATIENCE, || {
        run(machine, "sockd status").stdout.contains("Workers: 2 of 2 ready").then_some(())
    });
    // Without a bus the manager cannot be asked by name; the supervisor answers for itself.
    run(machine, "sockd status").says("sockd, process ").succeeded();
    run(machine, "sockd status mine").says("dbus-user-session");
    session_bus(machine);
    run(machine, "sockd status mine").says("Workers: 2 of 2 ready").succeeded();
    run(machine, "sockd status").says("mine.service (user)").says("Active: active (running)").succeeded();
    run(machine, "sockd status --user --json").says("\"user\": true").succeeded();
    run(machine, "sockd check mine").succeeded();
    // Where such a manager can tell sockd that it may, each worker has a group; else status says why not.
    let group = "/sys/fs/cgroup$(systemctl --user show --value -p ControlGroup mine)";
    match machine.release().systemd() >= 254 {
        true => run(machine, &format!("ls -d {group}/worker-*")).says("worker-").succeeded(),
        false => run(machine, "sockd status mine").says("DelegateSubgroup=supervisor alone").succeeded(),
    };

    machine.write_file_as("sammy", "/home/sammy/site/mine.py", 0o644, &page("second"));
    run(machine, "sockd reload mine").succeeded();
    run(machine, ask).says("second").succeeded();
    machine.write_file_as("sammy", "/home/sammy/site/mine.py", 0o644, "import nothing_of_that_name\n");
    let refused = run(machine, "systemctl --user reload mine");
    assert_ne!(refused.code, 0, "{refused}");
    run(machine, ask).says("second").succeeded();
    machine.run("journalctl --sync").succeeded();
    run(machine, "sockd logs mine --lines 40").says("No module named 'nothing_of_that_name'").succeeded();
    let doctor = run(machine, "sockd doctor mine");
    assert!(doctor.code == 1 && doctor.stderr.contains("sockd logs --user mine.service"), "{doctor}");

    run(machine, "systemctl --user stop mine.service").succeeded();
    let stopped = run(machine, "sockd reload mine");
    assert!(
        stopped.code == 1 && stopped.stderr.contains("`systemctl --user start mine.service` starts it"),
        "{stopped}"
    );
    machine.write_file_as("sammy", "/home/sammy/site/mine.py", 0o644, &page("third"));
    let undone = run(machine, "sockd adopt --undo mine").says("removed /home/sammy/.config/systemd/user/").succeeded();
    run(machine, &next_command(&undone, "systemctl --user restart mine.service")).succeeded();
    run(machine, ask).says("third").succeeded();
    run(machine, "systemctl --user show -p ExecStart mine | grep -c sockd || true").says("0\n").succeeded();
    let root = machine.run("sockd status --user mine");
    assert!(root.code == 2 && root.stderr.contains("without sudo"), "{root}");
    // root is not led to it by the name alone.
    let root = machine.run("sockd status mine");
    assert_eq!(root.code, 4, "{root}");
}
