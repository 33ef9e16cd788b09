//! The manual pages and the completions below `packaging/`, made of the command line's definition and of the file of
//! defaults, and compared with what lies there.
//!
//! SOCKD_BLESS=1 cargo test --test manual writes them again.

mod configuration;
mod page;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap_complete::env::Shells;
use sockd::cli::complete::VARIABLE;

fn packaging(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(below)
}

/// The command line as users are shown it: without the commands that sockd calls itself.
fn command() -> clap::Command {
    let whole = sockd::cli::command();
    let shown = whole.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()).map(without_hidden);
    let mut command = clap::Command::new("sockd")
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true)
        // It has no page of its own.
        .disable_help_subcommand(true)
        .about(whole.get_about().cloned().unwrap_or_default())
        .long_about(whole.get_long_about().cloned().unwrap_or_default())
        .after_help(whole.get_after_help().cloned().unwrap_or_default())
        .subcommands(shown);
    command.build();
    command
}

/// The same subcommand without the options that are for tests.
fn without_hidden(subcommand: &clap::Command) -> clap::Command {
    let arguments = subcommand.get_arguments().filter(|argument| !argument.is_hide_set()).cloned();
    // clap wants names that live for ever.
    clap::Command::new(&*subcommand.get_name().to_owned().leak())
        .allow_missing_positional(subcommand.is_allow_missing_positional_set())
        .about(subcommand.get_about().cloned().unwrap_or_default())
        .after_help(subcommand.get_after_help().cloned().unwrap_or_default())
        .args(arguments)
}

/// The script that has a shell ask sockd what a line can go on with.
fn completions(shell: &str) -> String {
    let shells = Shells::builtins();
    let mut text = Vec::new();
    let written =
        shells.completer(shell).expect(shell).write_registration(VARIABLE, "sockd", "sockd", "sockd", &mut text);
    written.expect("a vector takes everything");
    let text = String::from_utf8(text).expect("UTF-8");
    match shell {
        // zsh reads the file at the first Tab (autoload): that one is to be answered, too.
        "zsh" => format!("{text}\n[ \"$funcstack[1]\" != _sockd ] || _clap_dynamic_completer_sockd \"$@\"\n"),
        _ => text,
    }
}

/// Every file that is generated, by its place below `packaging/`.
fn generated() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let command = command();
    files.insert("man/sockd.1".to_owned(), page::of(&command));
    for subcommand in command.get_subcommands() {
        files.insert(format!("man/sockd-{}.1", subcommand.get_name()), page::of(subcommand));
    }
    files.insert("man/sockd.toml.5".to_owned(), configuration::page(sockd::config::DEFAULT_FILE));
    for (shell, file) in [("bash", "sockd.bash"), ("zsh", "_sockd"), ("fish", "sockd.fish")] {
        files.insert(format!("completions/{file}"), completions(shell));
    }
    files
}

#[test]
fn what_is_shipped_is_what_the_program_says() {
    let bless = std::env::var_os("SOCKD_BLESS").is_some();
    let mut stale = Vec::new();
    for (name, text) in generated() {
        let path = packaging(&name);
        if bless {
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
            std::fs::write(&path, &text).expect("written");
        } else if std::fs::read_to_string(&path).ok().as_deref() != Some(&text) {
            stale.push(name);
        }
    }
    assert!(
        stale.is_empty(),
        "stale below packaging: {}. The command line or the file of defaults changed: write them again with\n\n    \
         SOCKD_BLESS=1 cargo test --test manual\n",
        stale.join(", ")
    );
}

/// A page or a completion of a command that is gone would be shipped for ever.
#[test]
fn nothing_else_lies_there() {
    let written_by_hand = ["man/sockd@.service.8", "man/sockd-cookbook.7", "man/sockd-scoreboard.5"];
    let generated = generated();
    for directory in ["man", "completions"] {
        for entry in std::fs::read_dir(packaging(directory)).expect("a directory") {
            let name = format!("{directory}/{}", entry.expect("an entry").file_name().to_string_lossy());
            assert!(generated.contains_key(&name) || written_by_hand.contains(&name.as_str()), "packaging/{name}");
        }
    }
}

/// Every option and every key can be looked up.
#[test]
fn everything_is_documented() {
    let files = generated();
    let mut count = 0;
    for subcommand in command().get_subcommands() {
        let page = page::plain(&files[&format!("man/sockd-{}.1", subcommand.get_name())]);
        assert!(page.contains("EXAMPLE"), "{page}");
        for argument in subcommand.get_arguments() {
            assert!(argument.get_help().is_some(), "{} of {} says nothing", argument.get_id(), subcommand.get_name());
            let Some(long) = argument.get_long() else { continue };
            assert!(page.contains(&format!("--{long}")), "{long} is not in\n{page}");
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
    let page = page::plain(&files["man/sockd.toml.5"]);
    let keys = sockd::config::keys();
    assert!(keys.len() > 10, "{keys:?}");
    for key in keys {
        let name = key.rsplit('.').next().expect("split gives one");
        let section = format!("[{key}]");
        let found = page.lines().any(|line| line.starts_with(name) || line.contains(&section));
        assert!(found, "{key} is not in\n{page}");
    }
}

/// The pages are pages: as mandoc sees them, where it is installed, and man-db always does.
#[test]
fn the_pages_are_well_formed() {
    let mandoc = Command::new("mandoc").arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    for entry in std::fs::read_dir(packaging("man")).expect("the pages") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a page");
        assert!(text.contains(".TH "), "{}", path.display());
        if mandoc {
            let output =
                Command::new("mandoc").args(["-T", "lint", "-W", "error"]).arg(&path).output().expect("mandoc");
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{said}");
        }
    }
}

/// What the page of the unit says of files, options and directives is so in the unit.
#[test]
fn the_page_of_the_unit_tells_the_truth() {
    let page = page::plain(&std::fs::read_to_string(packaging("man/sockd@.service.8")).expect("the page"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let units: String =
        ["units/sockd@.service", "units/sockd@.socket", "units/examples/stricter.conf", "units/examples/laxer.conf"]
            .iter()
            .map(|unit| std::fs::read_to_string(root.join(unit)).expect("a unit"))
            .collect();
    let directive = |word: &str| word.ends_with('=') && word.starts_with(|c: char| c.is_ascii_uppercase());
    let words: Vec<&str> =
        page.split_whitespace().map(|word| word.trim_matches(['(', ')', ',', '.', ';', ':'])).collect();
    let named: Vec<&&str> = words.iter().filter(|word| directive(word)).collect();
    assert!(named.len() > 5, "{named:?}");
    for word in named {
        assert!(units.contains(*word), "{word} is in no unit");
    }
    for path in ["/etc/sockd/", "/run/sockd/"] {
        assert!(page.contains(path) && units.contains(path), "{path}");
    }
}

/// The shells take the completions, where they are installed.
#[test]
fn bash_completes() {
    let script = format!(
        "PATH={}:$PATH; source {}; complete -p sockd >&2
         COMP_WORDS=(sockd st); COMP_CWORD=1; _clap_complete_sockd sockd st sockd; echo \"${{COMPREPLY[*]}}\"
         COMP_WORDS=(sockd adopt --un); COMP_CWORD=2; _clap_complete_sockd sockd --un adopt; echo \"${{COMPREPLY[*]}}\"",
        Path::new(env!("CARGO_BIN_EXE_sockd")).parent().expect("a directory").display(),
        packaging("completions/sockd.bash").display()
    );
    let output = Command::new("bash").args(["-c", &script]).output().expect("bash");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "status\n--undo\n", "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("-F _clap_complete_sockd sockd"), "{output:?}");
}
