//! Circles: files of `src` that import each other, read from their `use` lines and from the paths in their code.
//!
//! A name that a module only hands on (`pub use`) belongs to the file that it comes from. A module and the files below it
//! are a circle like any other if each uses the other; to declare one (`mod`) is no use of it. What only tests import does
//! not count.

use super::{code, files, read, report};
use std::collections::{BTreeMap, BTreeSet};

/// A path of names: `["supervisor", "Event"]` for `crate::supervisor::Event`.
type Names = Vec<String>;

/// One file, as a module.
struct Module {
    file: String,
    /// What it uses, as the names after `crate::`.
    uses: BTreeSet<Names>,
    /// What it hands on: the name under which, and from where.
    exports: BTreeMap<String, Names>,
}

/// All modules, by their path.
struct Tree(BTreeMap<Names, Module>);

#[test]
fn no_files_import_each_other() {
    let tree = Tree::read();
    let arrows = tree.arrows();
    let offences: Vec<String> = circles(&arrows)
        .into_iter()
        .map(|circle| {
            let inside = |to: &&String| circle.contains(*to);
            let lines = circle
                .iter()
                .flat_map(|from| arrows[from].iter().filter(inside).map(move |to| format!("\n    {from} -> {to}")));
            format!("{} files import each other:{}", circle.len(), lines.collect::<String>())
        })
        .collect();
    report(&offences, "Move what both need to a file of its own, or let the one above hand it in.");
}

/// Without this the test above could pass by seeing nothing.
#[test]
fn the_reader_finds_a_circle() {
    let tree = Tree::of([
        ("src/a/mod.rs", "pub use self::c::Deep; mod b; mod c; use b::{Two, three::Three as Other};"),
        ("src/a/b.rs", "use super::Deep; fn f() { crate::d::run(); }"),
        ("src/a/c.rs", "use crate::a::b::{self}; #[cfg(test)] mod tests { use crate::d; }"),
        ("src/d.rs", "use std::fmt; fn g() -> fmt::Result { crate::a::Own::new() }"),
    ]);
    let arrows = tree.arrows();
    let of = |file: &str| arrows[file].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(of("src/a/mod.rs"), ["src/a/b.rs"]);
    assert_eq!(of("src/a/b.rs"), ["src/a/c.rs", "src/d.rs"]);
    assert_eq!(of("src/a/c.rs"), ["src/a/b.rs"]);
    assert_eq!(of("src/d.rs"), ["src/a/mod.rs"]);
    let circle = BTreeSet::from(["src/a/b.rs", "src/a/c.rs", "src/a/mod.rs", "src/d.rs"].map(str::to_owned));
    assert_eq!(circles(&arrows), [circle]);
}

impl Tree {
    fn read() -> Self {
        let files = files("src", "rs");
        let texts: Vec<String> = files.iter().map(|path| read(path)).collect();
        Self::of(files.iter().map(String::as_str).zip(texts.iter().map(String::as_str)))
    }

    fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let files: Vec<(&str, &str)> = files.into_iter().collect();
        let known: BTreeSet<Names> = files.iter().map(|(path, _)| module_path(path)).collect();
        let modules = files.into_iter().map(|(path, text)| (module_path(path), Module::read(path, text, &known)));
        Self(modules.collect())
    }

    /// Who imports whom, file by file.
    fn arrows(&self) -> BTreeMap<String, BTreeSet<String>> {
        let arrows = |module: &Module| {
            let targets = module.uses.iter().filter_map(|names| self.file_of(names)).filter(|to| *to != module.file);
            targets.map(str::to_owned).collect()
        };
        self.0.values().map(|module| (module.file.clone(), arrows(module))).collect()
    }

    /// The file that has what a path names.
    fn file_of(&self, names: &[String]) -> Option<&str> {
        let length = (1..=names.len()).rev().find(|length| self.0.contains_key(&names[..*length]))?;
        let module = &self.0[&names[..length]];
        match names.get(length).and_then(|name| module.exports.get(name)) {
            Some(origin) => self.file_of(origin),
            None => Some(&module.file),
        }
    }
}

