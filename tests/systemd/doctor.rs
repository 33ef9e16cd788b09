//! `sockd doctor` on the guide's site: each fault is made for real, named, and fixed by the command that it prints.
//!
//! Owns: the faults. Must never: help a command along; it is executed as it is printed, by root's shell.

use std::cell::RefCell;
use std::time::Duration;

use serde_json::Value;

use crate::guide::visit;
use crate::machine::Machine;

/// The most findings that are fixed one after the other, as the doctor advises.
const STEPS: usize = 4;
/// Visitors who start the service again and again, as long as its socket listens.
const VISITORS: &str =
    "for _ in 1 2 3 4 5 6 7 8; do curl -sS --max-time 2 -H 'Host: example.com' 127.0.0.1 || true; done";
/// How long the fixed site may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the doctor says of a unit, as a program reads it.
fn ask(machine: &Machine, arguments: &str) -> (i32, Value) {
    let output = machine.run(&format!("sockd doctor --json {arguments}"));
    let found = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output}"));
    (output.code, found)
}

/// The first finding of the first unit.
fn first(found: &Value) -> (&str, &str) {
    let finding = &found[0]["findings"][0];
    let text = |key: &str| finding[key].as_str().unwrap_or_default();
    (text("id"), text("fix"))
}

/// A fault, and what the doctor must say and do about it.
struct Fault<'a> {
    /// The script that makes it.
    made: &'a str,
    /// What a person does before the command.
    by_hand: &'a str,
    /// The ids of what is found, one after the other: of each the command is executed.
    found: &'a [&'a str],
    /// The options of the doctor.
    options: &'a str,
    /// The script that shows the fault, and shows that it is gone: it prints a page.
    page: String,
}

impl Default for Fault<'_> {
    fn default() -> Self {
        Self { made: "", by_hand: "", found: &[], options: "", page: visit("/") }
    }
}

/// A site, and every fix that the doctor has printed for it.
struct Patient<'a> {
    machine: &'a Machine,
    unit: &'a str,
    fixes: RefCell<Vec<String>>,
}

impl<'a> Patient<'a> {
    fn new(machine: &'a Machine, unit: &'a str) -> Self {
        Self { machine, unit, fixes: RefCell::default() }
    }

    /// Makes the fault, follows the doctor, and sees the page again.
    fn cure(&self, fault: &Fault<'_>) {
        let machine = self.machine;
        let good = machine.run(&fault.page).stdout;
        if !fault.made.is_empty() {
            // What earlier faults have left in systemd's counts is no part of this one.
            machine.run(&format!("systemctl reset-failed\n{}", fault.made)).succeeded();
        }
        let arguments = format!("{} {}", self.unit, fault.options);
        for (step, id) in fault.found.iter().enumerate() {
            assert!(step < STEPS, "the doctor needs more than {STEPS} steps");
            let (code, found) = ask(machine, &arguments);
            let (named, fix) = first(&found);
            assert_eq!((named, code), (*id, 1), "after {:?}: {found:#}", fault.made);
            if step == 0 && !fault.by_hand.is_empty() {
                machine.run(fault.by_hand).succeeded();
            }
            machine.run(fix).succeeded();
            self.fixes.borrow_mut().push(fix.to_owned());
        }
        // A reloaded Nginx answers by its old workers for a moment.
        machine.wait_until(&format!("the page after {:?}", fault.made), PATIENCE, || {
            let page = machine.run(&fault.page).stdout;
            // With options another site is looked at, which was answered before, too, but not by the application.
            let as_before = (page == good) == fault.options.is_empty();
            (as_before && !page.is_empty() && !page.contains("502 Bad Gateway")).then_some(())
        });
        let (code, found) = ask(machine, &arguments);
        assert_eq!(code, 0, "fixed, and the doctor still finds: {found:#}");
    }

