//! Repeated lines of a crash loop: what processes write at each failed start is logged once, then counted.
//!
//! Owns: what the last of them wrote in vain, as numbers of its lines; the lines of a later one, as long as they are the
//! same. Never: keeps back what is new, or what was written by a process that serves; or keeps more than [`MAX_BYTES`] of
//! any process.
//!
//! Times and process ids are no difference, wherever a log has them in its usual places.

use crate::journal::message_id;
use crate::supervisor::{GenerationId, Role, WorkerId};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longer reports are written in full each time.
const MAX_LINES: usize = 300;
const MAX_BYTES: usize = 64 << 10;
/// After so long it is written in full again: the journal may have forgotten the first time.
const SAID_FOR: Duration = Duration::from_secs(3600);

/// Who of a generation cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Starting {
    Worker(GenerationId),
    Template(GenerationId),
}

/// What was said last in vain.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    said: Option<Said>,
}

#[derive(Debug)]
struct Said {
    by: Starting,
    /// `worker 1`.
    name: String,
    lines: Arc<[u64]>,
    at: Instant,
    times: u64,
}

/// The same again.
#[derive(Debug, PartialEq, Eq)]
struct Same {
    lines: usize,
    /// Who wrote them for the first time.
    first: String,
    /// How often they have been written since.
    times: u64,
}

impl fmt::Display for Same {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = if self.lines == 1 { "line".to_owned() } else { format!("{} lines", self.lines) };
        let times = if self.times == 1 { "once".to_owned() } else { format!("{} times", self.times) };
        write!(f, "the same {lines} as {} ({times} so far)", self.first)
    }
}

/// The lines of one process.
pub(super) struct Lines {
    state: Mutex<State>,
    write: Box<dyn Fn(&str) + Send + Sync>,
}

#[derive(Debug, Default)]
struct State {
    /// All lines so far; `None`: they are too many, or nobody will ask.
    seen: Option<Vec<u64>>,
    /// What they are compared with; `None`: they are not the same.
    known: Option<Arc<[u64]>>,
    kept_back: Vec<String>,
    bytes: usize,
}

impl Repeats {
    /// The lines of a worker that is being started. A canary is asked for, and so is what it says.
    pub(super) fn of_worker(&self, id: WorkerId, generation: GenerationId, role: Role) -> Arc<Lines> {
        let by = match role {
            Role::Serving => Some(Starting::Worker(generation)),
            Role::Canary => None,
        };
        self.lines(by, Instant::now(), move |line| {
            tracing::info!(
                MESSAGE_ID = message_id::STDERR_LINE,
                SOCKD_EVENT = "stderr",
                SOCKD_WORKER = id.0,
                SOCKD_GENERATION = generation.0,
                "{line}"
            );
        })
    }

    /// The same of a template.
    pub(super) fn of_template(&self, generation: GenerationId) -> Arc<Lines> {
        self.lines(Some(Starting::Template(generation)), Instant::now(), move |line| {
            tracing::info!(MESSAGE_ID = message_id::STDERR_LINE, SOCKD_GENERATION = generation.0, "template: {line}");
        })
    }

    /// A worker has ended: says what it wrote in vain again.
    pub(super) fn worker_ended(&mut self, id: WorkerId, generation: GenerationId, lines: &Lines) {
        let name = format!("worker {id}");
        let Some(same) = self.ended(Starting::Worker(generation), &name, lines, Instant::now()) else { return };
        tracing::info!(
            MESSAGE_ID = message_id::STDERR_LINE,
            SOCKD_EVENT = "stderr-repeated",
            SOCKD_WORKER = id.0,
            SOCKD_GENERATION = generation.0,
            "{name} wrote {same}"
        );
    }

    /// The same of a template.
    pub(super) fn template_ended(&mut self, generation: GenerationId, lines: &Lines) {
        let by = Starting::Template(generation);
        let Some(same) = self.ended(by, "the first template", lines, Instant::now()) else { return };
        tracing::info!(
            MESSAGE_ID = message_id::STDERR_LINE,
            SOCKD_EVENT = "stderr-repeated",
            SOCKD_GENERATION = generation.0,
            "the template wrote {same}"
        );
    }

    /// The lines of a process that is being started; each goes to `write` once it is known to be new.
    fn lines(&self, by: Option<Starting>, now: Instant, write: impl Fn(&str) + Send + Sync + 'static) -> Arc<Lines> {
        let said = self.said.as_ref().filter(|said| Some(said.by) == by && now.duration_since(said.at) < SAID_FOR);
        let known = said.map(|said| Arc::clone(&said.lines));
        let state = State { seen: by.map(|_| Vec::new()), known, ..State::default() };
        Arc::new(Lines { state: Mutex::new(state), write: Box::new(write) })
    }

