//! Moments as people type them, after systemd.time(7): `10:42`, `2026-11-30 10:42:10`, `5min ago`.
//!
//! Owns: the forms. Never: asks the clock, or which time zone it is.

use crate::config::duration;

/// Milliseconds of a minute and of a day.
const MINUTE: i64 = 60_000;
const DAY: i64 = 86_400_000;

/// A moment, in milliseconds since 1970, as it is meant at the moment `now` where local time is so many minutes before UTC.
/// A time without a day is the last one.
///
/// # Errors
/// What is wrong with the text.
pub fn parse(text: &str, now: u64, offset_minutes: i64) -> Result<u64, String> {
    let text = text.trim();
    if text == "now" {
        return Ok(now);
    }
    if let Some(ago) = text.strip_suffix("ago") {
        let ago = duration::parse(ago.trim_end())?;
        return Ok(now.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)));
    }
    let (text, offset) = match text.strip_suffix("UTC") {
        Some(rest) => (rest.trim_end(), 0),
        None => (text, offset_minutes * MINUTE),
    };
    let not_understood =
        || format!("{text:?} is no time: write \"10:42\", \"10:42:10\", \"2026-11-30 10:42\" or \"5min ago\"");
    let local_now = i64::try_from(now).map_err(|_| not_understood())? + offset;
    let (day, time) = match text.split_once([' ', 'T']) {
        Some((day, time)) => (Some(day_of(day).ok_or_else(not_understood)?), time),
        None => (None, text),
    };
    let time = time_of(time.trim()).ok_or_else(not_understood)?;
    let local = match day {
        Some(day) => day * DAY + time,
        None => {
            let today = local_now.div_euclid(DAY) * DAY + time;
            // A minute that has just begun is today's.
            if today > local_now + MINUTE { today - DAY } else { today }
        }
    };
    u64::try_from(local - offset).map_err(|_| not_understood())
}

/// `10:42` or `10:42:10`, in milliseconds of the day.
fn time_of(text: &str) -> Option<i64> {
    let parts: Vec<&str> = text.split(':').collect();
    let part = |index: usize, limit: i64| match parts.get(index) {
        Some(part) if part.len() <= 2 => number(part).filter(|value| *value < limit),
        Some(_) => None,
        None => Some(0),
    };
    if !(2..=3).contains(&parts.len()) {
        return None;
    }
    Some(((part(0, 24)? * 60 + part(1, 60)?) * 60 + part(2, 60)?) * 1000)
}

/// `2026-11-30`, in days since 1970.
fn day_of(text: &str) -> Option<i64> {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts.as_slice() else { return None };
    let (year, month, day) = (number(year)?, number(month)?, number(day)?);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Howard Hinnant's days_from_civil: the year begins in March, so that the leap day is its last.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468)
}

fn number(text: &str) -> Option<i64> {
    let is_number = !text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::format::moment;

    #[test]
    fn moments_are_meant_as_people_type_them() {
        // 2026-12-01 10:42:30 UTC.
        let now = 1_796_121_750_000;
        assert_eq!(moment(now), "2026-12-01 10:42:30 UTC");
        for (text, offset, expected) in [
            ("now", 0, "2026-12-01 10:42:30 UTC"),
            ("10:42", 0, "2026-12-01 10:42:00 UTC"),
            ("9:05:07", 0, "2026-12-01 09:05:07 UTC"),
            ("11:42", 60, "2026-12-01 10:42:00 UTC"),
            ("11:42", 0, "2026-11-30 11:42:00 UTC"),
            ("10:43", 0, "2026-12-01 10:43:00 UTC"),
            ("00:10", 14 * 60, "2026-12-01 10:10:00 UTC"),
            ("23:10", 14 * 60, "2026-12-01 09:10:00 UTC"),
            ("10:42 UTC", -300, "2026-12-01 10:42:00 UTC"),
            ("2026-11-30 10:42", 0, "2026-11-30 10:42:00 UTC"),
            ("2024-02-29 23:59:59 UTC", 60, "2024-02-29 23:59:59 UTC"),
            ("5min ago", 0, "2026-12-01 10:37:30 UTC"),
            ("1h 2min ago", 0, "2026-12-01 09:40:30 UTC"),
        ] {
            assert_eq!(parse(text, now, offset).map(moment).as_deref(), Ok(expected), "{text}");
        }
        for text in
            ["", "yesterday", "10", "25:00", "10:60", "10:42:61", "2026-13-01 10:00", "gunicorn", "ago", "1:2:3:4"]
        {
            assert!(parse(text, now, 0).is_err(), "{text}");
        }
    }
}
