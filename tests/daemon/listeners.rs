//! Queues that fill, backlogs that shrink, and socket files that somebody removes.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use sockd::control::message::Listener;

use super::http::{self, Address, Connection};
use super::instance::Instance;
use super::transcript::{PATIENCE, START};

/// Two sockets with room for eight connections each, and a worker that accepts none.
fn nobody_accepts() -> Instance {
    let builder = Instance::builder().unix_with_backlog("web.sock", 8).unix_with_backlog("api.sock", 8);
    let options = "--ready-after 200ms --start at-once";
    let web = builder.names("web.socket:api.socket").options(options).command(&["sleep", "infinity"]);
    web.status("serving, 1 of 1 worker, generation 1");
    web
}

fn connect(web: &Instance, socket: usize, count: usize) -> Vec<Box<dyn Connection>> {
    (0..count).map(|_| web.addresses[socket].connect(PATIENCE).expect("it waits in the queue")).collect()
}

#[test]
fn a_queue_that_is_half_full_is_reported_once_and_so_is_its_end() {
    let web = nobody_accepts();
    let _three = connect(&web, 0, 3);
    let _four = connect(&web, 1, 4);
    let line = web.log("connections wait on api.socket");
    assert!(line.text.starts_with("sockd: warning: 4 connections wait on api.socket (unix:"), "{}", line.text);
    for part in [
        ", where 8 may: 1 of 1 workers are ready",
        "more workers help (count in [workers], or the server's --workers)",
        "a longer queue (Backlog= of api.socket)",
    ] {
        assert!(line.text.contains(part), "{part}: {}", line.text);
    }
    assert!(web.logged(START, "connections wait on web.socket").is_empty(), "3 of 8 are less than the half");
    // By the time the other one is reported, this one was looked at again, and fuller.
    let _more = (connect(&web, 1, 4), connect(&web, 0, 1));
    web.log("sockd: warning: 4 connections wait on web.socket");
    assert_eq!(web.logged(START, "connections wait on api.socket").len(), 1);
    for _ in 0..8 {
        rustix::net::accept(&web.descriptors[1]).expect("a connection");
    }
    web.log("the queue of api.socket");
    web.stop();
}

#[test]
fn a_backlog_that_a_worker_cut_late_is_restored() {
    let web = nobody_accepts();
    // The socket is the worker's as well: to the kernel it is the same who calls listen(2).
    rustix::net::listen(&web.descriptors[0], 2).expect("cut");
    web.until("the backlog is restored", || (web.report().listeners[0].backlog == Some(8)).then_some(()));
    web.stop();
}

fn alarm(web: &Instance) -> Option<String> {
    let Listener { alarm, .. } = web.report().listeners.remove(0);
    alarm
}

fn path(web: &Instance) -> PathBuf {
    let Address::Unix(path) = &web.addresses[0] else { panic!("a unix socket") };
    path.clone()
}

#[test]
fn a_lost_path_of_an_inherited_socket_is_an_alarm_until_it_is_back() {
    let web = Instance::on_unix().names("web.socket").options("--start at-once").worker("service.py", &[]);
    web.status("serving, 1 of 1 worker, generation 1");
    let (path, moved) = (path(&web), web.path().join("moved"));
    std::fs::rename(&path, &moved).expect("moved away");
    let wanted = format!(
        "nothing is left at unix:{}: nobody can connect there; to fix it: systemctl restart web.socket",
        path.display()
    );
    let lost = web.log(&wanted);
    assert!(lost.text.starts_with("sockd: error: "), "{}", lost.text);
    web.status(&format!("{wanted} (serving, 1 of 1 worker, generation 1)"));
    assert_eq!(alarm(&web).as_deref(), Some(wanted.as_str()));

    let other = UnixListener::bind(&path).expect("another one takes the place");
    web.status_like(lost.mark(), &format!("another file stands at unix:{}: ", path.display()));
    drop(other);
    let mark = web.mark();
    std::fs::rename(&moved, &path).expect("moved back");
    web.log("the path of web.socket");
    web.status_since(mark, "serving, 1 of 1 worker, generation 1");
    assert_eq!(alarm(&web), None);
    assert_eq!(web.logged(START, "nothing is left at").len(), 1);
    assert!(web.get("/").body.starts_with("hello"));
    web.stop();
}

#[test]
fn a_path_that_was_lost_before_the_start_is_an_alarm_before_anybody_comes() {
    let builder = Instance::on_unix().names("web.socket");
    let path = builder.path().join("web.sock");
    std::fs::remove_file(&path).expect("removed");
    let _other = UnixListener::bind(&path).expect("another one takes the place");
    let web = builder.worker("service.py", &[]);
    web.log("another file stands at unix:");
    web.status_like(START, "to fix it: systemctl restart web.socket (waiting for the first connection)");
    web.stop();
}