    /// Every fix that was printed, executed where it does not belong: on the site that is well, and on one whose
    /// sockets and service are stopped. It may fail there; it may break nothing.
    fn fixes_break_nothing(&self) {
        let (machine, page) = (self.machine, visit("/"));
        let good = machine.run(&page).succeeded();
        let mut fixes = self.fixes.borrow().clone();
        fixes.sort();
        fixes.dedup();
        assert!(fixes.len() > 1, "{fixes:?}");
        for fix in &fixes {
            machine.run(fix);
            machine.wait_until(&format!("the page after {fix:?}"), PATIENCE, || {
                (machine.run(&page).stdout == good).then_some(())
            });
        }
        machine.run(&format!("systemctl stop '{0}.socket' '{0}.service' || systemctl stop '{0}.service'", self.unit));
        fixes.iter().for_each(|fix| drop(machine.run(fix)));
        for _ in 0..STEPS {
            let (code, found) = ask(machine, self.unit);
            if code == 0 {
                break;
            }
            machine.run(first(&found).1).succeeded();
        }
        machine.wait_until("the page after all fixes", PATIENCE, || (machine.run(&page).stdout == good).then_some(()));
    }
}

/// A site that is well has no error; every link was seen.
fn well(machine: &Machine, unit: &str) {
    let (code, found) = ask(machine, unit);
    assert_eq!(code, 0, "{found:#}");
    for seen in found[0]["walk"].as_array().expect("a walk") {
        assert!(seen["state"] == "ok" || seen["state"] == "warning", "{found:#}");
    }
    let text = machine.run(&format!("sockd doctor {unit}")).succeeded();
    assert!(text.contains("browser") && text.contains("example.com is answered by"), "{text}");
    // Who may not look at everything says so, and finds nothing wrong for it.
    let less = machine.run_as("sammy", &format!("sockd doctor {unit}")).succeeded();
    assert!(less.contains("not checked: ") && less.contains("error.log"), "{less}");
}

/// Makes systemd refuse every second start of the site's units in an hour. The usual limit, five starts in ten seconds,
/// is met by who follows several fixes quickly, on a fast machine alone: each fix must deal with it itself, and no
/// step of these tests depends on how fast the machine is.
fn every_second_start_is_refused(machine: &Machine, units: &[&str]) {
    for unit in units {
        let file = format!("/etc/systemd/system/{unit}.d/start-limit.conf");
        machine.write_file(&file, 0o644, "[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=1\n");
    }
    machine.run("systemctl daemon-reload").succeeded();
}

/// The guide's own troubleshooting, step 9, in its order.
pub fn the_guides_faults(machine: &Machine) {
    every_second_start_is_refused(machine, &["gunicorn.service", "gunicorn.socket"]);
    let patient = Patient::new(machine, "gunicorn");
    well(machine, "gunicorn");
    // Without a name the doctor finds the unit by itself, and its socket is as good a name.
    assert_eq!(ask(machine, "").1[0]["unit"], "gunicorn.service");
    assert_eq!(ask(machine, "gunicorn.socket").1[0]["unit"], "gunicorn.service");
    assert_eq!(ask(machine, "no-such-unit").0, 4);

    // Nginx shows its default page; behind it Django does not know the name either.
    let other = "curl -sS -H 'Host: another.example' 127.0.0.1";
    machine.run(other).says("Welcome to nginx!").succeeded();
    patient.cure(&Fault {
        found: &["default-page", "disallowed-host"],
        options: "--host another.example",
        page: other.to_owned(),
        ..Fault::default()
    });
    machine.run(other).says("Hello from the new code").succeeded();

    let site = "/etc/nginx/sites-available/myproject";
    patient.cure(&Fault {
        made: &format!("sed -i 's,/run/gunicorn.sock,/run/another.sock,' {site}; systemctl restart nginx"),
        found: &["nginx-other-address"],
        ..Fault::default()
    });
    patient.cure(&Fault {
        made: "systemctl stop gunicorn.socket gunicorn.service",
        found: &["socket-not-started"],
        ..Fault::default()
    });
    patient.cure(&Fault { made: "chmod 600 /run/gunicorn.sock", found: &["socket-closed"], ..Fault::default() });
    // The socket in a home directory that is closed, as new systems make it.
    patient.cure(&Fault {
        made: "chmod 750 /home/sammy",
        found: &["directory-closed"],
        page: visit("/static/admin/css/base.css"),
        ..Fault::default()
    });
    database(&patient);

    // A changed unit that was not read: Nginx has the new path already.
    patient.cure(&Fault {
        made: &format!(
            "sed -i 's,/run/gunicorn.sock,/run/new.sock,' {site} /etc/systemd/system/gunicorn.socket \
             /etc/systemd/system/gunicorn.service; systemctl reload nginx"
        ),
        found: &["daemon-reload"],
        ..Fault::default()
    });
    machine.run("test -S /run/new.sock").succeeded();
    patient.fixes_break_nothing();
}

