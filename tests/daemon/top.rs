//! `sockd top` in a real terminal: what it shows, what its keys do, and that the terminal is as it was afterwards.

use rustix::process::{Pid, Signal};

use super::http;
use super::instance::Instance;
use super::processes;
use super::python::WAITING;
use super::tmux::Tmux;
use super::transcript::PATIENCE;

const SOCKD: &str = env!("CARGO_BIN_EXE_sockd");

/// Two workers, alone on their machine, so far as `sockd top` sees.
fn serving() -> Instance {
    let builder = Instance::builder().in_network_namespace().file("myproject.py", WAITING);
    // The kernel tells of queues in one's own namespace.
    let builder = builder.config("[reload]\nsoak = \"200ms\"\n").options("--listen unix:own.sock");
    let mut web = builder.gunicorn(&["--workers", "2"]);
    web.addresses.push(http::Address::Unix(web.path().join("own.sock")));
    web.status("serving, 2 of 2 workers, generation 1");
    assert_eq!(web.get("/").status, 200);
    web
}

/// Types a command that leaves the terminal's modes before and after it in files, and its process id.
fn starts(tmux: &Tmux<'_>, environment: &str) {
    tmux.types(&format!(
        "clear; stty -g >before; sh -c 'echo $$ >pid; exec env {environment} {SOCKD} top'; echo ended $?; stty -g >after"
    ));
}

fn ended(tmux: &Tmux<'_>, web: &Instance) {
    let screen = tmux.until("its end", |screen| screen.starts_with("ended 0\n$"));
    assert!(!screen.contains("sockd top:"), "its screen is left: {screen}");
    let modes = |name: &str| std::fs::read_to_string(web.path().join(name)).expect(name);
    web.until("the modes", || (!modes("after").is_empty()).then_some(()));
    assert_eq!(modes("before"), modes("after"));
    std::fs::remove_file(web.path().join("after")).expect("removed");
}

/// A screen without its numbers, bars and the width of its columns.
fn plain(screen: &str) -> String {
    let is_bar = |word: &&str| word.chars().all(|letter| ('▁'..='█').contains(&letter));
    let number = |word: &str| match word.chars().next() {
        Some('0'..='9') => "#".to_owned(),
        _ => word.to_owned(),
    };
    let line =
        |line: &str| line.split_whitespace().filter(|word| !is_bar(word)).map(number).collect::<Vec<_>>().join(" ");
    screen.lines().map(|text| line(text) + "\n").collect()
}

