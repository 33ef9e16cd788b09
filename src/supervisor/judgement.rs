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

/// What is asked and what is expected of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The path that was asked for.
    pub path: String,
    /// The statuses that are well, if a health path was configured; empty means 2xx.
    pub wanted: Option<Vec<u16>>,
    /// Whether the server is known to speak HTTP, so that silence is a fault.
    pub speaks_http: bool,
}

/// Decides about a worker that answered `new`, where a serving one answered `old` (None: none could be asked).
///
/// # Errors
/// Why the new code may not serve, for people.
pub fn judge(expectation: &Expectation, new: &Answer, old: Option<&Answer>) -> Result<(), String> {
    let path = &expectation.path;
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
        Expectation { path: "/".to_owned(), wanted: None, speaks_http: true }
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
    fn a_health_path_wants_its_own_status() {
        let health = |wanted: &[u16]| Expectation { wanted: Some(wanted.to_vec()), ..comparing() };
        assert_eq!(judge(&health(&[]), &Answer::Status(204), None), Ok(()));
        assert!(judge(&health(&[]), &Answer::Status(301), Some(&Answer::Status(301))).is_err());
        assert_eq!(judge(&health(&[301, 401]), &Answer::Status(401), None), Ok(()));
        let why = judge(&health(&[301, 401]), &Answer::Status(200), None).expect_err("not wanted");
        assert_eq!(why, "GET / answers 200, not 301 or 401");
    }
}
