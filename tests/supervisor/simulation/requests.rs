//! What people ask of the simulated instance, and what they hear.

use super::{Happening, Process, World, ms};
use sockd_supervisor::{Event, Outcome, ReleaseId, RequestId, Role, Trial, WorkerId};
use std::time::Duration;

impl World {
    /// Asks for a reload.
    pub fn reload(&mut self) -> RequestId {
        let request = self.request();
        self.event(Event::ReloadRequested(request));
        request
    }

    /// Asks for one that visitors try.
    pub fn reload_with_trial(&mut self, trial: Trial) -> RequestId {
        let request = self.request();
        self.event(Event::TrialRequested { request, trial });
        request
    }

    /// Ends the trial, or the whole reload, before it ends by itself; the answer.
    pub fn decide(&mut self, promotes: bool) -> Outcome {
        let request = self.request();
        self.event(if promotes { Event::PromoteRequested(request) } else { Event::AbortRequested(request) });
        self.answers.get(&request).cloned().unwrap_or_else(|| panic!("it is not answered\n{}", self.story()))
    }

    /// Asks for a reload to a release that served before.
    pub fn roll_back(&mut self, release: ReleaseId) -> RequestId {
        let request = self.request();
        self.event(Event::RollbackRequested { request, release });
        request
    }

    /// Asks for another worker in the place of this one; the answer.
    pub fn replace(&mut self, worker: WorkerId) -> Outcome {
        let request = self.request();
        self.event(Event::ReplacementRequested { request, worker });
        self.answers.get(&request).cloned().unwrap_or_else(|| panic!("it is not answered\n{}", self.story()))
    }

    pub(super) fn request(&mut self) -> RequestId {
        self.sequence += 1;
        let request = RequestId(self.sequence);
        self.asked.insert(request);
        request
    }

    /// Asks for a pause.
    pub fn pause(&mut self, most: Duration) -> RequestId {
        let request = self.request();
        self.event(Event::PauseRequested { request, most });
        request
    }

    /// Asks for its end.
    pub fn resume(&mut self) -> RequestId {
        let request = self.request();
        self.event(Event::ResumeRequested(request));
        request
    }

    /// Asks for maintenance, or for its end.
    pub fn maintain(&mut self, on: bool) -> RequestId {
        let request = self.request();
        self.event(Event::MaintenanceRequested { request, on });
        request
    }

    /// It takes so long for its last requests.
    pub fn is_slow_to_leave(&mut self, id: WorkerId, time: Duration) {
        self.processes.get_mut(&id).expect("it is there").leaves_after = Some(time);
    }

    /// What the kernel says of the queue, a moment later.
    pub(super) fn measure_queue(&mut self) {
        let paused = self.core.overview(self.now).pause;
        assert!(paused.is_some(), "the queue is looked at, and nothing is paused\n{}", self.story());
        let waiting = if self.fallback { 0 } else { self.queue };
        let (waiting, limit) = if self.blind { (0, 0) } else { (waiting, 100) };
        self.later(ms(0), Happening::Event(Event::QueueMeasured { waiting, limit }));
    }

    /// A restart would find what is so.
    pub(super) fn check_kept(&self) {
        assert_eq!(self.keeps_maintenance, self.core.overview(self.now).maintenance, "{}", self.story());
    }

    /// A pause is said to have begun when nobody is left who serves, and not before. Of a refusal one of its own is blamed.
    pub(super) fn check_answer(&self, outcome: &Outcome) {
        if let Outcome::Refused { generation, worker: Some(worker), .. } = outcome {
            let its = self.processes.get(worker).is_none_or(|process| process.generation == *generation);
            assert!(its, "worker {worker} is blamed\n{}", self.story());
        }
        let public = |p: &Process| p.role == Role::Serving && p.alive;
        if matches!(outcome, Outcome::Paused { .. }) {
            assert!(!self.processes.values().any(public), "paused, and one serves\n{}", self.story());
        }
    }
}
