//! What `top` knows between its looks: the last answer of each instance, how its numbers went, and what is chosen.
//!
//! Owns: rates from the counters of two looks, the order of instances, and the selection, which stays with its instance and
//! its worker. Pure. Never: asks anyone anything, or knows how it is shown.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::cli::status::list;
use crate::cli::status::report::{Entry, StatusReport};
use crate::control::Status;
use crate::control::message::{Slot, Worker};

/// So many looks are kept: a minute, and what the widest terminal shows.
const TRACE: usize = 60;

/// What is known, and what is chosen.
#[derive(Debug, Default)]
pub struct Model {
    /// In the order of [`Model::sort`].
    pub instances: Vec<Instance>,
    /// Why systemd could not be asked at the last look.
    pub systemd_error: Option<String>,
    /// When the last look was: milliseconds since 1970; 0 before the first.
    pub now_unix_ms: u64,
    /// The order of the instances.
    pub sort: Sort,
    /// Where the arrows move.
    pub focus: Focus,
    /// What is to be answered with yes or no.
    pub question: Option<Question>,
    /// What came of the last action.
    pub said: Option<Said>,
    /// Whether the keys are explained.
    pub help: bool,
    /// Where the threads of a worker stood when they were asked for; why that is not known.
    stacks: Option<(Whose, Result<Vec<String>, String>)>,
    /// What a worker wrote last.
    last_lines: Option<(Whose, Vec<String>)>,
    selected: Option<Identity>,
    worker: Option<u64>,
}

/// What the instances are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// By their names.
    #[default]
    Name,
    /// The most requests first.
    Rate,
    /// The longest queue first.
    Queue,
    /// The most server errors first.
    Errors,
}

/// Where the arrows move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Focus {
    /// Among the instances.
    #[default]
    Instances,
    /// Among the workers of the chosen instance.
    Workers,
}

/// What is done at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Leave.
    Quit,
    /// Reload an instance.
    Reload(Target),
    /// Put another worker in the place of this one.
    Replace(Target, u64),
    /// Ask where the threads of this worker stand.
    Stacks(Target, u64),
    /// Show the journal of a unit, or of one of its workers.
    Journal {
        /// The unit as it is typed.
        unit: String,
        /// Whether it is one of a user's own manager.
        user: bool,
        /// The worker.
        worker: Option<u64>,
    },
}

/// The supervisor that an action is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What it is called, for people.
    pub name: String,
    /// Its process id.
    pub pid: u32,
    /// Whether the service manager says that this is its unit's main process. What else listens under a name like sockd's is
    /// asked only where it is our own user's.
    pub is_main: bool,
}

/// What is asked before something is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The question.
    pub text: String,
    /// What yes leads to.
    pub command: Command,
}

/// What came of an action, or why it cannot be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The lines.
    pub lines: Vec<String>,
    /// Whether it failed.
    pub failed: bool,
}

/// The supervisor's process id, and the worker.
type Whose = (u32, u64);

/// Which instance: the same from look to look.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identity {
    Unit { name: String, user: bool },
    Process(u32),
}

impl Identity {
    fn of(entry: &Entry) -> Self {
        match &entry.unit {
            Some(unit) => Self::Unit { name: unit.clone(), user: entry.user },
            None => Self::Process(entry.pid.unwrap_or_default()),
        }
    }
}

/// A unit, a supervisor, or both.
#[derive(Debug, Default)]
pub struct Instance {
    /// As `status` has it.
    pub entry: Entry,
    /// Requests that are finished in a second.
    pub rate: Trace,
    /// Connections that wait in the queues of all its sockets.
    pub queue: Trace,
    /// Server errors in a second.
    pub errors: Trace,
    paces: BTreeMap<u64, Pace>,
    counters: Option<Counters>,
}

/// What a worker did from one look to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    /// Processor time: 1 is a whole core.
    pub cpu: Option<f64>,
    /// Requests that are finished in a second.
    pub rate: Option<f64>,
}

/// A number at each of the last looks; `None` where it was not known.
#[derive(Clone, Debug, Default)]
pub struct Trace(VecDeque<Option<f64>>);

