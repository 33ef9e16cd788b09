//! What stands before a server and executes it is looked through; what is named like a Python server and is none is never
//! fed with Python.

use std::os::unix::fs::PermissionsExt;

use super::instance::{Builder, Instance};
use super::python::{application, bin, venv};

/// An agent's launcher, as newrelic-admin is one.
const AGENT: &str = "#!/bin/sh\nshift\nAGENT=yes\nexport AGENT\nexec \"$@\"\n";
/// A manager of environments: only it knows where the program is.
const MANAGER: &str = "#!/bin/sh\nshift\nPATH=VENV/bin:$PATH\nexport PATH\nexec \"$@\"\n";
/// As pyenv's shims end.
const SHIM: &str = "#!/usr/bin/env bash\nset -e\nprogram=\"${0##*/}\"\nexec \"HERE/pyenv\" exec \"$program\" \"$@\"\n";

/// Executable files, with the test's own paths in them.
fn tools(tools: &[(&str, &str)]) -> Builder {
    let builder = Instance::on_unix().options("--start at-once").config("[reload]\nsoak = \"200ms\"\n");
    let says =
        "    body = (\"%s %s from %d\" % (os.environ.get(\"AGENT\"), os.environ.get(\"A\"), os.getpid())).encode()\n";
    let source = application("x").replace("    body = (\"x from %d\" % os.getpid()).encode()\n", says);
    let mut builder = builder.file("myproject.py", &source);
    for (name, text) in tools {
        let (here, venv) = (builder.path().display().to_string(), venv().display().to_string());
        builder = builder.file(name, &text.replace("HERE", &here).replace("VENV", &venv));
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(builder.path().join(name), mode).expect("executable");
    }
    builder
}

#[test]
fn the_server_behind_a_launcher_is_at_home() {
    let gunicorn = bin("gunicorn");
    let python = bin("python");
    let all: [(&[&str], &str); 6] = [
        (&["nice", "-n", "1", "env", "A=b", &gunicorn], "None b"),
        (&["HERE/newrelic-admin", "run-program", &gunicorn], "yes None"),
        (&["env", "A=b", "HERE/newrelic-admin", "run-program", &python, "-m", "gunicorn"], "yes b"),
        (&["HERE/pipenv", "run", "gunicorn"], "None None"),
        (&["HERE/pipenv", "run", "python", "-m", "gunicorn"], "None None"),
        (&["HERE/gunicorn"], "None None"),
    ];
    for (before, answer) in all {
        let builder = tools(&[("newrelic-admin", AGENT), ("pipenv", MANAGER), ("pyenv", MANAGER), ("gunicorn", SHIM)]);
        let here = builder.path().display().to_string();
        let command: Vec<String> = before.iter().map(|word| word.replace("HERE", &here)).collect();
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let web = builder.command(&[command.as_slice(), &["--workers", "2", "myproject:application"]].concat());
        web.status("serving, 2 of 2 workers, generation 1");
        let body = web.get("/").body;
        assert!(body.starts_with(answer), "{before:?}: {body}");
        assert_eq!(web.ready().len(), 2);
        assert!(web.reload().1.ok, "{before:?}");
        web.write("myproject.py", "import a_module_that_is_missing\n");
        let (_, outcome) = web.reload();
        assert!(!outcome.ok && outcome.message.contains("No module named 'a_module_that_is_missing'"), "{outcome:?}");
        web.stop();
    }
}

#[test]
fn a_script_that_is_named_like_a_python_server_is_run_as_it_is() {
    let script = "#!/usr/bin/env bash\nexec VENV/bin/python -m gunicorn \"$@\"\n";
    let builder = tools(&[("gunicorn", script)]);
    let path = builder.path().join("gunicorn").display().to_string();
    let web = builder.command(&[&path, "myproject:application"]);
    assert_eq!(web.get("/").status, 200);
    let line = web.log("is not run by Python");
    assert!(line.text.contains("it is run as it is") && line.text.contains("ExecStart="), "{}", line.text);
    assert!(web.reload().1.ok);
    web.stop();
}
