//! The files that Nginx serves itself: whether they are where it looks.

use super::browser::is_ours;
use super::resources::recent_of_nginx;
use crate::doctor::facts::{Facts, Served};
use crate::doctor::finding::{Finding, Link};
use crate::doctor::fix::quote;
use crate::doctor::fix::{self, Change};
use crate::doctor::nginx::{Configuration, Root};
use crate::doctor::remedy;
use crate::doctor::target::Expected;

/// What browsers ask for by themselves; sites need not have it.
const UNASKED: [&str; 3] = ["/favicon.ico", "/robots.txt", "/apple-touch-icon"];

pub fn findings(facts: &Facts, configuration: &Configuration, expected: &[Expected]) -> Vec<Finding> {
    let ours = configuration.servers.iter().filter(|server| is_ours(server, expected));
    let roots: Vec<&Root> = ours.flat_map(|server| &server.roots).collect();
    facts.served.iter().filter_map(|served| missing(facts, &roots, served)).collect()
}

fn missing(facts: &Facts, roots: &[&Root], served: &Served) -> Option<Finding> {
    let directory = &served.directory;
    let nothing = matches!(served.state.as_str(), "missing" | "empty");
    let asked: Vec<&str> = recent_of_nginx(facts).iter().filter_map(|line| not_found(line, directory)).collect();
    (nothing || !asked.is_empty()).then_some(())?;
    let finding = |id, what: String| Finding::warning(id, Link::Nginx, what);
    let settings = facts.settings.as_ref();
    let collected = settings.and_then(|settings| settings.static_root.as_ref()?.values.first());
    let state = if served.state == "missing" { "does not exist" } else { "is empty" };
    match collected.filter(|_| served.location.contains("static")) {
        Some(collected) if collected != directory => {
            let what = format!("Nginx serves {} from {directory}, and STATIC_ROOT is {collected}", served.location);
            let why = "collectstatic puts the files where Nginx does not look: pages come without style";
            let finding = finding("static-root", what).why(why);
            let root = roots.iter().find(|root| root.location == served.location)?;
            Some(match serve_from(root, collected) {
                Some(change) => finding.fix(fix::of_nginx(change)),
                None => {
                    let by_hand = format!("write `alias {collected}/;` at {}:{}", root.file, root.line);
                    finding.by_hand(by_hand).fix(fix::reload_nginx())
                }
            })
        }
        Some(_) if nothing => {
            let what = format!("{directory}, from which Nginx serves {}, {state}", served.location);
            let finding = finding("static-not-collected", what).why("it is STATIC_ROOT: collectstatic fills it");
            let python = facts.program.path.rsplit_once('/').filter(|_| facts.program.python);
            let python = python.map_or("python3".to_owned(), |(bin, _)| format!("{bin}/python"));
            let manage = format!("{}/manage.py", facts.service.working_directory);
            let collect = format!("{} {} collectstatic --noinput", quote(&python), quote(&manage));
            Some(finding.fix(remedy::as_user(facts, &collect)))
        }
        _ if nothing => {
            let what = format!("{directory}, from which Nginx serves {}, {state}", served.location);
            let why = "every file below it is answered with 404";
            Some(finding("static-missing", what).why(why).by_hand(format!("put the files into {directory}")))
        }
        _ => {
            let last = asked.last()?;
            let what =
                format!("{} visits in the last ten minutes asked for files that are not in {directory}", asked.len());
            let why = format!("the last one is {last}");
            Some(
                finding("static-missing", what)
                    .why(why)
                    .by_hand("run collectstatic, or correct the page that names it"),
            )
        }
    }
}

/// Has a location served from another directory; its directive stays what it is.
fn serve_from(root: &Root, directory: &str) -> Option<Change> {
    let path = match root.alias {
        true => format!("{directory}/"),
        false => directory.strip_suffix(root.location.trim_end_matches('/'))?.to_owned(),
    };
    Some(Change::replace("", &root.file, root.line, &root.path, &path))
}

/// The file of this directory that a line of error.log does not find:
/// `… open() "/srv/static/x.css" failed (2: No such file or directory), client: …`.
fn not_found<'a>(line: &'a str, directory: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once("open() \"")?;
    let (path, rest) = rest.split_once("\" failed (")?;
    let inside = path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'));
    let unasked = UNASKED.iter().any(|name| path.contains(name));
    (rest.starts_with("2:") && inside && !unasked).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_files_are_read() {
        let line = |path: &str, errno: &str| {
            format!("2026/11/28 15:00:00 [error] 7#7: *1 open() \"{path}\" failed ({errno}: x), client: 127.0.0.1")
        };
        assert_eq!(not_found(&line("/srv/static/x.css", "2"), "/srv/static"), Some("/srv/static/x.css"));
        for (path, errno) in
            [("/srv/static2/x.css", "2"), ("/srv/static/x.css", "13"), ("/srv/static/favicon.ico", "2")]
        {
            assert_eq!(not_found(&line(path, errno), "/srv/static"), None, "{path}");
        }
    }
}