#[test]
fn a_lost_path_is_reported_to_a_client_that_asks_while_sockd_waits() {
    let web = Instance::on_unix().names("web.socket").worker("service.py", &[]);
    web.notified("READY=1");
    assert_eq!(alarm(&web), None);
    std::fs::remove_file(path(&web)).expect("removed");
    let alarm = alarm(&web).expect("an alarm");
    assert!(alarm.ends_with("to fix it: systemctl restart web.socket"), "{alarm}");
    web.stop();
}

/// An instance that binds its own socket, with a mode.
fn binds_itself() -> Instance {
    let builder = Instance::builder().config("[listen]\naddresses = [\"unix:own.sock\"]\nmode = \"0606\"\n");
    let mut web = builder.options("--workers 2").worker("service.py", &[]);
    web.status("serving, 2 of 2 workers, generation 1");
    let path = web.path().join("own.sock");
    web.addresses.push(Address::Unix(path));
    web
}

#[test]
fn a_lost_path_of_a_socket_of_our_own_is_fixed_and_every_worker_accepts_from_the_new_one() {
    let web = binds_itself();
    let mut in_flight = web.addresses[0].connect(PATIENCE).expect("connected");
    http::send_get(&mut in_flight, "/slow?0.5").expect("sent");
    web.output("answering slowly");
    std::fs::remove_file(path(&web)).expect("removed");
    let fixed = web.log("somebody removed the file of unix:");
    let mode = std::fs::symlink_metadata(path(&web)).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o606, "{mode:o}");
    assert_eq!(http::read_response(&mut in_flight).expect("answered").status, 200);
    assert!(web.get("/").body.starts_with("hello"));
    web.status_since(fixed.mark(), "serving, 2 of 2 workers, generation 2");
    web.log_since(fixed.mark(), "worker 2 has left");
    for _ in 0..10 {
        assert_eq!(web.get("/").status, 200);
    }
    assert_eq!(alarm(&web), None);
    let path = path(&web);
    web.stop();
    assert!(!path.exists(), "the new socket file is ours to remove, too");
}

#[test]
fn a_new_socket_that_a_refused_reload_kept_from_the_workers_is_an_alarm_until_a_reload_succeeds() {
    let builder = Instance::builder().config("[listen]\naddresses = [\"unix:own.sock\"]\n");
    let mut web = builder.worker("service.py", &["exit-if=broken"]);
    web.status("serving, 1 of 1 worker, generation 1");
    let path = web.path().join("own.sock");
    web.addresses.push(Address::Unix(path.clone()));
    web.write("broken", "");
    let removed = web.mark();
    std::fs::remove_file(&path).expect("removed");
    web.log("somebody removed the file of unix:own.sock");
    let refused = web.log("reload to generation 2 refused: ");
    let wanted = "workers do not accept from unix:own.sock, which was bound again: the reload";
    web.log_since(refused.mark(), &format!("sockd: error: {wanted}"));
    web.status_like(removed, wanted);
    assert!(alarm(&web).is_some_and(|alarm| alarm.starts_with(wanted)));
    let mut waits = web.addresses[0].connect(PATIENCE).expect("connected");
    http::send_get(&mut waits, "/").expect("sent");
    std::fs::remove_file(web.path().join("broken")).expect("fixed");
    let mark = web.mark();
    let (_, outcome) = web.reload();
    assert!(outcome.ok, "{outcome:?}");
    assert_eq!(http::read_response(&mut waits).expect("answered").status, 200);
    web.status_since(mark, "serving, 1 of 1 worker, generation 3");
    assert_eq!(alarm(&web), None);
    web.stop();
}

#[test]
fn a_path_that_another_server_took_is_left_to_it_as_long_as_it_listens() {
    let web = binds_itself();
    let path = path(&web);
    std::fs::remove_file(&path).expect("removed");
    let other = UnixListener::bind(&path).expect("another one takes the place");
    let line = web.log("another file stands at unix:own.sock: ");
    assert!(line.text.contains("listens there already"), "{}", line.text);
    assert!(line.text.contains(&format!("(pid {})", std::process::id())), "{}", line.text);
    assert!(line.text.contains("to fix it: restart sockd"), "{}", line.text);
    // Once the other one is gone, nobody has to type anything.
    std::fs::remove_file(&path).expect("removed");
    drop(other);
    let fixed = web.log("somebody removed the file of unix:");
    web.status_since(fixed.mark(), "serving, 2 of 2 workers, generation 2");
    assert!(web.get("/").body.starts_with("hello"));
    web.stop();
}
