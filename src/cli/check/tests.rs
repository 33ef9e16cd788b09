//! What is checked, and how it is reported.

use std::fs;

use super::*;

/// A directory in the place of /etc/sockd.
struct Instances(PathBuf);

impl Instances {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sockd-check-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory can be made");
        let instances = Self(path);
        instances.file("good.toml", "command = [\"/bin/sh\"]\n");
        instances.file("bad.toml", "comand = [\"/bin/sh\"]\n[workers]\ncount = 0\n");
        instances.file("dull.toml", "command = [\"/bin/sh\"]\n[health]\nstatus = [200]\n");
        instances.file("README", "");
        instances
    }

    fn file(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).expect("a file can be written");
    }

    fn found(&self, target: Option<&str>) -> Vec<(String, Diagnostics)> {
        let target = target.map(|target| target.replace("ETC", &self.0.display().to_string()));
        let subjects = subjects(&Arguments { target, ..Arguments::default() }, &self.0).expect("there is something");
        let place = format!("{}/", self.0.display());
        subjects.into_iter().map(|subject| (subject.name.replace(&place, ""), check(subject))).collect()
    }

    fn text(&self, target: Option<&str>) -> String {
        report(&self.found(target), false).replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Instances {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const BAD: &str = "\
error: unknown key `comand`
 --> bad.toml:1:1
  |
1 | comand = [\"/bin/sh\"]
  | ^^^^^^
  |
  = help: did you mean `command`?

error: expected an integer from 1 to 4096, found 0
 --> bad.toml:3:9
  |
3 | count = 0
  |         ^
";

#[test]
fn all_instances_are_checked_in_order() {
    let text = Instances::new("all").text(None);
    let names: Vec<&str> = text.lines().filter(|line| line.contains(".toml:") && !line.starts_with(' ')).collect();
    assert_eq!(names, ["bad.toml:", "dull.toml:", "good.toml: ok"]);
    assert!(text.contains(BAD), "{text}");
    // Two problems in bad.toml and a warning in dull.toml.
    assert_eq!(text.lines().last(), Some("3 problems"));
}

#[test]
fn the_last_line_is_the_verdict() {
    let instances = Instances::new("verdict");
    assert_eq!(instances.text(Some("good")), "ok\n");
    assert_eq!(instances.text(Some("ETC/good.toml")), "ok\n");
    assert_eq!(instances.text(Some("bad")), format!("{BAD}2 problems\n"));
    assert!(instances.text(Some("dull")).ends_with("\nok, 1 warning\n"));
    instances.file("sick.toml", "command = [\"/bin/sh\"]\n[health]\ncommand = [\"/nowhere/check\"]\n");
    let sick = instances.text(Some("sick"));
    assert!(sick.starts_with("error: health.command: cannot execute /nowhere/check") && sick.ends_with("1 problem\n"));
    let reload = "[reload]\ncheck = [[\"/bin/sh\"], [\"/nowhere/a\"], [\"/nowhere/b\"]]\nafter = [\"/nowhere/c\"]\n";
    instances.file("reload.toml", &format!("command = [\"/bin/sh\"]\n{reload}"));
    let reload = instances.text(Some("reload"));
    for key in ["error: reload.check: cannot execute /nowhere/a", "error: reload.check: cannot execute /nowhere/b"] {
        assert!(reload.contains(key), "{reload}");
    }
    assert!(reload.contains("warning: reload.after: cannot execute /nowhere/c") && reload.ends_with("3 problems\n"));
    instances.file("one.toml", "command = []\n");
    assert!(instances.text(Some("one")).ends_with("\n1 problem\n"));
}

#[test]
fn a_trial_whose_answers_nobody_counts_is_named() {
    let instances = Instances::new("trial");
    let program = |name: &str, text: &str| {
        instances.file(name, text);
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(instances.0.join(name), executable).expect("it can be made executable");
    };
    let found = |server: &str, show: bool| {
        let words = server.split(' ').map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
        let show = if show { "" } else { "\n[requests]\nshow = false" };
        let text = format!("command = [{words}]\n[reload]\ncanary-workers = \"25%\"{show}\n");
        instances.file("web.toml", &text.replace("ETC", &instances.0.display().to_string()));
        let text = instances.text(Some("web"));
        // gunicorn is not installed, which is another warning.
        text.find("warning: unless").or(text.find("warning: with")).map_or(text.clone(), |at| text[at..].to_owned())
    };
    program("puma", "#!/bin/sh\n");
    assert_eq!(
        found("ETC/puma -C -", true),
        "\
warning: puma does not count its answers by status: a trial by canary-workers notices only workers that die or hang, and \
takes all of canary-time
 --> web.toml:3:18
  |
3 | canary-workers = \"25%\"
  |                  ^^^^^
  |
  = help: leave canary-workers out, or set canary-time to the time in which a crash or a hang would show
ok, 1 warning
"
    );
    // Shown or not, it has nothing to show.
    assert_eq!(found("ETC/puma -C -", false), found("ETC/puma -C -", true));
    let unless = "warning: unless the program itself counts its answers in SOCKD_SCOREBOARD, a trial by canary-workers";
    let hidden = "warning: with show = false in [requests] no answers are counted: a trial by canary-workers";
    assert!(found("/bin/sh", true).starts_with(unless), "{}", found("/bin/sh", true));
    assert!(found("/bin/sh", false).starts_with(hidden), "{}", found("/bin/sh", false));
    // Python's servers count; what is only called like one is executed as it is.
    program("gunicorn", "#!/usr/bin/python3\n");
    let quiet = found("ETC/gunicorn web:app", true);
    assert!(!quiet.contains("canary-workers"), "{quiet}");
    let silent = found("ETC/gunicorn web:app", false);
    assert!(silent.starts_with(hidden), "{silent}");
    program("gunicorn", "#!/bin/sh\n");
    let wrapper = found("ETC/gunicorn web:app", true);
    assert!(wrapper.starts_with(unless), "{wrapper}");
    // Without the setting there is no trial.
    instances.file("none.toml", "command = [\"/bin/sh\"]\n[reload]\ncanary-time = \"5min\"\n");
    assert_eq!(instances.text(Some("none")), "ok\n");
}

#[test]
fn the_page_of_an_operators_own_must_be_one() {
    let instances = Instances::new("page");
    let page = instances.0.join("page.html");
    instances.file("page.toml", &format!("command = [\"/bin/sh\"]\n[fallback]\npage = {page:?}\n"));
    let text = instances.text(Some("page"));
    assert!(text.starts_with("error: cannot use page.html: No such file or directory"), "{text}");
    assert!(
        text.contains("help: name an HTML file in UTF-8 of at most 256 KiB") && text.ends_with("1 problem\n"),
        "{text}"
    );
    instances.file("page.html", "<p>Later</p>");
    assert_eq!(instances.text(Some("page")), "ok\n");
}

#[test]
fn a_command_is_checked_from_here() {
    let words =
        |words: &[&str]| Arguments { command: words.iter().map(OsString::from).collect(), ..Arguments::default() };
    let text = |arguments| {
        let subjects = subjects(&arguments, Path::new("/nowhere")).expect("a command is enough");
        report(&subjects.into_iter().map(|subject| (subject.name.clone(), check(subject))).collect::<Vec<_>>(), false)
    };
    assert_eq!(text(words(&["sh", "-c", "true"])), "ok\n");
    let missing = text(words(&["/nowhere/gunicorn", "a:b"]));
    assert!(missing.starts_with("error: cannot execute /nowhere/gunicorn: /nowhere does not exist\n"), "{missing}");
    assert!(missing.ends_with("\n1 problem\n"), "{missing}");
}

#[test]
fn nothing_to_look_at_is_reported() {
    let instances = Instances::new("nothing");
    let why = |target: &str, place: &Path| {
        let target = (!target.is_empty()).then(|| target.to_owned());
        subjects(&Arguments { target, ..Arguments::default() }, place).expect_err("there is nothing")
    };
    assert!(why("/nowhere/web.toml", &instances.0).starts_with("cannot read /nowhere/web.toml: No such file"));
    assert!(why("missing.toml", &instances.0).starts_with("cannot read missing.toml: No such file"));
    assert!(why("/etc/systemd/system/web.service", &instances.0).contains("`sockd check web.service`"));
    assert!(why("", Path::new("/nowhere")).starts_with("there is no file /nowhere/*.toml; "));
    for name in ["good.toml", "bad.toml", "dull.toml"] {
        fs::remove_file(instances.0.join(name)).expect("it can be removed");
    }
    assert!(why("", &instances.0).starts_with("there is no file "));
}

#[test]
fn json_tells_the_same() {
    let found = Instances::new("json").found(Some("bad"));
    let value: serde_json::Value = serde_json::from_str(&json(&found)).expect("it is JSON");
    assert_eq!(value[0]["ok"], false);
    let problems = value[0]["problems"].as_array().expect("a list");
    assert_eq!(problems.len(), 2);
    assert_eq!(problems[0]["message"], "unknown key `comand`");
    assert_eq!(problems[0]["help"], "did you mean `command`?");
    assert_eq!((&problems[1]["line"], &problems[1]["column"]), (&3.into(), &9.into()));
    assert_eq!(problems[1]["severity"], "error");
    assert!(problems[1]["file"].as_str().is_some_and(|file| file.ends_with("/bad.toml")));
}

#[test]
fn a_target_and_a_command_exclude_each_other() {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }
    let parse = |line: &str| <Line as clap::Parser>::try_parse_from(line.split(' ')).map(|line| line.arguments);
    assert_eq!(parse("check web --json").expect("it is right").target.as_deref(), Some("web"));
    assert_eq!(parse("check -- run --json").expect("it is right").command, ["run", "--json"]);
    assert!(parse("check web -- run").is_err());
}

#[test]
fn a_working_directory_behind_a_link_that_reloads_would_not_follow_is_named() {
    let instances = Instances::new("link");
    fs::create_dir(instances.0.join("1")).expect("made");
    let release = instances.0.join("1").canonicalize().expect("there");
    let current = instances.0.join("current");
    std::os::unix::fs::symlink("1", &current).expect("linked");
    let found = |directory: &Path, option: Option<&Path>| {
        let options =
            Options { command: vec!["/bin/sh".into()], directory: option.map(Path::to_owned), ..Options::default() };
        check(Subject { directory: directory.to_owned(), ..Subject::here(String::new(), options).expect("here") })
    };
    let text = found(&current, None).render(false);
    assert!(text.contains(&format!("leads to {} by a symbolic link", release.display())), "{text}");
    assert!(text.contains(&format!("write `--directory {}` behind", current.display())), "{text}");
    assert!(found(&current, Some(&current)).is_empty() && found(&release, None).is_empty());
}
