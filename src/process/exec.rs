//! Executing a program with descriptors in the places where systemd puts them; and what else is unsafe.
//!
//! The one file with unsafe code. Between fork and exec only async-signal-safe calls are made: everything is allocated
//! before.
#![allow(unsafe_code)]

use super::Child;
use crate::app::Command;
use rustix::process::{Pid, Resource, Signal};
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;

/// The first inherited descriptor (sd_listen_fds(3)): that of the first of [`Launch::descriptors`].
pub const FIRST_DESCRIPTOR: usize = 3;
const FIRST: RawFd = FIRST_DESCRIPTOR as RawFd;
/// Room for the decimal digits of a process id (proc(5): pid_max is at most 2^22).
const PID_DIGITS: usize = 10;

/// One execution: what, and with which descriptors.
#[derive(Debug)]
pub struct Launch<'a> {
    /// What is executed.
    pub command: &'a Command,
    /// Added to the command's environment, replacing what has the same name.
    pub environment: &'a BTreeMap<OsString, OsString>,
    /// Become descriptors 3, 4, … of the new process.
    pub descriptors: &'a [BorrowedFd<'a>],
    /// Say LISTEN_FDS, LISTEN_FDNAMES (these names) and LISTEN_PID, as sd_listen_fds(3) has them.
    pub listen_names: Option<&'a [&'a str]>,
    /// Becomes stderr; None leaves ours.
    pub stderr: Option<BorrowedFd<'a>>,
    /// Become stdin and stdout; None leaves stdin /dev/null and our stdout.
    pub pipes: Option<(BorrowedFd<'a>, BorrowedFd<'a>)>,
    /// The `cgroup.procs` of the control group that it enters before it does anything else; None leaves it in ours.
    pub group: Option<BorrowedFd<'a>>,
    /// What the process is sent when we die unexpectedly.
    pub parent_death: Signal,
    /// Whether it begins with all those signals ignored that would end it and mean nothing to it: for programs of our own.
    /// Others begin with the default actions, whatever we were started with.
    pub sheltered: bool,
}

/// Signals that concern the process that gets them: what ends it on purpose, what tells of its own faults and limits, and
/// what is harmless unless it listens.
const OWN_SIGNALS: [i32; 17] = [
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGCONT,
    libc::SIGCHLD,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGSYS,
    libc::SIGPIPE,
    libc::SIGXCPU,
    libc::SIGXFSZ,
];
/// The highest signal number (signal(7)).
const LAST_SIGNAL: i32 = 64;
/// The first real-time signal that the C library does not need for itself (signal(7)).
const FIRST_REAL_TIME_SIGNAL: i32 = 34;

/// Why a program could not be executed.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The program or its directory is missing, not executable, or the system has no process left.
    #[error("cannot execute {program}: {source}")]
    Execute {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A name, argument or variable contains a zero byte.
    #[error("cannot execute {program}: an argument or variable contains a zero byte")]
    ZeroByte {
        /// The program.
        program: PathBuf,
    },
}

