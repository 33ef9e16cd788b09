//! What the status says of the visitors' requests, and the log when something happens to a worker.

use rustix::process::{Pid, Signal};

use super::http;
use super::instance::Instance;
use super::processes;
use super::programs::there;
use super::python::{ASGI, bin, project};
use super::transcript::PATIENCE;
use sockd::control::Status;

/// The worker that serves a request at this moment.
fn busy(status: &Status) -> Option<(u64, Pid, String)> {
    let worker = status.workers.iter().find(|worker| worker.requests.as_ref().is_some_and(|r| r.busy == 1))?;
    let request = worker.requests.as_ref()?.in_flight.first()?.request.clone();
    Some((worker.id, Pid::from_raw(worker.pid?.cast_signed())?, request))
}

#[test]
fn the_status_and_the_log_name_the_request_that_a_killed_worker_served() {
    let web = project().gunicorn(&["--workers", "2"]);
    for _ in 0..5 {
        assert_eq!(web.get("/").status, 200);
    }
    web.status("serving, 2 of 2 workers, generation 1");
    let mut connection = web.addresses[0].connect(PATIENCE).expect("connected");
    http::send_get(&mut connection, "/hang?token=secret").expect("sent");
    web.output("hanging");
    let status = web.report();
    let (id, pid, request) = busy(&status).expect("a busy worker");
    assert_eq!(request, "GET /hang");
    let finished = |status: &Status| status.requests.as_ref().map(|requests| (requests.finished, requests.aborted));
    assert_eq!(finished(&status), Some((5, 0)), "{status:?}");

    let mark = web.mark();
    processes::signal(pid, Signal::KILL);
    let died = web.log_since(mark, &format!("worker {id} died after"));
    assert!(died.text.contains("killed by SIGKILL; it served GET /hang since "), "{}", died.text);
    assert!(!web.transcript.show().contains("secret"));
    let one = web.status_since(mark, "serving, 1 of 2 workers, generation 1");
    web.status_since(one.mark(), "serving, 2 of 2 workers, generation 1");
    let status = web.report();
    assert!(status.slots.iter().filter_map(|slot| slot.last_death.as_ref()).any(|d| d.reason.contains("GET /hang")));
    assert_eq!(finished(&status), Some((5, 0)), "what the dead had served is not forgotten: {status:?}");
    assert_eq!(busy(&status), None);
    web.stop();
}

#[test]
fn what_asgi_workers_serve_is_counted_and_a_reload_forgets_nothing() {
    let web =
        Instance::on_unix().file("myproject.py", ASGI).config("[workers]\ncount = 2\n[reload]\nsoak = \"200ms\"\n");
    let web = web.command(&[&bin("uvicorn"), "myproject:application"]);
    for _ in 0..7 {
        assert_eq!(web.get("/").status, 200);
    }
    let finished = |web: &Instance| web.report().requests.map(|requests| requests.finished);
    web.until("seven requests", || (finished(&web) == Some(7)).then_some(()));
    let (_, outcome) = web.reload();
    assert!(outcome.ok, "{outcome:?}");
    assert_eq!(web.get("/").status, 200);
    // Those that sockd asked for, of the canary too, are nobody's.
    web.until("eight requests", || (finished(&web) == Some(8)).then_some(()));
    web.stop();
}

#[test]
fn one_setting_keeps_requests_from_being_shown() {
    let web = project().config("[requests]\nshow = false\n").gunicorn(&["--workers", "1"]);
    assert_eq!(web.get("/").status, 200);
    assert_eq!(web.report().requests, None);
    web.stop();
}

#[test]
fn programs_that_show_no_requests_are_said_to_show_none() {
    let web = Instance::on_unix().worker("service.py", &[]);
    assert_eq!(web.get("/").status, 200);
    let status = web.report();
    assert_eq!(status.requests, None);
    assert!(status.workers.iter().all(|worker| worker.requests.is_none()));
    web.stop();
}

/// Waits at /slow until a file is there.
const RACK: &str = "run ->(env) {
  if env['PATH_INFO'] == '/slow'
    $stdout.puts 'slow'
    $stdout.flush
    sleep 0.01 until File.exist?('go')
  end
  [200, {'content-type' => 'text/plain'}, ['hello']]
}
";

