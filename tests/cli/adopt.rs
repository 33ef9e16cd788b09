//! What `sockd adopt` would write: each unit of `adopt/*.case` against the text beside it.
//!
//! A case holds the unit's files, each below a line `#### PATH`, as systemd orders them; before them, after `#!`: the
//! unit's name where it is not that of the first file, its sockets, `socket` where one is wanted, and of an .ini who may
//! write it where that is not root: `holder USER`, or everybody: `open`. `program NAME` is one of supervisord's; then the
//! files are supervisord's own, and `private` says that not everybody may read them.
//! SOCKD_BLESS=1 writes the texts again; read the difference before it is committed.

use std::path::{Path, PathBuf};

use sockd::cli::adopt::emperor;
use sockd::cli::adopt::file_owner::{Owner, Writers};
use sockd::cli::adopt::overridden;
use sockd::cli::adopt::proposal::{Done, MARK, Proposal};
use sockd::cli::adopt::service::{Surroundings, propose};
use sockd::cli::adopt::supervisord;
use sockd::cli::adopt::supervisord::ini::Configuration;
use sockd::cli::adopt::supervisord::program::Program;
use sockd::cli::adopt::unit::Unit;

use super::golden::{self, Differences};

fn cases() -> Vec<(PathBuf, String)> {
    let text = |path: PathBuf| (path.clone(), std::fs::read_to_string(path).expect("a case"));
    golden::cases("tests/cli/adopt", "case", 20).into_iter().map(text).collect()
}

/// A user as every Debian makes one: with a group of its own, and in one more.
fn owner(name: &str) -> Owner {
    let groups = [name, "1001", "users", "100"].map(str::to_owned).into();
    Owner { name: name.to_owned(), uid: 1001, group: name.to_owned(), groups }
}

fn adopt(case: &str) -> Result<Proposal, String> {
    let (head, files) = case.split_once("#### ").expect("a file");
    let files: Vec<(PathBuf, &str)> = files
        .split("#### ")
        .map(|file| file.split_once('\n').expect("a path"))
        .map(|(path, text)| (path.into(), text))
        .collect();
    let mut around = Surroundings { sockd: "/usr/bin/sockd".into(), ..Surroundings::default() };
    let mut holder = Writers::Root;
    let (mut program, mut private) = (None, false);
    let mut name = files[0].0.file_name().expect("a name").to_str().expect("text").to_owned();
    for line in head.lines() {
        match line.strip_prefix("#! ").expect(line).split_once(' ') {
            Some(("sockets", sockets)) => around.sockets = sockets.split(' ').map(str::to_owned).collect(),
            Some(("program", name)) => program = Some(name),
            None if line == "#! private" => private = true,
            Some(("unit", unit)) => name = unit.to_owned(),
            Some(("holder", user)) => holder = Writers::User(owner(user)),
            None if line == "#! open" => holder = Writers::Others("everybody may write /srv/sites".to_owned()),
            None if line == "#! socket" => around.socket_wanted = true,
            Some(("read-only", "/var/lib")) => around.state_is_read_only = true,
            Some(("linked", "directory")) => around.linked_directory = true,
            other => panic!("{other:?}"),
        }
    }
    let read = |path: &Path| match files.iter().find(|(named, _)| named == path) {
        Some((_, text)) => Ok((*text).to_owned()),
        None => Err(format!("cannot read {}: No such file or directory", path.display())),
    };
    if let Some(program) = program {
        let mut configuration = Configuration::default();
        for (path, text) in files.iter().filter(|(path, _)| path.starts_with("/etc/supervisor")) {
            configuration.add(path, text)?;
        }
        let program = Program::read(&configuration, program, "machine")?;
        let around = supervisord::Surroundings { target: program.name.clone(), holder, private, still_read: false };
        return supervisord::propose(&program, &around, &read);
    }
    if name.ends_with(".ini") {
        let around = emperor::Surroundings { uwsgi: "/usr/local/bin/uwsgi".into(), emperor: None, holder };
        return emperor::propose(&files[0].0, files[0].1, &around);
    }
    // What the server's options name stands behind the unit.
    let (named, files): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|(path, _)| path.extension() == Some("ini".as_ref()));
    let read = |path: &Path| match named.iter().find(|(named, _)| named == path) {
        Some((_, text)) => Ok((*text).to_owned()),
        None => Err(format!("cannot read {}: No such file or directory", path.display())),
    };
    propose(&Unit::read(&name, files), &around, &read)
}

#[test]
fn each_unit_is_adopted_as_its_text_says() {
    let mut wrong = Differences::default();
    for (path, case) in cases() {
        let shown = match adopt(&case) {
            Ok(proposal) => proposal.render(Done::Shown, false, false),
            Err(why) => format!("{why}\n"),
        };
        let refused = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("refused-"));
        assert_eq!(refused, adopt(&case).is_err(), "{}: {shown}", path.display());
        let file = path.with_extension("txt");
        wrong.compare(&file, &shown);
    }
    wrong.assert_none();
}

/// systemd would start neither service nor socket for them.
#[test]
fn accounts_that_are_not_here_are_refused() {
    let here = |database: &str, name: &str| [("passwd", "sammy"), ("group", "www-data")].contains(&(database, name));
    let said = |lines: &str| emperor::accounts_exist(Path::new("/srv/a.ini"), &format!("[uwsgi]\n{lines}"), here);
    for lines in
        ["uid = 1000\n", "uid = sammy\ngid = www-data\nchown-socket = sammy:www-data\n", "chown-socket = sammy\n"]
    {
        assert_eq!(said(lines), Ok(()), "{lines}");
    }
    for (line, what) in [
        ("uid = samy", "user samy"),
        ("gid = sammy", "group sammy"),
        ("chown-socket = www-data", "user www-data"),
        ("chown-socket = sammy:sammy", "group sammy"),
    ] {
        let expected = format!("/srv/a.ini:2: {line}: there is no {what} here: make it first, or correct this line");
        assert_eq!(said(line), Err(expected));
    }
}

