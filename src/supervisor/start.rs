//! Start of an instance, as the history has it: recorded once when all workers are there, and once where it does not succeed.

use super::effect::{Effect, Effects};
use super::record::{Proof, Record, RecordResult};
use super::time::Time;
use super::{Mode, Supervisor};

impl Supervisor {
    /// Records the start, once, when all workers are there.
    pub(super) fn record_start(&mut self, now: Time, effects: &mut Effects) {
        if self.life.start_record.done {
            return;
        }
        self.life.start_record.done = true;
        let proof = Proof { workers: self.wanted().unwrap_or(0), ..Proof::default() };
        self.push_start(now, RecordResult::Started, proof, effects);
    }

    /// Records, once, that the start does not succeed.
    pub(super) fn record_failed_start(&mut self, now: Time, why: &str, effects: &mut Effects) {
        if self.life.start_record.done || self.life.start_record.failed || self.life.mode != Mode::Running {
            return;
        }
        self.life.start_record.failed = true;
        self.push_start(now, RecordResult::NotStarted { why: why.to_owned() }, Proof::default(), effects);
    }

    fn push_start(&self, now: Time, result: RecordResult, proof: Proof, effects: &mut Effects) {
        let generation = self.serving;
        let source = self.generations.get(&generation).map(|serving| serving.source).unwrap_or_default();
        let took = now.since(self.life.begun);
        effects.push(Effect::Record(Record { generation, requests: Vec::new(), source, result, proof, took }));
    }
}
