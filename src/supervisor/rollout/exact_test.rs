//! Fisher's exact test: how likely so many server errors of new code, or more, would be if it failed as often as the old.

/// The chance that at least `new_errors` of all errors fall on the new code's answers, if each answer, new or old, is as
/// likely to be an error as any other: from 0 to 1. `new_errors` is at most `new_answers`, and so with the old.
pub(super) fn chance(new_errors: u64, new_answers: u64, old_errors: u64, old_answers: u64) -> f64 {
    let (errors, answers) = (new_errors + old_errors, new_answers + old_answers);
    let most = errors.min(new_answers);
    let mut sum = 0.0;
    for count in new_errors..=most {
        let ways = ln_choose(new_answers, count) + ln_choose(old_answers, errors - count);
        let term = (ways - ln_choose(answers, errors)).exp();
        sum += term;
        // Far in the tail the terms only fall: what follows is below what a float holds.
        if term < sum * 1e-12 {
            break;
        }
    }
    sum.min(1.0)
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
}
