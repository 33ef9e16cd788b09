//! All workers, and a summary of them that is wanted after each event: whose deadline is next, whether anybody's time runs,
//! whether anybody is asked, how many serve. To look through a thousand workers for that, a thousand times, was most of what
//! the core cost.
//!
//! A worker changes by [`Workers::update`] alone, which brings the summary up to date.

use super::effect::Role;
use super::id::{GenerationId, WorkerId};
use super::time::Time;
use super::worker::{Phase, Worker};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Index;

#[derive(Clone, Debug, Default)]
pub(super) struct Workers {
    all: BTreeMap<WorkerId, Worker>,
    summary: Summary,
}

/// What is wanted of all of them, without a look at each.
#[derive(Clone, Debug, Default, PartialEq)]
struct Summary {
    /// When each wants to be looked at next.
    deadlines: BTreeSet<(Time, WorkerId)>,
    /// When the time of each runs out, unless it is heard before.
    limits: BTreeSet<(Time, WorkerId)>,
    asked: usize,
    serving: usize,
    /// How many of each generation shall serve and are starting; none of zero.
    starting: BTreeMap<GenerationId, usize>,
}

/// What one worker adds to it.
#[derive(Clone, Copy, PartialEq)]
struct Share {
    deadline: Option<Time>,
    limit: Option<Time>,
    is_asked: bool,
    serves: bool,
    starts: Option<GenerationId>,
}

impl Share {
    fn of(worker: &Worker) -> Self {
        Self {
            deadline: worker.deadline(),
            limit: worker.runs_until(),
            is_asked: worker.is_asked(),
            serves: serves(worker),
            starts: starts(worker).then_some(worker.place.generation),
        }
    }
}

impl Summary {
    fn add(&mut self, id: WorkerId, share: Share) {
        self.deadlines.extend(share.deadline.map(|at| (at, id)));
        self.limits.extend(share.limit.map(|at| (at, id)));
        self.asked += usize::from(share.is_asked);
        self.serving += usize::from(share.serves);
        if let Some(generation) = share.starts {
            *self.starting.entry(generation).or_default() += 1;
        }
    }

    fn remove(&mut self, id: WorkerId, share: Share) {
        if let Some(at) = share.deadline {
            self.deadlines.remove(&(at, id));
        }
        if let Some(at) = share.limit {
            self.limits.remove(&(at, id));
        }
        self.asked -= usize::from(share.is_asked);
        self.serving -= usize::from(share.serves);
        if let Some(generation) = share.starts
            && let Entry::Occupied(mut starting) = self.starting.entry(generation)
        {
            *starting.get_mut() -= 1;
            if *starting.get() == 0 {
                starting.remove();
            }
        }
    }
}

/// Whether it holds the public sockets and is ready.
fn serves(worker: &Worker) -> bool {
    worker.phase() == Phase::Ready && worker.role() == Role::Serving
}

/// Whether it will.
fn starts(worker: &Worker) -> bool {
    worker.phase() == Phase::Starting && worker.role() == Role::Serving
}

impl Workers {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.all.get(&id)
    }

    /// In the order of their birth.
    pub(super) fn values(&self) -> impl Iterator<Item = &Worker> {
        self.all.values()
    }

    /// Those that serve.
    pub(super) fn serving(&self) -> impl Iterator<Item = &Worker> {
        self.all.values().filter(|worker| serves(worker))
    }

    pub(super) fn serving_count(&self) -> usize {
        self.summary.serving
    }

    /// How many of this generation shall serve and are starting.
    pub(super) fn starting_count(&self, generation: GenerationId) -> usize {
        self.summary.starting.get(&generation).copied().unwrap_or(0)
    }

    /// Whose deadline is next, and when it is.
    pub(super) fn next_deadline(&self) -> Option<(Time, WorkerId)> {
        self.summary.deadlines.first().copied()
    }

    /// Whose deadline has come by now.
    pub(super) fn due(&self, now: Time) -> Vec<WorkerId> {
        self.summary.deadlines.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect()
    }

    /// When the first worker's time runs out, if any worker's runs.
    pub(super) fn next_limit(&self) -> Option<Time> {
        self.summary.limits.first().map(|(at, _)| *at)
    }

    /// When the last worker's time has run out, of those whose time runs.
    pub(super) fn last_limit(&self) -> Option<Time> {
        self.summary.limits.last().map(|(at, _)| *at)
    }

    /// Whether any of them is being asked.
    pub(super) fn is_any_asked(&self) -> bool {
        self.summary.asked > 0
    }

    pub(super) fn insert(&mut self, worker: Worker) {
        let id = worker.id();
        self.summary.add(id, Share::of(&worker));
        self.all.insert(id, worker);
    }

    pub(super) fn remove(&mut self, id: WorkerId) -> Option<Worker> {
        let worker = self.all.remove(&id)?;
        self.summary.remove(id, Share::of(&worker));
        Some(worker)
    }

    /// Changes a worker, if there is one of this id.
    pub(super) fn update<T>(&mut self, id: WorkerId, change: impl FnOnce(&mut Worker) -> T) -> Option<T> {
        let worker = self.all.get_mut(&id)?;
        let before = Share::of(worker);
        let result = change(worker);
        let after = Share::of(worker);
        if before != after {
            self.summary.remove(id, before);
            self.summary.add(id, after);
        }
        Some(result)
    }

    /// Changes those that are chosen.
    pub(super) fn update_each(&mut self, chosen: impl Fn(&Worker) -> bool, mut change: impl FnMut(&mut Worker)) {
        let ids: Vec<WorkerId> = self.all.values().filter(|worker| chosen(worker)).map(Worker::id).collect();
        for id in ids {
            let _ = self.update(id, &mut change);
        }
    }

    /// Whether the summary is that of the workers as they are.
    pub(super) fn is_consistent(&self) -> bool {
        let mut summary = Summary::default();
        self.all.iter().for_each(|(id, worker)| summary.add(*id, Share::of(worker)));
        summary == self.summary
    }
}

impl Index<WorkerId> for Workers {
    type Output = Worker;

    fn index(&self, id: WorkerId) -> &Worker {
        &self.all[&id]
    }
}
