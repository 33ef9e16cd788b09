//! The client against what may listen under a name of ours.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdUnixListener};

use sockd::control::{self, AskError, Instance};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;

use crate::{Lab, RELOAD, within_limit};

/// A listener under a name with this process id and these digits.
fn listen(pid: u32, digits: &str) -> (UnixListener, Instance) {
    let socket = format!("sockd/{pid}/{digits}");
    let listener = StdUnixListener::bind_addr(&SocketAddr::from_abstract_name(&socket).expect("a name")).expect("bind");
    listener.set_nonblocking(true).expect("non-blocking");
    let uid = rustix::process::geteuid().as_raw();
    (UnixListener::from_std(listener).expect("in a runtime"), Instance { pid, uid, unit: None, socket })
}

/// Random enough for one test among others: digits from the process id and a number.
fn digits(number: u32) -> String {
    format!("{:08x}{number:08x}", std::process::id())
}

#[test]
fn finds_our_own_and_no_impostor() {
    within_limit(async {
        let lab = Lab::public();
        // The test runner's parent is alive, and it does not listen there: we do.
        let parent = rustix::process::getppid().expect("a parent").as_raw_nonzero().get() as u32;
        let (_listener, impostor) = listen(parent, &digits(1));
        let found = control::discover().await.expect("discover");
        assert!(found.contains(&lab.instance), "{found:?}");
        assert!(!found.iter().any(|instance| instance.socket == impostor.socket), "{found:?}");
        assert!(matches!(control::status(&impostor).await, Err(AskError::Io(_))));
    });
}

/// More names than any limit on how many are looked at, under which nobody listens who could: all with the process ids of
/// others, lower than ours, higher, and our own.
#[test]
fn names_of_others_hide_nobody() {
    within_limit(async {
        let pid = std::process::id();
        let impostors: Vec<StdUnixListener> = (0..4200)
            .map(|number| {
                let name = format!("sockd/{}/{:08x}{:08x}", 1 + number % (2 * pid), pid, 100 + number);
                StdUnixListener::bind_addr(&SocketAddr::from_abstract_name(name).expect("a name")).expect("bind")
            })
            .collect();
        let lab = Lab::public();
        assert!(control::discover().await.expect("discover").contains(&lab.instance));
        assert_eq!(control::of_process(pid).await.expect("found").pid, pid);
        drop(impostors);
    });
}

#[test]
fn only_the_process_that_is_asked_for_is_believed() {
    within_limit(async {
        // Our parent does not listen there: we do.
        let parent = rustix::process::getppid().expect("a parent").as_raw_nonzero().get() as u32;
        let (_listener, _) = listen(parent, &digits(6));
        let error = control::of_process(parent).await.expect_err("nobody of that process listens");
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    });
}

#[test]
fn a_process_that_is_not_sockd_is_named() {
    within_limit(async {
        let mut sleep = std::process::Command::new("sleep").arg("100").spawn().expect("coreutils");
        // The kernel names it a moment after spawn has returned.
        let name = format!("/proc/{}/comm", sleep.id());
        while std::fs::read_to_string(&name).expect("it lives") != "sleep\n" {
            tokio::task::yield_now().await;
        }
        let error = control::of_process(sleep.id()).await.expect_err("it has no control socket").to_string();
        sleep.kill().and_then(|()| sleep.wait()).expect("ours");
        assert!(error.contains(" is sleep, not sockd; "), "{error}");
        let ours = control::of_process(u32::MAX >> 1).await.expect_err("there is no such process").to_string();
        assert!(ours.contains("PrivateNetwork=yes"), "{ours}");
    });
}

#[test]
fn strange_answers_are_errors() {
    within_limit(async {
        let (listener, instance) = listen(std::process::id(), &digits(2));
        for (answer, understood) in [
            ("", "ended early"),
            ("{\"status\":{}", "ended early"),
            ("HTTP/1.1 400 Bad Request\r\n", "not understood"),
            ("{\"outcome\":{\"ok\":true,\"message\":\"\"}}\n", "not a status"),
            ("{\"news\":{}}\n", "not understood"),
            ("{\"error\":{\"kind\":\"too-late\",\"message\":\"a newer sockd says no\"}}\n", "a newer sockd says no"),
        ] {
            let (error, ()) = tokio::join!(control::status(&instance), async {
                let (stream, _) = listener.accept().await.expect("accept");
                // The whole request: closing with some of it unread would reset the connection.
                let mut stream = BufReader::new(stream);
                stream.read_line(&mut String::new()).await.expect("a request");
                stream.write_all(answer.as_bytes()).await.expect("write");
            });
            let error = error.expect_err(answer).to_string();
            assert!(error.contains(understood), "{answer}: {error}");
        }
    });
}

#[test]
fn a_newer_supervisor_is_understood() {
    within_limit(async {
        let (listener, instance) = listen(std::process::id(), &digits(3));
        let answer =
            "{\"status\":{\"version\":1,\"pid\":7,\"mood\":\"fine\",\"workers\":[{\"id\":3,\"state\":\"musing\"}]}}\n";
        let (status, ()) = tokio::join!(control::status(&instance), async {
            let (mut stream, _) = listener.accept().await.expect("accept");
            stream.write_all(answer.as_bytes()).await.expect("write");
        });
        let status = status.expect("a status");
        assert_eq!((status.pid, status.workers[0].id), (7, 3));
        assert_eq!(status.workers[0].state, control::message::WorkerState::Unknown);
    });
}

#[test]
fn an_endless_answer_is_cut_off() {
    within_limit(async {
        let (listener, instance) = listen(std::process::id(), &digits(4));
        let endless = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accept");
            let mut written = 0;
            while stream.write_all(&[b'x'; 65_536]).await.is_ok() {
                written += 65_536;
            }
            written
        });
        let error = control::status(&instance).await.expect_err("no status").to_string();
        assert!(error.contains("longer than"), "{error}");
        let written = endless.await.expect("no panic");
        assert!(written < 2 * control::RESPONSE_LIMIT, "{written}");
    });
}

#[test]
fn no_answer_is_an_error_in_time() {
    within_limit(async {
        // Connected by the kernel, accepted by no one.
        let (_listener, instance) = listen(std::process::id(), &digits(5));
        let (status, reload) = tokio::join!(control::status(&instance), control::follow(&instance, RELOAD, |_| {}));
        for error in [status.expect_err("no status"), reload.expect_err("no outcome")] {
            assert!(matches!(error, AskError::TimedOut(limit) if limit == control::ANSWER_TIMEOUT), "{error}");
        }
    });
}

#[test]
fn the_program_shows_a_living_supervisor() {
    within_limit(async {
        let mut lab = Lab::public();
        let program = tokio::task::spawn_blocking(|| {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sockd"));
            command.args(["status", "--json"]).env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus");
            command.output()
        });
        tokio::pin!(program);
        let output = loop {
            tokio::select! {
                output = &mut program => break output.expect("no panic").expect("started"),
                Some(call) = lab.calls.recv() => call.replier.status(crate::status()),
            }
        };
        let entries: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let entries = entries.as_array().expect("an array");
        let ours = |entry: &&serde_json::Value| entry["sockd"]["status_line"] == "3 workers ready";
        let entry = entries.iter().find(ours).unwrap_or_else(|| panic!("{entries:?}"));
        assert_eq!(entry["pid"], std::process::id());
    });
}
