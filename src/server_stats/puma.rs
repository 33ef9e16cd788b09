//! Puma's statistics: what `Puma.stats` says of a puma that is one process.
//!
//! Read in puma 5.6.5 (`lib/puma/server.rb`, `thread_pool.rb`; 6.x says the same and more): `requests_count` counts a
//! request when a thread takes it up; `pool_capacity` is the number of threads that wait and of those that may still be
//! started, so that all others of `max_threads` serve. There is no word of what a request asks for or how it was answered.

use super::stats::{Stats, StatsError};
use serde::Deserialize;

#[derive(Deserialize)]
struct Said {
    requests_count: u64,
    pool_capacity: u64,
    max_threads: u64,
}

/// What the text says.
pub(super) fn parse(text: &[u8]) -> Result<Stats, StatsError> {
    let said: Said = serde_json::from_slice(text)?;
    let busy = said.max_threads.saturating_sub(said.pool_capacity);
    Ok(Stats { begun: said.requests_count, busy: busy.min(said.requests_count), in_flight: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of puma 5.6.5.
    const OLD: &str = r#"{"started_at":"2026-11-30T18:00:00Z","backlog":0,"running":2,"pool_capacity":4,"max_threads":5,"requests_count":12}"#;

    #[test]
    fn what_puma_says_is_read_and_what_is_new_in_it_is_ignored() {
        assert_eq!(parse(OLD.as_bytes()).expect("read"), Stats { begun: 12, busy: 1, in_flight: Vec::new() });
        let newer = OLD.replace("\"backlog\"", "\"busy_threads\":1,\"versions\":{\"puma\":\"6.6.0\"},\"backlog\"");
        assert_eq!(parse(newer.as_bytes()).expect("read"), Stats { begun: 12, busy: 1, in_flight: Vec::new() });
    }

    #[test]
    fn what_is_cut_off_or_garbage_is_not_known() {
        for length in 0..OLD.len() {
            assert!(parse(&OLD.as_bytes()[..length]).is_err(), "{length}");
        }
        for text in
            ["null", "[]", "{}", "12", "\0\u{1b}[2J", r#"{"requests_count":-1,"pool_capacity":0,"max_threads":0}"#]
        {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse("[".repeat(60_000).as_bytes()).is_err(), "it nests too deeply");
    }

    #[test]
    fn no_numbers_make_it_serve_more_than_it_has_begun_or_less_than_none() {
        let said = |count: u64, capacity: u64, threads: u64| {
            let text = format!(r#"{{"requests_count":{count},"pool_capacity":{capacity},"max_threads":{threads}}}"#);
            parse(text.as_bytes()).expect("read").busy
        };
        assert_eq!([said(9, 7, 5), said(1, 0, u64::MAX), said(0, 0, 5)], [0, 1, 0]);
    }
}
