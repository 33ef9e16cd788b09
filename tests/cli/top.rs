//! `sockd top`, drawn: keys and two looks at the reports of `status/` in, the screens of `top/` out.
//!
//! SOCKD_BLESS=1 writes the screens again; read the difference before it is committed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};
use sockd::cli::status::report::{Entry, StatusReport};
use sockd::cli::status::terminal::columns;
use sockd::cli::top::keys::Decoder;
use sockd::cli::top::model::{Command, Model};
use sockd::cli::top::screen::draw;
use sockd::printable::is_command;

use super::golden::Differences;

fn directory(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli").join(below)
}

fn report(case: &str) -> StatusReport {
    let path = directory("status").join(format!("{case}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("a report")
}

/// The instances of these cases, each named as its case.
fn fleet(cases: &[&str]) -> StatusReport {
    let named = |case: &&str| {
        let entry = report(case).entries.into_iter().next().expect("one");
        Entry { unit: entry.unit.as_ref().map(|_| format!("{case}.service")), ..entry }
    };
    StatusReport { entries: cases.iter().map(named).collect(), now_unix_ms: 1_795_582_541_086, systemd_error: None }
}

/// A second later: 41 requests, 2 of them failed, and a quarter of a core in each worker.
fn later(mut report: StatusReport) -> StatusReport {
    report.now_unix_ms += 1000;
    for status in report.entries.iter_mut().filter_map(|entry| entry.sockd.as_mut()) {
        if let Some(requests) = &mut status.requests {
            requests.finished += 41;
            requests.server_errors += 2;
        }
        status.workers.iter_mut().filter_map(|worker| worker.cpu_ms.as_mut()).for_each(|cpu| *cpu += 250);
    }
    report
}

/// After two looks and these keys.
fn model(report: StatusReport, keys: &str) -> Model {
    let mut model = Model::default();
    model.take(report.clone(), Duration::from_secs(1));
    model.take(later(report), Duration::from_secs(2));
    press(&mut model, keys);
    model
}

fn press(model: &mut Model, keys: &str) -> Vec<Command> {
    Decoder::default().decode(keys.as_bytes()).into_iter().filter_map(|key| model.press(key)).collect()
}

fn picture(model: &Model, width: u16, height: u16, colour: bool) -> Buffer {
    let mut picture = Buffer::empty(Rect::new(0, 0, width, height));
    draw(&mut picture, model, colour);
    picture
}

/// As it stands in the terminal, without what is left of each line.
fn text(picture: &Buffer) -> String {
    let mut text = String::new();
    for line in picture.content.chunks(picture.area.width.into()) {
        let (mut shown, mut hidden) = (String::new(), 0);
        for cell in line {
            // Behind a letter that takes two columns.
            if hidden > 0 {
                hidden -= 1;
                continue;
            }
            hidden = columns(cell.symbol()).saturating_sub(1);
            shown.push_str(cell.symbol());
        }
        text.push_str(shown.trim_end());
        text.push('\n');
    }
    text
}

const FLEET: [&str; 9] = [
    "ailing",
    "answering-503",
    "busy",
    "failed",
    "inactive-triggered-by-socket",
    "lost-path",
    "no-permission",
    "refused-reload",
    "rollout",
];

/// With what was asked for of the chosen worker.
fn asked(mut model: Model, keys: &str) -> Model {
    let target = model.target().expect("it runs");
    let worker = model.worker().expect("chosen").id;
    let lines = ["DEBUG asked for 2026", "WARNING the report takes long"].map(str::to_owned).to_vec();
    model.keep_last_lines(&target, worker, lines);
    let path = "/home/sammy/myprojectdir/venv/lib/python3.11/site-packages/gunicorn/workers/sync.py";
    let stack = [
        "Current thread 0x00007f84dc3c2b80 (most recent call first):".to_owned(),
        "  File \"/home/sammy/myprojectdir/shop.py\", line 3 in monthly_report".to_owned(),
        format!("  File \"{path}\", line 184 in handle_request"),
    ];
    model.keep_stacks(&target, worker, Ok(stack.to_vec()));
    press(&mut model, keys);
    model
}

#[test]
fn each_screen_is_as_its_file_says() {
    let fleet = || fleet(&FLEET);
    let cases = [
        ("instances", model(fleet(), ""), vec![(80, 24), (120, 30), (20, 10)]),
        ("sorted-by-errors", model(fleet(), "sss"), vec![(80, 24)]),
        ("workers", model(fleet(), "jj\tj"), vec![(80, 24), (120, 30), (20, 10)]),
        ("stacks", asked(model(fleet(), "jj\t"), ""), vec![(80, 24), (20, 10)]),
        ("last-lines", asked(model(fleet(), "jj\t"), "\x1b"), vec![(80, 24)]),
        ("rollout", model(fleet(), "\x1b[F\r"), vec![(80, 24)]),
        ("unhealthy", model(fleet(), "\tj"), vec![(80, 24)]),
        ("no-worker", model(fleet(), "j"), vec![(80, 24), (20, 10)]),
        ("question", model(fleet(), "jj\te"), vec![(80, 24), (20, 10)]),
        ("cannot", model(fleet(), "jjjr"), vec![(80, 24)]),
        ("help", model(fleet(), "?"), vec![(80, 24)]),
        ("nothing", model(report("nothing"), ""), vec![(80, 24), (20, 10)]),
        ("without-systemd", model(report("no-dbus"), ""), vec![(80, 24)]),
    ];
    let mut wrong = Differences::default();
    for (name, model, sizes) in cases {
        for (width, height) in sizes {
            let shown = text(&picture(&model, width, height, false));
            let file = directory("top").join(format!("{name}.{width}x{height}.txt"));
            wrong.compare(&file, &shown);
        }
    }
    wrong.assert_none();
}

#[test]
fn the_answer_to_a_question_is_for_the_worker_that_it_names() {
    let mut model = model(fleet(&FLEET), "jj\tje");
    let asked = text(&picture(&model, 80, 24, false));
    assert!(asked.contains("End worker 2 of busy.service"), "{asked}");
    let commands = press(&mut model, "y");
    assert!(
        matches!(&commands[..], [Command::Replace(target, 2)] if target.pid == 612 && target.is_main),
        "{commands:?}"
    );
}

#[test]
fn it_is_drawn_in_every_size_wherever_one_is() {
    for keys in ["", "jj\t", "\x1b[F\t\x1b[F", "?", "r", "\te", "s"] {
        let model = model(fleet(&FLEET), keys);
        for (width, height) in (0..30).flat_map(|width| (0..12).map(move |height| (width, height))).chain([(500, 300)])
        {
            picture(&model, width, height, true);
        }
    }
}

#[test]
fn where_there_are_more_than_lines_the_chosen_one_is_shown() {
    let mut report = fleet(&["busy"]);
    let entry = report.entries.remove(0);
    let named = |number| Entry { unit: Some(format!("site-{number:02}.service")), ..entry.clone() };
    report.entries = (0..50).map(named).collect();
    let mut model = model(report, "");
    for chosen in 0..50 {
        for height in [10, 24, 40] {
            let shown = text(&picture(&model, 80, height, false));
            assert!(shown.contains(&format!("> ● site-{chosen:02}.service")), "{shown}");
        }
        press(&mut model, "j");
    }
}

#[test]
fn without_colour_nothing_is_coloured_and_colour_changes_no_letter() {
    for keys in ["", "jj\t", "r"] {
        let model = model(fleet(&FLEET), keys);
        let (plain, coloured) = (picture(&model, 80, 24, false), picture(&model, 80, 24, true));
        assert_eq!(text(&plain), text(&coloured));
        assert!(plain.content.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
        let red = |cell: &&ratatui::buffer::Cell| cell.fg == Color::Red;
        assert!(coloured.content.iter().any(|cell| red(&cell)));
        assert!(coloured.content.iter().filter(red).all(|cell| cell.modifier.contains(Modifier::BOLD)));
    }
}

#[test]
fn nothing_that_others_wrote_acts_on_the_terminal() {
    let mean = "\u{1b}[2J\u{7}\r\n\u{202e}\u{9b}31m日本語 ".repeat(9);
    let mut report = fleet(&["ailing", "busy", "refused-reload", "failed"]);
    report.systemd_error = Some(mean.clone());
    for entry in &mut report.entries {
        entry.unit = Some(mean.clone());
        if let Some(unit) = &mut entry.systemd {
            unit.active_state.clone_from(&mean);
        }
        let Some(status) = &mut entry.sockd else { continue };
        status.status_line.clone_from(&mean);
        status.listeners.iter_mut().for_each(|listener| listener.alarm = Some(mean.clone()));
        if let Some(refused) = &mut status.reload.last_refused {
            refused.reason.clone_from(&mean);
        }
        for death in status.slots.iter_mut().filter_map(|slot| slot.last_death.as_mut()) {
            death.reason.clone_from(&mean);
            death.last_lines = vec![mean.clone(); 3];
        }
        for requests in status.workers.iter_mut().filter_map(|worker| worker.requests.as_mut()) {
            requests.in_flight.iter_mut().for_each(|in_flight| in_flight.request.clone_from(&mean));
        }
    }
    let harmless = |shown: &Buffer| {
        let acts = shown.content.iter().find(|cell| cell.symbol().chars().any(is_command));
        assert!(acts.is_none(), "{acts:?}");
    };
    for keys in ["", "\t", "\tj", "r", "j\te", "jj"] {
        for (width, height) in [(20, 10), (80, 24), (200, 60)] {
            let mut model = model(report.clone(), keys);
            if let (Ok(target), Some(worker)) = (model.target(), model.worker().map(|worker| worker.id)) {
                model.keep_last_lines(&target, worker, vec![mean.clone(); 3]);
                harmless(&picture(&model, width, height, true));
                model.keep_stacks(&target, worker, Ok(vec![mean.clone(); 3]));
            }
            harmless(&picture(&model, width, height, true));
        }
    }
}
