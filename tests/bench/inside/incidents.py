"""Measures what visitors feel of a reload, of broken code, of a restart and of a worker that hangs: gunicorn and uWSGI
with what they bring along themselves, and gunicorn under sockd, in turns. Runs inside a booted machine; see `run`.

Each side has the unit that its own documentation recommends. Prints what it does on standard error, and one JSON
document with every single figure on standard output.
"""

import argparse
import json
import subprocess
import threading
import time

import service as services
from service import PATIENCE, PROJECT, Figures, Service, first_byte, say
from visitors import Visit, Visitors

TIMEOUT = 5
WORKERS = 3
CLIENTS = 4
NEXT = 200
# What all have in common.
COMMON = """\
[Unit]
Requires={name}.socket
After={name}.socket

[Service]
User=sammy
Group=www-data
WorkingDirectory={project}
"""
# What each says of itself.
OWN = {
    "gunicorn": """\
Type=notify
NotifyAccess=main
ExecReload=/bin/kill -s HUP $MAINPID
KillMode=mixed
ExecStart={project}/myprojectenv/bin/gunicorn --workers {workers} --timeout {timeout} --bind unix:{address} {app}
""",
    "uWSGI": """\
Type=notify
NotifyAccess=all
Restart=always
KillSignal=SIGQUIT
ExecReload=/bin/kill -s HUP $MAINPID
ExecStart=/usr/bin/uwsgi --plugin python3 --master --processes {workers} --harakiri {timeout} --protocol http \\
          --disable-logging --home {project}/myprojectenv --chdir {project} --module {app}
""",
    "sockd": """\
Type=notify
ExecReload=/usr/bin/sockd reload
ExecStop=/usr/bin/sockd drain
SuccessExitStatus=SIGKILL SIGABRT SIGSEGV 101
WatchdogSec=30s
Restart=always
RestartSec=500ms
KillMode=mixed
OOMPolicy=continue
Delegate=yes
ExecStart=/usr/bin/sockd run -- \\
          {project}/myprojectenv/bin/gunicorn --workers {workers} --timeout {timeout} --bind unix:{address} {app}
""",
}
DJANGO = """
import pathlib
from django.http import HttpResponse
text = pathlib.Path(__file__).with_name("deployed").read_text()
urlpatterns = [path("", lambda request: HttpResponse(text))]
"""
BREAKAGE = "import no_such_module\n"
HANGING = """\
import time

def application(environ, start_response):
    if environ["PATH_INFO"] == "/hang":
        time.sleep(3600)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
    return [b"Hello\\n"]
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, required=True)
    options = parser.parse_args()
    services.write_project(hanging=HANGING)
    services.write("%s/myproject/urls.py" % PROJECT, DJANGO, "a")
    deploy("nothing yet")
    sites = [make(side, "myproject.wsgi:application", WORKERS) for side in OWN]
    single = [make(side, "hanging:application", 1) for side in OWN]
    services.start_sockets(sites + single)
    figures = Figures()
    for number in range(options.rounds):
        say("round %d of %d" % (number + 1, options.rounds))
        # Who comes first changes each time.
        for index in range(len(OWN)):
            measure(figures, sites[(index + number) % len(OWN)], number)
        for index in range(len(OWN)):
            hang(figures, single[(index + number) % len(OWN)])
    print(json.dumps({"environment": services.environment(), "figures": figures.all}))


def make(side, app, workers):
    name = "%s-%d" % (side.lower(), workers)
    text = (COMMON + OWN[side]).format(
        name=name, project=PROJECT, workers=workers, timeout=TIMEOUT, app=app, address=services.address(name))
    return Service(side, name, text, workers)


def deploy(text, broken=False):
    """Puts new code in place, as a deploy does: all that is loaded afresh shows the text, or fails."""
    services.write("%s/myproject/deployed" % PROJECT, text)
    wsgi = "%s/myproject/wsgi.py" % PROJECT
    with open(wsgi) as file:
        good = file.read().replace(BREAKAGE, "")
    services.write(wsgi, BREAKAGE + good if broken else good)


def systemctl(verb, service):
    """The exit status, and not a day longer than PATIENCE."""
    try:
        return subprocess.run(["systemctl", verb, service.name + ".service"], stdin=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, timeout=PATIENCE).returncode
    except subprocess.TimeoutExpired:
        return -1


def measure(figures, service, number):
    for what, verb in (("reload", "reload"), ("restart", "restart")):
        deploy("before the %s of round %d" % (what, number))
        service.begin()
        text = "after the %s of round %d" % (what, number)
        with Visitors(service.address, CLIENTS) as visitors:
            visitors.wait_for(50)
            deploy(text)
            systemctl(verb, service)
            visitors.wait_for(100, lambda visit: visit.good and visit.text == text)
        figures.add(what + " failed", service, len(visitors.failed()))
        figures.add(what + " stall", service, visitors.longest() * 1000)

    deploy("before the broken one of round %d" % number)
    service.begin()
    deploy("broken", broken=True)
    figures.add("broken status", service, systemctl("reload", service))
    figures.add("broken answered", service, sum(visit.good for visit in next_visits(service)))
    deploy("fixed")
    service.stop()


def next_visits(service):
    """The next so many requests, one after the other; those that would come after PATIENCE seconds are left out."""
    deadline = time.monotonic() + PATIENCE
    for _ in range(NEXT):
        if time.monotonic() > deadline:
            return
        yield Visit(service.address)
        time.sleep(0.01)


def hang(figures, service):
    """With one worker, stuck in a request, nobody else can answer: the next answer is the successor's."""
    service.begin()
    stuck = threading.Thread(target=Visit, args=(service.address, b"/hang"))
    begun = time.monotonic()
    stuck.start()
    # Only once it hangs may the next visitor come.
    time.sleep(0.2)
    figures.add("hang", service, first_byte(service.address, begun))
    stuck.join()
    service.stop()


if __name__ == "__main__":
    main()
