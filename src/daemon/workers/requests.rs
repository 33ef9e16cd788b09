//! The requests of workers, shown on their scoreboards or said when they are asked (server_stats.rs), for those who ask:
//! `sockd status`, the log and the trial of a reload.

use super::server_stats::ServerStats;
use super::traffic::{self, ByGeneration};
use super::{Worker, Workers};
use crate::control::requests;
use crate::scoreboard::{Finished, InFlight, Requests, Scoreboard};
use crate::supervisor::{Answered, GenerationId, Role, WorkerId};
use std::time::{Duration, Instant};

impl Workers {
    /// What became of the requests since the start and lately. None: no worker shows them.
    pub(in crate::daemon) fn requests(&self) -> Option<requests::Requests> {
        self.traffic.document(Instant::now(), &self.finished())
    }

    /// What became of the requests of these generations, for a comparison. Each page is read once, but for those of a
    /// generation that fails.
    pub(in crate::daemon) fn answered<const N: usize>(&self, generations: [GenerationId; N]) -> [Answered; N] {
        let all = self.finished();
        generations.map(|generation| {
            let finished = all.of(generation);
            let server_errors = finished.server_errors();
            Answered {
                answers: finished.of_known_class().saturating_sub(finished.aborted()),
                server_errors,
                last_failure: if server_errors > 0 { self.last_failure(generation) } else { None },
                durations: finished.by_duration().collect(),
            }
        })
    }

    /// The last request that one of its workers has failed at.
    fn last_failure(&self, generation: GenerationId) -> Option<String> {
        let serving = |worker: &&Worker| worker.role == Role::Serving && worker.generation == generation;
        let newest_first = self.all.values().rev().filter(serving);
        newest_first.filter_map(Worker::shown_requests).find_map(|requests| requests.last_failure)
    }

    /// Whether any worker shows its requests, and so how it answers them.
    pub(in crate::daemon) fn are_requests_shown(&self) -> bool {
        self.all.values().any(|worker| worker.shown_requests().is_some())
    }

    /// Keeps what all have finished by now, if it is time for that. Where workers are asked, they are asked for a status
    /// alone, and what is known at another moment is too old.
    pub(in crate::daemon) fn sample_requests(&mut self) {
        if !self.some_are_asked() {
            self.add_sample();
        }
    }

    /// Workers that are asked have just been asked.
    pub(super) fn sample_stats(&mut self) {
        if self.some_are_asked() {
            self.add_sample();
        }
    }

    /// What was finished long ago says nothing of the last minute.
    pub(super) fn drop_old_samples(&mut self) {
        self.traffic.drop_old_samples(Instant::now());
    }

    fn add_sample(&mut self) {
        let now = Instant::now();
        if self.traffic.is_due(now)
            && let Some(finished) = self.finished().total()
        {
            self.traffic.add_sample(now, finished);
        }
    }

    /// Of a canary no visitor has asked anything.
    fn finished(&self) -> ByGeneration {
        let serving = self.all.values().filter(|worker| worker.role == Role::Serving);
        self.traffic.finished(serving.filter_map(|worker| Some((worker.generation, worker.finished()?))))
    }

    /// The request that a worker serves, or served when it ended or was aborted, as the log has it.
    pub(in crate::daemon) fn request(&self, id: WorkerId) -> Option<String> {
        match self.all.get(&id) {
            Some(worker) => worker.request(),
            None => self.recent(id)?.request.clone(),
        }
    }

    /// A worker has ended: what it had finished counts on.
    pub(super) fn requests_ended(&mut self, worker: &Worker) {
        let asked = worker.server_stats.as_ref().and_then(ServerStats::finished_at_end);
        if let Some(finished) = asked.or_else(|| worker.finished()).filter(|_| worker.role == Role::Serving) {
            self.traffic.worker_ended(worker.generation, &finished);
        }
    }
}

impl Worker {
    /// What it serves, or served when it was aborted.
    pub(super) fn request(&self) -> Option<String> {
        self.aborted_request.clone().or_else(|| traffic::describe(&self.shown_requests()?))
    }

    /// Those that it has served.
    fn finished(&self) -> Option<Finished> {
        match &self.server_stats {
            Some(stats) => stats.finished(),
            None => self.shown_requests().map(|requests| requests.finished),
        }
    }

    /// What it shows without being asked.
    pub(super) fn shown_requests(&self) -> Option<Requests> {
        self.scoreboard.as_deref().map(Scoreboard::read)?.requests
    }

    /// Whether it serves one, or has served one.
    pub(super) fn has_shown_requests(&self) -> bool {
        let in_flight = self.shown_requests().is_some_and(|requests| !requests.in_flight.is_empty());
        in_flight || self.finished().is_some_and(|finished| finished.total() > 0)
    }

    /// What it serves, the oldest first, as far as it has slots for it.
    pub(in crate::daemon) fn requests_in_flight(&self) -> Vec<InFlight> {
        self.shown_requests().map(|requests| requests.in_flight).unwrap_or_default()
    }

    /// A request that it serves for longer is slow. None: none is.
    pub(in crate::daemon) fn slow_requests_after(&self) -> Option<Duration> {
        self.slow_requests_after
    }

    /// What it serves and has served, for the status.
    pub(in crate::daemon) fn requests_document(&self) -> Option<requests::WorkerRequests> {
        let requests = match &self.server_stats {
            Some(stats) => stats.requests(),
            None => self.shown_requests(),
        };
        requests.map(traffic::of_worker)
    }
}
