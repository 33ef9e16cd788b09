//! sockd-cookbook(7): every command of the page is typed, in the order of the page, and every file written as it stands there.
//!
//! Owns: what each answer needs beforehand, and what must be so afterwards.

use std::iter::Peekable;
use std::str::Lines;

use crate::guide;
use crate::life;
use crate::load::Load;
use crate::machine::Machine;
use crate::units;
use crate::user_units;

const PAGE: &str = include_str!("../../packaging/man/sockd-cookbook.7");

/// One answer of the page.
struct Answer {
    question: String,
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    File { path: String, text: String },
    Root(String),
    User(String),
}

/// What a question needs beforehand, and what is so afterwards.
struct Stage {
    question: &'static str,
    before: fn(&Machine),
    after: fn(&Machine),
}

const STAGES: &[Stage] = &[
    Stage { question: "How do I begin, and how do I go back?", before: nothing, after: runs_sockd },
    Stage { question: "How do I deploy?", before: new_code, after: new_code_serves },
    Stage { question: "How do I deploy by releases and a symbolic link?", before: releases, after: release_serves },
    Stage { question: "When do I migrate the database?", before: nothing, after: migrated },
    Stage { question: "How do I show a page while I work on the site?", before: nothing, after: serves },
    Stage { question: "How are log files rotated?", before: log_files, after: rotated },
    Stage { question: "How do I limit what a worker takes?", before: configuration, after: serves },
    Stage { question: "How do I have a deploy checked, and hear of its outcome?", before: mail, after: checked },
    Stage { question: "How do I have visitors try new code before it takes over?", before: visitors, after: tried },
    Stage { question: "How do I put an agent or a wrapper before the server?", before: nothing, after: serves },
    Stage { question: "How do I run many sites on one server?", before: units::install, after: one_site },
    Stage {
        question: "How do I run a site as a unit of my own, without root?",
        before: own_units,
        after: own_site_serves,
    },
    Stage { question: "How do I see which request is slow?", before: slow_request, after: serves },
    Stage { question: "How do I come from supervisord, uWSGI's Emperor or circus?", before: nothing, after: serves },
    Stage { question: "How do I go back?", before: adopted_lines, after: runs_gunicorn },
];

pub fn holds(machine: &Machine) {
    life::site(machine, &guide::service_unit("", ""));
    let answers = answers(PAGE);
    let questions: Vec<&str> = answers.iter().map(|answer| answer.question.as_str()).collect();
    assert_eq!(questions, STAGES.iter().map(|stage| stage.question).collect::<Vec<_>>());
    for (answer, stage) in answers.iter().zip(STAGES) {
        (stage.before)(machine);
        for step in &answer.steps {
            match step {
                Step::File { path, text } => machine.write_file(path, 0o644, text),
                Step::Root(command) => drop(machine.run(command).succeeded()),
                Step::User(command) => {
                    drop(user_units::run(machine, &format!("cd ~/myprojectdir; {command}")).succeeded())
                }
            }
        }
        (stage.after)(machine);
    }
}

/// The questions, and what is in the blocks between `.nf` and `.fi`: commands, or a file that the line before the block
/// names.
fn answers(page: &str) -> Vec<Answer> {
    let mut answers: Vec<Answer> = Vec::new();
    let mut lines = page.lines().peekable();
    let mut file = None;
    while let Some(line) = lines.next() {
        if let Some(question) = line.strip_prefix(".SH \"How").or_else(|| line.strip_prefix(".SH \"When")) {
            let word = if line.contains("\"When") { "When" } else { "How" };
            answers.push(Answer {
                question: plain(&format!("{word}{}", question.trim_end_matches('"'))),
                steps: Vec::new(),
            });
        } else if let Some(path) = line.strip_prefix(".I /") {
            file = Some(format!("/{}", plain(path.trim_end_matches(':'))));
        } else if line == ".nf" {
            let steps = &mut answers.last_mut().expect("a question").steps;
            steps.extend(block(&mut lines, file.take()));
        }
    }
    answers
}

fn block(lines: &mut Peekable<Lines<'_>>, file: Option<String>) -> Vec<Step> {
    let text: Vec<String> = lines.take_while(|line| *line != ".fi").map(plain).collect();
    if let Some(path) = file {
        return vec![Step::File { path, text: text.join("\n") + "\n" }];
    }
    let command = |line: String| match line.split_at(2) {
        ("# ", command) => Step::Root(command.to_owned()),
        ("$ ", command) => Step::User(command.to_owned()),
        _ => panic!("{line} is no command, and no file was named"),
    };
    text.into_iter().map(command).collect()
}

