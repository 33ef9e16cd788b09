//! What a trial compares: the answers of the new workers with those of the old ones in the same time, by tests that may be
//! wrong no more often than is said.

use super::super::event::Answered;
use super::super::spec::Trial;
use super::super::time::Time;
use super::exact_test::chance;
use std::time::Duration;

/// Between two counts at first: code that always fails is to meet few visitors, however many come; and later.
const FIRST_COUNT: Duration = Duration::from_millis(50);
const COUNT_INTERVAL: Duration = Duration::from_secs(1);
/// Of so many answers the first test is made, and each following one of twice as many.
const FIRST_TEST: u64 = 10;
/// The chance that good code is taken back for its server errors.
pub const FALSE_ALARMS: f64 = 0.01;
/// So many answers of both say how long half of them take.
const MEDIAN_OF: u64 = 50;
/// New code is too slow where half of its answers take so many times as long as those of the old, or longer, and longer than
/// [`SLOW`].
pub const SLOWER: u32 = 8;
/// No answer that comes sooner is slow.
pub const SLOW: Duration = Duration::from_millis(100);

/// A trial under way.
#[derive(Clone, Debug)]
pub(in super::super) struct Run {
    trial: Trial,
    /// How many workers take part.
    workers: u32,
    /// Once they are there.
    counting: Option<Counting>,
}

#[derive(Clone, Debug)]
struct Counting {
    /// The end of its time.
    until: Time,
    /// When is to be counted; None: the answer is under way.
    count_at: Option<Time>,
    /// What both had answered when it began.
    before: Option<Both>,
    /// What they have answered since.
    since: Both,
    /// How many tests were made.
    tests: u32,
}

/// What became of the requests of the new generation and of the old one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Both {
    new: Answered,
    old: Answered,
}

/// What follows from a count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing yet.
    GoOn,
    /// The new code is taken back.
    Worse(String),
    /// The new code may take every slot.
    Done,
}

impl Run {
    pub(super) fn new(trial: Trial, workers: u32) -> Self {
        Self { trial, workers, counting: None }
    }

    pub(super) fn trial(&self) -> Trial {
        self.trial
    }

    /// How many workers take part.
    pub(super) fn workers(&self) -> u32 {
        self.workers
    }

    /// Its workers are there, and the first count is under way.
    pub(super) fn begin(&mut self, now: Time) {
        let until = now + self.trial.time;
        self.counting = Some(Counting { until, count_at: None, before: None, since: Both::default(), tests: 0 });
    }

    pub(super) fn has_begun(&self) -> bool {
        self.counting.is_some()
    }

    /// Whether it is time for a count, which is under way from here on.
    pub(super) fn takes_count(&mut self, now: Time) -> bool {
        let due =
            |counting: &mut Counting| counting.count_at.take_if(|at| *at <= now || counting.until <= now).is_some();
        self.counting.as_mut().is_some_and(due)
    }

    /// When is to be counted.
    pub(in super::super) fn deadline(&self) -> Option<Time> {
        let counting = self.counting.as_ref()?;
        counting.count_at.map(|at| at.min(counting.until))
    }

    /// When its time is over.
    pub(in super::super) fn until(&self) -> Option<Time> {
        self.counting.as_ref().map(|counting| counting.until)
    }

    /// How many answers of the new generation were compared, and how many it takes.
    pub(in super::super) fn counted(&self) -> (u64, u64) {
        (self.counting.as_ref().map_or(0, |counting| counting.since.new.answers), self.trial.requests)
    }

    /// How many server errors were among them.
    pub(super) fn server_errors(&self) -> u64 {
        self.counting.as_ref().map_or(0, |counting| counting.since.new.server_errors)
    }

    /// Both have answered so much by now. Whether a test was made, and what follows.
    pub(super) fn count(&mut self, now: Time, new: Answered, old: Answered) -> (bool, Finding) {
        let trial = self.trial;
        let Some(counting) = &mut self.counting else { return (false, Finding::GoOn) };
        let over = counting.until <= now;
        let before = counting.before.get_or_insert_with(|| Both { new: new.clone(), old: old.clone() });
        counting.since = Both { new: new.since(&before.new), old: old.since(&before.old) };
        let passed = trial.time.saturating_sub(counting.until.since(now));
        counting.count_at = Some(now + (passed / 2).clamp(FIRST_COUNT, COUNT_INTERVAL));
        let last = over || counting.since.new.answers >= trial.requests;
        if !last && counting.since.new.answers < FIRST_TEST << counting.tests.min(50) {
            return (false, Finding::GoOn);
        }
        counting.tests += 1;
        let finding = match (counting.since.worse(&trial, last), last) {
            (Some(why), _) => Finding::Worse(why),
            (None, true) => Finding::Done,
            (None, false) => Finding::GoOn,
        };
        (true, finding)
    }
}

