//! `sockd new`: the files of a new application, from options or from answers.
//!
//! Owns: the questions, the texts of the files, and what is typed next.
//! Never: overwrites a file, writes some files and not the others, or starts anything.

use std::ffi::OsString;
use std::io::{self, BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::atomic_files::{self, Content, Found, NewFile};
use super::file_text::{Line, nginx, toml, unit};
use super::{adopt, check, output};
use crate::app::{Address, ParseAddressError};
use crate::exit;
use crate::systemd::Manager;
use unit::Percent;

const SITES_AVAILABLE: &str = "/etc/nginx/sites-available";
const SITES_ENABLED: &str = "/etc/nginx/sites-enabled";

/// The options of `new`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sudo sockd new shop                  asks for what it must know\n  \
                  sudo sockd new shop --directory /home/sammy/shop --user sammy --domain shop.example.com --enable \\\n    \
                  -- venv/bin/gunicorn --workers 3 shop.wsgi:application\n\n\
                  Nothing is started: the last lines of the output say what to type next.")]
pub struct Arguments {
    /// The name of the instance: letters, digits, `-`, `_` and `.`
    #[arg(value_name = "NAME", value_parser = instance_name)]
    name: String,
    /// Where the application is: its working directory (an absolute path)
    #[arg(long, value_name = "DIRECTORY", value_parser = directory)]
    directory: Option<String>,
    /// Who it runs as
    #[arg(long, value_name = "USER", value_parser = user)]
    user: Option<String>,
    /// Where it listens: a path or HOST:PORT [default: /run/sockd/NAME.sock]
    #[arg(long, value_name = "ADDRESS", value_parser = listen)]
    listen: Option<Address>,
    /// The name of the site, for Nginx; without one no site is written
    #[arg(long, value_name = "DOMAIN", value_parser = domain)]
    domain: Option<String>,
    /// Enable the Nginx site, too
    #[arg(long)]
    enable: bool,
    /// Remove what an earlier `new` has written, and stop it
    #[arg(long, conflicts_with_all = ["directory", "user", "listen", "domain", "enable", "command"])]
    undo: bool,
    /// Write below this directory in place of /
    #[arg(long, value_name = "DIR", hide = true, default_value = "/")]
    root: PathBuf,
    /// The server's command line
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// All that the files are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Application {
    name: String,
    directory: String,
    user: String,
    /// `None`: where sockd@.socket listens by itself.
    listen: Option<Address>,
    domain: Option<String>,
    enable: bool,
    command: Vec<String>,
}

/// Runs the subcommand: 0 when all files are written, 1 when none is, 2 when something is missing on the command line,
/// 78 when what was said could not run.
pub fn run(arguments: &Arguments) -> ExitCode {
    if arguments.undo {
        let undone = undo(&arguments.name, &arguments.root).map_err(adopt::as_root);
        return match undone.and_then(|text| output::print(&text).map_err(|error| error.to_string())) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                output::complain(&why);
                ExitCode::from(exit::FAILURE)
            }
        };
    }
    let application = match complete(arguments, io::stdin().is_terminal()) {
        Ok(application) => application,
        Err((why, code)) => {
            output::complain(&why);
            return ExitCode::from(code);
        }
    };
    if application.domain.is_some() && !arguments.root.join(&SITES_AVAILABLE[1..]).is_dir() {
        output::complain(&format!("there is no {SITES_AVAILABLE}: install Nginx first, or leave out --domain"));
        return ExitCode::from(exit::FAILURE);
    }
    let mut files = match application.files() {
        Ok(files) => files,
        Err(why) => {
            output::complain(&why);
            return ExitCode::from(exit::USAGE);
        }
    };
    for file in &mut files {
        file.path = arguments.root.join(file.path.strip_prefix("/").unwrap_or(&file.path));
    }
    let there = files.iter().any(|file| !matches!(atomic_files::find(&file.path, ""), Ok(Found::Nothing)));
    // What is there already is reported first: nothing could be written anyway.
    let command = application.command.iter().map(OsString::from).collect();
    let problems = check::of_new(&application.user, Path::new(&application.directory), command);
    if problems.has_errors() && !there {
        output::say(&problems.render(false));
        output::complain("nothing is written: the application could not run like that");
        return ExitCode::from(exit::CONFIG);
    }
    let written = atomic_files::write_all(&files, None).and_then(|()| {
        let text = summary(&files, &application);
        output::print(&text).map_err(|error| format!("cannot write to stdout: {error}"))
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let root = rustix::process::geteuid().is_root();
            output::complain(&format!("{why}{}", if root { "" } else { "; nothing is written; try it with sudo" }));
            ExitCode::from(exit::FAILURE)
        }
    }
}

