//! Files and words of others: none keeps the one who looks waiting, none acts on the terminal, and no secret is shown.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Far longer than any of these takes; a wait for a writer has no end.
const PATIENCE: Duration = Duration::from_secs(60);

struct Room(PathBuf);

impl Room {
    fn new(name: &str) -> Self {
        let room = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("foreign-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&room).expect("made");
        Self(room)
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("written");
        path.into_os_string().into_string().expect("text")
    }

    fn pipe(&self, name: &str) -> String {
        let path = self.0.join(name);
        assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
        path.into_os_string().into_string().expect("text")
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a command says, stdout and stderr. One that does not end fails the test, and is ended.
fn sockd(arguments: &[&str]) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sockd"));
    command.args(arguments).env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus").stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let end = Instant::now() + PATIENCE;
    while child.try_wait().expect("its state").is_none() {
        if Instant::now() > end {
            child.kill().expect("ended");
            panic!("{arguments:?} did not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().expect("its output");
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    let text = String::from_utf8(text).expect("text");
    (output, text)
}

#[test]
fn a_pipe_is_no_file_wherever_one_is_named() {
    let room = Room::new("pipe");
    let (pipe, ini, toml) = (room.pipe("pipe"), room.pipe("pipe.ini"), room.pipe("pipe.toml"));
    let configured = |text: &str| room.file("web.toml", format!("command = [\"/bin/true\"]\n{text}"));
    let env = configured(&format!("environment-files = [\"{pipe}\"]\n"));
    for (arguments, said) in [
        (vec!["adopt", ini.as_str()], "no regular file"),
        (vec!["check", &toml], "no regular file"),
        (vec!["check", &env], "no regular file"),
        (vec!["check", "--", "/usr/sbin/php-fpm8.2", "--fpm-config", &pipe], ""),
        (vec!["check", "--", "/usr/bin/puma", "-C", &pipe], ""),
        (vec!["check", "--", "/usr/bin/uwsgi", "--ini", &pipe], ""),
        (vec!["check", "--", &pipe, "a:b"], "cannot execute"),
        (vec!["run", "--config", &toml], "no regular file"),
    ] {
        let (output, text) = sockd(&arguments);
        assert!(!output.status.success() && text.contains(said), "{arguments:?}: {text}");
    }
    let page = configured(&format!("[fallback]\npage = \"{pipe}\"\n"));
    assert!(sockd(&["check", &page]).1.contains("no regular file"));
}

#[test]
fn the_text_of_secrets_is_never_shown() {
    let room = Room::new("secret");
    let secret = "hunter2";
    let env = room.file("web.env", format!("A=1\nexport KEY={secret}\n"));
    let wrapped = room.file("wrapped.env", format!("KEY=x\n{secret}/more==\n"));
    let bytes = room.file("bytes.env", [b"A=1\nKEY=hunter2\xff\n".as_slice()].concat());
    let web = |name: &str, files: &str| {
        room.file(name, format!("command = [\"/bin/true\"]\nenvironment-files = [\"{files}\"]\n"))
    };
    let shadow = room.file("shadow", format!("root:{secret}:19000:0:99999:7:::\n"));
    let link = room.0.join("link.toml");
    symlink(&shadow, &link).expect("linked");
    let table = |name: &str, text: &str| room.file(name, format!("command = [\"/bin/true\"]\n{text}"));
    for (file, place) in [
        (web("a.toml", &env), "web.env:2:1"),
        (web("b.toml", &wrapped), "wrapped.env:2:1"),
        (web("c.toml", &bytes), "bytes.env:2:12"),
        (web("d.toml", &shadow), "shadow:1:1"),
        (link.display().to_string(), "link.toml:1:"),
        (format!("{}/web.env", room.0.display()), "web.env:"),
        (table("e.toml", &format!("[environment]\nKEY = \"{secret}\n")), "e.toml:3:"),
        (table("f.toml", &format!("[environment]\nKEY = [\"{secret}\"]\n[workers]\ncount = 1\n")), "f.toml:3:"),
        (table("g.toml", &format!("environment = {{ KEY = {secret} }}\n")), "g.toml:2:"),
        (table("h.toml", &format!("environment.\"A-B\" = \"{secret}\"\n")), "h.toml:2:"),
    ] {
        for form in [&["check"][..], &["check", "--json"]] {
            let (output, text) = sockd(&[form, &[&file]].concat());
            assert_eq!(output.status.code(), Some(78), "{file}: {text}");
            assert!(!text.contains(secret), "{file}: {text}");
            assert!(form.len() > 1 || text.contains(place), "{file}: {place}: {text}");
        }
        let (_, text) = sockd(&["run", "--config", &file]);
        assert!(!text.contains(secret), "run {file}: {text}");
    }
    // What is no secret is shown as before.
    let (_, text) = sockd(&["check", &table("i.toml", "[environment]\nA = \"b\"\n[workers]\ncuont = 3\n")]);
    assert!(text.contains("cuont = 3"), "{text}");
}

#[test]
fn nothing_that_others_wrote_acts_on_the_terminal() {
    let room = Room::new("escape");
    let evil = "\u{1b}]0;t\u{7}\u{1b}[2J\u{9b}2J\u{202e}\u{2028}";
    let harmful = |text: &str| {
        let letters = text.chars().filter(|c| c.is_control() && !"\n\t".contains(*c));
        letters.chain(text.chars().filter(|c| "\u{202e}\u{2028}".contains(*c))).count()
    };
    let ini = room.file(&format!("x{evil}.ini"), "[uwsgi]\nsocket = /run/x.sock\n");
    let value = room.file("value.ini", format!("[uwsgi]\nuid = {evil}\nsocket = /run/x.sock\n"));
    let toml = room.file(&format!("x{evil}.toml"), format!("command = [\"/bin/true\"]\n\"{evil}\" = 1 # {evil}\n"));
    let option = format!("--{evil}");
    for arguments in [
        vec!["adopt", ini.as_str()],
        vec!["adopt", &value],
        vec!["check", &toml],
        vec!["check", "--json", &toml],
        vec!["run", "--config", &toml],
        vec!["status", &option],
        vec![&option],
        vec!["logs", evil],
        vec!["reload", evil],
        vec!["new", evil],
        vec!["check", "--", "/nowhere", evil],
        vec!["check", evil],
    ] {
        let (_, text) = sockd(&arguments);
        assert!(!text.is_empty() && harmful(&text) == 0, "{arguments:?}: {text:?}");
    }
    let (_, json) = sockd(&["check", "--json", &toml]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json[0]["problems"][0]["file"].as_str().map(Path::new), Some(Path::new(&toml)));
}
