//! The guide of two Django projects on uWSGI behind Nginx: what its Emperor did, two instances of sockd do.
//!
//! Owns: the guide's two .ini files and what must hold: each site with its own socket, user and workers, proven,
//! reloaded, refused, added and removed without the other noticing.
//! Must never: lose a request of the site that nothing is done to.

use std::time::Duration;

use crate::adopt::next_command;
use crate::load::{Load, list};
use crate::machine::{Machine, Release, list_processes};
use crate::units;

const PATIENCE: Duration = Duration::from_secs(90);
const WORKERS: usize = 2;
/// The port on which visitors come to the first site, and to no other.
const FIRST: &str = "127.0.0.1:8101";

/// As in the guide, with Debian's uWSGI, whose Python is a plugin, and the other guide's virtual environment.
fn ini(project: &str) -> String {
    format!(
        "[uwsgi]
plugin = python3
project = {project}
uid = sammy
base = /home/%(uid)

chdir = %(base)/%(project)
home = %(base)/myprojectdir/myprojectenv
module = %(project).wsgi:application

master = true
processes = {WORKERS}

socket = /run/uwsgi/%(project).sock
chown-socket = %(uid):www-data
chmod-socket = 660
vacuum = true
"
    )
}

/// A Django project whose page says its name, its user and what its environment says.
fn project(machine: &Machine, name: &str) {
    machine
        .run_as(
            "sammy",
            &format!("mkdir {name}; myprojectdir/myprojectenv/bin/django-admin startproject {name} {name}"),
        )
        .succeeded();
    page(machine, name, name);
    machine
        .run_as("sammy", &format!("sed -i \"s/^ALLOWED_HOSTS = .*/ALLOWED_HOSTS = ['*']/\" {name}/{name}/settings.py"))
        .succeeded();
}

fn page(machine: &Machine, name: &str, text: &str) {
    let source = format!(
        "import os, pwd\nfrom django.http import HttpResponse\nfrom django.urls import path\n\
         text = '{text} by %s in %s' % (pwd.getpwuid(os.getuid()).pw_name, os.environ.get('SITE'))\n\
         urlpatterns = [path('', lambda request: HttpResponse(text))]\n"
    );
    machine.write_file_as("sammy", &format!("/home/sammy/{name}/{name}/urls.py"), 0o644, &source);
}

/// A site of Nginx that passes to the project's uWSGI socket.
fn nginx_site(machine: &Machine, name: &str, listen: &str) {
    let site = format!(
        "server {{\n    listen 80;\n    {listen}\n    server_name {name}.com;\n    location / {{\n        \
         include uwsgi_params;\n        uwsgi_pass unix:/run/uwsgi/{name}.sock;\n    }}\n}}\n"
    );
    machine.write_file(&format!("/etc/nginx/sites-available/{name}"), 0o644, &site);
    machine
        .run(&format!("ln -s /etc/nginx/sites-available/{name} /etc/nginx/sites-enabled; nginx -t 2>&1"))
        .succeeded();
    // Nginx's old processes answer for a moment after a reload.
    machine.run("systemctl reload-or-restart nginx").succeeded();
    machine.wait_for("the new site", PATIENCE, &format!("{} | grep -F {name}", visit(name)));
}

/// An instance for the site: its .ini, its configuration, and what of the template units it changes.
fn add(machine: &Machine, name: &str, nginx: &str) {
    machine.write_file(&format!("/etc/uwsgi/sites/{name}.ini"), 0o644, &ini(name));
    let command = format!("command = [\"/usr/bin/uwsgi\", \"--ini\", \"/etc/uwsgi/sites/{name}.ini\"]\n");
    machine.write_file(&format!("/etc/sockd/{name}.toml"), 0o644, &format!("{command}[reload]\nsoak = \"200ms\"\n"));
    machine.write_file(
        &format!("/etc/systemd/system/sockd@{name}.socket.d/override.conf"),
        0o644,
        &format!("[Socket]\nListenStream=\nListenStream=/run/uwsgi/{name}.sock\nSocketUser=sammy\n"),
    );
    machine.write_file(
        &format!("/etc/systemd/system/sockd@{name}.service.d/override.conf"),
        0o644,
        &format!("[Service]\nUser=sammy\nEnvironment=SITE={name}\n"),
    );
    machine.run(&format!("systemctl daemon-reload; systemctl enable --now sockd@{name}.socket")).succeeded();
    machine.run(&format!("stat -c '%a %U %G' /run/uwsgi/{name}.sock")).says("660 sammy www-data").succeeded();
    nginx_site(machine, name, nginx);
}

