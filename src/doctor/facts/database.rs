//! Django's settings, and the databases that they or a traceback name.
//!
//! Owns: the few lines of a settings file that are read, and the attempts to connect.
//! Never: runs the settings, connects to another machine, or says anything to a database.

use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Cluster, Database, Facts, Setting, Settings, file, http};
use crate::doctor::{target, traceback};

/// How long a connection to this machine may take.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(2);
/// PostgreSQL's port when the settings name none.
const POSTGRES: u16 = 5432;
/// Where Debian has the clusters' configurations and sockets.
const CLUSTERS: &str = "/etc/postgresql";
const SOCKETS: &str = "/var/run/postgresql";

/// Finds the settings of a Django project: DJANGO_SETTINGS_MODULE, else beside the module that ExecStart= names.
pub fn settings(facts: &Facts) -> Option<Settings> {
    let service = &facts.service;
    let directory = Path::new(&service.working_directory);
    let environment = target::environment(service);
    let named = environment.get(std::ffi::OsStr::new("DJANGO_SETTINGS_MODULE")).and_then(|value| value.to_str());
    let module = named.map(str::to_owned).or_else(|| {
        let application = target::command(service).last()?;
        let package = application.split(':').next()?.rsplit_once('.')?.0;
        Some(format!("{package}.settings"))
    })?;
    let file: PathBuf = directory.join(module.replace('.', "/") + ".py");
    let file = file::read(&file).ok()?;
    let mut settings = read(&file.path, &file.text);
    if let Some(root) = &mut settings.static_root {
        let base = directory.display().to_string();
        root.values.iter_mut().for_each(|path| *path = path.replace("BASE_DIR", &base));
    }
    Some(settings)
}

/// The last assignment of each counts, as in Python. What is no plain text is left out: only Python knows it.
fn read(file: &str, text: &str) -> Settings {
    let mut settings = Settings { file: file.to_owned(), ..Settings::default() };
    for (at, line) in text.lines().enumerate() {
        let setting = |values: Vec<String>| Some(Setting { line: at + 1, values });
        if let Some(rest) = line.strip_prefix("ALLOWED_HOSTS") {
            let list = rest.trim_start().strip_prefix('=').map(str::trim);
            let list = list.and_then(|list| list.strip_prefix('[')?.split_once(']'));
            settings.allowed_hosts = list.and_then(|(inner, _)| setting(strings(inner)));
            continue;
        }
        if let Some(rest) = line.strip_prefix("STATIC_ROOT") {
            let value = rest.trim_start().strip_prefix('=').map(str::trim);
            settings.static_root = value.and_then(static_root).and_then(|path| setting(vec![path]));
            continue;
        }
        for (key, place) in [
            ("ENGINE", &mut settings.engine),
            ("HOST", &mut settings.database_host),
            ("PORT", &mut settings.database_port),
        ] {
            let trimmed = line.trim_start();
            let rest = ['\'', '"'].iter().find_map(|quote| trimmed.strip_prefix(&format!("{quote}{key}{quote}")));
            if let Some(value) = rest.and_then(|rest| rest.trim_start().strip_prefix(':')) {
                let plain = value.split(',').next().unwrap_or_default().trim();
                let values = if plain.parse::<u16>().is_ok() { vec![plain.to_owned()] } else { strings(value) };
                *place = setting(values);
            }
        }
    }
    settings
}

/// `'/srv/static'`, `BASE_DIR / 'static'`, `os.path.join(BASE_DIR, 'static/')`, as Django's own pages write it. The base
/// of a project that Django has made is where its manage.py is: the directory of the service.
fn static_root(value: &str) -> Option<String> {
    let below = value.starts_with("BASE_DIR /") || value.starts_with("os.path.join(BASE_DIR,");
    let written = strings(value);
    match written.as_slice() {
        [] => None,
        parts if below => Some(format!("BASE_DIR/{}", parts.join("/").trim_matches('/'))),
        [path] if path.starts_with('/') && value.starts_with(['\'', '"']) => {
            Some(path.trim_end_matches('/').to_owned())
        }
        _ => None,
    }
}

/// Every quoted text of a line, up to a comment.
fn strings(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['\'', '"', '#']) {
        let quote = &rest[at..=at];
        if quote == "#" {
            break;
        }
        let Some((inner, after)) = rest[at + 1..].split_once(quote) else { break };
        found.push(inner.to_owned());
        rest = after;
    }
    found
}

