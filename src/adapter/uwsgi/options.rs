//! uWSGI's options, as far as they concern the keeper of its sockets and its processes.
//!
//! Names and letters are those of uWSGI 2.0.31 (`core/uwsgi.c`, `plugins/http`, `plugins/python`).

/// What becomes of one option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It names a socket; a worker takes ours by the option of this name.
    Socket(&'static str),
    /// How many workers.
    Processes,
    /// The permissions of unix sockets.
    Mode,
    /// Seconds that a worker may finish its requests.
    Mercy,
    /// The working directory; uWSGI gets it as well.
    Directory,
    /// A configuration file.
    Ini,
    /// A configuration file, if its name says that it is an .ini.
    Include,
    /// The same, but what it says comes after everything else.
    Inherit,
    /// sockd does this, or it makes no difference.
    Dropped,
    /// sockd does this otherwise; its owner should know how.
    Replaced(&'static str),
    /// It would be wrong in every one of several uWSGIs; what to do instead.
    Refused(&'static str),
    /// uWSGI's own business.
    Kept,
}

const OWN_UNIT: &str =
    "sockd runs one uWSGI for each worker, and each would do it: give it a service or a timer of its own";
const ONE_SITE: &str = "sockd runs one site: make an instance of sockd for each";
const NO_TLS: &str = "let Nginx in front of it speak TLS";
const ONLY_INI: &str = "sockd reads .ini files: write the configuration as one";

/// How many requests a worker serves at the same time, where that is more than one.
pub(super) const SEVERAL_AT_A_TIME: [&str; 4] = ["threads", "gevent", "async", "asyncio"];

/// What becomes of the option of this name.
pub(super) fn fate(name: &str) -> Fate {
    match name {
        "socket" => Fate::Socket("socket"),
        "uwsgi-socket" => Fate::Socket("uwsgi-socket"),
        // The router of `http` is a process of its own in front of the workers; with sockd they speak HTTP themselves.
        "http" | "http-router" | "httprouter" | "http-socket" => Fate::Socket("http-socket"),
        "http11-socket" => Fate::Socket("http11-socket"),
        "fastcgi-socket" => Fate::Socket("fastcgi-socket"),
        "fastcgi-nph-socket" => Fate::Socket("fastcgi-nph-socket"),
        "scgi-socket" => Fate::Socket("scgi-socket"),
        "scgi-nph-socket" => Fate::Socket("scgi-nph-socket"),
        "puwsgi-socket" => Fate::Socket("puwsgi-socket"),
        "processes" | "workers" => Fate::Processes,
        "chmod-socket" | "chmod" => Fate::Mode,
        "worker-reload-mercy" | "reload-mercy" => Fate::Mercy,
        "chdir" => Fate::Directory,
        "ini" => Fate::Ini,
        "include" => Fate::Include,
        "inherit" => Fate::Inherit,
        "master" | "die-on-term" | "need-app" | "vacuum" | "lazy" | "lazy-apps" | "listen" | "chown-socket"
        | "no-orphans" | "log-master" | "cheap" | "idle" | "http-processes" | "http-workers" | "http-to"
        | "exit-on-reload" | "auto-procname" | "vassal-sos" | "chain-reload" => Fate::Dropped,
        "daemonize" | "daemonize2" => Fate::Replaced("sockd's workers stay in the foreground and log to the journal"),
        "pidfile" | "pidfile2" | "safe-pidfile" | "safe-pidfile2" => {
            Fate::Replaced("signal the unit by `systemctl kill`, which finds the process by itself")
        }
        "stats" | "stats-server" | "stats-http" => Fate::Replaced("`sockd status` shows the workers"),
        "max-worker-lifetime" => Fate::Replaced("uWSGI heeds it with a master alone"),
        "master-fifo" | "notify-socket" => Fate::Replaced("control it by systemctl"),
        "map-socket" => Fate::Replaced("every worker serves every socket"),
        "xml" | "xmlconfig" | "yaml" | "yml" | "json" | "js" | "config" | "ini-paste" | "ini-paste-logged"
        | "fallback-config" => Fate::Refused(ONLY_INI),
        "https" | "https2" | "https-socket" | "suwsgi-socket" | "ssl-socket" | "http-to-https" => Fate::Refused(NO_TLS),
        "shared-socket" | "undeferred-shared-socket" | "raw-socket" | "udp" | "setns-socket" => {
            Fate::Refused("sockd hands over sockets that listen")
        }
        "mule" | "mules" | "farm" | "cron" | "cron2" | "timer" | "rbtimer" => Fate::Refused(OWN_UNIT),
        _ => by_prefix(name),
    }
}

fn by_prefix(name: &str) -> Fate {
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    if begins(&["cheaper", "cheap-"]) {
        return Fate::Dropped;
    }
    if begins(&["touch-", "fs-reload", "fs-brutal-reload", "py-auto", "python-auto"]) {
        return Fate::Replaced("reload by systemctl, from a .path unit where it should happen by itself");
    }
    let own_unit = ["spooler", "attach-", "smart-attach-", "unique-cron", "legion", "signal-timer", "signal-rbtimer"];
    if begins(&own_unit) {
        return Fate::Refused(OWN_UNIT);
    }
    if begins(&["emperor", "vassal", "zerg", "subscribe", "fastrouter", "rawrouter"]) {
        return Fate::Refused(ONE_SITE);
    }
    Fate::Kept
}

/// Whether an option takes a value, where that is known. uWSGI takes it from the next word unless it is joined by `=`.
pub(super) fn takes_value(name: &str) -> Option<bool> {
    match name {
        "master" | "die-on-term" | "vacuum" | "lazy" | "lazy-apps" | "no-orphans" | "log-master" | "cheap"
        | "exit-on-reload" | "stats-http" | "auto-procname" => Some(false),
        // Only joined.
        "need-app" | "chmod-socket" | "chmod" => Some(false),
        _ if fate(name) != Fate::Kept || SEVERAL_AT_A_TIME.contains(&name) => Some(true),
        _ => None,
    }
}

/// The long name of a letter, and whether it takes a value. `None`: no letter of uWSGI's.
pub(super) fn by_letter(letter: char) -> Option<(&'static str, bool)> {
    Some(match letter {
        's' => ("socket", true),
        'p' => ("processes", true),
        'l' => ("listen", true),
        'd' => ("daemonize", true),
        'x' => ("xml", true),
        'y' => ("yaml", true),
        'j' => ("json", true),
        'Q' => ("spooler", true),
        't' => ("harakiri", true),
        'v' => ("max-vars", true),
        'b' => ("buffer-size", true),
        'H' => ("home", true),
        'O' => ("optimize", true),
        'R' => ("max-requests", true),
        'S' => ("set", true),
        'J' => ("test", true),
        'w' => ("wsgi", true),
        'z' => ("socket-timeout", true),
        // Joined: -C660.
        'C' => ("chmod-socket", false),
        'M' => ("master", false),
        'L' => ("disable-logging", false),
        'T' => ("enable-threads", false),
        'a' => ("abstract-socket", false),
        'c' => ("cgi-mode", false),
        'h' => ("help", false),
        'i' => ("single-interpreter", false),
        'm' => ("memory-report", false),
        'r' => ("reaper", false),
        _ => return None,
    })
}
