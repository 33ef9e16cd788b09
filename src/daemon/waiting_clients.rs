//! Waiting clients: who waits for the outcome of a reload (`sockd reload`) or of the replacement of a worker (`sockd top`),
//! what they are sent of a reload's steps, and the answer.
//!
//! Owns: the numbers of requests, and the connections of those who wait. Never: decides what a request leads to.

use super::notice_log::progress_line;
use crate::control::{self, Replier};
use crate::supervisor::{Event, GenerationId, Irreplaceable, Outcome, Progress, RequestId, Unpausable, WorkerId};
use std::collections::BTreeMap;
use std::time::Duration;

/// The time of the pause was over, or there was none.
const NOT_PAUSED: &str = "there is no pause and no maintenance: workers serve, or start";

#[derive(Debug, Default)]
pub(super) struct WaitingClients {
    waiting: BTreeMap<RequestId, Replier>,
    last: u64,
}

impl WaitingClients {
    /// The event that has the core end a trial well, and the one that has it call off the reload.
    pub(super) fn decide(&mut self, promote: bool, client: Replier) -> Event {
        let request = self.request(Some(client));
        if promote { Event::PromoteRequested(request) } else { Event::AbortRequested(request) }
    }

    /// The event that asks the core for another worker in the place of this one.
    pub(super) fn replace(&mut self, worker: WorkerId, client: Replier) -> Event {
        Event::ReplacementRequested { request: self.request(Some(client)), worker }
    }

    /// The event that asks the core for a pause that ends by itself after this time.
    pub(super) fn pause(&mut self, most: Duration, client: Replier) -> Event {
        Event::PauseRequested { request: self.request(Some(client)), most }
    }

    /// The event that ends it.
    pub(super) fn resume(&mut self, client: Replier) -> Event {
        Event::ResumeRequested(self.request(Some(client)))
    }

    /// The event that begins or ends maintenance. Without a client nobody hears what comes of it.
    pub(super) fn maintenance(&mut self, on: bool, client: Option<Replier>) -> Event {
        Event::MaintenanceRequested { request: self.request(client), on }
    }

    /// A new request; the client, if there is one, waits for its outcome.
    pub(super) fn request(&mut self, client: Option<Replier>) -> RequestId {
        self.last += 1;
        let request = RequestId(self.last);
        if let Some(client) = client {
            self.waiting.insert(request, client);
        }
        request
    }

    /// Sends all of them a step of the reload.
    pub(super) fn report(&self, progress: Progress) {
        let step = progress_line(progress);
        self.waiting.values().for_each(|client| client.progress(&*step));
    }

    /// Answers one of them; a refusal comes with the last lines of the worker or the check that failed.
    pub(super) fn answer(
        &mut self,
        request: RequestId,
        outcome: Outcome,
        last_lines: impl FnOnce(GenerationId, Option<WorkerId>) -> Vec<String>,
    ) {
        let Some(client) = self.waiting.remove(&request) else { return };
        let stopping = matches!(outcome, Outcome::Stopping);
        let (ok, message, details) = match outcome {
            Outcome::Serving(generation) => (true, format!("generation {generation} serves"), Vec::new()),
            Outcome::Waiting(generation) => {
                (true, format!("generation {generation} is proven and waits for the first connection"), Vec::new())
            }
            Outcome::Refused { generation, why, worker } => {
                (false, format!("reload to generation {generation} refused: {why}"), last_lines(generation, worker))
            }
            Outcome::WaitingForResume(generation) => {
                (true, format!("generation {generation} is proven and serves when workers start again"), Vec::new())
            }
            Outcome::Paused { left } => {
                let message =
                    format!("paused for {} s at most: no worker is left, visitors wait", left.as_secs().max(1));
                (true, message, Vec::new())
            }
            Outcome::NotPaused(why) => (false, unpausable(why), Vec::new()),
            Outcome::Maintained => (true, "maintenance: visitors get 503 until it is ended".to_owned(), Vec::new()),
            Outcome::Resumed { serves: true } => (true, "resumed: visitors are served".to_owned(), Vec::new()),
            Outcome::Resumed { serves: false } => {
                (true, "resumed: it waits for the first connection".to_owned(), Vec::new())
            }
            Outcome::NotServing { why } => (false, format!("resumed, and no worker serves: {why}"), Vec::new()),
            Outcome::NothingToResume => (false, NOT_PAUSED.to_owned(), Vec::new()),
            Outcome::Promoted(generation) => {
                (true, format!("generation {generation} takes every slot, without the end of its trial"), Vec::new())
            }
            Outcome::NothingTried => (false, "no generation is tried by visitors at this time".to_owned(), Vec::new()),
            Outcome::CalledOff(generation) => (
                true,
                format!("the reload to generation {generation} is called off; the old workers serve on"),
                Vec::new(),
            ),
            Outcome::NothingToCallOff => (false, "no reload is under way".to_owned(), Vec::new()),
            Outcome::Replacing(worker) => {
                (true, format!("worker {worker} is to be replaced: its successor is proven first"), Vec::new())
            }
            Outcome::NotReplaced { worker, why } => {
                (false, format!("worker {worker} {}", irreplaceable(why)), Vec::new())
            }
            Outcome::Stopping => (false, "sockd is stopping".to_owned(), Vec::new()),
        };
        client.outcome(control::Outcome { ok, message, details, stopping });
    }
}

fn unpausable(why: Unpausable) -> String {
    match why {
        Unpausable::Paused => "it is paused already; sockd resume ends that".to_owned(),
        Unpausable::Reloads(generation) => {
            format!("not now: the reload to generation {generation} is under way; sockd reload --abort ends it")
        }
        Unpausable::Serves(worker) => format!(
            "not paused: worker {worker} was still at its last requests when the time was over; workers serve again; sockd status \
             shows its requests, and a longer --max lets it finish"
        ),
        Unpausable::Maintained => "it is in maintenance; sockd maintenance off ends that".to_owned(),
        Unpausable::Resumed => "not paused: it was resumed before the last worker had left".to_owned(),
    }
}

fn irreplaceable(why: Irreplaceable) -> &'static str {
    match why {
        Irreplaceable::Unknown => "is not there",
        Irreplaceable::Starting => "is not ready yet: start-timeout ends it, unless it is by then",
        Irreplaceable::Leaving => "is leaving already",
        Irreplaceable::Canary => "is a canary: it leaves by itself",
    }
}