impl Both {
    /// Why the new code is taken back by one test, the last one or one before.
    fn worse(&self, trial: &Trial, last: bool) -> Option<String> {
        let (new, old) = (&self.new, &self.old);
        let early = (0..50).take_while(|test| FIRST_TEST << test < trial.requests).count().max(1);
        let share = if last { FALSE_ALARMS / 2.0 } else { FALSE_ALARMS / 2.0 / early as f64 };
        if chance(new.server_errors, new.answers, old.server_errors, old.answers) <= share {
            let request = new.last_failure.as_ref().map(|request| format!("; the last one was {request}"));
            return Some(format!(
                "{} of {} requests failed with the new code (500 to 599), {} of {} with the old{}",
                new.server_errors,
                new.answers,
                old.server_errors,
                old.answers,
                request.unwrap_or_default()
            ));
        }
        let (new, old) = (new.median()?, old.median()?);
        (new >= old.saturating_mul(SLOWER) && new >= SLOW).then(|| {
            format!(
                "half of the requests take {} or longer with the new code, and {} with the old",
                milliseconds(new),
                milliseconds(old)
            )
        })
    }
}

fn milliseconds(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1000.0;
    if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

impl Answered {
    /// What came since `earlier`.
    fn since(&self, earlier: &Self) -> Self {
        let durations = self.durations.iter().enumerate();
        let before = |index| earlier.durations.get(index).map_or(0, |(_, count)| *count);
        Self {
            answers: self.answers.saturating_sub(earlier.answers),
            server_errors: self.server_errors.saturating_sub(earlier.server_errors),
            last_failure: self.last_failure.clone(),
            durations: durations.map(|(index, (bound, count))| (*bound, count.saturating_sub(before(index)))).collect(),
        }
        .bounded()
    }

    /// A worker writes these numbers itself, and may lie: no more errors than answers, and no more answers than the sums of
    /// the exact test are right for.
    fn bounded(mut self) -> Self {
        self.answers = self.answers.min(1 << 36);
        self.server_errors = self.server_errors.min(self.answers);
        self
    }

    /// Half of them took no longer. None: there were too few.
    fn median(&self) -> Option<Duration> {
        let all = self.durations.iter().fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
        let mut seen = 0_u64;
        let half = |(bound, count): &(Duration, u64)| {
            seen = seen.saturating_add(*count);
            (seen >= all.div_ceil(2)).then_some(*bound)
        };
        self.durations.iter().filter(|_| all >= MEDIAN_OF).find_map(half)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::random::Random;
    use super::super::super::spec::Share;
    use super::*;

    const TRIAL: Trial = Trial { share: Share::Workers(1), requests: 500, time: Duration::from_secs(300) };

    fn answered(answers: u64, server_errors: u64, took: &[(u64, u64)]) -> Answered {
        let durations = took.iter().map(|(ms, count)| (Duration::from_millis(*ms), *count)).collect();
        Answered { answers, server_errors, last_failure: None, durations }
    }

    fn at(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    /// A trial that has begun, with what both had answered before.
    fn begun(new: Answered, old: Answered) -> Run {
        let mut run = Run::new(TRIAL, 1);
        run.begin(at(0));
        assert_eq!(run.count(at(0), new, old), (false, Finding::GoOn));
        run
    }

    #[test]
    fn a_test_is_made_whenever_there_are_twice_as_many_answers() {
        let mut run = begun(answered(0, 0, &[]), answered(0, 0, &[]));
        let tested = |run: &mut Run, answers| run.count(at(1), answered(answers, 0, &[]), answered(1, 0, &[])).0;
        let tests: Vec<u64> = (1..500).filter(|answers| tested(&mut run, *answers)).collect();
        assert_eq!(tests, [10, 20, 40, 80, 160, 320]);
        assert_eq!(run.count(at(1), answered(500, 0, &[]), answered(1, 0, &[])), (true, Finding::Done));
        assert_eq!(run.counted(), (500, 500));
    }

    #[test]
    fn what_both_had_answered_before_does_not_count() {
        let (new, old) = (answered(50, 50, &[(10, 0), (900, 50)]), answered(1000, 0, &[(10, 1000), (900, 0)]));
        let mut run = begun(new, old);
        let (new, old) = (answered(110, 50, &[(10, 60), (900, 50)]), answered(1100, 0, &[(10, 1100), (900, 0)]));
        assert_eq!(run.count(at(1), new, old), (true, Finding::GoOn));
        let (new, old) = (answered(140, 60, &[(10, 90), (900, 50)]), answered(1200, 190, &[(10, 1200), (900, 0)]));
        assert_eq!(run.count(at(1), new, old), (true, Finding::GoOn));
        assert_eq!((run.counted(), run.server_errors()), ((90, 500), 10));
    }

    #[test]
    fn few_answers_say_nothing_of_how_long_they_take() {
        for (count, expected) in [(49, Finding::GoOn), (50, Finding::Worse(String::new()))] {
            let mut run = begun(answered(0, 0, &[]), answered(0, 0, &[]));
            let (new, old) = (answered(count, 0, &[(10, 0), (900, count)]), answered(500, 0, &[(10, 500), (900, 0)]));
            let (tested, finding) = run.count(at(1), new, old);
            let same = std::mem::discriminant(&finding) == std::mem::discriminant(&expected);
            assert!(tested && same, "{count}: {finding:?}");
        }
    }

    #[test]
    fn counts_come_soon_at_first_and_the_end_is_not_missed() {
        let mut run = begun(answered(0, 0, &[]), answered(0, 0, &[]));
        assert_eq!(run.deadline(), Some(at(50)));
        for (now, next) in [(100, 150), (1_000, 1_500), (10_000, 11_000), (299_500, 300_000)] {
            assert!(run.takes_count(at(now)) && !run.takes_count(at(now)));
            assert_eq!(run.deadline(), None, "its answer is under way");
            assert_eq!(run.count(at(now), answered(0, 0, &[]), answered(0, 0, &[])), (false, Finding::GoOn));
            assert_eq!(run.deadline(), Some(at(next)));
        }
        assert_eq!(run.count(at(300_000), answered(3, 0, &[]), answered(0, 0, &[])), (true, Finding::Done));
    }

    #[test]
    fn numbers_that_cannot_be_are_compared_without_harm() {
        for (answers, server_errors) in [(10, u64::MAX), (u64::MAX, u64::MAX)] {
            let mut run = begun(answered(0, 0, &[]), answered(0, 0, &[]));
            let lie = answered(answers, server_errors, &[(10, u64::MAX), (900, u64::MAX)]);
            let (tested, _) = run.count(at(1), lie.clone(), answered(100, 1, &[(10, 100), (900, 0)]));
            assert!(tested);
            let (_, finding) = run.count(at(2), answered(20, 1, &[]), lie);
            assert!(!matches!(finding, Finding::Worse(_)), "{finding:?}");
        }
    }

    #[test]
    fn times_have_two_digits_at_least() {
        for (us, expected) in [(500, "0.5 ms"), (9_900, "9.9 ms"), (10_000, "10 ms"), (1_500_000, "1500 ms")] {
            assert_eq!(milliseconds(Duration::from_micros(us)), expected);
        }
    }

    /// Half of the false alarms for the last test, and the rest shared by the early ones: those of 10 answers, 20, 40 and so on.
    #[test]
    fn each_test_has_its_share_of_the_false_alarms() {
        for (requests, early) in [(10, 1), (20, 1), (21, 2), (500, 6), (640, 6), (641, 7)] {
            let trial = Trial { requests, ..TRIAL };
            for (last, share) in [(true, 0.005), (false, 0.005 / f64::from(early))] {
                for (answers, errors) in (10..60).flat_map(|answers| (0..10).map(move |errors| (answers, errors))) {
                    let both = Both { new: answered(answers, errors, &[]), old: answered(100, 1, &[]) };
                    let is_worse = chance(errors, answers, 1, 100) <= share;
                    assert_eq!(
                        both.worse(&trial, last).is_some(),
                        is_worse,
                        "{requests}: {errors} of {answers}, {last}"
                    );
                }
            }
        }
    }

    /// A trial beside three old workers, 20 requests a second, of which so many of ten thousand fail; with the new code so
    /// many more. Whether the new code is taken back.
    fn is_taken_back(seed: u64, errors: u64, more_errors: u64) -> bool {
        let mut random = Random::new(seed);
        let mut roll = |sides: u64| (random.fraction() * sides as f64) as u64;
        let (mut new, mut old) = (Answered::default(), Answered::default());
        let mut run = begun(new.clone(), old.clone());
        let mut counted_at = at(0);
        loop {
            let now = run.deadline().expect("no answer is under way");
            assert!(run.takes_count(now));
            // 20 a second are one each 50 ms; intervals are never shorter.
            for _ in 0..now.since(counted_at).as_millis() / 50 {
                let is_new = roll(4) == 0;
                let of = if is_new { &mut new } else { &mut old };
                of.answers += 1;
                of.server_errors += u64::from(roll(10_000) < errors + if is_new { more_errors } else { 0 });
            }
            counted_at = now;
            match run.count(now, new.clone(), old.clone()).1 {
                Finding::GoOn => {}
                Finding::Worse(_) => return true,
                Finding::Done => return false,
            }
        }
    }

    #[test]
    fn of_three_thousand_good_releases_thirty_are_taken_back_at_most_and_of_as_many_bad_ones_thirty_go_through() {
        assert!((FALSE_ALARMS * 3_000.0 - 30.0).abs() < 1e-9);
        for errors in [0, 100] {
            let taken_back = |more| (0..3_000).filter(|seed| is_taken_back(seed + more, errors, more)).count();
            let (good_lost, bad_kept) = (taken_back(0), 3_000 - taken_back(500));
            assert!(good_lost <= 30 && bad_kept <= 30, "{errors}: {good_lost}, {bad_kept}");
        }
    }
}
