//! Warm templates in the simulated world: what becomes of a copy that answers requests, and of the workers that it makes.

use super::super::faults::Code;
use super::{Happening, World, ms};
use sockd_supervisor::{Event, GenerationId, WorkerId};
use std::collections::BTreeSet;

/// What becomes of the next copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    #[default]
    Works,
    IsRefused,
    /// Nothing is ever heard of it.
    Hangs,
    /// It can be used, and its workers never get ready.
    MakesUselessWorkers,
    /// It can be used, and ends some time later.
    Ends,
}

pub const FATES: [Fate; 5] = [Fate::Works, Fate::IsRefused, Fate::Hangs, Fate::MakesUselessWorkers, Fate::Ends];

/// The copies.
#[derive(Debug, Default)]
pub struct Warming {
    pub fate: Fate,
    /// Of which generations one was asked for, since they were prepared last.
    pub asked: BTreeSet<GenerationId>,
    /// Those of which one waits to be used.
    waiting: BTreeSet<GenerationId>,
    /// Those whose workers one makes.
    used: BTreeSet<GenerationId>,
    /// Those whose copy makes useless workers.
    useless: BTreeSet<GenerationId>,
    /// Who was made by one.
    pub made: BTreeSet<WorkerId>,
}

impl World {
    pub(super) fn warm(&mut self, generation: GenerationId) {
        assert!(self.prepared.contains(&generation), "warmed from nothing\n{}", self.story());
        assert!(self.warming.asked.insert(generation), "warmed twice\n{}", self.story());
        let fate = self.warming.fate;
        if fate == Fate::MakesUselessWorkers {
            self.warming.useless.insert(generation);
        }
        let delay = ms(50 + self.roll(3_000));
        let refused = |why: &str| Event::NotWarm { generation, why: why.to_owned() };
        match fate {
            Fate::Hangs => {}
            Fate::IsRefused => self.later(delay, Happening::Event(refused("the requests started the thread metrics"))),
            Fate::Works | Fate::MakesUselessWorkers | Fate::Ends => {
                self.later(delay, Happening::Event(Event::Warmed(generation)));
            }
        }
        if fate == Fate::Ends {
            let ends = delay + ms(1 + self.roll(20_000));
            self.later(ends, Happening::Event(refused("the copy of the template was killed by SIGKILL")));
        }
    }

    pub(super) fn use_warm(&mut self, generation: GenerationId, warm: bool) {
        if warm {
            assert!(self.warming.waiting.remove(&generation), "used, and not there\n{}", self.story());
            self.warming.used.insert(generation);
        } else {
            assert!(self.warming.used.remove(&generation), "not used\n{}", self.story());
        }
    }

    /// What makes the workers is gone, with its copy.
    pub(super) fn forget_copy(&mut self, generation: GenerationId) {
        self.warming.asked.remove(&generation);
        self.warming.waiting.remove(&generation);
        self.warming.used.remove(&generation);
        self.warming.useless.remove(&generation);
    }

    /// Whether the daemon would say so of a copy.
    pub(super) fn copy_is_heard(&mut self, event: &Event) -> bool {
        if let Event::Warmed(generation) = event {
            return self.warming.asked.contains(generation) && self.warming.waiting.insert(*generation);
        }
        if let Event::NotWarm { generation, .. } = event {
            self.warming.waiting.remove(generation);
            // One that was asked to end says nothing of its end.
            let used = self.warming.used.remove(generation);
            return self.warming.asked.contains(generation) && (used || self.warming.fate == Fate::IsRefused);
        }
        true
    }

    /// What a worker is that is made at this moment: its code, if the copy does not make it useless.
    pub(super) fn made_from(&mut self, worker: WorkerId, generation: GenerationId, code: Code) -> Code {
        if !self.warming.used.contains(&generation) {
            return code;
        }
        self.warming.made.insert(worker);
        if self.warming.useless.contains(&generation) { Code::ImportError } else { code }
    }
}