/// Django shows `could not connect to server: Connection refused`.
fn database(patient: &Patient<'_>) {
    let page = "curl -sS -H 'Host: example.com' -b sessionid=0123456789abcdef 127.0.0.1/admin/login/?next=/";
    patient.cure(&Fault {
        made: "systemctl stop postgresql 'postgresql@*'
                   curl -sS -H 'Host: example.com' -b sessionid=0123456789abcdef 127.0.0.1/admin/ \
                       | grep 'Connection refused' >/dev/null",
        found: &["database-not-running"],
        page: format!("{page} | grep -o 'Django administration' | head -n 1"),
        ..Fault::default()
    });
    // The settings name another port. Python takes a file of the same size and second for the one that it has compiled.
    patient.cure(&Fault {
        made: "sed -i \"s/'PORT': ''/'PORT': '5433'/\" /home/sammy/myprojectdir/myproject/settings.py
                   touch -d '1 minute ago' /home/sammy/myprojectdir/myproject/settings.py
                   systemctl restart gunicorn",
        found: &["database-other-port"],
        page: format!("{page} | grep -o 'Django administration' | head -n 1"),
        ..Fault::default()
    });
}

/// What SYSTEMD.md and APP-SERVERS.md found beside the guide.
pub fn other_faults(machine: &Machine, prefix: &str) {
    every_second_start_is_refused(machine, &["gunicorn.service", "gunicorn.socket"]);
    let patient = Patient::new(machine, "gunicorn");
    // The trap of a service that does not require its socket: systemd leaves the socket stopped, and nobody notices
    // until the service ends.
    patient.cure(&Fault {
        made: "sed -i /^Requires=/d /etc/systemd/system/gunicorn.service; systemctl daemon-reload
                   ! systemctl restart gunicorn.socket",
        found: &["socket-lost"],
        ..Fault::default()
    });
    patient.cure(&Fault { made: "rm /run/gunicorn.sock", found: &["path-missing"], ..Fault::default() });
    patient.cure(&Fault {
        made: "printf '[Socket]\\nListenStream=/run/gunicorn.sock\\nService=gunicorn.service\\n' \
               > /etc/systemd/system/second.socket
               sed -i s/Service=.*/Service=other.service/ /etc/systemd/system/second.socket
               printf '[Service]\\nExecStart=/bin/sleep 1000\\n' > /etc/systemd/system/other.service
               systemctl daemon-reload; systemctl start second.socket",
        found: &["two-units-one-path"],
        ..Fault::default()
    });
    nginx_faults(&patient);
    cannot_start(&patient, prefix);
    misspelled(&patient);
    patient.fixes_break_nothing();
}

fn nginx_faults(patient: &Patient<'_>) {
    patient.cure(&Fault { made: "systemctl stop nginx", found: &["nginx-not-running"], ..Fault::default() });
    patient.cure(&Fault {
        made: "rm /etc/nginx/sites-enabled/myproject; systemctl reload nginx",
        found: &["site-not-enabled"],
        ..Fault::default()
    });
    // Another program has Nginx's port: that one is named, and Nginx is not started in vain.
    patient.cure(&Fault {
        made: "systemctl stop nginx
                   systemd-run --quiet --unit rival python3 -m http.server 80
                   until curl -sS -o /dev/null 127.0.0.1; do :; done",
        by_hand: "systemctl stop rival",
        found: &["port-taken"],
        ..Fault::default()
    });
    let site = "/etc/nginx/sites-available/myproject";
    patient.cure(&Fault {
        made: &format!("sed -i 's/proxy_pass/proxy_pas/' {site}; ! systemctl restart nginx"),
        by_hand: &format!("sed -i 's/proxy_pas /proxy_pass /' {site}"),
        found: &["nginx-configuration"],
        ..Fault::default()
    });
    patient.cure(&Fault {
        made: &format!("sed -i 's,proxy_pass http://,uwsgi_pass ,' {site}; systemctl reload nginx"),
        found: &["nginx-wrong-protocol"],
        ..Fault::default()
    });
}