/// What is shown with `+` and without a mark is what is written, and each setting has its reason.
#[test]
fn what_is_shown_is_what_is_written() {
    for (path, case) in cases() {
        let Ok(proposal) = adopt(&case) else { continue };
        let shown = proposal.render(Done::Shown, false, false);
        for draft in &proposal.files {
            let text = draft.text();
            let text = text.as_str();
            assert!(text.starts_with(MARK), "{text}");
            let head = format!("{}\n\n", draft.path.display());
            let rest = shown.split_once(&head).unwrap_or_else(|| panic!("{}: {shown}", path.display())).1;
            let mut lines = rest.lines().filter(|line| !line.starts_with('-'));
            for line in text.lines() {
                let shown = lines.next().map(|shown| shown.get(2..).unwrap_or(""));
                // The values of variables are not for terminals.
                let secret = shown.and_then(|shown| shown.strip_suffix("(not shown)\""));
                let is_shown = secret.map_or(shown == Some(line), |shown| line.starts_with(shown));
                assert!(is_shown, "{}: {shown:?} {line}", path.display());
            }
        }
    }
}

/// The drop-in, put behind the unit's own files, leaves one command: sockd with the line that the unit had.
#[test]
fn the_command_is_the_units_own_behind_sockd() {
    for (path, case) in cases() {
        let Ok(proposal) = adopt(&case) else { continue };
        if proposal.name.contains(".ini") || case.starts_with("#! program") {
            continue;
        }
        let files = case.split("#### ").skip(1).map(|file| file.split_once('\n').expect("a path").1);
        let before: String = files.collect();
        let drop_in = proposal.files[0].text().as_str().to_owned();
        let read = |text: &str| {
            let unit = Unit::read("x.service", [(PathBuf::from("/x"), text)]);
            let starts = unit.list("Service", "ExecStart");
            assert_eq!(starts.len(), 1, "{}: {starts:?}", path.display());
            starts[0].value.clone()
        };
        let bare = |line: &str| line.trim_start_matches(['-', '+', '@']).to_owned();
        let (old, new) = (bare(&read(&before)), bare(&read(&format!("{before}\n{drop_in}"))));
        if old.contains("/usr/bin/sockd run -- ") {
            assert_eq!(new, old, "{}: one that had the prefix keeps its line", path.display());
            continue;
        }
        let ours = match case.contains("#! linked directory") {
            true => "/usr/bin/sockd run --directory /srv/shop/current -- ",
            false => "/usr/bin/sockd run -- ",
        };
        let rest = new.strip_prefix(ours).unwrap_or_else(|| panic!("{new}"));
        // The name after `@` is no part of the command.
        assert_eq!(rest, old.replace("gunicorn gunicorn-web", "gunicorn"), "{}", path.display());
    }
}

/// A line that is changed after the adoption is named, and so is the one that wins.
#[test]
fn a_command_that_was_changed_afterwards_is_reported() {
    let file = Path::new("/etc/systemd/system/gunicorn.service");
    let text =
        |workers| format!("[Service]\nUser=sammy\nExecStart=/srv/venv/bin/gunicorn \\\n  --workers {workers} a:b\n");
    let unit = |workers| Unit::read("gunicorn.service", [(file.to_owned(), text(workers).as_str())]);
    let around = Surroundings { sockd: "/usr/bin/sockd".into(), ..Surroundings::default() };
    let proposal = propose(&unit(3), &around, &|_| Err(String::new())).expect("adopted");
    let drop_in = &proposal.files[0];
    let overridden = |workers| overridden::compare(&unit(workers), &drop_in.path, drop_in.text().as_str());
    assert_eq!(overridden(3), None);
    let problem = overridden(5).expect("it is another command");
    let (first, rest) = problem.message.split_once(": ").expect("a place");
    assert_eq!(first, "/etc/systemd/system/gunicorn.service:3");
    assert!(rest.contains("/etc/systemd/system/gunicorn.service.d/sockd.conf:"), "{rest}");
    assert!(problem.help.is_some_and(|help| help.contains("sockd adopt --write gunicorn.service")));
}

#[test]
fn an_emperors_sites_are_found_by_its_options_and_its_file() {
    let command = |line: &str| line.split(' ').map(std::ffi::OsString::from).collect::<Vec<_>>();
    let read = |path: &Path| match path.to_str() {
        Some("/etc/uwsgi/emperor.ini") => Ok("[uwsgi]\nemperor = /etc/uwsgi/vassals\nuid = www-data\n".to_owned()),
        _ => Err("missing".to_owned()),
    };
    for (line, directories) in [
        ("/usr/bin/uwsgi --emperor /etc/uwsgi/sites", &["/etc/uwsgi/sites"][..]),
        ("/usr/bin/uwsgi --master --emperor=/a --emperor /b", &["/a", "/b"]),
        ("/usr/bin/uwsgi --ini /etc/uwsgi/emperor.ini", &["/etc/uwsgi/vassals"]),
        ("/usr/bin/uwsgi --ini /etc/uwsgi/none.ini", &[]),
        ("/usr/bin/gunicorn --emperor /a", &[]),
    ] {
        assert_eq!(emperor::directories(&command(line), &read), directories, "{line}");
    }
}
