//! Why the service cannot start: the one cause behind a failed service, a failed socket and an answer of 502.

use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Link, Severity};
use crate::doctor::fix::quote;
use crate::doctor::fix::{self, Change, Fix};
use crate::doctor::remedy;
use crate::doctor::target::{self, EXIT_GROUP, EXIT_USER};

/// Exit statuses of systemd itself (systemd.exec(5), "Process Exit Codes").
const EXIT_CHDIR: i32 = 200;
const EXIT_EXEC: i32 = 203;

/// The cause, if starting fails or must fail.
pub fn cause(facts: &Facts) -> Option<Finding> {
    let found = bad_unit(facts).or_else(|| program(facts)).or_else(|| by_status(facts));
    // What the application itself has said is nearer to the cause than what its files look like.
    let found = found.or_else(|| address_taken(facts)).or_else(|| application(facts));
    let mut found = found.or_else(|| problem(facts))?;
    // The server that answers was started before that: it is the next start that fails.
    if facts.answers.iter().any(|answer| answer.status.is_some_and(|status| status < 500)) {
        found.severity = Severity::Warning;
    }
    Some(found)
}

/// systemd could not load the unit.
fn bad_unit(facts: &Facts) -> Option<Finding> {
    let service = &facts.service;
    let (name, file) = (&service.name, &service.fragment_path);
    let finding = |id, what: String| Finding::error(id, Link::Worker, what);
    match service.load_state.as_str() {
        "" | "loaded" => None,
        "not-found" => {
            let fix = Fix::run("systemctl list-unit-files --type=service");
            let why = "systemd knows no unit file of this name";
            Some(finding("unit-not-found", format!("there is no unit {name}")).why(why).fix(fix))
        }
        "masked" => {
            let fix = Fix::run(format!("systemctl unmask {name}")).then(target::again(facts));
            Some(finding("unit-masked", format!("{name} is masked")).why("a masked unit is never started").fix(fix))
        }
        _ => {
            let again = fix::daemon_reload().then(target::again(facts));
            let unit_text = facts.definition.first().map_or("", |file| file.text.as_str());
            let written = exec_start(unit_text);
            if let Some((line, word)) = written.filter(|(_, word)| word.contains('/') && !word.starts_with('/')) {
                let directory = match service.working_directory.as_str() {
                    // A unit that was not loaded has none; its text does.
                    "" => value(unit_text, "WorkingDirectory").unwrap_or_default(),
                    directory => directory,
                };
                let path = format!("{}/{word}", directory.trim_end_matches('/'));
                let why = "systemd does not look in WorkingDirectory= for the program: its path must begin with /";
                let fix = Change::replace("", file, line, word, &path).lasting().then(again);
                let what = format!("ExecStart= of {name} is not absolute: {word}");
                return Some(finding("exec-not-absolute", what).why(why).fix(fix));
            }
            let why = format!("`systemd-analyze verify {}` says where", quote(file));
            let finding = finding("unit-bad-setting", format!("systemd cannot load {name}: {}", service.load_error));
            Some(finding.why(why).by_hand(format!("correct {file}")).fix(again))
        }
    }
}

/// The line of ExecStart= and its program, without the prefixes of systemd.service(5).
fn exec_start(text: &str) -> Option<(usize, &str)> {
    let (at, line) = text.lines().enumerate().find(|(_, line)| line.trim_start().starts_with("ExecStart="))?;
    let word = line.split_once('=')?.1.split_whitespace().next()?;
    Some((at + 1, word.trim_start_matches(['@', '-', ':', '+', '!', '|'])))
}

fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))
}

/// The program of ExecStart= is not there, or its interpreter is not.
fn program(facts: &Facts) -> Option<Finding> {
    let program = &facts.program;
    if program.exists == Some(false) {
        return Some(program_missing(facts));
    }
    let (directory, _) = program.path.rsplit_once('/')?;
    if program.interpreter_exists == Some(false) {
        return Some(interpreter_missing(facts, directory));
    }
    if program.executable == Some(false) {
        let what = format!("{} may not be executed", program.path);
        let fix = Fix::run(format!("chmod a+x {}", quote(&program.path))).then(target::load(facts));
        return Some(Finding::error("program-not-executable", Link::Worker, what).why("it lacks the x bit").fix(fix));
    }
    None
}

