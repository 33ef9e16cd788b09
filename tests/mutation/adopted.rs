//! What `adopt` makes of files that somebody has written to harm: each seed is mutated some thousand times, and every
//! unit that comes of it is read back as systemd reads it: it has the settings that were meant and no other.
//!
//! The numbers are seeded: a failure comes again. Where systemd is installed, a part of the units is read by it, too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sockd::adapter::uwsgi::ini::Section;
use sockd::cli::adopt::emperor;
use sockd::cli::adopt::file_owner::Writers;
use sockd::cli::adopt::proposal::Proposal;
use sockd::cli::adopt::service::{self, Surroundings};
use sockd::cli::adopt::supervisord;
use sockd::cli::adopt::supervisord::ini::Configuration;
use sockd::cli::adopt::supervisord::program::Program;
use sockd::cli::adopt::unit::Unit;

use crate::mutator::{Numbers, ROUNDS};

const INI: &str = "[uwsgi]\nproject = site\nuid = mallory\ngid = www-data\nchdir = /home/mallory/the site/50\n\
                   socket = /run/uwsgi/site.sock\nhttp-socket = 127.0.0.1:8000\nchown-socket = mallory:www-data\n\
                   chmod-socket = 660\n";
const PROGRAM: &str = "[program:site]\ncommand=/srv/venv/bin/gunicorn -w 2 --bind unix:/run/the/site.sock --bind :8000 a:b ; it\n\
                       directory=/home/mallory/the site/50%%\nuser=mallory\numask=007\nnumprocs=1\nstopwaitsecs=20\n\
                       environment=A=\"b, c\",D='e',\n  F=g/h\n";
const UNIT: &str = "[Unit]\nDescription=a\n[Service]\nUser=sammy\nGroup=www-data\nWorkingDirectory=/home/sammy/site\n\
                    Environment=\"A=b c\"\nTimeoutStartSec=5\nUMask=0007\nExecStart=";
const COMMANDS: [&str; 5] = [
    "/srv/venv/bin/gunicorn --workers 3 \\\n  --bind unix:/run/site.sock a:b\n",
    "/srv/venv/bin/uwsgi --ini /etc/named\n",
    "/usr/sbin/php-fpm8.2 --fpm-config /etc/named\n",
    "/usr/bin/puma -C /etc/named\n",
    "/usr/bin/unicorn -c /etc/named\n",
];
/// What stands in the file that the command names.
const NAMED: [&str; 5] = [
    "",
    "[uwsgi]\nsocket = /run/site.sock\nchmod-socket = 660\n",
    "[www]\nlisten = /run/php/site.sock\nlisten.mode = 0660\n",
    "workers 2\nbind \"unix:///run/puma.sock\"\nport 3000\n",
    "worker_processes 2\nlisten \"/run/unicorn.sock\", :backlog => 64, umask: 0007\nworking_directory \"/srv\"\n",
];

/// Settings of a unit file in their order, read as `src/shared/conf-parser.c` of systemd does: not by sockd's own reader.
fn as_systemd(text: &str) -> Vec<(String, String)> {
    let (mut found, mut open): (Vec<(String, String)>, Option<String>) = (Vec::new(), None);
    for line in text.replace("\r\n", "\n").split(['\n', '\r', '\0']) {
        let bare = line.trim_start();
        if bare.starts_with(['#', ';']) {
            continue;
        }
        let joined = open.take().unwrap_or_default() + if line.len() > bare.len() { bare } else { line };
        let ends = joined.chars().rev().take_while(|c| *c == '\\').count();
        if ends % 2 == 1 {
            open = Some(format!("{} ", &joined[..joined.len() - 1]));
        } else if let Some((key, value)) = joined.trim().split_once('=')
            && !joined.trim().starts_with('[')
        {
            found.push((key.trim_end().to_owned(), value.trim_start().to_owned()));
        }
    }
    found
}

/// A value without its specifiers: none but the doubled `%` may be there.
fn literal(value: &str) -> String {
    assert!(!value.replace("%%", "").contains('%'), "a specifier: {value:?}");
    value.replace("%%", "%")
}

/// A list that is one word, unquoted as `extract_first_word` does.
fn one_word(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"') else {
        assert!(!value.contains([' ', '"', '\'', '\\']), "{value:?}");
        return value.to_owned();
    };
    let (mut word, mut letters) = (String::new(), inner.chars());
    loop {
        match letters.next().expect("a closed quote") {
            '"' => break,
            '\\' => word.push(letters.next().expect("something escaped")),
            letter => word.push(letter),
        }
    }
    assert_eq!(letters.as_str(), "", "one word: {value:?}");
    word
}

