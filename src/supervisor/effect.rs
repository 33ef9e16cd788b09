//! What the core wants done.

use super::acceptance::Answer;
use super::id::{GenerationId, RequestId, SlotId, SocketId, WorkerId, WorkerRef};
use super::notice::Notice;
use super::record::{Record, Source};
use super::spec::Trial;
use std::iter::Chain;
use std::time::Duration;
use std::{slice, vec};

/// One thing the daemon must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Read the configuration and resolve the command. Answered by `Read` or `PrepareFailed`.
    Read {
        /// For which generation.
        generation: GenerationId,
        /// In which directory the application is.
        source: Source,
    },
    /// Run this check, of those that were read. Answered by `Checked`.
    Check {
        /// Of which generation.
        generation: GenerationId,
        /// Its place in the list, from 0.
        number: usize,
    },
    /// The time of the check is over: end it, with all its descendants. Its answer follows at once.
    EndCheck(GenerationId),
    /// Boot a template from what was read, where there is one. Answered by `Prepared` or `PrepareFailed`.
    Load(GenerationId),
    /// Have a copy of what `Load` made answer requests of the daemon's own. Answered by `Warmed` or `NotWarm`.
    Warm(GenerationId),
    /// Workers that are asked for from here on are made by that copy; if it ends, `NotWarm` says so, and they are made as
    /// before.
    UseWarm(GenerationId),
    /// Workers that are asked for from here on are made as before; the copy ends.
    UseUnwarmed(GenerationId),
    /// Drop all that `Read` and `Load` made or are making, and end a check, with all its descendants; nothing is heard of
    /// it afterwards. Spawns that were asked of it and not yet answered are answered by `SpawnFailed`.
    Release(GenerationId),
    /// The service ends and no worker is left: what `Load` made may do its own last work. Answered by
    /// `PreparationLost`.
    Conclude(GenerationId),
    /// Make a process. Answered by `Spawned` or `SpawnFailed`.
    Spawn {
        /// Who it will be.
        worker: WorkerId,
        /// Of which generation.
        generation: GenerationId,
        /// What it may hold.
        role: Role,
    },
    /// Find out whether the worker holds one of our sockets and accepts from it. Answered by `Inspected`.
    Inspect(WorkerId),
    /// Ask the worker, on its private socket, and compare with `reference`, a worker that serves, where the answer does
    /// not speak for itself. Answered by `Judged`.
    Judge {
        /// Who is asked.
        worker: WorkerId,
        /// Who shows what is usual. None: nobody serves, or it is known.
        reference: Option<WorkerId>,
        /// What is known to be usual, for want of an answer of the reference.
        remembered: Option<Answer>,
        /// Whether visitors may keep it busy: another worker of its code has answered, and it holds the public sockets.
        may_be_busy: bool,
        /// How long it is asked at most, again where it closes the connection. None: it has been ready, so that one
        /// question that takes no longer than any other must do.
        patience: Option<Duration>,
    },
    /// Count what became of the requests of this generation, and of the one that serves. Answered, at once, by
    /// `AnswersCounted`.
    CountAnswers(GenerationId),
    /// Ask a ready worker whether it is well. Answered, once, by `Probed`; a worker is never asked twice at a time.
    Probe {
        /// Who is asked.
        worker: WorkerId,
        /// Whether it need not be asked while nobody is being served; the answer is `Idle` then.
        skip_when_idle: bool,
    },
    /// Read when the worker's last heartbeat was, if it shows that. Answered, once, by `HeartbeatRead`, unless it ends.
    ReadHeartbeat(WorkerId),
    /// Send a signal. The process exists.
    Signal(WorkerId, Signal),
    /// Wait for a connection without accepting it. Answered, once, by `ConnectionWaiting`.
    WatchListeners,
    /// Bind this socket of ours again, whose path was lost. Answered by `Rebound` if that could be done.
    Rebind(SocketId),
    /// It is not bound again: that was done too often, and each time somebody removed its file.
    LeaveUnbound(SocketId),
    /// Ask for a reload, as any client does: it brings a socket that was bound again to the workers.
    RequestReload,
    /// Set the backlog of the shared sockets again: a worker has just made itself ready, and each server sets its own.
    RestoreBacklogs,
    /// Pass on at once what the worker writes to stderr: it is ready, or hangs, and nothing of it is held back any more to
    /// be compared with the attempt before.
    PassStderr(WorkerId),
    /// Keep how a slot's worker ended, with its last lines, for those who ask for the status.
    RecordExit {
        /// Who.
        worker: WorkerId,
        /// Whose slot it is.
        slot: SlotId,
        /// From the decision to start it.
        lived: Duration,
        /// The verdict.
        why: String,
    },
    /// So many workers are wanted from here on, and not what the configuration says: hooks of the application are called.
    ReportPoolSize(u32),
    /// All that was wanted is reached, and little is to be done from here on: give back memory that others may need.
    ReleaseMemory,
    /// Look how many wait in the queue: answered by `QueueMeasured`.
    MeasureQueue,
    /// Keep over a restart that maintenance is on, with what visitors were to read when it was asked for, or that it is
    /// not.
    KeepMaintenance(bool),
    /// Answer visitors with 503 from here on; each answer is reported as `VisitorTurnedAway`, and as `FallbackLost` that
    /// it cannot be done. It comes again after that.
    StartFallback,
    /// Stop answering.
    StopFallback,
    /// Tell the service manager.
    Announce(Announcement),
    /// Tell the clients that wait for a reload how far it is.
    ReportProgress(Progress),
    /// Answer a request.
    Answer(RequestId, Outcome),
    /// A reload has ended: run the program that is to hear of it, for which nobody waits.
    RunAfterReload {
        /// The generation that serves, or that was refused.
        generation: GenerationId,
        /// Why it was refused.
        verdict: Result<(), String>,
    },
    /// Keep it in the history: a reload or the start has ended. What `Read` made for its generation is there still.
    Record(Record),
    /// Write it to the log.
    Notice(Notice),
    /// Everything has ended: leave.
    Exit,
}

