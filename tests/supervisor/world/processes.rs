//! What the processes of the simulated world do: accept, answer, serve, and how signals end them.

use super::super::faults::Code;
use super::{Happening, Process, World, ms};
use sockd::supervisor::{Accepts, Event, GenerationId, Role, Signal, WorkerEvent, WorkerId};
use std::time::Duration;

impl World {
    /// What the kernel tells of a worker and the queue of the public sockets.
    pub(super) fn accepts(&mut self, id: WorkerId) -> Accepts {
        if self.import.is_none() {
            return Accepts::Unknown;
        }
        let serves = self.serves(id);
        match self.roll(4) {
            0 if serves => Accepts::Yes,
            _ if !serves && self.visitors && self.processes.contains_key(&id) => Accepts::NotYet,
            _ => Accepts::Unknown,
        }
    }

    /// What comes of a judgement, and when: one that can be asked is asked until it answers.
    pub(super) fn judged(
        &mut self,
        id: WorkerId,
        reference: Option<WorkerId>,
        patience: Option<Duration>,
    ) -> (Duration, Result<(), String>) {
        let delay = ms(self.roll(50));
        let Some(process) = self.processes.get(&id) else { return (delay, Ok(())) };
        if process.role == Role::Serving && !self.spec.own_socket {
            return (ms(0), Ok(()));
        }
        // No worse than one that answers as badly.
        let usual = reference.and_then(|id| self.processes.get(&id)).map(|process| process.code);
        let worse = matches!(process.code, Code::IsIll | Code::AnswersWorse) && usual != Some(process.code);
        let verdict = if worse { Err("500 where the old one says 200".to_owned()) } else { Ok(()) };
        let wait = process.serves_at.map(|at| at.since(self.now));
        match (wait, patience) {
            (Some(wait), Some(patience)) if wait < patience => (wait + delay, verdict),
            (None | Some(_), Some(patience)) => (patience, Err("no answer".to_owned())),
            (_, None) => (delay, verdict),
        }
    }

    /// Whether it accepts and answers, whatever the core thinks of it.
    fn serves(&self, id: WorkerId) -> bool {
        self.processes.get(&id).is_some_and(|p| p.alive && p.serves_at.is_some_and(|at| at <= self.now))
    }

    /// How many workers take visitors: nobody told them to leave.
    pub fn serving(&self) -> usize {
        let public = |p: &Process| p.role == Role::Serving && p.signals.is_empty();
        self.processes.iter().filter(|(id, process)| public(process) && self.serves(**id)).count()
    }

    pub(super) fn fail_pending_spawns(&mut self, generation: GenerationId) {
        let pending: Vec<WorkerId> = self
            .processes
            .iter()
            .filter(|(_, p)| p.generation == generation && !p.alive && p.signals.is_empty())
            .map(|(id, _)| *id)
            .collect();
        for id in pending {
            let stillborn = |h: &Happening| matches!(h, Happening::Event(Event::Worker(w, _)) if *w == id);
            self.agenda.retain(|_, happening| !stillborn(happening));
            // A reaped process stays in the list without being alive; only one that never was is pending.
            if self.core.snapshot(self.now).workers.iter().any(|w| w.worker == id) {
                self.later_worker(ms(0), id, WorkerEvent::SpawnFailed { why: "the template is gone".to_owned() });
            }
        }
    }

    pub(super) fn signal(&mut self, id: WorkerId, signal: Signal) {
        let story = self.story();
        let process = self.processes.get_mut(&id).unwrap_or_else(|| panic!("signal to nobody\n{story}"));
        assert!(
            signal != Signal::Kill || !process.signals.is_empty(),
            "worker {id} was killed without a gentler signal\n{story}"
        );
        assert!(
            signal != Signal::Kill
                || !process.signals.contains(&Signal::Drain)
                || process.signals.iter().any(|signal| matches!(signal, Signal::Stop | Signal::Abort)),
            "worker {id} was killed at the end of its drain without being told to close its connections\n{story}"
        );
        process.signals.push(signal);
        let (stopped, leaves_after) = (process.stopped, process.leaves_after);
        let stays = process.has_lasting_connection || self.is_silent(id);
        match signal {
            Signal::Kill => self.later(ms(1), Happening::Die(id, "killed by SIGKILL")),
            Signal::Drain | Signal::Stop | Signal::Terminate | Signal::Abort if stopped => {}
            Signal::Drain if stays => {}
            Signal::Drain | Signal::Stop | Signal::Terminate => {
                if let Some(after) = leaves_after {
                    self.later(after, Happening::Die(id, "exit 0"));
                }
            }
            Signal::Abort => {
                if leaves_after.is_some() {
                    self.later(ms(5), Happening::Die(id, "killed by SIGABRT"));
                }
            }
        }
    }
}
