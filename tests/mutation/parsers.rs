//! Everything that reads what others wrote: it refuses a mutated text, or what it took stands in the text. A panic, an
//! answer without end, or a control character in what a person is shown, fails.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sockd::adapter::gunicorn::GunicornArgs;
use sockd::adapter::server_settings::ServerSettings;
use sockd::adapter::uwsgi::ini::Section;
use sockd::adapter::{self, shlex};
use sockd::cli::adopt::supervisord::ini::Configuration;
use sockd::cli::adopt::unit::Unit;
use sockd::config::{self, Options, duration, size};
use sockd::notify;
use sockd::printable::for_terminal;
use sockd::scoreboard::Scoreboard;
use sockd::systemd::show;

use crate::mutator::{Numbers, ROUNDS};

/// How many of the rounds were taken and how many refused: a test that sees only one of them says little.
#[derive(Debug, Default)]
struct Count {
    taken: usize,
    refused: usize,
}

impl Count {
    fn add(&mut self, taken: bool) {
        *(if taken { &mut self.taken } else { &mut self.refused }) += 1;
    }

    #[track_caller]
    fn both(&self) {
        assert!(self.taken > ROUNDS / 100 && self.refused > ROUNDS / 100, "{self:?}");
    }
}

#[test]
fn notifications() {
    let mut numbers = Numbers(0x5eed_0101);
    let mut count = Count::default();
    for _ in 0..ROUNDS {
        let datagram = numbers.mutated_bytes(b"READY=1\nSTATUS=up\nWATCHDOG=1\nX_SOCKD_RETIRE=1\nMAINPID=7\n");
        let parsed = notify::parse(&datagram);
        if let Ok(messages) = &parsed {
            let lines = datagram.split(|byte| *byte == b'\n');
            assert!(messages.len() <= lines.filter(|line| line.contains(&b'=')).count(), "{datagram:?}");
            let says = |text: &str| String::from_utf8_lossy(&datagram).contains(text);
            assert!(!messages.contains(&notify::Message::Ready) || says("READY=1"), "{datagram:?}");
            assert!(!messages.contains(&notify::Message::Retire) || says("X_SOCKD_RETIRE=1"), "{datagram:?}");
        }
        count.add(parsed.is_ok());
    }
    count.both();
}

#[test]
fn configuration_files() {
    let text = "[server]\ncommand = [\"/srv/venv/bin/gunicorn\", \"a:b\"]\n[workers]\ncount = 3\nstart-timeout = \"60s\"\n\
                memory-max = \"256M\"\n[health]\npath = \"/up\"\nstatus = [200, \"3xx\"]\n[health.headers]\nX-Probe = \"1\"\n";
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("mutation-{}.toml", std::process::id()));
    let mut numbers = Numbers(0x5eed_0102);
    let mut count = Count::default();
    for _ in 0..ROUNDS {
        fs::write(&file, numbers.mutated_bytes(text.as_bytes())).expect("written");
        let loaded = config::load(Some(&file), &Options::default());
        if let Err(problems) = &loaded {
            assert!(problems.has_errors() && problems.len() < 100, "{}", problems.render(false));
            for line in problems.lines() {
                assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
            }
        }
        count.add(loaded.is_ok());
    }
    fs::remove_file(file).expect("removed");
    assert!(count.refused > ROUNDS / 100, "{count:?}");
}

#[test]
fn what_templates_report() {
    let message = br#"{"workers": 3, "graceful_timeout": 30, "bind": ["unix:/run/a.sock"], "chdir": "/srv", "umask": 0, "backlog": 2048}"#;
    let mut numbers = Numbers(0x5eed_0103);
    for _ in 0..ROUNDS {
        let message = numbers.mutated_bytes(message);
        if let Err(why) = ServerSettings::read(&message) {
            assert!(!why.is_empty() && why.len() < 4096, "{why}");
        }
    }
}

