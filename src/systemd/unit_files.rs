//! The unit files on disk: for finding units that systemd has not loaded.
//!
//! Owns: the directories of the system manager, and which file speaks of which unit.
//! Never: interprets a unit file. What a unit really does is asked of systemd; a file only says whom to ask about.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Where the system manager looks for units (systemd.unit(5), "Unit File Load Path"), without what only it writes.
const DIRECTORIES: [&str; 6] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// Unit files are far smaller; anything longer is none of ours.
const FILE_LIMIT: u64 = 64 << 10;

/// The services whose file or drop-in holds `word`, by name. Templates are left out: only their instances are units.
/// What cannot be read is left out, too.
pub fn services_mentioning(word: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for directory in DIRECTORIES {
        // /lib is a link to /usr/lib on today's systems.
        let Ok(directory) = fs::canonicalize(directory) else { continue };
        if seen.insert(directory.clone()) {
            search(&directory, word, &mut names);
        }
    }
    names
}

fn search(directory: &Path, word: &str, names: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let file = entry.file_name();
        let Some(file) = file.to_str() else { continue };
        let (name, drop_ins) = match file.strip_suffix(".d") {
            Some(name) => (name, true),
            None => (file, false),
        };
        // `a@.service` is a template; `a-.service.d` is for every unit whose name begins so.
        if !name.ends_with(".service") || name.ends_with("@.service") || name.ends_with("-.service") {
            continue;
        }
        let found = match drop_ins {
            false => mentions(&entry.path(), word),
            true => fs::read_dir(entry.path())
                .is_ok_and(|drop_ins| drop_ins.flatten().any(|drop_in| mentions(&drop_in.path(), word))),
        };
        if found {
            names.insert(name.to_owned());
        }
    }
}

fn mentions(file: &Path, word: &str) -> bool {
    // The length first: a unit may be linked to a device, and a device may have no end.
    let small = fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= FILE_LIMIT);
    small && fs::read(file).is_ok_and(|text| text.windows(word.len()).any(|part| part == word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_files_and_drop_ins_and_no_templates() {
        let directory = std::env::temp_dir().join(format!("sockd-test-unit-files-{}", std::process::id()));
        let write = |file: &str, text: &str| {
            let path = directory.join(file);
            fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            fs::write(path, text).expect("written");
        };
        let line = "ExecStart=/usr/bin/sockd run -- gunicorn\n";
        write("a.service", line);
        write("b.service", "ExecStart=/usr/bin/gunicorn\n");
        write("b.service.d/50-sockd.conf", line);
        write("c.service", "ExecStart=/usr/bin/gunicorn\n");
        write("d@.service", line);
        write("e-.service.d/x.conf", line);
        write("f.socket", line);
        write("g.service", &"#".repeat(100_000));
        std::os::unix::fs::symlink("/dev/null", directory.join("masked.service")).expect("linked");
        std::os::unix::fs::symlink("/dev/zero", directory.join("endless.service")).expect("linked");
        let mut names = BTreeSet::new();
        search(&directory, "sockd", &mut names);
        search(&directory.join("missing"), "sockd", &mut names);
        fs::remove_dir_all(&directory).expect("removed");
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a.service", "b.service"]);
    }
}
