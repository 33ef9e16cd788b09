//! What templates are sent for the sake of the user's hooks: which workers there are, which have ended, when the service
//! begins and when it ends.
//!
//! gunicorn calls these hooks in one process that lives as long as the service; with us templates come and go. Owns what
//! hooks have left behind for the templates to come, and the exits that no template has heard of. Each exit's hook is
//! called in one template, once: in the youngest that serves, a canary's in its own. Must never wait for a template: one
//! message at a time is under way to each, and an exit whose hook hangs, or ends two templates, is given up.

use crate::process::{Notice, Phase, Template, WorkerProcess};
use crate::supervisor::GenerationId;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// So many exits are kept for the next template.
const MAX_PENDING_NOTICES: usize = 1024;
/// A hook that has not returned after this time is taken for what its template hangs in.
const HANGS: Duration = Duration::from_secs(5);

/// What outlives templates.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    /// Whether a template has ever been ready.
    started: bool,
    /// What hooks have left in the templates of each generation.
    states: BTreeMap<GenerationId, State>,
    /// Exits whose hook is to be called, and no template to do it.
    untold: VecDeque<WorkerProcess>,
    /// The worker whose exit was sent once more, because the template that got it first has ended over it.
    sent_again: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether workers of this generation were to serve.
    serves: bool,
    left: Option<String>,
}

impl Hooks {
    /// When the next template of this generation is born, and what the one before it has left.
    pub(super) fn life(&self, id: GenerationId) -> (Phase, Option<&str>) {
        if !self.started {
            return (Phase::Start, None);
        }
        if let Some(state) = self.states.get(&id) {
            return (Phase::Again, state.left.as_deref());
        }
        // A generation that was refused has left nothing.
        let serving = self.states.values().rfind(|state| state.serves);
        (Phase::Reload, serving.or(self.states.values().next_back()).and_then(|state| state.left.as_deref()))
    }

    /// A template of this generation is ready. Whether it is the first one of all.
    pub(super) fn started(&mut self, id: GenerationId) -> bool {
        self.states.entry(id).or_default();
        !std::mem::replace(&mut self.started, true)
    }

    pub(super) fn left(&mut self, id: GenerationId, state: Option<String>) {
        self.states.entry(id).or_default().left = state;
    }

    /// Workers of this generation are to serve: those before it are history.
    pub(super) fn serves(&mut self, id: GenerationId) {
        let state = self.states.entry(id).or_default();
        if !std::mem::replace(&mut state.serves, true) {
            let serving_before = self.states.range(..id).rfind(|(_, state)| state.serves).map(|(id, _)| *id);
            // That one is gone back to if this one is refused.
            self.states.retain(|other, _| *other >= id || Some(*other) == serving_before);
        }
    }

    /// The exits that no template has heard of; they are forgotten then.
    pub(super) fn take_untold(&mut self) -> VecDeque<WorkerProcess> {
        std::mem::take(&mut self.untold)
    }

    /// The exits whose hook a template was to call that is given up or has ended: they are to be called in another.
    pub(super) fn uncalled(&mut self, notices: Notices) -> Vec<WorkerProcess> {
        let to_call = |notice| match notice {
            Notice::Exited { process, call: true } => Some(process),
            Notice::Exited { .. } | Notice::Joined(_) | Notice::Started | Notice::Resized(_) | Notice::End => None,
        };
        let mut exits: Vec<_> = notices.waiting.into_iter().filter_map(to_call).collect();
        if let Some((since, notice)) = notices.under_way
            && let Some(process) = to_call(notice)
        {
            // What has ended two templates, or hangs in one, would do so in the next.
            if self.sent_again == Some(process.worker) || since.elapsed() > HANGS {
                tracing::warn!("the hook for the end of worker {} has not returned, ignoring", process.worker);
            } else {
                self.sent_again = Some(process.worker);
                exits.insert(0, process);
            }
        }
        exits
    }

    /// Keeps an exit for the next template.
    pub(super) fn keep(&mut self, process: WorkerProcess) {
        if self.untold.len() == MAX_PENDING_NOTICES {
            self.untold.pop_front();
        }
        self.untold.push_back(process);
    }
}

/// What one template is still to be sent.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// Whether its hooks must know all workers, and the service's begin and end.
    pub(super) follows_workers: bool,
    pub(super) follows_service: bool,
    waiting: VecDeque<Notice>,
    /// Sent at this time and not noted yet.
    under_way: Option<(Instant, Notice)>,
    /// Whether the service ends once all is sent.
    end: bool,
}

impl Notices {
    /// To be sent after what waits already.
    pub(super) fn push(&mut self, notice: Notice) {
        self.waiting.push_back(notice);
    }

    /// Nothing that waits will be sent.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// The service ends once all is sent.
    pub(super) fn end(&mut self) {
        self.end = true;
    }

    /// The template has noted the one under way.
    pub(super) fn noted(&mut self) {
        self.under_way = None;
    }

    /// Sends the next one, if none is under way.
    pub(super) fn send_next(&mut self, template: &Template) {
        if self.under_way.is_some() {
            return;
        }
        if let Some(notice) = self.waiting.pop_front() {
            match template.tell(&notice) {
                Ok(()) => self.under_way = Some((Instant::now(), notice)),
                // It is gone, or does not read; the next occasion is another try.
                Err(_) => self.waiting.push_front(notice),
            }
        } else if self.end
            && let Err(error) = template.tell(&Notice::End)
        {
            tracing::warn!("cannot tell the template that the service ends: {error}, ignoring");
        }
    }
}