#[test]
fn command_lines_and_binds() {
    let lines = [
        "/srv/venv/bin/gunicorn --workers 3 --bind unix:/run/a.sock -b 127.0.0.1:8000 --config gunicorn.conf.py a:b",
        "/usr/bin/env A=b nice -n 5 python3 -m uvicorn --uds /run/a.sock --fd 3 a:b",
        "/usr/bin/uwsgi --ini /etc/a.ini --socket :3031",
        "/usr/bin/puma -C config/puma.rb -b tcp://0.0.0.0:9292",
        "bundle exec unicorn -Nl /run/a.sock -c config/unicorn.rb",
        "/usr/sbin/php-fpm8.2 --nodaemonize --fpm-config /etc/php/fpm.conf",
        "sh -c 'exec hypercorn -b [::1]:8000 a:b'",
    ];
    let mut numbers = Numbers(0x5eed_0104);
    // Each line is looked at from every word on.
    for round in 0..ROUNDS / 10 {
        let line = numbers.mutated(lines[round % lines.len()]);
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let command: Vec<OsString> = words.iter().map(OsString::from).collect();
        let (_, behind) = adapter::look_through(&command);
        assert!(behind.len() <= command.len() && command.ends_with(&behind), "{line:?}");
        adapter::hidden_server(&command);
        let known = adapter::recognise(&command);
        assert!(command[0].to_string_lossy().len() > 1 || adapter::is_unknown(known), "{line:?}");
        let args = GunicornArgs::read(&command, &BTreeMap::new());
        for bind in &args.bind {
            let stands = line.contains(bind.as_str()) || bind == "127.0.0.1:8000";
            assert!(stands, "{bind:?} does not stand in {line:?}");
            let _ = (GunicornArgs::address(bind), GunicornArgs::name(bind));
        }
    }
}

#[test]
fn words_of_a_shell() {
    let mut numbers = Numbers(0x5eed_0105);
    let mut count = Count::default();
    for _ in 0..ROUNDS {
        let line = numbers.mutated("a 'b c' \"d \\\" e\" f\\ g # h");
        let words = shlex::split(&line);
        if let Ok(words) = &words {
            assert_eq!(shlex::split(&shlex::join(words)).as_ref(), Ok(words), "{line:?}");
        }
        count.add(words.is_ok());
    }
    count.both();
}

#[test]
fn unit_files_and_what_systemctl_prints() {
    let unit = "[Unit]\nDescription=a\n[Service]\nUser=sammy\nEnvironment=\"A=b c\" D=e\nExecStart=/bin/a \\\n  --b\n";
    let shown = "Id=a.service\nExecStart={ path=/bin/a ; argv[]=/bin/a -b ; ignore_errors=no ; pid=0 }\nListen=/run/a (Stream)\n";
    let mut numbers = Numbers(0x5eed_0106);
    for _ in 0..ROUNDS {
        let text = numbers.mutated(unit);
        let read = Unit::read("a.service", [(PathBuf::from("/etc/a.service"), text.as_str())]);
        for setting in read.all("Service", "User") {
            // A continued line is joined with a blank.
            let letters = |text: &str| text.replace(['\\', '\n', '\r', ' ', '\t'], "");
            assert!(letters(&text).contains(&letters(&setting.value)), "{:?} of {text:?}", setting.value);
        }
        let text = numbers.mutated(shown);
        for values in show::parse(&text).values() {
            assert!(values.iter().all(|value| text.contains(value.as_str())), "{values:?} of {text:?}");
        }
        show::arguments(&text);
    }
}

#[test]
fn uwsgi_files() {
    let ini = "[uwsgi]\nproject = site\nbase = /home/%(project)\nchdir = %(base)/%(project)\nsocket = %n.sock\n[other]\nuid = root\n";
    let mut numbers = Numbers(0x5eed_0107);
    for _ in 0..ROUNDS {
        let text = numbers.mutated(ini);
        let section = Section::read(Path::new("/etc/a.ini"), &text);
        for value in section.values(&["chdir", "socket", "uid"]) {
            // A placeholder that stands for itself must not make it grow without end.
            assert!(value.map_or_else(|why| why.len(), |value| value.len()) < 10_000, "{text:?}");
        }
    }
}

