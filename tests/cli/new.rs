//! `sockd new`, run below a directory of the test's own.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

struct Root(PathBuf);

impl Root {
    fn new(name: &str) -> Self {
        let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("new-{name}-{}", std::process::id()));
        std::fs::create_dir_all(root.join("etc/nginx/sites-available")).expect("made");
        std::fs::create_dir_all(root.join("etc/nginx/sites-enabled")).expect("made");
        let root = Self(root);
        // An application that could run: `new` looks before it writes.
        let server = root.application().join("venv/bin/gunicorn");
        std::fs::create_dir_all(server.parent().expect("a directory")).expect("made");
        std::fs::write(&server, "#!/bin/sh\n").expect("written");
        std::fs::set_permissions(&server, std::fs::Permissions::from_mode(0o755)).expect("a mode");
        root
    }

    fn application(&self) -> PathBuf {
        self.0.with_extension("application")
    }

    /// The arguments of the tests, with what is there: SHOP is for no machine of its own.
    fn here(&self, arguments: &str) -> String {
        let user = Command::new("id").arg("-un").output().expect("id").stdout;
        let user = String::from_utf8(user).expect("a name");
        let directory = self.application().display().to_string();
        arguments.replace("/home/sammy/shop", &directory).replace("--user sammy", &format!("--user {}", user.trim()))
    }

    fn sockd(&self, arguments: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sockd"));
        let arguments = self.here(arguments);
        command.args(["new", "--root"]).arg(&self.0).args(arguments.split(' ')).stdin(Stdio::null());
        command.output().expect("started")
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.0.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Every file and link, by its path in here.
    fn list(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut left = vec![self.0.clone()];
        while let Some(directory) = left.pop() {
            for entry in std::fs::read_dir(directory).expect("readable").map(|entry| entry.expect("an entry")) {
                match entry.file_type().expect("known").is_dir() {
                    true => left.push(entry.path()),
                    false => found.push(entry.path().strip_prefix(&self.0).expect("below").display().to_string()),
                }
            }
        }
        found.sort();
        found
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
        let _ = std::fs::remove_dir_all(self.application());
    }
}

