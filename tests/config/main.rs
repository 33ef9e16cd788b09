//! Configuration files and what sockd says of them.
//!
//! Each `cases/NAME.toml` has a `cases/NAME.expected`: the text a user reads. With `SOCKD_WRITE_EXPECTED=1` the
//! texts are written instead of compared; read every one of them before you commit it.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use sockd::app::Address;
use sockd::config::{self, DEFAULT_FILE, Loaded, Options, Start};
use sockd::diagnostic::Diagnostics;

/// The options of `sockd run`, as its command line reads them.
#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

fn options(words: &[&str]) -> Options {
    Line::try_parse_from([&["run"], words].concat()).expect("the options are right").options
}

fn load(file: impl AsRef<Path>, words: &[&str]) -> Result<Loaded, Diagnostics> {
    config::load(Some(file.as_ref()), &options(words))
}

/// A file of this test run's own.
fn written(name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&file, text).expect("the file can be written");
    file
}

/// `LINE:COLUMN` of every problem, from the long form and from the one-line form.
fn places(problems: &Diagnostics, file: &Path) -> (Vec<String>, Vec<String>) {
    let prefix = format!("{}:", file.display());
    let long = problems.render(false);
    let long = long.lines().filter_map(|line| Some(line.split_once("--> ")?.1.strip_prefix(&prefix)?.to_owned()));
    let short = problems.lines().filter_map(|line| {
        let place = line.strip_prefix(&prefix)?.split(':').take(2).collect::<Vec<_>>().join(":");
        Some(place)
    });
    (long.collect(), short.collect())
}

