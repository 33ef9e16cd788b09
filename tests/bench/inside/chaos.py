"""A service under sockd to which everything happens at random while visitors come. Runs inside a booted machine; see
`chaos`.

What may cost a request: the death of the worker that has it in its hands. Who that was the kernel tells: a victim is
stopped first, and the connections that it holds are noted before it is killed or left stopped for sockd to find. A
request that fails without having been there is unexplained.

Prints what it does on standard error, and one JSON document on standard output.
"""

import argparse
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import threading
import time

import service as services
from service import PROJECT, Service, say
from visitors import Visit, Visitors

WORKERS = 3
CLIENTS = 4
UNIT = """\
[Unit]
Requires={name}.socket
After={name}.socket

[Service]
Type=notify
User=sammy
Group=www-data
WorkingDirectory={project}
ExecStart=/usr/bin/sockd run --config /etc/{name}.toml -- \\
          {project}/myprojectenv/bin/gunicorn --workers {workers} --timeout 4 --bind unix:{address} chaotic:application
ExecReload=/usr/bin/sockd reload
WatchdogSec=30s
Restart=always
RestartSec=500ms
KillMode=mixed
OOMPolicy=continue
Delegate=yes
"""
# An application takes 20 MiB, and three requests for /grow are too much.
CONFIGURATION = """\
[workers]
max-memory = "100M"
"""
# The page takes a moment, so that a worker that dies has somebody's request in its hands.
APPLICATION = """\
import time

grown = []

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/hang":
        time.sleep(3600)
    if path == "/grow":
        grown.append(b"x" * (30 << 20))
    time.sleep(0.01)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
    return [b"Hello\\n"]
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    services.write_project(chaotic=APPLICATION)
    services.write("/etc/chaos.toml", CONFIGURATION)
    text = UNIT.format(name="chaos", project=PROJECT, workers=WORKERS, address=services.address("chaos"))
    service = Service("sockd", "chaos", text)
    services.start_sockets([service])
    service.begin()
    chaos = Chaos(service, random.Random(options.seed))
    with Visitors(service.address, CLIENTS) as visitors:
        visitors.wait_for(50)
        chaos.go_on_for(options.seconds)
        say("waiting until all is well again")
        healed = chaos.wait_until_well()
    print(json.dumps(chaos.account(visitors, healed)))


class Chaos:
    def __init__(self, service, generator):
        self.service, self.generator = service, generator
        self.begun = time.monotonic()
        self.events = []
        # The visitors' sockets that a victim had in its hands.
        self.hands = set()
        self.reload = None
        self.threads = []

    def go_on_for(self, seconds):
        actions = [self.kill, self.stop, self.hang, self.grow, self.kill_helper, self.start_reload]
        end = self.begun + seconds
        while time.monotonic() < end:
            self.generator.choice(actions)()
            time.sleep(self.generator.uniform(0.2, 2.0))

    def note(self, what):
        self.events.append((time.monotonic() - self.begun, what))
        say("%6.1f s  %s" % self.events[-1])

    def ready(self):
        status = json.loads(services.output("sockd", "status", "--json", self.service.name))[0]["sockd"]
        return [worker["pid"] for worker in status["workers"] if worker["state"] == "ready"]

    def seize(self):
        """Stops a worker that serves, so that its hands can be looked at. None while fewer than two others serve."""
        ready = self.ready()
        if len(ready) < WORKERS:
            return None
        victim = self.generator.choice(ready)
        try:
            os.kill(victim, signal.SIGSTOP)
        except ProcessLookupError:
            return None
        self.hands |= connections(victim)
        return victim

    def kill(self):
        victim = self.seize()
        if victim:
            os.kill(victim, signal.SIGKILL)
            self.note("killed")

    def stop(self):
        if self.seize():
            self.note("stopped")

    def hang(self):
        if len(self.ready()) == WORKERS:
            self.visit(b"/hang")
            self.note("hung")

    def grow(self):
        self.visit(b"/grow")
        self.note("grown")

    def visit(self, path):
        thread = threading.Thread(target=Visit, args=(self.service.address, path), daemon=True)
        thread.start()
        self.threads.append(thread)

    def kill_helper(self):
        """Of all processes one that is neither sockd nor a worker: a template or a spare."""
        others = set(self.service.pids()) - {self.service.main_pid(), *self.service.worker_pids()}
        if others:
            victim = self.generator.choice(sorted(others))
            # It may have become a worker since, or have ended.
            if victim not in self.service.worker_pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    self.note("template or spare killed")

    def start_reload(self):
        if self.reload and self.reload.poll() is None:
            return
        self.reap_reload()
        self.reload = subprocess.Popen(["sockd", "reload", self.service.name], stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def reap_reload(self):
        if self.reload:
            said = self.reload.communicate()[1]
            # A victim of the new generation is reason enough; the first line says so.
            self.note("reloaded" if self.reload.returncode == 0 else "reload refused: " + said.partition("\n")[0])
        self.reload = None

    def wait_until_well(self):
        """Seconds until every slot has a ready worker again and nothing else is under way."""
        begun = time.monotonic()
        self.reap_reload()
        for thread in self.threads:
            thread.join()
        while time.monotonic() < begun + services.PATIENCE:
            if len(self.ready()) == len(self.service.worker_pids()) == WORKERS:
                return time.monotonic() - begun
            time.sleep(0.1)
        return None

    def account(self, visitors, healed):
        failed = visitors.failed()
        unexplained = [visit for visit in failed if visit.inode not in self.hands]
        kinds = [what.partition(":")[0] for _, what in self.events]
        return {
            "visits": len(visitors.visits),
            "failed": len(failed),
            "in the hands of a victim": len(failed) - len(unexplained),
            "unexplained": [self.describe(visit) for visit in unexplained],
            # A victim's own visitor waits for as long as it takes to find the victim.
            "longest stall": max(visit.took for visit in visitors.visits if visit.inode not in self.hands),
            "longest in the hands of a victim": max(
                [visit.took for visit in visitors.visits if visit.inode in self.hands], default=0),
            "well again after": healed,
            "events": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
            "sockd restarted": int(services.output(
                "systemctl", "show", "--property=NRestarts", "--value", self.service.name + ".service")),
        }

    def describe(self, visit):
        began, ended = visit.began - self.begun, visit.ended - self.begun
        around = ["%s at %.2f s" % (what, when) for when, what in self.events if began - 1 < when < ended + 1]
        return "%.2f to %.2f s: %s; around it: %s" % (
            began, ended, visit.error or "status %d" % visit.status, ", ".join(around) or "nothing")


def connections(pid):
    """The inodes of the other ends of the unix connections that a process holds."""
    lines = services.output("ss", "--unix", "--processes", "--no-header", "state", "connected").splitlines()
    ends = [re.search(r" \* (\d+) .*pid=%d," % pid, line) for line in lines]
    return {int(end[1]) for end in ends if end and end[1] != "0"}


if __name__ == "__main__":
    main()