/// Takes back what was written. The application itself stays as it is.
fn undo(name: &str, root: &Path) -> Result<String, String> {
    let place = |path: String| root.join(path.trim_start_matches('/'));
    let site = format!("{SITES_AVAILABLE}/{name}");
    let mut ours: Vec<PathBuf> = Vec::new();
    let enabled = place(format!("{SITES_ENABLED}/{name}"));
    ours.extend((std::fs::read_link(&enabled).ok().as_deref() == Some(Path::new(&site))).then_some(enabled));
    for (path, mark) in [
        (format!("/etc/sockd/{name}.toml"), format!("# The application {name}.")),
        (
            format!("/etc/systemd/system/sockd@{name}.service.d/application.conf"),
            format!("# Who the application {name} "),
        ),
        (
            format!("/etc/systemd/system/sockd@{name}.socket.d/application.conf"),
            format!("# Where the application {name} "),
        ),
        (site, format!("# The site of the application {name}, ")),
    ] {
        let path = place(path);
        match atomic_files::find(&path, &mark)? {
            Found::Ours(_) => ours.push(path),
            Found::Foreign => return Err(adopt::not_ours(&path)),
            Found::Nothing => {}
        }
    }
    if ours.is_empty() {
        return Ok(format!("{name} is nothing that `sockd new` has made: there is nothing to undo\n"));
    }
    let system = root == Path::new("/");
    if system {
        // Without its drop-in the socket means another path; the service goes with its socket.
        adopt::systemctl(Manager::System, &["disable", "--now", &format!("sockd@{name}.socket")])?;
        adopt::systemctl(Manager::System, &["disable", "--now", &format!("sockd@{name}.service")])?;
    }
    atomic_files::remove_all(ours.iter().map(PathBuf::as_path))?;
    if system {
        adopt::reload_manager(Manager::System)?;
    }
    let mut text: String = ours.iter().map(|path| format!("removed {}\n", path.display())).collect();
    if ours.iter().any(|path| path.starts_with(place("/etc/nginx".to_owned()))) {
        text.push_str("\nNext:\n  nginx -t && systemctl reload-or-restart nginx  takes the site from Nginx\n");
    }
    Ok(text)
}

