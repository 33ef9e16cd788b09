//! "Did you mean": the name that is nearest to one that is not known.
//!
//! Owns: when two names are near each other. Never: knows what they are the names of.
#![forbid(unsafe_code)]

/// The name that was probably meant: the nearest, if it differs in no more than a quarter of its letters. Of two that are
/// equally near it is the first in the order of the alphabet.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.into_iter().map(|name| (distance(written, name), name)).min();
    near.filter(|(far, name)| *far <= name.chars().count().div_ceil(4)).map(|(_, name)| name)
}

/// How many characters must be put in, left out, replaced or swapped with their neighbour to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_slips_of_the_hand() {
        for (a, b, far) in
            [("", "", 0), ("count", "count", 0), ("cuont", "count", 1), ("cont", "count", 1), ("countt", "count", 1)]
        {
            assert_eq!(distance(a, b), far, "{a} {b}");
        }
        assert_eq!(distance("", "soak"), 4);
        assert_eq!(distance("directory", ""), 9);
    }

    #[test]
    fn what_is_far_is_not_meant() {
        let known = ["gunicorn", "uvicorn", "uwsgi"];
        for (written, meant) in [("gunicrn", Some("gunicorn")), ("wsgi", Some("uwsgi")), ("shop", None), ("", None)] {
            assert_eq!(nearest(written, known), meant, "{written}");
        }
    }
}
