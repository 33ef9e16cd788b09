//! Acceptance: whether new code may serve, from how it answered.
//!
//! With a health path the answer must be a wanted one. Without, the same question goes to those who serve, and the new
//! worker must be no worse: an application that redirects, refuses an unknown host or is broken on `/` before and after
//! may be deployed; one that turned from well to broken may not. Silence proves nothing: a worker that does not answer
//! may serve only where those who serve are asked in vain as well, and in the same way.

/// What came of one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This status.
    Status(u16),
    /// Something that is not HTTP.
    NotHttp,
    /// It accepted the connection and closed it without a word.
    Closed,
    /// It accepted the connection, as far as the kernel tells, and said nothing; for how long, for people.
    Silent(String),
    /// It did not accept the connection; in which way, for people.
    NotAccepted(String),
    /// It has not come to it: it serves visitors, as the kernel shows, and another worker of its code has answered.
    Busy,
}

impl Answer {
    /// Whether it tells how a server is: one that could not be asked, or was busy, tells nothing.
    pub fn tells(&self) -> bool {
        match self {
            Self::Status(_) | Self::NotHttp | Self::Closed => true,
            Self::Silent(_) | Self::NotAccepted(_) | Self::Busy => false,
        }
    }
}

/// What was answered when a worker was asked whether its code may serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// The worker's own answer, if it was asked over its socket.
    pub new: Option<Answer>,
    /// That of a worker that serves, if one was asked beside it.
    pub old: Option<Answer>,
}

/// What is usual: how workers of a generation were heard to answer, and how those of the generation before them did.
#[derive(Clone, Debug, Default)]
pub(super) struct Baseline {
    own: Option<Answer>,
    before: Option<Answer>,
}

impl Baseline {
    /// That of the code that follows this one.
    pub(super) fn of_successor(&self) -> Self {
        Self { own: None, before: self.usual() }
    }

    pub(super) fn usual(&self) -> Option<Answer> {
        self.own.clone().or_else(|| self.before.clone())
    }

    /// Whether a worker of this very code was heard.
    pub(super) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Takes note of an answer; one that tells nothing does not replace one that did.
    pub(super) fn remember(&mut self, answer: Answer) {
        let knows = self.own.as_ref().is_some_and(Answer::tells);
        if !knows && (answer.tells() || matches!(answer, Answer::Silent(_))) {
            self.own = Some(answer);
        }
    }
}

/// What came of asking a ready worker whether it is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// It is.
    Healthy,
    /// It was not asked, because nobody is being served: then nobody can be stuck.
    Idle,
    /// It answers, but not what is wanted; what, for people.
    BadAnswer(String),
    /// It does not answer; why, for people.
    NoAnswer(String),
}

/// What the sockets of a server speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP: anything else is a fault.
    Http,
    /// Something else, in which it is not asked: that it accepts the connection and reacts to it must do.
    Other,
    /// Nobody knows.
    Unknown,
}

/// What is asked and what is expected of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The path that was asked for.
    pub path: String,
    /// The statuses that are well, if a health path was configured; empty means 2xx.
    pub wanted: Option<Vec<u16>>,
    /// What the server is known to speak.
    pub protocol: Protocol,
    /// Whether a worker serves one request at a time: then a busy one is as silent as a hung one, and its heartbeats
    /// alone tell the difference.
    pub silent_when_busy: bool,
    /// Whether it is ready and watched: it has stood its judgement, and silence is for the probes to find out.
    pub watched: bool,
}

/// What the answer of a ready worker says of its health. Without a health path any answer is a good sign: what the
/// application says on `/` is its own business.
pub fn find(expectation: &Expectation, answer: &Answer) -> ProbeOutcome {
    let path = &expectation.path;
    match (answer, &expectation.wanted) {
        (Answer::Status(status), Some(wanted)) if !is_wanted(wanted, *status) => {
            ProbeOutcome::BadAnswer(format!("GET {path} answers {status}, not {}", wanted_text(wanted)))
        }
        (Answer::NotHttp, Some(_)) => ProbeOutcome::BadAnswer(format!("GET {path} is not answered in HTTP")),
        (Answer::Status(_) | Answer::NotHttp | Answer::Busy, _) => ProbeOutcome::Healthy,
        (Answer::Closed | Answer::Silent(_) | Answer::NotAccepted(_), _) if expectation.silent_when_busy => {
            ProbeOutcome::Healthy
        }
        (Answer::Closed, _) => ProbeOutcome::NoAnswer(format!("GET {path}: {CLOSED}")),
        (Answer::Silent(why) | Answer::NotAccepted(why), _) => ProbeOutcome::NoAnswer(format!("GET {path}: {why}")),
    }
}

