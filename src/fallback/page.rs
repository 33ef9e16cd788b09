//! The page that people see: the operator's own, or the one that is built in.
//!
//! Owns: what the built-in page says, and which files can be used in its place.
//! Never: names a program, a path or a reason; who reads it is a stranger.

use std::path::Path;

use crate::regular_file;

/// The largest page of an operator's that is used, in bytes.
pub const LARGEST: u64 = 256 << 10;

/// `page.html` needs nothing from elsewhere: no script, no font, no picture.
const PAGE: &str = include_str!("page.html");
/// What it says, unless the operator has a message.
const MESSAGE: &str = "This site is taking a short break and will be back in a moment.";
/// A page does not ask for itself again sooner, in seconds: it shall be possible to read it.
const SOONEST: u32 = 3;

/// What the operator has visitors read.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    /// A page in place of the built-in one.
    pub page: Option<String>,
    /// A line in place of the usual words; with it the page is the built-in one.
    pub message: Option<String>,
}

/// Reads the page that an operator wrote.
///
/// # Errors
/// Why it cannot be used: no regular file, empty, more than [`LARGEST`], not UTF-8 (which is what its header says).
pub fn read(path: &Path) -> Result<String, String> {
    let cannot = |why: &dyn std::fmt::Display| format!("cannot use {}: {why}", path.display());
    let bytes = regular_file::read(path, LARGEST).map_err(|error| cannot(&error))?;
    if bytes.is_empty() {
        return Err(cannot(&"it is empty"));
    }
    String::from_utf8(bytes).map_err(|error| cannot(&format_args!("it is not UTF-8 ({})", error.utf8_error())))
}

/// The built-in page. One that was asked for (`again`) asks for itself again after `retry_after` seconds or a little
/// later, by `random`, so that not everybody comes back in the same second. One that answers a form does not: the
/// browser would ask for it without what was sent.
pub(super) fn built_in(again: bool, retry_after: u32, random: u32, message: Option<&str>) -> String {
    let base = retry_after.max(SOONEST);
    let seconds = base + random % (base / 3 + 2);
    let (refresh, seconds, advice) = if again {
        let refresh = format!("\n<meta http-equiv=\"refresh\" content=\"{seconds}\">");
        let advice = "This page tries again by itself in about {{SPAN}}. There is nothing you need to do.";
        (refresh, seconds, advice)
    } else {
        let advice = "What you have just sent may not have arrived. Please send it again in about {{SPAN}}.";
        (String::new(), base, advice)
    };
    // The message comes last: nothing in it is taken for a place of ours.
    PAGE.replace("{{REFRESH}}", &refresh)
        .replace("{{ADVICE}}", advice)
        .replace("{{SECONDS}}", &seconds.to_string())
        .replace("{{SPAN}}", &span(seconds))
        .replace("{{MESSAGE}}", &escaped(message.unwrap_or(MESSAGE)))
}

/// Text as it stands in a page.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn span(seconds: u32) -> String {
    // No line break between the number and its unit.
    match seconds {
        0..120 => format!("{seconds}&nbsp;seconds"),
        _ => format!("{}&nbsp;minutes", seconds.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_tells_nothing_of_the_inside() {
        for page in [built_in(true, 7, 0, None), built_in(false, 7, 0, None)] {
            for word in ["http:", "https:", "//", "src=", "url(", "@import", "<script", "sockd", "worker", "{{"] {
                assert!(!page.contains(word), "{word} is in the page");
            }
            let links: Vec<_> = page.match_indices("href=").map(|(at, _)| &page[at..at + 13]).collect();
            assert_eq!(links, ["href=\"data:,\""], "only the icon that keeps browsers from asking for one");
            assert!(page.len() < 3200, "{} bytes", page.len());
        }
    }

    #[test]
    fn a_page_that_was_asked_for_comes_back_after_the_time_and_not_all_in_the_same_second() {
        let refresh = |retry_after, random| -> u32 {
            let page = built_in(true, retry_after, random, None);
            let (_, rest) = page.split_once("http-equiv=\"refresh\" content=\"").expect("it asks for itself");
            rest.split_once('"').expect("a number").0.parse().expect("a number")
        };
        for retry_after in [1, 9, 60, 3600] {
            let all: Vec<u32> = (0..100).map(|random| refresh(retry_after, random)).collect();
            let (least, most) = (*all.iter().min().expect("some"), *all.iter().max().expect("some"));
            assert_eq!(least, retry_after.max(SOONEST));
            assert!(most > least && most <= least + least / 3 + 1, "{retry_after}: {least} to {most}");
        }
        assert!(built_in(true, 9, 0, None).contains("in about 9&nbsp;seconds"));
        assert!(built_in(true, 3600, 0, None).contains("in about 60&nbsp;minutes"));
    }

    #[test]
    fn a_message_is_text_and_nothing_else() {
        let page = built_in(true, 9, 0, Some("Zurück um <b>8</b> & {{SPAN}}"));
        assert!(page.contains("<p>Zurück um &lt;b&gt;8&lt;/b&gt; &amp; {{SPAN}}</p>"), "{page}");
        assert!(!page.contains(MESSAGE), "{page}");
    }

    #[test]
    fn a_form_is_not_sent_again_by_itself() {
        let page = built_in(false, 9, 5, None);
        assert!(!page.contains("refresh") && page.contains("send it again in about 9&nbsp;seconds"), "{page}");
    }

    #[test]
    fn an_operators_page_is_a_file_of_reasonable_size() {
        let directory = std::env::temp_dir().join(format!("sockd-page-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let write = |name: &str, bytes: &[u8]| {
            let path = directory.join(name);
            std::fs::write(&path, bytes).expect("written");
            path
        };
        let largest = usize::try_from(LARGEST).expect("it fits");
        assert_eq!(read(&write("fine", "<p>Später</p>".as_bytes())).as_deref(), Ok("<p>Später</p>"));
        assert_eq!(read(&write("largest", &vec![b'x'; largest])).map(|page| page.len()), Ok(largest));
        let fifo = directory.join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a FIFO");
        for (path, why) in [
            (write("huge", &vec![b'x'; largest + 1]), "larger than 256 KiB"),
            (write("latin", b"<p>Sp\xe4ter</p>"), "not UTF-8"),
            (write("empty", b""), "empty"),
            (directory.join("nowhere"), "No such file"),
            (directory.clone(), "no regular file"),
            (fifo, "no regular file"),
            ("/dev/zero".into(), "no regular file"),
        ] {
            let error = read(&path).expect_err("it is of no use");
            assert!(error.starts_with(&format!("cannot use {}: ", path.display())) && error.contains(why), "{error}");
        }
        std::fs::remove_dir_all(directory).expect("removed");
    }
}