const SHOP: &str = "shop --directory /home/sammy/shop --user sammy --domain shop.example.com --enable \
                    -- venv/bin/gunicorn --workers 3 shop.wsgi";

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_application_gets_its_files() {
    let root = Root::new("files");
    let output = root.sockd(SHOP);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(
        root.list(),
        [
            "etc/nginx/sites-available/shop",
            "etc/nginx/sites-enabled/shop",
            "etc/sockd/shop.toml",
            "etc/systemd/system/sockd@shop.service.d/application.conf",
        ]
    );
    let configuration = root.read("etc/sockd/shop.toml");
    assert!(configuration.contains("command = [\"venv/bin/gunicorn\", \"--workers\", \"3\", \"shop.wsgi\"]\n"));
    assert!(configuration.contains(&root.here("directory = \"/home/sammy/shop\"\n")), "{configuration}");
    assert!(root.read("etc/systemd/system/sockd@shop.service.d/application.conf").contains("\nUser="));
    let site = root.read("etc/nginx/sites-available/shop");
    assert!(site.contains("    server_name shop.example.com;\n"), "{site}");
    assert!(site.contains("        proxy_pass http://unix:/run/sockd/shop.sock;\n"), "{site}");
    let link = std::fs::read_link(root.0.join("etc/nginx/sites-enabled/shop")).expect("a link");
    assert_eq!(link, Path::new("/etc/nginx/sites-available/shop"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("  systemctl enable --now sockd@shop.socket  "), "{text}");
}

#[test]
fn it_listens_at_the_address_that_is_given() {
    for (listen, passes, visit) in [
        ("/run/shop.sock", "http://unix:/run/shop.sock", "curl --unix-socket /run/shop.sock localhost"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000", "curl 127.0.0.1:8000"),
    ] {
        let root = Root::new("listen");
        let output = root.sockd(&SHOP.replace("--enable", &format!("--listen {listen}")));
        assert!(output.status.success(), "{}", said(&output));
        let socket = root.read("etc/systemd/system/sockd@shop.socket.d/application.conf");
        assert!(socket.ends_with(&format!("[Socket]\nListenStream=\nListenStream={listen}\n")), "{socket}");
        let site = root.read("etc/nginx/sites-available/shop");
        assert!(site.contains(&format!("        proxy_pass {passes};\n")), "{site}");
        assert!(String::from_utf8_lossy(&output.stdout).contains(visit));
    }
}

#[test]
fn all_files_are_written_or_none_and_none_is_overwritten() {
    let root = Root::new("none");
    std::fs::write(root.0.join("etc/nginx/sites-available/shop"), "theirs\n").expect("written");
    let output = root.sockd(SHOP);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("sites-available/shop: it is there already"), "{}", said(&output));
    assert_eq!(root.list(), ["etc/nginx/sites-available/shop"]);
    assert_eq!(root.read("etc/nginx/sites-available/shop"), "theirs\n");
    assert!(!root.0.join("etc/sockd").exists());
    // Twice is once too often.
    std::fs::remove_file(root.0.join("etc/nginx/sites-available/shop")).expect("removed");
    assert!(root.sockd(SHOP).status.success());
    let again = root.sockd("shop --directory /elsewhere --user sammy -- other");
    assert_eq!(again.status.code(), Some(1), "{}", said(&again));
    assert!(root.read("etc/sockd/shop.toml").contains(&root.here("/home/sammy/shop")));
}

#[test]
fn without_a_terminal_everything_that_is_missing_is_named() {
    let root = Root::new("missing");
    let output = root.sockd("shop --user sammy");
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("--directory, -- COMMAND is missing"), "{}", said(&output));
    assert_eq!(root.sockd("shop --directory srv --user sammy -- x").status.code(), Some(2));
    assert_eq!(root.sockd("../shop --directory /srv --user sammy -- x").status.code(), Some(2));
    assert_eq!(root.sockd("shop --directory /srv --user sammy --enable -- x").status.code(), Some(2));
    assert_eq!(root.list(), Vec::<String>::new());
}

#[test]
fn a_site_wants_nginx() {
    let root = Root::new("nginx");
    std::fs::remove_dir_all(root.0.join("etc/nginx")).expect("removed");
    let output = root.sockd(SHOP);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("install Nginx first"), "{}", said(&output));
    assert!(!root.0.join("etc/sockd").exists());
    assert!(
        root.sockd("shop --directory /home/sammy/shop --user sammy -- venv/bin/gunicorn shop.wsgi").status.success()
    );
    assert_eq!(root.list().len(), 2);
}

#[test]
fn what_could_not_run_is_not_written() {
    let root = Root::new("nonsense");
    for (arguments, said) in [
        ("shop --directory /home/sammy/shop --user nobody-has-this-name -- venv/bin/gunicorn a:b", "there is no user"),
        ("shop --directory /nowhere/at/all --user sammy -- venv/bin/gunicorn a:b", "/nowhere"),
        ("shop --directory /home/sammy/shop --user sammy -- venv/bin/gunicrn a:b", "gunicrn"),
    ] {
        let output = root.sockd(arguments);
        assert_eq!(output.status.code(), Some(78), "{}", self::said(&output));
        assert!(self::said(&output).contains(said), "{}", self::said(&output));
        assert_eq!(root.list(), Vec::<String>::new());
    }
}

#[test]
fn what_was_written_is_taken_back_and_nothing_else() {
    let root = Root::new("undo");
    assert!(root.sockd("--undo shop").status.success(), "nothing to undo is what was wanted");
    assert!(root.sockd(SHOP).status.success());
    std::fs::write(root.0.join("etc/sockd/other.toml"), "theirs\n").expect("written");
    let output = root.sockd("--undo shop");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(root.list(), ["etc/sockd/other.toml"]);
    let output = root.sockd("--undo other");
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert_eq!(root.read("etc/sockd/other.toml"), "theirs\n");
    // What is written once more is the same.
    assert!(root.sockd(SHOP).status.success());
}