/// Puts options and answers together. Without a terminal nothing is asked.
fn complete(arguments: &Arguments, terminal: bool) -> Result<Application, (String, u8)> {
    let Arguments { name, directory, user, listen, domain, enable, undo: _, root: _, command } = arguments;
    let command = command.iter().map(|word| word.clone().into_string());
    let command: Vec<String> = command
        .collect::<Result<_, _>>()
        .map_err(|word| (format!("{} is no UTF-8 text", word.to_string_lossy()), exit::USAGE))?;
    let mut missing = Vec::new();
    missing.extend(directory.is_none().then_some("--directory"));
    missing.extend(user.is_none().then_some("--user"));
    missing.extend(command.is_empty().then_some("-- COMMAND"));
    if !terminal && !missing.is_empty() {
        let why = format!("{} is missing, and there is no terminal to ask on", missing.join(", "));
        return Err((why, exit::USAGE));
    }
    let broken = |error: io::Error| (format!("cannot ask: {error}"), exit::FAILURE);
    let given = |value: &Option<String>, question: &str, example: &str, check: fn(&str) -> Result<String, String>| {
        value.clone().map_or_else(|| ask(question, example, check).map_err(broken), Ok)
    };
    let directory = given(directory, "The application's directory", "/home/sammy/shop", self::directory)?;
    let user = given(user, "The user it runs as", "sammy", self::user)?;
    let command = match command.is_empty() {
        false => command,
        true => {
            let line = ask("The server's command line", "venv/bin/gunicorn --workers 3 shop.wsgi", |line| {
                words(line).map(|_| line.to_owned())
            });
            words(&line.map_err(broken)?).unwrap_or_default()
        }
    };
    let domain = match domain {
        // What is left out on a complete command line is not wanted.
        None if terminal && !missing.is_empty() => {
            let answer = ask("The name of the site for Nginx, empty for none", "shop.example.com", |answer| {
                if answer.is_empty() { Ok(String::new()) } else { self::domain(answer) }
            });
            Some(answer.map_err(broken)?).filter(|domain| !domain.is_empty())
        }
        domain => domain.clone(),
    };
    if *enable && domain.is_none() {
        return Err(("--enable wants a --domain: without one there is no site".to_owned(), exit::USAGE));
    }
    Ok(Application { name: name.clone(), directory, user, listen: listen.clone(), domain, enable: *enable, command })
}

/// Asks on the terminal until the answer is of use.
fn ask(question: &str, example: &str, check: impl Fn(&str) -> Result<String, String>) -> io::Result<String> {
    loop {
        output::say(&format!("{question} (as {example}): "));
        let mut answer = String::new();
        if io::stdin().lock().read_line(&mut answer)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "no answer"));
        }
        match check(answer.trim()) {
            Ok(answer) => return Ok(answer),
            Err(why) => output::say(&format!("  {why}\n")),
        }
    }
}

fn words(line: &str) -> Result<Vec<String>, String> {
    match crate::adapter::shlex::split(line) {
        Ok(words) if words.is_empty() => Err("there is no command".to_owned()),
        Ok(words) => Ok(words),
        Err(why) => Err(why.to_owned()),
    }
}

fn instance_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    match text.chars().all(plain) && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.len() <= 64 {
        true => Ok(text.to_owned()),
        false => Err("letters, digits, `-`, `_` and `.`, a letter or digit first, 64 at most".to_owned()),
    }
}

fn directory(text: &str) -> Result<String, String> {
    match text.starts_with('/') && !text.contains(|c: char| c.is_control()) {
        true => Ok(text.to_owned()),
        false => Err("a directory is an absolute path: begin with /".to_owned()),
    }
}

fn user(text: &str) -> Result<String, String> {
    unit::check_account(text).map(str::to_owned)
}

/// A place that ListenStream=, Nginx and curl read alike.
fn listen(text: &str) -> Result<Address, String> {
    let address: Address = text.parse().map_err(|error: ParseAddressError| error.to_string())?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/_-.".contains(c);
    match &address {
        Address::Unix(path) if !path.to_string_lossy().chars().all(plain) => {
            Err("the path of a socket is letters, digits, `/`, `_`, `-` and `.`".to_owned())
        }
        Address::Unix(path) if !path.is_absolute() => Err("the path of a socket begins with /".to_owned()),
        Address::Abstract(_) => Err("Nginx passes to paths and to ports: name one of these".to_owned()),
        Address::Unix(_) | Address::Tcp(_) => Ok(address),
    }
}

/// One or more names of hosts, as Nginx's `server_name` takes them.
fn domain(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
    let name = |name: &str| !name.is_empty() && name.chars().all(plain) && name.len() <= 253;
    match !text.is_empty() && text.split(' ').all(name) {
        true => Ok(text.to_owned()),
        false => Err("a domain is letters, digits, `-` and `.`; several with one space between them".to_owned()),
    }
}