impl Launch<'_> {
    /// Executes the program as the leader of a new session.
    ///
    /// # Errors
    /// [`LaunchError`]; no process is left behind then.
    pub fn spawn(&self) -> Result<Child, LaunchError> {
        let (file, words) = self.command.executed();
        let program = || file.clone();
        let failed = |source| LaunchError::Execute { program: program(), source };
        let zero = || LaunchError::ZeroByte { program: program() };

        let path = CString::new(file.as_os_str().as_bytes()).map_err(|_| zero())?;
        let arguments = strings(words.iter().map(|a| a.as_bytes().to_vec())).ok_or_else(zero)?;
        let mut environment = self.environment_block().ok_or_else(zero)?;
        let pid_variable = if self.listen_names.is_some() { Some(pid_variable(&mut environment)) } else { None };

        // Copies above all targets, so that no dup2 in the child overwrites a source.
        let above = FIRST + self.descriptors.len() as RawFd;
        let copy = |fd: &BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, above).map_err(io::Error::from);
        let copies: Vec<OwnedFd> = self.descriptors.iter().map(copy).collect::<Result<_, _>>().map_err(failed)?;
        let targets: Vec<(RawFd, RawFd)> = copies.iter().map(AsRawFd::as_raw_fd).zip(FIRST..).collect();

        let mut command = std::process::Command::new(&file);
        command.current_dir(&self.command.directory).stdin(Stdio::null());
        if let Some(stderr) = &self.stderr {
            command.stderr(stderr.try_clone_to_owned().map_err(failed)?);
        }
        if let Some((stdin, stdout)) = &self.pipes {
            command.stdin(stdin.try_clone_to_owned().map_err(failed)?);
            command.stdout(stdout.try_clone_to_owned().map_err(failed)?);
        }
        let argv = SendPointers(pointers(&arguments));
        let mut envp = SendPointers(pointers(&environment));
        let mut pid_text = pid_variable.map(|index| (index, environment[index].as_bytes_with_nul().to_vec()));
        let parent_death = self.parent_death;
        let group = self.group.map(|group| group.as_raw_fd());
        let descriptor_limit = super::limit::original();
        let sheltered = self.sheltered;
        // SAFETY: the closure runs in the forked child before exec. It calls only write, setsid, prctl, signal, sigemptyset,
        // pthread_sigmask, setrlimit, dup2, getpid and execve, all async-signal-safe, and writes to memory of its own that was allocated before the fork.
        // The descriptors it uses are open: our caller and `copies` hold them until spawn() returns.
        unsafe {
            command.pre_exec(move || {
                let (argv, envp) = (&argv, &mut envp);
                if let Some(group) = group {
                    enter(group);
                }
                rustix::process::setsid()?;
                rustix::process::set_parent_process_death_signal(Some(parent_death))?;
                reset_signals(sheltered);
                if let Some(limit) = &descriptor_limit {
                    rustix::process::setrlimit(Resource::Nofile, *limit)?;
                }
                for &(from, to) in &targets {
                    if libc::dup2(from, to) < 0 {
                        return Err(io::Error::last_os_error());
                    }
                }
                let Some((index, text)) = &mut pid_text else { return Ok(()) };
                write_pid(text, rustix::process::getpid());
                envp.0[*index] = text.as_ptr().cast();
                // Only returns when it fails; std reports the error to the parent.
                libc::execve(path.as_ptr(), argv.0.as_ptr(), envp.0.as_ptr());
                Err(io::Error::last_os_error())
            });
        }
        if pid_variable.is_none() {
            // Without a LISTEN_PID to fill in, std executes the program itself.
            command.arg0(words.first().map_or(OsStr::new(""), OsString::as_os_str));
            command.args(words.iter().skip(1));
            command.env_clear().envs(&self.command.environment).envs(self.environment);
        }
        let child = command.spawn().map_err(failed)?;
        let pid = Pid::from_raw(child.id().cast_signed()).ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
        // The strings behind the pointers must live until the child has executed, which spawn() waits for.
        drop((arguments, environment, copies));
        Child::adopt(pid).map_err(failed)
    }

    /// `NAME=value` for the whole environment, LISTEN_FDS and LISTEN_FDNAMES with it.
    fn environment_block(&self) -> Option<Vec<CString>> {
        let mut all = self.command.environment.clone();
        all.extend(self.environment.iter().map(|(name, value)| (name.clone(), value.clone())));
        if let Some(names) = self.listen_names {
            all.insert("LISTEN_FDS".into(), names.len().to_string().into());
            all.insert("LISTEN_FDNAMES".into(), names.join(":").into());
        }
        strings(all.into_iter().map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'=')))
    }
}

/// Moves this process into the control group whose `cgroup.procs` this is. A worker that stays outside is still a
/// worker: it says so on its stderr and goes on. Allocates nothing.
fn enter(procs: RawFd) {
    const WARNING: &[u8] = b"sockd: this worker could not enter its control group, going on without\n";
    // SAFETY: both buffers are static, and the lengths are theirs.
    unsafe {
        if libc::write(procs, b"0".as_ptr().cast(), 1) < 0 {
            libc::write(libc::STDERR_FILENO, WARNING.as_ptr().cast(), WARNING.len());
        }
    }
}

/// Whether this signal, which would end a process that does not know it, means the unit when somebody sends it to all of
/// its processes, as `systemctl kill` does.
pub fn concerns_the_unit(number: i32) -> bool {
    !OWN_SIGNALS.contains(&number)
}

