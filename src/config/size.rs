//! Sizes as systemd writes them (systemd.resource-control(5), MemoryMax=): `256M`, `1.5G`, `512K`; a bare number is
//! bytes. A unit is a power of 1024.

/// The smallest size of memory a setting takes, in bytes: a slip such as a missing unit would kill every worker at its
/// start.
pub const SMALLEST: u64 = 1 << 20;

/// The largest size, in bytes: 1024 TiB, more than any machine has and far from the limits of sums.
pub const LARGEST: u64 = 1 << 50;

const UNITS: [(&str, u64); 5] = [("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10), ("", 1)];

/// Reads a size of memory in bytes, from [`SMALLEST`] to [`LARGEST`].
///
/// # Errors
/// What is wrong with the text.
pub fn parse(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err("a size is missing: write \"256M\" or \"1G\"".to_owned());
    }
    let digits_end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, written) = trimmed.split_at(digits_end);
    let unit = written.trim_start();
    let no_size = || format!("{text:?} is not a size: write \"256M\" or \"1G\"");
    if number.is_empty() {
        return Err(no_size());
    }
    let unit = if unit == "B" { "" } else { unit };
    let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(|| {
        format!("{text:?} is not a size: {unit:?} is not a unit; the units are K, M, G and T, powers of 1024")
    })?;
    let bytes = multiply(number, *scale).ok_or_else(no_size)?;
    match bytes {
        ..SMALLEST => Err(format!("{text:?} is too small: at least 1M; a number without a unit is bytes")),
        SMALLEST..=LARGEST => Ok(bytes),
        _ => Err(format!("{text:?} is too large: at most 1024T")),
    }
}

/// `1.5` times a scale; what is below a byte is dropped. `None`: no number. More than fits is `u64::MAX`.
fn multiply(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let scale = u128::from(scale);
    let parts = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let total = whole.parse::<u128>().ok()? * scale + fraction.parse::<u128>().ok()? * scale / parts;
    Some(u64::try_from(total).unwrap_or(u64::MAX))
}

/// A size in the words of a setting, in the largest unit that leaves no more than one decimal to drop: `256M`, `1.5G`.
pub fn show(bytes: u64) -> String {
    let (unit, scale) = UNITS.iter().find(|(_, scale)| bytes >= *scale).copied().unwrap_or(("", 1));
    let tenths = (u128::from(bytes) * 10 + u128::from(scale / 2)) / u128::from(scale);
    match tenths % 10 {
        0 => format!("{}{unit}", tenths / 10),
        tenth => format!("{}.{tenth}{unit}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes_as_systemd_does() {
        for (text, bytes) in [
            ("256M", 268_435_456),
            ("1G", 1_073_741_824),
            ("1.5G", 1_610_612_736),
            (" 2048 K ", 2_097_152),
            ("1048576", 1_048_576),
            ("1048576B", 1_048_576),
            ("1M", 1_048_576),
            ("1024T", 1_125_899_906_842_624),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn says_what_is_no_size() {
        for (text, part) in [
            ("", "missing"),
            ("  ", "missing"),
            ("M", "is not a size"),
            ("-1M", "is not a size"),
            ("1.M", "is not a size"),
            (".5G", "is not a size"),
            ("1.2.3M", "is not a size"),
            ("256MB", "\"MB\" is not a unit"),
            ("256m", "\"m\" is not a unit"),
            ("50%", "\"%\" is not a unit"),
            ("1G 5M", "\"G 5M\" is not a unit"),
            ("infinity", "is not a size"),
            ("256", "too small"),
            ("0", "too small"),
            ("1023K", "too small"),
            ("1025T", "too large"),
            ("999999999999999999T", "too large"),
            ("9999999999999999999T", "is not a size"),
            ("١M", "is not a size"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn shows_what_it_reads() {
        for (bytes, text) in [
            (0, "0"),
            (1023, "1023"),
            (1 << 20, "1M"),
            (256 << 20, "256M"),
            ((256 << 20) - 4096, "256M"),
            ((256 << 20) - (1 << 19), "255.5M"),
            (3 << 29, "1.5G"),
            (LARGEST, "1024T"),
            (u64::MAX, "16777216T"),
        ] {
            assert_eq!(show(bytes), text);
        }
    }
}