/// What was meant is there under another name; else the environment lacks the server, or is not there at all; else only
/// a person knows.
fn program_missing(facts: &Facts) -> Finding {
    let program = &facts.program;
    let server = target::server(&facts.service);
    let what = format!("{} does not exist", program.path);
    let finding = |id| Finding::error(id, Link::Worker, &*what);
    if let (Some(meant), Some(written)) = (&program.alike, target::command(&facts.service).first()) {
        let finding = finding("program-misspelled").why(format!("did you mean {meant}? That is there"));
        return match remedy::rewrite_word(facts, written, meant) {
            Some(rewrite) => finding.fix(rewrite.then(target::again(facts))),
            None => finding.by_hand(format!("write {meant} where {written} stands")).fix(remedy::read_again(facts)),
        };
    }
    let by_hand = format!("install {server}, or correct ExecStart= in {}", facts.service.fragment_path);
    let directory = program.path.rsplit_once('/').map_or("", |(directory, _)| directory);
    if program.python {
        let finding = finding("server-not-installed")
            .why(format!("the virtual environment is there, and {server} is not installed in it"));
        return match remedy::install_server(facts, &format!("{directory}/python"), server) {
            Some(install) => finding.fix(install.then(target::load(facts))),
            None => finding.by_hand(by_hand).fix(remedy::read_again(facts)),
        };
    }
    let venv = directory.strip_suffix("/bin").filter(|venv| !venv.is_empty() && !venv.starts_with("/usr"));
    let install = venv.and_then(|venv| remedy::install_server(facts, &format!("{venv}/bin/python"), server));
    if let (Some(venv), Some(install)) = (venv, install) {
        let make = remedy::as_user(facts, &format!("python3 -m venv {}", quote(venv)));
        let why = format!("there is no virtual environment {venv}");
        return finding("environment-missing").why(why).fix(make.then(install).then(target::load(facts)));
    }
    finding("program-missing").why("ExecStart= names it").by_hand(by_hand).fix(remedy::read_again(facts))
}

/// What is in the environment is kept beside the new one: nobody knows what else it was.
fn interpreter_missing(facts: &Facts, directory: &str) -> Finding {
    let program = &facts.program;
    let what = format!("{} is run by {}, which does not exist", program.path, program.interpreter);
    let why = "a virtual environment that was moved or copied, or whose Python was replaced, no longer works";
    let finding = Finding::error("interpreter-missing", Link::Worker, what).why(why);
    let server = target::server(&facts.service);
    let venv = directory.strip_suffix("/bin").filter(|venv| !venv.is_empty() && !venv.starts_with("/usr"));
    let install = venv.and_then(|venv| remedy::install_server(facts, &format!("{venv}/bin/python"), server));
    let (Some(venv), Some(install)) = (venv, install) else {
        let by_hand = format!("install {server} again, with the Python that is there");
        return finding.by_hand(by_hand).fix(target::load(facts));
    };
    let make = remedy::as_user(facts, &format!("python3 -m venv {}", quote(venv))).then(install);
    let fix = Change::moved(&remedy::by_user(facts), venv).checked(make).then(target::load(facts));
    finding.by_hand(format!("afterwards install the application's other packages in {venv}, too")).fix(fix)
}