/// Gives every signal its default action, or has it ignored where this process shall be sheltered from it, and holds back
/// none: a program inherits what is ignored and what is held back. Allocates nothing.
fn reset_signals(sheltered: bool) {
    for number in 1..=LAST_SIGNAL {
        let ignored = sheltered && concerns_the_unit(number);
        let action = if ignored { libc::SIG_IGN } else { libc::SIG_DFL };
        // SAFETY: neither action is a function that could run; signals whose action cannot be set are refused.
        unsafe { libc::signal(number, action) };
    }
    let mut none = std::mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset writes the whole set before pthread_sigmask reads it; there is no old set to write to.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// The signal with this number, also one of the real-time signals that have no name.
pub fn signal_by_number(number: i32) -> Option<Signal> {
    let real_time = || {
        let valid = (FIRST_REAL_TIME_SIGNAL..=LAST_SIGNAL).contains(&number);
        // SAFETY: the kernel knows the number, and the C library does not use it for itself.
        valid.then(|| unsafe { Signal::from_raw_unchecked(number) })
    };
    Signal::from_named_raw(number).or_else(real_time)
}

/// Lets go of what is mapped of files, this program's code above all: what is used again is mapped again from the page
/// cache, within microseconds. Most of it was for the start alone, or was mapped beside what was wanted (16 pages at a
/// time): 1.5 of 3.5 MiB.
///
/// # Errors
/// /proc cannot be read; nothing has changed then.
pub fn release_file_pages() -> io::Result<()> {
    let maps = std::fs::read_to_string("/proc/self/smaps")?;
    for map in maps.split_inclusive("\nVmFlags:") {
        let Some(range) = map.lines().find_map(file_range) else { continue };
        // What was written to is memory of ours: relocated addresses, for one.
        if !map.lines().any(|line| line.starts_with("Anonymous:") && line.ends_with(" 0 kB")) {
            continue;
        }
        // SAFETY: the range is that of one mapping, private and without a page of its own: the kernel brings the same
        // bytes back from the file. No other thread runs that could write to it between the look and the call; and
        // what cannot be let go of stays.
        unsafe { libc::madvise(range.start as *mut libc::c_void, range.len(), libc::MADV_DONTNEED) };
    }
    Ok(())
}

/// The addresses of a private, read-only mapping of a file, by the first line that proc_pid_smaps(5) has for it.
fn file_range(line: &str) -> Option<std::ops::Range<usize>> {
    let (range, rest) = line.split_once(' ')?;
    let (begin, end) = range.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let range = address(begin)?..address(end)?;
    ((rest.starts_with("r-xp ") || rest.starts_with("r--p ")) && rest.contains(" /")).then_some(range)
}

/// Adds `LISTEN_PID=` with room for the digits; returns its index.
fn pid_variable(environment: &mut Vec<CString>) -> usize {
    let text = format!("LISTEN_PID={}", "0".repeat(PID_DIGITS));
    environment.push(CString::new(text).unwrap_or_default());
    environment.len() - 1
}

/// Writes the number behind the `=`, closed by a zero byte. Allocates nothing.
fn write_pid(text: &mut [u8], pid: Pid) {
    let mut digits = [0u8; PID_DIGITS];
    let (mut rest, mut count) = (pid.as_raw_nonzero().get(), 0);
    while rest > 0 && count < PID_DIGITS {
        digits[count] = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
    }
    let start = "LISTEN_PID=".len();
    for (target, digit) in text[start..].iter_mut().zip(digits[..count].iter().rev()) {
        *target = *digit;
    }
    text[start + count] = 0;
}

fn strings(texts: impl Iterator<Item = Vec<u8>>) -> Option<Vec<CString>> {
    texts.map(|text| CString::new(text).ok()).collect()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Pointers that travel into the closure which runs in the child.
struct SendPointers(Vec<*const libc::c_char>);

// SAFETY: the pointers are read by one thread only, the child's, and point to strings that outlive the spawn.
unsafe impl Send for SendPointers {}
// SAFETY: as above.
unsafe impl Sync for SendPointers {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_pages_are_out_of_memory_and_come_back() {
        let resident = || -> u64 {
            let maps = std::fs::read_to_string("/proc/self/smaps").expect("readable");
            let code = maps.split("\nVmFlags").filter(|map| map.contains(" r-xp "));
            let field = |map: &str| {
                map.lines().find_map(|line| line.strip_prefix("Rss:"))?.split_whitespace().next()?.parse().ok()
            };
            code.filter_map(field).max().expect("there is code")
        };
        // Other tests bring in code of theirs at the same time.
        let shrinks = |_| {
            let before = resident();
            release_file_pages().expect("readable");
            resident() < before
        };
        assert!((0..100).any(shrinks));
    }

    #[test]
    fn the_process_id_is_written_in_place() {
        let mut environment = Vec::new();
        let index = pid_variable(&mut environment);
        for (pid, expected) in [(1, "LISTEN_PID=1"), (4_194_304, "LISTEN_PID=4194304")] {
            let mut text = environment[index].as_bytes_with_nul().to_vec();
            write_pid(&mut text, Pid::from_raw(pid).expect("not zero"));
            let shown = std::ffi::CStr::from_bytes_until_nul(&text).expect("closed");
            assert_eq!(shown.to_str().expect("ASCII"), expected);
        }
    }
}
