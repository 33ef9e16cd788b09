//! The visitors of the simulated world while a new generation is tried: how many come, and what becomes of their requests.

use super::{Process, World, ms};
use sockd_supervisor::{Answered, Event, GenerationId, Role, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long answers may take.
const BOUNDS: [Duration; 6] = [ms(10), ms(20), ms(100), ms(200), ms(1_000), ms(5_000)];

/// What visitors do, and what has become of their requests.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// So many come each second.
    pub per_second: u64,
    /// So many of ten thousand answers are server errors.
    pub errors: u64,
    /// So many more of them with any code but the first.
    pub more_errors: u64,
    /// Answers take this long, by the index of the bound; and those of any code but the first.
    pub durations: (usize, usize),
    answered: BTreeMap<GenerationId, Answered>,
    counted_at: Option<Time>,
}

impl World {
    /// Visitors come until now, to all workers alike, and the core hears what has become of them.
    pub(super) fn count_answers(&mut self, generation: GenerationId) {
        assert!(self.manager.reloading, "counted, and nothing is reloaded\n{}", self.story());
        let since = self.traffic.counted_at.replace(self.now).map_or(Duration::ZERO, |then| self.now.since(then));
        let public = |p: &&Process| p.role == Role::Serving && p.alive && p.signals.is_empty();
        let serving: Vec<GenerationId> = self.processes.values().filter(public).map(|p| p.generation).collect();
        let come = (since.as_millis() as u64 * self.traffic.per_second) / 1_000;
        for _ in 0..come.min(100_000) {
            let of = serving[self.roll(serving.len() as u64) as usize];
            let new = of != GenerationId(1);
            let rate = self.traffic.errors + if new { self.traffic.more_errors } else { 0 };
            let fails = self.roll(10_000) < rate;
            let duration = if new { self.traffic.durations.1 } else { self.traffic.durations.0 };
            let answered = self.traffic.answered.entry(of).or_default();
            answered.answers += 1;
            answered.server_errors += u64::from(fails);
            answered.durations.resize(BOUNDS.len(), (ms(0), 0));
            answered.durations[duration].1 += 1;
        }
        let of = |generation| {
            let mut answered: Answered = self.traffic.answered.get(&generation).cloned().unwrap_or_default();
            answered.durations.iter_mut().zip(BOUNDS).for_each(|((bound, _), of)| *bound = of);
            answered
        };
        let serving = self.core.overview(self.now).generation;
        let event = Event::AnswersCounted { generation, new: of(generation), old: of(serving) };
        self.later(ms(0), super::Happening::Event(event));
    }
}
