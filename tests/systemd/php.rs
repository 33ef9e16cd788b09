//! PHP-FPM behind Nginx, as Debian sets it up, with sockd in front of its command line.
//!
//! Owns: two pools on a unix and a TCP socket of systemd's, and what must hold: both serve, a killed master is replaced
//! with its children, a reload loses nothing, no signal that others send takes the site away, a mistake in a pool is
//! refused with PHP-FPM's own words, a stop leaves nothing behind, and the socket's file stays through all of it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::life;
use crate::load::{Load, list};
use crate::machine::{Machine, Release};
use crate::signals::all_at_once;

const PATIENCE: Duration = Duration::from_secs(60);
const SOCKET: &str = "/run/php/php-fpm.sock";
/// Where Nginx itself listens, for visitors without a network.
const NGINX: &str = "/run/nginx-of-php.sock";

/// A signal ends a sleep.
const PAGE: &str = "<?php
if (isset($_GET['slow'])) { touch('/tmp/asked'); for ($i = 0; $i < 40; $i++) usleep(50000); }
usleep(20000);
echo 'hello from ', getmypid();
";

const SITE: &str = "server {
    listen 8080;
    listen unix:/run/nginx-of-php.sock;
    include fastcgi_params;
    fastcgi_param SCRIPT_FILENAME /srv/site/index.php;
    location / { fastcgi_pass unix:/run/php/php-fpm.sock; }
    location /tcp { fastcgi_pass 127.0.0.1:9001; }
}
";

const SERVICE: &str = "[Unit]
Requires=php.socket
After=php.socket

[Service]
Type=notify
NotifyAccess=main
ExecStart=/usr/bin/sockd run -- PROGRAM
ExecReload=/usr/bin/sockd reload
KillMode=mixed
Delegate=yes
RuntimeDirectory=sockd-%N
";

/// The pools of Debian's package, the second one on a port.
fn pools(machine: &Machine, version: &str, more: &str) {
    let pool = |name: &str, listen: &str| {
        let text = format!(
            "[{name}]\nuser = www-data\ngroup = www-data\nlisten = {listen}\nlisten.owner = www-data\npm = dynamic\n\
             pm.max_children = 5\npm.start_servers = 2\npm.min_spare_servers = 1\npm.max_spare_servers = 3\n{more}"
        );
        machine.write_file(&format!("/etc/php/{version}/fpm/pool.d/{name}.conf"), 0o644, &text);
    };
    pool("www", SOCKET);
    pool("tcp", "127.0.0.1:9001");
}

fn workers(machine: &Machine) -> BTreeSet<u64> {
    machine.wait_until("the worker", PATIENCE, || {
        let status: Value = serde_json::from_str(&machine.run("sockd status --json php").stdout).ok()?;
        let status = &status[0]["sockd"];
        let one = status["workers"].as_array()?.len() == 1 && status["workers"][0]["state"] == "ready";
        one.then(|| life::workers(status))
    })
}

