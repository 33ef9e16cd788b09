"""Measures plain gunicorn and gunicorn under sockd, in turns. Runs inside a booted machine; see `run`.

Both sides are services of the same systemd, from the same unit but for the prefix of ExecStart=, each
with a socket unit of its own. Only one side runs at a time, so that neither takes the other's processor
or shares its memory; the idle figures alone are taken of both at once.

Prints what it does on standard error, and one JSON document with every single figure on standard output.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time

SIDES = {"gunicorn": "", "sockd": "/usr/bin/sockd run -- "}
APPS = {"hello": "hello:application", "django": "myproject.wsgi:application"}
WORKERS = 3
PROJECT = "/home/sammy/myprojectdir"
CGROUPS = "/sys/fs/cgroup/system.slice"
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
# Nothing here takes longer, not even Django's first start on a busy machine.
PATIENCE = 60
# Cold starts follow each other faster than systemd's limit for broken services allows.
SERVICE = """\
[Unit]
Requires={name}.socket
StartLimitIntervalSec=0

[Service]
User=sammy
Group=www-data
WorkingDirectory={project}
ExecStart={prefix}{project}/myprojectenv/bin/gunicorn --workers {workers} --bind unix:/run/{name}.sock {app}
"""
SOCKET = """\
[Socket]
ListenStream=/run/{name}.sock
"""
HELLO = """\
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
    return [b"Hello\\n"]
"""
DJANGO = """
from django.http import HttpResponse
urlpatterns += [path("", lambda request: HttpResponse("Hello\\n"))]
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--idle", type=float, required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--realtime", action="store_true")
    options = parser.parse_args()
    figures = Figures()
    set_up()
    if options.realtime:
        take_precedence()
    for app in APPS:
        for side in SIDES:
            # Bytecode is compiled and files are read from disk once, before anything is measured.
            visit(Service(side, app))
    for number in range(options.rounds):
        say("round %d of %d" % (number + 1, options.rounds))
        for app in APPS:
            # Who comes first changes each time.
            for side in sorted(SIDES, reverse=number % 2 == 1):
                measure_service(figures, Service(side, app), options)
                measure_single_worker(figures, Service(side, app, workers=1))
    say("idle for %g seconds" % options.idle)
    measure_idle(figures, [Service(side, "hello") for side in SIDES], options.idle)
    print(json.dumps({"environment": environment(), "figures": figures.all}))


def say(text):
    print(text, file=sys.stderr, flush=True)


class Figures:
    """What was measured: a list for each kind of figure and each side, in the order of the rounds."""

    def __init__(self):
        self.all = {}

    def add(self, kind, service, value):
        self.all.setdefault(kind, {}).setdefault(service.side, []).append(value)


class Service:
    def __init__(self, side, app, workers=WORKERS):
        self.side, self.app, self.workers = side, app, workers
        self.name = "%s-%s-%d" % (side, app, workers)
        self.cgroup = "%s/%s.service" % (CGROUPS, self.name)
        self.address = "/run/%s.sock" % self.name

    def units(self):
        values = {"name": self.name, "prefix": SIDES[self.side], "project": PROJECT, "workers": self.workers,
                  "app": APPS[self.app]}
        return {self.name + ".service": SERVICE.format(**values), self.name + ".socket": SOCKET.format(**values)}

    def pids(self):
        with open(self.cgroup + "/cgroup.procs") as file:
            return [int(line) for line in file]

    def main_pid(self):
        return int(output("systemctl", "show", "--property=MainPID", "--value", self.name + ".service"))

    def worker_pids(self, main=None):
        """The processes that hold the listening socket, but for the supervisor itself."""
        main = main or self.main_pid()
        socket_link = "socket:[%s]" % listener_inode(self.address)
        return [pid for pid in self.pids() if pid != main and socket_link in descriptors(pid)]

    def busy_us(self):
        """Processor time of all its processes so far, the dead ones included."""
        with open(self.cgroup + "/cpu.stat") as file:
            return int(dict(line.split() for line in file)["usage_usec"])

    def wait_until_quiet(self):
        """Until every worker has started and nothing is done any more."""
        main = self.main_pid()
        deadline = time.monotonic() + PATIENCE
        still = 0
        while still < 5:
            assert time.monotonic() < deadline, "%s does not come to rest: %s" % (self.name, self.pids())
            before = self.busy_us()
            time.sleep(0.1)
            quiet = self.busy_us() - before < 1000 and len(self.worker_pids(main)) == self.workers
            still = still + 1 if quiet else 0

    def stop(self):
        subprocess.run(["systemctl", "stop", "--quiet", self.name + ".service"], stderr=subprocess.DEVNULL, check=True)