impl Trace {
    /// At the last look.
    pub fn last(&self) -> Option<f64> {
        self.0.back().copied().flatten()
    }

    /// The last `count` looks, the latest last.
    pub fn recent(&self, count: usize) -> impl Iterator<Item = Option<f64>> {
        self.0.iter().copied().skip(self.0.len().saturating_sub(count))
    }

    fn push(&mut self, value: Option<f64>) {
        if self.0.len() == TRACE {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }
}

/// What only grows, at one look.
#[derive(Debug)]
struct Counters {
    /// Since `top` began.
    at: Duration,
    /// Another process counts from zero again.
    pid: u32,
    /// Those that are finished, and server errors where they are known.
    requests: Option<(u64, Option<u64>)>,
    /// Processor time in milliseconds, and requests.
    workers: BTreeMap<u64, (Option<u64>, Option<u64>)>,
}

impl Counters {
    fn of(status: &Status, at: Duration) -> Self {
        let finished = |worker: &Worker| worker.requests.as_ref().map(|requests| requests.finished);
        Self {
            at,
            pid: status.pid,
            requests: status.requests.as_ref().map(|requests| {
                let server_errors = requests.unclassified.is_none().then_some(requests.server_errors);
                (requests.finished, server_errors)
            }),
            workers: status.workers.iter().map(|worker| (worker.id, (worker.cpu_ms, finished(worker)))).collect(),
        }
    }
}

/// How much a counter grew in a second; `None` where it was reset or is not known.
fn pace(before: Option<u64>, now: Option<u64>, seconds: f64) -> Option<f64> {
    now?.checked_sub(before?).map(|grown| grown as f64 / seconds)
}

impl Instance {
    /// Takes what was seen at a look, so long after `top` began.
    fn take(&mut self, entry: Entry, at: Duration) {
        let now = entry.sockd.as_ref().map(|status| Counters::of(status, at));
        let before = self.counters.take().filter(|before| now.as_ref().is_some_and(|now| now.pid == before.pid));
        let (mut rate, mut errors) = (None, None);
        self.paces.clear();
        if let (Some(before), Some(now)) = (before, &now) {
            let seconds = now.at.saturating_sub(before.at).as_secs_f64().max(0.001);
            rate = pace(before.requests.map(|r| r.0), now.requests.map(|r| r.0), seconds);
            errors = pace(before.requests.and_then(|r| r.1), now.requests.and_then(|r| r.1), seconds);
            for (id, (cpu, finished)) in &now.workers {
                let Some((cpu_before, finished_before)) = before.workers.get(id) else { continue };
                let cpu = pace(*cpu_before, *cpu, seconds).map(|milliseconds| milliseconds / 1000.0);
                self.paces.insert(*id, Pace { cpu, rate: pace(*finished_before, *finished, seconds) });
            }
        }
        self.rate.push(rate);
        self.errors.push(errors);
        self.queue.push(entry.sockd.as_ref().and_then(list::waiting).map(|waiting| waiting as f64));
        self.counters = now;
        self.entry = entry;
    }

    /// What a worker did since the look before.
    pub fn pace(&self, worker: u64) -> Pace {
        self.paces.get(&worker).copied().unwrap_or_default()
    }

    /// Its living workers; none where it does not say.
    pub fn workers(&self) -> &[Worker] {
        self.entry.sockd.as_ref().map_or(&[], |status| &status.workers)
    }

    /// The slots that wait for their next attempt.
    pub fn backing_off(&self) -> impl Iterator<Item = (&Slot, u64)> {
        let slots = self.entry.sockd.iter().flat_map(|status| &status.slots);
        slots.filter(|slot| slot.worker.is_none()).filter_map(|slot| Some((slot, slot.retry_in_ms?)))
    }