impl Application {
    /// The files, each whole.
    ///
    /// # Errors
    /// Why what was said cannot stand in one of them.
    fn files(&self) -> Result<Vec<NewFile>, String> {
        let Self { name, directory, user, .. } = self;
        let cannot = |why: String| format!("the directory {directory}: {why}");
        let configuration = [
            Line::comment(&format!(
                "The application {name}. Every key there is, with its default: /usr/share/doc/sockd/examples/default.toml"
            )),
            Line::blank(),
            toml::list("command", &self.command),
            toml::text("directory", directory),
        ];
        let writes = unit::path_in_list("ReadWritePaths", Path::new(directory), true).map_err(cannot)?;
        let service = [
            Line::comment(&format!(
                "Who the application {name} runs as, and where it may write: in its own directory alone."
            )),
            Line::blank(),
            unit::section("Service"),
            unit::account("User", user).map_err(|why| format!("the user {user}: {why}"))?,
            writes,
        ];
        let file = |path: String, lines: Vec<Line>| NewFile {
            path: path.into(),
            content: Content::Text(lines.into_iter().collect()),
        };
        let mut files = vec![
            file(format!("/etc/sockd/{name}.toml"), configuration.into()),
            file(format!("/etc/systemd/system/sockd@{name}.service.d/application.conf"), service.into()),
        ];
        if let Some(listen) = &self.listen {
            let stream = unit::listen_stream(listen, Percent::Letter).map_err(|why| format!("{listen}: {why}"))?;
            let socket = [
                Line::comment(&format!(
                    "Where the application {name} listens; the first line takes sockd@.socket's own path away."
                )),
                Line::blank(),
                unit::section("Socket"),
                unit::reset("ListenStream"),
                stream,
            ];
            files.push(file(format!("/etc/systemd/system/sockd@{name}.socket.d/application.conf"), socket.into()));
        }
        if let Some(domain) = &self.domain {
            let site = Path::new(SITES_AVAILABLE).join(name);
            files.push(file(site.display().to_string(), self.nginx(domain)?));
            if self.enable {
                files.push(NewFile { path: Path::new(SITES_ENABLED).join(name), content: Content::Link(site) });
            }
        }
        Ok(files)
    }

    /// Where it listens, as curl and Nginx write it: a path, or HOST:PORT.
    fn address(&self) -> String {
        match &self.listen {
            None => format!("/run/sockd/{}.sock", self.name),
            Some(Address::Unix(path)) => path.display().to_string(),
            Some(other) => other.to_string(),
        }
    }

    fn nginx(&self, domain: &str) -> Result<Vec<Line>, String> {
        let Self { name, directory, .. } = self;
        let address = self.address();
        let address = if address.starts_with('/') { format!("unix:{address}") } else { address };
        let root =
            nginx::directive(2, "root", [directory]).map_err(|why| format!("the directory {directory}: {why}"))?;
        let names = nginx::directive(1, "server_name", domain.split(' ')).map_err(|why| format!("{domain}: {why}"))?;
        let pass = nginx::directive(2, "proxy_pass", [format!("http://{address}")]);
        Ok(vec![
            Line::comment(&format!("The site of the application {name}, served by sockd@{name}.")),
            nginx::begin(0, "server"),
            nginx::directive(1, "listen", ["80"])?,
            nginx::directive(1, "listen", ["[::]:80"])?,
            names,
            Line::blank(),
            nginx::comment(1, "Django's collectstatic, if STATIC_ROOT is there:"),
            nginx::out_of_effect(nginx::begin(1, "location /static/")),
            nginx::out_of_effect(root),
            nginx::out_of_effect(nginx::end(1)),
            Line::blank(),
            nginx::begin(1, "location /"),
            nginx::directive(2, "include", ["proxy_params"])?,
            pass.map_err(|why| format!("{address}: {why}"))?,
            nginx::end(1),
            nginx::end(0),
        ])
    }
}