/// A line as man shows it.
fn plain(line: &str) -> String {
    line.replace("\\-", "-").replace("\\*(Aq", "'").replace("\\(dq", "\"").replace("\\e", "\\")
}

fn page(text: &str) -> String {
    format!(
        "import time\n\ndef application(environ, start_response):\n    \
         time.sleep(7 if environ['PATH_INFO'] == '/report' else 0)\n    \
         start_response('200 OK', [])\n    return [b'{text}\\n']\n"
    )
}

fn visit(machine: &Machine, text: &str) {
    machine.run(&format!("curl -sS --unix-socket {} localhost", life::SOCKET)).says(text).succeeded();
}

fn nothing(_: &Machine) {}

fn serves(machine: &Machine) {
    visit(machine, "release 2");
    runs_sockd(machine);
}

fn runs_sockd(machine: &Machine) {
    machine.run("sockd status gunicorn").says("sockd: process ").succeeded();
}

fn runs_gunicorn(machine: &Machine) {
    visit(machine, "release 2");
    machine.run("ps -o comm= -p $(systemctl show --value -p MainPID gunicorn)").says("gunicorn").succeeded();
}

fn new_code(machine: &Machine) {
    visit(machine, "hello");
    life::application(machine, &page("new code"));
}

fn new_code_serves(machine: &Machine) {
    visit(machine, "new code");
}

/// Two releases, the first one in place, and a migration that leaves a trace.
fn releases(machine: &Machine) {
    for number in [1, 2] {
        let release = format!("/srv/shop/releases/{number}");
        machine.run(&format!("install -d -o sammy {release} {release}/myproject")).succeeded();
        let code = page(&format!("release {number}"));
        machine.write_file_as("sammy", &format!("{release}/myproject/wsgi.py"), 0o644, &code);
        machine.write_file_as("sammy", &format!("{release}/manage.py"), 0o755, "#!/bin/sh\necho \"$@\" >migrated\n");
    }
    machine.run("ln -s releases/1 /srv/shop/current").succeeded();
}

/// And a broken one does not.
fn release_serves(machine: &Machine) {
    visit(machine, "release 2");
    machine.run("install -d -o sammy /srv/shop/releases/3; ln -sfn releases/3 /srv/shop/current").succeeded();
    let refused = machine.run("systemctl reload gunicorn");
    assert_ne!(refused.code, 0, "{refused}");
    visit(machine, "release 2");
    for number in [1, 2] {
        machine.run(&format!("ln -sfn releases/{number} /srv/shop/current; systemctl reload gunicorn")).succeeded();
        visit(machine, &format!("release {number}"));
    }
    // In a hurry.
    machine.run("sockd rollback gunicorn.service").succeeded();
    visit(machine, "release 1");
    machine.run("sockd history gunicorn.service").says("rollback").says("release: /srv/shop/releases/1").succeeded();
    machine.run("systemctl reload gunicorn").succeeded();
    visit(machine, "release 2");
    // A release that is gone is named, and nothing has changed.
    machine.run("mv /srv/shop/releases/1 /srv/shop/releases/gone").succeeded();
    let gone = machine.run("sockd rollback gunicorn.service");
    assert!(gone.code == 1 && gone.stderr.contains("releases/1 cannot be gone back to"), "{gone}");
    visit(machine, "release 2");
    machine.run("mv /srv/shop/releases/gone /srv/shop/releases/1").succeeded();
}

fn migrated(machine: &Machine) {
    machine.run("cat /srv/shop/releases/2/migrated").says("migrate --noinput").succeeded();
    visit(machine, "release 2");
}

/// The unit's own lines for what follows: log files, and a configuration beside the command line.
fn log_files(machine: &Machine) {
    machine.run("install -d -o sammy -g www-data /var/log/gunicorn").succeeded();
    machine.write_file("/etc/sockd/gunicorn.toml", 0o644, "[requests]\nslow = \"5s\"\n");
    machine.write_file(
        "/etc/systemd/system/gunicorn.service.d/zz-log.conf",
        0o644,
        "[Service]\nExecStart=\nExecStart=/usr/bin/sockd run --config /etc/sockd/gunicorn.toml --directory \
         /srv/shop/current -- /home/sammy/myprojectdir/myprojectenv/bin/gunicorn --access-logfile \
         /var/log/gunicorn/access.log --bind unix:/run/gunicorn.sock myproject.wsgi:application\n",
    );
    machine.run("systemctl daemon-reload; systemctl restart gunicorn").succeeded();
    visit(machine, "release 2");
    machine.wait_for("an access log", life::PATIENCE, "grep . /var/log/gunicorn/access.log");
}

