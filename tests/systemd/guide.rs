//! The guides our users followed, step by step, as they followed them.
//!
//! Owns: the steps, and after each step what the guide says one sees. `prefix` is what stands before
//! the server's own command line in `ExecStart=`: nothing, or `/usr/bin/sockd run -- `.
//! Must never: help a step along with something the guide's reader would not do. What differs is
//! said at the step: editors are replaced by files written whole, and there is no firewall inside.

use std::time::Duration;

use crate::machine::{Machine, quote};

/// How long a server may take until it answers, on a slow host that runs two machines.
const PATIENCE: Duration = Duration::from_secs(30);

/// What Django's page says before there is an application.
const WELCOME: &str = "The install worked successfully! Congratulations!";
/// What it says after the change of step 7.
const CHANGED: &str = "Hello from the new code";
/// What our application of the Flask guide says.
const HELLO: &str = "<h1 style='color:blue'>Hello There!</h1>";

/// The guide's `gunicorn.socket`.
pub const SOCKET_UNIT: &str = "\
[Unit]
Description=gunicorn socket

[Socket]
ListenStream=/run/gunicorn.sock

[Install]
WantedBy=sockets.target
";

/// The guide's `gunicorn.service`, with `options` added to the server's own.
pub fn service_unit(prefix: &str, options: &str) -> String {
    format!(
        "\
[Unit]
Description=gunicorn daemon
Requires=gunicorn.socket
After=network.target

[Service]
User=sammy
Group=www-data
WorkingDirectory=/home/sammy/myprojectdir
ExecStart={prefix}/home/sammy/myprojectdir/myprojectenv/bin/gunicorn \\
          --access-logfile - --workers 3 --bind unix:/run/gunicorn.sock \\
          {options}myproject.wsgi:application

[Install]
WantedBy=multi-user.target
"
    )
}

/// Django, Postgres, Nginx and Gunicorn: steps 1 to 8. Leaves the site running at `example.com`.
pub fn django(machine: &Machine, prefix: &str) {
    django_database(machine);
    django_project(machine);
    django_units(machine, prefix);
    django_first_visit(machine);
    django_changes(machine, prefix);
    django_nginx(machine);
}

/// Step 1: a database and its user.
pub fn django_database(machine: &Machine) {
    machine.run("systemctl start postgresql").succeeded();
    machine
        .run(
            "sudo -u postgres psql --set ON_ERROR_STOP=1 <<'END'
             CREATE DATABASE myproject;
             CREATE USER myprojectuser WITH PASSWORD 'password';
             ALTER ROLE myprojectuser SET client_encoding TO 'utf8';
             ALTER ROLE myprojectuser SET default_transaction_isolation TO 'read committed';
             ALTER ROLE myprojectuser SET timezone TO 'UTC';
             GRANT ALL PRIVILEGES ON DATABASE myproject TO myprojectuser;
             -- Since PostgreSQL 15 the privileges above no longer allow to make a table.
             ALTER DATABASE myproject OWNER TO myprojectuser;
END",
        )
        .says("CREATE ROLE")
        .succeeded();
}

/// Step 2: the virtual environment, the project, and a trial run.
pub fn django_project(machine: &Machine) {
    let sammy = |script: &str| {
        let script = format!("cd ~/myprojectdir; source myprojectenv/bin/activate\n{script}");
        machine.run_as("sammy", &script)
    };
    // The tree has this environment already, made by the same commands, to save every test the time.
    // The Flask guide makes its own.
    machine
        .run_as(
            "sammy",
            "mkdir -p ~/myprojectdir; cd ~/myprojectdir; [ -d myprojectenv ] || python3 -m venv myprojectenv",
        )
        .succeeded();
    sammy("pip install django gunicorn psycopg2-binary").succeeded();
    sammy("django-admin startproject myproject ~/myprojectdir").succeeded();
    sammy(
        r#"cat >>myproject/settings.py <<'END'
ALLOWED_HOSTS = ['example.com', 'localhost']
DATABASES = {
    'default': {
        'ENGINE': 'django.db.backends.postgresql',
        'NAME': 'myproject',
        'USER': 'myprojectuser',
        'PASSWORD': 'password',
        'HOST': 'localhost',
        'PORT': '',
    }
}
STATIC_ROOT = BASE_DIR / 'static'
END"#,
    )
    .succeeded();
    sammy("./manage.py makemigrations").says("No changes detected").succeeded();
    sammy("./manage.py migrate").says("Applying auth.0001_initial... OK").succeeded();
    sammy(
        "DJANGO_SUPERUSER_PASSWORD=secret ./manage.py createsuperuser --noinput \
         --username sammy --email sammy@example.com",
    )
    .says("Superuser created successfully.")
    .succeeded();
    sammy("./manage.py collectstatic --noinput").says("static files copied").succeeded();

    let trial = machine.spawn_as(
        "sammy",
        "cd ~/myprojectdir; source myprojectenv/bin/activate
         exec gunicorn --bind 0.0.0.0:8000 myproject.wsgi",
    );
    let page = machine.wait_for("the trial run", PATIENCE, "curl -fsS localhost:8000");
    assert!(page.contains(WELCOME), "{page}");
    trial.stop();
}

