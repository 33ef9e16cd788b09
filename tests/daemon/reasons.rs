//! Why a deploy is refused, in the words of the program that failed: the line at which a person of its language would
//! point. What is not installed is left out, and said so.

use std::process::Command;

use super::instance::Instance;
use super::programs::{go_cache, there};
use super::transcript::START;

/// A good version serves; each broken one is refused, and the outcome and the status quote this line.
fn are_refused(command: &[&str], file: &str, good: &str, broken: &[(&str, &str)]) {
    if !there(command[0]) {
        return;
    }
    let web = Instance::on_unix().file(file, good).options("--workers 1").command(command);
    assert_eq!(web.get("/").body, "hello");
    for (source, line) in broken {
        web.write(file, source);
        let (_, outcome) = web.reload();
        assert!(!outcome.ok && ends_with(&outcome.message, line), "{source}{line}: {outcome:?}");
        let refused = web.report().reload.last_refused.expect("it is reported");
        assert!(ends_with(&refused.reason, line), "{source}{line}: {refused:?}");
        assert_eq!(web.get("/").body, "hello");
    }
    web.stop();
}

/// Nothing but the status of the process stands before what is quoted, none of Ruby's own files either, and nothing
/// behind it.
fn ends_with(text: &str, line: &str) -> bool {
    text.strip_suffix(line).is_some_and(|before| before.ends_with(": ") && !before.contains(".rb"))
}

/// The first start fails, and the status quotes this line.
fn does_not_start(files: &[(&str, &str)], build: &[&str], command: &[&str], line: &str) {
    let mut builder = Instance::on_unix();
    for (name, text) in files {
        builder = builder.file(name, text);
    }
    if let [compiler, words @ ..] = build {
        if !there(compiler) {
            return;
        }
        let mut build = Command::new(compiler);
        let built =
            build.args(words).env("GOCACHE", go_cache()).current_dir(builder.path()).status().expect("it starts");
        assert!(built.success(), "{build:?}");
    }
    let web = builder.options("--start at-once").command(command);
    let failed = web.log("worker 1 could not start: ");
    let (why, _) = failed.text.split_once("; trying again").expect("it says when");
    assert!(ends_with(why, line), "{why}");
    let death = web.until("the status", || web.report().slots.first()?.last_death.clone());
    assert!(ends_with(&death.reason, line), "{death:?}");
    assert!(web.logged(START, line).len() > 1, "what it wrote is in the log, too");
    web.stop();
}

#[test]
fn of_ruby() {
    let good = "run ->(env) { [200, {'content-type' => 'text/plain'}, ['hello']] }\n";
    let broken = [
        (
            "run ->(env) {\n  [200, {}, ['hello'}\n}\n",
            "config.ru:2: syntax error, unexpected '}', expecting ']' (SyntaxError)",
        ),
        ("require 'a_gem_that_is_missing'\n", "cannot load such file -- a_gem_that_is_missing (LoadError)"),
        ("def open\n  raise IOError, \"no database\"\nend\nopen\n", "config.ru:2:in `open': no database (IOError)"),
        ("run App\n", "config.ru:1:in `block in <main>': uninitialized constant App (NameError)"),
        ("abort 'set DATABASE_URL'\n", "set DATABASE_URL"),
    ];
    are_refused(&["puma"], "config.ru", good, &broken);
    // unicorn counts a line of its own, and logs what it catches without the place.
    let lines = broken.map(|(_, line)| match line.split_once(": ") {
        Some((place, error)) if place.contains(" `") => error.to_owned(),
        _ => line.replace("ru:2:", "ru:3:"),
    });
    let broken: Vec<_> = broken.iter().zip(&lines).map(|((source, _), line)| (*source, line.as_str())).collect();
    are_refused(&["unicorn"], "config.ru", good, &broken);
}

#[test]
fn of_node() {
    let good = "require('http').createServer((request, response) => response.end('hello')).listen({ fd: 3 });\n";
    let broken = [
        ("const app = (\n", "SyntaxError: Unexpected end of input"),
        ("require('express');\n", "Error: Cannot find module 'express'"),
        ("throw new RangeError('no database');\n", "RangeError: no database"),
        ("throw 'no database';\n", "no database"),
        ("Promise.reject(new Error('connect ECONNREFUSED'));\n", "Error: connect ECONNREFUSED"),
        (
            "process.on('exit', () => console.error('usage: server --port PORT'));\n\
             console.error('unknown option --prt');\nprocess.exitCode = 2;\n",
            "unknown option --prt",
        ),
    ];
    are_refused(&["node", "server.js"], "server.js", good, &broken);
}