/// Tries to reach every database that is named and is on this machine.
pub fn databases(facts: &Facts) -> Vec<Database> {
    let mut named: Vec<(String, u16, &str)> = Vec::new();
    if let Some(settings) = &facts.settings {
        let first = |setting: &Option<Setting>| setting.as_ref().and_then(|setting| setting.values.first()).cloned();
        let postgres = first(&settings.engine).is_some_and(|engine| engine.contains("postgres"));
        let host = first(&settings.database_host).unwrap_or_default();
        let port = first(&settings.database_port).unwrap_or_default();
        let port = if port.is_empty() { Some(POSTGRES) } else { port.parse().ok() };
        named.extend(port.filter(|_| postgres).map(|port| (host, port, "settings")));
    }
    let refused = traceback::refused_databases(&facts.journal).into_iter();
    for (host, port) in refused {
        if !named.iter().any(|known| known.1 == port) {
            named.push((host, port, "traceback"));
        }
    }
    let try_it = |(host, port, source): (String, u16, &str)| {
        let reached = reach(&host, port);
        Database { host, port, source: source.to_owned(), reached }
    };
    named.into_iter().map(try_it).collect()
}

/// Whether somebody listens. `None`: it is on another machine, or its name is not known.
fn reach(host: &str, port: u16) -> Option<bool> {
    if host.is_empty() || host.starts_with('/') {
        let directory = if host.is_empty() { SOCKETS } else { host };
        let socket = format!("{directory}/.s.PGSQL.{port}");
        return match http::connect(&socket) {
            Ok(_) => Some(true),
            // Somebody listens, and does not come to it.
            Err(error) => Some(error.kind() == std::io::ErrorKind::ResourceBusy),
        };
    }
    // A name server could keep us waiting: only this machine's own names are looked up.
    let known = host == "localhost" || host.parse::<IpAddr>().is_ok();
    let addresses: Vec<SocketAddr> = if known { (host, port).to_socket_addrs().ok()?.collect() } else { Vec::new() };
    let local: Vec<SocketAddr> = addresses.into_iter().filter(|address| address.ip().is_loopback()).collect();
    (!local.is_empty()).then_some(())?;
    Some(local.iter().any(|address| TcpStream::connect_timeout(address, DATABASE_TIMEOUT).is_ok()))
}

/// The clusters that Debian's packages keep: /etc/postgresql/VERSION/NAME.
pub fn clusters() -> Vec<Cluster> {
    let below = |path: &Path| {
        let mut paths: Vec<_> = std::fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path()).collect();
        paths.sort();
        paths
    };
    let mut found = Vec::new();
    for version in below(Path::new(CLUSTERS)) {
        for cluster in below(&version) {
            let Ok(file) = file::read(&cluster.join("postgresql.conf")) else { continue };
            let port = port(&file.text);
            let part =
                |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let name = format!("{}-{}", part(&version), part(&cluster));
            let reached = reach("localhost", port) == Some(true) || reach("", port) == Some(true);
            found.push(Cluster { name, port, reached });
        }
    }
    found
}

/// `port = 5432  # comment`.
fn port(text: &str) -> u16 {
    let value = |line: &str| {
        line.trim().strip_prefix("port")?.trim_start().strip_prefix('=')?.split('#').next()?.trim().parse().ok()
    };
    text.lines().filter_map(value).next_back().unwrap_or(POSTGRES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guides_settings_are_read() {
        let text = "ALLOWED_HOSTS = []\nDATABASES = {'default': {'ENGINE': 'x'}}\n\
                    ALLOWED_HOSTS = ['example.com', \"localhost\"]  # ['no']\nDATABASES = {\n    'default': {\n\
                    \t'ENGINE': 'django.db.backends.postgresql',\n        'HOST': 'localhost',\n        'PORT': '',\n    }\n}\n";
        let found = read("settings.py", text);
        let setting =
            |line, values: &[&str]| Some(Setting { line, values: values.iter().map(|&v| v.to_owned()).collect() });
        assert_eq!(found.allowed_hosts, setting(3, &["example.com", "localhost"]));
        assert_eq!(found.engine, setting(6, &["django.db.backends.postgresql"]));
        assert_eq!((found.database_host, found.database_port), (setting(7, &["localhost"]), setting(8, &[""])));
        for (value, path) in [
            ("BASE_DIR / 'static'", Some("BASE_DIR/static")),
            ("os.path.join(BASE_DIR, 'static/')", Some("BASE_DIR/static")),
            ("\"/srv/static/\"  # here", Some("/srv/static")),
            ("env('STATIC')", None),
            ("'static'", None),
        ] {
            let found = read("x", &format!("STATIC_ROOT = {value}\n")).static_root;
            assert_eq!(found, path.and_then(|path| setting(1, &[path])), "{value}");
        }
        assert_eq!(read("x", "'PORT': 5433,").database_port, setting(1, &["5433"]));
        assert_eq!(read("x", "ALLOWED_HOSTS = env('HOSTS')\nALLOWED_HOSTS += ['a']").allowed_hosts, None);
    }

    #[test]
    fn ports_are_tried_and_strangers_are_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        assert_eq!(reach("localhost", port), Some(true));
        // No test that runs beside this one is ever given a port as low as that.
        assert_eq!(reach("127.0.0.1", 1), Some(false));
        assert_eq!((reach("192.0.2.1", port), reach("db.example", port)), (None, None));
        assert_eq!(super::port("#port = 1\nport = 5433\t# (change requires restart)\n"), 5433);
    }
}