/// How many are finished, and how many of them were answered in a way that is not known.
fn unclassified(web: &Instance) -> Option<(u64, Option<u64>)> {
    web.report().requests.map(|requests| (requests.finished, requests.unclassified))
}

#[test]
fn puma_is_asked_what_it_serves_and_a_reload_forgets_nothing() {
    if !there("puma") {
        return;
    }
    let config = "[workers]\ncount = 2\n[reload]\nsoak = \"200ms\"\n";
    // Its own file is read as before.
    let builder = Instance::on_unix().file("config.ru", RACK).config(config);
    std::fs::create_dir(builder.path().join("config")).expect("a directory");
    let builder = builder.file("config/puma.rb", "threads 1, 3\n");
    let web = builder.command(&["puma"]);
    for _ in 0..5 {
        assert_eq!(web.get("/").status, 200);
    }
    web.status("serving, 2 of 2 workers, generation 1");
    assert!(web.transcript.show().contains("Max threads: 3"), "{}", web.transcript.show());
    web.until("five requests", || (unclassified(&web) == Some((5, Some(5)))).then_some(()));
    let mut slow = web.addresses[0].connect(PATIENCE).expect("connected");
    http::send_get(&mut slow, "/slow").expect("sent");
    web.output("slow");
    // On a busy machine one need not answer in time.
    let all_answer =
        || Some(web.report()).filter(|status| status.workers.iter().all(|worker| worker.requests.is_some()));
    let status = web.until("both answer", all_answer);
    let seen = || status.workers.iter().filter_map(|worker| worker.requests.as_ref());
    assert_eq!(seen().map(|requests| requests.busy).sum::<u64>(), 1, "{status:?}");
    assert_eq!(seen().map(|requests| requests.finished).sum::<u64>(), 5, "{status:?}");
    let requests = status.requests.as_ref().expect("it is known");
    assert_eq!((requests.finished, requests.durations.as_ref()), (5, None));

    // One that stands still is not known, and holds up nobody else.
    let idle = status.workers.iter().find(|worker| worker.requests.as_ref().is_some_and(|r| r.busy == 0));
    let idle = idle.expect("an idle worker");
    let pid = idle.pid.and_then(|pid| Pid::from_raw(pid.cast_signed())).expect("a process");
    processes::signal(pid, Signal::STOP);
    web.until("the other one answers", || {
        let status = web.report();
        assert_eq!(status.requests.map(|requests| requests.finished), Some(5));
        let of_idle = |worker: &&sockd::control::message::Worker| worker.id == idle.id;
        assert!(status.workers.iter().find(of_idle).is_some_and(|worker| worker.requests.is_none()));
        status.workers.iter().any(|worker| worker.requests.is_some()).then_some(())
    });
    processes::signal(pid, Signal::CONT);

    web.write("go", "");
    web.until("six requests", || (unclassified(&web) == Some((6, Some(6)))).then_some(()));
    // Nobody asks between these and the reload.
    for _ in 0..4 {
        assert_eq!(web.get("/").status, 200);
    }
    let (_, outcome) = web.reload();
    assert!(outcome.ok, "{outcome:?}");
    // They take visitors until they have said how many they have had, and a moment longer.
    for worker in [1, 2] {
        web.log(&format!("worker {worker} has left"));
    }
    assert_eq!(web.get("/").status, 200);
    web.until("eleven requests", || (unclassified(&web) == Some((11, Some(11)))).then_some(()));
    drop(slow);
    web.stop();
}

#[test]
fn one_setting_keeps_puma_from_being_asked() {
    if !there("puma") {
        return;
    }
    let web = Instance::on_unix().file("config.ru", RACK).config("[requests]\nshow = false\n").command(&["puma"]);
    assert_eq!(web.get("/").status, 200);
    let status = web.report();
    assert_eq!(status.requests, None);
    assert!(status.workers.iter().all(|worker| worker.requests.is_none()));
    web.stop();
}