fn visit(name: &str) -> String {
    format!("curl -sS -H 'Host: {name}.com' 127.0.0.1")
}

/// The pids of sockd and of all workers of a site, once they are complete.
fn processes(machine: &Machine, name: &str) -> String {
    machine.wait_for(
        &format!("the workers of {name}"),
        PATIENCE,
        &format!("systemctl status sockd@{name} | grep -F 'serving, {WORKERS} of {WORKERS} workers'"),
    );
    let all = list_processes(&format!("system.slice/system-sockd.slice/sockd@{name}.service"));
    machine.run(&format!("({all}) | sort -n")).succeeded()
}

/// The whole life of both.
pub fn two_sites(machine: &Machine) {
    units::install(machine);
    project(machine, "firstsite");
    project(machine, "secondsite");
    machine.run("rm -f /etc/nginx/sites-enabled/default").succeeded();
    add(machine, "firstsite", "listen 8101;");
    machine.run(&visit("firstsite")).says("firstsite by sammy in firstsite").succeeded();
    let first = processes(machine, "firstsite");
    let load = Load::begin(machine, &[FIRST]);

    // The other comes, and goes through what a site may go through.
    add(machine, "secondsite", "");
    machine.run(&visit("secondsite")).says("secondsite by sammy in secondsite").succeeded();
    let second = processes(machine, "secondsite");
    page(machine, "secondsite", "renewed");
    machine.run("systemctl reload sockd@secondsite").succeeded();
    machine.run(&visit("secondsite")).says("renewed by sammy").succeeded();
    machine.write_file_as("sammy", "/home/sammy/secondsite/secondsite/wsgi.py", 0o644, "import a_missing_module\n");
    let refused = machine.run("systemctl reload sockd@secondsite");
    assert_eq!(refused.code, 1, "a reload with broken code: {refused}");
    machine.wait_for(
        "the reason",
        PATIENCE,
        "journalctl -u sockd@secondsite | grep -F \"No module named 'a_missing_module'\"",
    );
    machine.run(&visit("secondsite")).says("renewed by sammy").succeeded();
    // Django's urls are looked at with the first request: uWSGI alone would serve 500.
    machine
        .run_as("sammy", "sed -i 's/import a_missing_module/from django.core.wsgi import get_wsgi_application/' \
             secondsite/secondsite/wsgi.py; echo \"import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'secondsite.settings'; \
             application = get_wsgi_application()\" >> secondsite/secondsite/wsgi.py; \
             echo 'raise RuntimeError(\"sick\")' >> secondsite/secondsite/urls.py")
        .succeeded();
    let refused = machine.run("systemctl reload sockd@secondsite");
    assert_eq!(refused.code, 1, "a reload with broken urls: {refused}");
    machine.run(&visit("secondsite")).says("renewed by sammy").succeeded();
    assert_ne!(processes(machine, "secondsite"), second, "the good reload made new workers");

    // And goes.
    machine.run("systemctl disable --now sockd@secondsite.socket; rm /etc/uwsgi/sites/secondsite.ini").succeeded();
    machine.run("systemctl is-active sockd@secondsite.service || true").says("inactive\n").succeeded();
    machine.run(&visit("secondsite")).says("502 Bad Gateway").succeeded();
    assert_eq!(processes(machine, "firstsite"), first, "the first site was touched");
    let record = load.finish();
    assert!(record.visits.len() > 50, "{} visits", record.visits.len());
    assert_eq!(record.failed().count(), 0, "{}", list(record.failed()));

    replaced(machine);
}

