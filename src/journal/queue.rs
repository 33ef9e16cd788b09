//! The log queue: messages on their way to the log thread, which alone waits for their reader.
//!
//! Owns: the messages that are not written yet, and the count of those that were lost. While the reader stands still they
//! are kept in order, up to [`MAX_QUEUED_BYTES`]; what comes after that is counted, and the count is a message of its own
//! where the lost ones would have been.
//! Never: holds up who logs. A message is copied (0.4 µs), and written by the thread.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Value, Visit};
use tracing::{Dispatch, Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// So much waits for its reader (bytes of memory): a thousand messages, with what a process that has just died may have
/// left in its pipe. The kernel's own queue comes behind it.
const MAX_QUEUED_BYTES: usize = 512 << 10;
/// From here on who writes much waits for a reader that is at work (bytes).
const CONGESTED_BYTES: usize = 96 << 10;
/// What a message costs besides its texts.
const OVERHEAD: usize = 160;
/// What a field may hold (bytes); journald splits longer lines of streams, too. A datagram may have about 200 KB.
const MAX_FIELD: usize = 48 << 10;
/// A reader that has not taken a message for so long stands still: who writes much need not wait for it.
const STANDSTILL: Duration = Duration::from_secs(1);

/// A message, copied.
pub(super) struct Record {
    metadata: &'static Metadata<'static>,
    /// In the order of its fields.
    values: Vec<Option<Text>>,
    bytes: usize,
}

/// What a field holds.
enum Text {
    String(String),
    Unsigned(u64),
    Signed(i64),
}

impl Text {
    fn value(&self) -> &dyn Value {
        match self {
            Self::String(text) => text,
            Self::Unsigned(number) => number,
            Self::Signed(number) => number,
        }
    }
}

impl Record {
    fn copy(event: &Event<'_>) -> Self {
        let metadata = event.metadata();
        let values = metadata.fields().iter().map(|_| None).collect();
        let mut record = Self { metadata, values, bytes: OVERHEAD };
        event.record(&mut record);
        record
    }

    /// Gives it to another log than the one that it was written to.
    pub(super) fn replay(&self, log: &Dispatch) {
        let values: Vec<Option<&dyn Value>> = self.values.iter().map(|text| text.as_ref().map(Text::value)).collect();
        let values = self.metadata.fields().value_set_all(&values);
        log.event(&Event::new(self.metadata, &values));
    }

    fn put(&mut self, field: &Field, text: Text) {
        if let Text::String(text) = &text {
            self.bytes += text.len();
        }
        if let Some(place) = self.values.get_mut(field.index()) {
            *place = Some(text);
        }
    }
}

impl Visit for Record {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let mut length = value.len().min(MAX_FIELD);
        while !value.is_char_boundary(length) {
            length -= 1;
        }
        self.put(field, Text::String(value[..length].to_owned()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Text::Unsigned(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Text::Signed(value));
    }
}

/// What is to be written.
pub(super) enum Item {
    Message(Record),
    /// So many messages were lost here.
    Lost(u64),
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    /// Their size.
    bytes: usize,
    /// How many were lost since the last item.
    lost: u64,
    /// Since when the thread has been writing one.
    writing: Option<Instant>,
}

/// The queue.
#[derive(Default)]
pub(super) struct LogQueue {
    state: Mutex<State>,
    /// There is something to write.
    filled: Condvar,
    /// Everything is written.
    emptied: Condvar,
}

impl LogQueue {
    fn push(&self, record: Record) {
        let mut state = self.state();
        if state.bytes + record.bytes > MAX_QUEUED_BYTES {
            state.lost += 1;
            return;
        }
        if state.lost > 0 {
            let lost = std::mem::take(&mut state.lost);
            state.items.push_back(Item::Lost(lost));
        }
        state.bytes += record.bytes;
        state.items.push_back(Item::Message(record));
        self.filled.notify_one();
    }

    /// Writes what comes, for ever: the log thread.
    pub(super) fn drain(&self, write: impl Fn(Item)) {
        loop {
            write(self.next());
            let mut state = self.state();
            state.writing = None;
            if state.items.is_empty() && state.lost == 0 {
                self.emptied.notify_all();
            }
        }
    }

    /// Waits for the next item.
    fn next(&self) -> Item {
        let mut state = self.state();
        loop {
            let item = match state.items.pop_front() {
                None if state.lost > 0 => Some(Item::Lost(std::mem::take(&mut state.lost))),
                item => item,
            };
            if let Some(item) = item {
                if let Item::Message(record) = &item {
                    state.bytes -= record.bytes;
                }
                state.writing = Some(Instant::now());
                return item;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether much waits for a reader that is at work.
    pub(super) fn is_congested(&self) -> bool {
        let state = self.state();
        state.bytes > CONGESTED_BYTES && state.writing.is_none_or(|since| since.elapsed() < STANDSTILL)
    }

    /// Waits for everything to be written, and no longer than `limit`.
    pub(super) fn finish(&self, limit: Duration) {
        let waits = |state: &mut State| state.writing.is_some() || !state.items.is_empty() || state.lost > 0;
        let _ = self.emptied.wait_timeout_while(self.state(), limit, waits);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A layer of tracing that puts messages into the queue.
pub(super) struct Enqueue(pub(super) Arc<LogQueue>);

impl<S: Subscriber> Layer<S> for Enqueue {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.0.push(Record::copy(event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;
    use tracing_subscriber::layer::SubscriberExt;

    /// What a log is given, in words.
    struct Recorder(mpsc::Sender<String>);

    impl<S: Subscriber> Layer<S> for Recorder {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut words = Words(format!("{}", event.metadata().level()));
            event.record(&mut words);
            let _ = self.0.send(words.0);
        }
    }

    struct Words(String);

    impl Visit for Words {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            self.0.push_str(&format!(" {}={value:?}", field.name()));
        }
    }

    /// Logs into the queue.
    fn log(queue: &Arc<LogQueue>, messages: impl FnOnce()) {
        let registry = tracing_subscriber::registry().with(Enqueue(Arc::clone(queue)));
        tracing::subscriber::with_default(registry, messages);
    }

    fn is_message(item: &Item) -> bool {
        matches!(item, Item::Message(_))
    }

    #[test]
    fn a_message_is_the_same_once_it_is_replayed() {
        let (sender, receiver) = mpsc::channel();
        let original = Dispatch::new(tracing_subscriber::registry().with(Recorder(sender)));
        let queue = Arc::new(LogQueue::default());
        let messages = || {
            tracing::warn!(SOCKD_EVENT = "an-event", SOCKD_WORKER = 3_u64, SOCKD_DEPTH = -1_i64, "said {}", "so");
            tracing::info!(SOCKD_LISTENER = %"web.socket", SOCKD_PID = ?Some(1), "more");
        };
        tracing::dispatcher::with_default(&original, messages);
        log(&queue, messages);
        for _ in 0..2 {
            let Item::Message(record) = queue.next() else { panic!("nothing was lost") };
            record.replay(&original);
        }
        // What was formatted is a string from then on.
        let recorded: Vec<String> = receiver.try_iter().map(|words| words.replace('"', "")).collect();
        assert_eq!(recorded[..2], recorded[2..]);
        assert!(recorded[0].contains("SOCKD_WORKER=3") && recorded[0].contains("message=said so"), "{recorded:?}");
    }

    #[test]
    fn what_does_not_fit_is_counted_where_it_would_have_been() {
        let queue = Arc::new(LogQueue::default());
        let many = || (0..1000).for_each(|number| tracing::info!("{number} {}", "x".repeat(1000)));
        log(&queue, many);
        let kept = queue.state().items.len();
        assert!((430..500).contains(&kept), "{kept} of 1000 were kept");
        (0..kept).for_each(|_| assert!(is_message(&queue.next())));
        assert!(matches!(queue.next(), Item::Lost(lost) if lost == 1000 - kept as u64));
        log(&queue, many);
        assert!(is_message(&queue.next()) && is_message(&queue.next()));
        log(&queue, || tracing::info!("one more"));
        let rest = std::mem::take(&mut queue.state().items);
        let places: Vec<usize> = (0..rest.len()).filter(|place| !is_message(&rest[*place])).collect();
        assert_eq!(places, [rest.len() - 2], "before the message that came once there was room");
    }

    #[test]
    fn the_end_waits_for_what_is_written_and_not_for_ever() {
        let queue = Arc::new(LogQueue::default());
        queue.finish(Duration::from_secs(60));
        let (sender, receiver) = mpsc::channel();
        let (go_on, waits) = mpsc::channel::<()>();
        let drained = Arc::clone(&queue);
        thread::spawn(move || {
            drained.drain(|_| {
                let _ = waits.recv();
                let _ = sender.send(());
            });
        });
        log(&queue, || tracing::info!("written slowly"));
        queue.finish(Duration::from_millis(10));
        assert!(receiver.try_recv().is_err(), "it is not written yet");
        go_on.send(()).expect("it waits");
        queue.finish(Duration::from_secs(60));
        assert!(receiver.try_recv().is_ok());
    }

    #[test]
    fn a_field_is_bounded_and_stays_text() {
        let queue = Arc::new(LogQueue::default());
        let long = format!("x{}", "ü".repeat(100_000));
        log(&queue, || tracing::info!(SOCKD_EVENT = long.as_str(), "{long}"));
        let Item::Message(record) = queue.next() else { panic!("it fits") };
        for value in record.values.iter().flatten() {
            let Text::String(text) = value else { panic!("it is a text") };
            assert!(text.len() <= MAX_FIELD && text.len() > MAX_FIELD - 2 && long.starts_with(text));
        }
    }

    #[test]
    fn writers_of_much_wait_for_a_reader_at_work_alone() {
        let queue = Arc::new(LogQueue::default());
        log(&queue, || (0..1000).for_each(|_| tracing::info!("{}", "x".repeat(1000))));
        assert!(queue.is_congested(), "the thread will come");
        assert!(is_message(&queue.next()));
        assert!(queue.is_congested(), "it has just begun to write one");
        queue.state().writing = Instant::now().checked_sub(STANDSTILL);
        assert!(!queue.is_congested(), "the reader stands still");
    }
}
