//! Python's tracebacks in a log.
//!
//! Owns: finding the last one, the error it ends in, and the application's own line in it.
//! Never: trusts the lines: they are the application's, and anything may stand in them.

/// A traceback, as far as it says what to fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traceback {
    /// Its last line: `ModuleNotFoundError: No module named 'foo'`.
    pub error: String,
    /// The last file and line that are the application's own: not of a library.
    pub place: Option<(String, usize)>,
}

impl Traceback {
    /// The module that could not be found.
    pub fn missing_module(&self) -> Option<&str> {
        let rest = self.error.strip_prefix("ModuleNotFoundError: No module named ")?;
        let name = rest.trim_matches(['\'', '"']);
        // It becomes a word of a command: what is no name of a module stays an error without one.
        let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.');
        (name.chars().all(plain) && !name.starts_with('.')).then_some(name)
    }
}

/// The last whole traceback of these lines that is not the server's own: gunicorn's main process ends in one when its
/// workers could not load the application.
pub fn last(lines: &[String]) -> Option<Traceback> {
    let mut lines = lines;
    loop {
        let begin = lines.iter().rposition(|line| line.trim_end().ends_with("Traceback (most recent call last):"))?;
        let found = from(lines, begin).filter(|found| !found.error.starts_with("gunicorn.errors."));
        if found.is_some() {
            return found;
        }
        lines = &lines[..begin];
    }
}

/// Every whole traceback of these lines that is not the server's own, in their order.
pub fn all(lines: &[String]) -> Vec<Traceback> {
    let begins =
        lines.iter().enumerate().filter(|(_, line)| line.trim_end().ends_with("Traceback (most recent call last):"));
    let whole = begins.filter_map(|(begin, _)| from(lines, begin));
    whole
        .filter(|found| {
            !["gunicorn.errors.", "SystemExit", "KeyboardInterrupt"].iter().any(|own| found.error.starts_with(own))
        })
        .collect()
}

/// The traceback whose first line is this one.
fn from(lines: &[String], begin: usize) -> Option<Traceback> {
    let mut place = None;
    for line in &lines[begin + 1..] {
        let trimmed = line.trim();
        if let Some((file, number)) = frame(trimmed) {
            // The line of a SyntaxError stands in the same form, and is the application's if it is anyone's.
            if !is_library(file) {
                place = Some((file.to_owned(), number));
            }
        } else if is_error(line) {
            return Some(Traceback { error: trimmed.to_owned(), place });
        }
    }
    None
}

/// `File "/home/sammy/myprojectdir/myproject/urls.py", line 12, in <module>`.
fn frame(line: &str) -> Option<(&str, usize)> {
    let (file, rest) = line.strip_prefix("File \"")?.split_once("\", line ")?;
    let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next()?;
    Some((file, digits.parse().ok()?))
}

fn is_library(file: &str) -> bool {
    // Names that Python makes, and sockd's own code (bootstrap.py).
    file.starts_with('<')
        || file.starts_with("/proc/self/fd/")
        || file.contains("/bin/")
        || file.contains("/site-packages/")
        || file.contains("/dist-packages/")
        || file.contains("/lib/python")
}

/// `package.module.Name: text` or `Name`, at the start of its line.
fn is_error(line: &str) -> bool {
    let name = line.split(':').next().unwrap_or_default().trim_end();
    let last = name.rsplit('.').next().unwrap_or_default();
    !name.contains(' ')
        && last.starts_with(|letter: char| letter.is_ascii_uppercase())
        && name.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '.' | '_'))
}

/// Every `HOST`, `PORT` that a refused connection of a database driver names, last first.
///
/// psycopg: `connection to server at "localhost" (127.0.0.1), port 5432 failed: Connection refused`, and older:
/// `could not connect to server: Connection refused Is the server running on host "localhost" (…) and accepting TCP/IP
/// connections on port 5432?`.
pub fn refused_databases(lines: &[String]) -> Vec<(String, u16)> {
    let mut found: Vec<(String, u16)> = Vec::new();
    for (at, line) in lines.iter().enumerate().rev() {
        let here =
            [line.as_str(), lines.get(at + 1).map_or("", String::as_str), lines.get(at + 2).map_or("", String::as_str)];
        let text = here.join(" ");
        let named = if line.contains("connection to server at \"") && line.contains("Connection refused") {
            between(line, "connection to server at \"", "\"").zip(between(line, "port ", " failed"))
        } else if line.contains("could not connect to server: Connection refused") {
            between(&text, "running on host \"", "\"").zip(between(&text, "connections on port ", "?"))
        } else {
            None
        };
        let named = named.and_then(|(host, port)| Some((host.to_owned(), port.trim().parse().ok()?)));
        if let Some(named) = named.filter(|named| !found.contains(named)) {
            found.push(named);
        }
    }
    found.truncate(4);
    found
}

