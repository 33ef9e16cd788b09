//! Lines of unit files, each as systemd reads that very key (systemd.syntax(7), `src/shared/conf-parser.c` and
//! `src/core/load-fragment.c` of systemd 252).
//!
//! systemd ends a line at LF, CR and NUL, joins it with the next where it ends in a backslash, and skips the white space
//! around a value. It expands `%` in every value that is written here. Quotes and backslashes mean something in lists of
//! paths and in commands, and are letters like others in a single path.

use std::path::{Component, Path};

use super::{Line, plain};
use crate::app::Address;

/// What the kernel takes of a path, its last NUL with it, and of a file's name (limits.h).
const PATH_LIMIT: usize = 4096;
const NAME_LIMIT: usize = 255;

/// Where a value comes from: what its `%` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Percent {
    /// From elsewhere: a letter like others.
    Letter,
    /// From a unit file: the beginning of a specifier.
    Specifier,
}

/// `[Section]`.
pub fn section(name: &'static str) -> Line {
    Line(format!("[{name}]"))
}

/// A setting of our own words, specifiers among them.
pub fn fixed(key: &'static str, value: &'static str) -> Line {
    debug_assert!(single(value).is_ok(), "{key}={value}");
    Line(format!("{key}={value}"))
}

/// `KEY=`, which takes away what a list holds so far.
pub fn reset(key: &'static str) -> Line {
    Line(format!("{key}="))
}

/// A text for people, such as Description=.
///
/// # Errors
/// Why it cannot stand in a line.
pub fn text(key: &'static str, value: &str) -> Result<Line, String> {
    line(key, &single(value)?.replace('%', "%%"))
}

/// A user or a group, by name or by number.
///
/// # Errors
/// It is no name.
pub fn account(key: &'static str, name: &str) -> Result<Line, String> {
    line(key, check_account(name)?)
}

/// Refuses what is no name of a user or group: systemd's rule (systemd.exec(5), User=) without its relaxed forms, and
/// numbers as it reads them.
///
/// # Errors
/// "it is no name of a user or group".
pub fn check_account(name: &str) -> Result<&str, String> {
    let letters = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let begins = |c: char| c.is_ascii_alphabetic() || c == '_';
    // Two numbers are set apart (setreuid(2), and what they are in 16 bits).
    let number = name.parse::<u32>().is_ok_and(|id| id.to_string() == name && id != u32::MAX && id != 0xffff);
    match number || (name.starts_with(begins) && name.chars().all(letters) && name.len() < 32) {
        true => Ok(name),
        false => Err("it is no name of a user or group".to_owned()),
    }
}

/// A key that takes one path, such as WorkingDirectory=: neither quotes nor backslashes mean anything.
///
/// # Errors
/// Why systemd would not take it, or take another one for it.
pub fn path(key: &'static str, path: &Path) -> Result<Line, String> {
    line(key, &single(absolute(path)?)?.replace('%', "%%"))
}

/// One more path for a key with a list of them, such as ReadWritePaths=. With `optional` it need not be there.
///
/// # Errors
/// Why systemd would not take it.
pub fn path_in_list(key: &'static str, path: &Path, optional: bool) -> Result<Line, String> {
    let path = plain(absolute(path)?)?.replace('%', "%%");
    let bare = |c: char| c.is_ascii_alphanumeric() || "/_-.%".contains(c);
    let optional = if optional { "-" } else { "" };
    match path.chars().all(bare) {
        true => line(key, &format!("{optional}{path}")),
        false => line(key, &format!("\"{optional}{}\"", path.replace('\\', "\\\\").replace('"', "\\\""))),
    }
}

/// ListenStream=.
///
/// # Errors
/// Why systemd would not take the address.
pub fn listen_stream(address: &Address, percent: Percent) -> Result<Line, String> {
    let value = match address {
        Address::Unix(path) => absolute(path)?.to_owned(),
        Address::Abstract(name) => format!("@{name}"),
        Address::Tcp(address) => address.to_string(),
    };
    let value = single(&value)?;
    let specifiers = percent == Percent::Specifier;
    line("ListenStream", &if specifiers { value.to_owned() } else { value.replace('%', "%%") })
}

/// A variable for Environment=.
///
/// # Errors
/// Why systemd would not set it.
pub fn environment(name: &str, value: &str) -> Result<Line, String> {
    let value = plain(value)?.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    line("Environment", &format!("\"{}={value}\"", variable(name)?))
}

/// A variable in a file for EnvironmentFile= (`src/basic/env-file.c`), which knows no specifiers.
///
/// # Errors
/// Why systemd would not set it.
pub fn in_environment_file(name: &str, value: &str) -> Result<Line, String> {
    let mut written = format!("{}=\"", variable(name)?);
    for letter in plain(value)?.chars() {
        written.extend("\"\\`$".contains(letter).then_some('\\'));
        written.push(letter);
    }
    Ok(Line(written + "\""))
}

