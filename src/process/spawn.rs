//! Executing a program with descriptors in the places where systemd puts them; and what else is unsafe.
//!
//! The one file with unsafe code. Between fork and exec only async-signal-safe calls are made: everything is allocated
//! before.
#![allow(unsafe_code)]

use super::Child;
use crate::app::Command;
use rustix::process::{Pid, Resource, Rlimit, Signal};
use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The first inherited descriptor (sd_listen_fds(3)): that of the first of [`SpawnRequest::descriptors`].
pub const FIRST_DESCRIPTOR: usize = 3;
const FIRST: RawFd = FIRST_DESCRIPTOR as RawFd;
/// The exit code of a process that could not execute its program, as shells have it.
pub const NOT_EXECUTED: i32 = 127;
/// Room for the decimal digits of a process id (proc(5): pid_max is at most 2^22).
const PID_DIGITS: usize = 10;

/// One execution: what, and with which descriptors.
#[derive(Debug)]
pub struct SpawnRequest<'a> {
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
    /// Others begin with the default actions, whatever we were started with. SIGPIPE is ignored in both, as systemd has it.
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
pub enum SpawnError {
    /// The system has no process or descriptor left.
    #[error("cannot execute {program}: {}", super::rlimit::explain(source))]
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

impl SpawnRequest<'_> {
    /// Makes a process that executes the program as the leader of a new session, with every signal as systemd leaves it.
    ///
    /// It does not wait until that has happened: the program may lie on a disk that does not answer, and the control
    /// group may take its time. A process that cannot execute it says why on its stderr and exits with
    /// [`NOT_EXECUTED`].
    ///
    /// # Errors
    /// [`SpawnError`]; no process is left behind then.
    pub fn spawn(&self) -> Result<Child, SpawnError> {
        let (program, words) = self.command.executed();
        let directory = &self.command.directory;
        let failed = |source: io::Error| SpawnError::Execute { program: program.clone(), source };
        let zero = || SpawnError::ZeroByte { program: program.clone() };
        let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(|_| zero());

        let arguments = strings(words.iter().map(|a| a.as_bytes().to_vec())).ok_or_else(zero)?;
        let mut environment = self.environment_block().ok_or_else(zero)?;
        let pid_variable = self.listen_names.is_some().then(|| pid_variable(&mut environment));
        let null = File::open("/dev/null").map_err(failed)?;
        let standard = [
            (Some(self.pipes.map_or(null.as_fd(), |(stdin, _)| stdin)), libc::STDIN_FILENO),
            (self.pipes.map(|(_, stdout)| stdout), libc::STDOUT_FILENO),
            (self.stderr, libc::STDERR_FILENO),
        ];
        let places = standard.into_iter().filter_map(|(fd, target)| Some((fd?, target)));
        let places = places.chain(self.descriptors.iter().copied().zip(FIRST..));
        // Copies above all targets, so that no dup2 in the child overwrites a source.
        let above = FIRST + self.descriptors.len() as RawFd;
        let copy = |(fd, target): (BorrowedFd<'_>, RawFd)| Ok((rustix::io::fcntl_dupfd_cloexec(fd, above)?, target));
        let copies: Vec<(OwnedFd, RawFd)> = places.map(copy).collect::<io::Result<_>>().map_err(failed)?;
        let mut image = Image {
            program: text(&program)?,
            directory: text(directory)?,
            arguments: pointers(&arguments),
            environment: pointers(&environment),
            pid_variable: pid_variable.map(|index| (index, environment[index].as_bytes_with_nul().to_vec())),
            places: copies.iter().map(|(copy, target)| (copy.as_raw_fd(), *target)).collect(),
            group: self.group.map(|group| group.as_raw_fd()),
            parent_death: self.parent_death,
            sheltered: self.sheltered,
            descriptor_limit: super::rlimit::original(),
            cannot_execute: [b"cannot execute ", program.as_os_str().as_bytes(), b": "].concat(),
            cannot_enter: [b"cannot work in the directory ", directory.as_os_str().as_bytes(), b": "].concat(),
        };
        // A signal that comes before the program has its own ways would be taken by ours.
        let mask = block_signals();
        // SAFETY: the child runs `Image::execute`, which makes async-signal-safe calls alone and never returns; what it
        // points to was allocated before and is the child's own copy.
        let forked = unsafe { libc::fork() };
        if forked == 0 {
            image.execute();
        }
        let error = io::Error::last_os_error();
        set_signals(&mask);
        // rustix takes no negative number.
        let pid = Pid::from_raw(forked.max(0)).ok_or_else(|| failed(error))?;
        Child::adopt(pid).map_err(|error| {
            // SAFETY: it is not reaped, so the number is its own.
            unsafe { libc::kill(forked, libc::SIGKILL) };
            failed(error)
        })
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

/// What a process becomes, ready before the fork.
struct Image {
    program: CString,
    directory: CString,
    arguments: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
    /// Which variable LISTEN_PID is, with room for the number.
    pid_variable: Option<(usize, Vec<u8>)>,
    /// Descriptors, and the numbers that they get.
    places: Vec<(RawFd, RawFd)>,
    group: Option<RawFd>,
    parent_death: Signal,
    sheltered: bool,
    descriptor_limit: Option<Rlimit>,
    /// The beginning of what is said when it cannot be executed, and when its directory cannot be entered.
    cannot_execute: Vec<u8>,
    cannot_enter: Vec<u8>,
}

impl Image {
    /// In the forked child: becomes it, or says why not and ends. Allocates nothing.
    fn execute(&mut self) -> ! {
        let error = match self.prepare() {
            Ok(()) => self.try_execute(),
            Err(error) => error,
        };
        self.complain(&self.cannot_execute, &error)
    }

    /// Only returns when it fails.
    fn try_execute(&mut self) -> io::Error {
        // SAFETY: a string with its end.
        if unsafe { libc::chdir(self.directory.as_ptr()) } < 0 {
            self.complain(&self.cannot_enter, &io::Error::last_os_error());
        }
        if let Some((index, text)) = &mut self.pid_variable {
            write_pid(text, rustix::process::getpid());
            self.environment[*index] = text.as_ptr().cast();
        }
        // SAFETY: both lists end with a null pointer, and the strings behind them live as long as this process.
        unsafe { libc::execve(self.program.as_ptr(), self.arguments.as_ptr(), self.environment.as_ptr()) };
        io::Error::last_os_error()
    }

    fn complain(&self, what: &[u8], error: &io::Error) -> ! {
        for text in [what, reason(error.raw_os_error().unwrap_or(0)), b"\n"] {
            // SAFETY: the buffer and its length belong together.
            unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
        }
        // SAFETY: it runs no handler and no destructor.
        unsafe { libc::_exit(NOT_EXECUTED) }
    }

    fn prepare(&self) -> io::Result<()> {
        for &(from, to) in &self.places {
            // SAFETY: descriptors are numbers to dup2, which says so when one is not open.
            if unsafe { libc::dup2(from, to) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        if let Some(group) = self.group {
            enter(group);
        }
        rustix::process::setsid()?;
        rustix::process::set_parent_process_death_signal(Some(self.parent_death))?;
        if let Some(limit) = &self.descriptor_limit {
            rustix::process::setrlimit(Resource::Nofile, *limit)?;
        }
        reset_signals(self.sheltered);
        Ok(())
    }
}

/// What the system says when a program cannot be executed (errno(3)), without allocating.
fn reason(errno: i32) -> &'static [u8] {
    match errno {
        libc::ENOENT => b"No such file or directory",
        libc::EACCES => b"Permission denied",
        libc::ENOEXEC => b"Exec format error",
        libc::ENOTDIR => b"Not a directory",
        libc::E2BIG => b"Argument list too long",
        libc::ETXTBSY => b"Text file busy",
        libc::ELOOP => b"Too many levels of symbolic links",
        libc::EIO => b"Input/output error",
        libc::ENOMEM => b"Cannot allocate memory",
        libc::EMFILE | libc::ENFILE => b"Too many open files",
        libc::EPERM => b"Operation not permitted",
        libc::EAGAIN => b"Resource temporarily unavailable",
        libc::ESTALE => b"Stale file handle",
        _ => b"the system refuses it",
    }
}

/// Blocks all signals in this thread; returns what was blocked before.
fn block_signals() -> libc::sigset_t {
    let (mut all, mut before) = (no_signals(), no_signals());
    // SAFETY: both point to signal sets.
    unsafe {
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
    }
    before
}

fn set_signals(mask: &libc::sigset_t) {
    // SAFETY: it points to a signal set; the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
}

fn no_signals() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset makes it a signal set.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
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
/// none: a program inherits what is ignored and what is held back. SIGPIPE is ignored as systemd has it for every service
/// (IgnoreSIGPIPE= of systemd.exec(5)): a visitor who leaves must not end a program that counts on that. Allocates nothing.
fn reset_signals(sheltered: bool) {
    for number in 1..=LAST_SIGNAL {
        let ignored = number == libc::SIGPIPE || sheltered && concerns_the_unit(number);
        let action = if ignored { libc::SIG_IGN } else { libc::SIG_DFL };
        // SAFETY: neither action is a function that could run; signals whose action cannot be set are refused.
        unsafe { libc::signal(number, action) };
    }
    set_signals(&no_signals());
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
        // bytes back from the file. It is mapped read-only, so that no thread can write to it between the look and the
        // call; and what cannot be let go of stays.
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
    fn a_program_that_cannot_be_executed_says_why_on_its_stderr() {
        use std::io::Read;
        let (mut read, write) = io::pipe().expect("a pipe");
        let command = |program: &str, directory: &str| Command {
            launcher: Vec::new(),
            program: program.into(),
            arguments: vec!["name".into()],
            directory: directory.into(),
            environment: BTreeMap::new(),
        };
        for (program, directory, says) in [
            ("/nowhere/program", "/", "cannot execute /nowhere/program: No such file or directory\n"),
            ("/dev/null", "/", "cannot execute /dev/null: Permission denied\n"),
            ("/bin/true", "/nowhere", "cannot work in the directory /nowhere: No such file or directory\n"),
        ] {
            let request = SpawnRequest {
                command: &command(program, directory),
                environment: &BTreeMap::new(),
                descriptors: &[],
                listen_names: None,
                stderr: Some(write.as_fd()),
                pipes: None,
                group: None,
                parent_death: Signal::TERM,
                sheltered: false,
            };
            let child = request.spawn().expect("a process");
            let status = rustix::process::waitpid(Some(child.pid()), rustix::process::WaitOptions::empty());
            let status = status.expect("a child").expect("it ended").1;
            assert_eq!(status.exit_status(), Some(NOT_EXECUTED));
            let mut said = vec![0; says.len()];
            read.read_exact(&mut said).expect("it said something");
            assert_eq!(String::from_utf8_lossy(&said), says);
        }
    }

    #[test]
    fn a_program_begins_with_the_signals_it_is_meant_to_ignore() {
        use std::io::Read;
        let command = Command {
            launcher: Vec::new(),
            program: "/bin/grep".into(),
            arguments: ["grep", "^SigIgn:", "/proc/self/status"].map(Into::into).into(),
            directory: "/".into(),
            environment: BTreeMap::new(),
        };
        // The C library keeps 32 and 33 to itself.
        let bits = |numbers: &mut dyn Iterator<Item = i32>| -> u64 {
            numbers.filter(|number| ![32, 33].contains(number)).map(|number| 1 << (number - 1)).sum()
        };
        let unit = (1..=LAST_SIGNAL).filter(|number| *number == libc::SIGPIPE || concerns_the_unit(*number));
        for (sheltered, expected) in
            [(false, bits(&mut [libc::SIGPIPE].into_iter())), (true, bits(&mut unit.into_iter()))]
        {
            let (mut read, write) = io::pipe().expect("a pipe");
            let null = File::open("/dev/null").expect("it is there");
            let request = SpawnRequest {
                command: &command,
                environment: &BTreeMap::new(),
                descriptors: &[],
                listen_names: None,
                stderr: None,
                pipes: Some((null.as_fd(), write.as_fd())),
                group: None,
                parent_death: Signal::TERM,
                sheltered,
            };
            let child = request.spawn().expect("a process");
            drop(write);
            let mut said = String::new();
            read.read_to_string(&mut said).expect("text");
            rustix::process::waitpid(Some(child.pid()), rustix::process::WaitOptions::empty()).expect("a child");
            let mask = u64::from_str_radix(said.trim_start_matches("SigIgn:").trim(), 16).expect("a mask");
            assert_eq!(mask & !(3 << 31), expected, "sheltered: {sheltered}");
        }
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
