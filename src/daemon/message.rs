//! What tasks and threads of the daemon report: the loop's inbox.

use super::generation::Read;
use super::health::http::Judgement;
use super::recorder::counted::Looked;
use crate::app::Address;
use crate::history::Kept;
use crate::listener::{AtPath, Listener};
use crate::notify::Datagram;
use crate::process::TemplateMessage;
use crate::recording::Written;
use crate::server_stats::Stats;
use crate::supervisor::{Answer, Event, GenerationId, WorkerId};
use rustix::process::Pid;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::oneshot;

/// One report.
#[derive(Debug)]
pub(super) enum Message {
    /// Something for the core.
    Core(Event),
    /// What a generation is made from was read.
    Read(GenerationId, Box<Read>),
    /// A template spoke, or (None) will speak no more.
    Template(u64, Option<TemplateMessage>),
    /// A datagram on a worker's notification socket, which gives the next one when this one is dropped.
    Notify(WorkerId, Datagram, oneshot::Sender<()>),
    /// What came of asking a worker whether its code may serve.
    Judged { worker: WorkerId, judgement: Judgement },
    /// What came of greeting a worker in TLS for its judgement.
    Greeted { worker: WorkerId, verdict: Result<(), String> },
    /// What came of asking a worker whether it is well.
    Probed { worker: WorkerId, answer: Answer },
    /// The program is to be run again that judges a worker, for so long at most.
    JudgeAgain { worker: WorkerId, patience: Duration },
    /// The program that was run for a worker has had its time.
    HealthCommandLate { worker: WorkerId, pid: Pid },
    /// The program that was run after a reload has had its time.
    AfterReloadLate { pid: Pid },
    /// The kernel has killed processes of a worker, so many in all, and not the worker.
    OutOfMemory(WorkerId, u64),
    /// Where the paths of the listeners lead, by the inodes of their sockets.
    Paths(BTreeMap<u64, AtPath>),
    /// How much memory workers hold.
    Measured(Vec<(WorkerId, u64)>),
    /// What workers said of their requests when they were asked for a status.
    Stats(Vec<(WorkerId, Stats)>),
    /// What a worker said of its requests before it drains, if anything.
    StatsBeforeDrain(WorkerId, Option<Stats>),
    /// So many visitors were answered 503.
    TurnedAway(u64),
    /// What came of binding the status socket there.
    StatusSocket(Address, Result<Listener, String>),
    /// What stands where the file of the status socket was.
    StatusSocketFile(AtPath),
    /// What the file of the history held. None: it could not be read in time.
    HistoryRead(Option<Kept>),
    /// What came of writing it.
    HistoryWritten(Result<(), String>),
    /// A sample for the recording. None: it was lost.
    Sampled(Option<Box<Looked>>),
    /// What came of writing the recording.
    RecordingWritten(Written),
    /// The names of users, where they have one.
    UsersNamed(Vec<(u32, Option<String>)>),
    /// What dead workers have left behind has had its time.
    KillOrphans(Vec<Pid>),
}
