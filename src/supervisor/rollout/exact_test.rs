//! Fisher's exact test: how likely so many server errors of new code, or more, would be if it failed as often as the old.

/// The chance that at least `new_errors` of all errors fall on the new code's answers, if each answer, new or old, is as
/// likely to be an error as any other: from 0 to 1. `new_errors` is at most `new_answers`, and so with the old.
pub(super) fn chance(new_errors: u64, new_answers: u64, old_errors: u64, old_answers: u64) -> f64 {
    let (errors, answers) = (new_errors + old_errors, new_answers + old_answers);
    let term = |count: u64| {
        let ways = ln_choose(new_answers, count) + ln_choose(old_answers, errors - count);
        (ways - ln_choose(answers, errors)).exp()
    };
    // Away from the mean the terms only fall.
    let mean = errors as f64 * new_answers as f64 / answers as f64;
    if new_errors as f64 > mean {
        sum((new_errors..=errors.min(new_answers)).map(term))
    } else {
        let least = errors.saturating_sub(old_answers);
        1.0 - sum((least..new_errors).rev().map(term))
    }
}

/// So many terms on one side of the mean are all that a float holds, for as many answers as are compared.
const MAX_TERMS: usize = 1 << 20;

/// The sum of terms that fall: what follows when they are below what a float holds is left out.
fn sum(terms: impl Iterator<Item = f64>) -> f64 {
    let mut sum = 0.0;
    for term in terms.take(MAX_TERMS) {
        sum += term;
        if term <= sum * 1e-12 {
            break;
        }
    }
    sum.clamp(0.0, 1.0)
}

/// The logarithm of the number of ways to choose so many of all.
fn ln_choose(all: u64, some: u64) -> f64 {
    ln_factorial(all) - ln_factorial(some) - ln_factorial(all - some)
}

/// The logarithm of a factorial; Stirling's series is right to 10 digits from 10 on.
fn ln_factorial(number: u64) -> f64 {
    if number < 10 {
        return (2..=number).map(|factor| (factor as f64).ln()).sum();
    }
    let x = number as f64;
    let series = 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3)) + 1.0 / (1260.0 * x.powi(5));
    x * x.ln() - x + 0.5 * (std::f64::consts::TAU * x).ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(chance: f64, expected: f64) {
        assert!((chance / expected - 1.0).abs() < 1e-6, "{chance} is not {expected}");
    }

    /// By hand, from fractions: 3 of 4 against 1 of 4 is (16 + 1) of 70, and ten of ten against none of thirty is one way of
    /// all to choose ten of forty.
    #[test]
    fn is_what_counting_all_tables_gives() {
        about(chance(3, 4, 1, 4), 17.0 / 70.0);
        about(chance(10, 10, 0, 30), 1.0 / 847_660_528.0);
        about(chance(0, 10, 5, 30), 1.0);
        about(chance(1, 1, 0, 1), 0.5);
        about(chance(7, 7, 3, 3), 1.0);
        about(chance(4, 200, 0, 600), (200.0 * 199.0 * 198.0 * 197.0) / (800.0 * 799.0 * 798.0 * 797.0));
    }

    #[test]
    fn without_anybody_to_compare_with_nothing_is_unlikely() {
        about(chance(50, 50, 0, 0), 1.0);
        about(chance(0, 0, 0, 0), 1.0);
        about(chance(0, 0, 5, 10), 1.0);
    }

    #[test]
    fn millions_are_compared_in_a_moment() {
        let even = chance(10_000, 1_000_000, 30_000, 3_000_000);
        assert!((0.49..0.52).contains(&even), "{even}");
        assert!(chance(11_000, 1_000_000, 30_000, 3_000_000) < 1e-12);
        about(chance(0, u64::from(u32::MAX), 0, u64::from(u32::MAX)), 1.0);
    }

    /// A worker that lies about its answers is to keep nobody waiting.
    #[test]
    fn no_numbers_take_long_to_compare() {
        for (new_errors, likely) in [(0, true), (1 << 30, true), (1 << 31, true), (3 << 30, false)] {
            let chance = chance(new_errors, 1 << 36, 1 << 31, 1 << 36);
            let right = if likely { 0.4..=1.0 } else { 0.0..=1e-9 };
            assert!(right.contains(&chance), "{new_errors}: {chance}");
        }
    }

    #[test]
    fn factorials_are_right_to_nine_digits() {
        let mut sum = 0.0;
        for number in 1..60_u32 {
            sum += f64::from(number).ln();
            assert!((ln_factorial(number.into()) - sum).abs() < 1e-9, "{number}");
        }
    }
}