/// Whether the answer is one that no other can make better or worse: [`judge`] needs to hear no serving worker then.
pub fn speaks_for_itself(expectation: &Expectation, new: &Answer) -> bool {
    expectation.wanted.is_some() || matches!(new, Answer::Status(..500) | Answer::NotAccepted(_) | Answer::Busy)
}

/// Whether another question may bring a better answer while the worker still starts. A server of HTTP that closes a
/// connection has answered; of another program nobody knows.
pub fn may_improve(expectation: &Expectation, new: &Answer) -> bool {
    match new {
        Answer::Silent(_) | Answer::NotAccepted(_) => true,
        Answer::Closed => expectation.protocol != Protocol::Http,
        Answer::Status(_) | Answer::NotHttp | Answer::Busy => false,
    }
}

/// What is usual: what a serving worker answers (`fresh`), unless it could not say and it is remembered.
pub fn usual<'a>(fresh: Option<&'a Answer>, remembered: Option<&'a Answer>) -> Option<&'a Answer> {
    fresh.filter(|answer| answer.tells()).or(remembered).or(fresh)
}

/// Decides about a worker that answered `new`, where those who serve answer, or the generation before them answered,
/// `old` (None: nobody knows).
///
/// # Errors
/// Why the new code may not serve, for people.
pub fn judge(expectation: &Expectation, new: &Answer, old: Option<&Answer>) -> Result<(), String> {
    let path = &expectation.path;
    if expectation.watched && matches!(new, Answer::Closed | Answer::Silent(_) | Answer::NotAccepted(_)) {
        return Ok(());
    }
    if let Some(wanted) = &expectation.wanted {
        return match new {
            Answer::Busy => Ok(()),
            Answer::Status(status) if is_wanted(wanted, *status) => Ok(()),
            Answer::Status(status) => Err(format!("GET {path} answers {status}, not {}", wanted_text(wanted))),
            Answer::NotHttp => Err(format!("GET {path} is not answered in HTTP")),
            Answer::Closed => Err(format!("GET {path}: {CLOSED}")),
            Answer::Silent(why) | Answer::NotAccepted(why) => Err(format!("GET {path}: {why}")),
        };
    }
    let how = match new {
        Answer::Status(status) => format!("GET {path} answers {status}"),
        Answer::NotHttp => format!("GET {path} is not answered in HTTP"),
        Answer::Closed => format!("GET {path}: {CLOSED}"),
        Answer::Silent(why) | Answer::NotAccepted(why) => format!("GET {path}: {why}"),
        Answer::Busy => return Ok(()),
    };
    let otherwise = |old: &str| Err(format!("{how} where the serving workers {old}"));
    match (new, old) {
        (Answer::Status(..500) | Answer::Busy, _) => Ok(()),
        // It does not even take what is sent to it.
        (Answer::NotAccepted(_), _) => Err(how),
        (Answer::NotHttp | Answer::Closed | Answer::Silent(_), _) if expectation.protocol == Protocol::Http => Err(how),
        (Answer::NotHttp | Answer::Closed, _) if expectation.protocol == Protocol::Other => Ok(()),
        (Answer::Status(_), Some(Answer::Status(500..)))
        | (Answer::NotHttp, Some(Answer::NotHttp))
        | (Answer::Closed, Some(Answer::Closed))
        // It is as silent as those who serve, or at least not more so.
        | (Answer::NotHttp | Answer::Closed | Answer::Silent(_), Some(Answer::Silent(_))) => Ok(()),
        // Nobody tells that it ever spoke HTTP, and it speaks.
        (Answer::NotHttp, Some(Answer::Closed | Answer::NotAccepted(_) | Answer::Busy) | None) => Ok(()),
        (_, Some(Answer::Status(old))) => otherwise(&format!("answer {old}")),
        (Answer::Closed | Answer::Silent(_), Some(Answer::NotHttp)) => otherwise("answer, though not in HTTP"),
        (Answer::Silent(_), Some(Answer::Closed)) => otherwise("close the connection at once"),
        (
            Answer::Status(_),
            Some(Answer::NotHttp | Answer::Closed | Answer::Silent(_) | Answer::NotAccepted(_) | Answer::Busy) | None,
        )
        | (Answer::Closed | Answer::Silent(_), Some(Answer::NotAccepted(_) | Answer::Busy) | None) => Err(format!(
            "{how}, and no serving worker tells whether that is usual; name a path that must work as health.path, or a \
             program that asks in the server's own way as health.command, or reload with canary = false"
        )),
    }
}

