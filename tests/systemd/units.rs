//! The unit files that are shipped, as both versions of systemd read them.
//!
//! Owns: what must hold of `units/`: no warning from `systemd-analyze verify`, the sandbox's mark, and examples that
//! are the guide's own.
//! Must never: start a unit; that is for `package` and the guide.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::guide;
use crate::machine::{Machine, quote};

/// How long two workers may take on a slow host.
const PATIENCE: Duration = Duration::from_secs(60);
/// What `systemd-analyze security` may say at most: 0 is a closed box, 10 an open one.
const EXPOSURE_LIMIT: f32 = 2.0;

/// The unit files of this repository.
fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("units")
}

/// Brings the program and the template units to where the package would.
pub fn install(machine: &Machine) {
    machine.copy_in(env!("CARGO_BIN_EXE_sockd"), "/usr/bin/sockd");
    for unit in ["sockd@.socket", "sockd@.service"] {
        machine.copy_in(units().join(unit), &format!("/usr/lib/systemd/system/{unit}"));
    }
    machine.run("systemctl daemon-reload").succeeded();
}

/// Fails the test unless systemd has nothing at all to say about these units or files.
pub fn verify(machine: &Machine, which: &str) {
    let said = machine.run(&format!("systemd-analyze --man=no verify {which} 2>&1"));
    assert!(said.code == 0 && said.stdout.is_empty(), "{said}");
}

/// The template units, for a name that needs no escaping and for one that does.
pub fn the_template_is_sound(machine: &Machine) {
    for name in ["web", r"my\x2dsite", "shop.example.com"] {
        verify(machine, &quote(&format!("sockd@{name}.socket")));
        verify(machine, &quote(&format!("sockd@{name}.service")));
    }
    let (exposure, table) = exposure(machine);
    assert!(exposure <= EXPOSURE_LIMIT, "{exposure} is more than {EXPOSURE_LIMIT}:\n{table}");
}

/// The mark of an instance, and what it is made of.
fn exposure(machine: &Machine) -> (f32, String) {
    let table = machine.run("systemd-analyze --no-pager security sockd@web.service").succeeded();
    let exposure = table.split("sockd@web.service: ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let exposure = exposure.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no mark in {table}"));
    (exposure, table)
}

/// The drop-ins for a stricter and for a laxer sandbox do what they say, and a site serves in both.
pub fn the_other_sandboxes_serve(machine: &Machine) {
    let application = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'fine']\n";
    machine.write_file("/srv/web/web.py", 0o644, application);
    let configuration =
        "command = [\"/srv/venv/bin/gunicorn\", \"--workers\", \"2\", \"web:app\"]\ndirectory = \"/srv/web\"\n";
    machine.write_file("/etc/sockd/web.toml", 0o644, configuration);
    machine.run("cp -r /home/sammy/myprojectdir/myprojectenv /srv/venv; sed -i 's,/home/sammy/myprojectdir/myprojectenv,/srv/venv,' /srv/venv/bin/gunicorn").succeeded();
    machine.run("systemctl start sockd@web.socket").succeeded();
    let (shipped, _) = exposure(machine);
    for (sandbox, stricter, directives) in [
        ("stricter.conf", true, "MemoryDenyWriteExecute=yes UMask=0077"),
        ("laxer.conf", false, "ProtectHome=no PrivateTmp=no NoNewPrivileges=no RestrictNamespaces=no"),
    ] {
        let place = "/etc/systemd/system/sockd@web.service.d";
        machine.run(&format!("rm -rf {place}")).succeeded();
        machine.copy_in(units().join("examples").join(sandbox), &format!("{place}/{sandbox}"));
        machine.run("systemctl daemon-reload; systemctl restart sockd@web.service").succeeded();
        verify(machine, "sockd@web.service");
        let (mark, table) = exposure(machine);
        assert_eq!(mark < shipped, stricter, "{sandbox}: {mark}, shipped: {shipped}\n{table}");
        for directive in directives.split(' ') {
            let (key, value) = directive.split_once('=').expect("a directive");
            let said = machine.run(&format!("systemctl show --property {key} sockd@web.service")).succeeded();
            assert_eq!(said.trim_end(), format!("{key}={value}"), "{sandbox}");
        }
        machine.run("curl -fsS --unix-socket /run/sockd/web.sock localhost").says("fine").succeeded();
        machine.wait_for("both workers", PATIENCE, "sockd status sockd@web | grep '2 of 2 ready'");
        machine.run("systemctl reload sockd@web.service").succeeded();
        machine.run("curl -fsS --unix-socket /run/sockd/web.sock localhost").says("fine").succeeded();
    }
}

/// Every example, in a directory of its own as `systemctl` would find it.
pub fn the_examples_are_sound(machine: &Machine) {
    let examples = units().join("examples");
    for (service, place) in [("gunicorn.service", "/opt/guide"), ("better/gunicorn.service", "/opt/better")] {
        machine.copy_in(examples.join(service), &format!("{place}/gunicorn.service"));
        machine.copy_in(examples.join("gunicorn.socket"), &format!("{place}/gunicorn.socket"));
        verify(machine, &format!("{place}/gunicorn.service {place}/gunicorn.socket"));
    }
}

/// A reader of the guide finds every word of it again.
#[test]
fn the_guides_pair_is_the_guides_pair() {
    let read = |name: &str| std::fs::read_to_string(units().join("examples").join(name)).expect(name);
    assert_eq!(read("gunicorn.socket"), guide::SOCKET_UNIT);
    assert_eq!(read("gunicorn.service"), guide::service_unit("/usr/bin/sockd run -- ", ""));
    let readme = std::fs::read_to_string(units().with_file_name("README.md")).expect("README.md");
    for line in read("gunicorn.service").lines().filter(|line| line.contains("ExecStart") || line.starts_with("  ")) {
        assert!(readme.contains(line), "the README does not show {line:?}");
    }
}