#[test]
fn it_shows_what_is_served_and_its_keys_end_a_worker_and_reload() {
    let web = serving();
    let Some(tmux) = Tmux::open(&web, 80, 24) else { return drop(web.stop()) };
    let mut connection = web.addresses[0].connect(PATIENCE).expect("connected");
    http::send_get(&mut connection, "/wait?secret").expect("sent");
    web.output("waiting");
    starts(&tmux, "");
    tmux.until("a second look", |screen| screen.contains("/s; sorted"));
    let busy = web.path().join("busy");
    let served = std::fs::read_to_string(busy).expect("written");
    let first = |screen: &str| screen.lines().any(|line| line.starts_with('>') && line.contains(served.trim()));
    tmux.press(&["Tab"]);
    if !first(
        &tmux.until("a worker", |screen| screen.lines().any(|line| line.starts_with("> ") && !line.contains('●'))),
    ) {
        tmux.press(&["Down"]);
    }
    let ready = "# ready # # # # #";
    let above = "sockd top: # instance, # workers ready, # sorted by name\n\
                 systemd: not reachable: failed to connect to `unix:path=/nonexistent/bus`: No s…\n\
                 UNIT READY RATE QUEUE ERRORS STATE\n\
                 - ● sockd, process # # # # # serves\n\
                 \n\
                 sockd, process # serving, # of # workers, generation #\n\
                 ID STATE PID GEN AGE MEMORY CPU SERVES\n";
    let below = "\nworker # slot # restarts # CPU #\nrequests finished # served now #\n# GET /wait\n";
    let golden = |screen: &str| {
        let plain = plain(screen);
        let chosen = format!("> {ready} # GET /wait\n");
        let workers = [format!("{chosen}{ready}\n"), format!("{ready}\n{chosen}")];
        let keys = "\nq quit ? keys Tab instances t stacks e end worker r reload l journal\n";
        workers.iter().any(|workers| plain.starts_with(&format!("{above}{workers}{below}")))
            && plain.ends_with(keys)
            && plain.lines().count() == 24
    };
    // A look of which something is missing, on a busy machine, is followed by another.
    tmux.until("its request", golden);

    tmux.press(&["t"]);
    tmux.until("its stack", |screen| screen.contains(" in application"));
    tmux.press(&["Escape"]);
    tmux.until("its last line", |screen| screen.contains("| waits for a file") && !screen.contains(" in application"));

    let mark = web.mark();
    tmux.press(&["e"]);
    tmux.until("a question", |screen| screen.contains("once its successor is proven? (y/n)"));
    assert!(web.logged(mark, "as was asked for").is_empty());
    tmux.press(&["y"]);
    tmux.until("the outcome", |screen| screen.contains("is to be replaced: its successor is proven first"));
    web.log_since(mark, "is to be replaced, as was asked for");
    web.log_since(mark, "worker 3 is ready");
    tmux.until("it drains", |screen| screen.contains(" draining "));
    web.write("go", "");
    assert_eq!(http::read_response(&mut connection).expect("answered").status, 200);
    web.log_since(mark, "has left");
    tmux.press(&["r", "y"]);
    tmux.until("the outcome", |screen| screen.contains(": generation 2 serves"));

    tmux.resize(20, 8);
    tmux.until("narrow lines", |screen| {
        screen.contains("UNIT") && screen.lines().all(|line| line.chars().count() <= 20)
    });
    tmux.resize(80, 24);
    tmux.press(&["q"]);
    ended(&tmux, &web);
    tmux.close();
    web.stop();
}

#[test]
fn however_it_ends_the_terminal_is_as_it_was() {
    let web = serving();
    let Some(tmux) = Tmux::open(&web, 80, 24) else { return drop(web.stop()) };
    let pid = || {
        let text = std::fs::read_to_string(web.path().join("pid")).expect("written");
        Pid::from_raw(text.trim().parse().expect("a number")).expect("not 0")
    };
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        starts(&tmux, "");
        tmux.until("it", |screen| screen.starts_with("sockd top: 1 instance"));
        processes::signal(pid(), signal);
        ended(&tmux, &web);
    }
    starts(&tmux, "NO_COLOR=1");
    tmux.until("it", |screen| screen.starts_with("sockd top: 1 instance"));
    // 39 is the terminal's own colour.
    let is_colour = |code: &str| matches!(code.as_bytes(), [b'3', b'1'..=b'8', ..]);
    let codes = |sequence: &str| sequence.split('m').next().unwrap_or_default().split(';').any(is_colour);
    let coloured = |screen: &str| screen.split("\x1b[").skip(1).any(codes);
    assert!(!coloured(&tmux.coloured()), "{}", tmux.coloured());
    tmux.press(&["C-c"]);
    ended(&tmux, &web);

    starts(&tmux, "");
    tmux.until("it", |screen| screen.starts_with("sockd top: 1 instance"));
    assert!(coloured(&tmux.coloured()), "{}", tmux.coloured());
    let top = pid();
    tmux.close();
    assert!(processes::ended(top, PATIENCE), "it goes on without a terminal");
    web.stop();
}

#[test]
fn a_terminal_that_cannot_move_its_cursor_is_named_with_what_to_type() {
    let web = serving();
    let Some(tmux) = Tmux::open(&web, 80, 24) else { return drop(web.stop()) };
    tmux.types(&format!("clear; TERM=dumb {SOCKD} top; echo ended $?"));
    let screen = tmux.until("its end", |screen| screen.contains("ended 1\n$"));
    assert!(screen.contains("cannot move its cursor") && screen.contains("sockd status"), "{screen}");
    tmux.close();
    web.stop();
}
