//! Servers of other languages, as they are: puma and unicorn with a rack application, node's http, a Go program that takes its
//! sockets as systemd passes them. What is not installed is left out, and said so.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, Signal};

use super::instance::{Builder, Instance};
use super::processes;
use super::python::Hammer;
use super::signals;

const QUICK: &str = "[reload]\nsoak = \"200ms\"\n";

/// A server: how its source is written with a text, and how it is started.
struct Server {
    file: &'static str,
    /// `TEXT` becomes the text; the answer is `TEXT from PID`, and /slow takes a second.
    source: &'static str,
    /// Does not start, for a reason that the outcome itself quotes: its line contains `why`.
    broken: &'static str,
    why: &'static str,
    command: Vec<String>,
    /// Whether it keeps every connection that it has accepted when it is asked to leave. puma 5.6.5 drops one whose
    /// request has not come in whole.
    loses_nothing: bool,
    /// What the new code goes through before it can be started: Go is compiled.
    build: fn(&Instance) -> bool,
}

impl Server {
    fn text(&self, text: &str) -> String {
        self.source.replace("TEXT", text)
    }

    fn deploy(&self, web: &Instance, source: &str) {
        web.write(self.file, source);
        assert!((self.build)(web), "it could not be built");
    }

    fn start(&self, builder: Builder) -> Instance {
        let builder = builder.file(self.file, &self.text("hello")).config(QUICK);
        let command: Vec<_> = self.command.iter().map(String::as_str).collect();
        builder.options("--workers 2").command(&command)
    }
}

/// Whether a program is there; otherwise says that its test is left out.
pub fn there(program: &str) -> bool {
    let there = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        // Not eprintln: the harness would keep it to itself while the test passes.
        let _ = writeln!(std::io::stderr(), "LEFT OUT: {program} is not installed");
    }
    there
}

/// Serves on unix and TCP, is replaced, reloaded, refused, and drained.
fn lives(server: &Server) {
    lives_with(Instance::on_unix().tcp4(), server);
}

fn lives_with(builder: Builder, server: &Server) {
    let mut web = server.start(builder);
    for socket in 0..2 {
        assert!(web.get_at(socket, "/").body.starts_with("hello from"), "socket {socket}");
    }
    web.status("serving, 2 of 2 workers, generation 1");

    let old = web.ready();
    processes::signal(old[0], Signal::KILL);
    web.until("a successor is ready", || {
        let ready = web.ready();
        (ready.len() == 2 && !ready.contains(&old[0])).then_some(())
    });

    let hammer = server.loses_nothing.then(|| Hammer::start(&web.addresses[0], 2));
    server.deploy(&web, &server.text("renewed"));
    let (_, outcome) = web.reload();
    assert!(outcome.ok, "{outcome:?}");
    // One that has been asked to leave may still take a connection before it hears of it.
    web.until("the old workers have left", || (web.workers().len() == 2).then_some(()));
    assert!(web.get("/").body.starts_with("renewed from"));
    if let Some(hammer) = hammer {
        assert!(hammer.finish(&web).iter().all(|client| client.len() > 10), "hardly anybody came");
    }

    let ready = web.ready();
    server.deploy(&web, server.broken);
    let (_, outcome) = web.reload();
    assert!(!outcome.ok && outcome.message.contains(server.why), "{outcome:?}");
    assert_eq!(web.ready(), ready);

    let address = web.addresses[1].clone();
    let mark = web.mark();
    let visitor = std::thread::spawn(move || address.get("/slow"));
    web.output_since(mark, "slow");
    web.signal(Signal::TERM);
    let answer = visitor.join().expect("no panic").expect("answered");
    assert!(answer.body.starts_with("renewed from"), "{answer:?}");
    assert_eq!(web.end().code(), Some(0));
    web.assert_nothing_left();
    assert!(web.path().join("web.sock").exists(), "the socket's file was removed");
}