    /// The process has ended, and has not served. What it said is known now; the answer says that it was known before.
    fn ended(&mut self, by: Starting, name: &str, lines: &Lines, now: Instant) -> Option<Same> {
        let seen = lines.end()?;
        let said = self.said.as_mut().filter(|said| said.by == by && *said.lines == *seen.lines);
        if let (Some(said), true) = (said, seen.kept_back) {
            said.times += 1;
            return Some(Same { lines: seen.lines.len(), first: said.name.clone(), times: said.times });
        }
        let lines = seen.lines.into();
        self.said = Some(Said { by, name: name.to_owned(), lines, at: now, times: 0 });
        None
    }
}

/// What a process has written until its end.
struct Seen {
    lines: Vec<u64>,
    /// All of it was kept back.
    kept_back: bool,
}

impl Lines {
    /// One more line.
    pub(super) fn take(&self, line: &str) {
        let mut guard = self.state();
        let state = &mut *guard;
        if let Some(seen) = &mut state.seen {
            let number = number(line);
            let same = state.known.as_ref().is_some_and(|known| known.get(seen.len()) == Some(&number));
            seen.push(number);
            state.bytes += line.len();
            if same && state.bytes <= MAX_BYTES {
                state.kept_back.push(line.to_owned());
                return;
            }
            if seen.len() > MAX_LINES {
                state.seen = None;
            }
        }
        self.let_go(guard);
        (self.write)(line);
    }

    /// It serves, or hangs: what it writes is written at once from now on.
    pub(super) fn give_up(&self) {
        let mut state = self.state();
        state.seen = None;
        self.let_go(state);
    }

    fn end(&self) -> Option<Seen> {
        let mut state = self.state();
        let lines = state.seen.take();
        let whole = |lines: &Vec<u64>| state.known.as_ref().is_some_and(|known| known.len() == lines.len());
        // Nothing at all is no report.
        let kept_back = lines.as_ref().is_some_and(whole) && !state.kept_back.is_empty();
        if kept_back {
            state.kept_back.clear();
        }
        self.let_go(state);
        Some(Seen { lines: lines.filter(|lines| !lines.is_empty())?, kept_back })
    }

    fn let_go(&self, mut state: MutexGuard<'_, State>) {
        state.known = None;
        let lines = std::mem::take(&mut state.kept_back);
        drop(state);
        lines.iter().for_each(|line| (self.write)(line));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("state", &self.state).finish_non_exhaustive()
    }
}

/// A number that is the same for lines that differ in times and process ids alone.
fn number(line: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut before = "";
    for word in line.split_whitespace() {
        let core = word.trim_matches(|letter| "[](),:".contains(letter));
        let digits = !core.is_empty() && core.bytes().all(|byte| byte.is_ascii_digit());
        let pid = digits && (word.starts_with('[') || before.trim_start_matches('(').trim_end_matches(':') == "pid");
        let shown = if pid || is_time(core) { "" } else { word };
        shown.hash(&mut hasher);
        before = word;
    }
    hasher.finish()
}

/// `2026-11-28`, `2026-11-28T20:20:12Z`, `20:20:12,345`, `+0000`.
fn is_time(word: &str) -> bool {
    let number = |part: &str, digits: usize| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
    let day = |word: &str| {
        let mut parts = word.split(['-', '/']);
        [4, 2, 2].iter().all(|digits| parts.next().is_some_and(|part| number(part, *digits))) && parts.next().is_none()
    };
    let clock = |word: &str| {
        let mut parts = word.split(':');
        let hours =
            parts.next().is_some_and(|part| number(part, 2)) && parts.next().is_some_and(|part| number(part, 2));
        let seconds = parts.next().and_then(|part| part.get(..2));
        hours && seconds.is_some_and(|seconds| number(seconds, 2)) && parts.next().is_none()
    };
    let zone = word.strip_prefix(['+', '-']).is_some_and(|zone| number(zone, 4));
    let both = word.split_once(['T', 't']).is_some_and(|(date, time)| day(date) && clock(time));
    day(word) || clock(word) || zone || both
}

#[cfg(test)]
mod tests {
    use super::*;

    const BY: Starting = Starting::Worker(GenerationId(1));

    /// One attempt after the other, each with its lines: what is written in all, and what is said of repeats.
    struct Attempts {
        repeats: Repeats,
        now: Instant,
        written: Arc<Mutex<Vec<String>>>,
        count: u64,
    }

