//! The Debian package: installed, used, upgraded, removed and purged with dpkg.
//!
//! Owns: where the package comes from, and what its life must look like.
//! Must never: build it more than once in a run, or take a stale one for new.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::machine::Machine;
use crate::units;

/// Where the package lies inside.
const PACKAGE: &str = "/opt/sockd.deb";
/// How long a first page may take on a slow host that runs two machines.
const PATIENCE: Duration = Duration::from_secs(30);
/// Everything that may be left of the package, for a shell to expand.
const TRACES: &str = "/usr/bin/sockd /usr/lib/systemd/system/sockd@* /etc/sockd /run/sockd /usr/share/doc/sockd \
                      /etc/systemd/system/*.wants/sockd@* /var/lib/dpkg/info/sockd.*";

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
    PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim_end())
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
        "README.md",
        "changelog.gz",
        "copyright",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "examples/default.toml",
        "examples/gunicorn.socket",
        "examples/gunicorn.service",
        "examples/better/gunicorn.service",
    ] {
        let path = format!("./usr/share/doc/sockd/{file}\n");
        assert!(contents.contains(&path), "{path} is not among\n{contents}");
    }
    machine.run("systemctl list-units --all --plain --no-legend 'sockd@*' | wc -l").says("0\n").succeeded();
    machine.run("find /etc/systemd -name 'sockd*' | wc -l").says("0\n").succeeded();
    units::the_template_is_sound(machine);
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

    let main = "systemctl show --property MainPID,NRestarts sockd@web.service";
    let before = machine.run(main).succeeded();
    machine.run(&format!("dpkg --install {PACKAGE}")).says("sockd").succeeded();
    assert_eq!(machine.run(main).succeeded(), before, "the upgrade restarted an instance");
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
    machine.run("dpkg --remove sockd").succeeded();
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