#[test]
fn supervisord_files() {
    let conf = "[program:a]\ncommand = /bin/a \\ ; said\n  --b\n\n  --c\nenvironment=A=\"b\",C='d' ;e\n[group:b]\nprograms: a\n";
    let mut numbers = Numbers(0x5eed_0109);
    let mut count = Count::default();
    for _ in 0..ROUNDS {
        let text = numbers.mutated(conf);
        let mut configuration = Configuration::default();
        let read = configuration.add(Path::new("/etc/a.conf"), &text);
        for value in configuration.sections().iter().flat_map(|section| section.keys.values()) {
            // Each line of a value stands in the text.
            assert!(value.text.lines().all(|line| text.contains(line)), "{:?} of {text:?}", value.text);
            assert!(value.line >= 1 && value.line <= text.split(['\n', '\r']).count(), "{value:?} of {text:?}");
        }
        count.add(read.is_ok());
    }
    count.both();
}

#[test]
fn durations_and_sizes() {
    let mut numbers = Numbers(0x5eed_0108);
    let mut count = Count::default();
    for _ in 0..ROUNDS {
        let text = numbers.mutated("1min 30s 500ms");
        let parsed = duration::parse(&text);
        assert!(parsed.as_ref().map_or(true, |span| *span < Duration::MAX), "{text:?}");
        count.add(parsed.is_ok());
        let text = numbers.mutated("1.5G");
        if let Ok(bytes) = size::parse(&text) {
            let shown = size::parse(&size::show(bytes)).expect("what is shown can be read");
            // It is shown in whole units.
            assert!(shown.abs_diff(bytes) <= bytes / 8 + 1, "{text:?}: {bytes} is shown as {}", size::show(bytes));
        }
    }
    count.both();
}

#[test]
fn scoreboards() {
    let mut numbers = Numbers(0x5eed_010a);
    let mut count = Count::default();
    for _ in 0..ROUNDS {
        let board = Scoreboard::new().expect("memory");
        // Garbage, but for words that are often right: the layout's version, whether requests are shown, empty places.
        let mut page: Vec<u8> = (0..4096).map(|_| numbers.below(256) as u8).collect();
        let words = [(0, numbers.below(2) + 2), (8, 1), (16, numbers.below(2)), (290 * 8, numbers.below(2))];
        for (at, word) in words {
            page[at..at + 8].copy_from_slice(&(word as u64).to_ne_bytes());
        }
        rustix::io::pwrite(board.as_fd(), &page, 0).expect("written");
        let stacks = numbers.mutated(
            "Thread 0x2a (most recent call first):\n  File \"a.py\", line 1 in f\n\nCurrent thread 0x1:\n  g\n",
        );
        rustix::io::pwrite(board.as_fd(), stacks.as_bytes(), 4096).expect("written");
        for line in board.stacks().iter().flat_map(|stack| &stack.lines) {
            assert!(!line.contains(sockd::printable::is_command), "{line:?}");
        }
        let reading = board.read();
        if let Some(ago) = reading.heartbeat {
            assert!(ago < Duration::from_secs(1 << 40), "{ago:?}");
        }
        if let Some(requests) = &reading.requests {
            assert!(requests.in_flight.len() <= 15 && requests.finished.quantile(950).is_some());
            for shown in &requests.in_flight {
                assert!(shown.request.chars().count() <= 8 + 1 + 88 + 1, "{shown:?}");
                assert!(!shown.request.contains(sockd::printable::is_command), "{shown:?}");
            }
        }
        count.add(reading.requests.is_some());
    }
    count.both();
}

#[test]
fn what_a_terminal_is_shown() {
    let mut numbers = Numbers(0x5eed_010b);
    for _ in 0..ROUNDS {
        let text = numbers.mutated("worker 3: a line\nand \u{1b}[1mmore\u{1b}[0m");
        let shown = for_terminal(&text, false);
        let acts = |c: char| c.is_control() && c != '\n' && c != '\t';
        assert!(!shown.contains(acts), "{shown:?}");
    }
}
