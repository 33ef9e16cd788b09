//! The server against its clients.

use std::time::Duration;

use sockd::control::{MAX_CLIENTS, Outcome, REQUEST_LIMIT, Request, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Lab, RELOAD, Raw, status, within_limit};

#[test]
fn a_status_is_one_line() {
    within_limit(async {
        let mut lab = Lab::new();
        let mut client = lab.connect().await;
        client.write("{\"command\":\"status\"}\n").await;
        let call = lab.call().await;
        assert_eq!(call.request, Request::Status);
        call.replier.status(status());
        let line = client.line().await.expect("an answer");
        let read: Status = serde_json::from_value(line["status"].clone()).expect("a status");
        assert_eq!(read, status());
        assert_eq!(client.line().await, None);
    });
}

#[test]
fn a_reload_is_lines_of_progress_and_an_outcome() {
    within_limit(async {
        let mut lab = Lab::new();
        let instance = lab.instance.clone();
        let asking = tokio::spawn(async move {
            let mut steps = Vec::new();
            let outcome = sockd::control::follow(&instance, RELOAD, |step| steps.push(step.to_owned())).await;
            (steps, outcome)
        });
        let call = lab.call().await;
        assert_eq!(call.request, RELOAD);
        // More than the queue holds, all in one turn of the loop: steps may be left out, the outcome may not.
        for step in 0..1000 {
            call.replier.progress(format!("worker {step} is ready"));
        }
        let outcome = Outcome { message: "refused".to_owned(), details: vec!["why".to_owned()], ..Outcome::default() };
        call.replier.outcome(outcome.clone());
        let (steps, answer) = asking.await.expect("no panic");
        assert_eq!(answer.expect("an outcome"), outcome);
        assert_eq!(steps[0], "worker 0 is ready");
        assert!((200..1000).contains(&steps.len()), "{}", steps.len());
    });
}

#[test]
fn a_replacement_is_one_outcome() {
    within_limit(async {
        let mut lab = Lab::new();
        let instance = lab.instance.clone();
        let asking = tokio::spawn(async move { sockd::control::replace(&instance, 3).await });
        let call = lab.call().await;
        assert_eq!(call.request, Request::Replace { worker: 3 });
        let outcome = Outcome { ok: true, message: "it is replaced".to_owned(), ..Outcome::default() };
        call.replier.outcome(outcome.clone());
        assert_eq!(asking.await.expect("no panic").expect("an outcome"), outcome);
    });
}

#[test]
fn what_a_worker_wrote_last_is_one_line() {
    within_limit(async {
        let mut lab = Lab::new();
        let instance = lab.instance.clone();
        let asking = tokio::spawn(async move { sockd::control::last_lines(&instance, 3).await });
        let call = lab.call().await;
        assert_eq!(call.request, Request::LastLines { worker: 3 });
        let lines = ["one", "two"].map(str::to_owned).to_vec();
        call.replier.last_lines(lines.clone());
        assert_eq!(asking.await.expect("no panic").expect("an answer"), lines);
    });
}

#[test]
fn rubbish_is_refused_in_one_line() {
    within_limit(async {
        let mut lab = Lab::new();
        for rubbish in [
            "\n".as_bytes(),
            b"status\n",
            b"{}\n",
            b"null\n",
            b"[]\n",
            b"{\"command\":\"halt\"}\n",
            b"{\"command\":\"reload\",\"wait\":7}\n",
            b"\xff\xfe\0\n",
            b"GET / HTTP/1.1\r\n\r\n",
            "{\"command\":\"ｓtatus\"}\n".as_bytes(),
        ] {
            let mut client = lab.connect().await;
            client.write(rubbish).await;
            assert_eq!(client.refused().await, "bad-request", "{}", rubbish.escape_ascii());
        }
        assert!(lab.calls.try_recv().is_err(), "rubbish became a call");
        lab.answers().await.expect("it serves on");
    });
}

