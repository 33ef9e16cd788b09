//! A real terminal: tmux's, beside an instance.

use std::process::Command;
use std::time::{Duration, Instant};

use super::instance::Instance;
use super::programs::there;
use super::transcript::PATIENCE;

/// A terminal with a shell in it, which is closed at the end.
pub struct Tmux<'a> {
    web: &'a Instance,
}

impl<'a> Tmux<'a> {
    /// Of so many columns and lines; `None`, and a word why, where there is no tmux.
    pub fn open(web: &'a Instance, width: u32, height: u32) -> Option<Self> {
        there("tmux").then_some(())?;
        let tmux = Self { web };
        let (width, height) = (width.to_string(), height.to_string());
        tmux.run(&["new-session", "-d", "-x", &width, "-y", &height, "exec env PS1='$ ' sh"]);
        tmux.until("a prompt", |screen| screen.starts_with('$'));
        Some(tmux)
    }

    fn command(&self) -> Command {
        let mut command = self.web.beside("tmux");
        command.args(["-L", "test", "-f", "/dev/null"]).env("TMUX_TMPDIR", self.web.path()).env_remove("TMUX");
        // The tests' machine may have a bus, and it may have none.
        command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus").env_remove("NO_COLOR");
        command
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command().args(arguments).output().expect("tmux starts");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Presses keys, by tmux's names.
    pub fn press(&self, keys: &[&str]) {
        self.run(&[&["send-keys", "-t", ":"], keys].concat());
    }

    /// Types a line, and Enter.
    pub fn types(&self, line: &str) {
        self.run(&["send-keys", "-t", ":", "-l", line]);
        self.press(&["Enter"]);
    }

    /// What it shows, without what is left of each line.
    pub fn screen(&self) -> String {
        self.run(&["capture-pane", "-p", "-t", ":"])
    }

    /// The same with the sequences that colour it.
    pub fn coloured(&self) -> String {
        self.run(&["capture-pane", "-e", "-p", "-t", ":"])
    }

    pub fn resize(&self, width: u32, height: u32) {
        self.run(&["resize-window", "-t", ":", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    /// Waits until it shows what is wanted.
    pub fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if wanted(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "{what} is not shown:\n{screen}\n{}", self.web.transcript.show());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Closes it, as one closes a window.
    pub fn close(self) {}
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        let _ = self.command().arg("kill-server").output();
    }
}
