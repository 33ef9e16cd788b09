//! A deploy that is checked before it is loaded, by Django's own commands, on the guide's site.

use std::time::Duration;

use crate::guide;
use crate::machine::Machine;

const PATIENCE: Duration = Duration::from_secs(60);

/// With what the operator's program is to hear, which keeps it.
const CONFIGURATION: &str = "\
[reload]
soak = \"500ms\"
check = [
    [\"myprojectenv/bin/python\", \"manage.py\", \"check\"],
    [\"myprojectenv/bin/python\", \"manage.py\", \"migrate\", \"--check\", \"--plan\"],
]
after = [\"sh\", \"-c\", \"echo $(whoami) $SOCKD_UNIT $SOCKD_GENERATION $SOCKD_RELOAD_RESULT >>/home/sammy/outcomes\"]
";

const MIGRATE: &str = "reload.check (python manage.py migrate --check --plan): exit 1: ";

fn sammy(machine: &Machine, script: &str) {
    let script = format!("cd ~/myprojectdir; source myprojectenv/bin/activate\n{script}");
    machine.run_as("sammy", &script).succeeded();
}

/// A reload by hand, and what it says on its stderr.
fn refused(machine: &Machine, reasons: &[&str]) {
    let reload = machine.run("sockd reload gunicorn");
    assert!(reload.code == 1 && reasons.iter().all(|reason| reload.stderr.contains(reason)), "{reload}");
}

/// A migration that was forgotten, and a model that Django's check refuses: the application is importable with both and
/// its pages answer, so that no canary would find them.
pub fn a_forgotten_migration(machine: &Machine) {
    machine.write_file("/etc/sockd/gunicorn.toml", 0o644, CONFIGURATION);
    let shipped = include_str!("../../units/examples/better/gunicorn.service");
    let unit = shipped.replace("sockd run -- ", "sockd run --config /etc/sockd/gunicorn.toml -- ");
    assert_ne!(unit, shipped, "the shipped unit starts sockd in another way");
    machine.write_file("/etc/systemd/system/gunicorn.service", 0o644, &unit);
    machine.run("systemctl daemon-reload; systemctl restart gunicorn.socket gunicorn.service").succeeded();
    machine.run("sockd check gunicorn").says("ok").succeeded();
    let page = || machine.run(&guide::visit("/")).says("Hello from the new code").succeeded();
    page();

    sammy(
        machine,
        "./manage.py startapp polls
         echo \"INSTALLED_APPS += ['polls']\" >>myproject/settings.py
         cat >>polls/models.py <<'END'

class Question(models.Model):
    text = models.CharField(max_length=200)
END
         ./manage.py makemigrations",
    );
    let reload = machine.run("systemctl reload gunicorn");
    assert_ne!(reload.code, 0, "{reload}");
    for place in ["sockd status gunicorn", "systemctl status gunicorn", "journalctl -o cat -u gunicorn"] {
        machine.run(place).says(&format!("{MIGRATE}Planned operations: | polls.0001_initial")).succeeded();
    }
    machine.run("journalctl -o cat -u gunicorn").says("Create model Question").says("; the old workers serve on");
    page();
    refused(machine, &["Create model Question", MIGRATE]);

    sammy(
        machine,
        "./manage.py migrate
         printf '\\n    class Meta:\\n        ordering = [\"nowhere\"]\\n' >>polls/models.py",
    );
    let why = "reload.check (python manage.py check): exit 1: SystemCheckError: System check identified some issues: | \
               ERRORS: | polls.Question: (models.E015) ";
    refused(machine, &[why]);
    page();

    sammy(machine, "sed -i '/Meta/,$d' polls/models.py");
    machine.run("systemctl reload gunicorn").succeeded();
    machine.run("sockd status gunicorn").says("generation 5").succeeded();
    page();
    let outcomes = "grep . /home/sammy/outcomes | tail -n +4 | grep .";
    machine.wait_for("the last outcome", PATIENCE, outcomes);
    let heard = machine.run("cat /home/sammy/outcomes").succeeded();
    let outcome = |number: u32, result: &str| format!("sammy gunicorn.service {number} {result}");
    let wanted = [outcome(2, "refused"), outcome(3, "refused"), outcome(4, "refused"), outcome(5, "taken-over")];
    assert_eq!(heard.lines().collect::<Vec<_>>(), wanted);
}
