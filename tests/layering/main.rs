//! What the source must keep to, read from the source: who may import whom, where unsafe code may live, how long a file
//! may be, what may lie at the top of the repository, and that the decision core needs nothing but `std`.
//!
//! A failure names every offence with its place and says what to do.

mod circles;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The only file with unsafe code.
const UNSAFE_FILE: &str = "src/process/spawn.rs";
/// The most lines of a file.
const MOST_LINES: usize = 600;
/// Files that may be longer, and how long.
const LONGER: [(&str, usize); 1] = [("tests/python/test_gunicorn.py", 1100)];
/// What may lie at the top of the repository: the house rule's own, and what tools and packagers look for there.
const TOP: [&str; 17] = [
    ".ci",
    ".git",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "clippy.toml",
    "deny.toml",
    "packaging",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "src",
    "tests",
    "units",
];

/// What a stranger searches for, and the file that he wants.
const SEARCHES: [(&str, &str); 38] = [
    ("unhealthy", "src/supervisor/health.rs"),
    ("retry", "src/supervisor/backoff.rs"),
    ("timeouts", "src/supervisor/spec.rs"),
    ("backlog", "src/daemon/listener_monitor.rs"),
    ("pid reuse", "src/daemon/unclaimed_exits.rs"),
    ("log queue", "src/journal/queue.rs"),
    ("cgroup of a worker", "src/cgroup/group.rs"),
    ("worker cgroups", "src/daemon/workers/cgroups.rs"),
    ("reload client", "src/control/server.rs"),
    ("heartbeat", "src/supervisor/heartbeat.rs"),
    ("scoreboard", "src/scoreboard.rs"),
    ("server statistics", "src/server_stats/mod.rs"),
    ("canary", "src/supervisor/rollout.rs"),
    ("drain", "src/supervisor/worker/leaving.rs"),
    ("graceful shutdown", "src/supervisor/shutdown.rs"),
    ("first connection", "src/listener/wait.rs"),
    ("socket activation", "src/listener/inherit.rs"),
    ("watchdog", "src/systemd/notify.rs"),
    ("probe HTTP", "src/probe/mod.rs"),
    ("OOM", "src/cgroup/watch.rs"),
    ("zombie", "src/process/reap.rs"),
    ("traceback", "src/process/reason.rs"),
    ("LimitNOFILE", "src/process/rlimit.rs"),
    ("rate limit", "src/daemon/log_limit.rs"),
    ("crash loop", "src/daemon/repeats.rs"),
    ("logrotate", "src/daemon/signals.rs"),
    ("event loop", "src/daemon/event_loop/mod.rs"),
    ("orphans", "src/daemon/orphans.rs"),
    ("503 fallback", "src/fallback/mod.rs"),
    ("waiting clients", "src/daemon/waiting_clients.rs"),
    ("templates", "src/daemon/templates.rs"),
    ("service manager", "src/daemon/service_manager.rs"),
    ("metrics", "src/metrics/mod.rs"),
    ("HTTP status socket", "src/status_socket.rs"),
    ("history file", "src/history/file.rs"),
    ("rollback", "src/history/rollback.rs"),
    ("flight recorder", "src/daemon/recorder/mod.rs"),
    ("recording file", "src/recording/file.rs"),
];
/// A search that finds more than this has found nothing.
const MAX_HITS: usize = 6;

/// A search finds a file by its path and by the first line of its documentation, which begins with what the thing is.
#[test]
fn a_stranger_finds_the_place() {
    let files: Vec<(String, String)> = files("src", "rs")
        .into_iter()
        .map(|path| {
            let text = read(&path);
            let first = text.lines().next().unwrap_or_default();
            let searched = format!("{} {first}", path.replace(['/', '_', '.'], " ")).to_lowercase();
            (path, searched)
        })
        .collect();
    let mut offences = Vec::new();
    for (search, wanted) in SEARCHES {
        let finds = |text: &str| search.to_lowercase().split(' ').all(|word| text.contains(word));
        let mut hits: Vec<&str> = files.iter().filter(|(_, text)| finds(text)).map(|(path, _)| path.as_str()).collect();
        // A folder is one place.
        if let Some(folder) = wanted.strip_suffix("mod.rs") {
            hits.retain(|path| *path == wanted || !path.starts_with(folder));
        }
        if !hits.contains(&wanted) || hits.len() > MAX_HITS {
            offences.push(format!("\"{search}\" is to find {wanted} and finds {hits:?}"));
        }
    }
    report(&offences, "Name the file, or begin its first line, with the word that one searches for.");
}