/// What a worker may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The public sockets.
    Serving,
    /// Only a private probe socket.
    Canary,
}

/// A signal by its purpose; the adapter knows the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// You are replaced: stop accepting, finish what is in flight, long-lived connections included, and leave.
    Drain,
    /// The service ends: stop accepting, finish the requests in flight, leave.
    Stop,
    /// Leave: you have not served yet.
    Terminate,
    /// Write your stack and leave.
    Abort,
    /// The end, for the worker and all its descendants.
    Kill,
}

/// What the service manager is notified of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announcement {
    /// The service can do its job. Sent once.
    Ready,
    /// A reload began. `ReloadEnded` or `Stopping` follows.
    Reloading,
    /// The reload ended, one way or the other.
    ReloadEnded,
    /// The service is about to end.
    Stopping,
    /// What goes on may take this long from here.
    ExtendTimeout(Duration),
}

/// A step of a reload, for those who wait for its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The new generation is prepared.
    Preparing(GenerationId),
    /// This program checks it, as people know it.
    Checking(String),
    /// The checks have ended well; it is loaded.
    Loading(GenerationId),
    /// The canary has shown that the new code works.
    CanaryProven,
    /// A worker is ready.
    WorkerReady {
        /// Who.
        place: WorkerRef,
        /// From the decision to start it.
        after: Duration,
    },
    /// Visitors try the new generation.
    Trying {
        /// Which.
        generation: GenerationId,
        /// On so many workers.
        workers: u32,
        /// How it is decided.
        trial: Trial,
    },
    /// So much was seen of it, and nothing speaks against it, unless a refusal follows.
    Tried {
        /// How many of its requests were answered.
        answers: u64,
        /// How many of them the server failed at.
        server_errors: u64,
        /// How many answers decide.
        wanted: u64,
    },
    /// The trial has ended well, or was ended.
    TrialDone {
        /// With so many answers.
        answers: u64,
        /// Of so many that were wanted.
        wanted: u64,
    },
    /// Every slot has a worker of the new generation; they are watched for so long.
    Soaking(Duration),
}

/// What came of a request: how a reload ended, or whether a worker is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every slot runs this generation.
    Serving(GenerationId),
    /// The new generation is proven and waits, like the old one did, for the first connection.
    Waiting(GenerationId),
    /// The old one serves on.
    Refused {
        /// The generation that goes.
        generation: GenerationId,
        /// Why, for people.
        why: String,
        /// The worker that failed, if it was one: its last lines tell more.
        worker: Option<WorkerId>,
    },
    /// The new generation is proven, and serves when workers start again.
    WaitingForResume(GenerationId),
    /// This generation takes every slot without the end of its trial.
    Promoted(GenerationId),
    /// No generation is tried by visitors at this time.
    NothingTried,
    /// The reload to this generation is called off; the old one serves on.
    CalledOff(GenerationId),
    /// No reload is under way.
    NothingToCallOff,
    /// This worker gets a successor, which is proven first.
    Replacing(WorkerId),
    /// This worker is not replaced.
    NotReplaced {
        /// Who.
        worker: WorkerId,
        /// Why not.
        why: Irreplaceable,
    },
    /// Every worker has left, and none starts for so long, unless somebody resumes.
    Paused {
        /// What is left of the time that was asked for.
        left: Duration,
    },
    /// It is not paused: workers serve, or start again.
    NotPaused(Unpausable),
    /// Visitors are answered 503 until somebody ends that.
    Maintained,
    /// The pause is over.
    Resumed {
        /// Whether a worker serves; otherwise nobody has come yet, as before the pause.
        serves: bool,
    },
    /// The pause is over, and no worker serves.
    NotServing {
        /// Why, for people.
        why: String,
    },
    /// No pause is under way: its time was over, or there was none.
    NothingToResume,
    /// The service stops.
    Stopping,
}

