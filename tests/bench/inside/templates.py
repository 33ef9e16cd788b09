"""Measures what a template saves: cold start, the way from a worker's death to its successor's answer, and memory, with
the application loaded before the fork and after it. Runs inside a booted machine; see `run`.

The guide's Django project under each server's own way to have three processes, and under sockd in front of gunicorn's.

Prints what it does on standard error, and one JSON document with every single figure on standard output.
"""

import argparse
import json
import os
import signal
import time

import service as services
from service import PROJECT, WORKERS, Figures, Service, first_byte, load, pss, say

CLIENTS = 4
LOAD_SECONDS = 2

# Cold starts follow each other faster than systemd's limit for broken services allows.
UNIT = """\
[Unit]
Requires={name}.socket
After={name}.socket
StartLimitIntervalSec=0

[Service]
User=sammy
Group=www-data
WorkingDirectory={project}
{own}
"""
GUNICORN = "{project}/myprojectenv/bin/gunicorn --workers {workers} --bind unix:{address} "
SIDES = {
    "gunicorn": "ExecStart=" + GUNICORN + "myproject.wsgi",
    "gunicorn --preload": "ExecStart=" + GUNICORN + "--preload myproject.wsgi",
    "uWSGI": """\
Type=notify
NotifyAccess=all
KillSignal=SIGQUIT
ExecStart=/usr/bin/uwsgi --plugin python3 --master --processes {workers} --protocol http --disable-logging \\
          --home {project}/myprojectenv --chdir {project} --module myproject.wsgi:application""",
    "uvicorn --workers": "ExecStart={project}/myprojectenv/bin/uvicorn --fd 3 --workers {workers} --no-access-log "
                         "myproject.asgi:application",
    # Takes no socket of systemd's.
    "granian": """\
RuntimeDirectory={name}
ExecStart={project}/myprojectenv/bin/granian --interface wsgi --workers {workers} --respawn-failed-workers \\
          --uds {address} myproject.wsgi:application""",
    "sockd": "ExecStart=/usr/bin/sockd run -- " + GUNICORN + "myproject.wsgi",
    "sockd, --preload": "ExecStart=/usr/bin/sockd run -- " + GUNICORN + "--preload myproject.wsgi",
}
DJANGO = """
from django.http import HttpResponse
urlpatterns = [path("", lambda request: HttpResponse("Hello\\n"))]
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, required=True)
    options = parser.parse_args()
    services.install("granian")
    services.write_project()
    services.write("%s/myproject/urls.py" % PROJECT, DJANGO, "a")
    pools = [make(side, WORKERS) for side in SIDES]
    # uvicorn has no supervisor where one worker is wanted.
    few = [make(side, 2 if side.startswith("uvicorn") else 1) for side in SIDES]
    services.start_sockets(pools + few)
    for service in pools:
        # Bytecode is compiled and files are read from disk once, before anything is measured.
        service.wake()
        service.wait_until_quiet()
        service.stop()
    figures = Figures()
    for number in range(options.rounds):
        say("round %d of %d" % (number + 1, options.rounds))
        # Who comes first changes each time.
        for index in range(len(SIDES)):
            measure(figures, pools[(index + number) % len(SIDES)])
            measure_successor(figures, few[(index + number) % len(SIDES)])
    versions = {"granian": services.output(PROJECT + "/myprojectenv/bin/granian", "--version").split()[-1]}
    print(json.dumps({"environment": services.environment() | versions, "figures": figures.all}))


def make(side, workers):
    name = "%s-%d" % ("".join(c for c in side.lower() if c.isalpha()), workers)
    own = "/run/%s/own.sock" % name if side == "granian" else None
    address = own or services.address(name)
    values = {"name": name, "project": PROJECT, "workers": workers, "address": address}
    unit = UNIT[UNIT.index("[Service]"):] if own else UNIT
    return Service(side, name, unit.format(own=SIDES[side].format(**values), **values), workers, own)


def measure(figures, service):
    figures.add("cold start", service, service.wake() * 1000)
    service.wait_until_quiet()
    # Workers touch their memory as they serve, and their garbage collectors do.
    load(service.address, CLIENTS, LOAD_SECONDS)
    service.wait_until_quiet()
    memory = {pid: pss(pid) for pid in service.pids()}
    workers = service.worker_pids()
    figures.add("tree memory", service, sum(memory.values()))
    figures.add("worker memory", service, sum(memory[pid] for pid in workers) / len(workers))
    service.stop()


def measure_successor(figures, service):
    """With every worker killed, the next answer is a successor's."""
    service.wake()
    service.wait_until_quiet()
    victims = service.worker_pids()
    begun = time.monotonic()
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    figures.add("successor", service, first_byte(service.address, begun) * 1000)
    service.stop()


if __name__ == "__main__":
    main()
