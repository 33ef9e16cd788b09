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

/// With PrivatePIDs= what ExecReload= starts has processes of its own: `sockd reload` is for outside.
const APART: &str = "PrivatePIDs=yes";

/// Lines that came later, by the systemd that knows them first, and settings that are no sandbox: what a unit may have
/// besides. Those that have nothing to do with each other are tried together.
const MORE: [(u32, &str); 24] = [
    (257, APART),
    (257, "PrivateUsers=identity"),
    (258, "PrivateUsers=full"),
    (257, "ProtectControlGroups=private"),
    (257, "ProtectControlGroups=strict"),
    (257, "ProtectControlGroups=strict\nDelegate=yes"),
    (258, "ProtectHostname=private"),
    (257, "PrivateTmp=disconnected"),
    (254, "Type=notify-reload\nExecReload=\nMemoryKSM=yes\nRestartMode=direct"),
    (0, "PrivateMounts=yes\nPrivateIPC=yes\nMountAPIVFS=yes"),
    (0, "NoExecPaths=/\nExecPaths=/usr /srv"),
    (0, "RestrictFileSystems=~fuse overlay\nSocketBindDeny=any\nRestrictNetworkInterfaces=lo"),
    (0, "SystemCallFilter=@system-service\nSystemCallErrorNumber=EPERM"),
    (0, "ReadOnlyPaths=/"),
    (0, "TemporaryFileSystem=/sys\nTemporaryFileSystem=/tmp:ro /var/tmp:ro /dev/shm:ro"),
    (0, "KillMode=process\nNotifyAccess=none"),
    (0, "KillMode=control-group\nKillSignal=SIGQUIT\nNotifyAccess=all"),
    (0, "KillMode=mixed\nKillSignal=SIGINT\nSendSIGHUP=yes\nTimeoutStopSec=2"),
    (0, "StandardError=null\nStandardOutput=null"),
    (0, "StandardError=file:/dev/full"),
    (0, "LogNamespace=hardened"),
    (0, "LimitMEMLOCK=0\nLimitSIGPENDING=0\nLimitMSGQUEUE=0\nLimitCORE=0\nLimitLOCKS=0\nLimitNICE=0\nLimitRTPRIO=0"),
    (0, "LimitFSIZE=64M\nLimitSTACK=512K\nLimitAS=1G"),
    (
        0,
        "CPUSchedulingPolicy=idle\nIOSchedulingClass=idle\nNice=19\nOOMScoreAdjust=1000\nTimerSlackNSec=1s\n\
         UnsetEnvironment=PATH HOME USER LOGNAME SHELL\nEnvironment=TMPDIR=/nowhere LANG=C\nWatchdogSec=10s\n\
         FileDescriptorStoreMax=4\nIgnoreSIGPIPE=no\nSupplementaryGroups=\nAmbientCapabilities=\nSecureBits=noroot",
    ),
];

/// The exit status where systemd says that it does not know a line.
const NOT_KNOWN: i32 = 9;

/// Restarts under the lines of /tmp/lines, and tries all that a site must do.
const TRY: &str = "\
place=/etc/systemd/system/hardened.service.d
mkdir -p $place; (echo '[Service]'; cat /tmp/lines) > $place/line.conf
journalctl -q -n 0 --show-cursor | sed 's/^-- cursor: //' > /tmp/cursor
systemctl daemon-reload; journalctl --sync
! journalctl -q -o cat --after-cursor \"$(cat /tmp/cursor)\" | grep 'hardened.service.d/line.conf:.*ignoring' || exit 9
systemctl restart hardened || { systemctl status hardened; exit 1; }
curl -fsS -m 10 --unix-socket /run/hardened/web.sock localhost | grep -q fine || { echo 'no answer'; exit 1; }
reload='systemctl reload'; ! grep -q PrivatePIDs= /tmp/lines || reload='sockd reload'
$reload hardened || { journalctl -u hardened -n 20 --no-pager; exit 1; }
curl -fsS -m 10 --unix-socket /run/hardened/web.sock localhost | grep -q fine || { echo 'no answer after the reload'; exit 1; }
systemctl show -p StatusText hardened | grep -q 'generation 2' || { echo 'not reloaded'; exit 1; }
grep -q PrivateNetwork= /tmp/lines || sockd status hardened | grep -q '1 of 1 ready' || { sockd status hardened; exit 1; }
";

/// Who is outside may reload it, too.
const RELOAD: &str = "grep -q PrivateNetwork= /tmp/lines || sockd reload hardened || exit 1\n";

pub fn each_line_serves(machine: &Machine) {
    machine.write_file("/etc/systemd/system/hardened.service", 0o644, UNIT);
    machine.write_file("/etc/sockd/hardened.toml", 0o644, CONFIGURATION);
    let together: Vec<&str> = LINES.into_iter().filter(|line| !matches!(*line, UNSEEN | "DynamicUser=yes")).collect();
    let together = together.join("\n");
    let mut failed = Vec::new();
    let recommended = LINES.into_iter().chain([together.as_str()]).map(|lines| (0, lines, RELOAD));
    for (since, lines, more) in recommended.chain(MORE.map(|(since, lines)| (since, lines, ""))) {
        machine.write_file("/tmp/lines", 0o644, &format!("{lines}\n"));
        let tried = machine.run(&format!("{TRY}{more}"));
        match (tried.code == NOT_KNOWN, since > machine.release().systemd()) {
            (true, true) => crate::left_out(
                &lines.replace('\n', " "),
                &format!("systemd {} does not know it", machine.release().systemd()),
            ),
            (false, false) if tried.code == 0 => {}
            (true, false) | (false, _) => failed.push(format!("{lines}: {tried}")),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    machine.run("systemctl stop hardened; systemctl stop systemd-journald@hardened.service").succeeded();
}