#[test]
fn arrows_go_down_only() {
    let ranks = ranks();
    let mut offences = Vec::new();
    for path in files("src", "rs") {
        let Some(from) = module(&path) else { continue };
        let Some(&rank) = ranks.get(from.as_str()) else {
            offences.push(format!("{path}: the module `{from}` has no place in the table of src/lib.rs"));
            continue;
        };
        for to in imports(&read(&path), depth(&path)) {
            match ranks.get(to.as_str()) {
                Some(&below) if below > rank || to == from => {}
                Some(&same) if same == rank => offences.push(format!("{path}: `{from}` uses its neighbour `{to}`")),
                Some(_) => offences.push(format!("{path}: `{from}` uses `{to}`, which is above it")),
                None => {
                    offences.push(format!("{path}: uses crate::{to}, which is no module of the table in src/lib.rs"))
                }
            }
        }
    }
    report(
        &offences,
        "Arrows go down only (src/lib.rs, \"Who may import whom\"). Move what both need below them, or let the one above \
         hand it in as an argument. A new module needs a line in that table.",
    );
}

#[test]
fn unsafe_code_lives_in_one_file() {
    let offences: Vec<String> = files("src", "rs")
        .into_iter()
        .filter(|path| path != UNSAFE_FILE)
        .filter(|path| words(&code(&read(path))).any(|word| word == "unsafe"))
        .collect();
    report(
        &offences,
        &format!("Unsafe code lives in {UNSAFE_FILE} alone: look for a safe way (rustix), or move it there."),
    );
}

#[test]
fn every_module_says_what_it_is_for() {
    let offences: Vec<String> = files("src", "rs").into_iter().filter(|path| !read(path).starts_with("//! ")).collect();
    report(&offences, "Begin the file with `//!` lines: what it is for, what it owns, what it must never do.");
}

#[test]
fn files_are_short() {
    let mut offences = Vec::new();
    for path in ["src", "tests"].into_iter().flat_map(|top| [files(top, "rs"), files(top, "py")].concat()) {
        let most = LONGER.iter().find(|(name, _)| *name == path).map_or(MOST_LINES, |&(_, most)| most);
        let lines = read(&path).lines().count();
        if lines > most {
            offences.push(format!("{path}: {lines} lines, {most} are allowed"));
        }
    }
    report(&offences, "Split the file where it does two things.");
}

#[test]
fn the_top_of_the_repository_is_tidy() {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let offences: Vec<String> = fs::read_dir(root())
        .expect("the repository")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| *path != target && path.file_name().is_some_and(|name| name != "target"))
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .filter(|name| !TOP.contains(&name.as_str()))
        .collect();
    report(
        &offences,
        "Put it below src, units, tests or packaging. What a tool must find at the top goes into TOP here.",
    );
}

/// It is a package of its own, so what it imports is what its manifest lists. The others see it as a module like theirs.
#[test]
fn the_core_needs_std_alone() {
    let manifest: toml::Table = read("src/supervisor/Cargo.toml").parse().expect("TOML");
    let mut offences = Vec::new();
    for table in ["dependencies", "dev-dependencies", "build-dependencies", "target"] {
        if manifest.get(table).and_then(toml::Value::as_table).is_some_and(|listed| !listed.is_empty()) {
            offences.push(format!("src/supervisor/Cargo.toml: [{table}] is not empty"));
        }
    }
    let by_name = |path: &String| path != "src/lib.rs" && code(&read(path)).contains("sockd_supervisor");
    offences.extend(files("src", "rs").into_iter().filter(by_name).map(|path| format!("{path}: sockd_supervisor")));
    report(&offences, "The core (src/supervisor) needs no crate; the others import it as crate::supervisor.");
}