/// Refuses what systemd takes for no name of a variable (`env_name_is_valid`).
fn variable(name: &str) -> Result<&str, String> {
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match !name.starts_with(|c: char| c.is_ascii_digit()) && !name.is_empty() && name.chars().all(letters) {
        true => Ok(name),
        false => Err(format!("{name:?} is no name of a variable")),
    }
}

/// Permissions, 0 to 0o777.
pub fn mode(key: &'static str, mode: u32) -> Line {
    Line(format!("{key}={mode:04o}"))
}

/// A list of units.
///
/// # Errors
/// One of them is no name of a unit.
pub fn units(key: &'static str, names: &[String]) -> Result<Line, String> {
    // `%i` stands for the instance in the units of a template.
    let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    match names.iter().find(|name| name.is_empty() || !name.replace("@%i.", "@.").chars().all(plain)) {
        Some(name) => Err(format!("{name:?} is no name of a unit")),
        None => line(key, &names.join(" ")),
    }
}

/// A command: our own program, our own words, and behind them what a unit's own command line says, as it is written there.
///
/// `prefixes` are the characters that systemd lets stand before a command.
///
/// # Errors
/// A program's path that no command can begin with, or a command line that is not one.
pub fn command(
    key: &'static str,
    prefixes: &str,
    program: &Path,
    words: &'static str,
    written: &str,
) -> Result<Line, String> {
    let program = program.to_str().filter(|program| needs_no_quotes(program));
    let program = program.ok_or("the path of sockd is no path for a unit file: install sockd elsewhere")?;
    let space = if written.is_empty() { "" } else { " " };
    line(key, &format!("{prefixes}{program} {words}{space}{written}"))
}

/// Whether it is an absolute path that means itself in a command line.
pub fn needs_no_quotes(path: &str) -> bool {
    let bare = |c: char| c.is_ascii_alphanumeric() || "/_-.+~".contains(c);
    path.starts_with('/') && path.chars().all(bare)
}

/// A setting as a unit has it.
///
/// # Errors
/// It is more than one setting.
pub fn setting(key: &'static str, written: &str) -> Result<Line, String> {
    line(key, written)
}

/// What every value passes that is not our own.
fn line(key: &'static str, value: &str) -> Result<Line, String> {
    // An empty value takes away what is there.
    if value.is_empty() { Err("it is empty".to_owned()) } else { Ok(Line(format!("{key}={}", one_setting(value)?))) }
}

/// Refuses what would not be the whole value of one line.
fn single(value: &str) -> Result<&str, String> {
    if plain(value)?.ends_with('\\') {
        Err("it ends in a backslash, which joins a line with the next".to_owned())
    } else if value.trim() != value {
        Err("it begins or ends with a space, which systemd skips".to_owned())
    } else {
        Ok(value)
    }
}

/// Refuses what systemd takes for no path.
fn absolute(path: &Path) -> Result<&str, String> {
    let text = path.to_str().ok_or("it is not UTF-8, and systemd reads nothing else")?;
    if !path.is_absolute() {
        Err("it is no absolute path".to_owned())
    } else if path.components().any(|part| part == Component::ParentDir) {
        Err("systemd takes no path with `..`: write the real one".to_owned())
    } else if text.len() >= PATH_LIMIT || path.components().any(|part| part.as_os_str().len() > NAME_LIMIT) {
        // systemd would skip the line.
        Err("it is longer than a path can be".to_owned())
    } else {
        Ok(text)
    }
}

