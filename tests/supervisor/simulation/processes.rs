//! What the processes of the simulated world do: accept, answer, serve, and how signals end them.

use super::super::faults::Code;
use super::{Happening, Process, World, ms};
use sockd_supervisor::{
    Accepts, Answer, Answers, Event, Expectation, GenerationId, ProbeOutcome, Protocol, Role, Signal, WorkerEvent,
    WorkerId, judge, speaks_for_itself, usual,
};
use std::time::Duration;

/// Why there was no answer when there was a standstill.
pub(super) const STOOD_STILL: &str = "no answer in the time of the standstill";

impl World {
    /// What a process does by itself after it came into being.
    pub(super) fn boot(&mut self, id: WorkerId) {
        let code = self.processes[&id].code;
        let mut boot = ms(10 + self.roll(800));
        if let Some(import) = self.import {
            if self.speaks_early {
                self.later_worker(ms(10), id, WorkerEvent::SaidReady);
            }
            boot = import.mul_f64(0.9 + self.roll(20) as f64 / 100.0);
        }
        match code {
            Code::ImportError | Code::BrokenConfiguration => self.later(boot, Happening::Die(id, "exit 3")),
            Code::HangsInImport
            | Code::NeverReady
            | Code::ConfigurationHangs
            | Code::PreparationHangs
            | Code::NeverForks => {}
            Code::Good
            | Code::CheckFails
            | Code::CheckHangs
            | Code::CrashesSoonAfterReady
            | Code::AnswersWorse
            | Code::IsIll
            | Code::BindsElsewhere => {
                self.processes.get_mut(&id).expect("it boots").serves_at = Some(self.now + boot);
                if self.import.is_none() {
                    self.later_worker(boot, id, WorkerEvent::SaidReady);
                }
                self.later(boot + ms(7_000), Happening::Heartbeat(id));
                if self.roll(10) == 0 && self.import.is_none() {
                    self.later_worker(boot + ms(5), id, WorkerEvent::SaidReady);
                }
                if code == Code::CrashesSoonAfterReady {
                    let after = ms(self.roll(1_500));
                    self.later(boot + ms(60) + after, Happening::Die(id, "killed by SIGSEGV"));
                }
            }
        }
    }

    /// What the kernel tells of a worker and the queue of the public sockets.
    pub(super) fn accepts(&mut self, id: WorkerId) -> Accepts {
        if self.import.is_none() {
            return Accepts::Unknown;
        }
        let serves = self.serves(id);
        match self.roll(4) {
            0 if serves => Accepts::Yes,
            _ if self.blind => Accepts::Unknown,
            // The helper takes who waits.
            1 if self.fallback => Accepts::NobodyWaits,
            _ if serves || !self.visitors || self.serving() > 0 => Accepts::NobodyWaits,
            _ => Accepts::NotYet,
        }
    }

    /// What comes of asking whether a worker's code may serve, and when: one that can be asked is asked until it answers.
    pub(super) fn judged(
        &mut self,
        id: WorkerId,
        reference: Option<WorkerId>,
        remembered: Option<&Answer>,
        patience: Option<Duration>,
    ) -> (Duration, WorkerEvent) {
        let delay = ms(self.roll(50));
        let unasked = WorkerEvent::Judged { verdict: Ok(()), answers: Answers::default() };
        let Some(process) = self.processes.get(&id) else { return (delay, unasked) };
        if process.role == Role::Serving && !self.spec.own_socket {
            return (ms(0), unasked);
        }
        let wait = process.serves_at.map(|at| at.since(self.now));
        let (after, new) = match (wait, patience) {
            (Some(wait), Some(patience)) if wait < patience => (wait + delay, says(process)),
            (None | Some(_), Some(patience)) => (patience, Answer::Silent("no answer".to_owned())),
            (_, None) => (delay, says(process)),
        };
        let expectation = Expectation {
            path: "/".to_owned(),
            wanted: None,
            protocol: Protocol::Http,
            silent_when_busy: false,
            watched: patience.is_none(),
        };
        let reference = reference.filter(|_| !speaks_for_itself(&expectation, &new));
        let old = reference.and_then(|id| self.processes.get(&id)).map(says);
        let verdict = judge(&expectation, &new, usual(old.as_ref(), remembered));
        (after, WorkerEvent::Judged { verdict, answers: Answers { new: Some(new), old } })
    }

    /// The time of those who were being asked is over when sockd goes on, whatever they would have answered.
    pub(super) fn lose_answers(&mut self) {
        for happening in self.agenda.values_mut() {
            let Happening::Event(Event::Worker(_, event)) = happening else { continue };
            if let WorkerEvent::Probed(outcome) = event {
                *outcome = ProbeOutcome::NoAnswer(STOOD_STILL.to_owned());
            } else if let WorkerEvent::Judged { verdict, answers } = event {
                (*verdict, *answers) = (Err(STOOD_STILL.to_owned()), Answers::default());
            }
        }
    }

    /// Whether it accepts and answers, whatever the core thinks of it.
    fn serves(&self, id: WorkerId) -> bool {
        self.processes.get(&id).is_some_and(|p| p.alive && p.serves_at.is_some_and(|at| at <= self.now))
    }

    /// How many workers take visitors: nobody asked them to leave.
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
        let Some(process) = self.processes.get(&id) else { panic!("signal to nobody\n{}", self.story()) };
        if signal == Signal::Kill {
            assert!(!process.signals.is_empty(), "worker {id} was killed without a gentler signal\n{}", self.story());
            assert!(
                !process.signals.contains(&Signal::Drain)
                    || process.signals.iter().any(|signal| matches!(signal, Signal::Stop | Signal::Abort)),
                "worker {id} was killed at the end of its drain without being asked to close its connections\n{}",
                self.story()
            );
        }
        let process = self.processes.get_mut(&id).expect("it is there");
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

/// What a process answers once it serves.
fn says(process: &Process) -> Answer {
    if process.stopped || !process.alive {
        Answer::Silent("no answer".to_owned())
    } else if matches!(process.code, Code::IsIll | Code::AnswersWorse) {
        Answer::Status(500)
    } else {
        Answer::Status(200)
    }
}