/// `std` has them, the core must not: with one of these the same seed would no longer give the same effects.
#[test]
fn the_core_asks_for_neither_time_nor_randomness_nor_system() {
    let forbidden =
        ["Instant", "SystemTime", "HashMap", "HashSet", "RandomState", "env", "fs", "io", "net", "os", "thread"];
    let mut offences = Vec::new();
    for path in files("src/supervisor", "rs") {
        let code = code(&read(&path));
        let found = words(&code).filter(|word| forbidden.contains(word)).collect::<BTreeSet<_>>();
        offences.extend(found.into_iter().map(|word| format!("{path}: {word}")));
    }
    report(
        &offences,
        "The core is given the time, a seed and what happened; it keeps order (BTreeMap). See src/lib.rs.",
    );
}

/// What a path of others leads to may be a pipe or have no end, and what others wrote may act on a terminal: there is one
/// way to open the first, and one to print the second.
#[test]
fn files_are_opened_and_screens_written_in_one_way() {
    let openings = ["File::open(", "fs::read(", "fs::read_to_string("];
    // What the kernel and root alone write.
    let trusted = ["\"/proc/", "\"/etc/passwd\"", "format!(\"/proc/"];
    let screens = ["stdout()", "stderr()", "print!(", "println!("];
    let mut offences = Vec::new();
    for path in
        ["src/cli", "src/config", "src/doctor", "src/systemd", "src/adapter"].map(|top| files(top, "rs")).concat()
    {
        let text = read(&path);
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (index, line) in code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            let foreign = openings
                .iter()
                .filter_map(|call| line.split_once(call))
                .any(|(_, argument)| !trusted.iter().any(|begin| argument.starts_with(begin)));
            let screen = path.starts_with("src/cli/") && !path.ends_with("/output.rs");
            if foreign {
                offences.push(format!("{path}:{}: open it by crate::regular_file", index + 1));
            }
            if screen && screens.iter().any(|call| line.contains(call)) {
                offences.push(format!("{path}:{}: write to it by cli::output", index + 1));
            }
        }
    }
    report(&offences, "Both are there so that nobody can forget what they are for.");
}