/// Steps 3 to 5: the two units; the socket listens and nothing runs yet.
pub fn django_units(machine: &Machine, prefix: &str) {
    machine.write_file("/etc/systemd/system/gunicorn.socket", 0o644, SOCKET_UNIT);
    machine.write_file("/etc/systemd/system/gunicorn.service", 0o644, &service_unit(prefix, ""));
    machine.run("systemctl enable --now gunicorn.socket").succeeded();
    machine.run("systemctl status gunicorn.socket").says("active (listening)").succeeded();
    machine.run("file /run/gunicorn.sock").says("/run/gunicorn.sock: socket").succeeded();
    let status = machine.run("systemctl status gunicorn");
    assert_eq!(status.code, 3, "as for every unit that is not active: {status}");
    status.says("Active: inactive (dead)").says("TriggeredBy: ● gunicorn.socket");
}

/// Step 6: the first connection starts the service.
pub fn django_first_visit(machine: &Machine) {
    machine.run("curl --unix-socket /run/gunicorn.sock localhost").says(WELCOME).succeeded();
    machine.run("systemctl status gunicorn").says("Active: active (running)").succeeded();
    // The line reaches the journal after the visitor got the page.
    machine.wait_for(
        "the access log in the journal",
        PATIENCE,
        r#"journalctl -u gunicorn | grep -F '"GET / HTTP/1.1" 200'"#,
    );
    let journal = machine.journal("gunicorn");
    assert!(journal.contains("Started gunicorn.service - gunicorn daemon."), "{journal}");
}

/// Step 7: changed settings hold after `daemon-reload` and a restart, changed code after a restart,
/// and no visitor is refused meanwhile.
pub fn django_changes(machine: &Machine, prefix: &str) {
    let visitor = machine.spawn(
        "until [ -e /run/visitor-may-leave ]; do
             curl -sS --fail --output /dev/null --unix-socket /run/gunicorn.sock localhost || echo \"refused: $?\"
             echo visit
         done",
    );
    // %% is systemd's way to write one %.
    let unit = service_unit(prefix, "--access-logformat 'changed %%(s)s' ");
    machine.write_file("/etc/systemd/system/gunicorn.service", 0o644, &unit);
    machine.run("systemctl daemon-reload; systemctl restart gunicorn").succeeded();
    machine.wait_for("an access log in the new format", PATIENCE, "journalctl -u gunicorn | grep -F 'changed 200'");

    machine
        .run_as(
            "sammy",
            &format!(
                "cat >>myprojectdir/myproject/urls.py <<'END'
from django.http import HttpResponse
urlpatterns += [path('', lambda request: HttpResponse('{CHANGED}'))]
END"
            ),
        )
        .succeeded();
    let unit = service_unit(prefix, "");
    machine.write_file("/etc/systemd/system/gunicorn.service", 0o644, &unit);
    machine.run("systemctl daemon-reload; systemctl restart gunicorn").succeeded();
    machine.run("curl -sS --unix-socket /run/gunicorn.sock localhost").says(CHANGED).succeeded();

    machine.run("touch /run/visitor-may-leave").succeeded();
    let visits = visitor.finish().succeeded();
    assert!(visits.contains("visit"), "nobody came");
    assert!(!visits.contains("refused"), "visitors were refused:\n{visits}");
}

