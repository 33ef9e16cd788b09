//! What one worker says of its requests when it is asked, on a socket of its own.
//!
//! Owns: that socket, how many requests it has begun, as far as it was heard, and what it serves at the moment of a status.
//! Never: asks by itself, or has the loop wait for an answer.

use crate::adapter::exec::StatsInterface;
use crate::probe;
use crate::scoreboard::{Finished, InFlight, Requests};
use crate::server_stats::{self, Stats};
use crate::supervisor::WorkerId;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

/// A status does not wait longer for workers' answers. They are asked all at once, as far as [`MAX_QUESTIONS`] goes.
const STATUS_TIMEOUT: Duration = Duration::from_millis(500);
/// A worker drains so much later at most, for the sake of what it has counted.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// So many are asked at the same time.
const MAX_QUESTIONS: usize = 64;

/// What one worker says of its requests.
#[derive(Debug)]
pub(super) struct ServerStats {
    interface: StatsInterface,
    socket: probe::Socket,
    /// How many it has begun and how many it has finished, by its word; neither ever falls. None: it has not said yet.
    counted: Option<(u64, u64)>,
    /// What it has said for the status that is being made.
    now: Option<Stats>,
    /// It is asked once more before it drains.
    drains: bool,
}

/// What a worker is asked with.
#[derive(Clone, Debug)]
pub(in crate::daemon) struct Question {
    worker: WorkerId,
    interface: StatsInterface,
    address: String,
}

impl Question {
    async fn ask(self, patience: Duration) -> (WorkerId, Option<Stats>) {
        // Why one does not answer is seen in its health; here it is not known.
        (self.worker, server_stats::read(&self.address, &self.interface, patience).await.ok())
    }

    /// Asks before a worker drains.
    pub(in crate::daemon) async fn before_drain(self) -> (WorkerId, Option<Stats>) {
        self.ask(DRAIN_TIMEOUT).await
    }
}

/// Asks all of them, and gives what has come within [`STATUS_TIMEOUT`].
pub(in crate::daemon) async fn ask_all(questions: Vec<Question>) -> Vec<(WorkerId, Stats)> {
    let places = Arc::new(Semaphore::new(MAX_QUESTIONS));
    let mut asking: JoinSet<_> = questions
        .into_iter()
        .map(|question| {
            let places = Arc::clone(&places);
            async move {
                let _place = places.acquire().await;
                question.ask(STATUS_TIMEOUT).await
            }
        })
        .collect();
    let deadline = sleep_until((Instant::now() + STATUS_TIMEOUT).into());
    tokio::pin!(deadline);
    let mut heard = Vec::new();
    loop {
        tokio::select! {
            answer = asking.join_next() => match answer {
                Some(Ok((worker, Some(stats)))) => heard.push((worker, stats)),
                Some(Ok((_, None)) | Err(_)) => {}
                None => break,
            },
            () = &mut deadline => break,
        }
    }
    heard
}

impl ServerStats {
    pub(super) fn new(interface: StatsInterface, socket: probe::Socket) -> Self {
        Self { interface, socket, counted: None, now: None, drains: false }
    }

    pub(super) fn inode(&self) -> u64 {
        self.socket.inode()
    }

    pub(super) fn question(&self, worker: WorkerId) -> Question {
        Question { worker, interface: self.interface.clone(), address: self.socket.address().to_owned() }
    }

    /// This is what it has said. Questions of ours, so many of which it has answered, are no visitors' requests.
    pub(super) fn take(&mut self, stats: Stats, ours: u64) {
        let stats = Stats { begun: stats.begun.saturating_sub(ours), ..stats };
        let (begun, finished) = self.counted.unwrap_or_default();
        self.counted = Some((begun.max(stats.begun), finished.max(stats.begun.saturating_sub(stats.busy))));
        self.now = Some(stats);
    }

    /// What it serves is of that moment alone.
    pub(super) fn forget_now(&mut self) {
        self.now = None;
    }

    /// What is to be asked before this worker drains; nothing the second time.
    pub(super) fn question_before_drain(&mut self, worker: WorkerId) -> Option<Question> {
        (!std::mem::replace(&mut self.drains, true)).then(|| self.question(worker))
    }

    /// Those that it has finished, as far as it was heard. None: it has not said yet.
    pub(super) fn finished(&self) -> Option<Finished> {
        self.counted.map(|(_, finished)| Finished::unclassified(finished))
    }

    /// Those that it has finished at its end: it has drained.
    pub(super) fn finished_at_end(&self) -> Option<Finished> {
        self.counted.map(|(begun, _)| Finished::unclassified(begun))
    }

    /// Those that it serves and has served. None: it is not known at this moment.
    pub(super) fn requests(&self) -> Option<Requests> {
        let now = self.now.as_ref()?;
        let in_flight: Vec<InFlight> = now
            .in_flight
            .iter()
            .map(|request| InFlight {
                // It is shown for this moment alone.
                began: 0,
                since: request.since,
                thread: None,
                request: request.request.clone(),
            })
            .collect();
        let without_slot = now.busy.saturating_sub(in_flight.len() as u64);
        Some(Requests { finished: self.finished()?, in_flight, without_slot, ..Requests::default() })
    }
}
