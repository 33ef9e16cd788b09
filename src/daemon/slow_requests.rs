//! Slow requests: each that is served for longer than `requests.slow` becomes one entry of the log, with the stack of the
//! thread that serves it.
//!
//! Owns: when workers' pages are looked at next, which requests are written already, and how many were not written. Never:
//! ends a request, or looks at anything where no `requests.slow` is set.
//!
//! A request that begins after a look cannot be slow before `requests.slow` has passed, and of one that is being served it
//! is known when it will be: so the next look is at the earliest such moment, and no request is written late.

use super::log_limit::LogLimit;
use super::timerfd::Timerfd;
use super::workers::Workers;
use crate::journal::message_id;
use crate::scoreboard::{InFlight, ThreadStack};
use crate::supervisor::WorkerId;
use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

/// No more threads are written where it is not known which one serves the request.
const MAX_WRITTEN_THREADS: usize = 8;

/// The watch over slow requests.
#[derive(Debug)]
pub(super) struct SlowRequests {
    timer: Timerfd,
    next_look: Option<Instant>,
    /// Those that are still served, by the time that they began.
    written: BTreeMap<WorkerId, Vec<u64>>,
    limit: LogLimit,
}

impl SlowRequests {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { timer: Timerfd::new()?, next_look: None, written: BTreeMap::new(), limit: LogLimit::default() })
    }

    /// A worker was made whose requests are slow after this time.
    pub(super) fn watch(&mut self, slow: Option<Duration>, now: Instant) {
        self.look_within(slow, now);
    }

    /// Waits until pages are to be looked at.
    pub(super) async fn due(&mut self) {
        self.timer.until(self.next_look).await;
    }

    /// Looks at the pages of all workers.
    pub(super) fn look(&mut self, workers: &Workers, now: Instant) {
        self.next_look = None;
        let mut written = std::mem::take(&mut self.written);
        for (id, worker) in workers.iter() {
            let Some(slow) = worker.slow_requests_after() else { continue };
            self.look_within(Some(slow), now);
            let mut known = written.remove(&id).unwrap_or_default();
            let in_flight = worker.requests_in_flight();
            known.retain(|began| in_flight.iter().any(|request| request.began == *began));
            for request in in_flight {
                if request.since < slow {
                    self.look_within(Some(slow - request.since), now);
                } else if !known.contains(&request.began) {
                    known.push(request.began);
                    self.write(workers, id, request, now);
                }
            }
            self.written.insert(id, known);
        }
        self.tell_suppressed(now, false);
    }

    fn look_within(&mut self, time: Option<Duration>, now: Instant) {
        let at = time.map(|time| now + time);
        self.next_look = at.into_iter().chain(self.next_look).min();
    }

    fn write(&mut self, workers: &Workers, id: WorkerId, request: InFlight, now: Instant) {
        if !self.limit.allows(now) {
            return;
        }
        let stacks = workers.stacks(id);
        tokio::spawn(async move {
            let text = match stacks {
                Ok(stacks) => show(stacks.await, &request),
                Err(why) => format!("no stack: {why}"),
            };
            tracing::warn!(
                MESSAGE_ID = message_id::SLOW_REQUEST,
                SOCKD_EVENT = "slow-request",
                SOCKD_WORKER = id.0,
                SOCKD_REQUEST = request.request,
                "worker {id} serves {} since {:.1} s; {text}",
                request.request,
                request.since.as_secs_f64()
            );
        });
    }

    /// Says how many were not written, once their time is over, or at the end.
    pub(super) fn tell_suppressed(&mut self, now: Instant, end: bool) {
        if let Some(count) = self.limit.suppressed(now, end) {
            tracing::warn!(
                MESSAGE_ID = message_id::SLOW_REQUEST,
                SOCKD_EVENT = "slow-request",
                "{count} more slow requests were not written"
            );
        }
    }
}

/// The thread of a request, or the first few where it is not known.
fn show(stacks: Vec<ThreadStack>, request: &InFlight) -> String {
    let lines = |stack: &ThreadStack| stack.lines.join("\n");
    if let Some(own) = stacks.iter().find(|stack| request.thread.is_some() && stack.thread == request.thread) {
        return format!("its thread:\n{}", lines(own));
    }
    let shown: Vec<String> = stacks.iter().take(MAX_WRITTEN_THREADS).map(lines).collect();
    match stacks.len() {
        0 => "no stack: its process has ended".to_owned(),
        all if all > shown.len() => format!("{} of {all} threads:\n{}", shown.len(), shown.join("\n\n")),
        _ => format!("all threads:\n{}", shown.join("\n\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU64;

    fn stack(thread: u64) -> ThreadStack {
        ThreadStack { thread: NonZeroU64::new(thread), lines: vec![format!("Thread {thread}:"), "  f".to_owned()] }
    }

    fn request(thread: u64) -> InFlight {
        let since = Duration::from_secs(5);
        InFlight { began: 1, since, thread: NonZeroU64::new(thread), request: "GET /".to_owned() }
    }

    #[test]
    fn the_thread_of_the_request_is_shown_and_all_where_it_is_not_known() {
        let stacks: Vec<ThreadStack> = (1..=9).map(stack).collect();
        assert_eq!(show(stacks.clone(), &request(3)), "its thread:\nThread 3:\n  f");
        let all = show(stacks[..2].to_vec(), &request(0));
        assert_eq!(all, "all threads:\nThread 1:\n  f\n\nThread 2:\n  f");
        let many = show(stacks, &request(77));
        assert!(many.starts_with("8 of 9 threads:\nThread 1:\n"), "{many}");
        assert!(show(Vec::new(), &request(3)).starts_with("no stack"), "nobody is blamed");
    }
}