    /// The supervisor to be asked for something.
    fn target(&self) -> Result<Target, String> {
        let name = self.entry.name();
        let main = self.entry.systemd.as_ref().map(|unit| unit.main_pid).filter(|pid| *pid != 0);
        match (self.entry.pid, &self.entry.sockd) {
            (Some(pid), Some(_)) => Ok(Target { name, pid, is_main: main == Some(pid) }),
            _ => Err(self.entry.sockd_error.clone().unwrap_or_else(|| format!("{name} does not run"))),
        }
    }
}

impl Model {
    /// Takes what was seen at a look, so long after `top` began.
    pub fn take(&mut self, report: StatusReport, at: Duration) {
        let place = self.place();
        let known = std::mem::take(&mut self.instances).into_iter();
        let mut known: BTreeMap<Identity, Instance> = known.map(|i| (Identity::of(&i.entry), i)).collect();
        for entry in report.entries {
            let mut instance = known.remove(&Identity::of(&entry)).unwrap_or_default();
            instance.take(entry, at);
            self.instances.push(instance);
        }
        (self.systemd_error, self.now_unix_ms) = (report.systemd_error, report.now_unix_ms);
        self.arrange();
        // One that is gone is followed by the one that has its line.
        if self.selected.is_some() && self.place().is_none() {
            self.select(place.unwrap_or_default());
        }
    }

    /// Puts the instances into their order.
    fn arrange(&mut self) {
        let by = |number: fn(&Instance) -> &Trace| {
            move |a: &Instance, b: &Instance| {
                let last = |instance| number(instance).last().unwrap_or(-1.0);
                last(b).total_cmp(&last(a))
            }
        };
        let order: &dyn Fn(&Instance, &Instance) -> Ordering = match self.sort {
            Sort::Name => &|_, _| Ordering::Equal,
            Sort::Rate => &by(|instance| &instance.rate),
            Sort::Queue => &by(|instance| &instance.queue),
            Sort::Errors => &by(|instance| &instance.errors),
        };
        let name = |instance: &Instance| Identity::of(&instance.entry);
        self.instances.sort_by(|a, b| order(a, b).then_with(|| name(a).cmp(&name(b))));
    }

    /// Sorts by the next number.
    pub fn cycle_sort(&mut self) {
        self.sort = match self.sort {
            Sort::Name => Sort::Rate,
            Sort::Rate => Sort::Queue,
            Sort::Queue => Sort::Errors,
            Sort::Errors => Sort::Name,
        };
        self.arrange();
    }

    /// The line of the chosen instance.
    fn place(&self) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        self.instances.iter().position(|instance| Identity::of(&instance.entry) == *selected)
    }

    /// The line of the chosen instance: the first where none was chosen.
    pub fn instance_place(&self) -> usize {
        self.place().unwrap_or_default()
    }

    /// The chosen instance.
    pub fn instance(&self) -> Option<&Instance> {
        self.instances.get(self.instance_place())
    }

    fn select(&mut self, place: usize) {
        let place = place.min(self.instances.len().saturating_sub(1));
        self.selected = self.instances.get(place).map(|instance| Identity::of(&instance.entry));
        self.worker = None;
    }

    /// The line of the chosen worker: the first where none was chosen, or where that one is gone the next younger one.
    pub fn worker_place(&self) -> usize {
        let workers = self.instance().map_or(&[][..], Instance::workers);
        let Some(id) = self.worker else { return 0 };
        let after = workers.iter().position(|worker| worker.id >= id);
        after.unwrap_or_else(|| workers.len().saturating_sub(1))
    }

    /// The chosen worker, where the arrows move among workers.
    pub fn worker(&self) -> Option<&Worker> {
        let workers = self.instance().filter(|_| self.focus == Focus::Workers)?.workers();
        workers.get(self.worker_place())
    }

    /// Moves the selection by so many lines.
    pub fn step(&mut self, by: isize) {
        match self.focus {
            Focus::Instances => self.select(self.instance_place().saturating_add_signed(by)),
            Focus::Workers => {
                let place = self.worker_place().saturating_add_signed(by);
                let workers = self.instance().map_or(&[][..], Instance::workers);
                self.worker = workers.get(place).or(workers.last()).map(|worker| worker.id);
            }
        }
    }

    /// Begins with the workers of the chosen instance, which stays chosen.
    pub fn enter_workers(&mut self) {
        self.select(self.instance_place());
        self.focus = Focus::Workers;
        self.step(0);
    }