/// Nothing but these keys, each at most once except lists.
fn only<'a>(text: &str, keys: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, Vec<String>> {
    let keys: Vec<&str> = keys.into_iter().collect();
    let mut settings: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in as_systemd(text) {
        assert!(keys.contains(&key.as_str()), "{key}={value} was never meant:\n{text}");
        settings.entry(key).or_default().push(value);
    }
    settings
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
}

fn adopt_ini(ini: &Path, text: &str) -> Result<Proposal, String> {
    let around = emperor::Surroundings { uwsgi: "/usr/bin/uwsgi".into(), emperor: None, holder: Writers::Root };
    emperor::propose(ini, text, &around)
}

#[test]
fn a_mutated_ini_is_refused_or_means_what_it_says() {
    let mut numbers = Numbers(0x5eed_0001);
    let (mut adopted, mut odd) = (0, Vec::new());
    for round in 0..ROUNDS {
        let text = numbers.mutated(INI);
        let directory = if round % 4 == 0 { numbers.mutated("/etc/uwsgi/the sites") } else { "/etc/uwsgi".to_owned() };
        let ini = PathBuf::from(format!("/{directory}/site.ini"));
        let Ok(proposal) = adopt_ini(&ini, &text) else { continue };
        adopted += 1;
        let [toml, service, socket] = [0, 1, 2].map(|file| proposal.files[file].text().as_str().to_owned());
        let toml: toml::Table = toml.parse().unwrap_or_else(|error| panic!("{error}: {toml:?}"));
        let words: Vec<_> = toml["command"].as_array().expect("a list").iter().map(|word| word.as_str()).collect();
        assert_eq!((words, toml.len()), (vec![Some("/usr/bin/uwsgi"), Some("--ini"), ini.to_str()], 1));

        let said = Section::read(&ini, &text);
        let last = |option| said.values(&[option]).last().map(|value| value.expect("adopted"));
        let meant = only(&service, ["User", "Group", "WorkingDirectory", "ReadWritePaths"]);
        assert!(meant.values().all(|values| values.len() == 1), "{service}");
        let first = |key: &str| meant.get(key).map(|values| values[0].clone());
        assert_eq!((first("User"), first("Group")), (last("uid"), last("gid")));
        assert!(["User", "Group"].into_iter().filter_map(first).all(|name| is_name(&name)), "{service}");
        assert_eq!(first("WorkingDirectory").map(|path| literal(&path)), last("chdir"), "{service}");
        assert_eq!(first("ReadWritePaths").map(|path| literal(&one_word(&path))), last("chdir"), "{service}");

        let meant = only(&socket, ["ListenStream", "SocketUser", "SocketGroup", "SocketMode"]);
        assert_eq!(meant["ListenStream"][0], "");
        let streams: Vec<_> = meant["ListenStream"][1..].iter().map(|stream| literal(stream)).collect();
        let sockets: Vec<_> = said.values(&["socket", "uwsgi-socket", "http-socket", "http11-socket"]).collect();
        assert_eq!(streams.len(), sockets.len(), "{socket}");
        let tcp = |stream: &String| stream.parse::<std::net::SocketAddr>().is_ok();
        assert!(streams.iter().all(|stream| stream.starts_with(['/', '@']) || tcp(stream)), "{socket}");
        let names = ["SocketUser", "SocketGroup"].iter().filter_map(|key| meant.get(*key));
        assert!(names.flatten().all(|name| is_name(name)), "{socket}");
        if service.contains(['%', '"', '\\', '$', 'é']) && service.contains("WorkingDirectory") {
            odd.push((service, literal(&first("WorkingDirectory").expect("it is there"))));
        }
    }
    // A test that refuses everything, or sees nothing odd, would say nothing.
    assert!(adopted > ROUNDS / 10 && odd.len() > 20, "{adopted} {}", odd.len());
    odd.truncate(40);
    read_by_systemd(&odd);
}

