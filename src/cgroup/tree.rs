//! The unit's group as systemd delegated it: opened, put in order, and divided among the workers.

use super::file;
use super::group::{Group, Limits, OutOfMemory};
use super::unit::{ROOT, own_directory, unit_directory};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where sockd itself lives.
const SUPERVISOR: &str = "supervisor";
/// Before a worker's number.
const WORKER: &str = "worker-";
/// statfs(2), f_type of the unified hierarchy.
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
/// So often what is left in the unit's own group is moved; each round finds what was forked during the last one.
const ROUNDS: usize = 8;
/// Workers that die so soon after the unit's limit was reached died of that; the kernel does not tell it of each one.
const SAME_OCCASION: Duration = Duration::from_secs(10);

/// Why workers have no groups of their own, for people.
#[derive(Debug, thiserror::Error)]
pub enum Absent {
    /// We run in no service unit, or not as what systemd started there.
    #[error("sockd was not started by a systemd service")]
    NoUnit,
    /// The unit's group is systemd's alone.
    #[error("the unit does not say Delegate=yes")]
    NotDelegated,
    /// The unit is of a user's service manager, and the group that it gave us does not tell.
    #[error("a user's service manager shows what it delegates by DelegateSubgroup=supervisor alone (systemd 254)")]
    NotShown,
    /// The hierarchy cannot be written to.
    #[error("control groups are read-only here; a unit with Delegate=yes must not say ProtectControlGroups=yes")]
    ReadOnly,
    /// Linux before 5.14, or control groups of version 1.
    #[error("the kernel lacks {0}")]
    Kernel(&'static str),
    /// Something else.
    #[error("{what}: {source}")]
    Failed {
        /// What was tried: `cannot make the control group supervisor`.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The unit's group, in order.
#[derive(Debug)]
pub struct Tree {
    unit: PathBuf,
    /// Why memory is not accounted.
    no_memory: Option<&'static str>,
    /// How often the unit's own limit had been reached when it was last looked at, and when that number last grew.
    unit_oom: (u64, Option<Instant>),
    /// The groups of workers that are dead, until what they had started is dead too.
    defunct: Vec<Group>,
}

impl Tree {
    /// Puts the group of our unit in order: ourselves and our processes into `supervisor`, memory accounted for each
    /// group below. Blocks for some milliseconds (see the module's head).
    ///
    /// Call it only as the process that systemd started for the unit, and before the first worker is made.
    ///
    /// # Errors
    /// [`Absent`]; we are still where we were then.
    pub fn open() -> Result<Self, Absent> {
        check_kernel()?;
        let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let (Some(own), Some(unit)) = (own_directory(&text), unit_directory(&text)) else { return Err(Absent::NoUnit) };
        // Directly in the unit's group, or in the one that DelegateSubgroup= names; anything else is not systemd's doing.
        let below = Path::new(own).strip_prefix(&unit).map_or(usize::MAX, |rest| rest.components().count());
        let unit = Path::new(ROOT).join(unit);
        if below > 1 {
            return Err(Absent::NoUnit);
        }
        check_delegation(&unit, below)?;
        if below == 0 {
            move_in(&unit)?;
        }
        Ok(Self { no_memory: enable_memory(&unit).err(), unit_oom: (unit_oom(&unit), None), defunct: Vec::new(), unit })
    }

    /// Why there is no account of memory, and no limit can be set.
    pub fn without_memory(&self) -> Option<&'static str> {
        self.no_memory
    }

    /// The groups of workers that a predecessor left behind, to be removed.
    pub fn left_behind(&self) -> Vec<Group> {
        worker_directories(&self.unit).into_iter().map(|path| Group { path, limits: Limits::default() }).collect()
    }

    /// Makes a worker's group, or takes the one that was made ahead, and sets its limits. Nobody is in it yet.
    ///
    /// # Errors
    /// EAGAIN when there are too many groups (cgroup.max.descendants), ENOENT if the unit's group is gone; a limit that
    /// cannot be set.
    pub fn group(&mut self, worker: u64, limits: Limits) -> io::Result<Group> {
        let path = self.unit.join(format!("{WORKER}{worker}"));
        // A predecessor had a worker of this number too. Its group leaves the defunct ones, or it would be removed
        // before a process moves in. If it can go, it goes, since it still counts that worker's events.
        for defunct in self.defunct.extract_if(.., |defunct| defunct.path == path) {
            let _ = defunct.remove();
        }
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        if self.no_memory.is_some() {
            return Ok(Group { path, limits: Limits::default() });
        }
        for (name, limit) in [("memory.high", limits.memory_high), ("memory.max", limits.memory_max)] {
            file::write(&path, name, &limit.map_or("max".to_owned(), |bytes| bytes.to_string()))?;
        }
        Ok(Group { path, limits })
    }

    /// Kills what a dead worker left in its group, which goes when that is dead: see [`Tree::clear`].
    ///
    /// # Errors
    /// As [`Group::kill`]; the group goes when its last process has ended by itself.
    pub fn remove_when_empty(&mut self, group: Group) -> io::Result<()> {
        let killed = group.kill();
        self.defunct.push(group);
        killed
    }

    /// Removes the defunct groups in which no process lives any more.
    pub fn clear(&mut self) {
        self.defunct.retain(|group| group.remove().is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy));
    }

    /// Whose memory ran out, when the kernel has just killed a process of this group.
    pub fn out_of_memory(&mut self, group: &Group) -> OutOfMemory {
        let count = unit_oom(&self.unit);
        if count > self.unit_oom.0 {
            self.unit_oom = (count, Some(Instant::now()));
        }
        if group.hit_its_limit() {
            OutOfMemory::Group { limit: file::number(&group.path, "memory.max") }
        } else if self.unit_oom.1.is_some_and(|at| at.elapsed() < SAME_OCCASION) {
            OutOfMemory::Unit { limit: file::number(&self.unit, "memory.max") }
        } else {
            OutOfMemory::System
        }
    }
}

/// What this machine lacks for groups of workers, whatever a unit says.
///
/// # Errors
/// [`Absent::Kernel`].
pub fn check_kernel() -> Result<(), Absent> {
    if !rustix::fs::statfs(ROOT).is_ok_and(|fs| fs.f_type == CGROUP2_SUPER_MAGIC) {
        return Err(Absent::Kernel("the unified hierarchy of control groups at /sys/fs/cgroup"));
    }
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    // The root of the hierarchy lacks the file everywhere.
    match own_directory(&text) {
        Some(own) if !own.is_empty() && !Path::new(ROOT).join(own).join("cgroup.kill").exists() => {
            Err(Absent::Kernel("cgroup.kill (Linux 5.14)"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether systemd gave us this group: it says so in an extended attribute, of which a user's manager can only set
/// `user.delegate`. Before systemd 251 there is `trusted.delegate` alone, which root alone may read: then a service's user
/// owns the group if it was given to it. For root, and for the services of a user's manager, ownership would not tell.
fn check_delegation(unit: &Path, below: usize) -> Result<(), Absent> {
    let says = |name: &str| {
        let mut value = [0; 8];
        rustix::fs::getxattr(unit, name, &mut value).is_ok_and(|length| value.get(..length) == Some(b"1"))
    };
    let us = rustix::process::geteuid().as_raw();
    let is_ours = || fs::metadata(unit).is_ok_and(|directory| is_given_to(us, directory.uid(), unit));
    let of_user = of_users_manager(unit);
    // Such a manager marks nothing; in a group below the unit's own it starts us for DelegateSubgroup= alone.
    let shown = of_user && below == 1;
    if !(shown || says("user.delegate") || says("trusted.delegate") || is_ours()) {
        return Err(if of_user { Absent::NotShown } else { Absent::NotDelegated });
    }
    match rustix::fs::access(unit.join("cgroup.procs"), rustix::fs::Access::WRITE_OK) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::ROFS) => Err(Absent::ReadOnly),
        Err(_) => Err(Absent::NotDelegated),
    }
}

/// Whether its owner tells that this group was given to the user `us`.
fn is_given_to(us: u32, owner: u32, unit: &Path) -> bool {
    us != 0 && us == owner && !of_users_manager(unit)
}

/// Whether the group of a unit is one that a user's service manager has made.
fn of_users_manager(unit: &Path) -> bool {
    unit.iter().any(|name| name.as_encoded_bytes().starts_with(b"user@"))
}

/// Makes `supervisor` and moves all that is in the unit's own group there: us, and what we have already made.
fn move_in(unit: &Path) -> Result<(), Absent> {
    let supervisor = unit.join(SUPERVISOR);
    if let Err(source) = fs::create_dir(&supervisor)
        && source.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(Absent::Failed { what: "cannot make the control group supervisor", source });
    }
    file::write(&supervisor, "cgroup.procs", "0")
        .map_err(|source| Absent::Failed { what: "cannot enter the control group supervisor", source })?;
    for _ in 0..ROUNDS {
        let left = file::text(unit, "cgroup.procs").unwrap_or_default();
        if left.is_empty() {
            break;
        }
        // One that has ended meanwhile gives ESRCH; what cannot be moved shows when memory is to be accounted.
        left.lines().for_each(|pid| drop(file::write(&supervisor, "cgroup.procs", pid)));
    }
    Ok(())
}

/// Has the kernel account memory in each group below the unit's, which must hold no process of its own any more.
/// No other controller is wanted: processor time is counted and groups are killed without any.
fn enable_memory(unit: &Path) -> Result<(), &'static str> {
    let has = |name: &str| {
        file::text(unit, name).is_some_and(|text| text.split_whitespace().any(|controller| controller == "memory"))
    };
    if !has("cgroup.controllers") {
        return Err("the memory controller is not available in this unit's control group");
    }
    if has("cgroup.subtree_control") || file::write(unit, "cgroup.subtree_control", "+memory").is_ok() {
        return Ok(());
    }
    Err("the kernel refuses the memory controller in this unit's control group, in which other processes run")
}

/// How often the unit's own limit was reached.
fn unit_oom(unit: &Path) -> u64 {
    file::keyed(unit, "memory.events.local", "oom").unwrap_or(0)
}

/// `worker-N` below the unit's group, for every N.
fn worker_directories(unit: &Path) -> Vec<PathBuf> {
    let is_worker = |name: &OsStr| {
        let number = name.to_str().and_then(|name| name.strip_prefix(WORKER));
        number.is_some_and(|number| number.parse::<u64>().is_ok())
    };
    let entries = fs::read_dir(unit).into_iter().flatten().flatten();
    let is_group = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.filter(|entry| is_worker(&entry.file_name()) && is_group(entry)).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with files as the kernel would show them, with the given content.
    fn played(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let unit = std::env::temp_dir().join(format!("sockd-cgroup-{name}-{}", std::process::id()));
        fs::create_dir_all(&unit).expect("a directory");
        files.iter().for_each(|(file, text)| fs::write(unit.join(file), text).expect("a file"));
        unit
    }

    fn tree(unit: &Path) -> Tree {
        Tree { unit: unit.to_owned(), no_memory: Some("played"), unit_oom: (unit_oom(unit), None), defunct: Vec::new() }
    }

    #[test]
    fn an_owner_tells_for_a_user_and_the_systems_manager_alone() {
        let service = Path::new("/sys/fs/cgroup/system.slice/gunicorn.service");
        let of_user = Path::new("/sys/fs/cgroup/user.slice/user-7.slice/user@7.service/app.slice/gunicorn.service");
        assert!(is_given_to(7, 7, service));
        assert!(!is_given_to(7, 0, service), "it has a user and no Delegate=yes");
        assert!(!is_given_to(0, 0, service), "root owns what nobody was given");
        assert!(!is_given_to(7, 7, of_user), "a user owns all groups of his manager");
    }

    #[test]
    fn only_the_groups_of_workers_are_left_behind() {
        let unit = played("left", &[("worker-3", "no directory")]);
        for name in [".control", "supervisor", "worker-12", "worker-", "worker-x", "worker-1.scope", "worker-7"] {
            fs::create_dir_all(unit.join(name)).expect("a directory");
        }
        let mut left: Vec<_> = tree(&unit).left_behind().into_iter().map(|group| group.path).collect();
        left.sort();
        assert_eq!(left[left.len() - 2..], [unit.join("worker-12"), unit.join("worker-7")]);
        assert_eq!(left.len(), 2);
        fs::remove_dir_all(unit).expect("ours");
    }

    #[test]
    fn a_defunct_group_whose_number_is_wanted_again_is_not_removed() {
        let unit = played("defunct", &[]);
        for name in ["worker-1", "worker-2"] {
            fs::create_dir_all(unit.join(name)).expect("a directory");
        }
        let mut tree = tree(&unit);
        for group in tree.left_behind() {
            // The kernel alone makes cgroup.kill.
            assert_eq!(tree.remove_when_empty(group).expect_err("no such file").kind(), io::ErrorKind::NotFound);
        }
        let group = tree.group(1, Limits::default()).expect("a directory");
        tree.clear();
        assert!(group.path.exists(), "a worker is about to enter it");
        assert!(!unit.join("worker-2").exists());
        fs::remove_dir_all(unit).expect("ours");
    }

    #[test]
    fn whose_memory_ran_out_is_distinguished() {
        let unit = played("oom", &[("memory.events.local", "oom 4\n"), ("memory.max", "1073741824\n")]);
        let mut tree = tree(&unit);
        let group = tree.group(1, Limits::default()).expect("a directory");
        let tell = |events: &str| fs::write(group.path.join("memory.events"), events).expect("a file");

        tell("oom 0\noom_kill 1\n");
        assert_eq!(tree.out_of_memory(&group), OutOfMemory::System, "the unit's limit was reached before our time");
        fs::write(unit.join("memory.events.local"), "oom 5\n").expect("a file");
        for _ in 0..2 {
            assert_eq!(tree.out_of_memory(&group), OutOfMemory::Unit { limit: Some(1 << 30) }, "for each worker");
        }
        tell("oom 1\noom_kill 1\n");
        fs::write(group.path.join("memory.max"), "268435456\n").expect("a file");
        assert_eq!(tree.out_of_memory(&group), OutOfMemory::Group { limit: Some(256 << 20) });
        assert_eq!(group.oom_kills(), Some(1));
        fs::remove_dir_all(unit).expect("ours");
    }
}
