//! Each line that `systemd-analyze security` asks for, one by one and all together: the site serves, a reload does, and
//! `sockd status` sees it.
//!
//! Owns: the unit `hardened` and its drop-ins. Must never: ask that a line be left out.

use crate::machine::Machine;

/// A unit with none of them. gunicorn is the one that `units::the_other_sandboxes_serve` has put there.
const UNIT: &str = r"[Unit]
StartLimitIntervalSec=0

[Service]
Type=notify
User=www-data
RuntimeDirectory=hardened
WorkingDirectory=/srv/web
ExecStart=/usr/bin/sockd run --config /etc/sockd/hardened.toml --listen unix:/run/hardened/web.sock --start at-once \
          -- /srv/venv/bin/gunicorn web:app
ExecReload=/usr/bin/sockd reload
";

/// Nobody is to be watched for long here.
const CONFIGURATION: &str = "[reload]\nsoak = \"100ms\"\n";

/// With PrivateNetwork= the control socket is seen from within alone: `systemctl reload` comes from there.
const UNSEEN: &str = "PrivateNetwork=yes";

const LINES: [&str; 37] = [
    UNSEEN,
    "PrivateDevices=yes",
    "PrivateTmp=yes",
    "PrivateUsers=yes",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "ProtectHome=tmpfs",
    "ProtectProc=invisible",
    "ProtectProc=noaccess",
    "ProcSubset=pid",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectControlGroups=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "NoNewPrivileges=yes",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "RestrictAddressFamilies=AF_UNIX",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    "LockPersonality=yes",
    "MemoryDenyWriteExecute=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@clock @cpu-emulation @debug @module @mount @obsolete @raw-io @reboot @swap",
    "SystemCallFilter=~@privileged",
    "SystemCallFilter=~@resources",
    "CapabilityBoundingSet=",
    "RemoveIPC=yes",
    "UMask=0077",
    "KeyringMode=private",
    "IPAddressDeny=any",
    "DevicePolicy=closed",
    "DynamicUser=yes",
    "Delegate=yes",
];

/// Restarts under the lines of /tmp/lines, and tries all that a site must do.
const TRY: &str = "\
place=/etc/systemd/system/hardened.service.d
mkdir -p $place; (echo '[Service]'; cat /tmp/lines) > $place/line.conf
systemctl daemon-reload && systemctl restart hardened || { systemctl status hardened; exit 1; }
curl -fsS -m 10 --unix-socket /run/hardened/web.sock localhost | grep -q fine || { echo 'no answer'; exit 1; }
systemctl reload hardened || { journalctl -u hardened -n 20 --no-pager; exit 1; }
curl -fsS -m 10 --unix-socket /run/hardened/web.sock localhost | grep -q fine || { echo 'no answer after the reload'; exit 1; }
systemctl show -p StatusText hardened | grep -q 'generation 2' || { echo 'not reloaded'; exit 1; }
grep -q PrivateNetwork= /tmp/lines || sockd status hardened | grep -q '1 of 1 ready' || { sockd status hardened; exit 1; }
grep -q PrivateNetwork= /tmp/lines || sockd reload hardened || exit 1
";

pub fn each_line_serves(machine: &Machine) {
    machine.write_file("/etc/systemd/system/hardened.service", 0o644, UNIT);
    machine.write_file("/etc/sockd/hardened.toml", 0o644, CONFIGURATION);
    let together: Vec<&str> = LINES.into_iter().filter(|line| !matches!(*line, UNSEEN | "DynamicUser=yes")).collect();
    let mut failed = Vec::new();
    for lines in LINES.into_iter().map(str::to_owned).chain([together.join("\n")]) {
        machine.write_file("/tmp/lines", 0o644, &format!("{lines}\n"));
        let tried = machine.run(TRY);
        if tried.code != 0 {
            failed.push(format!("{lines}: {tried}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    machine.run("systemctl stop hardened").succeeded();
}
