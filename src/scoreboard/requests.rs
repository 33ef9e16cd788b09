//! The requests on a worker's page.

use super::{PAGE, ago};
use crate::printable;
use std::cmp::Reverse;
use std::num::NonZeroU64;
use std::time::Duration;

/// Where the finished requests begin, in words.
const FINISHED: usize = 8;
const ROWS: usize = 6;
const COLUMNS: usize = BOUNDS.len() + 1;
/// Where the request slots begin, and how long each is, in bytes.
const FIRST_SLOT: usize = 8 * (FINISHED + ROWS * COLUMNS);
const SLOT: usize = 112;
const SLOTS: usize = 15;
const THREAD: usize = 8;
const METHOD: std::ops::Range<usize> = 16..24;
const PATH: std::ops::Range<usize> = 24..SLOT;

/// Where the last failure is, in bytes: a method and a path, as in a slot.
const LAST_FAILURE: usize = FIRST_SLOT + SLOTS * SLOT;

const _: () = assert!(LAST_FAILURE + SLOT - METHOD.start <= PAGE);

/// What divides durations, in nanoseconds: two to each power of two, from 16 µs to 97 s.
pub const BOUNDS: [u64; 46] = bounds();

const fn bounds() -> [u64; 46] {
    let mut bounds = [0; 46];
    let mut half = 0;
    while half < bounds.len() {
        // The square root of two is 181/128, nearly.
        bounds[half] = (1 << (14 + half / 2)) * (if half % 2 == 1 { 181 } else { 128 }) / 128;
        half += 1;
    }
    bounds
}

/// A worker's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Those that it has served.
    pub finished: Finished,
    /// Those that it serves, the oldest first.
    pub in_flight: Vec<InFlight>,
    /// How many more it serves.
    pub without_slot: u64,
    /// How many WebSockets are open.
    pub websockets: u64,
    /// The last one that was answered with a status from 500 to 599, as that of [`InFlight`]. None: there was none, or it is
    /// not known.
    pub last_failure: Option<String>,
}

/// A request that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// When it began, in nanoseconds of CLOCK_MONOTONIC: no other request of this worker has the same, as far as it tells
    /// the truth.
    pub began: u64,
    /// For how long it is served.
    pub since: Duration,
    /// The thread that serves it, as the stacks name it. None: no thread does so alone.
    pub thread: Option<NonZeroU64>,
    /// Its method and its path without the query, made harmless; a path that is longer ends in "…".
    pub request: String,
}

/// How many requests were finished, and how fast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Without an answer, and by the hundreds of the status.
    by_class: [u64; ROWS],
    /// By duration.
    by_duration: [u64; COLUMNS],
    /// All durations together, in nanoseconds.
    took: u64,
    /// How many more there were of which nothing else is known. None: there are none such.
    unclassified: Option<u64>,
}

impl Default for Finished {
    fn default() -> Self {
        Self { by_class: [0; ROWS], by_duration: [0; COLUMNS], took: 0, unclassified: None }
    }
}

impl Requests {
    /// What a page says, which is read once `again`, at the moment `now` (CLOCK_MONOTONIC).
    pub(super) fn read(page: &[u8; PAGE], again: impl FnOnce() -> Option<[u8; PAGE]>, now: Duration) -> Self {
        let mut finished = Finished { took: word(page, 48), ..Finished::default() };
        for (row, class) in finished.by_class.iter_mut().enumerate() {
            for (column, duration) in finished.by_duration.iter_mut().enumerate() {
                let count = word(page, 8 * (FINISHED + row * COLUMNS + column));
                *class = class.saturating_add(count);
                *duration = duration.saturating_add(count);
            }
        }
        let taken: Vec<usize> =
            (0..SLOTS).map(|slot| FIRST_SLOT + slot * SLOT).filter(|slot| word(page, *slot) != 0).collect();
        let again = if taken.is_empty() { None } else { again() };
        let unchanged = |slot: &&usize| again.is_some_and(|again| word(&again, **slot) == word(page, **slot));
        let mut in_flight: Vec<InFlight> =
            taken.iter().filter(unchanged).map(|slot| in_flight(page, *slot, now)).collect();
        in_flight.sort_by_key(|request| Reverse(request.since));
        let last_failure = request(page, LAST_FAILURE - METHOD.start);
        Self {
            finished,
            in_flight,
            without_slot: word(page, 24),
            websockets: word(page, 32),
            last_failure: Some(last_failure).filter(|request| request != " "),
        }
    }

    /// How many it serves, WebSockets aside.
    pub fn busy(&self) -> u64 {
        self.without_slot.saturating_add(self.in_flight.len() as u64)
    }
}

