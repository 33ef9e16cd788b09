//! The cgroup of a worker: how it is entered, what it costs, how it ends.

use super::file;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

/// What the kernel holds a group to, in bytes. None: nothing but what holds for the unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Above it the group is slowed down and its memory taken back (memory.high).
    pub memory_high: Option<u64>,
    /// Above it the kernel kills (memory.max).
    pub memory_max: Option<u64>,
}

/// What a group costs at this moment. None: the kernel does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes charged to it: what its processes touched first, files they read included (memory.current).
    pub memory: Option<u64>,
    /// What of it are files that nobody has used for a while, which the kernel takes back for the asking (memory.stat,
    /// inactive_file).
    pub memory_cached: Option<u64>,
    /// The most it ever was (memory.peak, Linux 5.19).
    pub memory_peak: Option<u64>,
    /// Processor time of all that ever ran in it, user and system (cpu.stat).
    pub cpu: Option<Duration>,
    /// For how long some of its processes had to wait for memory (memory.pressure).
    pub memory_stall: Option<Duration>,
}

impl Usage {
    /// The memory that would be free if it were not for this worker, in bytes: a worker that has read a large file is
    /// not a large worker.
    pub fn memory_held(&self) -> Option<u64> {
        Some(self.memory?.saturating_sub(self.memory_cached.unwrap_or(0)))
    }
}

/// Whose memory ran out when the kernel killed a process of a group. Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfMemory {
    /// The group's own limit was reached.
    Group {
        /// The limit.
        limit: Option<u64>,
    },
    /// The limit of the whole unit (MemoryMax=).
    Unit {
        /// The limit.
        limit: Option<u64>,
    },
    /// That of a slice above the unit, or the machine's.
    System,
}

/// The control group of one worker: a name for it. Dropping it leaves the group where it is: see [`Group::remove`].
#[derive(Clone, Debug)]
pub struct Group {
    pub(super) path: PathBuf,
    pub(super) limits: Limits,
}

impl Group {
    /// A descriptor for the worker: a process that writes `0` to it is in the group from then on, with all it forks.
    ///
    /// # Errors
    /// ENOENT if somebody removed the group, EMFILE when there are no descriptors left.
    pub fn entrance(&self) -> io::Result<OwnedFd> {
        // std opens with O_CLOEXEC.
        Ok(OpenOptions::new().write(true).open(self.path.join("cgroup.procs"))?.into())
    }

    /// Kills all that is in it, at once, whatever session or parent it has.
    ///
    /// # Errors
    /// ENOENT if the group is gone, EACCES if it was given to another user.
    pub fn kill(&self) -> io::Result<()> {
        file::write(&self.path, "cgroup.kill", "1")
    }

    /// Removes the empty group.
    ///
    /// # Errors
    /// EBUSY while a process lives in it. That it is gone already is no error.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// `worker-7`.
    pub fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The limits that the kernel was given for it.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// What it costs.
    pub fn usage(&self) -> Usage {
        Usage {
            memory: file::number(&self.path, "memory.current"),
            memory_cached: file::keyed(&self.path, "memory.stat", "inactive_file"),
            memory_peak: file::number(&self.path, "memory.peak"),
            cpu: file::keyed(&self.path, "cpu.stat", "usage_usec").map(Duration::from_micros),
            memory_stall: file::stalled(&self.path, "memory.pressure").map(Duration::from_micros),
        }
    }

    /// How many of its processes the kernel has killed because memory ran out. None without the memory controller.
    pub fn oom_kills(&self) -> Option<u64> {
        file::keyed(&self.path, "memory.events", "oom_kill")
    }

    /// Whether its own limit, and not one above, was what could not be kept.
    pub(super) fn hit_its_limit(&self) -> bool {
        file::keyed(&self.path, "memory.events", "oom").is_some_and(|count| count > 0)
    }

    /// `memory.events`, opened: it has exceptional readiness (POLLPRI) whenever a number in it changes.
    pub(super) fn memory_events(&self) -> io::Result<OwnedFd> {
        Ok(fs::File::open(self.path.join("memory.events"))?.into())
    }
}
