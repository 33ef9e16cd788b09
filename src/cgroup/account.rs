//! What a whole service costs and waits for: the files of its control group, and of the machine's where it has none. Only reads.

use super::file;
use super::unit::{ROOT, unit_directory};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a service costs at this moment, and has cost so far. None: the kernel does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Bytes charged to it, without files that nobody has used for a while.
    pub memory: Option<u64>,
    /// MemoryMax=, in bytes. None: there is none.
    pub memory_max: Option<u64>,
    /// Processor time, user and system.
    pub cpu: Option<Duration>,
    /// For how long CPUQuota= kept it from running.
    pub throttled: Option<Duration>,
    /// For how long some of its processes had to wait for a processor (PSI, cpu.pressure).
    pub cpu_stall: Option<Duration>,
    /// The same for a disk.
    pub io_stall: Option<Duration>,
    /// The same for memory.
    pub memory_stall: Option<Duration>,
}

/// What all that runs on the machine has cost so far (proc_stat(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Processor time of all processors together.
    pub busy: Duration,
    /// Processor time that the hypervisor gave to others.
    pub steal: Duration,
    /// How many processors there are.
    pub cpus: u64,
}

/// The control group of the unit that we run in.
pub fn own_unit() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let unit = Path::new(ROOT).join(unit_directory(&text)?);
    unit.join("cgroup.procs").exists().then_some(unit)
}

/// Reads the account of a unit. Without its control group there are the waits of the machine alone.
pub fn account(unit: Option<&Path>) -> Account {
    let Some(unit) = unit else {
        let stall = |name| file::stalled(Path::new("/proc/pressure"), name).map(Duration::from_micros);
        let (cpu_stall, io_stall, memory_stall) = (stall("cpu"), stall("io"), stall("memory"));
        return Account { cpu_stall, io_stall, memory_stall, ..Account::default() };
    };
    let stall = |name| file::stalled(unit, name).map(Duration::from_micros);
    let cached = file::keyed(unit, "memory.stat", "inactive_file").unwrap_or(0);
    Account {
        memory: file::number(unit, "memory.current").map(|memory| memory.saturating_sub(cached)),
        memory_max: file::number(unit, "memory.max"),
        cpu: file::keyed(unit, "cpu.stat", "usage_usec").map(Duration::from_micros),
        throttled: file::keyed(unit, "cpu.stat", "throttled_usec").map(Duration::from_micros),
        cpu_stall: stall("cpu.pressure"),
        io_stall: stall("io.pressure"),
        memory_stall: stall("memory.pressure"),
    }
}

/// Reads the account of the machine.
pub fn machine() -> Option<Machine> {
    read_machine(&file::text(Path::new("/proc"), "stat")?)
}

fn read_machine(text: &str) -> Option<Machine> {
    let all = text.lines().next()?.strip_prefix("cpu ")?;
    // In ticks of 10 ms: user, nice, system, idle, iowait, irq, softirq, steal.
    let ticks: Vec<u64> = all.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let ticks = |index: usize| ticks.get(index).copied().unwrap_or(0);
    let busy = [0, 1, 2, 5, 6].map(ticks).into_iter().fold(0, u64::saturating_add);
    let is_cpu = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()))
    };
    Some(Machine {
        busy: Duration::from_millis(busy.saturating_mul(10)),
        steal: Duration::from_millis(ticks(7).saturating_mul(10)),
        cpus: text.lines().filter(is_cpu).count() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_accounts_are_read() {
        let unit = std::env::temp_dir().join(format!("sockd-cgroup-account-{}", std::process::id()));
        fs::create_dir_all(&unit).expect("a directory");
        for (name, text) in [
            ("memory.current", "1048576\n"),
            ("memory.stat", "anon 5\ninactive_file 48576\n"),
            ("memory.max", "2097152\n"),
            ("cpu.stat", "usage_usec 1500\nuser_usec 1000\nthrottled_usec 20\n"),
            ("io.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.00 total=1\n"),
        ] {
            fs::write(unit.join(name), text).expect("a file");
        }
        let us = |us| Some(Duration::from_micros(us));
        let expected = Account {
            memory: Some(1_000_000),
            memory_max: Some(2_097_152),
            cpu: us(1500),
            throttled: us(20),
            io_stall: us(7),
            ..Account::default()
        };
        assert_eq!(account(Some(&unit)), expected);
        fs::remove_dir_all(unit).expect("ours");
        let machine = read_machine("cpu  10 1 5 999 7 2 3 4 0 0\ncpu0 1 2\ncpu1 1 2\nintr 5\n");
        let ms = Duration::from_millis;
        assert_eq!(machine, Some(Machine { busy: ms(210), steal: ms(40), cpus: 2 }));
    }
}