/// The service cannot start: the cause is named, not what follows from it.
fn cannot_start(patient: &Patient<'_>, prefix: &str) {
    let environment = "/home/sammy/myprojectdir/myprojectenv/bin";
    // Under sockd the broken code costs no socket; without it the socket gives up.
    let settings = "/home/sammy/myprojectdir/myproject/settings.py";
    patient.cure(&Fault {
        made: &format!(
            "cp {settings} /root/settings.py; echo 'MIDDLEWARE = [' >> {settings}
                        systemctl restart gunicorn || true; {VISITORS}"
        ),
        by_hand: &format!("cp /root/settings.py {settings}"),
        found: &["import-error"],
        ..Fault::default()
    });
    patient.cure(&Fault {
        made: &format!(
            "systemctl stop gunicorn; runuser -u sammy -- {environment}/pip uninstall --yes gunicorn
                        {VISITORS}"
        ),
        found: &["server-not-installed"],
        ..Fault::default()
    });
    let unit = "/etc/systemd/system/gunicorn.service";
    if prefix.is_empty() {
        patient.cure(&Fault {
            made: &format!(
                "sed -i 's,^ExecStart=/home/sammy/myprojectdir/,ExecStart=,' {unit}
                            systemctl daemon-reload; systemctl stop gunicorn; {VISITORS}"
            ),
            found: &["exec-not-absolute"],
            ..Fault::default()
        });
    }
}

/// The Flask guide's faults: no socket unit, the socket in a home directory.
pub fn the_flask_guides_faults(machine: &Machine) {
    every_second_start_is_refused(machine, &["myproject.service"]);
    let patient = Patient::new(machine, "myproject");
    well(machine, "myproject");
    patient.cure(&Fault { made: "chmod 750 /home/sammy", found: &["directory-closed"], ..Fault::default() });
    patient.cure(&Fault {
        made: "systemctl stop myproject",
        found: &["service-not-started"],
        page: format!("until [ -S /home/sammy/myproject/myproject.sock ]; do :; done; {}", visit("/")),
        ..Fault::default()
    });
    patient.fixes_break_nothing();
}

/// Names that are spelled wrongly: what is there is named and written, and nothing is installed or made.
fn misspelled(patient: &Patient<'_>) {
    let unit = "/etc/systemd/system/gunicorn.service";
    let before = patient.machine.run("cut -d: -f1 /etc/passwd /etc/group | sort").succeeded();
    for (old, new, id) in [
        ("User=sammy", "User=samy", "user-missing"),
        ("Group=www-data", "Group=www-date", "group-missing"),
        ("bin/gunicorn", "bin/gunicrn", "program-misspelled"),
        ("myproject.wsgi:", "myprojct.wsgi:", "application-missing"),
    ] {
        let made = format!(
            "sed -i 's,{old},{new},' {unit}; systemctl daemon-reload
             systemctl restart gunicorn || true; {}",
            VISITORS
        );
        patient.cure(&Fault { made: &made, found: &[id], ..Fault::default() });
        patient.machine.run(&format!("grep -F '{old}' {unit}")).succeeded();
    }
    let after = patient.machine.run("cut -d: -f1 /etc/passwd /etc/group | sort").succeeded();
    assert_eq!(before, after, "a user or a group was made");
}

