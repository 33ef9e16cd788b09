//! What goes wrong in the simulated world: code that is no good, processes that are killed or stopped.

use super::simulation::{Happening, World};
use sockd_supervisor::{Event, Phase, WorkerId};

/// What the files on disk are worth at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Good,
    ImportError,
    HangsInImport,
    NeverReady,
    CrashesSoonAfterReady,
    AnswersWorse,
    /// It answers wrongly whenever it is asked.
    IsIll,
    BindsElsewhere,
    BrokenConfiguration,
    ConfigurationHangs,
    /// The last of the programs that check it says no, where there are any.
    CheckFails,
    CheckHangs,
    PreparationHangs,
    /// What makes the workers was prepared well, and no order has an answer.
    NeverForks,
}

pub const FAULTS: [Code; 13] = [
    Code::ImportError,
    Code::HangsInImport,
    Code::NeverReady,
    Code::CrashesSoonAfterReady,
    Code::AnswersWorse,
    Code::IsIll,
    Code::BindsElsewhere,
    Code::BrokenConfiguration,
    Code::ConfigurationHangs,
    Code::CheckFails,
    Code::CheckHangs,
    Code::PreparationHangs,
    Code::NeverForks,
];

impl World {
    /// One of the ready workers, if there is one.
    pub fn pick_ready(&mut self) -> Option<WorkerId> {
        let ready: Vec<_> =
            self.core.snapshot(self.now).workers.iter().filter(|w| w.phase == Phase::Ready).map(|w| w.worker).collect();
        if ready.is_empty() {
            return None;
        }
        let index = self.roll(ready.len() as u64) as usize;
        Some(ready[index])
    }

    /// A ready worker that shows its heartbeats, or one that says them.
    pub fn pick_ready_that(&self, shows_heartbeats: bool) -> Option<WorkerId> {
        let now = self.core.snapshot(self.now);
        let mut ready = now.workers.iter().filter(|w| w.phase == Phase::Ready).map(|w| w.worker);
        ready.find(|id| self.processes[id].shows_heartbeats == shows_heartbeats)
    }

    /// Any process at all, dead or alive.
    pub fn pick_any(&mut self) -> Option<WorkerId> {
        let all: Vec<_> = self.processes.keys().copied().collect();
        if all.is_empty() {
            return None;
        }
        let index = self.roll(all.len() as u64) as usize;
        Some(all[index])
    }

    pub fn kill(&mut self, id: WorkerId) {
        self.happen(Happening::Die(id, "killed by SIGKILL"));
    }

    /// SIGSTOP: it hangs from here on.
    pub fn freeze(&mut self, id: WorkerId) {
        if let Some(process) = self.processes.get_mut(&id) {
            process.stopped = true;
        }
    }

    /// The template of the serving generation dies.
    pub fn lose_preparation(&mut self) {
        let generation = self.core.snapshot(self.now).generation;
        if self.prepared.contains(&generation) {
            self.event(Event::PreparationLost { generation, why: "the template was killed".to_owned() });
        }
    }
}