/// systemd itself reads the drop-ins, each behind a service of its own, and tells what it has read.
fn read_by_systemd(drop_ins: &[(String, String)]) {
    let room = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("mutation-{}", std::process::id()));
    std::fs::create_dir_all(&room).expect("made");
    let base = "[Service]\nExecStart=/bin/true\n";
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no", "--generators=no", "--recursive-errors=no"]);
    command.env("SYSTEMD_LOG_LEVEL", "debug").stderr(Stdio::null()).stdin(Stdio::null());
    for (number, (text, _)) in drop_ins.iter().enumerate() {
        let file = room.join(format!("read-{number}.service"));
        std::fs::write(&file, format!("{base}{text}")).expect("written");
        command.arg(file);
    }
    let said = command.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    std::fs::remove_dir_all(room).expect("removed");
    let Ok(said) = said else { return eprintln!("there is no systemd-analyze: not read by systemd") };
    for (number, (text, directory)) in drop_ins.iter().enumerate() {
        let head = format!("-> Unit read-{number}.service:");
        let Some((_, unit)) = said.split_once(&head) else { panic!("systemd has not read:\n{text}\n{said}") };
        let unit = unit.split("-> Unit ").next().unwrap_or_default();
        let values = |key: &str| -> Vec<&str> {
            let key = format!("{key}: ");
            unit.lines().filter_map(|line| line.trim_start_matches('\t').strip_prefix(&key)).collect()
        };
        assert_eq!(values("WorkingDirectory"), [directory], "{text}");
        assert_eq!(values("ReadWritePaths"), [directory], "{text}");
        assert_eq!(values("Command Line"), ["/bin/true"], "no command besides: {text}");
    }
}

#[test]
fn a_mutated_unit_or_its_servers_file_is_refused_or_means_what_it_says() {
    let mut numbers = Numbers(0x5eed_0002);
    let mut adopted = [0; 4];
    for round in 0..ROUNDS {
        let kind = round % 4;
        let mut text = format!("{UNIT}{}", COMMANDS[kind]);
        let mut named = NAMED[kind].to_owned();
        let mutated = if kind == 0 || numbers.below(4) == 0 { &mut text } else { &mut named };
        *mutated = numbers.mutated(mutated);
        let unit = Unit::read("site.service", [(PathBuf::from("/etc/systemd/system/site.service"), text.as_str())]);
        let around = Surroundings { sockd: "/usr/bin/sockd".into(), socket_wanted: true, ..Surroundings::default() };
        let read = |_: &Path| Ok(named.clone());
        let Ok(proposal) = service::propose(&unit, &around, &read) else { continue };
        adopted[kind] += 1;
        let drop_in = proposal.files[0].text().as_str().to_owned();
        let settings = only(
            &drop_in,
            [
                "Requires",
                "After",
                "StartLimitIntervalSec",
                "Type",
                "NotifyAccess",
                "PIDFile",
                "ExecStart",
                "ExecReload",
                "ExecStop",
                "SuccessExitStatus",
                "KillMode",
                "KillSignal",
                "TimeoutStartSec",
                "TimeoutStopSec",
                "WatchdogSec",
                "Restart",
                "RestartSec",
                "RestartPreventExitStatus",
                "OOMPolicy",
                "Delegate",
                "ProtectControlGroups",
                "RestrictAddressFamilies",
                "RuntimeDirectory",
                "RuntimeDirectoryMode",
                "StateDirectory",
                "StateDirectoryMode",
            ],
        );
        let start = as_systemd(&text).into_iter().rfind(|(key, _)| key == "ExecStart").expect("adopted").1;
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let (prefixes, bare) = start.split_at(start.len() - start.trim_start_matches(['-', ':', '+', '!', '|']).len());
        let meant = format!("{prefixes}/usr/bin/sockd run -- {}", bare.trim_start());
        assert_eq!(settings["ExecStart"].len(), 2, "{drop_in}");
        assert_eq!(squeezed(&settings["ExecStart"][1]), squeezed(&meant), "{text:?} {drop_in}");

        let socket = proposal.files[1].text().as_str().to_owned();
        let meant = only(
            &socket,
            [
                "Description",
                "ListenStream",
                "SocketUser",
                "SocketGroup",
                "SocketMode",
                "Backlog",
                "RemoveOnStop",
                "WantedBy",
            ],
        );
        assert_eq!(
            (&meant["Description"], &meant["Backlog"]),
            (&vec!["Socket of site.service".to_owned()], &vec!["4096".to_owned()])
        );
        assert!(meant["ListenStream"].len() <= 2 && meant["WantedBy"].len() == 1, "{socket}");
        // Only what stands in the unit itself may hold specifiers.
        let free = meant["ListenStream"].iter().filter(|stream| !text.contains(stream.as_str()));
        free.for_each(|stream| drop(literal(stream)));
    }
    assert!(adopted.iter().all(|count| *count > ROUNDS / 40), "{adopted:?}");
}

