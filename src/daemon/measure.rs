//! What workers and listeners are measured by: files of /proc and of control groups, questions to the kernel about sockets,
//! paths. Some milliseconds for each hundred workers, and reading a process's memory waits for that process (mmap): so
//! threads do it, their number is bounded, and nobody waits for one of them longer than [`MEASURE_TIMEOUT`].
//!
//! Owns: those threads. Never: decides what a measure means.

use super::listener_monitor::ListenerMonitor;
use super::message::Message;
use super::outbox::Outbox;
use super::workers::{Worker, Workers};
use crate::cgroup::{Group, Usage};
use crate::control::{Replier, message};
use crate::process::{children, process_group, usage};
use crate::queue;
use crate::supervisor::{Event, WorkerEvent, WorkerId};
use rustix::process::Pid;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// No more threads than this measure at the same time: they may wait for processes that stand still.
const MAX_THREADS: usize = 4;
/// A status goes out after this time without what is not measured by then: a process may stand still with its memory
/// locked, and `sockd status` is asked for just then.
const MEASURE_TIMEOUT: Duration = Duration::from_secs(1);

/// The threads that measure.
#[derive(Debug, Default)]
pub(super) struct Meters {
    /// Each holds it.
    alive: Arc<()>,
    /// One of them measures the workers' memory for the core.
    busy: bool,
}

/// Where a worker's costs are read.
#[derive(Debug)]
struct Meter {
    group: Option<Group>,
    pid: Option<Pid>,
}

impl Meter {
    fn of(worker: &Worker) -> Self {
        Self { group: worker.group().cloned(), pid: worker.pid() }
    }

    /// What the worker costs at this moment: by its control group, and by /proc where that does not tell.
    fn read(&self) -> Usage {
        let mut charged = self.group.as_ref().map(Group::usage).unwrap_or_default();
        // The proportional set size takes long to sum up.
        if charged.memory.is_none() || charged.cpu.is_none() {
            let own = self.pid.map(usage).unwrap_or_default();
            charged.memory = charged.memory.or(own.memory);
            charged.cpu = charged.cpu.or(own.cpu);
        }
        charged
    }
}

impl Meters {
    /// Answers `sockd status` once everything is measured that the report lacks.
    pub(super) fn answer_status(
        &self,
        status: message::Status,
        workers: &Workers,
        monitor: &ListenerMonitor,
        replier: Replier,
    ) {
        if Arc::strong_count(&self.alive) > MAX_THREADS {
            // Others wait for what does not answer; what is known is reported without it.
            replier.status(status);
            return;
        }
        let meters: Vec<Option<Meter>> =
            status.workers.iter().map(|worker| workers.get(WorkerId(worker.id)).map(Meter::of)).collect();
        let sockets: Vec<_> = monitor
            .listeners()
            .iter()
            .map(|listener| {
                let (known, alarm) = monitor.path_alarm(listener);
                (listener.address.clone(), listener.inode, listener.file().clone(), known, alarm)
            })
            .collect();
        let alive = Arc::clone(&self.alive);
        let measured = in_time(status, move |report| {
            for (listener, (address, inode, file, known, alarm)) in sockets.into_iter().enumerate() {
                let depth = queue::depth(&address, inode);
                let in_flight = queue::in_flight(&address).ok().map(|in_flight| in_flight.connections);
                let alarm = known.or_else(|| alarm.text(file.at_path(), None));
                let listener = &mut lock(report).listeners[listener];
                listener.waiting = depth.as_ref().ok().map(|depth| depth.waiting);
                listener.backlog = depth.as_ref().ok().map(|depth| depth.limit);
                listener.in_flight = in_flight;
                listener.error = depth.err().map(|error| error.to_string());
                listener.alarm = alarm.or_else(|| listener.alarm.take());
            }
            let own = usage(rustix::process::getpid());
            lock(report).supervisor = message::Cost { memory_bytes: own.memory, cpu_ms: own.cpu.map(ms) };
            for (worker, meter) in meters.iter().enumerate() {
                let usage = meter.as_ref().map(Meter::read).unwrap_or_default();
                charge(&mut lock(report).workers[worker], &usage);
            }
            measure_templates(report);
            drop(alive);
        });
        tokio::spawn(async move { replier.status(measured.await) });
    }