/// What is sockd's alone to know: that every worker is busy, that a worker has the socket and serves another one, and that
/// the code on the disk was refused. And a fix that is refused leaves no trace.
pub fn what_sockd_knows(machine: &Machine) {
    well(machine, "gunicorn");
    assert!(!ids(machine).iter().any(|id| ["workers-busy", "reload-refused"].contains(&id.as_str())));
    all_workers_are_busy(machine);
    a_worker_serves_elsewhere(machine);
    a_reload_is_refused(machine);
    a_refused_fix_is_undone(machine);
}

/// What is found: the guide's unit has settings that the doctor warns of.
fn ids(machine: &Machine) -> Vec<String> {
    let found = ask(machine, "gunicorn").1;
    let findings = found[0]["findings"].as_array().cloned().unwrap_or_default();
    findings.iter().map(|finding| finding["id"].as_str().unwrap_or_default().to_owned()).collect()
}

/// The lines that the guide's application gets at its end.
const GATE: &str = r#"
import os, time
inner = application
def application(environ, start_response):
    while environ["PATH_INFO"] == "/slow/" and os.path.exists("/run/gate"):
        time.sleep(0.1)
    return inner(environ, start_response)
"#;
const WSGI: &str = "/home/sammy/myprojectdir/myproject/wsgi.py";

/// Three workers and five visitors of a page that takes as long as a file is there.
fn all_workers_are_busy(machine: &Machine) {
    let before = ids(machine);
    machine.run(&format!("cp -p {WSGI} /root/wsgi.py")).succeeded();
    machine.run(&format!("cat >>{WSGI} <<'END'\n{GATE}END\n")).succeeded();
    // gunicorn's own limit for a page would end it.
    let patient = "[Service]\nEnvironment=GUNICORN_CMD_ARGS=--timeout=300\n";
    machine.write_file("/etc/systemd/system/gunicorn.service.d/patient.conf", 0o644, patient);
    machine.run("systemctl daemon-reload && systemctl restart gunicorn && touch /run/gate").succeeded();
    machine.run(&visit("/")).succeeded();
    let slow = "curl -sS -o /dev/null --max-time 120 -H 'Host: example.com' 127.0.0.1/slow/";
    let visitors: Vec<_> = (0..5).map(|_| machine.spawn(slow)).collect();
    let queue = "sockd status --json gunicorn | grep -o '\"waiting\": *[0-9]*'";
    machine.wait_until("three busy workers and two who wait", PATIENCE, || {
        machine.run(queue).stdout.trim().ends_with(" 2").then_some(())
    });
    let (code, found) = ask(machine, "gunicorn");
    let finding = &found[0]["findings"][0];
    let what = finding["what"].as_str().unwrap_or_default();
    assert_eq!((code, &finding["id"]), (1, &Value::from("workers-busy")), "{found:#}");
    assert!(what.starts_with("3 of 3 workers are busy, 2 wait; no answer came within 15."), "{found:#}");
    // The fix restarts nothing before the code on the disk is proven: nobody is cut off.
    assert!(first(&found).1.contains("sockd reload gunicorn.service && "), "{found:#}");

    machine.run("rm /run/gate").succeeded();
    for visitor in visitors {
        visitor.finish().succeeded();
    }
    assert_eq!(ids(machine), before);
    machine.run(&format!("cp -p /root/wsgi.py {WSGI}")).succeeded();
    machine.run("rm /etc/systemd/system/gunicorn.service.d/patient.conf; systemctl daemon-reload").succeeded();
    machine.run("systemctl restart gunicorn").succeeded();
}

