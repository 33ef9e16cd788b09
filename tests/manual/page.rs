//! A manual page of one command: clap_mangen's sections, and the examples as they are written.
//!
//! Owns: the order of the sections, and roff's escapes for our own texts.
//! Never: says anything that the command line's definition does not.

use clap_mangen::Man;

/// The page of a built command.
pub fn of(command: &clap::Command) -> String {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let man = Man::new(command.clone().display_name(name.clone()));
    // No date: the same source makes the same page.
    let title = format!(".TH {} 1 \"\" \"sockd {}\" sockd\n", escape(&name), env!("CARGO_PKG_VERSION"));
    let mut text = b".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n".to_vec();
    text.extend(title.into_bytes());
    man.render_name_section(&mut text).expect("written");
    man.render_synopsis_section(&mut text).expect("written");
    man.render_description_section(&mut text).expect("written");
    if command.get_arguments().next().is_some() {
        man.render_options_section(&mut text).expect("written");
    }
    if command.get_subcommands().next().is_some() {
        man.render_subcommands_section(&mut text).expect("written");
    }
    let mut text = String::from_utf8(text).expect("UTF-8");
    if let Some(examples) = command.get_after_help() {
        let examples = examples.to_string();
        // The heading says it.
        let bare = ["Examples:\n", "Example:\n"].iter().find_map(|head| examples.strip_prefix(head));
        let bare = bare.unwrap_or(&examples);
        let (examples, signals) = bare.split_once("\n\nSignals:\n").unwrap_or((bare, ""));
        if !signals.is_empty() {
            text.push_str(&format!(".SH SIGNALS\n{}", written(signals)));
        }
        text.push_str(&format!(".SH EXAMPLES\n{}", written(examples)));
    }
    text.push_str(".SH SEE ALSO\n");
    let others = ["sockd(1)", "sockd.toml(5)", "sockd@.service(8)", "systemd.socket(5)", "systemd.service(5)"];
    let others = others.into_iter().filter(|other| other.split('(').next() != Some(&name));
    text.push_str(&format!("{}\n", escape(&others.collect::<Vec<_>>().join(", "))));
    text
}

/// Text whose indented lines stand as they are.
fn written(text: &str) -> String {
    let mut page = String::new();
    let mut verbatim = false;
    for line in text.lines() {
        let indented = line.starts_with("  ");
        if indented != verbatim {
            page.push_str(if indented { ".RS 4\n.nf\n" } else { ".fi\n.RE\n" });
            verbatim = indented;
        }
        match line.trim() {
            "" if verbatim => page.push('\n'),
            "" => page.push_str(".PP\n"),
            bare if indented => page.push_str(&format!("{}\n", escape(line.strip_prefix("  ").unwrap_or(bare)))),
            bare => page.push_str(&format!("{}\n", escape(bare))),
        }
    }
    if verbatim {
        page.push_str(".fi\n.RE\n");
    }
    page
}

/// A text as roff takes it for itself.
pub fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('`', "\\(ga");
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

/// A page without what only roff reads: one line for each of its lines.
pub fn plain(page: &str) -> String {
    let shown = page.lines().map(|line| {
        let line = line
            .replace("\\-", "-")
            .replace("\\(aq", "'")
            .replace("\\(ga", "`")
            .replace("\\&", "")
            .replace("\\e", "\\");
        let line = ["\\fB", "\\fI", "\\fR"].iter().fold(line, |line, font| line.replace(font, ""));
        [".B ", ".I ", ".BR ", ".SH "].iter().find_map(|mark| line.strip_prefix(mark)).unwrap_or(&line).to_owned()
            + "\n"
    });
    shown.collect()
}
