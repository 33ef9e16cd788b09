//! gunicorn from a virtual environment, and applications for it.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::http::Address;
use super::instance::{Builder, Instance};

/// The application: says which text it was written with, and misbehaves on request.
pub fn application(text: &str) -> String {
    format!(
        r#"
import os, time

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/hang":
        print("hanging", flush=True)
        hang_for_ever()
    body = ("{text} from %d" % os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]

def hang_for_ever():
    time.sleep(3600)
"#
    )
}

/// One whose /wait is answered once there is a file `go`; who serves it is then in `busy`.
pub const WAITING: &str = r#"
import os, sys, time

def application(environ, start_response):
    if environ["PATH_INFO"] == "/wait":
        with open("busy", "w") as file:
            file.write(str(os.getpid()))
        print("waits for a file", file=sys.stderr, flush=True)
        print("waiting", flush=True)
        while not os.path.exists("go"):
            time.sleep(0.01)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]
"#;

/// The same for asgi and uvicorn.
pub const ASGI: &str = r#"
import os

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = ("hello from %d" % os.getpid()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})
"#;

/// The virtual environment with gunicorn in it.
pub fn venv() -> PathBuf {
    let given = std::env::var_os("SOCKD_TEST_VENV").map(PathBuf::from);
    let venv = given.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/venv"));
    assert!(
        venv.join("bin/gunicorn").exists(),
        "there is no gunicorn in {}: run tests/run, which makes the virtual environment, or name one in SOCKD_TEST_VENV",
        venv.display()
    );
    venv
}

pub fn bin(name: &str) -> String {
    venv().join("bin").join(name).display().to_string()
}

/// Whether the virtual environment has a module.
pub fn has(module: &str) -> bool {
    let status = Command::new(bin("python")).args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status();
    status.expect("python starts").success()
}

/// With an application in myproject.py and one unix socket.
pub fn project() -> Builder {
    Instance::on_unix().file("myproject.py", &application("hello"))
}

impl Builder {
    /// Starts `gunicorn ARGUMENTS myproject:application`.
    pub fn gunicorn(self, arguments: &[&str]) -> Instance {
        let script = bin("gunicorn");
        let command: Vec<&str> =
            [script.as_str()].into_iter().chain(arguments.iter().copied()).chain(["myproject:application"]).collect();
        self.command(&command)
    }
}

/// Clients that ask again and again, as fast as they are answered.
pub struct Hammer {
    stop: std::sync::Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<Vec<String>, String>>>,
}

impl Hammer {
    pub fn start(address: &Address, clients: usize) -> Self {
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let client = |_| {
            let (stop, address) = (std::sync::Arc::clone(&stop), address.clone());
            std::thread::spawn(move || {
                let mut bodies = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match address.get("/") {
                        Ok(response) if response.status == 200 => bodies.push(response.body),
                        Ok(response) => return Err(format!("status {} after {}", response.status, bodies.len())),
                        Err(error) => return Err(format!("{error} after {}", bodies.len())),
                    }
                }
                Ok(bodies)
            })
        };
        Self { clients: (0..clients).map(client).collect(), stop }
    }

    /// What was answered to each client; a single failure fails the test.
    pub fn finish(self, web: &Instance) -> Vec<Vec<String>> {
        self.stop.store(true, Ordering::Relaxed);
        let answers: Vec<_> = self.clients.into_iter().map(|client| client.join().expect("no panic")).collect();
        let failures: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
        assert!(failures.is_empty(), "failed requests: {failures:?}\n{}", web.transcript.show());
        answers.into_iter().flatten().collect()
    }
}