def set_up():
    write("%s/hello.py" % PROJECT, HELLO)
    settings = "%s/myproject/settings.py" % PROJECT
    if not os.path.exists(settings):
        command = "cd {0} && myprojectenv/bin/django-admin startproject myproject {0}".format(PROJECT)
        subprocess.run(["setpriv", "--reuid=sammy", "--regid=sammy", "--clear-groups", "sh", "-c", command], check=True)
        write(settings, "\nDEBUG = False\nALLOWED_HOSTS = ['localhost']\n", "a")
        write("%s/myproject/urls.py" % PROJECT, DJANGO, "a")
    sockets = []
    for side in SIDES:
        for app in APPS:
            for workers in (WORKERS, 1):
                service = Service(side, app, workers)
                for unit, text in service.units().items():
                    write("/run/systemd/system/" + unit, text)
                sockets.append(service.name + ".socket")
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    subprocess.run(["systemctl", "start", *sockets], check=True)


def take_precedence():
    """Let the rest of the host wait: this process and systemd with all its services, also those to come."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            os.sched_setscheduler(int(name), os.SCHED_RR, os.sched_param(1))


def write(path, text, mode="w"):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, mode) as file:
        file.write(text)


def output(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout


# ---------------------------------------------------------------------------------------------------
# What is measured
# ---------------------------------------------------------------------------------------------------

def visit(service):
    service.stop()
    first_byte(service.address)
    service.wait_until_quiet()
    service.stop()


def measure_service(figures, service, options):
    service.stop()
    figures.add("cold start " + service.app, service, first_byte(service.address) * 1000)
    service.wait_until_quiet()

    busy = service.busy_us()
    requests = load(service.address, options.clients, options.seconds)
    figures.add("requests " + service.app, service, requests / options.seconds)
    figures.add("work " + service.app, service, (service.busy_us() - busy) / requests)
    service.wait_until_quiet()

    main = service.main_pid()
    memory = {pid: pss(pid) for pid in service.pids()}
    others = set(memory) - {main, *service.worker_pids()}
    figures.add("supervisor memory " + service.app, service, memory[main])
    figures.add("template memory " + service.app, service, sum(memory[pid] for pid in others))
    figures.add("tree memory " + service.app, service, sum(memory.values()))

    figures.add("successor exists " + service.app, service, successor_exists(service) * 1000)
    service.stop()


def measure_single_worker(figures, service):
    """With one worker nobody else can answer: the next answer is the successor's."""
    service.stop()
    first_byte(service.address)
    service.wait_until_quiet()
    worker, = service.worker_pids()
    begun = time.monotonic()
    os.kill(worker, signal.SIGKILL)
    figures.add("successor answers " + service.app, service, first_byte(service.address, begun) * 1000)
    service.stop()


def measure_idle(figures, services, seconds):
    for service in services:
        service.stop()
        first_byte(service.address)
        service.wait_until_quiet()
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


