//! A share of the workers, as a setting and an option have it: `1`, `3`, `25%`.

/// Some workers of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// So many, 1 to 4096.
    Workers(u32),
    /// So many of a hundred, 1 to 100.
    Percent(u32),
}

/// Reads a share.
///
/// # Errors
/// What is wrong with the text.
pub fn parse(text: &str) -> Result<Share, String> {
    let (number, most, share): (_, _, fn(u32) -> Share) = match text.trim().strip_suffix('%') {
        Some(percent) => (percent, 100, Share::Percent),
        None => (text.trim(), 4096, Share::Workers),
    };
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse().ok().filter(|number| digits && (1..=most).contains(number)).map(share).ok_or_else(|| {
        format!("{text:?} is no share of the workers: write a number from 1 to 4096, or \"1%\" to \"100%\"")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_number_or_a_percentage() {
        for (text, share) in [
            ("1", Share::Workers(1)),
            (" 4096 ", Share::Workers(4096)),
            ("25%", Share::Percent(25)),
            ("100%", Share::Percent(100)),
        ] {
            assert_eq!(parse(text), Ok(share), "{text}");
        }
        for text in ["", "0", "4097", "0%", "101%", "-1", "+1", "1.5", "%", "all", "1 %x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