    impl Attempts {
        fn new() -> Self {
            Self { repeats: Repeats::default(), now: Instant::now(), written: Arc::default(), count: 0 }
        }

        fn start(&self, by: Option<Starting>) -> Arc<Lines> {
            let written = Arc::clone(&self.written);
            self.repeats.lines(by, self.now, move |line| written.lock().expect("one thread").push(line.to_owned()))
        }

        fn written(&self) -> Vec<String> {
            std::mem::take(&mut self.written.lock().expect("one thread"))
        }

        fn attempt(&mut self, text: &str) -> (Vec<String>, Option<Same>) {
            let lines = self.start(Some(BY));
            text.lines().for_each(|line| lines.take(line));
            self.count += 1;
            let same = self.repeats.ended(BY, &format!("worker {}", self.count), &lines, self.now);
            (self.written(), same)
        }
    }

    fn same(lines: usize, first: &str, times: u64) -> Option<Same> {
        Some(Same { lines, first: first.to_owned(), times })
    }

    #[test]
    fn what_is_the_same_is_counted_and_what_is_not_is_written() {
        let mut attempts = Attempts::new();
        assert_eq!(attempts.attempt("a\nb\nc"), (vec!["a".into(), "b".into(), "c".into()], None));
        assert_eq!(attempts.attempt("a\nb\nc"), (vec![], same(3, "worker 1", 1)));
        assert_eq!(attempts.attempt("a\nb\nc"), (vec![], same(3, "worker 1", 2)));
        // Another end, less of it, more of it: all is written, and is what later ones are compared with.
        for text in ["a\nb\nd", "a\nb", "a\nb\nd\ne"] {
            let (written, known) = attempts.attempt(text);
            assert_eq!((written.join("\n").as_str(), known), (text, None));
        }
        assert_eq!(attempts.attempt("a\nb\nd\ne"), (vec![], same(4, "worker 6", 1)));
        // Silence is no report.
        assert_eq!(attempts.attempt(""), (vec![], None));
        assert_eq!(attempts.attempt(""), (vec![], None));
        // In another generation, and after an hour, it is news.
        let other = attempts.start(Some(Starting::Worker(GenerationId(2))));
        other.take("a");
        assert_eq!(attempts.written(), ["a"]);
        attempts.attempt("a\nb\nd\ne");
        attempts.now += SAID_FOR;
        assert_eq!(attempts.attempt("a\nb\nd\ne").0.len(), 4);
    }

    #[test]
    fn the_lines_of_one_that_serves_are_written_at_once() {
        let mut attempts = Attempts::new();
        attempts.attempt("a\nb");
        let lines = attempts.start(Some(BY));
        lines.take("a");
        assert_eq!(attempts.written(), Vec::<String>::new());
        lines.give_up();
        assert_eq!(attempts.written(), ["a"]);
        lines.take("b");
        assert_eq!(attempts.written(), ["b"]);
        assert_eq!(attempts.repeats.ended(BY, "worker 9", &lines, attempts.now), None);
        assert_eq!(attempts.attempt("a\nb").1, same(2, "worker 1", 1), "its end was no failed start");
    }

    #[test]
    fn what_is_kept_back_is_bounded() {
        let mut attempts = Attempts::new();
        let many = "x\n".repeat(MAX_LINES + 1);
        let long = format!("{0}\n{0}", "y".repeat(MAX_BYTES));
        for text in [&many, &long] {
            for _ in 0..3 {
                let (written, same) = attempts.attempt(text);
                assert_eq!((written.len(), same), (text.lines().count(), None));
            }
        }
    }

    #[test]
    fn times_and_process_ids_are_no_difference_and_other_numbers_are() {
        for (one, other) in [
            (
                "[2026-11-28 20:20:12 +0000] [26645] [INFO] Worker exiting (pid: 26645)",
                "[2026-11-29 01:02:03 +0000] [7] [INFO] Worker exiting (pid: 7)",
            ),
            ("2026-11-28 20:20:12,345 ERROR x", "2026-11-28 20:20:13,001 ERROR x"),
            ("2026-11-28T20:20:12.345Z x", "2026-11-28T20:20:13.001Z x"),
            ("2026/11/28 16:00:00 listen tcp", "2026/11/28 16:00:01 listen tcp"),
        ] {
            assert_eq!(number(one), number(other), "{one}");
        }
        for (one, other) in [
            ("port 5432 refused", "port 5433 refused"),
            ("127.0.0.1:8000", "127.0.0.1:8001"),
            ("  File \"a.py\", line 12, in f", "  File \"a.py\", line 13, in f"),
            ("a b", "ab"),
        ] {
            assert_ne!(number(one), number(other), "{one}");
        }
    }
}