/// See the head of this file.
pub fn lives(machine: &Machine) {
    let version = match machine.release() {
        Release::Bookworm => "8.2",
        Release::Trixie => "8.4",
    };
    pools(machine, version, "");
    machine.write_file("/srv/site/index.php", 0o644, PAGE);
    machine.write_file("/etc/nginx/sites-enabled/php", 0o644, SITE);
    let socket =
        format!("[Socket]\nListenStream={SOCKET}\nListenStream=127.0.0.1:9001\nSocketUser=www-data\nSocketMode=0660\n");
    machine.write_file("/etc/systemd/system/php.socket", 0o644, &socket);
    let service = SERVICE.replace("PROGRAM", &format!("/usr/sbin/php-fpm{version}"));
    machine.write_file("/etc/systemd/system/php.service", 0o644, &service);
    machine.run("systemctl daemon-reload; systemctl start php.socket nginx").succeeded();
    let visit = |path: &str| machine.run(&format!("curl -sS 127.0.0.1:8080{path}")).says("hello from ").succeeded();

    visit("/");
    visit("/tcp");
    let first = workers(machine);
    let child: u64 = visit("/")["hello from ".len()..].trim().parse().expect("a pid");
    machine.run(&format!("kill -KILL {}", first.first().expect("one"))).succeeded();
    machine.wait_for("the end of its children", PATIENCE, &format!("test ! -e /proc/{child}"));
    visit("/");
    assert!(workers(machine).is_disjoint(&first), "the dead one is shown as alive");

    let old = workers(machine);
    let load = Load::begin(machine, &[NGINX]);
    load.wait_for_visits(50);
    machine.run("systemctl reload php").succeeded();
    load.wait_for_visits(50);
    let record = load.finish();
    let failed: Vec<_> = record.failed().collect();
    assert!(failed.is_empty(), "a good reload lost:\n{}", list(failed.into_iter()));
    machine.wait_until("the new worker alone", PATIENCE, || {
        Some(workers(machine)).filter(|workers| workers.is_disjoint(&old))
    });
    machine.run(&format!("test -S {SOCKET}")).succeeded();

    signals_are_sent(machine);
    visit("/");
    visit("/tcp");
    let new = workers(machine);

    pools(machine, version, "pm.nonsense = 1\n");
    assert_ne!(machine.run("systemctl reload php").code, 0, "a broken reload was reported as a good one");
    let journal = machine.journal("php");
    let refusal = journal.lines().find(|line| line.contains(" refused: exit 78: ")).unwrap_or_default();
    let mistake = format!("[/etc/php/{version}/fpm/pool.d/tcp.conf:11] unknown entry 'pm.nonsense'");
    assert!(refusal.contains(&mistake), "{journal}");
    assert_eq!(workers(machine), new);
    visit("/");
    visit("/tcp");

    let visitor = machine.spawn("curl -sS -o /dev/null 127.0.0.1:8080/?slow");
    machine.wait_for("a request of some length", PATIENCE, "test -e /tmp/asked");
    machine.run("systemctl stop --no-block php").succeeded();
    machine.wait_for("the stop", PATIENCE, "systemctl show -p ActiveState php | grep deactivating");
    machine.run(&all_at_once("php")).succeeded();
    visitor.finish();
    machine.run("systemctl stop php").succeeded();
    machine.run("systemctl show -P Result php").says("success\n").succeeded();
    machine.run(&format!("test -S {SOCKET}; ! pgrep -l php-fpm")).succeeded();
    machine.run("systemctl stop php.socket nginx").succeeded();
}

/// To sockd, the master and its children, while they serve and while they are replaced; and then without any.
fn signals_are_sent(machine: &Machine) {
    let sockd = "systemctl show -P MainPID php";
    let before = machine.run(sockd).succeeded();
    let generation = || {
        let status: Value = serde_json::from_str(&machine.run("sockd status --json php").stdout).ok()?;
        status[0]["sockd"]["generation"].as_u64()
    };
    let visit = |path: &str| {
        machine.wait_for("the page", PATIENCE, &format!("curl -sS 127.0.0.1:8080{path} | grep '^hello from '"));
    };
    the_master_executes_itself(machine);
    visit("/");
    visit("/tcp");
    machine.run(&all_at_once("php")).succeeded();
    visit("/");
    visit("/tcp");
    let reload = machine.spawn("systemctl reload php");
    machine.wait_for("the rollout to begin", PATIENCE, "sockd status php | grep -F '(reload: '");
    machine.run(&all_at_once("php")).succeeded();
    // It ends, whichever way.
    reload.finish();
    visit("/");
    visit("/tcp");
    let last = machine.wait_until("a generation", PATIENCE, generation);
    machine.run("systemctl reload php").succeeded();
    assert!(generation() > Some(last), "{:?} after {last}", generation());
    assert_eq!(machine.run(sockd).succeeded(), before, "sockd has lived through it");
}

/// SIGUSR2 is PHP-FPM's own reload: the process stays, and its children are others.
fn the_master_executes_itself(machine: &Machine) {
    let before = workers(machine);
    let master = before.first().expect("one");
    let children = || -> BTreeSet<String> {
        machine.run(&format!("pgrep -P {master} || true")).stdout.lines().map(str::to_owned).collect()
    };
    let old = children();
    machine.run(&format!("kill -USR2 {master}")).succeeded();
    machine.wait_until("other children", PATIENCE, || {
        let now = children();
        (!now.is_empty() && now.is_disjoint(&old)).then_some(())
    });
    assert_eq!(workers(machine), before);
    machine.run(&format!("test -S {SOCKET}")).succeeded();
}