/// What systemd itself could not do before the program began.
fn by_status(facts: &Facts) -> Option<Finding> {
    let service = &facts.service;
    target::fails(facts).then_some(())?;
    let again = target::again(facts);
    let finding = |id, what: String| Finding::error(id, Link::Worker, what);
    match service.exec_main_status {
        EXIT_USER => {
            let what = format!("there is no user {}", service.user);
            let finding = finding("user-missing", what);
            Some(misspelled(facts, finding, "User", "217/USER", &service.user, facts.alike_user.as_deref()))
        }
        EXIT_GROUP => {
            let what = format!("there is no group {}", service.group);
            let finding = finding("group-missing", what);
            Some(misspelled(facts, finding, "Group", "216/GROUP", &service.group, facts.alike_group.as_deref()))
        }
        EXIT_CHDIR | EXIT_EXEC if service.protect_home == "yes" && in_home(service) => {
            let what = format!("{} has ProtectHome=yes, and the application is in /home", service.name);
            let fix = fix::drop_in(&service.name, "home", "Service", &["ProtectHome=read-only"]);
            let why = "home directories look empty to it";
            Some(finding("home-protected", what).why(why).fix(fix.then(again)))
        }
        EXIT_CHDIR => {
            let directory = &service.working_directory;
            let what = format!("{} cannot work in {directory}", service.name);
            let why = "the directory does not exist, or its user may not pass it (status 200/CHDIR)";
            let find = format!("namei -l {} shows which; correct it, or WorkingDirectory=", quote(directory));
            Some(finding("directory-closed-to-service", what).why(why).by_hand(find).fix(again))
        }
        _ => None,
    }
}

/// A user or group that does not exist. None is made: with its rights whatever is in its files would run.
fn misspelled(facts: &Facts, finding: Finding, key: &str, status: &str, written: &str, meant: Option<&str>) -> Finding {
    let at = remedy::setting_line(facts, key, written);
    let place = at.map_or_else(|| facts.service.fragment_path.clone(), |(file, line)| format!("{file}:{line}"));
    let why = format!("{key}= names it (status {status})");
    let Some(meant) = meant else {
        let by_hand = format!("write the one that owns the application as {key}= in {place}");
        return finding.why(why).by_hand(by_hand).fix(remedy::read_again(facts));
    };
    let finding = finding.why(format!("{why}; did you mean {meant}?"));
    match remedy::rewrite_setting(facts, key, written, meant) {
        Some(rewrite) => finding.fix(rewrite.then(target::again(facts))),
        None => finding.by_hand(format!("write {key}={meant} in {place}")).fix(remedy::read_again(facts)),
    }
}

fn in_home(service: &crate::systemd::details::Details) -> bool {
    service.working_directory.starts_with("/home/")
        || target::command(service).iter().any(|word| word.starts_with("/home/"))
}

/// The service binds an address itself, does not run, and somebody else has it.
fn address_taken(facts: &Facts) -> Option<Finding> {
    (!target::runs(&facts.service) && target::fails(facts)).then_some(())?;
    // systemd and servers alike take the file of a unix socket away and make their own (systemd 257, socket_address_listen):
    // a process that still holds the old socket is in nobody's way.
    let binds = |expected: &target::Expected| {
        let by_us = match expected.maker {
            target::Maker::Unit(at) => facts.sockets[at].active_state != "active",
            target::Maker::Server | target::Maker::Ini(_) => true,
        };
        by_us && expected.path().is_none()
    };
    let expected = target::expected(facts);
    let addresses = expected.iter().filter(|expected| binds(expected)).map(|expected| &expected.address);
    let other =
        addresses.flat_map(|address| target::listeners(facts, address)).find(|other| !other.holder.is_empty())?;
    let what = format!("{} cannot listen on {}: {} does", facts.service.name, other.address, other.holder);
    let by_hand = "stop that program if nobody needs it, or give one of the two another address";
    let finding = Finding::error("address-taken", Link::Worker, what).why("two programs cannot have one address");
    Some(finding.by_hand(by_hand).fix(target::again(facts)))
}

/// What `sockd check` finds.
fn problem(facts: &Facts) -> Option<Finding> {
    let problem = facts.problems.iter().find(|problem| problem.error)?;
    let finding = Finding::error("configuration", Link::Worker, problem.message.clone());
    let finding = finding.why("`sockd check` says so");
    let help = problem.help.clone();
    let finding = if let Some(help) = help { finding.by_hand(help) } else { finding };
    Some(finding.fix(remedy::read_again(facts)))
}