/// The old file is full, the new one is written to.
fn rotated(machine: &Machine) {
    machine.run("grep . /var/log/gunicorn/access.log.1").succeeded();
    visit(machine, "release 2");
    machine.wait_for("an access log in the new file", life::PATIENCE, "grep . /var/log/gunicorn/access.log");
}

/// The lines of log_files() go, and those of adopt count again.
fn adopted_lines(machine: &Machine) {
    machine.run("rm /etc/systemd/system/gunicorn.service.d/zz-log.conf").succeeded();
    machine.run("systemctl daemon-reload; systemctl restart gunicorn").succeeded();
    serves(machine);
}

fn configuration(machine: &Machine) {
    machine.run("sockd check gunicorn.service").says("ok").succeeded();
}

/// Django's part of a release, and a mail that is sent ends in a file.
fn mail(machine: &Machine) {
    manage(machine, "import sys\nopen('migrated', 'w').write(' '.join(sys.argv[1:]))\n");
    machine.write_file(
        "/usr/sbin/sendmail",
        0o755,
        "#!/bin/sh\necho \"to $1\" >/tmp/mail.new\ncat >>/tmp/mail.new\nmv /tmp/mail.new /home/sammy/mail\n",
    );
}

fn manage(machine: &Machine, text: &str) {
    machine.write_file_as("sammy", "/srv/shop/releases/2/manage.py", 0o755, text);
}

/// The good deploy was checked, and a bad one is refused and reported.
fn checked(machine: &Machine) {
    machine.run("cat /srv/shop/releases/2/migrated").says("migrate --check --plan").succeeded();
    machine.run("test ! -e /home/sammy/mail").succeeded();
    manage(machine, "raise SystemExit('no such table')\n");
    let refused = machine.run("systemctl reload gunicorn");
    assert_ne!(refused.code, 0, "{refused}");
    machine.wait_for("the mail", life::PATIENCE, "test -e /home/sammy/mail");
    let mail = machine.run("cat /home/sammy/mail").succeeded();
    assert!(
        mail.starts_with("to root\nSubject: gunicorn.service was not reloaded\n\nreload.check (python manage.py check"),
        "{mail}"
    );
    assert!(mail.ends_with("): exit 1: no such table\n"), "{mail}");
    machine.write_file("/etc/sockd/gunicorn.toml", 0o644, "[reload]\n");
    machine.run("systemctl reload gunicorn").succeeded();
    serves(machine);
}

fn visitors(machine: &Machine) {
    Load::begin(machine, &[life::SOCKET]).wait_for_visits(1);
}

fn tried(machine: &Machine) {
    machine.run("journalctl -o cat -u gunicorn").says(" of 200 requests\n").succeeded();
    machine.run("systemctl stop visitors").succeeded();
    serves(machine);
}

fn one_site(machine: &Machine) {
    machine.run("test ! -e /etc/sockd/second.toml").succeeded();
    serves(machine);
}

/// As dbus-user-session and a login leave it.
fn own_units(machine: &Machine) {
    user_units::begin_manager(machine);
    user_units::session_bus(machine);
    user_units::run(machine, "mkdir -p ~/.config/systemd/user").succeeded();
}

fn own_site_serves(machine: &Machine) {
    user_units::run(machine, "sockd status mine").says("sockd: process ").succeeded();
    machine.wait_until("both workers", life::PATIENCE, || {
        user_units::run(machine, "sockd status mine").stdout.contains("Workers: 2 of 2 ready").then_some(())
    });
    user_units::run(machine, "systemctl --user disable --now mine.socket mine.service").succeeded();
    serves(machine);
}

fn slow_request(machine: &Machine) {
    machine.write_file("/etc/sockd/gunicorn.toml", 0o644, "[requests]\nslow = \"5s\"\n");
    machine.run("systemctl reload gunicorn").succeeded();
    machine.run(&format!("curl -sS --unix-socket {} localhost/report", life::SOCKET)).says("release 2").succeeded();
    let command = "journalctl -u gunicorn.service SOCKD_EVENT=slow-request | grep 'GET /report'";
    machine.wait_for("the slow request", life::PATIENCE, command);
}