    /// The supervisor of the chosen instance.
    ///
    /// # Errors
    /// Why it cannot be asked, for people.
    pub fn target(&self) -> Result<Target, String> {
        self.instance().map_or_else(|| Err("there is no instance".to_owned()), Instance::target)
    }

    /// Keeps the stacks of a worker, or why they are not known, until others are asked for.
    pub fn keep_stacks(&mut self, target: &Target, worker: u64, stacks: Result<Vec<String>, String>) {
        self.stacks = Some(((target.pid, worker), stacks));
    }

    /// Goes back to what else is known of the worker.
    pub fn hide_stacks(&mut self) {
        self.stacks = None;
    }

    /// Keeps what a worker wrote last.
    pub fn keep_last_lines(&mut self, target: &Target, worker: u64, lines: Vec<String>) {
        self.last_lines = Some(((target.pid, worker), lines));
    }

    fn whose(&self) -> Option<Whose> {
        Some((self.instance()?.entry.pid?, self.worker()?.id))
    }

    /// The stacks of the chosen worker, where they were asked for.
    pub fn stacks(&self) -> Option<&Result<Vec<String>, String>> {
        let whose = self.whose()?;
        self.stacks.as_ref().filter(|(of, _)| *of == whose).map(|(_, stacks)| stacks)
    }

    /// What the chosen worker wrote last; `None`: that is not known.
    pub fn last_lines(&self) -> Option<&[String]> {
        let whose = self.whose()?;
        self.last_lines.as_ref().filter(|(of, _)| *of == whose).map(|(_, lines)| &**lines)
    }