impl Finished {
    /// So many of one class, for tests.
    #[cfg(test)]
    pub fn of_class(class: usize, count: u64) -> Self {
        let mut finished = Self::default();
        finished.by_class[class] = count;
        finished
    }

    /// So many, of which it is not known how they were answered and how long they took.
    pub fn unclassified(count: u64) -> Self {
        Self { unclassified: Some(count), ..Self::default() }
    }

    /// How many there were in all.
    pub fn total(&self) -> u64 {
        let rows = self.by_class.iter().chain(&self.unclassified);
        rows.fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// How many there were of which it is known how they were answered, and how many had no answer, together.
    pub fn of_known_class(&self) -> u64 {
        self.by_class.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// How many there were of which it is not known how they were answered. None: it is known of all.
    pub fn of_unknown_class(&self) -> Option<u64> {
        self.unclassified
    }

    /// How many there were of which it is known how long they took.
    pub fn timed(&self) -> u64 {
        self.by_duration.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// How many had no answer, and how many had one from each hundred of the status, 1 to 5.
    pub fn by_class(&self) -> [u64; ROWS] {
        self.by_class
    }

    /// How many had an answer that says that the server failed: 500 to 599.
    pub fn server_errors(&self) -> u64 {
        self.by_class[5]
    }

    /// How many had no answer: the visitor left, or was cut off.
    pub fn aborted(&self) -> u64 {
        self.by_class[0]
    }

    /// How long all of them took together.
    pub fn took(&self) -> Duration {
        Duration::from_nanos(self.took)
    }

    /// How many took less than this one of [`BOUNDS`], by its index.
    pub fn shorter_than(&self, bound: usize) -> u64 {
        self.by_duration.iter().take(bound + 1).fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// How many took no longer than each bound, and longer than the one before it. Those above the last one of [`BOUNDS`] are
    /// counted as if they took twice as long.
    pub fn by_duration(&self) -> impl Iterator<Item = (Duration, u64)> {
        let last = BOUNDS.last().map(|last| last.saturating_mul(2));
        BOUNDS.iter().copied().chain(last).map(Duration::from_nanos).zip(self.by_duration)
    }

    /// Adds what others have finished.
    pub fn add(&mut self, other: &Self) {
        self.each(other, u64::saturating_add);
    }

    /// What came since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        since.each(earlier, u64::saturating_sub);
        since
    }

    fn each(&mut self, other: &Self, combine: fn(u64, u64) -> u64) {
        let own = self.by_class.iter_mut().chain(&mut self.by_duration);
        own.zip(other.by_class.iter().chain(&other.by_duration)).for_each(|(own, other)| *own = combine(*own, *other));
        self.took = combine(self.took, other.took);
        self.unclassified = match (self.unclassified, other.unclassified) {
            (None, None) => None,
            (own, other) => Some(combine(own.unwrap_or(0), other.unwrap_or(0))),
        };
    }

    /// How long a request took, `thousandths` of which took no longer: 500 for the median. Right to a fifth. None: there was
    /// none.
    pub fn quantile(&self, thousandths: u64) -> Option<Duration> {
        let all = self.timed();
        let wanted = (u128::from(all) * u128::from(thousandths)).div_ceil(1000).max(1);
        let mut seen = 0_u128;
        let column = self.by_duration.iter().position(|count| {
            seen += u128::from(*count);
            seen >= wanted
        })?;
        // The middle of what the column holds; the last one has no end.
        let above = BOUNDS.get(column).copied();
        let below = column.checked_sub(1).and_then(|below| BOUNDS.get(below)).copied().unwrap_or(0);
        Some(Duration::from_nanos(above.map_or(below, |above| below.midpoint(above))))
    }
}

fn word(page: &[u8; PAGE], at: usize) -> u64 {
    page.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

fn in_flight(page: &[u8; PAGE], slot: usize, now: Duration) -> InFlight {
    let began = word(page, slot);
    InFlight {
        began,
        since: ago(began, now),
        thread: NonZeroU64::new(word(page, slot + THREAD)),
        request: request(page, slot),
    }
}

/// The method and the path in a slot.
fn request(page: &[u8; PAGE], slot: usize) -> String {
    let text = |range: std::ops::Range<usize>| page.get(slot + range.start..slot + range.end).unwrap_or_default();
    let (method, path) = (text(METHOD), text(PATH));
    let cut = if path.last().is_some_and(|last| *last != 0) { "…" } else { "" };
    format!("{} {}{cut}", harmless(method), harmless(path))
}

/// Up to the first zero, without what acts on a terminal.
pub(super) fn harmless(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(&bytes[..end]);
    // A letter of several bytes that was cut in two.
    let text = if end == bytes.len() { text.trim_end_matches('\u{fffd}') } else { &text };
    text.chars().map(|letter| if printable::is_command(letter) { '\u{fffd}' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn put(page: &mut [u8; PAGE], slot: usize, began: u64, method: &[u8], path: &[u8]) {
        let at = FIRST_SLOT + slot * SLOT;
        page[at..at + 8].copy_from_slice(&began.to_ne_bytes());
        page[at + METHOD.start..at + METHOD.start + method.len()].copy_from_slice(method);
        page[at + PATH.start..at + PATH.start + path.len()].copy_from_slice(path);
    }

    fn read(page: &[u8; PAGE]) -> Requests {
        Requests::read(page, || Some(*page), NOW)
    }

    #[test]
    fn the_last_failure_is_shown_harmless() {
        let mut page = [0; PAGE];
        assert_eq!(read(&page).last_failure, None);
        page[4000..4004].copy_from_slice(b"POST");
        page[4008..4014].copy_from_slice(b"/a\x1bc\xff\0");
        assert_eq!(read(&page).last_failure.as_deref(), Some("POST /a\u{fffd}c\u{fffd}"));
        page[4000..].fill(b'a');
        assert_eq!(read(&page).last_failure.map(|request| request.len()), Some(8 + 1 + 88 + 3));
    }

    #[test]
    fn requests_in_flight_are_shown_the_oldest_first_and_harmless() {
        let mut page = [0; PAGE];
        put(&mut page, 0, 99_000_000_000, b"GET", b"/new");
        put(&mut page, 14, 69_000_000_000, b"POST", b"/\x1b[2J\xff\n");
        put(&mut page, 3, 98_000_000_000, b"GET", &[b'a'; 88]);
        page[24..32].copy_from_slice(&7_u64.to_ne_bytes());
        let requests = read(&page);
        let seen: Vec<_> = requests.in_flight.iter().map(|one| (one.since.as_secs(), one.request.clone())).collect();
        assert_eq!(
            seen,
            [
                (31, "POST /\u{fffd}[2J\u{fffd}\u{fffd}".to_owned()),
                (2, format!("GET {}…", "a".repeat(88))),
                (1, "GET /new".to_owned())
            ]
        );
        assert_eq!(requests.busy(), 10);
    }

    #[test]
    fn a_slot_that_changes_hands_meanwhile_is_left_out() {
        let mut page = [0; PAGE];
        put(&mut page, 0, 1, b"GET", b"/goes");
        put(&mut page, 1, 2, b"GET", b"/stays");
        let mut again = page;
        put(&mut again, 0, 3, b"GET", b"/comes");
        let requests = Requests::read(&page, || Some(again), NOW);
        assert_eq!(requests.in_flight.iter().map(|one| &one.request[..]).collect::<Vec<_>>(), ["GET /stays"]);
    }

    #[test]
    fn garbage_of_any_kind_is_read_and_bounded() {
        for byte in [1, 0x7f, 0xff] {
            let requests = read(&[byte; PAGE]);
            assert_eq!(requests.in_flight.len(), SLOTS);
            assert!(requests.in_flight.iter().all(|one| one.request.len() < 4 * SLOT), "{requests:?}");
            let mut twice = requests.finished.clone();
            twice.add(&requests.finished);
            assert!(twice.total() >= requests.finished.total() && twice.quantile(950).is_some());
        }
    }

    #[test]
    fn quantiles_are_right_to_a_fifth() {
        let mut finished = Finished::default();
        let took = |milliseconds: u64| BOUNDS.partition_point(|bound| *bound <= milliseconds * 1_000_000);
        assert_eq!(finished.quantile(500), None);
        for (milliseconds, count) in [(3, 90), (800, 9), (200_000, 1)] {
            finished.by_duration[took(milliseconds)] += count;
        }
        let about = |thousandths, milliseconds: f64| {
            let is = finished.quantile(thousandths).unwrap().as_secs_f64() * 1000.0;
            assert!((is / milliseconds - 1.0).abs() < 0.2, "{is} ms for {milliseconds} ms");
        };
        about(500, 3.0);
        about(950, 800.0);
        assert_eq!(finished.quantile(1000), Some(Duration::from_nanos(BOUNDS[45])), "the last one has no end");
    }

    #[test]
    fn what_came_since_is_never_less_than_nothing() {
        let mut before = Finished::default();
        before.by_class[5] = 9;
        let mut after = Finished::default();
        after.by_class[2] = 4;
        let since = after.since(&before);
        assert_eq!((since.total(), since.server_errors(), since.aborted()), (4, 0, 0));
    }
}