#[test]
fn of_a_shell() {
    for (shell, source, line) in [
        ("sh", ". ./a_file_that_is_missing\n", "server.sh: 1: .: cannot open ./a_file_that_is_missing: No such file"),
        ("sh", "set -u\nexec server \"$PORT\"\n", "server.sh: 2: PORT: parameter not set"),
        ("bash", "if true; then\nfi\n", "server.sh: line 2: syntax error near unexpected token `fi'"),
        ("bash", "set -e\ncat /nowhere/config\nexec server\n", "cat: /nowhere/config: No such file or directory"),
    ] {
        does_not_start(&[("server.sh", source)], &[], &[shell, "server.sh"], line);
    }
}

/// As the C library and many a program have it: the mistake first, then how it is done.
const C: &str = r#"
#include <assert.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

int main(int count, char **words) {
    struct option options[] = {{"port", required_argument, 0, 'p'}, {0}};
    fprintf(stderr, "server 1.0 starts\n");
    if (getopt_long(count, words, "p:", options, 0) == '?') {
        fprintf(stderr, "Usage: server [OPTION]...\n  -p, --port PORT   where to listen\n");
        fprintf(stderr, "Try 'server --help' for more information.\n");
        return 2;
    }
    if (count > 1 && !strcmp(words[1], "panic")) {
        fprintf(stderr, "panic: no database\n  state: 7\n  stack: 0x7f00\nleaving\n");
        return 1;
    }
    fprintf(stderr, "options:\n  port 80\ncannot open /nowhere/config: No such file or directory\n");
    return 1;
}
"#;

#[test]
fn of_a_compiled_program() {
    let build = ["cc", "-o", "server", "server.c"];
    for (words, line) in [
        (&["./server", "--prt=80"][..], "unrecognized option '--prt=80'"),
        (&["./server", "panic"], "panic: no database"),
        (&["./server"], "cannot open /nowhere/config: No such file or directory"),
    ] {
        does_not_start(&[("server.c", C)], &build, words, line);
    }
}

#[test]
fn of_rust() {
    let panics = "fn main() {\n    eprintln!(\"starting\");\n    let port: Result<u16, _> = \"http\".parse();\n    \
                  port.expect(\"PORT is a number\");\n}\n";
    let returns = "fn main() -> Result<(), Box<dyn std::error::Error>> {\n    Err(\"no database\".into())\n}\n";
    for (source, line) in
        [(panics, "PORT is a number: ParseIntError { kind: InvalidDigit }"), (returns, "Error: \"no database\"")]
    {
        does_not_start(&[("server.rs", source)], &["rustc", "-o", "server", "server.rs"], &["./server"], line);
    }
}

/// What Go's own library says when a start fails, with every goroutine's stack where it shows them all.
const GO: &str = r#"package main

import (
	"log"
	"net"
	"net/http"
	"os"
	"time"
)

func open(path string) {
	if _, err := os.Open(path); err != nil {
		panic(err)
	}
}

func main() {
	log.Println("server 1.0 starts")
	switch os.Args[1] {
	case "variable":
		if os.Getenv("A_VARIABLE_THAT_IS_MISSING") == "" {
			log.Fatal("A_VARIABLE_THAT_IS_MISSING is not set")
		}
	case "port":
		taken, _ := net.Listen("tcp", "127.0.0.2:0")
		log.Fatal(http.ListenAndServe(taken.Addr().String(), nil))
	case "panic":
		open("/nowhere/config")
	case "recovered":
		defer func() { panic("while loading: " + recover().(string)) }()
		panic("no database")
	case "map":
		shared := map[int]int{}
		for i := 0; i < 80; i++ {
			go func() {
				for {
					shared[1]++
				}
			}()
		}
		time.Sleep(time.Minute)
	}
}
"#;

#[test]
fn of_go() {
    let build = ["go", "build", "-o", "server", "server.go"];
    for (case, line) in [
        ("variable", "A_VARIABLE_THAT_IS_MISSING is not set"),
        ("port", "bind: address already in use"),
        ("panic", "panic: open /nowhere/config: no such file or directory"),
        ("recovered", "panic: while loading: no database"),
        ("map", "fatal error: concurrent map writes"),
    ] {
        does_not_start(&[("server.go", GO)], &build, &["./server", case], line);
    }
}
