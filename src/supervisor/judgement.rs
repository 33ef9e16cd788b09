//! Whether new code may serve, from how it answered.
//!
//! With a health path the answer must be a wanted one. Without, the same question goes to a worker that serves, and
//! the new one must be no worse: an application that redirects, refuses an unknown host or is broken on `/` before and
//! after may be deployed; one that turned from well to broken may not.

/// What came of one HTTP question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This status.
    Status(u16),
    /// Something that is not HTTP.
    NotHttp,
    /// Nothing; why, for people.
    None(String),
}

/// What came of asking a ready worker whether it is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is.
    Well,
    /// It answers, but not what is wanted; what, for people.
    Ill(String),
    /// It does not answer; why, for people.
    Silent(String),
}

/// What is asked and what is expected of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The path that was asked for.
    pub path: String,
    /// The statuses that are well, if a health path was configured; empty means 2xx.
    pub wanted: Option<Vec<u16>>,
    /// Whether the server is known to speak HTTP, so that silence is a fault.
    pub speaks_http: bool,
    /// Whether a worker serves one request at a time: then a busy one is as silent as a hung one, and its heartbeats
    /// alone tell the difference.
    pub silent_when_busy: bool,
    /// Whether a worker of the same generation has answered before: then one that is silent is busy, since it serves
    /// visitors from its first word on.
    pub answered_before: bool,
}

/// What the answer of a ready worker says of its health. Without a health path any answer is a good sign: what the
/// application says on `/` is its own business.
pub fn find(expectation: &Expectation, answer: &Answer) -> Finding {
    let path = &expectation.path;
    match (answer, &expectation.wanted) {
        (Answer::Status(status), Some(wanted)) if !is_wanted(wanted, *status) => {
            Finding::Ill(format!("GET {path} answers {status}, not {}", wanted_text(wanted)))
        }
        (Answer::NotHttp, Some(_)) => Finding::Ill(format!("GET {path} is not answered in HTTP")),
        (Answer::Status(_) | Answer::NotHttp, _) => Finding::Well,
        (Answer::None(_), _) if expectation.silent_when_busy => Finding::Well,
        (Answer::None(why), _) => Finding::Silent(format!("GET {path}: {why}")),
    }
}

/// Decides about a worker that answered `new`, where a serving one answered `old` (None: none could be asked).
///
/// # Errors
/// Why the new code may not serve, for people.
pub fn judge(expectation: &Expectation, new: &Answer, old: Option<&Answer>) -> Result<(), String> {
    let path = &expectation.path;
    if expectation.answered_before && matches!(new, Answer::None(_)) {
        return Ok(());
    }
    if let Some(wanted) = &expectation.wanted {
        return match new {
            Answer::Status(status) if is_wanted(wanted, *status) => Ok(()),
            Answer::Status(status) => Err(format!("GET {path} answers {status}, not {}", wanted_text(wanted))),
            Answer::NotHttp => Err(format!("GET {path} is not answered in HTTP")),
            Answer::None(why) => Err(format!("GET {path}: {why}")),
        };
    }
    match (new, old) {
        (Answer::Status(..500), _) => Ok(()),
        (Answer::Status(_), Some(Answer::Status(500..))) => Ok(()),
        (Answer::Status(status), Some(Answer::Status(old))) => {
            Err(format!("GET {path} answers {status} where the serving workers answer {old}"))
        }
        (Answer::Status(status), Some(Answer::NotHttp | Answer::None(_)) | None) => Err(format!(
            "GET {path} answers {status}, and no serving worker tells whether that is usual; name a path that must \
             work as health.path, or reload with canary = false"
        )),
        // It does not speak HTTP: that it is ready must do.
        (Answer::NotHttp, _) => Ok(()),
        // It is as silent as the one that serves.
        (Answer::None(_), Some(Answer::None(_))) => Ok(()),
        (Answer::None(why), Some(Answer::Status(_) | Answer::NotHttp) | None) if expectation.speaks_http => {
            Err(format!("GET {path}: {why}"))
        }
        (Answer::None(why), Some(Answer::Status(_) | Answer::NotHttp)) => Err(format!("GET {path}: {why}")),
        (Answer::None(_), None) => Ok(()),
    }
}

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
            speaks_http: true,
            silent_when_busy: false,
            answered_before: false,
        }
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
        assert!(judge(&comparing(), &Answer::None("it hangs".to_owned()), None).is_err());
        let unknown = Expectation { speaks_http: false, ..comparing() };
        assert_eq!(judge(&unknown, &Answer::None("it hangs".to_owned()), None), Ok(()));
        assert_eq!(judge(&unknown, &Answer::NotHttp, None), Ok(()));
        assert!(judge(&unknown, &Answer::None("it hangs".to_owned()), Some(&Answer::Status(200))).is_err());
    }

    #[test]
    fn a_busy_worker_of_code_that_has_answered_may_be_silent() {
        let silent = Answer::None("no answer within 5s".to_owned());
        let proven = Expectation { answered_before: true, wanted: Some(Vec::new()), ..comparing() };
        assert_eq!(judge(&proven, &silent, None), Ok(()));
        assert!(judge(&proven, &Answer::Status(500), None).is_err());
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
        let silent = Answer::None("no answer within 5s".to_owned());
        assert_eq!(find(&comparing(), &Answer::Status(500)), Finding::Well);
        assert_eq!(find(&health, &Answer::Status(204)), Finding::Well);
        assert_eq!(find(&health, &Answer::Status(500)), Finding::Ill("GET / answers 500, not 2xx".to_owned()));
        assert_eq!(find(&comparing(), &silent), Finding::Silent("GET /: no answer within 5s".to_owned()));
        let busy = Expectation { silent_when_busy: true, ..health };
        assert_eq!(find(&busy, &silent), Finding::Well);
        assert!(matches!(find(&busy, &Answer::Status(500)), Finding::Ill(_)));
    }
}
