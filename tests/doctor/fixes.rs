//! The fixes, executed by a shell on a copy of the files that they change: what is refused leaves every file as it was.
//!
//! Owns: the programs that the fixes call. Never: lets a fix touch a file of this machine.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sockd::doctor::Facts;

use super::{cases, diagnosis, facts};

/// The root of a machine that has the files of some facts.
struct Root {
    directory: PathBuf,
}

impl Drop for Root {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.directory));
    }
}

impl Root {
    fn new(name: &str, facts: &Facts) -> Self {
        let directory = std::env::temp_dir().join(format!("sockd-fix-{}-{name}", std::process::id()));
        let root = Self { directory };
        root.program("systemctl", "exit 0");
        root.program("sockd", "exit 0");
        root.program("runuser", "shift 3; exec \"$@\"");
        for directory in ["/etc/nginx/sites-available", "/etc/nginx/sites-enabled", "/tmp"] {
            fs::create_dir_all(root.path(directory)).expect("made");
        }
        for file in facts.nginx.files.iter().chain(&facts.nginx.available) {
            let path = if file.real.is_empty() { &file.path } else { &file.real };
            root.write(path, &file.text);
        }
        if let Some(settings) = &facts.settings {
            // Every line has what any setting is changed in.
            root.write(&settings.file, &"SETTING = ['5433']\n".repeat(200));
        }
        root
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.join("root").join(path.trim_start_matches('/'))
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
    }

    /// A program that writes its command line to a log.
    fn program(&self, name: &str, script: &str) {
        let bin = self.directory.join("bin");
        fs::create_dir_all(&bin).expect("made");
        let log = self.directory.join("log");
        let path = bin.join(name);
        let text = format!("#!/bin/sh\necho {name} \"$@\" >>{}\n{script}\n", log.display());
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
    }

    /// Executes a fix, with every path that it names below the root.
    fn execute(&self, fix: &str) -> Output {
        let mut fix = fix.to_owned();
        // A path is a word; in a script of sed it is a text.
        for top in [" /etc/nginx/", " /home/"] {
            fix = fix.replace(top, &format!(" {}{}", self.directory.join("root").display(), top.trim_start()));
        }
        let path = format!("{}:/usr/bin:/bin", self.directory.join("bin").display());
        let mut command = Command::new("sh");
        command.args(["-c", &fix]).env_clear().env("PATH", path).env("TMPDIR", self.path("/tmp"));
        command.output().expect("a shell")
    }

    /// What ran, line by line.
    fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Every file with its mode and what it holds, copies in /tmp apart.
    fn files(&self) -> BTreeMap<PathBuf, (u32, String)> {
        fn walk(directory: &Path, found: &mut BTreeMap<PathBuf, (u32, String)>) {
            for entry in fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path()) {
                if entry.is_dir() && !entry.is_symlink() {
                    walk(&entry, found);
                } else {
                    let mode = fs::symlink_metadata(&entry).expect("it is there").permissions().mode();
                    found.insert(entry.clone(), (mode, fs::read_to_string(&entry).unwrap_or_default()));
                }
            }
        }
        let mut found = BTreeMap::new();
        ["/etc", "/home"]
            .iter()
            .filter(|top| self.path(top).exists())
            .for_each(|top| walk(&self.path(top), &mut found));
        found
    }
}

/// Every fix of every case that changes a file and then asks somebody whether it is right.
fn checked_fixes(check: &str) -> Vec<(String, Facts, String)> {
    let mut found = Vec::new();
    for case in cases() {
        for finding in diagnosis(&case).findings {
            let fix = finding.fix.as_str();
            if fix
                .split_once(check)
                .is_some_and(|(before, _)| before.contains("/etc/nginx") || before.contains("sed -i"))
            {
                let name = case.file_stem().expect("a name").to_string_lossy().into_owned();
                found.push((format!("{name}-{}", finding.id), facts(&case), fix.to_owned()));
            }
        }
    }
    found
}

/// Executes each where the check refuses and where it does not.
fn each_is_done_or_not_at_all(check: &str, least: usize) {
    let fixes = checked_fixes(check);
    assert!(fixes.len() >= least, "{}", fixes.len());
    let who = check.trim_start_matches("{ ");
    let program = who.split(' ').next().expect("a program");
    for (name, facts, fix) in fixes {
        let root = Root::new(&name, &facts);
        let before = root.files();
        root.program(program, "exit 1");
        let output = root.execute(&fix);
        assert!(!output.status.success(), "{name}: {fix}: {output:?}");
        assert!(root.files() == before, "{name}: {fix}");
        assert!(root.log().iter().any(|line| line.starts_with(who)), "{name}: {fix}: {:?}", root.log());
        assert!(!root.log().iter().any(|line| line.contains("reload nginx")), "{name}: {fix}: {:?}", root.log());

        root.program(program, "exit 0");
        let output = root.execute(&fix);
        assert!(output.status.success() && output.stderr.is_empty(), "{name}: {fix}: {output:?}");
        assert!(root.files() != before, "{name}: {fix}");
        assert_eq!(fs::read_dir(root.path("/tmp")).expect("made").count(), 0, "{name}: a copy is left");
    }
}

/// Nginx's configuration has another mistake, which only `nginx -t` sees.
#[test]
fn what_nginx_would_not_read_is_taken_back() {
    each_is_done_or_not_at_all("{ nginx -t", 12);
}

/// The code on the disk has another mistake, which only the reload sees.
#[test]
fn what_a_reload_refuses_is_taken_back() {
    each_is_done_or_not_at_all("{ sockd reload", 1);
}

/// A restart of a server that does not start with the change is followed by one without it.
#[test]
fn what_a_server_does_not_start_with_is_taken_back() {
    each_is_done_or_not_at_all("{ systemctl restart", 2);
}

/// A change of Nginx's files is tested before it is read, and undone otherwise: no fix does it in another way.
#[test]
fn no_change_of_nginx_is_left_behind() {
    for case in cases() {
        for finding in diagnosis(&case).findings {
            let fix = finding.fix.as_str();
            if let Some((before, _)) = fix.split_once("nginx -t") {
                let changes = before.contains("/etc/nginx");
                assert!(!changes || before.ends_with("{ ") && fix.contains("false; }; }"), "{}: {fix}", case.display());
            }
        }
    }
}

/// Under sockd, code and configuration are loaded by a reload; a restart is for what needs a new main process, and the
/// finding says so.
#[test]
fn a_restart_of_sockd_says_why_it_is_one() {
    let mut reloads = 0;
    for case in cases() {
        let facts = facts(&case);
        let runs = facts.service.exec_start.iter().any(|word| word.ends_with("sockd")) && facts.service.main_pid != 0;
        if !runs || facts.service.active_state != "active" {
            continue;
        }
        for finding in diagnosis(&case).findings {
            let fix = finding.fix.as_str();
            let ends = ["systemctl restart gunicorn", "systemctl stop gunicorn"].iter().any(|end| fix.contains(end));
            let says_why = finding.why.contains("it takes a new main process");
            assert_eq!(ends, says_why, "{}: {}: {fix}", case.display(), finding.why);
            reloads += usize::from(fix.contains("sockd reload"));
        }
    }
    assert!(reloads >= 5, "{reloads}");
}
