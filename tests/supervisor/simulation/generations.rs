//! How generations are read, checked and loaded in the simulated world, and who hears of a reload's end.

use super::super::faults::Code;
use super::{Happening, World, ms};
use sockd_supervisor::{Checks, Event, GenerationId, Notice, Record, RecordResult, Source};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a check may take.
pub const CHECK_TIMEOUT: Duration = ms(90_000);

/// The checks of generations, and what became of reloads.
#[derive(Debug, Default)]
pub struct Checking {
    /// How many programs check a generation.
    pub programs: usize,
    /// Whether one of them is not there.
    pub is_missing: bool,
    /// The check that runs.
    pub running: Option<GenerationId>,
    /// All that were run, in their order.
    pub run: Vec<(GenerationId, usize)>,
    /// What was read: how many programs are to check it, and how many have ended well.
    read: BTreeMap<GenerationId, (usize, usize)>,
    /// The reloads that have begun.
    begun: BTreeSet<GenerationId>,
    /// Those that have ended: the new generation serves, or was refused.
    ended: BTreeSet<GenerationId>,
    /// Those of which the operator's program has heard, and what.
    pub heard: BTreeMap<GenerationId, Result<(), String>>,
    /// What each generation was read from, as often as it was.
    pub sources: Vec<(GenerationId, Source)>,
    /// The history.
    pub history: Vec<Record>,
}

impl World {
    pub(super) fn read(&mut self, generation: GenerationId, source: Source) {
        self.checking.sources.push((generation, source));
        assert!(self.preparing.insert(generation), "prepared twice at once\n{}", self.story());
        let delay = ms(1 + self.roll(30));
        self.later(
            delay,
            Happening::Event(match self.code {
                Code::ConfigurationHangs => return,
                Code::BrokenConfiguration => {
                    Event::PrepareFailed { generation, why: "web.toml:3:1: unknown key".to_owned() }
                }
                Code::Good
                | Code::CheckFails
                | Code::CheckHangs
                | Code::PreparationHangs
                | Code::ImportError
                | Code::HangsInImport
                | Code::NeverReady
                | Code::CrashesSoonAfterReady
                | Code::AnswersWorse
                | Code::IsIll
                | Code::BindsElsewhere
                | Code::NeverForks => {
                    let programs = (0..self.checking.programs).map(|number| format!("check {number}")).collect();
                    let missing = "cannot execute /nowhere/check: it does not exist".to_owned();
                    let checks = Checks { programs, timeout: CHECK_TIMEOUT };
                    Event::Read { generation, checks: if self.checking.is_missing { Err(missing) } else { Ok(checks) } }
                }
            }),
        );
    }

    pub(super) fn run_check(&mut self, generation: GenerationId, number: usize) {
        assert_eq!(self.checking.running, None, "two checks at once\n{}", self.story());
        assert_eq!(self.checking.read[&generation].1, number, "not the next check\n{}", self.story());
        assert!(!self.prepared.contains(&generation), "checked after it was loaded\n{}", self.story());
        self.checking.running = Some(generation);
        self.checking.run.push((generation, number));
        let delay = ms(5 + self.roll(3_000));
        let last = number + 1 == self.checking.read[&generation].0;
        if last && self.code == Code::CheckHangs {
            return;
        }
        let fails = last && self.code == Code::CheckFails;
        let verdict = if fails { Err("exit 1: unapplied migrations".to_owned()) } else { Ok(()) };
        self.later(delay, Happening::Event(Event::Checked { generation, verdict }));
    }

    pub(super) fn end_check(&mut self, generation: GenerationId) {
        assert_eq!(self.checking.running, Some(generation), "no such check\n{}", self.story());
        let is_its = |happening: &Happening| matches!(happening, Happening::Event(Event::Checked { generation: of, .. }) if *of == generation);
        self.agenda.retain(|_, happening| !is_its(happening));
        let verdict = Err("check: it did not end within 90 s".to_owned());
        self.later(ms(0), Happening::Event(Event::Checked { generation, verdict }));
    }

    pub(super) fn load(&mut self, generation: GenerationId) {
        let (checks, ended_well) = self.checking.read.remove(&generation).expect("it was read");
        let reloads = self.core.overview(self.now).rollout.is_some_and(|(reloaded, _)| reloaded == generation);
        let checked = ended_well == checks || ended_well == 0 && !self.core.somebody_serves();
        assert!(!reloads || checked, "loaded before its checks have ended well\n{}", self.story());
        assert!(reloads || ended_well == 0, "checked, and nothing is reloaded\n{}", self.story());
        assert!(self.preparing.insert(generation), "loaded twice at once\n{}", self.story());
        if generation.0.is_multiple_of(3) {
            self.later(ms(1), Happening::Event(Event::Preparing { generation, limit: ms(90_000) }));
        }
        let delay = ms(5 + self.roll(300));
        if self.code == Code::PreparationHangs {
            return;
        }
        self.load_with_socket(generation);
        let spec = self.spec.clone();
        if spec.preloaded {
            self.loaded.insert(generation, self.code);
        }
        self.record_spec(generation, spec.clone());
        self.later(delay, Happening::Event(Event::Prepared { generation, spec }));
    }