const CLOSED: &str = "it closed the connection without an answer";

fn is_wanted(wanted: &[u16], status: u16) -> bool {
    if wanted.is_empty() { (200..300).contains(&status) } else { wanted.contains(&status) }
}

fn wanted_text(wanted: &[u16]) -> String {
    if wanted.is_empty() {
        return "2xx".to_owned();
    }
    wanted.iter().map(u16::to_string).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparing() -> Expectation {
        Expectation {
            path: "/".to_owned(),
            wanted: None,
            protocol: Protocol::Http,
            silent_when_busy: false,
            watched: false,
        }
    }

    fn silent() -> Answer {
        Answer::Silent("no answer within 5s".to_owned())
    }

    fn not_accepted() -> Answer {
        Answer::NotAccepted("it has accepted no connection".to_owned())
    }

    #[test]
    fn no_worse_than_before_may_serve() {
        for (new, old) in [(200, 200), (301, 301), (400, 400), (500, 500), (404, 200), (200, 500), (503, 502)] {
            let verdict = judge(&comparing(), &Answer::Status(new), Some(&Answer::Status(old)));
            assert_eq!(verdict, Ok(()), "{old} -> {new}");
        }
        for (new, old) in [(500, 200), (502, 404), (503, 301)] {
            assert!(judge(&comparing(), &Answer::Status(new), Some(&Answer::Status(old))).is_err(), "{old} -> {new}");
        }
    }

    #[test]
    fn an_answer_that_cannot_be_compared_must_not_be_an_error() {
        assert_eq!(judge(&comparing(), &Answer::Status(400), None), Ok(()));
        assert!(judge(&comparing(), &Answer::Status(500), None).is_err());
        for no_answer in [Answer::NotHttp, Answer::Closed, silent(), not_accepted()] {
            for old in [None, Some(silent()), Some(not_accepted()), Some(no_answer.clone())] {
                let verdict = judge(&comparing(), &no_answer, old.as_ref());
                assert!(verdict.is_err(), "a server of HTTP: {old:?} -> {no_answer:?}");
            }
        }
    }

    #[test]
    fn a_program_of_unknown_protocol_must_say_as_much_as_those_who_serve() {
        let unknown = Expectation { protocol: Protocol::Unknown, ..comparing() };
        // From the least to the most that can be heard.
        let answers = [not_accepted(), silent(), Answer::Closed, Answer::NotHttp, Answer::Status(200)];
        for (how_much, new) in answers.iter().enumerate() {
            for (usual, old) in answers.iter().enumerate().skip(1) {
                let may_serve = how_much >= usual && how_much > 0;
                assert_eq!(judge(&unknown, new, Some(old)).is_ok(), may_serve, "{old:?} -> {new:?}");
            }
            for nobody_knows in [None, Some(not_accepted())] {
                let may_serve = matches!(new, Answer::NotHttp | Answer::Status(_));
                assert_eq!(judge(&unknown, new, nobody_knows.as_ref()).is_ok(), may_serve, "{new:?}");
            }
        }
        let why = judge(&unknown, &silent(), Some(&Answer::Status(200))).expect_err("it says less");
        assert_eq!(why, "GET /: no answer within 5s where the serving workers answer 200");
    }

    #[test]
    fn a_server_of_another_protocol_must_react_and_a_busy_worker_need_not() {
        let other = Expectation { protocol: Protocol::Other, ..comparing() };
        assert_eq!(judge(&other, &Answer::Closed, None), Ok(()));
        assert!(judge(&other, &silent(), None).is_err() && judge(&other, &not_accepted(), None).is_err());
        let health = Expectation { wanted: Some(Vec::new()), ..comparing() };
        assert_eq!(judge(&health, &Answer::Busy, None), Ok(()));
        let watched = Expectation { watched: true, ..health };
        assert_eq!(judge(&watched, &silent(), None), Ok(()));
        assert!(judge(&watched, &Answer::Status(500), None).is_err());
    }

    #[test]
    fn what_was_usual_is_remembered_while_nobody_can_say() {
        let well = Answer::Status(200);
        assert_eq!(usual(Some(&silent()), Some(&well)), Some(&well));
        assert_eq!(usual(Some(&Answer::Status(500)), Some(&well)), Some(&Answer::Status(500)));
        assert_eq!(usual(Some(&silent()), None), Some(&silent()));
        assert_eq!(usual(None, Some(&Answer::Closed)), Some(&Answer::Closed));
    }

    #[test]
    fn a_health_path_wants_its_own_status() {
        let health = |wanted: &[u16]| Expectation { wanted: Some(wanted.to_vec()), ..comparing() };
        assert_eq!(judge(&health(&[]), &Answer::Status(204), None), Ok(()));
        assert!(judge(&health(&[]), &Answer::Status(301), Some(&Answer::Status(301))).is_err());
        assert_eq!(judge(&health(&[301, 401]), &Answer::Status(401), None), Ok(()));
        let why = judge(&health(&[301, 401]), &Answer::Status(200), None).expect_err("not wanted");
        assert_eq!(why, "GET / answers 200, not 301 or 401");
    }

    #[test]
    fn a_ready_worker_is_well_silent_or_ill() {
        let health = Expectation { wanted: Some(Vec::new()), ..comparing() };
        assert_eq!(find(&comparing(), &Answer::Status(500)), ProbeOutcome::Healthy);
        assert_eq!(find(&health, &Answer::Status(204)), ProbeOutcome::Healthy);
        assert_eq!(
            find(&health, &Answer::Status(500)),
            ProbeOutcome::BadAnswer("GET / answers 500, not 2xx".to_owned())
        );
        assert_eq!(find(&comparing(), &silent()), ProbeOutcome::NoAnswer("GET /: no answer within 5s".to_owned()));
        let busy = Expectation { silent_when_busy: true, ..health };
        assert_eq!(find(&busy, &silent()), ProbeOutcome::Healthy);
        assert!(matches!(find(&busy, &Answer::Status(500)), ProbeOutcome::BadAnswer(_)));
    }

    #[test]
    fn what_speaks_for_itself_is_judged_alike_whatever_others_answer() {
        let answers = || {
            let statuses = [200, 404, 499, 500, 503].map(Answer::Status);
            statuses.into_iter().chain([Answer::NotHttp, Answer::Closed, Answer::Busy, silent(), not_accepted()])
        };
        for wanted in [None, Some(Vec::new())] {
            for protocol in [Protocol::Http, Protocol::Other, Protocol::Unknown] {
                let expectation = Expectation { wanted: wanted.clone(), protocol, ..comparing() };
                for new in answers().filter(|new| speaks_for_itself(&expectation, new)) {
                    let alone = judge(&expectation, &new, None);
                    answers()
                        .for_each(|old| assert_eq!(judge(&expectation, &new, Some(&old)), alone, "{old:?} -> {new:?}"));
                }
            }
        }
        let alone: Vec<_> = answers().filter(|new| speaks_for_itself(&comparing(), new)).collect();
        let expected = [200, 404, 499].map(Answer::Status).into_iter().chain([Answer::Busy, not_accepted()]);
        assert_eq!(alone, expected.collect::<Vec<_>>());
        let health = Expectation { wanted: Some(Vec::new()), ..comparing() };
        assert!(answers().all(|new| speaks_for_itself(&health, &new)));
    }

    #[test]
    fn silence_may_improve_and_what_was_said_does_not() {
        for protocol in [Protocol::Http, Protocol::Other, Protocol::Unknown] {
            let expectation = Expectation { protocol, ..comparing() };
            assert!(may_improve(&expectation, &silent()) && may_improve(&expectation, &not_accepted()));
            assert_eq!(may_improve(&expectation, &Answer::Closed), protocol != Protocol::Http);
            let said = [Answer::Status(200), Answer::Status(500), Answer::NotHttp, Answer::Busy];
            assert!(!said.iter().any(|answer| may_improve(&expectation, answer)));
        }
    }

    #[test]
    fn an_answer_that_tells_nothing_replaces_none_that_did() {
        let mut baseline = Baseline::default();
        baseline.remember(not_accepted());
        assert_eq!(baseline.usual(), None);
        for (answer, expected) in [(silent(), silent()), (Answer::Status(500), Answer::Status(500))] {
            baseline.remember(answer);
            assert_eq!(baseline.usual(), Some(expected));
        }
        baseline.remember(silent());
        assert_eq!(baseline.usual(), Some(Answer::Status(500)));
        assert!(baseline.is_own() && !baseline.of_successor().is_own());
        assert_eq!(baseline.of_successor().usual(), Some(Answer::Status(500)));
    }
}