#[test]
fn a_request_has_4096_bytes_and_no_more() {
    within_limit(async {
        let mut lab = Lab::new();
        let request = "{\"command\":\"status\"}";
        let padding = " ".repeat(REQUEST_LIMIT - 1 - request.len());
        let mut client = lab.connect().await;
        client.write(format!("{request}{padding}\n")).await;
        lab.call().await.replier.status(status());
        assert!(client.line().await.is_some_and(|line| line["status"].is_object()));

        let mut client = lab.connect().await;
        client.write(format!("{request}{padding} ")).await;
        assert_eq!(client.refused().await, "bad-request");

        let mut client = lab.connect().await;
        // The server closes before it has read all of it.
        let _ = client.stream.write_all(&vec![b'x'; 8 << 20]).await;
        assert_eq!(client.refused().await, "bad-request");
        lab.answers().await.expect("it serves on");
    });
}

#[test]
fn a_silent_client_and_a_dripping_one_are_refused() {
    within_limit(async {
        let lab = Lab::with_patience(Duration::from_millis(200));
        let mut silent = lab.connect().await;
        assert_eq!(silent.refused().await, "bad-request");

        let dripping = lab.connect().await;
        let (mut reader, mut writer) = dripping.stream.into_inner().into_split();
        let drip = tokio::spawn(async move {
            while writer.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        // The drip ends when the server has closed the connection, and only then.
        drip.await.expect("no panic");
        let mut line = [0; 1024];
        let length = reader.read(&mut line).await.expect("the refusal");
        assert!(line[..length].starts_with(b"{\"error\":{\"kind\":\"bad-request\""), "{}", line.escape_ascii());
    });
}

#[test]
fn of_a_hundred_connections_sixteen_are_served() {
    within_limit(async {
        let mut lab = Lab::new();
        let mut clients = Vec::new();
        for _ in 0..100 {
            clients.push(lab.connect().await);
        }
        for turned_away in &mut clients[MAX_CLIENTS..] {
            assert_eq!(turned_away.refused().await, "busy");
        }
        for served in &mut clients[..MAX_CLIENTS] {
            served.write("{\"command\":\"status\"}\n").await;
            lab.call().await.replier.status(status());
            assert!(served.line().await.is_some_and(|line| line["status"].is_object()));
        }
        lab.answers().await.expect("the places are free again");
    });
}

#[test]
fn a_client_that_goes_away_frees_its_place_and_stops_nothing() {
    within_limit(async {
        let mut lab = Lab::new();
        for _ in 0..2 * MAX_CLIENTS {
            let mut client = lab.connect().await;
            client.write("{\"command\":\"reload\",\"wait\":true}\n").await;
            let call = lab.call().await;
            assert!(!call.replier.is_gone());
            drop(client);
            call.replier.gone().await;
            call.replier.progress("to no one");
            call.replier.outcome(Outcome { ok: true, ..Outcome::default() });
        }
        lab.answers().await.expect("it serves on");
    });
}

#[test]
fn closing_the_writing_side_is_not_going_away() {
    within_limit(async {
        let mut lab = Lab::new();
        let mut client = lab.connect().await;
        client.write("{\"command\":\"status\"}\n").await;
        client.stream.shutdown().await.expect("shutdown");
        let call = lab.call().await;
        // A second client is served meanwhile: the server has had every chance to misunderstand the first.
        lab.answers().await.expect("served");
        assert!(!call.replier.is_gone());
        call.replier.status(status());
        assert!(client.line().await.is_some());
    });
}

#[test]
fn a_client_that_does_not_read_is_dropped() {
    within_limit(async {
        let mut lab = Lab::with_patience(Duration::from_millis(200));
        let mut client = lab.connect().await;
        client.write("{\"command\":\"reload\"}\n").await;
        let call = lab.call().await;
        // More than the buffers of a unix socket hold.
        call.replier.progress("x".repeat(4 << 20));
        call.replier.gone().await;
        lab.answers().await.expect("it serves on");
    });
}

#[test]
fn a_supervisor_that_stops_says_so() {
    within_limit(async {
        let mut lab = Lab::new();
        let mut client = lab.connect().await;
        client.write("{\"command\":\"status\"}\n").await;
        drop(lab.call().await);
        assert_eq!(client.refused().await, "busy");

        let mut late: Raw = lab.connect().await;
        // Its place is taken once another, later client has been served.
        lab.answers().await.expect("served");
        drop(lab.calls);
        lab.served.await.expect("the server ends with its shell");
        late.write("{\"command\":\"status\"}\n").await;
        assert_eq!(late.refused().await, "busy");
    });
}