    pub(super) fn release(&mut self, generation: GenerationId) {
        self.prepared.remove(&generation);
        self.preparing.remove(&generation);
        self.forget_copy(generation);
        self.checking.read.remove(&generation);
        self.checking.running.take_if(|running| *running == generation);
        self.fail_pending_spawns(generation);
    }

    /// Whether the daemon would say so: nothing is heard of what was released.
    pub(super) fn is_heard(&mut self, event: &Event) -> bool {
        match event {
            Event::Read { generation, checks } => {
                let programs = checks.as_ref().map_or(0, |checks| checks.programs.len());
                let known = self.preparing.remove(generation);
                known && self.checking.read.insert(*generation, (programs, 0)).is_none()
            }
            Event::Checked { generation, verdict } => {
                let known = self.checking.running.take_if(|running| running == generation).is_some();
                if let Some((_, ended_well)) = self.checking.read.get_mut(generation).filter(|_| verdict.is_ok()) {
                    *ended_well += 1;
                }
                known
            }
            Event::Prepared { generation, .. } => {
                let known = self.preparing.remove(generation);
                if known {
                    self.prepared.insert(*generation);
                }
                known
            }
            Event::PrepareFailed { generation, .. } => self.preparing.remove(generation),
            Event::Warmed(_) | Event::NotWarm { .. } => self.copy_is_heard(event),
            Event::ConnectionWaiting
            | Event::VisitorTurnedAway
            | Event::FallbackLost { .. }
            | Event::Preparing { .. }
            | Event::PreparationLost { .. }
            | Event::Worker(..)
            | Event::ReloadRequested(_)
            | Event::RollbackRequested { .. }
            | Event::ReplacementRequested { .. }
            | Event::OneMoreWorker
            | Event::OneFewerWorker
            | Event::StopRequested
            | Event::TrialRequested { .. }
            | Event::PromoteRequested(_)
            | Event::AbortRequested(_)
            | Event::AnswersCounted { .. }
            | Event::PauseRequested { .. }
            | Event::ResumeRequested(_)
            | Event::QueueMeasured { .. }
            | Event::MaintenanceRequested { .. }
            | Event::PathLost { .. }
            | Event::Rebound { .. }
            | Event::Interrupted { .. } => true,
        }
    }

    /// No check outlives its reload.
    pub(super) fn check_checks(&self) {
        let reloaded = self.core.overview(self.now).rollout.map(|(generation, _)| generation);
        let running = self.checking.running;
        assert!(running.is_none() || running == reloaded, "a check of {running:?} is left\n{}", self.story());
    }

    pub(super) fn note_reload(&mut self, notice: &Notice) {
        if let Notice::RolloutBegun(generation) = notice {
            self.checking.begun.insert(*generation);
        }
        if let Notice::RolloutDone(generation) | Notice::RolloutRefused { generation, .. } = notice {
            self.checking.ended.insert(*generation);
        }
    }

    pub(super) fn run_after_reload(&mut self, generation: GenerationId, verdict: &Result<(), String>) {
        let before = self.checking.heard.insert(generation, verdict.clone());
        assert!(before.is_none(), "the end of a reload is heard of twice\n{}", self.story());
        assert!(self.checking.ended.contains(&generation), "heard of before its end\n{}", self.story());
    }

    /// A reload is recorded once, at its end, and a start once at most. Nothing follows what a stop has cut short.
    pub(super) fn keep_record(&mut self, record: Record) {
        let is_start =
            |record: &Record| matches!(record.result, RecordResult::Started | RecordResult::NotStarted { .. });
        let again = |before: &&Record| match is_start(&record) {
            true => std::mem::discriminant(&before.result) == std::mem::discriminant(&record.result),
            false => !is_start(before) && before.generation == record.generation,
        };
        assert_eq!(self.checking.history.iter().find(again), None, "recorded twice: {record:?}\n{}", self.story());
        let last = self.checking.history.last();
        assert!(last.is_none_or(|last| !is_cut_short(last)), "recorded after a stop: {record:?}\n{}", self.story());
        self.checking.history.push(record);
    }

    /// Of each reload that has ended somebody has heard, once, and the history has each that has begun.
    pub(super) fn check_ends_of_reloads(&self) {
        let heard: BTreeSet<GenerationId> = self.checking.heard.keys().copied().collect();
        assert_eq!(heard, self.checking.ended, "an end was not heard of\n{}", self.story());
        let reloads = self.checking.history.iter().filter(|record| !record.requests.is_empty());
        let recorded: BTreeSet<GenerationId> = reloads.clone().map(|record| record.generation).collect();
        assert_eq!(recorded, self.checking.begun, "a reload is not in the history\n{}", self.story());
        let ended: BTreeSet<GenerationId> =
            reloads.filter(|record| !is_cut_short(record)).map(|record| record.generation).collect();
        assert_eq!(ended, self.checking.ended, "what has ended is recorded as cut short\n{}", self.story());
    }
}

fn is_cut_short(record: &Record) -> bool {
    record.result == RecordResult::CutShort
}