/// The first site's own reload and a killed worker.
fn replaced(machine: &Machine) {
    let before = processes(machine, "firstsite");
    let load = Load::begin(machine, &[FIRST]);
    page(machine, "firstsite", "renewed");
    machine.run("systemctl reload sockd@firstsite").succeeded();
    load.wait_for_visits(50);
    let record = load.finish();
    // Before uWSGI 2.0.25 each worker that is asked to leave may drop the request it has just accepted.
    let most = match machine.release() {
        Release::Bookworm => WORKERS,
        Release::Trixie => 0,
    };
    assert!(record.failed().count() <= most, "{}", list(record.failed()));
    machine.run(&visit("firstsite")).says("renewed by sammy").succeeded();
    assert_ne!(processes(machine, "firstsite"), before);
    machine.run("sockd status sockd@firstsite").says("/run/uwsgi/firstsite.sock").succeeded();
    machine
        .run("kill -KILL $(sockd status --json sockd@firstsite | grep -oP '\"pid\": ?\\K[0-9]+' | tail -1)")
        .succeeded();
    machine.run(&visit("firstsite")).says("renewed by sammy").succeeded();
    processes(machine, "firstsite");
    machine.run("systemctl stop sockd@firstsite.socket; test ! -e /run/uwsgi/firstsite.sock").succeeded();
}

/// The guide's Emperor serves a site; adopted, sockd serves it on the same socket; given back, the Emperor does again.
pub fn the_emperor_gives_a_site_and_gets_it_back(machine: &Machine) {
    project(machine, "firstsite");
    machine.write_file("/etc/uwsgi/sites/firstsite.ini", 0o644, &ini("firstsite"));
    machine.write_file(
        "/etc/systemd/system/emperor.uwsgi.service",
        0o644,
        "[Service]
ExecStartPre=/bin/bash -c 'mkdir -p /run/uwsgi; chown sammy:www-data /run/uwsgi'
ExecStart=/usr/bin/uwsgi --emperor /etc/uwsgi/sites
Restart=always
KillSignal=SIGQUIT
Type=notify
NotifyAccess=all
[Install]
WantedBy=multi-user.target
",
    );
    machine.run("systemctl daemon-reload; systemctl enable --now emperor.uwsgi").succeeded();
    nginx_site(machine, "firstsite", "");
    let page = machine.run(&visit("firstsite")).says("firstsite by sammy").succeeded();

    let written = machine.run("sockd adopt --write /etc/uwsgi/sites/firstsite.ini").succeeded();
    machine.run(&next_command(&written, "systemctl disable --now emperor.uwsgi.service")).succeeded();
    machine.run(&next_command(&written, "systemctl enable --now sockd@firstsite.socket")).succeeded();
    units::verify(machine, "sockd@firstsite.service sockd@firstsite.socket");
    machine.run("stat -c '%a %U %G' /run/uwsgi/firstsite.sock").says("660 sammy www-data\n").succeeded();
    machine.run("test ! -e /run/sockd/firstsite.sock").succeeded();
    machine
        .run("systemctl show --property User,Group,WorkingDirectory,ReadWritePaths sockd@firstsite.service")
        .says("User=sammy\n")
        .says("Group=www-data\n")
        .says("WorkingDirectory=/home/sammy/firstsite\n")
        .says("ReadWritePaths=/home/sammy/firstsite\n")
        .succeeded();
    assert_eq!(machine.run(&visit("firstsite")).succeeded(), page);
    processes(machine, "firstsite");
    machine.run("sockd doctor sockd@firstsite").says("firstsite.com is answered by").succeeded();
    machine.run("systemctl reload sockd@firstsite").succeeded();
    assert_eq!(machine.run(&visit("firstsite")).succeeded(), page);

    let undone = machine.run(&next_command(&written, "sockd adopt --undo")).succeeded();
    machine.run(&next_command(&undone, "systemctl enable --now emperor.uwsgi.service")).succeeded();
    machine.wait_for("the Emperor's page", PATIENCE, &format!("{} | grep -F firstsite", visit("firstsite")));
    assert_eq!(machine.run(&visit("firstsite")).succeeded(), page);
    machine
        .run("systemctl is-active sockd@firstsite sockd@firstsite.socket || true")
        .says("inactive\ninactive\n")
        .succeeded();
    machine.run("find /etc/systemd /etc/sockd -name '*firstsite*' | wc -l").says("0\n").succeeded();
}
