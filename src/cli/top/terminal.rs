//! The terminal while `top` has it: raw, on its other screen, without a cursor; and as it was, however `top` ends.
//!
//! Owns: the modes of the terminal, its size, what it shows, and the reading of its keys. Never: knows what that means.
//!
//! ratatui makes the pictures and crossterm writes them; the rest of both is not used: ratatui's `Terminal` complains on stderr
//! where the terminal has gone away, and for crossterm's reader see `keys.rs`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::panic;
use std::sync::Arc;

use ratatui::backend::{Backend, CrosstermBackend};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::keys::{Decoder, Key};
use crate::cli::output;

/// xterm's other screen, without the cursor.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[H";
/// No colour, with the cursor, back to the screen that was there.
const LEAVE: &[u8] = b"\x1b[0m\x1b[?25h\x1b[?1049l";
/// An empty screen.
const CLEAR: &[u8] = b"\x1b[0m\x1b[2J";

/// The terminal. Dropped, it is as it was before.
#[derive(Debug)]
pub struct Terminal {
    modes: Arc<Modes>,
    backend: CrosstermBackend<BufWriter<File>>,
    /// What it shows; `None`: something else has written to it.
    shown: Option<Buffer>,
    keys: AsyncFd<File>,
    decoder: Decoder,
}

/// What is put back.
#[derive(Debug)]
struct Modes {
    terminal: File,
    before: Termios,
}

impl Modes {
    fn enter(&self) -> io::Result<()> {
        let mut raw = self.before.clone();
        raw.make_raw();
        tcsetattr(&self.terminal, OptionalActions::Now, &raw)?;
        (&self.terminal).write_all(ENTER)
    }

