//! Times as systemd writes them (systemd.time(7)): `30s`, `5min`, `1min 30s`, `500ms`, `1.5h`; a bare number is
//! seconds. Months and years are left out: no setting is that patient.

use std::time::Duration;

/// The longest time a setting takes: 365 days. It keeps sums with the clock far from their limits.
pub const MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

const UNITS: &str = "the units are us, ms, s, min, h, d and w";

/// Reads a time from 0 to [`MAX`].
///
/// # Errors
/// What is wrong with the text.
pub fn parse(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("a time is missing: write \"30s\", \"5min\" or \"1min 30s\"".to_owned());
    }
    if rest == "infinity" {
        return Err("every time here has an end; the longest is 365 days".to_owned());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_end);
        let after = after.trim_start();
        let unit_end = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let scale =
            nanoseconds(unit).ok_or_else(|| format!("{text:?} is not a time: {unit:?} is not a unit; {UNITS}"))?;
        total = multiply(number, scale)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| format!("{text:?} is not a time: write \"30s\", \"5min\" or \"1min 30s\""))?;
        rest = after.trim_start();
    }
    if total > MAX.as_nanos() {
        return Err(format!("{text:?} is too long: at most 365 days"));
    }
    u64::try_from(total).map(Duration::from_nanos).map_err(|_| format!("{text:?} is too long: at most 365 days"))
}

/// Reads a time of more than zero, to [`MAX`].
///
/// # Errors
/// What is wrong with the text.
pub fn parse_positive(text: &str) -> Result<Duration, String> {
    parse(text).and_then(positive)
}

/// Refuses a time of nothing.
///
/// # Errors
/// When the time is zero.
pub(super) fn positive(time: Duration) -> Result<Duration, String> {
    if time.is_zero() { Err("the time must be longer than zero".to_owned()) } else { Ok(time) }
}

/// Refuses what is shorter than a tenth of a second.
///
/// # Errors
/// When the time is shorter.
pub(super) fn tenths(time: Duration) -> Result<Duration, String> {
    if time < Duration::from_millis(100) {
        return Err("the time must be at least 100ms".to_owned());
    }
    Ok(time)
}

/// Refuses what is not a whole number of seconds, one or more.
///
/// # Errors
/// When it is not.
pub(super) fn seconds(time: Duration) -> Result<Duration, String> {
    if time.is_zero() || time.subsec_nanos() != 0 {
        return Err("the time must be a whole number of seconds, one or more".to_owned());
    }
    Ok(time)
}

/// The length of a unit, all the names of systemd.time(7) up to the week. No unit means seconds.
fn nanoseconds(unit: &str) -> Option<u128> {
    const SECOND: u128 = 1_000_000_000;
    Some(match unit {
        "us" | "usec" | "µs" | "μs" => 1_000,
        "ms" | "msec" => 1_000_000,
        "" | "s" | "sec" | "second" | "seconds" => SECOND,
        "m" | "min" | "minute" | "minutes" => 60 * SECOND,
        "h" | "hr" | "hour" | "hours" => 3_600 * SECOND,
        "d" | "day" | "days" => 86_400 * SECOND,
        "w" | "week" | "weeks" => 604_800 * SECOND,
        _ => return None,
    })
}

/// `12.5` times a scale, exactly; what is below a nanosecond is dropped. `None`: no number, or out of reach.
fn multiply(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| !text.is_empty() && text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || (number.contains('.') && !digits(fraction)) {
        return None;
    }
    let mut total = whole.parse::<u128>().ok()?.checked_mul(scale)?;
    if !fraction.is_empty() {
        let length = u32::try_from(fraction.len()).ok()?;
        total = total.checked_add(fraction.parse::<u128>().ok()? * scale / 10_u128.pow(length))?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times_as_systemd_does() {
        for (text, milliseconds) in [
            ("30", 30_000),
            ("30s", 30_000),
            ("30 sec", 30_000),
            ("5min", 300_000),
            ("1min 30s", 90_000),
            ("1min30s", 90_000),
            ("500ms", 500),
            (" 2 h ", 7_200_000),
            ("1.5s", 1_500),
            ("0.25min", 15_000),
            ("1d", 86_400_000),
            ("1week", 604_800_000),
            ("2m", 120_000),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        assert_eq!(parse("7us"), Ok(Duration::from_micros(7)));
        assert_eq!(parse("365d"), Ok(MAX));
    }

    #[test]
    fn says_what_is_no_time() {
        for (text, part) in [
            ("", "missing"),
            ("  ", "missing"),
            ("s", "is not a time"),
            ("-1s", "is not a time"),
            ("5 parsecs", "\"parsecs\" is not a unit"),
            ("1.s", "is not a time"),
            (".5s", "is not a time"),
            ("1.2.3s", "is not a time"),
            ("1,5s", "is not a time"),
            ("366d", "too long"),
            ("99999999999999999999s", "is not a time"),
            ("999999999999999999w", "too long"),
            ("infinity", "has an end"),
            ("10 M", "\"M\" is not a unit"),
            ("١s", "is not a time"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(part), "{text:?}: {error}");
        }
        assert!(parse_positive("0s").is_err());
    }
}