impl Module {
    fn read(file: &str, text: &str, known: &BTreeSet<Names>) -> Self {
        let own = module_path(file);
        let code = code(text.split("#[cfg(test)]").next().unwrap_or_default());
        let tokens = tokens(&code);
        let (mut uses, mut exports) = (BTreeSet::new(), BTreeMap::new());
        let mut at = 0;
        while at < tokens.len() {
            let is_path = tokens.get(at + 1).is_some_and(|next| *next == "::");
            let Some(base) = base(tokens[at], &own, known).filter(|_| is_path && begins_path(&tokens, at)) else {
                at += 1;
                continue;
            };
            // `pub use` and `pub(super) use` hand on.
            let is_use = at > 0 && tokens[at - 1] == "use";
            let hands_on = is_use && at > 1 && (tokens[at - 2] == "pub" || tokens[at - 2] == ")");
            let (end, found) = leaves(&tokens, at + 2, base);
            for (names, alias) in found {
                if hands_on {
                    exports.insert(alias, names);
                } else {
                    uses.insert(names);
                }
            }
            at = end;
        }
        Self { file: file.to_owned(), uses, exports }
    }
}

/// The names of a file's module after `crate::`.
fn module_path(file: &str) -> Names {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

/// Where a path begins whose first name this is: `crate`, `self`, `super`, or a module below. None: in another crate.
fn base(first: &str, own: &[String], known: &BTreeSet<Names>) -> Option<Names> {
    match first {
        "crate" => Some(Vec::new()),
        "self" => Some(own.to_vec()),
        "super" => Some(own[..own.len().saturating_sub(1)].to_vec()),
        _ => {
            let below = [own, &[first.to_owned()]].concat();
            known.contains(&below).then_some(below)
        }
    }
}

/// Whether a path begins with the name there; that of `pub(in crate::cli)` says who may see, and imports nothing.
fn begins_path(tokens: &[&str], at: usize) -> bool {
    at == 0 || tokens[at - 1] != "::" && tokens[at - 1] != "in"
}

/// Every path of the tree of names that begins there, with the name that it brings; and where the tree ends.
fn leaves(tokens: &[&str], mut at: usize, base: Names) -> (usize, Vec<(Names, String)>) {
    let mut names = base;
    loop {
        match tokens.get(at) {
            Some(&"{") => {
                let mut found = Vec::new();
                at += 1;
                while let Some(token) = tokens.get(at) {
                    match *token {
                        "}" => return (at + 1, found),
                        "," => at += 1,
                        _ => {
                            let (end, below) = leaves(tokens, at, names.clone());
                            found.extend(below);
                            at = end.max(at + 1);
                        }
                    }
                }
                return (at, found);
            }
            Some(&"super") => drop(names.pop()),
            Some(&"self") => {}
            Some(name) if name.starts_with(|c: char| c.is_alphabetic() || c == '_') => names.push((*name).to_owned()),
            _ => {}
        }
        if tokens.get(at + 1) == Some(&"::") && tokens.get(at + 2).is_some_and(|next| *next != "<") {
            at += 2;
            continue;
        }
        let alias = (tokens.get(at + 1) == Some(&"as")).then(|| tokens.get(at + 2)).flatten();
        let end = if alias.is_some() { at + 3 } else { at + 1 };
        let name = alias.map_or_else(|| names.last().cloned().unwrap_or_default(), |alias| (*alias).to_owned());
        return (end, vec![(names, name)]);
    }
}

/// The names and signs of a text; `::` is one.
pub(super) fn tokens(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(c) = rest.chars().next() {
        let name = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let length = if name > 0 {
            name
        } else if rest.starts_with("::") {
            2
        } else {
            c.len_utf8()
        };
        if !c.is_whitespace() {
            found.push(&rest[..length]);
        }
        rest = &rest[length..];
    }
    found
}

/// The groups of files of which each reaches each other along the arrows.
fn circles(arrows: &BTreeMap<String, BTreeSet<String>>) -> Vec<BTreeSet<String>> {
    let reached = |from: &String| {
        let (mut seen, mut waiting) = (BTreeSet::new(), vec![from]);
        while let Some(file) = waiting.pop() {
            waiting.extend(arrows[file].iter().filter(|to| seen.insert((*to).clone())));
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<String>> = arrows.keys().map(|file| (file, reached(file))).collect();
    let together = |a: &String, b: &String| reached[a].contains(b) && reached[b].contains(a);
    let circle = |file: &String| arrows.keys().filter(|other| together(file, other)).cloned().collect();
    let all: BTreeSet<BTreeSet<String>> = arrows.keys().filter(|file| together(file, file)).map(circle).collect();
    all.into_iter().collect()
}
