//! What balancers hear on the status socket, and that a real HAProxy follows it without losing a request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use sockd::control::{Outcome, Request};
use sockd::status_socket::AGENT_WAIT;

use super::http::Address;
use super::instance::Instance;
use super::metrics::{STATUS, served_on};
use super::programs;
use super::python::{Hammer, application, project};
use super::transcript::{PATIENCE, START};

/// The line that an agent-check reads that says this.
fn agent(address: &Address, says: &str) -> String {
    let Address::Tcp(address) = address else { panic!("a TCP socket") };
    let mut client = TcpStream::connect(address).expect("connected");
    client.set_read_timeout(Some(PATIENCE)).expect("set");
    client.write_all(says.as_bytes()).expect("sent");
    let mut line = String::new();
    client.read_to_string(&mut line).expect("a line");
    line
}

fn page(address: &Address, path: &str) -> (u16, String) {
    let response = address.get(path).expect("an answer");
    (response.status, response.body)
}

fn drain(web: &Instance, is_drained: bool) -> Outcome {
    web.ask_for(Request::Drain { is_drained }).1
}

#[test]
fn each_state_is_heard_over_http_and_by_an_agent_check() {
    let web = project().options(STATUS).gunicorn(&["--workers", "2"]);
    let address = served_on(&web, START);
    web.status("serving, 2 of 2 workers, generation 1");
    let hears = |ready: (u16, &str), line: &str| {
        web.until(line, || {
            let heard = (page(&address, "/ready"), agent(&address, ""));
            (heard == ((ready.0, format!("{}\n", ready.1)), format!("{line}\n"))).then_some(())
        });
    };
    hears((200, "ready"), "ready up 100%");
    assert_eq!(page(&address, "/live"), (200, "live\n".to_owned()));
    // One that says something needs not wait; one that speaks HTTP slowly is no agent.
    let began = Instant::now();
    assert_eq!(agent(&address, "sockd\n"), "ready up 100%\n");
    assert!(began.elapsed() < AGENT_WAIT, "{:?}", began.elapsed());
    assert_eq!(agent(&address, "\u{16}\u{3}\u{1}\u{2}"), "ready up 100%\n", "a handshake in TLS");
    let Address::Tcp(place) = &address else { panic!("a TCP socket") };
    let mut slow = TcpStream::connect(place).expect("connected");
    slow.write_all(b"GE").expect("sent");
    std::thread::sleep(AGENT_WAIT);
    slow.write_all(b"T /live HTTP/1.0\r\n\r\n").expect("sent");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");

    let outcome = drain(&web, true);
    assert!(outcome.ok, "{outcome:?}");
    assert!(!web.report().balancers.have_heard);
    hears((503, "drained"), "drain");
    assert!(web.report().balancers.have_heard);
    assert_eq!(web.get("/").status, 200, "who comes all the same is served");
    assert!(drain(&web, false).ok);
    hears((200, "ready"), "ready up 100%");
    let outcome = drain(&web, false);
    assert_eq!((outcome.ok, &*outcome.message), (false, "it was not drained"));

    let maintenance = |on| web.ask_for(Request::Maintenance { on, message: None, retry_after_s: None }).1;
    assert!(maintenance(true).ok);
    hears((503, "in maintenance"), "maint");
    assert_eq!(page(&address, "/live").0, 200);
    assert!(maintenance(false).ok);
    hears((200, "ready"), "ready up 100%");
    web.stop();
}

#[test]
fn code_that_cannot_start_is_down_and_a_first_visitor_is_waited_for() {
    let builder = project().options("--start at-once --status-listen 127.0.0.1:0");
    let broken = builder.file("myproject.py", "import nothing_of_that_name\n").gunicorn(&["--workers", "1"]);
    let address = served_on(&broken, START);
    broken.until("503", || (page(&address, "/ready") == (503, "no worker serves\n".to_owned())).then_some(()));
    assert_eq!(agent(&address, ""), "down#no worker serves\n");
    broken.stop();
    let waits = project().options("--status-listen 127.0.0.1:0").gunicorn(&["--workers", "1"]);
    assert_eq!(page(&served_on(&waits, START), "/ready"), (200, "ready\n".to_owned()));
    waits.stop();
}

#[test]
fn without_a_status_socket_nobody_could_hear_of_a_drain() {
    let web = project().gunicorn(&["--workers", "1"]);
    let runtime = super::instance::runtime();
    assert_eq!(web.get("/").status, 200);
    let control = web.control();
    let asked = sockd::control::follow(&control, Request::Drain { is_drained: true }, |_| ());
    let refused = runtime.block_on(asked).expect_err("it is refused").to_string();
    assert!(refused.contains("set status.listen"), "{refused}");
    web.stop();
}