/// Step 8: Nginx in front, at `example.com`; beside it stays its default page.
pub fn django_nginx(machine: &Machine) {
    nginx_site(
        machine,
        "    location = /favicon.ico { access_log off; log_not_found off; }
    location /static/ {
        root /home/sammy/myprojectdir;
    }

    location / {
        include proxy_params;
        proxy_pass http://unix:/run/gunicorn.sock;
    }
",
    );
    machine.run(&visit("/")).says(CHANGED).succeeded();
    machine.run(&visit("/static/admin/css/base.css")).says("DJANGO Admin").succeeded();
    // The administration works, so the database does.
    machine
        .run(
            "cd /tmp
             get() { curl -sS -c jar -b jar -H 'Host: example.com' \"$@\"; }
             get 127.0.0.1/admin/login/ >/dev/null
             token=$(awk '/csrftoken/ {print $7}' jar)
             get -L -d \"csrfmiddlewaretoken=$token&username=sammy&password=secret&next=/admin/\" 127.0.0.1/admin/login/",
        )
        .says("Site administration")
        .succeeded();
}

/// Step 9 of the Django guide: every fault it names shows as it says, and is gone when fixed.
pub fn django_troubleshooting(machine: &Machine) {
    machine.run("curl -sS -H 'Host: another.example' 127.0.0.1").says("Welcome to nginx!").succeeded();

    let site = "/etc/nginx/sites-available/myproject";
    let fault = format!("sed -i 's,/run/gunicorn.sock,/run/another.sock,' {site}; systemctl restart nginx");
    let fix = format!("sed -i 's,/run/another.sock,/run/gunicorn.sock,' {site}; systemctl restart nginx");
    bad_gateway(machine, &fault, "(2: No such file or directory)", &fix);

    bad_gateway(machine, "chmod 600 /run/gunicorn.sock", "(13: Permission denied)", "chmod 666 /run/gunicorn.sock");

    // A page that asks the database for a session says what is wrong. Debian's postgresql.service
    // is done before the cluster it stops is.
    machine.run("systemctl stop postgresql 'postgresql@*'").succeeded();
    machine
        .run("curl -sS -H 'Host: example.com' -b sessionid=0123456789abcdef 127.0.0.1/admin/")
        .says("Connection refused")
        .succeeded();
    machine.run("systemctl start postgresql").succeeded();
    machine.run(&visit("/admin/login/")).says("Django administration").succeeded();
}

/// The Flask guide: one service without a socket unit, its socket in the project's directory.
/// Leaves the site running at `example.com`.
pub fn flask(machine: &Machine, prefix: &str) {
    flask_project(machine);
    machine.write_file(
        "/etc/systemd/system/myproject.service",
        0o644,
        &format!(
            "\
[Unit]
Description=Gunicorn instance to serve myproject
After=network.target

[Service]
User=sammy
Group=www-data
WorkingDirectory=/home/sammy/myproject
Environment=\"PATH=/home/sammy/myproject/myprojectenv/bin\"
ExecStart={prefix}/home/sammy/myproject/myprojectenv/bin/gunicorn --workers 3 --bind unix:myproject.sock -m 007 wsgi:app

[Install]
WantedBy=multi-user.target
"
        ),
    );
    machine.run("systemctl start myproject; systemctl enable myproject").succeeded();
    machine.run("systemctl status myproject").says("Active: active (running)").succeeded();
    machine.wait_for("the socket", PATIENCE, "test -S /home/sammy/myproject/myproject.sock");
    machine
        .run("stat --format '%A %U %G' /home/sammy/myproject/myproject.sock")
        .says("srwxrwx--- sammy www-data")
        .succeeded();

    nginx_site(
        machine,
        "    location / {
        include proxy_params;
        proxy_pass http://unix:/home/sammy/myproject/myproject.sock;
    }
",
    );
    machine.run(&visit("/")).says(HELLO).succeeded();
}

fn flask_project(machine: &Machine) {
    machine
        .run_as(
            "sammy",
            "mkdir ~/myproject; cd ~/myproject
             python3 -m venv myprojectenv
             source myprojectenv/bin/activate
             pip install wheel
             pip install gunicorn flask",
        )
        .succeeded();
    machine.write_file_as(
        "sammy",
        "/home/sammy/myproject/myproject.py",
        0o644,
        &format!(
            "\
from flask import Flask
app = Flask(__name__)

@app.route(\"/\")
def hello():
    return \"{HELLO}\"

if __name__ == \"__main__\":
    app.run(host='0.0.0.0')
"
        ),
    );
    machine.write_file_as(
        "sammy",
        "/home/sammy/myproject/wsgi.py",
        0o644,
        "from myproject import app\n\nif __name__ == \"__main__\":\n    app.run()\n",
    );
    let trial = machine.spawn_as(
        "sammy",
        "cd ~/myproject; source myprojectenv/bin/activate
         exec gunicorn --bind 0.0.0.0:5000 wsgi:app",
    );
    let page = machine.wait_for("the trial run", PATIENCE, "curl -fsS localhost:5000");
    assert!(page.contains(HELLO), "{page}");
    trial.stop();
}

/// A faulty 502 page of Nginx, with the reason in its error log; then fixed.
pub fn bad_gateway(machine: &Machine, fault: &str, reason: &str, fix: &str) {
    machine.run(fault).succeeded();
    machine.run(&visit("/")).says("502 Bad Gateway").succeeded();
    machine.run(&format!("tail -n 1 /var/log/nginx/error.log | grep -F {}", quote(reason))).succeeded();
    machine.run(fix).succeeded();
    let page = machine.run(&visit("/")).succeeded();
    assert!(!page.contains("502 Bad Gateway"), "fixed, and still: {page}");
}

/// A script that asks Nginx for a page of the site and prints it, whatever its status.
///
/// By the address: at the name localhost curl tries IPv6 first, where only Nginx's default page listens.
pub fn visit(path: &str) -> String {
    format!("curl -sS --max-time 10 -H 'Host: example.com' 127.0.0.1{path}")
}

/// A site of Nginx at `example.com` with these locations.
pub fn nginx_site(machine: &Machine, locations: &str) {
    let site = format!("server {{\n    listen 80;\n    server_name example.com;\n\n{locations}}}\n");
    machine.write_file("/etc/nginx/sites-available/myproject", 0o644, &site);
    machine.run("ln -s /etc/nginx/sites-available/myproject /etc/nginx/sites-enabled").succeeded();
    machine.run("nginx -t 2>&1").says("syntax is ok").says("test is successful").succeeded();
    machine.run("systemctl restart nginx").succeeded();
}