#[test]
fn every_case_reads_as_expected() {
    // Relative, so that the texts are the same everywhere: cargo runs tests in the package's directory.
    let mut cases: Vec<PathBuf> = fs::read_dir("tests/config/cases")
        .expect("the cases are there")
        .map(|entry| entry.expect("the entry can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    cases.sort();
    assert!(cases.len() >= 30, "only {} cases were found", cases.len());
    let mut different = Vec::new();
    for case in &cases {
        let (problems, end) = match load(case, &[]) {
            Ok(loaded) => (loaded.warnings, "ok\n"),
            Err(problems) => (problems, ""),
        };
        let text = problems.render(false) + end;
        let (long, short) = places(&problems, case);
        assert_eq!(long, short, "{}: the two forms name different places", case.display());
        let expected = case.with_extension("expected");
        if std::env::var_os("SOCKD_WRITE_EXPECTED").is_some() {
            fs::write(&expected, &text).expect("the text can be written");
        } else if fs::read_to_string(&expected).ok().as_deref() != Some(text.as_str()) {
            different.push(format!("--- {}: this is not what {} holds:\n{text}", case.display(), expected.display()));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn colour_only_adds_escape_sequences() {
    let problems = load("tests/config/cases/wrong-types.toml", &[]).expect_err("the types are wrong");
    let (plain, coloured) = (problems.render(false), problems.render(true));
    assert!(!plain.contains('\x1b') && coloured.contains('\x1b'));
    let mut stripped = String::new();
    for (index, part) in coloured.split("\x1b[").enumerate() {
        stripped.push_str(if index == 0 { part } else { part.split_once('m').expect("a sequence ends").1 });
    }
    let trimmed = |text: &str| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    assert_eq!(trimmed(&stripped), trimmed(&plain));
}

#[test]
fn a_complete_file_is_lowered_to_every_setting() {
    let settings = load("tests/config/cases/complete.toml", &[]).expect("the file is right").settings;
    let seconds = Duration::from_secs;
    assert_eq!(settings.command[3], "myproject.wsgi:application");
    assert_eq!(settings.directory.as_deref(), Some(Path::new("/home/sammy/myprojectdir")));
    assert_eq!(settings.environment_files, ["/etc/default/web", "-/etc/default/web.local"].map(PathBuf::from));
    assert_eq!(settings.environment["EMPTY"], "");
    assert_eq!(settings.environment.len(), 2);
    let addresses = ["unix:/run/web.sock", "127.0.0.1:8000", "@hidden"].map(|text| text.parse::<Address>().unwrap());
    assert_eq!(settings.listen.addresses, addresses);
    assert_eq!((settings.listen.mode, settings.listen.backlog), (Some(0o660), Some(2048)));
    let workers = &settings.workers;
    assert_eq!((workers.count, workers.start), (Some(3), Some(Start::OnConnection)));
    assert_eq!((workers.start_timeout, workers.ready_after), (seconds(90), Duration::from_millis(500)));
    assert_eq!((workers.stop_timeout, workers.drain_timeout), (Some(seconds(20)), Some(seconds(7200))));
    assert_eq!((workers.watchdog, workers.max_age), (Some(seconds(30)), Some(seconds(24 * 60 * 60))));
    assert_eq!(workers.preload, Some(true));
    assert_eq!(workers.warm, ["/", "/accounts/login/?next=/"]);
    assert_eq!(workers.warm_requests, 5);
    assert_eq!(workers.max_memory, Some(400 << 20));
    assert_eq!((workers.memory_high, workers.memory_max), (Some(3 << 29), Some(2 << 30)));
    assert_eq!(settings.fallback.page.as_deref(), Some(Path::new("/etc/sockd/unavailable.html")));
    assert_eq!(settings.status.listen, "127.0.0.1:9394".parse().ok());
    let health = &settings.health;
    assert_eq!((health.path.as_deref(), health.host.as_deref()), (Some("/healthz?full=1"), Some("example.com")));
    assert_eq!((health.status.as_deref(), health.timeout), (Some(&[200, 204][..]), Duration::from_millis(2500)));
    assert_eq!(health.headers, [("X-Forwarded-Proto".to_owned(), "https".to_owned())]);
    assert_eq!((health.interval, health.failures, health.grace), (Some(seconds(20)), Some(3), seconds(60)));
    assert!(health.probe && health.command.is_empty());
    assert!(!settings.requests.show);
    let reload = &settings.reload;
    assert_eq!((reload.canary, reload.surge, reload.soak), (false, Some(2), Duration::ZERO));
    assert_eq!(reload.check, [vec!["bin/check", "--deploy"], vec!["bin/migrations"]]);
    assert_eq!(reload.check_timeout, seconds(120));
    assert_eq!(reload.after, ["bin/after-reload", "--mail"]);
}

#[test]
fn options_win_over_the_file() {
    let words = [
        "--directory=/srv",
        "--env",
        "EMPTY=full",
        "--env=NEW=a=b",
        "--listen=:80",
        "--listen",
        "/run/b.sock",
        "--workers=9",
        "--start",
        "at-once",
        "--start-timeout=2min",
        "--stop-timeout=1",
        "--drain-timeout=2",
        "--ready-after=3",
        "--no-canary",
        "--status-listen=unix:/run/web/status.sock",
        "--",
        "other",
        "--env",
        "x",
    ];
    let settings = load("tests/config/cases/complete.toml", &words).expect("both are right").settings;
    assert_eq!(settings.command, ["other", "--env", "x"].map(OsString::from));
    assert_eq!(settings.directory.as_deref(), Some(Path::new("/srv")));
    assert_eq!(settings.status.listen, "unix:/run/web/status.sock".parse().ok());
    let environment: Vec<_> = settings.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(environment, ["DJANGO_SETTINGS_MODULE=myproject.settings", "EMPTY=full", "NEW=a=b"]);
    let addresses: Vec<_> = settings.listen.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["0.0.0.0:80", "unix:/run/b.sock"]);
    let seconds = Duration::from_secs;
    let workers = settings.workers;
    assert_eq!((workers.count, workers.start), (Some(9), Some(Start::AtOnce)));
    assert_eq!((workers.start_timeout, workers.ready_after), (seconds(120), seconds(3)));
    assert_eq!((workers.stop_timeout, workers.drain_timeout), (Some(seconds(1)), Some(seconds(2))));
    assert!(!settings.reload.canary);
}

#[test]
fn without_options_the_file_holds() {
    let plain = load("tests/config/cases/complete.toml", &[]).expect("the file is right");
    let named = config::load(None, &options(&["--config", "tests/config/cases/complete.toml"]));
    assert_eq!(named, Ok(plain));
}

#[test]
fn options_are_checked_as_the_file_is() {
    for words in [
        &["--workers=0"][..],
        &["--workers=4097"],
        &["--start=later"],
        &["--start-timeout=0"],
        &["--stop-timeout=soon"],
        &["--listen=example.com:80"],
        &["--env=A"],
        &["--env=NOTIFY_SOCKET=/x"],
        &["command", "without", "dashes"],
    ] {
        assert!(Line::try_parse_from([&["run"], words].concat()).is_err(), "{words:?} was taken");
    }
    for (words, part) in [
        (&["--directory=srv", "--", "run"][..], "--directory wants an absolute path"),
        (&["--ready-after=60", "--", "run"], "ready-after is not shorter than start-timeout"),
        (&["--listen=:80", "--listen=0.0.0.0:80", "--", "run"], "0.0.0.0:80 is there twice"),
        (&[], "there is no command"),
        (&["--", ""], "the command names no program"),
    ] {
        let problems = config::load(None, &options(words)).expect_err("the options are wrong");
        let lines: Vec<_> = problems.lines().collect();
        assert!(lines.len() == 1 && lines[0].contains(part), "{words:?}: {lines:?}");
    }
}

#[test]
fn the_default_file_documents_every_key_at_its_default() {
    let command = "command = [\"run\"]\n";
    let file = written("default.toml", command.to_owned() + DEFAULT_FILE);
    let alone = written("alone.toml", command);
    let defaults = load(&file, &[]).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(defaults.warnings.is_empty(), "{}", defaults.warnings);
    assert_eq!(defaults.settings, load(&alone, &[]).expect("a command is enough").settings);

    // With the examples switched on every key is there, and right.
    let examples: String = DEFAULT_FILE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(example) if example.starts_with(|c: char| c.is_alphabetic()) => format!("{example}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    // A program is run in place of a request: with both, the one would make the other useless.
    let together = examples.replace("command = [\"bin/check-worker\"]\n", "");
    assert_ne!(together, examples);
    let loaded = load(written("examples.toml", &together), &[]).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    let mut section = String::new();
    let mut written: Vec<String> = Vec::new();
    for line in examples.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = format!("{name}.");
            written.push(name.to_owned());
        } else if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.starts_with('#')) {
            written.push(format!("{section}{key}"));
        }
    }
    // A section is one of the keys; a variable is an example, not a key.
    written.retain(|key| !key.starts_with("environment."));
    let mut keys = config::keys();
    keys.sort();
    written.sort();
    assert_eq!(written, keys);
}

#[test]
fn a_file_that_cannot_be_read_is_reported() {
    for (file, part) in [("/nowhere/web.toml", "No such file"), ("/", "directory")] {
        let text = load(file, &[]).expect_err("there is nothing to read").to_string();
        assert!(text.starts_with(&format!("cannot read {file}: ")) && text.contains(part), "{text}");
    }
}

#[test]
fn a_huge_file_is_refused_unread() {
    let file = written("huge.toml", "# comment\n".repeat(2 * 1024 * 1024 / 10));
    let text = load(&file, &[]).expect_err("it is too large").to_string();
    assert!(text.contains("larger than 1 MiB"), "{text}");
    let fits = written("fits.toml", "command = [\"run\"]\n".to_owned() + &"#".repeat(1024 * 1024 - 18));
    assert_eq!(fs::metadata(&fits).expect("it is there").len(), 1024 * 1024);
    assert!(load(&fits, &[]).is_ok());
}

#[test]
fn a_file_full_of_problems_is_reported_in_bounds() {
    let unknown: String = (0..5_000).map(|number| format!("key-{number} = 1\n")).collect();
    for (name, text, count) in [("unknown.toml", unknown, 5_001), ("slips.toml", "=\n".repeat(50_000), 50_000)] {
        let begun = Instant::now();
        let problems = load(written(name, text), &[]).expect_err("every line is wrong");
        assert_eq!(problems.len(), count);
        let text = problems.render(false);
        assert!(text.ends_with(&format!("\nand {} more\n", count - 50)), "{}", &text[text.len() - 100..]);
        // Not a measurement: what grows with the square of the file would take minutes.
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}

#[test]
fn a_long_line_is_shown_around_its_problem() {
    let file = written(
        "line.toml",
        format!("command = [\"run\", \"{}\", 7, \"{}\"]\n", "x".repeat(300_000), "y".repeat(300_000)),
    );
    let text = load(&file, &[]).expect_err("7 is no string").render(false);
    assert!(text.len() < 2000 && text.contains("7"), "{} bytes", text.len());
    assert!(text.contains("line.toml:1:300023"), "{}", text.lines().nth(1).unwrap_or_default());
}