fn puma() -> Server {
    Server {
        file: "config.ru",
        source: "run ->(env) {
  if env['PATH_INFO'] == '/slow'
    $stdout.puts 'slow'
    $stdout.flush
    sleep 1
  end
  [200, {'content-type' => 'text/plain'}, [\"TEXT from #{Process.pid}\"]]
}
",
        broken: "require 'a_gem_that_is_missing'\n",
        why: "cannot load such file -- a_gem_that_is_missing",
        // Every worker would bind it, if it had its way.
        command: ["puma", "-b", "tcp://127.0.0.1:1", "-w", "3"].map(str::to_owned).into(),
        loses_nothing: false,
        build: |_| true,
    }
}

#[test]
fn puma_lives() {
    if there("puma") {
        lives(&puma());
    }
}

#[test]
fn puma_is_sent_every_signal() {
    if !there("puma") {
        return;
    }
    let server = puma();
    let web = server.start(Instance::on_unix());
    web.get("/");
    signals::is_sent_everything(web, |web, text| server.deploy(web, &server.text(text)));
}

#[test]
fn puma_s_own_file_says_how_many_and_where() {
    if !there("puma") {
        return;
    }
    let web = Instance::builder()
        .file("config.ru", "run ->(env) { [200, {'content-type' => 'text/plain'}, ['hello']] }\n")
        .file("puma.rb", "workers ENV.fetch('NO_SUCH_VARIABLE', 3)\nbind 'unix://own.sock'\n")
        .config(QUICK)
        .command(&["puma", "-C", "puma.rb"]);
    web.status("serving, 3 of 3 workers, generation 1");
    let own = super::http::Address::Unix(web.path().join("own.sock"));
    assert_eq!(own.get("/").expect("answered").body, "hello");
    web.stop();
}

fn unicorn() -> Server {
    Server {
        // Visitors are answered by the process of the worker, which is its master's.
        source: puma().source.replace("Process.pid", "Process.ppid").leak(),
        command: ["unicorn", "-c", "unicorn.rb", "-l", "127.0.0.1:1"].map(str::to_owned).into(),
        loses_nothing: true,
        ..puma()
    }
}

/// What every worker would do, if it had its way: write the file, listen, as often as it takes, and execute itself.
const UNICORN: &str = "worker_processes 3
worker_exec true
pid 'unicorn.pid'
listen '127.0.0.1:2', tries: -1
before_fork { |server, worker| $stdout.puts 'before_fork' }
after_fork { |server, worker| server.listen('127.0.0.1:3', tries: -1) }
";

#[test]
fn unicorn_lives() {
    if there("unicorn") {
        lives_with(Instance::on_unix().tcp4().file("unicorn.rb", UNICORN), &unicorn());
    }
}

#[test]
fn unicorn_is_sent_every_signal() {
    if !there("unicorn") {
        return;
    }
    let server = unicorn();
    let web = server.start(Instance::on_unix().file("unicorn.rb", UNICORN));
    web.get("/");
    signals::is_sent_everything(web, |web, text| server.deploy(web, &server.text(text)));
}

#[test]
fn unicorn_s_own_file_says_how_many_and_where_and_its_hooks_are_called() {
    if !there("unicorn") {
        return;
    }
    let web = Instance::builder()
        .file("config.ru", "run ->(env) { [200, {'content-type' => 'text/plain'}, [Process.pid.to_s]] }\n")
        .file("unicorn.rb", &UNICORN.replace("127.0.0.1:2", "unix:own.sock"))
        .config(QUICK)
        .command(&["unicorn", "-c", "unicorn.rb"]);
    web.status("serving, 3 of 3 workers, generation 1");
    let own = super::http::Address::Unix(web.path().join("own.sock"));
    let process = own.get("/").expect("answered").body;
    web.output("before_fork");
    assert!(!web.path().join("unicorn.pid").exists());
    for master in web.ready() {
        // By these it would have another number of processes, or start another master.
        for signal in [Signal::HUP, Signal::USR2, Signal::WINCH, Signal::TTIN, Signal::TTOU] {
            let ignored = signals::mask(master, "SigIgn:") >> (signal.as_raw() - 1) & 1 == 1;
            assert!(ignored, "{signal:?} is not ignored");
        }
        assert_eq!(sockd::process::descendants(master).len(), 1, "{}", processes::describe(master));
    }

    // With its process a worker ends, too.
    let mark = web.mark();
    processes::signal(Pid::from_raw(process.parse().expect("a number")).expect("a process"), Signal::KILL);
    web.log_since(mark, "killed by SIGKILL");
    web.status_since(mark, "serving, 3 of 3 workers, generation 1");
    web.stop();
}

#[test]
fn node_lives() {
    if !there("node") {
        return;
    }
    lives(&Server {
        file: "server.js",
        source: "const http = require('http');
const answer = (request, response) => response.end('TEXT from ' + process.pid);
const servers = [];
for (let fd = 3; fd < 3 + Number(process.env.LISTEN_FDS); fd++) {
  const server = http.createServer((request, response) => {
    if (request.url !== '/slow') return answer(request, response);
    console.log('slow');
    setTimeout(answer, 1000, request, response);
  });
  server.listen({fd});
  servers.push(server);
}
// What node does by itself at SIGTERM is to end at once.
process.on('SIGTERM', () => servers.forEach((server) => server.close()));
",
        broken: "require('./a_module_that_is_missing');\n",
        why: "Cannot find module './a_module_that_is_missing'",
        command: ["node", "server.js"].map(str::to_owned).into(),
        loses_nothing: true,
        build: |_| true,
    });
}

/// Where Go keeps what it has compiled.
pub fn go_cache() -> PathBuf {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("go")).clone()
}

