"""Measures what plain gunicorn costs and gunicorn under sockd, in turns. Runs inside a booted machine; see `run`.

All sides are services of the same systemd, from the same unit: as it is, with the prefix in ExecStart=, and adopted;
each with a socket unit of its own. Only one side runs at a time, so that none takes another's processor or shares its
memory; but all wait side by side when loads and successors are taken in turns, and when they are idle.

Prints what it does on standard error, and one JSON document with every single figure on standard output.
"""

import argparse
import json
import os
import signal
import subprocess
import time

import service as services
from service import PATIENCE, PROJECT, WORKERS, Figures, first_byte, load, pss, say

# The prefix of ExecStart=.
SIDES = {"gunicorn": "", "sockd": "/usr/bin/sockd run -- ", "adopted": ""}
APPS = {"hello": "hello:application", "django": "myproject.wsgi:application"}
# Only their cold starts are measured.
PRELOADED = {"hello-preload": "--preload hello:application", "django-preload": "--preload myproject.wsgi:application"}
# Cold starts follow each other faster than systemd's limit for broken services allows.
SERVICE = """\
[Unit]
Requires={name}.socket
StartLimitIntervalSec=0

[Service]
User=sammy
Group=www-data
WorkingDirectory={project}
ExecStart={prefix}{project}/myprojectenv/bin/gunicorn --workers {workers} --bind unix:{address} {app}
"""
# Pairs of cold starts, loads and successors in each round: one second on a shared host differs from the next, and one
# import of Django from the next, by more than the sides do.
COLD_STARTS = LOADS = SUCCESSORS = 6
# So long a worker has served before it is killed: as accidents come, and not as a program that cannot stay up.
SERVED = 1.5
HELLO = """\
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
    return [b"Hello\\n"]
"""
DJANGO = """
from django.http import HttpResponse
urlpatterns = [path("", lambda request: HttpResponse("Hello\\n"))]
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--idle", type=float, required=True)
    parser.add_argument("--clients", type=int, required=True)
    options = parser.parse_args()
    figures = Figures()
    set_up()
    for service in all_services():
        # Bytecode is compiled and files are read from disk once, before anything is measured.
        visit(service)
    for number in range(options.rounds):
        say("round %d of %d" % (number + 1, options.rounds))
        for app in APPS:
            for side in in_turns(number, list(SIDES)):
                measure_service(figures, Service(side, app), options)
            measure_cold_starts(figures, [Service(side, app) for side in SIDES])
            measure_requests(figures, [Service(side, app) for side in SIDES], options)
            measure_successors(figures, [Service(side, app, workers=1) for side in SIDES])
        for app in PRELOADED:
            measure_cold_starts(figures, [Service(side, app) for side in SIDES])
    say("idle for %g seconds" % options.idle)
    measure_idle(figures, [Service(side, "hello") for side in SIDES], options.idle)
    print(json.dumps({"environment": services.environment(), "figures": figures.all}))


class Service(services.Service):
    def __init__(self, side, app, workers=WORKERS):
        name = "%s-%s-%d" % (side, app, workers)
        text = SERVICE.format(name=name, prefix=SIDES[side], project=PROJECT, workers=workers,
                              app={**APPS, **PRELOADED}[app], address=services.address(name))
        super().__init__(side, name, text, workers)
        self.app = app


def set_up():
    services.write_project(hello=HELLO)
    urls = "%s/myproject/urls.py" % PROJECT
    services.write(urls, DJANGO, "a")
    services.start_sockets(all_services())
    for service in all_services():
        if service.side == "adopted":
            subprocess.run(["sockd", "adopt", "--write", service.name + ".service"], check=True, stdout=subprocess.DEVNULL)


def all_services():
    return ([Service(side, app, count) for side in SIDES for app in APPS for count in (WORKERS, 1)]
            + [Service(side, app) for side in SIDES for app in PRELOADED])


# ---------------------------------------------------------------------------------------------------
# What is measured
# ---------------------------------------------------------------------------------------------------

def visit(service):
    """Seconds from its first connection to the first byte."""
    service.stop()
    seconds = first_byte(service.address)
    service.wait_until_quiet()
    service.stop()
    return seconds


def measure_service(figures, service, options):
    restart([service])

    # Workers touch their memory as they serve.
    load(service.address, options.clients, options.seconds)
    service.wait_until_quiet()

    main = service.main_pid()
    memory = {pid: pss(pid) for pid in service.pids()}
    others = set(memory) - {main, *service.worker_pids()}
    figures.add("supervisor memory " + service.app, service, memory[main])
    figures.add("template memory " + service.app, service, sum(memory[pid] for pid in others))
    figures.add("tree memory " + service.app, service, sum(memory.values()))

    figures.add("successor exists " + service.app, service, successor_exists(service) * 1000)
    service.stop()


def restart(services):
    """All of them up, side by side, and at rest."""
    for service in services:
        service.stop()
        first_byte(service.address)
        service.wait_until_quiet()


def in_turns(number, services):
    """Who comes first changes each time."""
    return services if number % 2 else services[::-1]


def measure_cold_starts(figures, services):
    for number in range(COLD_STARTS):
        for service in in_turns(number, services):
            figures.add("cold start " + service.app, service, visit(service) * 1000)


def measure_requests(figures, services, options):
    restart(services)
    for number in range(LOADS):
        for service in in_turns(number, services):
            busy = service.busy_us()
            requests = load(service.address, options.clients, options.seconds / LOADS)
            figures.add("requests " + service.app, service, requests / options.seconds * LOADS)
            figures.add("work " + service.app, service, (service.busy_us() - busy) / requests)
    for service in services:
        service.stop()


def measure_successors(figures, services):
    """With one worker nobody else can answer: the next answer is the successor's."""
    restart(services)
    for number in range(SUCCESSORS):
        for service in in_turns(number, services):
            time.sleep(SERVED)
            worker, = service.worker_pids()
            begun = time.monotonic()
            os.kill(worker, signal.SIGKILL)
            figures.add("successor answers " + service.app, service, first_byte(service.address, begun) * 1000)
            service.wait_until_quiet()
    for service in services:
        service.stop()