/// What was written, and what is typed next.
fn summary(files: &[NewFile], application: &Application) -> String {
    let Application { name, enable, domain, .. } = application;
    let address = application.address();
    let visit = match address.starts_with('/') {
        true => format!("curl --unix-socket {address} localhost"),
        false => format!("curl {address}"),
    };
    let mut text: String = files.iter().map(|file| format!("wrote {}\n", file.path.display())).collect();
    let mut steps = vec![
        ("systemctl daemon-reload".to_owned(), "systemd reads what was written"),
        (format!("sockd check {name}"), "tells what is wrong with it"),
        (format!("systemctl enable --now sockd@{name}.socket"), "listens; the first visitor starts the application"),
        (visit, "is that visitor"),
    ];
    if domain.is_some() && !enable {
        steps.push((format!("ln -s {SITES_AVAILABLE}/{name} {SITES_ENABLED}/"), "enables the site"));
    }
    if domain.is_some() {
        steps.push(("nginx -t && systemctl reload-or-restart nginx".to_owned(), "shows the site to everybody"));
    }
    steps.push((format!("sockd status {name}"), "shows it; reload, logs, doctor and check take the same name"));
    steps.push((format!("sockd new --undo {name}"), "takes everything back"));
    let width = steps.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    text.push_str("\nNext:\n");
    steps.iter().for_each(|(command, what)| text.push_str(&format!("  {command:width$}  {what}\n")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn what_is_written_is_what_was_said() {
        // Nothing that a directory or an argument may hold gets out of its place.
        for word in ["a b", "\"quoted\"", "back\\slash", "tab\there", "ümläut", "'", "#", "\u{7f}"] {
            let application = Application {
                name: "shop".to_owned(),
                directory: "/srv/the shop".to_owned(),
                user: "sammy".to_owned(),
                listen: None,
                domain: None,
                enable: false,
                command: vec!["venv/bin/gunicorn".to_owned(), word.to_owned()],
            };
            let files = application.files().expect("nothing in it is refused");
            let Content::Text(text) = &files[0].content else { panic!("a text") };
            let file = std::env::temp_dir().join(format!("sockd-new-{}.toml", std::process::id()));
            std::fs::write(&file, text.as_str()).expect("written");
            let options = config::Options { config: Some(file.clone()), ..config::Options::default() };
            let settings = config::load(None, &options).unwrap_or_else(|e| panic!("{word:?}: {e}")).settings;
            std::fs::remove_file(file).expect("removed");
            assert_eq!(settings.command, ["venv/bin/gunicorn", word]);
            assert_eq!(settings.directory.as_deref(), Some(Path::new("/srv/the shop")));
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for (check, good, bad) in [
            (
                instance_name as fn(&str) -> Result<String, String>,
                vec!["shop", "a.b-c_1"],
                vec!["", "-a", "a/b", "a b", ".", "ä"],
            ),
            (directory, vec!["/", "/srv/a b"], vec!["", "srv", "~/x", "/a\nb"]),
            (
                |text| listen(text).map(|_| text.to_owned()),
                vec!["/run/shop.sock", "127.0.0.1:8000", "[::1]:8000"],
                vec!["", "shop.sock", "@shop", "/run/a b", "example.com:80", "/run/%i"],
            ),
            (user, vec!["sammy", "www-data", "_apt"], vec!["", "-x", "a b", "sam;my", "root:root"]),
            (domain, vec!["example.com", "a.b c.d"], vec!["", "a;b", "a  b", "{", "ä.com"]),
        ] {
            good.iter().for_each(|text| assert_eq!(check(text).as_deref(), Ok(*text)));
            bad.iter().for_each(|text| assert!(check(text).is_err(), "{text:?} was taken"));
        }
    }
}
