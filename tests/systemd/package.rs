//! What users are given: the Debian package, installed, used, upgraded, removed and purged with dpkg, and the archive, by
//! its own script.
//!
//! Owns: where the package comes from, and what its life must look like.
//! Must never: build it more than once in a run, or take a stale one for new.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::load::{Load, list};
use crate::machine::Machine;
use crate::units;

/// Where the package lies inside.
const PACKAGE: &str = "/opt/sockd.deb";
/// The requests that must have come to an end after an upgrade.
const SOME_VISITS: u64 = 40;
/// How long a first page may take on a slow host that runs two machines.
const PATIENCE: Duration = Duration::from_secs(30);
/// Everything that may be left of the package, for a shell to expand.
const TRACES: &str = "/usr/bin/sockd /usr/lib/systemd/system/sockd@* /etc/sockd /run/sockd /var/lib/sockd /usr/share/doc/sockd \
                      /etc/systemd/system/*.wants/sockd@* /var/lib/dpkg/info/sockd.* \
                      /usr/share/bash-completion/completions/sockd /usr/share/zsh/vendor-completions/_sockd \
                      /usr/share/fish/vendor_completions.d/sockd.fish";

/// The package: what `SOCKD_TEST_PACKAGE` names, else what `packaging/build` makes of this source.
pub fn package() -> PathBuf {
    static PACKAGE: OnceLock<PathBuf> = OnceLock::new();
    PACKAGE.get_or_init(find).clone()
}

fn find() -> PathBuf {
    if let Some(path) = std::env::var_os("SOCKD_TEST_PACKAGE") {
        return path.into();
    }
    let build = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/build");
    let output = Command::new(build).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.unwrap_or_else(|e| panic!("cannot run {build}: {e}"));
    assert!(output.status.success(), "{build} failed, see above");
    let paths = String::from_utf8(output.stdout).expect("paths");
    PathBuf::from(paths.lines().next().expect("the package's"))
}

/// Installs the package as an administrator would.
pub fn install(machine: &Machine) {
    machine.copy_in(package(), PACKAGE);
    machine.run(&format!("dpkg --install {PACKAGE}")).succeeded();
}

/// What is in it, and what installing it does and does not do.
pub fn installs_what_it_should(machine: &Machine) {
    install(machine);
    machine.run("sockd --version").says(concat!("sockd ", env!("CARGO_PKG_VERSION"), "\n")).succeeded();
    // One package for every system: the program asks for no symbol of a newer C library.
    machine.run("dpkg-query -W -f '${Depends}' sockd").says("libc6 (>= 2.17)");
    machine.run("grep -ao 'GLIBC_2[.0-9]*' /usr/bin/sockd | sort -uV | tail -n1").says("GLIBC_2.17\n").succeeded();
    machine.run("dpkg --verify sockd; dpkg-query -W -f '${Version}\n' sockd").says(env!("CARGO_PKG_VERSION"));
    machine
        .run("stat -c '%a %U %n' /usr/lib/systemd/system/sockd@.*; stat -c '%a %U %n' /usr/bin/sockd /etc/sockd")
        .says("644 root /usr/lib/systemd/system/sockd@.service")
        .says("644 root /usr/lib/systemd/system/sockd@.socket")
        .says("755 root /usr/bin/sockd")
        .says("755 root /etc/sockd")
        .succeeded();
    // Documentation is left out when packages are installed in a test machine, so it is looked for in the package.
    let contents = machine.run(&format!("dpkg-deb --contents {PACKAGE} | awk '{{ print $6 }}'")).succeeded();
    for file in [
        "doc/sockd/README.md",
        "doc/sockd/CHANGELOG.md",
        "doc/sockd/changelog.gz",
        "doc/sockd/copyright",
        "doc/sockd/LICENSE-MIT",
        "doc/sockd/LICENSE-APACHE",
        "doc/sockd/examples/default.toml",
        "doc/sockd/examples/gunicorn.socket",
        "doc/sockd/examples/gunicorn.service",
        "doc/sockd/examples/better/gunicorn.service",
        "doc/sockd/examples/stricter.conf",
        "doc/sockd/examples/laxer.conf",
        "doc/sockd/monitoring/sockd.rules.yml",
        "doc/sockd/monitoring/sockd-dashboard.json",
        "man/man1/sockd.1.gz",
        "man/man1/sockd-adopt.1.gz",
        "man/man1/sockd-doctor.1.gz",
        "man/man5/sockd-scoreboard.5.gz",
        "man/man5/sockd.toml.5.gz",
        "man/man7/sockd-cookbook.7.gz",
        "man/man8/sockd@.service.8.gz",
        "bash-completion/completions/sockd",
        "zsh/vendor-completions/_sockd",
        "fish/vendor_completions.d/sockd.fish",
    ] {
        let path = format!("./usr/share/{file}\n");
        assert!(contents.contains(&path), "{path} is not among\n{contents}");
    }
    machine.run("systemctl list-units --all --plain --no-legend 'sockd@*' | wc -l").says("0\n").succeeded();
    machine.run("find /etc/systemd -name 'sockd*' | wc -l").says("0\n").succeeded();
    units::the_template_is_sound(machine);
}