/// A value without the quotes of Environment= or of an environment file, and what it says of which variable.
fn variable(quoted: &str) -> (String, String) {
    let (name, value) = quoted.split_once('=').expect("a variable");
    (name.to_owned(), value.to_owned())
}

#[test]
fn a_mutated_program_is_refused_or_means_what_it_says() {
    let mut numbers = Numbers(0x5eed_0003);
    let (mut adopted, mut odd) = (0, Vec::new());
    for round in 0..ROUNDS {
        let (text, private) = (numbers.mutated(PROGRAM), round % 2 == 0);
        let file = Path::new("/etc/supervisor/conf.d/site.conf");
        let mut configuration = Configuration::default();
        let read = configuration.add(file, &text);
        let Ok(program) = read.and_then(|()| Program::read(&configuration, "site", "machine")) else { continue };
        let around =
            supervisord::Surroundings { target: "site".to_owned(), holder: Writers::Root, private, still_read: false };
        let Ok(proposal) = supervisord::propose(&program, &around, &|_| Err("none".to_owned())) else { continue };
        adopted += 1;
        let draft = |end: &str| {
            let draft = proposal.files.iter().find(|draft| draft.path.to_string_lossy().ends_with(end));
            draft.map(|draft| draft.text().as_str().to_owned())
        };
        let toml = draft("site.toml").expect("written");
        let toml: toml::Table = toml.parse().unwrap_or_else(|error| panic!("{error}: {toml:?}"));
        let words: Vec<_> =
            toml["command"].as_array().expect("a list").iter().filter_map(|word| word.as_str()).collect();
        assert_eq!(words, program.commands[0]);
        assert!(toml.keys().all(|key| key == "command" || key == "workers"), "{toml:?}");

        let service = draft("service.d/sockd.conf").expect("written");
        let keys = ["User", "Group", "WorkingDirectory", "ReadWritePaths", "UMask", "Environment", "EnvironmentFile"];
        let mut meant = only(&service, keys);
        let environment = meant.remove("Environment").unwrap_or_default();
        assert!(meant.values().all(|values| values.len() == 1), "{service}");
        let first = |key: &str| meant.get(key).map(|values| values[0].clone());
        assert_eq!((first("User"), first("Group")), (Some(program.user.0.clone()), Some(String::new())));
        assert!(is_name(&program.user.0), "{service}");
        assert_eq!(first("UMask"), Some(format!("{:04o}", program.umask)));
        assert_eq!(first("WorkingDirectory").map(|path| literal(&path)), program.directory, "{service}");
        assert_eq!(first("ReadWritePaths").map(|path| literal(&one_word(&path))), program.directory, "{service}");
        let variables: Vec<_> = match draft("site.env") {
            Some(env) => {
                let plain = |value: &str| one_word(value);
                let found = as_systemd(&env);
                found.into_iter().map(|(name, value)| (name, plain(&value))).collect()
            }
            None => environment.iter().map(|quoted| variable(&literal(&one_word(quoted)))).collect(),
        };
        assert_eq!(variables, program.variables, "{text:?}");

        let socket = draft("socket.d/sockd.conf").expect("written");
        let meant = only(&socket, ["ListenStream", "SocketUser", "SocketGroup", "SocketMode"]);
        assert_eq!(meant["ListenStream"][0], "");
        let tcp = |stream: &String| stream.parse::<std::net::SocketAddr>().is_ok();
        let streams: Vec<_> = meant["ListenStream"][1..].iter().map(|stream| literal(stream)).collect();
        assert!(streams.iter().all(|stream| stream.starts_with(['/', '@']) || tcp(stream)), "{socket}");
        // No secret is shown, and no shown line acts on the terminal.
        let shown = proposal.render(sockd::cli::adopt::proposal::Done::Shown, true, false);
        let harmful = |letter: char| letter != '\n' && sockd::printable::is_command(letter);
        assert!(!shown.contains(harmful) && !shown.contains("b, c"), "{shown:?}");
        if !private && service.contains(['"', '\\', '$', 'é']) && program.directory.is_some() && variables.is_empty() {
            odd.push((service, program.directory.unwrap_or_default()));
        }
    }
    assert!(adopted > ROUNDS / 10, "{adopted}");
    odd.truncate(40);
    read_by_systemd(&odd);
}