/// HAProxy before two instances, which it asks for their state three times a second.
struct HaProxy {
    child: Child,
    front: Address,
    statistics: PathBuf,
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl HaProxy {
    fn start(instances: &[&Instance]) -> Self {
        let directory = instances[0].path();
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let front: SocketAddr = ([127, 0, 0, 1], port).into();
        let servers: String = instances
            .iter()
            .zip('a'..)
            .map(|(web, name)| {
                let (Address::Unix(site), Address::Tcp(status)) = (&web.addresses[0], served_on(web, START)) else {
                    panic!("a site on a unix socket, and its status on a port")
                };
                let (site, port) = (site.display(), status.port());
                format!(
                    "  server {name} unix@{site} weight 100 check inter 300ms agent-check agent-addr 127.0.0.1 agent-port {port} agent-inter 300ms\n"
                )
            })
            .collect();
        let statistics = directory.join("haproxy.sock");
        let config = format!(
            "global\n  stats socket {}\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  \
             timeout server 30s\nfrontend site\n  bind {front}\n  default_backend instances\nbackend instances\n  \
             balance roundrobin\n{servers}",
            statistics.display()
        );
        std::fs::write(directory.join("haproxy.cfg"), config).expect("written");
        let child = Command::new("/usr/sbin/haproxy")
            .args(["-db", "-f"])
            .arg(directory.join("haproxy.cfg"))
            .stdin(Stdio::null())
            .spawn()
            .expect("it starts");
        Self { child, front: Address::Tcp(front), statistics }
    }

    /// What it says of a server: its state, its weight in percent, and how many requests it was sent.
    fn server(&self, name: char) -> Option<(String, u32, u64)> {
        let mut socket = UnixStream::connect(&self.statistics).ok()?;
        socket.write_all(b"show stat\n").ok()?;
        let mut text = String::new();
        socket.read_to_string(&mut text).ok()?;
        let heads: Vec<&str> = text.lines().next()?.trim_start_matches("# ").split(',').collect();
        let line = text.lines().find(|line| line.starts_with(&format!("instances,{name},")))?;
        let value = |head: &str| {
            let at = heads.iter().position(|known| *known == head)?;
            line.split(',').nth(at)
        };
        Some((value("status")?.to_owned(), value("weight")?.parse().ok()?, value("stot")?.parse().ok()?))
    }
}

#[test]
fn a_real_haproxy_takes_an_instance_out_and_back_and_loses_no_request() {
    if !programs::there("/usr/sbin/haproxy") {
        return;
    }
    let instance = |text: &str| {
        let site = Instance::on_unix().file("myproject.py", &application(text));
        site.options(STATUS).gunicorn(&["--workers", "2"])
    };
    let (a, b) = (instance("a"), instance("b"));
    for web in [&a, &b] {
        web.status("serving, 2 of 2 workers, generation 1");
    }
    let balancer = HaProxy::start(&[&a, &b]);
    let is = |name: char, state: &str| {
        let reached = || balancer.server(name).filter(|(now, ..)| now.starts_with(state));
        a.until(&format!("{name}: {state}"), reached)
    };
    is('a', "UP");
    is('b', "UP");
    let load = Hammer::start(&balancer.front, 4);
    let served = |name| balancer.server(name).map_or(0, |(_, _, requests)| requests);
    a.until("both serve", || (served('a') > 20 && served('b') > 20).then_some(()));
    let (_, weight, _) = is('a', "UP");
    assert!((50..=100).contains(&weight), "{weight}");

    assert!(drain(&a, true).ok);
    let (.., before) = is('a', "DRAIN");
    let others = served('b');
    a.until("the other serves all", || (served('b') > others + 50).then_some(()));
    assert!(served('a') <= before + 4, "it is sent visitors although it is drained");
    a.until("idle", || {
        let workers = a.workers();
        workers.iter().all(|worker| worker.requests.as_ref().is_some_and(|r| r.busy == 0)).then_some(())
    });
    // What one does with a host that is out of its balancer.
    assert!(a.reload().1.ok);
    assert!(drain(&a, false).ok);
    let (.., before) = is('a', "UP");
    a.until("it serves again", || (served('a') > before + 20).then_some(()));
    let texts = load.finish(&a);
    assert!(texts.iter().flatten().all(|text| text.starts_with(['a', 'b'])), "{texts:?}");
    drop(balancer);
    a.stop();
    b.stop();
}
