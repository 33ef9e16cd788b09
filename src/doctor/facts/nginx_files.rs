//! Reading Nginx's configuration from its files, and its error logs from their ends.
//!
//! The files are read rather than `nginx -T` asked: that prints nothing when there is a mistake, and wants root. What
//! `nginx -t` says of them is a fact of its own.
//!
//! Owns: which files are read. Never: more than [`MAX_FILES`] of them.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Account, File, Nginx, file, process};
use crate::doctor::nginx;
use crate::regular_file;
use crate::systemd::details::Details;
use crate::systemd::show;

/// Debian's, and most others'.
const MAIN: &str = "/etc/nginx/nginx.conf";
const AVAILABLE: &str = "/etc/nginx/sites-available";
const ERROR_LOG: &str = "/var/log/nginx/error.log";
/// So many files are read, all together.
const MAX_FILES: usize = 256;
/// So many error logs are read, and so much of the end of each, in bytes.
const MAX_LOGS: usize = 4;
const TAIL: u64 = 64 << 10;

/// Looks at Nginx. What could not be seen is added to `unseen`.
pub fn look(unit: &Details, root: bool, unseen: &mut Vec<String>) -> Nginx {
    let main = match file::read(Path::new(MAIN)) {
        Ok(main) => main,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Nginx::default(),
        Err(error) => {
            unseen.push(format!("{MAIN}: {error}"));
            return Nginx { installed: true, unread_files: true, ..Nginx::default() };
        }
    };
    let before = unseen.len();
    let files = included(main, unseen);
    let unread_files = unseen.len() > before;
    let configuration = nginx::read(&files);
    let pids = process::named("nginx");
    let user = if configuration.user.is_empty() { "nobody" } else { &configuration.user };
    let account = Account::find(user, "", &[]).map_err(|why| unseen.push(format!("the user of Nginx: {why}"))).ok();
    // Who it is may stand in a file that could not be read.
    let account = account.filter(|_| !configuration.user.is_empty() || !unread_files);
    let mut nginx = Nginx {
        installed: true,
        running: Some(!pids.is_empty()),
        enabled: (unit.load_state == "loaded").then(|| unit.unit_file_state == "enabled"),
        private_tmp: unit.private_tmp,
        unread: unread(&files, &pids),
        available: available(&files),
        unread_files,
        account,
        ..Nginx::default()
    };
    match root {
        true => nginx.test_error = test_error(),
        false => unseen.push("whether Nginx's configuration has no mistake: only root may run `nginx -t`".to_owned()),
    }
    let mut logs = configuration.error_logs;
    if logs.is_empty() {
        logs.push(ERROR_LOG.to_owned());
    }
    logs.dedup();
    for log in logs.iter().filter(|log| log.starts_with('/')).take(MAX_LOGS) {
        match tail(Path::new(log)) {
            Ok(lines) => nginx.error_log.extend(lines),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => unseen.push(format!("{log}: {error}")),
        }
    }
    let since = ten_minutes_ago();
    nginx.recent = nginx.error_log.iter().filter(|line| since.as_ref().is_some_and(|since| *line >= since)).count();
    nginx.files = files;
    nginx
}

/// The main file and all that it includes, and what those include.
fn included(main: File, unseen: &mut Vec<String>) -> Vec<File> {
    let mut files = vec![main];
    let mut at = 0;
    while at < files.len() && files.len() < MAX_FILES {
        for pattern in nginx::includes(&files[at]) {
            let pattern = nginx::absolute(&pattern, &files);
            for path in expand(&pattern) {
                // Types of files and the like would only make the facts long.
                let known = files.iter().any(|file| file.path == path) || path.ends_with("/mime.types");
                if known || files.len() >= MAX_FILES {
                    continue;
                }
                match file::read(Path::new(&path)) {
                    Ok(file) => files.push(file),
                    Err(error) => unseen.push(format!("{path}: {error}")),
                }
            }
        }
        at += 1;
    }
    files
}

fn expand(pattern: &str) -> Vec<String> {
    if !pattern.contains(['*', '?']) {
        return vec![pattern.to_owned()];
    }
    let Some((directory, _)) = pattern.rsplit_once('/') else { return Vec::new() };
    let mut found: Vec<String> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().display().to_string())
        .filter(|path| nginx::matches(pattern, path))
        .collect();
    found.sort();
    found
}

/// Sites that are there and not read.
fn available(files: &[File]) -> Vec<File> {
    let all = expand(&format!("{AVAILABLE}/*")).into_iter().take(MAX_FILES);
    let read = |path: &String| files.iter().any(|file| file.path == *path || file.real == *path);
    all.filter(|path| !read(path)).filter_map(|path| file::read(Path::new(&path)).ok()).collect()
}

/// Files that were written, or linked, after the youngest worker was started: a reload makes new workers.
fn unread(files: &[File], pids: &[u32]) -> Vec<String> {
    let Some(loaded) = pids.iter().filter_map(|pid| process::started(*pid)).max() else { return Vec::new() };
    let newer = |file: &&File| {
        let times = [fs::metadata(&file.path), fs::symlink_metadata(&file.path)];
        // A process's start is known to the second, rounded down.
        times.iter().flatten().any(|metadata| metadata.mtime() > loaded as i64 + 1)
    };
    files.iter().filter(newer).map(|file| file.path.clone()).collect()
}

/// The time as Nginx writes it at the beginning of its lines, ten minutes ago: both are local.
fn ten_minutes_ago() -> Option<String> {
    let (ok, text) = show::output("date", &["--date=10 minutes ago", "+%Y/%m/%d %H:%M:%S"]).ok()?;
    ok.then(|| text.trim().to_owned())
}

fn test_error() -> Option<String> {
    let (succeeded, text) = show::output("/usr/sbin/nginx", &["-t"]).ok()?;
    let said = text.lines().find(|line| line.contains("[emerg]")).or_else(|| text.lines().next());
    (!succeeded).then(|| said.unwrap_or_default().to_owned())
}

/// The last lines of a file, without the first, which may be cut.
fn tail(path: &Path) -> std::io::Result<Vec<String>> {
    let mut file = regular_file::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().skip(usize::from(length > TAIL)).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_long_log_is_read() {
        let path = std::env::temp_dir().join(format!("sockd-doctor-log-{}", std::process::id()));
        let text: String = (0..10_000).map(|number| format!("line {number} of the log\n")).collect();
        fs::write(&path, &text).expect("written");
        let lines = tail(&path).expect("read");
        fs::remove_file(&path).expect("removed");
        assert!(lines.len() > 1000 && lines.len() < 5000, "{}", lines.len());
        assert!(lines.iter().all(|line| line.starts_with("line ") && line.ends_with(" log")));
        assert_eq!(lines.last().map(String::as_str), Some("line 9999 of the log"));
    }
}