/// The application raises an error while it is imported.
fn application(facts: &Facts) -> Option<Finding> {
    let status = facts.status.as_ref();
    let waits = status.is_some_and(|status| status.fallback);
    let unanswered = |error: &str| matches!(error, "closed" | "refused") || (error == "silent" && facts.restarted);
    let dead = facts.answers.iter().any(|answer| !answer.nginx && unanswered(&answer.error));
    (waits || dead || target::fails(facts)).then_some(())?;
    let found = target::import_traceback(facts)?;
    let place = found.place.as_ref().map(|(file, line)| format!("{file}:{line}"));
    let at = place.clone().map_or(String::new(), |place| format!(" at {place}"));
    if let Some(module) = found.missing_module() {
        return Some(module_missing(facts, module, place.as_deref()));
    }
    let what = format!("the application cannot be loaded: {}", found.error);
    let finding = Finding::error("import-error", Link::Application, what);
    let why = format!("it raises this while the server imports it{at}");
    let by_hand = place.map_or_else(|| "correct the application".to_owned(), |place| format!("correct {place}"));
    Some(finding.why(why).by_hand(by_hand).fix(target::load(facts)))
}

/// A module that cannot be imported: the application itself, by its name on the command line, or one that it imports.
fn module_missing(facts: &Facts, module: &str, place: Option<&str>) -> Finding {
    let top = module.split('.').next().unwrap_or_default();
    let what = format!("the application cannot be loaded: there is no module {module}");
    let load = target::load(facts);
    let meant = facts.alike_module.as_deref();
    let application = target::command(&facts.service).last().filter(|word| {
        let named = word.split(':').next().unwrap_or_default();
        named == module || named.starts_with(&format!("{module}."))
    });
    if let Some(application) = application {
        let finding = Finding::error("application-missing", Link::Application, what);
        let directory = &facts.service.working_directory;
        let why = format!("the last word of ExecStart= names it, and it is not in {directory}");
        let Some(meant) = meant else {
            let by_hand = format!("correct the name, or WorkingDirectory=, in {}", facts.service.fragment_path);
            return finding.why(why).by_hand(by_hand).fix(remedy::read_again(facts));
        };
        let finding = finding.why(format!("{why}; did you mean {meant}?"));
        let corrected = application.replacen(module, meant, 1);
        return match remedy::rewrite_word(facts, application, &corrected) {
            Some(rewrite) => finding.fix(rewrite.then(target::again(facts))),
            None => finding.by_hand(format!("write {corrected} for {application}")).fix(remedy::read_again(facts)),
        };
    }
    let finding = Finding::error("module-missing", Link::Application, what);
    let at = place.map_or(String::new(), |place| format!(" at {place}"));
    let why = format!("it is imported{at}, and not there where the server runs");
    let correct = place.map_or_else(|| "correct the import".to_owned(), |place| format!("correct {place}"));
    if let Some(meant) = meant {
        return finding.why(format!("{why}; did you mean {meant}?")).by_hand(correct).fix(load);
    }
    let python = facts.program.path.rsplit_once('/').filter(|_| facts.program.python);
    let python = python.map_or("python3".to_owned(), |(directory, _)| format!("{directory}/python"));
    if let Some(install) = remedy::install_module(facts, &python, top) {
        let why = format!("{why}, though requirements.txt asks for it");
        return finding.why(why).fix(install.then(load));
    }
    // A name that was guessed is never installed: anybody may have published something under it.
    let by_hand = match remedy::distributions(top).as_slice() {
        [same] if *same == top => format!("{correct}, or install the package that has {top} with {python}"),
        known => format!("{correct}, or install {} with {python}", known.join(" or ")),
    };
    finding.why(why).by_hand(by_hand).fix(load)
}
