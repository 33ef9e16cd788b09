//! The flight recorder: samples of how the instance is, once a second while something happens, and what happened, for
//! `sockd explain`.
//!
//! Owns: when the next sample is taken, and what was counted at the last one. Never: has the loop wake while nothing happens:
//! then a sample is taken when it turns anyway, and kept once a minute.

pub(super) mod counted;
mod events;
mod sampler;
mod store;

pub(super) use self::sampler::Look;

use self::counted::{Counted, Looked};
use self::store::Store;
use super::counts::Ending;
use super::message::Message;
use super::outbox::Outbox;
use super::timerfd::Timerfd;
use crate::cgroup::own_unit;
use crate::control::Replier;
use crate::control::recording::{Entry, Event, EventKind};
use crate::recording::Written;
use crate::supervisor::{Notice, WorkerId};
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;

/// Between two samples while something happens.
const INTERVAL: Duration = Duration::from_secs(1);
/// Two samples are not closer, no matter who wants the second one.
const MIN_INTERVAL: Duration = Duration::from_millis(800);
/// A sample of a time in which nothing happened is kept after so long: it shows that sockd was there.
const QUIET_INTERVAL: Duration = Duration::from_secs(60);
/// The kernel's word of so many ends waits for the core's.
const MAX_ENDINGS: usize = 1024;

#[derive(Debug)]
pub(super) struct Recorder {
    /// The control group of the unit.
    unit: Option<PathBuf>,
    timer: Timerfd,
    next_look: Option<Instant>,
    /// A thread looks.
    looking: bool,
    /// The service stops: workers leave, and that is no trouble.
    stopping: bool,
    /// At the last look.
    counted: Counted,
    /// Something happened at the last look.
    active: bool,
    last_kept: Option<Instant>,
    /// Workers that the kernel has killed for want of memory, until the core says so.
    out_of_memory: BTreeSet<WorkerId>,
    store: Store,
}

impl Recorder {
    /// Begins, in this directory. Must be called within a tokio runtime.
    pub(super) fn new(directory: Option<PathBuf>, outbox: &Outbox) -> io::Result<Self> {
        let mut recorder = Self {
            unit: own_unit(),
            timer: Timerfd::new()?,
            next_look: None,
            looking: false,
            stopping: false,
            // All counting begins here.
            counted: Counted::default(),
            active: false,
            last_kept: None,
            out_of_memory: BTreeSet::new(),
            store: Store::new(directory),
        };
        recorder.event(EventKind::Started, "sockd started".to_owned(), outbox);
        Ok(recorder)
    }

    /// Waits until a sample is to be taken.
    pub(super) async fn due(&mut self) {
        self.timer.until(self.next_look).await;
    }

    /// Whether a sample may be taken, by the one who has the loop turn.
    pub(super) fn may_look(&mut self, now: Instant) -> bool {
        let earliest = Some(self.counted.at + MIN_INTERVAL).filter(|earliest| *earliest > now);
        if let Some(next) = self.next_look.filter(|next| *next <= now) {
            // While a thread looks, its report says when the next one is.
            self.next_look = if self.looking { None } else { earliest.map(|earliest| earliest.max(next)) };
        }
        earliest.is_none() && !self.looking && !self.stopping
    }

    /// Has a thread take a sample, unless it would show what the last one did: that nothing happens.
    pub(super) fn look(&mut self, look: Look, outbox: &Outbox) {
        let is_recent = |kept: Instant| kept.elapsed() < QUIET_INTERVAL;
        if !self.active && self.last_kept.is_some_and(is_recent) && look.is_as_quiet_as(&self.counted) {
            self.counted.at = Instant::now();
            self.next_look = None;
            return;
        }
        self.looking = true;
        self.next_look = None;
        let (unit, before) = (self.unit.clone(), self.counted.clone());
        let looking = spawn_blocking(move || {
            let (sample, counted) = sampler::sample(&look, unit.as_ref(), &before);
            Looked { sample, counted }
        });
        outbox.later(async move { Some(Message::Sampled(looking.await.ok().map(Box::new))) });
    }

    /// The sample is there, or (None) was lost. `rollout`: a reload is under way.
    pub(super) fn looked(&mut self, looked: Option<Box<Looked>>, rollout: bool, outbox: &Outbox) {
        self.looking = false;
        let Some(looked) = looked else { return };
        let Looked { sample, counted } = *looked;
        let now = counted.at;
        let happens = rollout
            || sample.finished.is_some_and(|finished| finished > 0)
            || sample.in_flight > 0
            || sample.turned_away > 0
            || sample.waiting.is_some_and(|waiting| waiting > 0)
            || sample.ready < sample.wanted;
        let is_quiet = |last: Instant| now.duration_since(last) >= QUIET_INTERVAL;
        // The first quiet one shows the end.
        let was_active = std::mem::replace(&mut self.active, happens);
        if happens || was_active || self.last_kept.is_none_or(is_quiet) {
            self.last_kept = Some(now);
            self.store.push(Entry::Sample(Box::new(sample)), outbox);
        }
        self.counted = counted;
        if happens {
            self.look_within(INTERVAL);
        }
    }

    /// The core says that something happened. `request`: what a worker serves, or served when it ended.
    pub(super) fn notice(&mut self, notice: &Notice, request: impl Fn(WorkerId) -> Option<String>, outbox: &Outbox) {
        self.look_within(INTERVAL);
        let Some(noted) = events::noted(notice, request) else { return };
        let killed = noted.worker.is_some_and(|worker| self.out_of_memory.remove(&worker));
        let event = Event {
            at_unix_ms: sampler::unix_ms(),
            kind: if killed { EventKind::OutOfMemory } else { noted.kind },
            worker: noted.worker.map(|worker| worker.0),
            generation: noted.generation.map(|generation| generation.0.into()),
            text: noted.text,
        };
        self.store.push(Entry::Event(event), outbox);
        if *notice == Notice::Stopping {
            (self.stopping, self.next_look) = (true, None);
        }
    }

    /// A worker's process was reaped; the core's notice of it follows.
    pub(super) fn worker_ended(&mut self, id: WorkerId, ending: Ending) {
        if ending == Ending::OutOfMemory {
            self.out_of_memory.insert(id);
            while self.out_of_memory.len() > MAX_ENDINGS {
                self.out_of_memory.pop_first();
            }
        }
    }

    fn event(&mut self, kind: EventKind, text: String, outbox: &Outbox) {
        let event = Event { at_unix_ms: sampler::unix_ms(), kind, text, ..Event::default() };
        self.store.push(Entry::Event(event), outbox);
    }

    /// While one looks, its report says when the next one is.
    fn look_within(&mut self, time: Duration) {
        if !self.looking && !self.stopping {
            let at = Instant::now() + time;
            self.next_look = Some(self.next_look.map_or(at, |next| next.min(at)));
        }
    }

    /// What came of writing it.
    pub(super) fn was_written(&mut self, written: Written, outbox: &Outbox) {
        self.store.was_written(written, outbox);
    }

    /// Answers who asks for the recording.
    pub(super) fn answer(&self, replier: Replier) {
        self.store.answer(replier);
    }

    /// The end: what is not written yet gets a moment.
    pub(super) async fn finish(&mut self) {
        self.store.finish().await;
    }
}