/// The archive that was made with the package: its script installs the same program, and takes it away again.
pub fn the_archive_is_installed_and_removed(machine: &Machine) {
    let name = format!("sockd-{}-{}-linux", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    machine.copy_in(package().with_file_name(format!("{name}.tar.gz")), "/opt/sockd.tar.gz");
    machine.run("tar -xf /opt/sockd.tar.gz -C /opt; printf x >/opt/broken; chmod 755 /opt/broken").succeeded();
    let install = format!("/opt/{name}/install");
    let files = "find /usr/local /etc/systemd -type f | sort";
    let before = machine.run(files).succeeded();
    for (options, refusal) in [
        ("--prefix relative", "must be an absolute path"),
        ("--program /nowhere", "there is no program /nowhere"),
        ("--program /opt/broken", "this program does not run here"),
        ("--prefix '/opt/a&b'", "--prefix takes letters"),
        ("--everything", "'--everything' is not an option"),
    ] {
        machine.run(&format!("! {install} {options} 2>&1")).says(refusal).succeeded();
        assert_eq!(machine.run(files).succeeded(), before, "{options}");
    }
    machine.run(&format!("umask 077; {install}")).says("installed sockd").says("in /usr/local/bin").succeeded();
    machine.run("/usr/local/bin/sockd --version").says(env!("CARGO_PKG_VERSION")).succeeded();
    machine.run("systemctl cat sockd@web.service").says("ExecStart=/usr/local/bin/sockd run --config").succeeded();
    machine.run("stat -c %a /usr/local/lib/systemd/system").says("755\n").succeeded();
    // An adopted service would not start again.
    let drop_in = "/etc/systemd/system/gunicorn.service.d/sockd.conf";
    machine.write_file(drop_in, 0o644, "[Service]\nExecStart=/usr/local/bin/sockd run -- gunicorn\n");
    machine.run(&format!("! {install} --uninstall 2>&1")).says(drop_in).says("sockd adopt --undo").succeeded();
    machine.run("/usr/local/bin/sockd --version; rm -r /etc/systemd/system/gunicorn.service.d").succeeded();
    machine.run(&format!("{install} --uninstall")).succeeded();
    assert_eq!(machine.run(files).succeeded(), before, "left behind");
    machine.run("! systemctl cat sockd@web.service").succeeded();
    machine.run(&format!("rmdir /etc/sockd; rm -r /opt/{name} /opt/sockd.tar.gz /opt/broken")).succeeded();
}

/// The package has no fault that Debian's own checker knows, where that is installed on the host. Warnings are faults
/// too; what is meant has its reason in `packaging/lintian-overrides`.
#[test]
fn lintian_finds_nothing() {
    let lintian =
        |arguments: &[&std::ffi::OsStr]| Command::new("lintian").args(arguments).stdin(Stdio::null()).output();
    if lintian(&["--version".as_ref()]).is_err() {
        return crate::left_out("lintian_finds_nothing", "lintian is not installed");
    }
    let output = lintian(&["--fail-on=error,warning".as_ref(), package().as_os_str()]).expect("it has a version");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

/// The Debian changelog begins with the program's version.
#[test]
fn the_changelogs_name_the_version() {
    let read =
        |name: &str| std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/").to_owned() + name).expect(name);
    assert!(read("packaging/changelog").starts_with(concat!("sockd (", env!("CARGO_PKG_VERSION"), ") ")));
    assert!(read("CHANGELOG.md").contains(concat!("## [", env!("CARGO_PKG_VERSION"), "]")));
}

/// An instance of the template serves from its sandbox, reloads, and an upgrade leaves it alone.
pub fn an_instance_lives_through_an_upgrade(machine: &Machine) {
    machine.write_file(
        "/etc/sockd/web.toml",
        0o644,
        "command = [\"/home/sammy/myprojectdir/myprojectenv/bin/gunicorn\", \"hello:app\"]\n\
         directory = \"/srv/web\"\n\
         [workers]\ncount = 2\n[reload]\nsoak = \"100ms\"\n",
    );
    machine.write_file("/srv/web/hello.py", 0o644, &application("first"));
    machine.run("systemctl enable --now sockd@web.socket").succeeded();
    machine.run("stat -c '%a %G' /run/sockd/web.sock").says("660 www-data").succeeded();
    let ask = "curl -fsS --unix-socket /run/sockd/web.sock localhost";
    machine.run_as("sammy", ask).says("first from www-data").succeeded();
    machine.run("systemctl is-active sockd@web.service").says("active\n").succeeded();
    machine.run("stat -c '%a %U' /run/sockd/web").says("700 www-data").succeeded();

    let main = "systemctl show --property MainPID,NRestarts,ActiveEnterTimestampMonotonic \
                sockd@web.service sockd@web.socket; stat -c '%i %Y' /run/sockd/web.sock";
    let before = machine.run(main).succeeded();
    let load = Load::begin(machine, &["/run/sockd/web.sock"]);
    machine.run(&format!("dpkg --install {PACKAGE}")).says("sockd").succeeded();
    load.wait_for_visits(SOME_VISITS);
    let record = load.finish();
    let failed: Vec<_> = record.failed().collect();
    assert!(failed.is_empty(), "visitors of the upgrade:\n{}", list(failed));
    assert_eq!(machine.run(main).succeeded(), before, "the upgrade restarted an instance or its socket");
    machine.run("systemctl show --property NeedDaemonReload sockd@web.service").says("=no").succeeded();

    machine.write_file("/srv/web/hello.py", 0o644, &application("second"));
    machine.run("systemctl reload sockd@web.service").succeeded();
    machine.wait_for("the new code", PATIENCE, &format!("{ask} | grep second"));
    machine.run(ask).says("second from www-data").succeeded();

    // Broken code is refused, the reason is in the journal, and the site goes on.
    machine.write_file("/srv/web/hello.py", 0o644, "raise RuntimeError('this is broken')\n");
    let refused = machine.run("systemctl reload sockd@web.service");
    assert_eq!(refused.code, 1, "a reload with broken code: {refused}");
    machine.wait_for("the reason", PATIENCE, "journalctl -u sockd@web.service | grep -F 'this is broken'");
    machine.run("systemctl is-active sockd@web.service").says("active\n").succeeded();
    machine.run(ask).says("second from www-data").succeeded();
    machine.write_file("/srv/web/hello.py", 0o644, &application("second"));

    // The socket outlives the service, and takes it along when it goes.
    machine.run("systemctl restart sockd@web.service").succeeded();
    machine.run(ask).says("second").succeeded();
    machine.run("systemctl stop sockd@web.socket").succeeded();
    machine.run("systemctl is-active sockd@web.service || true").says("inactive\n").succeeded();
    machine.run("test ! -e /run/sockd/web.sock; systemctl start sockd@web.socket").succeeded();
    machine.run(ask).says("second").succeeded();
}

fn application(word: &str) -> String {
    format!(
        "import getpass\n\
         def app(environ, start_response):\n    \
             start_response('200 OK', [('Content-Type', 'text/plain')])\n    \
             return [b'{word} from ' + getpass.getuser().encode() + b'\\n']\n"
    )
}

/// Removing stops what cannot go on; purging leaves nothing but what the administrator wrote.
pub fn goes_without_a_trace(machine: &Machine) {
    let drop_in = "/etc/systemd/system/gunicorn.service.d/sockd.conf";
    machine.write_file(drop_in, 0o644, "[Service]\nExecStart=/usr/bin/sockd run -- gunicorn\n");
    machine.run("dpkg --remove sockd 2>&1").says(drop_in).says("cannot be started again").succeeded();
    machine.run("rm -r /etc/systemd/system/gunicorn.service.d").succeeded();
    machine.run("pgrep -c sockd || true").says("0\n").succeeded();
    machine.run("systemctl list-units --plain --no-legend 'sockd@*' | wc -l").says("0\n").succeeded();
    machine.run("test -e /etc/sockd/web.toml; rm /etc/sockd/web.toml").succeeded();
    machine.run("dpkg --purge sockd").succeeded();
    let left = machine.run(&format!(
        "shopt -s nullglob; for trace in {TRACES}; do [ ! -e $trace -a ! -L $trace ] || echo $trace; done"
    ));
    assert_eq!(left.succeeded(), "", "left behind");
    machine.run("systemctl --failed --plain --no-legend | wc -l").says("0\n").succeeded();
}
