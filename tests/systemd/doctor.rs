//! `sockd doctor` on the guide's site: each fault is made for real, named, and mended by the command that it prints.
//!
//! Owns: the faults. Must never: help a command along; it is executed as it is printed, by root's shell.

use std::time::Duration;

use serde_json::Value;

use crate::guide::visit;
use crate::machine::Machine;

/// The most findings that are mended one after the other, as the doctor advises.
const STEPS: usize = 4;
/// How long the mended site may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the doctor says of a unit, as a program reads it.
fn ask(machine: &Machine, arguments: &str) -> (i32, Value) {
    let output = machine.run(&format!("sockd doctor --json {arguments}"));
    let found = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output}"));
    (output.code, found)
}

/// The first finding of the first unit.
fn first(found: &Value) -> (&str, &str) {
    let finding = &found[0]["findings"][0];
    let text = |key: &str| finding[key].as_str().unwrap_or_default();
    (text("id"), text("mend"))
}

/// A fault, and what the doctor must say and do about it.
struct Fault<'a> {
    /// The script that makes it.
    made: &'a str,
    /// The ids of what is found, one after the other: of each the command is executed.
    found: &'a [&'a str],
    /// The options of the doctor.
    options: &'a str,
    /// The script that shows the fault, and shows that it is gone: it prints a page.
    page: String,
}

impl Default for Fault<'_> {
    fn default() -> Self {
        Self { made: "", found: &[], options: "", page: visit("/") }
    }
}

/// Makes the fault, follows the doctor, and sees the page again.
fn cure(machine: &Machine, unit: &str, fault: &Fault<'_>) {
    let good = machine.run(&fault.page).stdout;
    if !fault.made.is_empty() {
        machine.run(fault.made).succeeded();
    }
    let arguments = format!("{unit} {}", fault.options);
    for (step, id) in fault.found.iter().enumerate() {
        assert!(step < STEPS, "the doctor needs more than {STEPS} steps");
        let (code, found) = ask(machine, &arguments);
        let (named, mend) = first(&found);
        assert_eq!((named, code), (*id, 1), "after {:?}: {found:#}", fault.made);
        machine.run(mend).succeeded();
    }
    // A reloaded Nginx answers by its old workers for a moment.
    machine.wait_until(&format!("the page after {:?}", fault.made), PATIENCE, || {
        let page = machine.run(&fault.page).stdout;
        let as_before = !fault.options.is_empty() || page == good;
        (as_before && !page.is_empty() && !page.contains("502 Bad Gateway")).then_some(())
    });
    let (code, found) = ask(machine, &arguments);
    assert_eq!(code, 0, "mended, and the doctor still finds: {found:#}");
}

/// A site that is well has no error; every link was seen.
fn well(machine: &Machine, unit: &str) {
    let (code, found) = ask(machine, unit);
    assert_eq!(code, 0, "{found:#}");
    for seen in found[0]["walk"].as_array().expect("a walk") {
        assert!(seen["state"] == "ok" || seen["state"] == "warning", "{found:#}");
    }
    let text = machine.run(&format!("sockd doctor {unit}")).succeeded();
    assert!(text.contains("browser") && text.contains("example.com is answered by"), "{text}");
    // Who may not look at everything says so, and finds nothing wrong for it.
    let less = machine.run_as("sammy", &format!("sockd doctor {unit}")).succeeded();
    assert!(less.contains("not seen: ") && less.contains("error.log"), "{less}");
}

/// The Flask guide's faults: no socket unit, the socket in a home directory.
pub fn the_flask_guides_faults(machine: &Machine) {
    well(machine, "myproject");
    cure(
        machine,
        "myproject",
        &Fault { made: "chmod 750 /home/sammy", found: &["directory-closed"], ..Fault::default() },
    );
    cure(
        machine,
        "myproject",
        &Fault {
            made: "systemctl stop myproject",
            found: &["service-not-started"],
            page: format!("until [ -S /home/sammy/myproject/myproject.sock ]; do :; done; {}", visit("/")),
            ..Fault::default()
        },
    );
}
