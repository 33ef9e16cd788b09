//! The size of types: one that changes itself has few fields. What is only read, plain data, may have many.

use super::circles::tokens;
use super::{code, files, read, report};
use std::collections::{BTreeMap, BTreeSet};

/// The most fields of a type with methods that take `&mut self`.
const MAX_FIELDS: usize = 15;

#[test]
fn types_that_change_themselves_are_small() {
    let mut fields = BTreeMap::new();
    let mut changing = BTreeSet::new();
    for path in files("src", "rs") {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        let code = code(&read(&path));
        let tokens = tokens(&code);
        fields
            .extend(structs(&tokens).into_iter().map(|(name, count)| ((folder.clone(), name), (path.clone(), count))));
        // Its methods may be in files beside it and below it.
        changing.extend(changed_types(&tokens).into_iter().map(|name| (folder.clone(), name)));
    }
    let changes = |(folder, name): &(String, String)| {
        changing.iter().any(|(other, changed)| changed == name && other.starts_with(folder.as_str()))
    };
    let large = fields.iter().filter(|(_, (_, count))| *count > MAX_FIELDS);
    let offences: Vec<String> = large
        .filter(|(key, _)| changes(key))
        .map(|((_, name), (path, count))| format!("{path}: {name} has {count} fields, {MAX_FIELDS} are allowed"))
        .collect();
    report(
        &offences,
        "Put fields that belong together into a type of their own, with the methods that need only them.",
    );
}

#[test]
fn the_reader_counts() {
    let code = "pub struct A<T> { a: Vec<T>, pub(super) b: crate::B, c: [u8; 2] } struct Unit; struct Pair(u8, u8);
        impl<T> A<T> { fn read(&self) {} fn change(&mut self) {} } impl fmt::Debug for Unit { fn fmt(&self) {} }";
    let tokens = tokens(code);
    assert_eq!(structs(&tokens), [("A".to_owned(), 3)]);
    assert_eq!(changed_types(&tokens), ["A"]);
}

/// Each type with named fields, and how many.
fn structs(tokens: &[&str]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, _) in tokens.iter().enumerate().filter(|(_, token)| **token == "struct") {
        let name = tokens[at + 1].to_owned();
        let begin = tokens[at..].iter().position(|token| ["{", ";", "("].contains(token));
        let Some(begin) = begin.map(|offset| at + offset).filter(|begin| tokens[*begin] == "{") else { continue };
        let body = block(tokens, begin);
        let mut level = 0;
        let fields = body.iter().filter(|token| {
            level += i32::from(["{", "(", "["].contains(token)) - i32::from(["}", ")", "]"].contains(token));
            level == 0 && **token == ":"
        });
        found.push((name, fields.count()));
    }
    found
}

/// The types with a method that takes `&mut self`.
fn changed_types(tokens: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in tokens.iter().enumerate().filter(|(_, token)| **token == "impl") {
        let Some(begin) = tokens[at..].iter().position(|token| *token == "{").map(|offset| at + offset) else {
            continue;
        };
        let head = &tokens[at + 1..begin];
        let head = head.iter().position(|token| *token == "for").map_or(head, |at| &head[at + 1..]);
        // Behind the generic parameters of the block.
        let mut level = 0;
        let name = head.iter().find(|token| {
            level += i32::from(**token == "<") - i32::from(**token == ">");
            level == 0 && token.starts_with(char::is_uppercase)
        });
        if block(tokens, begin).windows(3).any(|window| window == ["&", "mut", "self"]) {
            found.extend(name.map(|name| (*name).to_owned()));
        }
    }
    found
}

/// What stands between a brace and the one that closes it.
fn block<'a>(tokens: &'a [&'a str], begin: usize) -> &'a [&'a str] {
    let mut level = 0;
    for (at, token) in tokens.iter().enumerate().skip(begin) {
        level += i32::from(*token == "{") - i32::from(*token == "}");
        if level == 0 {
            return &tokens[begin + 1..at];
        }
    }
    &tokens[begin + 1..]
}