/// Refuses what is more than one setting: a text with line ends is one as long as each line but the last is continued.
fn one_setting(written: &str) -> Result<&str, String> {
    let mut lines = written.split('\n').peekable();
    while let Some(line) = lines.next() {
        let backslashes = line.len() - line.trim_end_matches('\\').len();
        let continued = backslashes % 2 == 1;
        if continued != lines.peek().is_some() {
            return Err("its lines do not belong together".to_owned());
        }
        plain(&line.replace('\t', " "))?;
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(line: Result<Line, String>) -> Result<String, String> {
        line.map(|line| line.as_str().to_owned())
    }

    #[test]
    fn what_ends_a_line_or_begins_another_is_refused_by_every_key() {
        let evil = ["a\nb", "a\rb", "a\0b", "a\u{85}b", "a\u{2028}b", "a\u{1b}b", "a\u{202e}b", "a\tb", "a\u{9b}b"];
        for text in evil {
            let slash = format!("/{text}");
            let (path_of, unix) = (Path::new(&slash), Address::Unix(slash.clone().into()));
            for made in [
                super::text("Description", text),
                account("User", text),
                path("WorkingDirectory", path_of),
                path_in_list("ReadWritePaths", path_of, false),
                listen_stream(&unix, Percent::Letter),
                listen_stream(&unix, Percent::Specifier),
                listen_stream(&Address::Abstract(text.to_owned()), Percent::Letter),
                units("Requires", &[text.to_owned()]),
                environment("A", text),
                environment(text, "b"),
                in_environment_file("A", text),
                in_environment_file(text, "b"),
            ] {
                assert!(made.is_err(), "{made:?}");
            }
            let carried = text.contains('\t');
            for made in [setting("User", text), command("ExecStart", "", Path::new("/usr/bin/sockd"), "run --", text)] {
                assert_eq!(made.is_ok(), carried, "{made:?}");
            }
            assert!(command("ExecStart", "", path_of, "run --", "x").is_err());
        }
    }

    #[test]
    fn each_key_is_quoted_as_systemd_reads_it() {
        let odd = Path::new("/a b%i\"\\c");
        assert_eq!(text_of(path("WorkingDirectory", odd)).as_deref(), Ok("WorkingDirectory=/a b%%i\"\\c"));
        let listed = text_of(path_in_list("ReadWritePaths", odd, true));
        assert_eq!(listed.as_deref(), Ok(r#"ReadWritePaths="-/a b%%i\"\\c""#));
        let listed = text_of(path_in_list("ReadWritePaths", Path::new("/srv/a\\"), false));
        assert_eq!(listed.as_deref(), Ok(r#"ReadWritePaths="/srv/a\\""#));
        let unix = Address::Unix(odd.into());
        assert_eq!(text_of(listen_stream(&unix, Percent::Letter)).as_deref(), Ok("ListenStream=/a b%%i\"\\c"));
        assert_eq!(text_of(listen_stream(&unix, Percent::Specifier)).as_deref(), Ok("ListenStream=/a b%i\"\\c"));
        assert_eq!(mode("SocketMode", 0o60).as_str(), "SocketMode=0060");
        let odd = r#"a b%i"\c'$X`"#;
        assert_eq!(text_of(environment("A_1", odd)), Ok(r#"Environment="A_1=a b%%i\"\\c'$X`""#.to_owned()));
        assert_eq!(text_of(in_environment_file("A_1", odd)), Ok(r#"A_1="a b%i\"\\c'\$X\`""#.to_owned()));
        assert_eq!(text_of(environment("A", "")).as_deref(), Ok("Environment=\"A=\""));
        let names = ["a-b.socket".to_owned(), r"c\x2dd@%i.socket".to_owned()];
        assert_eq!(text_of(units("After", &names)).as_deref(), Ok(r"After=a-b.socket c\x2dd@%i.socket"));
        let written = "/bin/a \\\n  \"b\\\\\" %i";
        let line = text_of(command("ExecStart", "-", Path::new("/usr/bin/sockd"), "run --", written));
        assert_eq!(line, Ok(format!("ExecStart=-/usr/bin/sockd run -- {written}")));
    }

    #[test]
    fn what_systemd_would_skip_or_misread_is_refused() {
        use std::os::unix::ffi::OsStrExt;
        let bytes = Path::new(std::ffi::OsStr::from_bytes(b"/caf\xe9"));
        let (long, deep) = (format!("/{}", "x".repeat(256)), "/x".repeat(2048));
        let relative = [Path::new("a"), Path::new("/a/../b"), Path::new("")];
        for bad in
            relative.into_iter().chain([Path::new("/a\\"), Path::new("/a "), bytes, long.as_ref(), deep.as_ref()])
        {
            assert!(path("WorkingDirectory", bad).is_err(), "{bad:?}");
            assert!(listen_stream(&Address::Unix(bad.into()), Percent::Letter).is_err(), "{bad:?}");
        }
        assert!(path_in_list("ReadWritePaths", bytes, false).is_err());
        let all = ["sammy", "www-data", "_apt", "0", "1000", "4294967294"];
        all.iter().for_each(|name| assert_eq!(check_account(name), Ok(*name)));
        for bad in ["", "a b", "-x", "0x0", "00", "+0", "65535", "4294967295", "root:root", "a.b", "%i", "ü", "1a"] {
            assert!(check_account(bad).is_err(), "{bad}");
        }
        for bad in ["", "1A", "A-B", "A B", "A=", "Ä"] {
            assert!(environment(bad, "b").is_err() && in_environment_file(bad, "b").is_err(), "{bad}");
        }
        for bad in ["/a\\", "/a \\\n b\\", "/a\n/b", "/a \\\\\n/b", "/a\rUser=root"] {
            assert!(setting("User", bad).is_err(), "{bad:?}");
        }
        for bad in ["/usr/bin/so ckd", "/usr/bin/%i", "sockd", "/usr/bin/$x", "/usr/bin/\"", "/usr/bin/;"] {
            assert!(command("ExecReload", "", Path::new(bad), "reload", "").is_err(), "{bad}");
        }
    }
}
