//! sockd.toml(5), made of the file of defaults: its comments are the manual.
//!
//! Owns: how a key, its default and its comment become a paragraph.
//! Never: knows a key by its name.

use crate::page::escape;

/// The page. The file is paragraphs between blank lines: comments, then a `[section]`, a `key = default`, or a `#key =
/// example` where there is no fixed default.
pub fn page(file: &str) -> String {
    let mut page = format!(
        ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n.TH sockd.toml 5 \"\" \"sockd {}\" sockd\n.SH NAME\n\
         sockd.toml \\- configuration of an instance of sockd\n.SH SYNOPSIS\n/etc/sockd/\\fINAME\\fR.toml\n\
         .SH DESCRIPTION\n",
        env!("CARGO_PKG_VERSION")
    );
    let mut paragraphs = file.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty());
    let (intro, _) = take_apart(paragraphs.next().expect("what the file is"));
    page.push_str(&format!("{}\n.SH KEYS AT THE TOP\n", escape(&intro)));
    for paragraph in paragraphs {
        let (comment, lines) = take_apart(paragraph);
        let mut pending = Some(comment);
        for line in lines {
            if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                page.push_str(&format!(".SH [{}]\n", escape(section)));
                page.extend(pending.take().filter(|text| !text.is_empty()).map(|text| format!("{}\n", escape(&text))));
                continue;
            }
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("no key: {line}"));
            let (key, kind) = match key.strip_prefix('#') {
                Some(key) => (key, "example"),
                None => (key, "default"),
            };
            page.push_str(&format!(".TP\n\\fB{}\\fR\n", escape(key.trim())));
            page.extend(pending.take().filter(|text| !text.is_empty()).map(|text| format!("{}\n.br\n", escape(&text))));
            page.push_str(&format!("({kind}: {})\n", escape(value.trim())));
        }
        assert!(pending.is_none_or(|text| text.is_empty()), "a comment without a key:\n{paragraph}");
    }
    page.push_str(&format!(
        ".SH FILES\n.TP\n/usr/share/doc/sockd/examples/default.toml\n{}\n.SH SEE ALSO\n{}\n",
        escape("Every key with its default, to copy from."),
        escape("sockd(1), sockd-run(1), sockd-check(1), sockd@.service(8)")
    ));
    page
}

/// The comment of a paragraph as one text, and the lines that are none.
fn take_apart(paragraph: &str) -> (String, Vec<&str>) {
    let comment = |line: &&str| *line == "#" || line.starts_with("# ");
    let text: Vec<&str> = paragraph.lines().filter(comment).map(|line| line[1..].trim()).collect();
    (text.join(" ").trim().to_owned(), paragraph.lines().filter(|line| !comment(line)).collect())
}
