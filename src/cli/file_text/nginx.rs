//! Lines of Nginx's configuration (`src/core/ngx_conf_file.c`).

use super::{Line, plain};

/// A directive with its words: `server_name a.example b.example;`.
///
/// # Errors
/// Why one of the words cannot stand there.
pub fn directive<T: AsRef<str>>(
    depth: usize,
    name: &'static str,
    words: impl IntoIterator<Item = T>,
) -> Result<Line, String> {
    let mut line = format!("{}{name}", "    ".repeat(depth));
    for word in words {
        line.push_str(&format!(" {}", quoted(word.as_ref())?));
    }
    Ok(Line(line + ";"))
}

/// `server {`, or `location / {`.
pub fn begin(depth: usize, block: &'static str) -> Line {
    Line(format!("{}{block} {{", "    ".repeat(depth)))
}

/// The end of a block.
pub fn end(depth: usize) -> Line {
    Line(format!("{}}}", "    ".repeat(depth)))
}

/// A comment so far to the right.
pub fn comment(depth: usize, text: &str) -> Line {
    Line(format!("{}{}", "    ".repeat(depth), Line::comment(text).0))
}

/// A line that a `#` takes out of effect: without the `#` it is right.
pub fn out_of_effect(line: Line) -> Line {
    let text = line.0.trim_start();
    let indent = line.0.len() - text.len();
    // Lines of one block keep their indent behind the `#`.
    Line(format!("{}#{}{text}", " ".repeat(indent.min(4)), " ".repeat(indent.saturating_sub(4))))
}

/// A word as it is, or between quotation marks. Nginx has no way to write a `$` that begins no variable.
fn quoted(word: &str) -> Result<String, String> {
    if plain(word)?.contains('$') {
        return Err("Nginx takes a $ for the beginning of a variable".to_owned());
    }
    let bare = |c: char| c.is_alphanumeric() || "/:._-[]*=".contains(c);
    match !word.is_empty() && word.chars().all(bare) {
        true => Ok(word.to_owned()),
        false => Ok(format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_words() {
        let line = |word: &str| directive(1, "root", [word]).map(|line| line.as_str().to_owned());
        for (word, written) in [
            ("/srv/a", "    root /srv/a;"),
            ("/srv/a b", "    root \"/srv/a b\";"),
            ("/srv/a;}", "    root \"/srv/a;}\";"),
            ("/srv/\"\\", "    root \"/srv/\\\"\\\\\";"),
            ("#", "    root \"#\";"),
            ("", "    root \"\";"),
        ] {
            assert_eq!(line(word).as_deref(), Ok(written));
        }
        for word in ["/srv/a\nb", "/srv/a\rb", "/srv/\0", "/srv/$uri", "/srv/\u{85}"] {
            assert!(line(word).is_err(), "{word:?}");
        }
        let listed = directive(0, "server_name", ["a.example", "b.example"]).expect("names");
        assert_eq!(out_of_effect(listed).as_str(), "#server_name a.example b.example;");
    }
}