/// Why a site is not paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unpausable {
    /// It is paused already.
    Paused,
    /// It is in maintenance already.
    Maintained,
    /// A reload to this generation is under way.
    Reloads(GenerationId),
    /// This worker was still at its last requests when the time was over.
    Serves(WorkerId),
    /// Somebody has resumed it before the last worker had left.
    Resumed,
}

/// Why a worker is not replaced on request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Irreplaceable {
    /// It has ended, or never was.
    Unknown,
    /// It is not proven yet: its start timeout bounds that.
    Starting,
    /// It is leaving already.
    Leaving,
    /// It is a canary: it has no place that another could take.
    Canary,
}

/// What to do, in this order.
///
/// What is only written down, notices and how workers ended, comes after the acts that were decided beside it: journald, once
/// written to, may take the processor first, and a dead worker's successor would come half a millisecond later. What somebody
/// waits for (the service manager, a client, the end) comes after what was to be written down before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "the core has decided; somebody must act"]
pub struct Effects {
    acts: Vec<Effect>,
    /// What is to be written down since the last act that somebody waits for.
    records: Vec<Effect>,
}

impl Effects {
    pub(super) fn push(&mut self, effect: Effect) {
        match effect {
            Effect::Notice(_) | Effect::RecordExit { .. } => return self.records.push(effect),
            Effect::Announce(_) | Effect::Answer(..) | Effect::Exit => self.acts.append(&mut self.records),
            Effect::Read { .. }
            | Effect::Check { .. }
            | Effect::EndCheck(_)
            | Effect::Load(_)
            | Effect::Warm(_)
            | Effect::UseWarm(_)
            | Effect::UseUnwarmed(_)
            | Effect::Release(_)
            | Effect::Conclude(_)
            | Effect::Spawn { .. }
            | Effect::Inspect(_)
            | Effect::Judge { .. }
            | Effect::Probe { .. }
            | Effect::CountAnswers(_)
            | Effect::MeasureQueue
            | Effect::KeepMaintenance(_)
            | Effect::ReadHeartbeat(_)
            | Effect::Signal(..)
            | Effect::WatchListeners
            | Effect::Rebind(_)
            | Effect::LeaveUnbound(_)
            | Effect::RequestReload
            | Effect::RestoreBacklogs
            | Effect::PassStderr(_)
            | Effect::ReportPoolSize(_)
            | Effect::ReleaseMemory
            | Effect::StartFallback
            | Effect::StopFallback
            | Effect::ReportProgress(_)
            | Effect::Record(_)
            | Effect::RunAfterReload { .. } => {}
        }
        self.acts.push(effect);
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        self.push(Effect::Notice(notice));
    }

    /// Looks at them without acting.
    pub fn iter(&self) -> impl Iterator<Item = &Effect> {
        self.into_iter()
    }
}

impl IntoIterator for Effects {
    type Item = Effect;
    type IntoIter = Chain<vec::IntoIter<Effect>, vec::IntoIter<Effect>>;

    fn into_iter(self) -> Self::IntoIter {
        self.acts.into_iter().chain(self.records)
    }
}

impl<'a> IntoIterator for &'a Effects {
    type Item = &'a Effect;
    type IntoIter = Chain<slice::Iter<'a, Effect>, slice::Iter<'a, Effect>>;

    fn into_iter(self) -> Self::IntoIter {
        self.acts.iter().chain(&self.records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_come_after_acts_and_before_what_somebody_waits_for() {
        let mut effects = Effects::default();
        effects.notice(Notice::FirstConnection);
        effects.push(Effect::WatchListeners);
        effects.push(Effect::Announce(Announcement::Ready));
        effects.notice(Notice::Stopping);
        effects.push(Effect::StopFallback);
        let order = [
            Effect::WatchListeners,
            Effect::Notice(Notice::FirstConnection),
            Effect::Announce(Announcement::Ready),
            Effect::StopFallback,
            Effect::Notice(Notice::Stopping),
        ];
        assert!(effects.iter().eq(&order), "{effects:?}");
        assert!(effects.into_iter().eq(order));
    }
}