/// What stands between two texts, for the first time.
pub fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_applications_own_line_is_found() {
        let text = r#"[2026-11-25 03:00:00 +0000] [7] [ERROR] Exception in worker process
Traceback (most recent call last):
  File "/home/sammy/venv/lib/python3.11/site-packages/gunicorn/arbiter.py", line 608, in spawn_worker
    worker.init_process()
  File "/home/sammy/myprojectdir/myproject/wsgi.py", line 16, in <module>
    application = get_wsgi_application()
  File "<frozen importlib._bootstrap>", line 241, in _call_with_frames_removed
  File "/home/sammy/myprojectdir/myproject/urls.py", line 3, in <module>
    import requests
ModuleNotFoundError: No module named 'requests'
[2026-11-25 03:00:00 +0000] [7] [INFO] Worker exiting (pid: 7)"#;
        let found = last(&lines(text)).expect("a traceback");
        let whole = format!(
            "{text}\nTraceback (most recent call last):\n  File \"/home/sammy/venv/bin/gunicorn\", line 8, in <module>\n\
             gunicorn.errors.HaltServer: <HaltServer 'Worker failed to boot.' 3>\n"
        );
        assert_eq!(last(&lines(&whole)).as_ref(), Some(&found));
        assert_eq!(all(&lines(&format!("{whole}{text}\n"))), [found.clone(), found.clone()]);
        assert_eq!(found.missing_module(), Some("requests"));
        assert_eq!(found.place, Some(("/home/sammy/myprojectdir/myproject/urls.py".to_owned(), 3)));
    }

    #[test]
    fn an_error_of_the_syntax_has_a_place() {
        let text = "Traceback (most recent call last):\n  File \"/app/wsgi.py\", line 1, in <module>\n    import x\n  \
                    File \"/app/x.py\", line 2\n    def (\n        ^\nSyntaxError: invalid syntax\n";
        let found = last(&lines(text)).expect("a traceback");
        assert_eq!(
            (found.error.as_str(), found.place),
            ("SyntaxError: invalid syntax", Some(("/app/x.py".to_owned(), 2)))
        );
        assert_eq!(
            last(&lines("Traceback (most recent call last):\n  File \"/app/wsgi.py\", line 1, in <module>")),
            None
        );
        assert_eq!(last(&lines("nothing")), None);
        let text = "Traceback (most recent call last):\n  File \"/proc/self/fd/5\", line 137, in <module>\n    \
                    run_package()\n  File \"<sockd>/sockd_worker.template\", line 40, in run\n    live(server)\n\
                    ModuleNotFoundError: No module named 'hello'\n";
        assert_eq!(last(&lines(text)).expect("a traceback").place, None);
        for bad in ["--index-url=x", "a; reboot", "../a"] {
            let error = format!("ModuleNotFoundError: No module named '{bad}'");
            assert_eq!(Traceback { error, place: None }.missing_module(), None);
        }
    }

    #[test]
    fn databases_are_named() {
        let text = "django.db.utils.OperationalError: connection to server at \"localhost\" (127.0.0.1), port 5433 failed: Connection refused\n\
                    \tIs the server running on that host and accepting TCP/IP connections?\n\
                    could not connect to server: Connection refused\n\tIs the server running on host \"db.local\" (10.0.0.1) and accepting\n\
                    \tTCP/IP connections on port 5432?\n";
        assert_eq!(refused_databases(&lines(text)), [("db.local".to_owned(), 5432), ("localhost".to_owned(), 5433)]);
        assert_eq!(refused_databases(&lines("port x failed connection to server at \"\nConnection refused")), []);
    }
}
