//! What a part of the daemon may do to the outside: queue an event for the core, and start a task whose report comes back as
//! a message.

use super::message::Message;
use crate::supervisor::Event;
use std::collections::VecDeque;
use tokio::sync::mpsc;

/// The way out of every part.
#[derive(Debug)]
pub(super) struct Outbox {
    /// Answers to effects, in order.
    events: VecDeque<Event>,
    sender: mpsc::Sender<Message>,
}

impl Outbox {
    pub(super) fn new(sender: mpsc::Sender<Message>) -> Self {
        Self { events: VecDeque::new(), sender }
    }

    /// Something for the core, after what is queued already.
    pub(super) fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// The next event for the core.
    pub(super) fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Starts a task that reports once, or not at all.
    pub(super) fn later(&self, message: impl Future<Output = Option<Message>> + Send + 'static) {
        let sender = self.sender.clone();
        tokio::spawn(async move {
            if let Some(message) = message.await {
                // The event loop is gone when nobody receives.
                let _ = sender.send(message).await;
            }
        });
    }

    /// For a task that reports again and again.
    pub(super) fn sender(&self) -> mpsc::Sender<Message> {
        self.sender.clone()
    }
}