    /// Has the memory of these workers measured, unless that is under way.
    pub(super) fn measure<'a>(&mut self, workers: impl Iterator<Item = (WorkerId, &'a Worker)>, outbox: &Outbox) {
        if self.busy {
            return;
        }
        let meters: Vec<_> = workers.map(|(id, worker)| (id, Meter::of(worker))).collect();
        if meters.is_empty() {
            return;
        }
        self.busy = true;
        let read = move || meters.iter().filter_map(|(id, meter)| Some((*id, meter.read().memory_held()?))).collect();
        let reading = tokio::task::spawn_blocking(read);
        outbox.later(async move { Some(Message::Measured(reading.await.unwrap_or_default())) });
    }

    /// So much memory workers hold.
    pub(super) fn measured(&mut self, measured: Vec<(WorkerId, u64)>, outbox: &mut Outbox) {
        self.busy = false;
        for (id, memory) in measured {
            outbox.event(Event::Worker(id, WorkerEvent::Measured { memory }));
        }
    }
}

/// Has a thread fill a report, and gives what it holds once the thread is done or after [`MEASURE_TIMEOUT`].
async fn in_time<T: Clone + Send + 'static>(report: T, fill: impl FnOnce(&Mutex<T>) + Send + 'static) -> T {
    let report = Arc::new(Mutex::new(report));
    let shared = Arc::clone(&report);
    let filling = tokio::task::spawn_blocking(move || fill(&shared));
    let _ = tokio::time::timeout(MEASURE_TIMEOUT, filling).await;
    lock(&report).clone()
}

/// A report stays readable when a measure panicked.
fn lock<T>(report: &Mutex<T>) -> MutexGuard<'_, T> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What each template costs, together with its warm copy, which is its child, and the process that is made beforehand: a
/// child of ours, as each that it makes. Both are of the template's process group.
fn measure_templates(report: &Mutex<message::Status>) {
    let templates: Vec<Option<Pid>> = lock(report).templates.iter().map(|template| pid(template.pid)).collect();
    if templates.is_empty() {
        return;
    }
    let children_of_ours = children(rustix::process::getpid());
    for (number, template) in templates.into_iter().enumerate() {
        let Some(template) = template else { continue };
        let of_its_group = |pid: &&Pid| **pid != template && process_group(**pid) == Some(template);
        let spare = children_of_ours.iter().find(of_its_group).copied();
        let copy = children(template).into_iter().find(|pid| of_its_group(&pid));
        let costs = [Some(template), spare, copy].map(|pid| pid.map(usage).unwrap_or_default());
        let report = &mut lock(report).templates[number];
        report.spare_pid = spare.map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
        report.memory_bytes = costs.iter().filter_map(|cost| cost.memory).reduce(|sum, more| sum + more);
        report.cpu_ms = costs.iter().filter_map(|cost| cost.cpu).reduce(|sum, more| sum + more).map(ms);
    }
}

fn pid(number: u32) -> Option<Pid> {
    Pid::from_raw(number.cast_signed())
}

fn charge(worker: &mut message::Worker, usage: &Usage) {
    worker.memory_bytes = usage.memory;
    worker.memory_peak_bytes = usage.memory_peak;
    worker.memory_stall_ms = usage.memory_stall.map(ms);
    worker.cpu_ms = usage.cpu.map(ms);
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measure_that_does_not_end_holds_no_report_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let report = runtime.block_on(in_time(Vec::new(), move |report| {
            lock(report).push("measured");
            // Until the test is over.
            let _ = ended.recv();
            lock(report).push("too late");
        }));
        assert_eq!(report, ["measured"]);
        drop(end);
    }
}