def first_byte(address, begun=None):
    """Seconds until a new connection has the first byte of its answer."""
    begun = begun or time.monotonic()
    with connect(address) as client:
        client.settimeout(PATIENCE)
        client.sendall(REQUEST)
        answer = client.recv(4096)
        took = time.monotonic() - begun
    assert answer.startswith(b"HTTP/1.1 200"), answer
    return took


def connect(address):
    client = socket.socket(socket.AF_UNIX)
    client.connect(address)
    return client


def load(address, clients, seconds):
    """How many requests were answered, each on a connection of its own."""
    reader, writer = os.pipe()
    children = []
    for _ in range(clients):
        pid = os.fork()
        if pid == 0:
            try:
                os.write(writer, b"%d\n" % visit_again_and_again(address, seconds))
                os._exit(0)
            finally:
                os._exit(1)
        children.append(pid)
    os.close(writer)
    with open(reader) as file:
        counts = [int(line) for line in file]
    assert all(os.waitpid(pid, 0)[1] == 0 for pid in children), "a request failed"
    return sum(counts)


def visit_again_and_again(address, seconds):
    count = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with connect(address) as client:
            client.sendall(REQUEST)
            answer = b""
            while chunk := client.recv(4096):
                answer += chunk
        if not answer.startswith(b"HTTP/1.1 200"):
            os._exit(1)
        count += 1
    return count


def successor_exists(service):
    """Seconds from a worker's death to the first sight of the process that takes its place.

    Processes that only help to make it come and go; the successor is the one that holds the socket in the
    end. Looking without a pause would take the processor, and a lock that forking needs, from those who
    are looked at.
    """
    before = service.worker_pids()
    victim = before[0]
    seen = dict.fromkeys(service.pids(), 0.0)
    complete = len(seen)
    file = os.open(service.cgroup + "/cgroup.procs", os.O_RDONLY)
    begun = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    while time.monotonic() - begun < 0.5 or len(pids) < complete:
        pids = os.pread(file, 65536, 0).split()
        for pid in pids:
            seen.setdefault(int(pid), time.monotonic() - begun)
        time.sleep(0.0001)
        assert time.monotonic() - begun < PATIENCE, "no successor in %s" % service.name
    os.close(file)
    service.wait_until_quiet()
    successor, = set(service.worker_pids()).difference(before)
    return seen[successor]


def pss(pid):
    """Proportional set size in MiB: pages that several processes share count in parts."""
    with open("/proc/%d/smaps_rollup" % pid) as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024


def idle_state(pid):
    """How often it went to sleep by itself, and its processor time in ms."""
    with open("/proc/%d/status" % pid) as file:
        wakeups = next(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt_switches:"))
    with open("/proc/%d/schedstat" % pid) as file:
        return wakeups, int(file.read().split()[0]) / 1e6


def listener_inode(address):
    with open("/proc/net/unix") as file:
        sockets = [line.split() for line in file]
    # The flag is SO_ACCEPTCON: connections have the same address.
    inode, = [fields[6] for fields in sockets if fields[-1] == address and fields[3] == "00010000"]
    return inode


def descriptors(pid):
    """What the descriptors of a process are; nothing if it has just gone."""
    directory = "/proc/%d/fd/" % pid
    try:
        return [os.readlink(directory + name) for name in os.listdir(directory)]
    except FileNotFoundError:
        return []


def environment():
    python = PROJECT + "/myprojectenv/bin/python"
    with open("/etc/os-release") as file:
        release = dict(line.rstrip().split("=", 1) for line in file if "=" in line)
    return {
        "debian": release["VERSION_ID"].strip('"'),
        "systemd": output("systemctl", "--version").split()[1],
        "python": output(python, "-c", "import platform; print(platform.python_version())").strip(),
        "gunicorn": output(python, "-c", "import gunicorn; print(gunicorn.__version__)").strip(),
        "django": output(python, "-c", "import django; print(django.__version__)").strip(),
        "processors": os.cpu_count(),
    }


if __name__ == "__main__":
    main()
