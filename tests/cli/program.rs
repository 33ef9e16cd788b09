//! The program itself, run.

use std::io::Read;
use std::process::{Command, Output, Stdio};

fn sockd(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sockd"));
    // A bus that is not there: the tests' machine may have one, and it may have none.
    command.args(arguments).env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus").stdin(Stdio::null());
    command
}

fn output(command: &mut Command) -> (Output, String) {
    let output = command.output().expect("started");
    let text = String::from_utf8(output.stdout.clone()).expect("text");
    (output, text)
}

/// Every command that is shown, and so every one that is added.
#[test]
fn every_subcommand_explains_itself_with_an_example() {
    let commands: Vec<String> = sockd::cli::command()
        .get_subcommands()
        .filter(|subcommand| !subcommand.is_hide_set())
        .map(|subcommand| subcommand.get_name().to_owned())
        .collect();
    assert!(commands.len() >= 8, "{commands:?}");
    let (_, all) = output(&mut sockd(&["--help"]));
    for subcommand in commands {
        let (output, text) = output(&mut sockd(&[&subcommand, "--help"]));
        assert!(output.status.success());
        assert!(text.contains("Example") && text.contains(&format!("sockd {subcommand}")), "{text}");
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        assert!(all.lines().any(|line| line.starts_with(&format!("  {subcommand} "))), "{all}");
    }
    assert!(all.contains("ExecStart=") && !all.contains("fallback"), "{all}");
    let (_, text) = output(&mut sockd(&["--version"]));
    assert_eq!(text, format!("sockd {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn watching_wants_a_terminal() {
    let output = sockd(&["status", "--watch"]).output().expect("started");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--watch wants a terminal"), "{output:?}");
}

#[test]
fn top_wants_a_terminal_and_says_what_needs_none() {
    let output = sockd(&["top"]).output().expect("started");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("top wants a terminal") && said.contains("sockd status"), "{output:?}");
}

#[test]
fn a_wrong_command_line_is_2() {
    assert_eq!(sockd(&["stauts"]).output().expect("started").status.code(), Some(2));
}

#[test]
fn without_systemd_a_named_unit_is_unknown() {
    let (output, text) = output(&mut sockd(&["status", "no-such-unit"]));
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.starts_with("systemd: not reachable: "), "{text}");
    assert!(text.contains("no-such-unit.service"), "{text}");
}

#[test]
fn json_is_an_array_whatever_is_missing() {
    let (output, text) = output(&mut sockd(&["status", "--json", "no-such-unit"]));
    assert_eq!(output.status.code(), Some(4));
    let entries: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(entries[0]["unit"], "no-such-unit.service");
    assert_eq!(entries[0]["systemd"], serde_json::Value::Null);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let mut command = sockd(&["status", "a", "b", "c"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    assert_eq!(said, "");
    assert_eq!(child.wait().expect("reaped").code(), Some(4));
}

#[test]
fn a_full_disk_is_an_error() {
    let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let output = sockd(&["status"]).stdout(full).stderr(Stdio::piped()).output().expect("started");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.starts_with("sockd: error: cannot write to stdout: "), "{said}");
}

/// Whatever units there are on the tests' machine, something can be typed next. Its running instances are out of sight:
/// `reload` would reload the only one.
#[test]
fn a_missing_or_unknown_name_says_what_to_type() {
    for (arguments, code) in [(&["adopt"][..], 2), (&["reload"], 1), (&["status"], 0)] {
        let sockd = sockd(arguments);
        let mut alone = Command::new("unshare");
        alone.args(["--map-root-user", "--net"]).arg(sockd.get_program()).args(arguments);
        alone.envs(sockd.get_envs().filter_map(|(name, value)| Some((name, value?)))).env_remove("MAINPID");
        let output = alone.output().expect("started");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let next = ["sockd adopt ", "sockd new NAME", "sockd reload "].iter().any(|step| text.contains(step));
        let shown = arguments == ["status"] && text.contains(".service");
        assert!(next || shown, "{arguments:?}: {text}");
        assert!(shown || output.status.code() == Some(code) || arguments == ["status"], "{arguments:?}: {text}");
    }
}

/// What a unit's environment holds turns no command of it into an answer to a shell.
#[test]
fn a_shell_is_answered_where_it_asks_and_nowhere_else() {
    let asked = |arguments: &[&str]| {
        let mut command = sockd(arguments);
        let output = command.env("SOCKD_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", "1").output().expect("started");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(asked(&["--", "sockd", "rel"]).contains("reload"));
    for arguments in [&["reload", "no-such-unit"][..], &["run", "--help"], &["drain", "--help"]] {
        assert!(!asked(arguments).contains("complete -"), "{arguments:?}");
    }
    assert!(asked(&["run", "--help"]).contains("Usage: sockd run"));
}