    /// Says something in the place of what was said before.
    pub fn say(&mut self, lines: Vec<String>, failed: bool) {
        self.said = Some(Said { lines, failed });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::message::Listener;
    use crate::control::requests::{Requests, WorkerRequests};

    /// An instance with one worker that has finished so many requests, of which each tenth failed.
    fn entry(pid: u32, finished: u64, waiting: u32) -> Entry {
        let worker = Worker {
            id: 1,
            cpu_ms: Some(finished),
            requests: Some(WorkerRequests { finished, ..WorkerRequests::default() }),
            ..Worker::default()
        };
        let status = Status {
            pid,
            requests: Some(Requests { finished, server_errors: finished / 10, ..Requests::default() }),
            listeners: vec![Listener { waiting: Some(waiting), ..Listener::default() }],
            workers: vec![worker],
            ..Status::default()
        };
        Entry { pid: Some(pid), sockd: Some(status), ..Entry::default() }
    }

    fn named(unit: &str, entry: Entry) -> Entry {
        Entry { unit: Some(unit.to_owned()), ..entry }
    }

    fn look(model: &mut Model, second: u64, entries: Vec<Entry>) {
        let report = StatusReport { now_unix_ms: second * 1000, entries, ..StatusReport::default() };
        model.take(report, Duration::from_secs(second));
    }

    fn names(model: &Model) -> Vec<&str> {
        model.instances.iter().filter_map(|instance| instance.entry.unit.as_deref()).collect()
    }

    #[test]
    fn rates_are_the_difference_of_two_looks() {
        let mut model = Model::default();
        look(&mut model, 1, vec![entry(7, 1000, 3)]);
        assert_eq!((model.instances[0].rate.last(), model.instances[0].queue.last()), (None, Some(3.0)));
        look(&mut model, 3, vec![entry(7, 1100, 0)]);
        let instance = &model.instances[0];
        assert_eq!((instance.rate.last(), instance.errors.last()), (Some(50.0), Some(5.0)));
        assert_eq!(instance.pace(1), Pace { cpu: Some(0.05), rate: Some(50.0) });
        assert_eq!(instance.rate.recent(9).collect::<Vec<_>>(), [None, Some(50.0)]);
    }

    #[test]
    fn a_restart_or_a_look_without_an_answer_is_no_rate() {
        let mut model = Model::default();
        let unit = |entry| vec![named("a.service", entry)];
        look(&mut model, 1, unit(entry(7, 1000, 0)));
        // Another process, with more requests than the one before.
        look(&mut model, 2, unit(entry(8, 2000, 0)));
        assert_eq!(model.instances[0].rate.last(), None);
        look(&mut model, 3, unit(Entry::default()));
        look(&mut model, 4, unit(entry(8, 3000, 0)));
        assert_eq!(model.instances[0].rate.last(), None);
        look(&mut model, 5, unit(entry(8, 10, 0)));
        assert_eq!(model.instances[0].rate.last(), None, "a counter that was reset");
        look(&mut model, 6, unit(entry(8, 20, 0)));
        assert_eq!(model.instances[0].rate.last(), Some(10.0));
        for second in 7..200 {
            look(&mut model, second, unit(entry(8, 20, 0)));
        }
        assert_eq!(model.instances[0].rate.recent(usize::MAX).count(), TRACE);
    }

    #[test]
    fn the_order_is_the_one_that_was_asked_for_and_the_selection_stays_with_its_instance() {
        let mut model = Model::default();
        let entries = |a, b, c| {
            vec![
                named("c.service", entry(3, c, 9)),
                named("a.service", entry(1, a, 0)),
                named("b.service", entry(2, b, 5)),
            ]
        };
        look(&mut model, 1, entries(0, 0, 0));
        assert_eq!(names(&model), ["a.service", "b.service", "c.service"]);
        model.step(1);
        look(&mut model, 2, entries(5, 100, 30));
        for order in [["b.service", "c.service", "a.service"], ["c.service", "b.service", "a.service"]] {
            model.cycle_sort();
            assert_eq!(names(&model), order, "{:?}", model.sort);
            assert_eq!(names(&model)[model.instance_place()], "b.service");
        }
        model.cycle_sort();
        assert_eq!((model.sort, names(&model)[0]), (Sort::Errors, "b.service"));
        // It is gone: who has its line now is chosen.
        look(
            &mut model,
            3,
            entries(5, 100, 30).into_iter().filter(|e| e.unit.as_deref() != Some("b.service")).collect(),
        );
        assert_eq!(model.instance_place(), 0);
        look(&mut model, 4, vec![]);
        assert!(model.instance().is_none() && model.target().is_err());
        model.step(isize::MAX);
        model.enter_workers();
        model.step(isize::MIN);
        assert!(model.worker().is_none());
    }

    #[test]
    fn a_worker_that_is_gone_is_followed_by_the_next() {
        let mut model = Model::default();
        let with = |ids: &[u64]| {
            let mut entry = entry(7, 0, 0);
            let worker = |id: &u64| Worker { id: *id, ..Worker::default() };
            entry.sockd.as_mut().expect("a status").workers = ids.iter().map(worker).collect();
            vec![entry]
        };
        look(&mut model, 1, with(&[1, 2, 3]));
        assert_eq!(model.worker().map(|worker| worker.id), None);
        model.enter_workers();
        model.step(1);
        assert_eq!(model.worker().map(|worker| worker.id), Some(2));
        look(&mut model, 2, with(&[1, 3, 4]));
        assert_eq!(model.worker().map(|worker| worker.id), Some(3));
        look(&mut model, 3, with(&[1]));
        assert_eq!(model.worker().map(|worker| worker.id), Some(1));
    }

    #[test]
    fn only_the_main_process_of_a_unit_is_one_that_the_manager_named() {
        let mut model = Model::default();
        let mut unit = named("a.service", entry(7, 0, 0));
        for (main_pid, is_main) in [(7, true), (8, false), (0, false)] {
            unit.systemd = Some(crate::systemd::bus::UnitState { main_pid, ..Default::default() });
            look(&mut model, 1, vec![unit.clone()]);
            assert_eq!(model.target().map(|target| (target.pid, target.is_main)), Ok((7, is_main)));
        }
        (unit.sockd, unit.sockd_error) = (None, Some("no answer".to_owned()));
        look(&mut model, 2, vec![unit]);
        assert_eq!(model.target(), Err("no answer".to_owned()));
    }
}