/// A shell around the server: it was given the socket, and the server, which is another process, makes one of its own.
fn a_worker_serves_elsewhere(machine: &Machine) {
    let (good, before) = (machine.run(&visit("/")).succeeded(), ids(machine));
    let place = "/etc/systemd/system/gunicorn.service.d/shell.conf";
    let shell = "[Service]
ExecStart=
ExecStart=/usr/bin/sockd run --start at-once -- /bin/bash -c \
    '/home/sammy/myprojectdir/myprojectenv/bin/gunicorn --bind 127.0.0.1:8000 myproject.wsgi:application; true'
";
    machine.write_file(place, 0o644, shell);
    machine.run("systemctl daemon-reload && systemctl restart gunicorn").succeeded();
    machine.wait_for("a worker that is taken to be ready", PATIENCE, "sockd status gunicorn | grep '1 of 1 worker'");
    let (code, found) = ask(machine, "gunicorn");
    let (id, fix) = first(&found);
    assert_eq!((code, id), (1, "worker-elsewhere"), "{found:#}");
    let finding = &found[0]["findings"][0];
    let what = finding["what"].as_str().unwrap_or_default();
    // A newer gunicorn has a socket for its own commands beside.
    let listens = "where connections wait: gunicorn.service listens on 127.0.0.1:8000";
    assert!(what.contains(listens) && what.ends_with(" instead"), "{found:#}");
    let by_hand = finding["by_hand"].as_str().unwrap_or_default();
    assert!(by_hand.starts_with("write the server's own line, without bash, in /etc/systemd/system/"), "{found:#}");

    machine.run(&format!("rm {place}")).succeeded();
    machine.run(fix).succeeded();
    machine.wait_until("the page", PATIENCE, || (machine.run(&visit("/")).stdout == good).then_some(()));
    assert_eq!(ids(machine), before);
}

/// Half a deploy: visitors see nothing of it, and the doctor says what the next restart would load.
fn a_reload_is_refused(machine: &Machine) {
    let (good, before) = (machine.run(&visit("/")).succeeded(), ids(machine));
    machine.run(&format!("echo 'raise RuntimeError(\"half a deploy\")' >>{WSGI}")).succeeded();
    assert_ne!(machine.run("sockd reload gunicorn").code, 0, "the code raises");
    let (code, found) = ask(machine, "gunicorn");
    let mut findings = found[0]["findings"].as_array().into_iter().flatten();
    let finding = findings.find(|finding| finding["id"] == "reload-refused").unwrap_or_else(|| panic!("{found:#}"));
    let fix = finding["fix"].as_str().unwrap_or_default();
    assert_eq!((code, fix), (0, "sockd reload gunicorn.service"), "{found:#}");
    let what = finding["what"].as_str().unwrap_or_default();
    assert!(what.contains("RuntimeError: half a deploy"), "{found:#}");
    let line = machine.run(&format!("grep -n 'half a deploy' {WSGI} | cut -d: -f1")).succeeded();
    assert_eq!(finding["by_hand"], format!("correct {WSGI}:{}", line.trim()), "{found:#}");
    assert_eq!(machine.run(&visit("/")).succeeded(), good, "the old workers serve");
    machine.run(&format!("cp -p /root/wsgi.py {WSGI}")).succeeded();
    machine.run(fix).succeeded();
    assert_eq!(ids(machine), before);
}

/// Between the doctor's look and the fix somebody else has made a mistake in Nginx's configuration.
fn a_refused_fix_is_undone(machine: &Machine) {
    let site = "/etc/nginx/sites-available/myproject";
    machine
        .run(&format!("sed -i 's,/run/gunicorn.sock,/run/another.sock,' {site}; systemctl reload nginx"))
        .succeeded();
    let (_, found) = ask(machine, "gunicorn");
    let (id, fix) = first(&found);
    assert_eq!(id, "nginx-other-address", "{found:#}");
    machine.run("echo 'no_such_directive on;' >/etc/nginx/conf.d/mistake.conf").succeeded();
    let shows = format!("stat -c '%a %U %G' {site} && sha256sum {site} && ls /etc/nginx/* /tmp");
    let before = machine.run(&shows).succeeded();
    assert_ne!(machine.run(fix).code, 0, "nginx -t refuses it");
    assert_eq!(machine.run(&shows).succeeded(), before);
    machine.run("rm /etc/nginx/conf.d/mistake.conf").succeeded();
    machine.run(fix).succeeded();
    machine.wait_until("the page", PATIENCE, || (machine.run(&visit("/")).code == 0).then_some(()));
    assert_eq!(ask(machine, "gunicorn").0, 0);
}
