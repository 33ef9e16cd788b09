//! Lines of sockd's own configuration (TOML 1.0).

use super::Line;

/// `key = "value"`.
pub fn text(key: &'static str, value: &str) -> Line {
    Line(format!("{key} = {}", quoted(value)))
}

/// `key = 3`.
pub fn number(key: &'static str, value: u32) -> Line {
    Line(format!("{key} = {value}"))
}

/// `[name]`.
pub fn table(name: &'static str) -> Line {
    Line(format!("[{name}]"))
}

/// `key = ["value", "value"]`.
pub fn list<T: AsRef<str>>(key: &'static str, values: impl IntoIterator<Item = T>) -> Line {
    let values: Vec<String> = values.into_iter().map(|value| quoted(value.as_ref())).collect();
    Line(format!("{key} = [{}]", values.join(", ")))
}

/// A basic string. Everything can stand in one: JSON's escapes are TOML's as well, and `\u` stands for the rest of what
/// would not be shown as it is.
fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    let escaped = |c: char| match crate::printable::is_command(c) {
        true => format!("\\u{:04x}", u32::from(c)),
        false => c.to_string(),
    };
    json.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back_from_one_line() {
        let words = ["a b", "\"q\"", "back\\slash", "a\tb\r\nc\0", "ü", "'", "#", "\u{7f}\u{85}\u{2028}\u{202e}", ""];
        let line = list("x", words);
        assert_eq!(line.as_str().lines().count(), 1, "{line:?}");
        let table: ::toml::Table = line.as_str().parse().expect("TOML");
        let found: Vec<_> = table["x"].as_array().expect("a list").iter().map(|value| value.as_str()).collect();
        assert_eq!(found, words.map(Some));
        assert_eq!((number("count", 3).as_str(), super::table("workers").as_str()), ("count = 3", "[workers]"));
        assert_eq!(text("directory", "/a\nb").as_str(), r#"directory = "/a\nb""#);
    }
}