    /// A terminal that has gone away cannot be put back, and need not be.
    fn leave(&self) {
        let _ = (&self.terminal).write_all(LEAVE);
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

impl Terminal {
    /// Takes the terminal that shows what goes to `screen` and whose keys come from `keys`. Inside a tokio runtime. Should the
    /// program panic, the terminal is put back before the message is written.
    ///
    /// # Errors
    /// Either is no terminal, or it cannot be set.
    #[expect(deprecated, reason = "its replacement is unsafe; what that demands, an open descriptor, File ensures")]
    pub fn open(screen: File, keys: File) -> io::Result<Self> {
        if !isatty(&screen) || !isatty(&keys) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let backend = CrosstermBackend::new(BufWriter::new(screen.try_clone()?));
        let modes = Arc::new(Modes { before: tcgetattr(&screen)?, terminal: screen });
        let keys = AsyncFd::with_interest(keys, Interest::READABLE)?;
        let (before_panic, report) = (Arc::clone(&modes), panic::take_hook());
        panic::set_hook(Box::new(move |info| {
            before_panic.leave();
            report(info);
        }));
        modes.enter()?;
        Ok(Self { modes, backend, shown: None, keys, decoder: Decoder::default() })
    }

    /// Has a picture drawn in its present size, and shows it: what has changed is written.
    ///
    /// # Errors
    /// It has gone away.
    pub fn show(&mut self, draw: impl FnOnce(&mut Buffer)) -> io::Result<()> {
        let (width, height) = output::size_of(&self.modes.terminal)?;
        let area = Rect::new(0, 0, width, height);
        let mut picture = Buffer::empty(area);
        draw(&mut picture);
        let before = match self.shown.take().filter(|shown| shown.area == area) {
            Some(shown) => shown,
            None => {
                (&self.modes.terminal).write_all(CLEAR)?;
                Buffer::empty(area)
            }
        };
        self.backend.draw(before.diff(&picture).into_iter())?;
        Backend::flush(&mut self.backend)?;
        self.shown = Some(picture);
        Ok(())
    }

    /// The keys that are pressed next. Safe to drop while it waits.
    ///
    /// # Errors
    /// The terminal has gone away.
    pub async fn keys(&mut self) -> io::Result<Vec<Key>> {
        loop {
            let mut ready = self.keys.readable().await?;
            let mut asked = [PollFd::new(self.keys.get_ref(), PollFlags::IN)];
            // Another reader of this terminal may have been quicker; a read would wait.
            if poll(&mut asked, Some(&Timespec::default()))? == 0 {
                ready.clear_ready();
                continue;
            }
            let mut bytes = [0; 256];
            let length = rustix::io::read(self.keys.get_ref(), &mut bytes)?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // There may be more: the next call reads it, or finds that there is not.
            let keys = self.decoder.decode(&bytes[..length]);
            if !keys.is_empty() {
                return Ok(keys);
            }
        }
    }

    /// Gives the terminal to another program, as it was before, until that has done.
    ///
    /// # Errors
    /// The terminal has gone away meanwhile.
    pub async fn lend<T>(&mut self, work: impl Future<Output = T>) -> io::Result<T> {
        self.shown = None;
        self.modes.leave();
        let result = work.await;
        self.modes.enter()?;
        Ok(result)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.modes.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    use std::io::Read;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// The two ends of a terminal.
    fn pair() -> (File, File) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let ours = openpt(flags).expect("a terminal");
        grantpt(&ours).expect("granted");
        unlockpt(&ours).expect("unlocked");
        let theirs = ioctl_tiocgptpeer(&ours, flags).expect("its other end");
        (ours.into(), theirs.into())
    }

    /// Held by each test that opens a terminal: the hook for panics is that of all threads, and who takes it away takes
    /// another test's.
    fn alone() -> MutexGuard<'static, ()> {
        static HOOK: Mutex<()> = Mutex::new(());
        HOOK.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(theirs: &File) -> Terminal {
        let copy = || theirs.try_clone().expect("a copy");
        Terminal::open(copy(), copy()).expect("a terminal")
    }

    fn in_runtime<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
    }

    fn modes(terminal: &File) -> String {
        format!("{:?}", tcgetattr(terminal).expect("its modes"))
    }

    /// This, and nothing before it, has been written to the terminal. It may come in parts.
    fn assert_written(mut ours: &File, text: &str) {
        let mut bytes = vec![0; text.len()];
        ours.read_exact(&mut bytes).expect("something was written");
        assert_eq!(String::from_utf8_lossy(&bytes), text);
    }

    #[test]
    fn after_a_panic_it_is_as_it_was_before_the_message() {
        let _alone = alone();
        let (ours, theirs) = pair();
        let before = modes(&theirs);
        in_runtime(async {
            let terminal = open(&theirs);
            assert_ne!(modes(&theirs), before);
            assert_written(&ours, "\x1b[?1049h\x1b[?25l\x1b[H");
            // What would show the message finds the terminal put back, long before anything is dropped.
            let panics = catch_unwind(AssertUnwindSafe(|| panic!("this message is expected")));
            assert!(panics.is_err());
            assert_eq!(modes(&theirs), before);
            assert_written(&ours, "\x1b[0m\x1b[?25h\x1b[?1049l");
            drop(terminal);
        });
        drop(panic::take_hook());
    }

    #[test]
    fn lent_and_dropped_it_is_as_it_was() {
        let _alone = alone();
        let (ours, theirs) = pair();
        let before = modes(&theirs);
        in_runtime(async {
            let mut terminal = open(&theirs);
            terminal.lend(async { assert_eq!(modes(&theirs), before) }).await.expect("it is there");
            assert_ne!(modes(&theirs), before);
            assert_written(&ours, "\x1b[?1049h\x1b[?25l\x1b[H\x1b[0m\x1b[?25h\x1b[?1049l\x1b[?1049h\x1b[?25l\x1b[H");
            drop(terminal);
        });
        assert_eq!(modes(&theirs), before);
        drop(panic::take_hook());
    }

    #[test]
    fn keys_come_until_the_terminal_goes_away_and_then_nothing_can_be_shown() {
        let _alone = alone();
        let (ours, theirs) = pair();
        in_runtime(async {
            let mut terminal = open(&theirs);
            drop(theirs);
            (&ours).write_all(b"j\x1b[").expect("typed");
            assert_eq!(terminal.keys().await.expect("a key"), [Key::Letter('j')]);
            (&ours).write_all(b"A").expect("typed");
            assert_eq!(terminal.keys().await.expect("a key"), [Key::Up]);
            drop(ours);
            assert!(terminal.keys().await.is_err());
            assert!(terminal.show(|_| {}).is_err());
        });
        drop(panic::take_hook());
    }

    #[test]
    fn what_is_no_terminal_is_not_taken() {
        let null = || File::open("/dev/null").expect("/dev/null");
        in_runtime(async { assert!(Terminal::open(null(), null()).is_err()) });
    }
}
