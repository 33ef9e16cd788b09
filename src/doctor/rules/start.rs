//! Why the service cannot start: the one cause behind a failed service, a failed socket and an answer of 502.

use crate::doctor::chain::{self, quote};
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Link, Severity};
use crate::doctor::traceback;

/// Exit statuses of systemd itself (systemd.exec(5), "Process Exit Codes").
const EXIT_CHDIR: i32 = 200;
const EXIT_EXEC: i32 = 203;
const EXIT_GROUP: i32 = 216;
const EXIT_USER: i32 = 217;

/// The cause, if starting fails or must fail.
pub fn cause(facts: &Facts) -> Option<Finding> {
    let found = bad_unit(facts).or_else(|| program(facts)).or_else(|| by_status(facts));
    let mut found = found.or_else(|| problem(facts)).or_else(|| application(facts))?;
    // Whoever answers was started before that: it is the next start that fails.
    if facts.answers.iter().any(|answer| answer.status.is_some_and(|status| status < 500)) {
        found.severity = Severity::Warning;
    }
    Some(found)
}

/// `runuser` is where systemd is; sudo need not be.
pub fn as_user(facts: &Facts, command: &str) -> String {
    match facts.service.user.as_str() {
        "" | "root" => command.to_owned(),
        user => format!("runuser -u {} -- {command}", quote(user)),
    }
}