fn go_build(directory: &std::path::Path) -> bool {
    let mut go = Command::new("go");
    go.args(["build", "-o", "server.new", "server.go"]).current_dir(directory).env("GOCACHE", go_cache());
    go.env("GO111MODULE", "off").env("GOFLAGS", "").stdin(Stdio::null());
    go.status().expect("go starts").success()
        && std::fs::rename(directory.join("server.new"), directory.join("server")).is_ok()
}

const GO: &str = "package main

import (
	\"context\"
	\"fmt\"
	\"net\"
	\"net/http\"
	\"os\"
	\"os/signal\"
	\"strconv\"
	\"syscall\"
	\"time\"
)

func main() {
	START
	http.HandleFunc(\"/\", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == \"/slow\" {
			fmt.Println(\"slow\")
			time.Sleep(time.Second)
		}
		fmt.Fprintf(w, \"TEXT from %d\", os.Getpid())
	})
	if os.Getenv(\"LISTEN_PID\") != strconv.Itoa(os.Getpid()) {
		panic(\"these sockets are for another process\")
	}
	count, _ := strconv.Atoi(os.Getenv(\"LISTEN_FDS\"))
	server := &http.Server{}
	for fd := 3; fd < 3+count; fd++ {
		listener, err := net.FileListener(os.NewFile(uintptr(fd), \"\"))
		if err != nil {
			panic(err)
		}
		// Go removes a unix socket's file with its listener, unless it is asked not to.
		if unix, ok := listener.(*net.UnixListener); ok {
			unix.SetUnlinkOnClose(false)
		}
		go server.Serve(listener)
	}
	manager, err := net.Dial(\"unixgram\", os.Getenv(\"NOTIFY_SOCKET\"))
	if err != nil {
		panic(err)
	}
	manager.Write([]byte(\"READY=1\"))
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	server.Shutdown(context.Background())
}
";

#[test]
fn a_go_program_lives() {
    if !there("go") {
        return;
    }
    let source = GO.replace("START", "");
    let broken = GO.replace("START", "if len(os.Args) < 9 { panic(\"no database\") }");
    let builder = Instance::on_unix().tcp4().file("server.go", &source.replace("TEXT", "hello"));
    assert!(go_build(builder.path()), "it could not be built");
    lives_with(
        builder,
        &Server {
            file: "server.go",
            source: source.leak(),
            broken: broken.leak(),
            why: "panic: no database",
            command: vec!["./server".to_owned()],
            loses_nothing: true,
            build: |web| go_build(web.path()),
        },
    );
}
