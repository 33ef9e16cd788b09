//! A worker is replaced on request, as `sockd top` asks for it: the new one is proven before the old one goes.

use super::http;
use super::instance::Instance;
use super::python::{WAITING, application, project};
use super::transcript::PATIENCE;

#[test]
fn a_worker_that_is_to_be_replaced_finishes_its_request_once_its_successor_is_ready() {
    let web = Instance::on_unix().file("myproject.py", WAITING).gunicorn(&["--workers", "2"]);
    assert_eq!(web.get("/").status, 200);
    web.status("serving, 2 of 2 workers, generation 1");
    let mut connection = web.addresses[0].connect(PATIENCE).expect("connected");
    http::send_get(&mut connection, "/wait").expect("sent");
    let busy = |worker: &sockd::control::message::Worker| worker.requests.as_ref().is_some_and(|r| r.busy == 1);
    let victim = web.until("a busy worker", || web.workers().into_iter().find(busy)).id;
    let mark = web.mark();
    let outcome = web.replace(victim);
    assert!(outcome.ok, "{outcome:?}");
    assert_eq!(outcome.message, format!("worker {victim} is to be replaced: its successor is proven first"));
    let retires = web.log_since(mark, &format!("worker {victim} is to be replaced, as was asked for"));
    let ready = web.log_since(retires.mark(), "worker 3 is ready");
    let drains = web.log_since(mark, &format!("worker {victim} finishes its requests"));
    assert!(drains.mark() > ready.mark(), "{}", web.transcript.show());
    web.write("go", "");
    assert_eq!(http::read_response(&mut connection).expect("answered").status, 200);
    web.log_since(mark, &format!("worker {victim} has left"));
    assert_eq!(web.ready().len(), 2);

    let outcome = web.replace(victim);
    assert!(!outcome.ok, "{outcome:?}");
    assert_eq!(outcome.message, format!("worker {victim} is not there"));
    web.stop();
}

#[test]
fn a_worker_whose_successor_does_not_start_serves_on() {
    let web = project().gunicorn(&["--workers", "1"]);
    assert_eq!(web.get("/").status, 200);
    web.status("serving, 1 of 1 worker, generation 1");
    web.write("myproject.py", "import a_module_that_is_missing\n");
    let mark = web.mark();
    assert!(web.replace(1).ok);
    web.log_since(mark, "could not start");
    assert_eq!(web.get("/").status, 200);
    assert_eq!(web.workers().iter().filter(|worker| worker.id == 1).count(), 1);
    web.write("myproject.py", &application("fixed"));
    web.log_since(mark, "worker 1 has left");
    assert!(web.get("/").body.starts_with("fixed"));
    web.stop();
}