/// systemd could not load the unit.
fn bad_unit(facts: &Facts) -> Option<Finding> {
    let service = &facts.service;
    let (name, file) = (&service.name, &service.fragment_path);
    let finding = |id, what: String| Finding::error(id, Link::Worker, what);
    match service.load_state.as_str() {
        "" | "loaded" => None,
        "not-found" => {
            let mend = "systemctl list-unit-files --type=service";
            let why = "systemd knows no unit file of this name";
            Some(finding("unit-not-found", format!("there is no unit {name}")).why(why).mend(mend))
        }
        "masked" => {
            let mend = format!("systemctl unmask {name} && {}", chain::again(facts));
            Some(finding("unit-masked", format!("{name} is masked")).why("a masked unit is never started").mend(mend))
        }
        _ => {
            let again = format!("systemctl daemon-reload && {}", chain::again(facts));
            let written = exec_start(&facts.unit_text);
            if let Some((line, word)) = written.filter(|(_, word)| word.contains('/') && !word.starts_with('/')) {
                let directory = match service.working_directory.as_str() {
                    // A unit that was not loaded has none; its text does.
                    "" => value(&facts.unit_text, "WorkingDirectory").unwrap_or_default(),
                    directory => directory,
                };
                let path = format!("{}/{word}", directory.trim_end_matches('/'));
                let why = "systemd does not look in WorkingDirectory= for the program: its path must begin with /";
                let mend = format!("{} && {again}", chain::replace(file, line, word, &path));
                let what = format!("ExecStart= of {name} is not absolute: {word}");
                return Some(finding("exec-not-absolute", what).why(why).mend(mend));
            }
            let why = format!("`systemd-analyze verify {}` says where", quote(file));
            let finding = finding("unit-bad-setting", format!("systemd cannot load {name}: {}", service.load_error));
            Some(finding.why(why).by_hand(format!("correct {file}")).mend(again))
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
    let server = chain::server(&facts.service);
    let server = if server.is_empty() { "gunicorn" } else { server };
    let again = chain::again(facts);
    let (directory, _) = program.path.rsplit_once('/')?;
    let venv = directory.strip_suffix("/bin");
    if program.exists == Some(false) {
        let what = format!("{} does not exist", program.path);
        return Some(match (program.python, venv) {
            (true, _) => {
                let install =
                    as_user(facts, &format!("{} -m pip install {server}", quote(&format!("{directory}/python"))));
                let why = format!("the virtual environment is there, and {server} is not installed in it");
                Finding::error("server-not-installed", Link::Worker, what)
                    .why(why)
                    .mend(format!("{install} && {again}"))
            }
            (false, Some(venv)) if !venv.is_empty() && !venv.starts_with("/usr") => {
                let make = as_user(facts, &format!("python3 -m venv {}", quote(venv)));
                let install =
                    as_user(facts, &format!("{} -m pip install {server}", quote(&format!("{venv}/bin/python"))));
                let why = format!("there is no virtual environment {venv}");
                let mend = format!("{make} && {install} && {again}");
                Finding::error("environment-missing", Link::Worker, what).why(why).mend(mend)
            }
            (false, _) => {
                let by_hand = format!("install {server}, or correct ExecStart= in {}", facts.service.fragment_path);
                let mend = format!("systemctl daemon-reload && {again}");
                let finding = Finding::error("program-missing", Link::Worker, what);
                finding.why("ExecStart= names it").by_hand(by_hand).mend(mend)
            }
        });
    }
    if program.interpreter_exists == Some(false) {
        let what = format!("{} is run by {}, which does not exist", program.path, program.interpreter);
        let why = "a virtual environment that was moved or copied, or whose Python was replaced, no longer works";
        let venv = quote(venv.unwrap_or(directory));
        let make = as_user(facts, &format!("python3 -m venv --clear {venv}"));
        let install = as_user(facts, &format!("{venv}/bin/python -m pip install {server}"));
        let finding = Finding::error("interpreter-missing", Link::Worker, what).why(why);
        let packages = format!("afterwards install the application's other packages in {venv}, too");
        return Some(finding.by_hand(packages).mend(format!("{make} && {install} && {again}")));
    }
    if program.executable == Some(false) {
        let what = format!("{} may not be executed", program.path);
        let mend = format!("chmod a+x {} && {again}", quote(&program.path));
        return Some(Finding::error("program-not-executable", Link::Worker, what).why("it lacks the x bit").mend(mend));
    }
    None
}

/// What systemd itself could not do before the program began.
fn by_status(facts: &Facts) -> Option<Finding> {
    let service = &facts.service;
    chain::fails(facts).then_some(())?;
    let again = chain::again(facts);
    let finding = |id, what: String| Finding::error(id, Link::Worker, what);
    match service.exec_main_status {
        EXIT_USER => {
            let what = format!("there is no user {}", service.user);
            let mend = format!("useradd --create-home {} && {again}", quote(&service.user));
            Some(finding("user-missing", what).why("User= names it (status 217/USER)").mend(mend))
        }
        EXIT_GROUP => {
            let what = format!("there is no group {}", service.group);
            let mend = format!("groupadd {} && {again}", quote(&service.group));
            Some(finding("group-missing", what).why("Group= names it (status 216/GROUP)").mend(mend))
        }
        EXIT_CHDIR | EXIT_EXEC if service.protect_home == "yes" && in_home(service) => {
            let what = format!("{} has ProtectHome=yes, and the application is in /home", service.name);
            let mend = chain::drop_in(&service.name, "home", "Service", &["ProtectHome=read-only"]);
            let why = "home directories look empty to it";
            Some(finding("home-protected", what).why(why).mend(format!("{mend} && {again}")))
        }
        EXIT_CHDIR => {
            let directory = &service.working_directory;
            let what = format!("{} cannot work in {directory}", service.name);
            let why = "the directory does not exist, or its user may not pass it (status 200/CHDIR)";
            let find = format!("namei -l {} shows which; correct it, or WorkingDirectory=", quote(directory));
            Some(finding("directory-closed-to-service", what).why(why).by_hand(find).mend(again))
        }
        _ => None,
    }
}

fn in_home(service: &crate::systemd::details::Details) -> bool {
    service.working_directory.starts_with("/home/")
        || chain::command(service).iter().any(|word| word.starts_with("/home/"))
}

/// What `sockd check` finds.
fn problem(facts: &Facts) -> Option<Finding> {
    let problem = facts.problems.iter().find(|problem| problem.error)?;
    let finding = Finding::error("configuration", Link::Worker, problem.message.clone());
    let finding = finding.why("`sockd check` says so");
    let help = problem.help.clone();
    let finding = if let Some(help) = help { finding.by_hand(help) } else { finding };
    Some(finding.mend(format!("systemctl daemon-reload && {}", chain::again(facts))))
}

/// The application raises an error while it is imported.
fn application(facts: &Facts) -> Option<Finding> {
    let status = facts.status.as_ref();
    let waits = status.is_some_and(|status| status.fallback);
    let unanswered = |error: &str| matches!(error, "closed" | "refused") || (error == "silent" && facts.restarted);
    let dead = facts.answers.iter().any(|answer| !answer.nginx && unanswered(&answer.error));
    (waits || dead || chain::fails(facts)).then_some(())?;
    let deaths = status.iter().flat_map(|status| &status.slots).filter_map(|slot| slot.last_death.as_ref());
    let found = deaths.filter_map(|death| traceback::last(&death.last_lines)).next();
    let found = found.or_else(|| traceback::last(&facts.journal))?;
    let again = chain::again(facts);
    let place = found.place.as_ref().map(|(file, line)| format!("{file}:{line}"));
    let at = place.clone().map_or(String::new(), |place| format!(" at {place}"));
    if let Some(module) = found.missing_module() {
        let top = module.split('.').next().unwrap_or_default();
        let what = format!("the application cannot be loaded: there is no module {module}");
        let named =
            chain::command(&facts.service).last().is_some_and(|word| word.split([':', '.']).next() == Some(top));
        if named {
            let finding = Finding::error("application-missing", Link::Application, what);
            let directory = &facts.service.working_directory;
            let why = format!("the last word of ExecStart= names it, and it is not in {directory}");
            let by_hand = format!("correct the name, or WorkingDirectory=, in {}", facts.service.fragment_path);
            return Some(finding.why(why).by_hand(by_hand).mend(format!("systemctl daemon-reload && {again}")));
        }
        let python = facts.program.path.rsplit_once('/').filter(|_| facts.program.python);
        let python = python.map_or("python3".to_owned(), |(directory, _)| quote(&format!("{directory}/python")));
        let install = as_user(facts, &format!("{python} -m pip install {}", quote(package(top))));
        let why = format!("it is imported{at}, and not installed where the server runs");
        let finding = Finding::error("module-missing", Link::Application, what);
        return Some(finding.why(why).mend(format!("{install} && {again}")));
    }
    let what = format!("the application cannot be loaded: {}", found.error);
    let finding = Finding::error("import-error", Link::Application, what);
    let why = format!("it raises this while the server imports it{at}");
    let by_hand = place.map_or_else(|| "correct the application".to_owned(), |place| format!("correct {place}"));
    Some(finding.why(why).by_hand(by_hand).mend(again))
}

/// What some modules are called where pip gets them.
fn package(module: &str) -> &str {
    match module {
        "psycopg2" => "psycopg2-binary",
        "MySQLdb" => "mysqlclient",
        "PIL" => "pillow",
        "yaml" => "pyyaml",
        "dotenv" => "python-dotenv",
        "environ" => "django-environ",
        "rest_framework" => "djangorestframework",
        "corsheaders" => "django-cors-headers",
        other => other,
    }
}