def measure_idle(figures, services, seconds):
    restart(services)
    time.sleep(2)
    before = [{pid: idle_state(pid) for pid in service.pids()} for service in services]
    time.sleep(seconds)
    for service, states in zip(services, before):
        changes = {pid: [now - then for now, then in zip(idle_state(pid), states[pid])] for pid in states}
        wakeups, busy = changes[service.main_pid()]
        figures.add("idle wake-ups", service, wakeups)
        figures.add("idle work", service, busy)
        figures.add("idle wake-ups of all", service, sum(wakeups for wakeups, _ in changes.values()))
        service.stop()


def successor_exists(service):
    """Seconds from a worker's death to the first sight of the process that takes its place.

    Processes that only help to make it come and go; the successor is the one that holds the socket in the
    end. One that waited for this moment, as sockd's spare does, takes no time. Looking without a pause would
    take the processor, and a lock that forking needs, from those who are looked at.
    """
    before = service.worker_pids()
    victim = before[0]
    seen = dict.fromkeys(service.pids(), 0.0)
    complete = len(seen)
    begun = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    while time.monotonic() - begun < 0.5 or len(pids) < complete:
        # Under Delegate=yes in groups of their own.
        pids = service.pids()
        for pid in pids:
            seen.setdefault(pid, time.monotonic() - begun)
        time.sleep(0.0001)
        assert time.monotonic() - begun < PATIENCE, "no successor in %s" % service.name
    service.wait_until_quiet()
    successor, = set(service.worker_pids()).difference(before)
    return seen[successor]


def idle_state(pid):
    """How often it went to sleep by itself, and its processor time in ms."""
    with open("/proc/%d/status" % pid) as file:
        wakeups = next(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt_switches:"))
    with open("/proc/%d/schedstat" % pid) as file:
        return wakeups, int(file.read().split()[0]) / 1e6


if __name__ == "__main__":
    main()
