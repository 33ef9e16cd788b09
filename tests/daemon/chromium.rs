//! A real browser without a screen, for what people see.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Pid;

use super::processes;
use super::transcript::PATIENCE;

/// So often PATIENCE: a browser starts a dozen processes, on a busy machine for the first time.
const TRIES: u32 = 4;

/// The browser, and where it keeps its files.
pub struct Chromium {
    program: PathBuf,
    profile: PathBuf,
}

/// A picture of a page.
pub struct Picture {
    pub width: u32,
    pub height: u32,
    pub bytes: Vec<u8>,
}

impl Chromium {
    /// The machine's; where there is none this says what is left out.
    pub fn find(test: &str, directory: &Path) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let program = std::env::split_paths(&path).map(|part| part.join("chromium")).find(|file| file.exists());
        if program.is_none() {
            // Not eprintln: the harness would keep it to itself while the test passes.
            let _ = writeln!(std::io::stderr(), "LEFT OUT: {test}: there is no chromium");
        }
        Some(Self { program: program?, profile: directory.join("chromium") })
    }

    /// Opens a page, and stays there. Kill it.
    pub fn open(&self, options: &[OsString], url: &str) -> Child {
        let _ = std::fs::remove_dir_all(&self.profile);
        let mut profile = OsString::from("--user-data-dir=");
        profile.push(&self.profile);
        Command::new(&self.program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--hide-scrollbars"])
            .arg(profile)
            .args(options)
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the browser starts")
    }

    fn finish(&self, options: &[OsString], url: &str) -> String {
        let mut browser = self.open(options, url);
        let pid = Pid::from_child(&browser);
        // It reads what is printed before it ends: a page is small enough for the pipe.
        if !(0..TRIES).any(|_| processes::ended(pid, PATIENCE)) {
            let _ = browser.kill();
            panic!("the browser does not end: {options:?} {url}");
        }
        let output = browser.wait_with_output().expect("what it printed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The page as the browser understood it.
    pub fn dom(&self, url: &str) -> String {
        self.finish(&["--dump-dom".into()], url)
    }

    /// What people see of a page, on a screen of this size, by day or by night; the picture is kept in `file`.
    pub fn picture(&self, url: &str, (width, height): (u32, u32), night: bool, file: &Path) -> Picture {
        let _ = std::fs::remove_file(file);
        let mut target = OsString::from("--screenshot=");
        target.push(file);
        let colours = format!("--blink-settings=preferredColorScheme={}", u8::from(!night));
        self.finish(&[target, format!("--window-size={width},{height}").into(), colours.into()], url);
        let bytes = std::fs::read(file).expect("a picture");
        assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"), "{} is no PNG", file.display());
        // The first chunk of a PNG: width and height, most significant byte first.
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        Picture { width: number(16), height: number(20), bytes }
    }
}