/// The program may be given away under its own two licences with everything that is compiled into it.
#[test]
fn every_dependency_has_a_licence_like_ours() {
    let deny: toml::Table = read("deny.toml").parse().expect("TOML");
    let welcome: Vec<&str> =
        deny["licenses"]["allow"].as_array().expect("a list").iter().filter_map(toml::Value::as_str).collect();
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform=x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .expect("cargo, since it compiled this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    assert!(packages.len() > 10, "too few packages: {}", packages.len());
    let mut offences = Vec::new();
    for package in packages {
        let licence = package["license"].as_str().unwrap_or("none");
        let plain = licence.replace(['(', ')'], "").replace('/', " OR ");
        if !plain.split(" AND ").all(|needed| needed.split(" OR ").any(|choice| welcome.contains(&choice.trim()))) {
            offences.push(format!("{} {}: {licence}", package["name"], package["version"]));
        }
    }
    report(&offences, "Find another crate, or read the licence and add it to deny.toml.");
}

/// What the README shows of `sockd status` is what the rendering's own test compares with.
#[test]
fn the_readme_shows_what_sockd_shows() {
    let shown = read("tests/cli/status/running.80.txt");
    assert!(read("README.md").contains(&shown), "Copy tests/cli/status/running.80.txt into README.md:\n{shown}");
}

/// The reader below sees what it should; without this the tests above could pass by seeing nothing.
#[test]
fn the_reader_reads() {
    let text = r##"
        // crate::comment
        use crate::{ one::{self, deep}, two, three as other };
        use super::super::queue::Five;
        fn f<'a>(_: &'a str) -> char { let _ = "crate::text \" unsafe"; let _ = r#"crate::raw " unsafe"#; '"' }
        /* crate::block */ fn g() { crate::six::run(); mycrate::seven(); }
    "##;
    let found: Vec<String> = imports(text, 2).into_iter().collect();
    assert_eq!(found, ["one", "queue", "six", "three", "two"]);
    assert!(!code(text).contains("unsafe"));
    assert!(words(&code("unsafe { }")).any(|word| word == "unsafe"));
    let ranks = ranks();
    assert!(
        ranks["cli"] < ranks["daemon"] && ranks["listener"] == ranks["notify"] && ranks["app"] < ranks["supervisor"]
    );
    assert!(files("src", "rs").len() > 50);
}

#[track_caller]
fn report(offences: &[String], what_to_do: &str) {
    assert!(offences.is_empty(), "{}\n\n{what_to_do}\n", offences.join("\n"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("cannot read {path}: {e}"))
}

/// Every file below `top` whose name ends in `.extension`, relative to the repository.
fn files(top: &str, extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![root().join(top)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory of the repository") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path.strip_prefix(root()).expect("below it").to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// The table of src/lib.rs: each module and its line, counted from the top.
fn ranks() -> BTreeMap<String, usize> {
    let text = read("src/lib.rs");
    let table = text.split("# Who may import whom").nth(1).expect("the chapter of src/lib.rs");
    let table = table.split("```").nth(1).expect("its table");
    let mut ranks = BTreeMap::new();
    for (rank, line) in table.lines().skip(1).enumerate() {
        let names = line.trim_start_matches("//!").split('(').next().expect("split gives one");
        ranks.extend(names.split_whitespace().map(|name| (name.to_owned(), rank)));
    }
    ranks
}

/// The top module that a file of `src` belongs to; `None` for lib.rs and main.rs, which are above all.
fn module(path: &str) -> Option<String> {
    let name = path.strip_prefix("src/")?.split('/').next()?.trim_end_matches(".rs");
    (name != "lib" && name != "main").then(|| name.to_owned())
}

/// How many `super::` lead from a file to the root of the crate.
fn depth(path: &str) -> usize {
    path.trim_end_matches("/mod.rs").matches('/').count()
}

/// The names that stand after `crate::` in a text, and after the `super::super::` that mean the same.
fn imports(text: &str, depth: usize) -> BTreeSet<String> {
    let code: String = code(text).split_whitespace().collect::<Vec<_>>().join(" ");
    let ranks = ranks();
    let mut found = BTreeSet::new();
    for start in ["crate::".to_owned(), "super::".repeat(depth)] {
        for (at, _) in code.match_indices(&start) {
            let before = &code[..at];
            // `mycrate::`, or one `super::` more.
            if before.ends_with(|c: char| c.is_alphanumeric() || c == '_') || before.ends_with("super::") {
                continue;
            }
            let rest = &code[at + start.len()..];
            let mut names = rest.strip_prefix('{').map_or_else(|| vec![first_name(rest)], first_names);
            // In `mod tests` the first `super::` is the file itself, and most names are that file's own.
            names.retain(|name| start == "crate::" || ranks.contains_key(name));
            found.extend(names);
        }
    }
    found
}

/// The first name of each element of a list `a::b, c, {…}` up to its closing brace.
fn first_names(list: &str) -> Vec<String> {
    let (mut names, mut level, mut begin) = (Vec::new(), 0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => level += 1,
            '}' if level > 0 => level -= 1,
            '}' | ',' if level == 0 => {
                names.push(first_name(list[begin..at].trim()));
                begin = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn first_name(path: &str) -> String {
    path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// A text of Rust without its comments and without what its literals hold.
fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let hashes = rest[1.min(rest.len())..].chars().take_while(|c| *c == '#').count();
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if c == 'r' && rest[1 + hashes..].starts_with('"') && !out.ends_with(|c: char| c.is_alphanumeric()) {
            let close = format!("\"{}", "#".repeat(hashes));
            let begin = hashes + 2;
            rest[begin..].find(&close).map_or(rest.len(), |end| begin + end + close.len())
        } else if c == '"' {
            quoted(rest, '"')
        } else if c == '\'' && (rest[1..].starts_with('\\') || rest.chars().nth(2) == Some('\'')) {
            quoted(rest, '\'')
        } else {
            0
        };
        if skip == 0 {
            out.push(c);
        }
        rest = &rest[skip.max(c.len_utf8())..];
    }
    out
}

/// How long a literal is that begins with a quotation mark, both marks included.
fn quoted(text: &str, mark: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == mark => return at + 1,
            _ => {}
        }
    }
    text.len()
}
