"""What all benchmarks stand on, inside the machine: a service with its socket, the site that it serves, one visit."""

import os
import socket
import subprocess
import sys
import time

WORKERS = 3
PROJECT = "/home/sammy/myprojectdir"
CGROUPS = "/sys/fs/cgroup/system.slice"
REQUEST = b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
# Nothing here takes longer, not even Django's first start on a busy machine.
PATIENCE = 60
SOCKET = """\
[Socket]
ListenStream={address}
"""


def say(text):
    print(text, file=sys.stderr, flush=True)


class Figures:
    """What was measured: a list for each kind of figure and each side, in the order of the rounds."""

    def __init__(self):
        self.all = {}

    def add(self, kind, service, value):
        self.all.setdefault(kind, {}).setdefault(service.side, []).append(value)


def address(name):
    """Where the service of this name listens."""
    return "/run/%s.sock" % name


class Service:
    """A service unit with its socket unit, or with a socket that the server makes by itself."""

    def __init__(self, side, name, text, workers=WORKERS, own_socket=None):
        self.side, self.name, self.workers = side, name, workers
        self.cgroup = "%s/%s.service" % (CGROUPS, name)
        self.own_socket = own_socket
        self.address = own_socket or address(name)
        self.text = text

    def write(self):
        write("/run/systemd/system/%s.service" % self.name, self.text)
        if not self.own_socket:
            write("/run/systemd/system/%s.socket" % self.name, SOCKET.format(address=self.address))

    def wake(self):
        """Seconds to the first answer: of the first visit, or of the start, after which a visitor tries all the time."""
        begun = time.monotonic()
        if self.own_socket:
            subprocess.run(["systemctl", "start", self.name + ".service"], check=True)
            while not is_listening(self.address):
                assert time.monotonic() < begun + PATIENCE, "%s does not listen" % self.name
                time.sleep(0.001)
        return first_byte(self.address, begun)

    def pids(self):
        found = []
        for directory, _, _ in os.walk(self.cgroup):
            try:
                with open(directory + "/cgroup.procs") as file:
                    found += [int(line) for line in file]
            except OSError:
                # A worker's group that has just gone with it: ENOENT or ENODEV.
                pass
        return found

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
            # uvicorn's loops alone take up to 1.5 ms.
            quiet = self.busy_us() - before < 2000 and len(self.worker_pids(main)) == self.workers
            still = still + 1 if quiet else 0

    def stop(self):
        subprocess.run(["systemctl", "stop", "--quiet", self.name + ".service"], stderr=subprocess.DEVNULL, check=True)

    def begin(self):
        """Like new, all of it up and at rest, whatever became of it before."""
        for units, command in ((".service .socket", "stop"), (".service .socket", "reset-failed"), (".socket", "start")):
            subprocess.run(["systemctl", command, "--quiet", *(self.name + unit for unit in units.split())],
                           stderr=subprocess.DEVNULL)
        first_byte(self.address)
        self.wait_until_quiet()


def start_sockets(services):
    for service in services:
        service.write()
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    sockets = [service.name + ".socket" for service in services if not service.own_socket]
    subprocess.run(["systemctl", "start", *sockets], check=True)


def install(package):
    """Into the site's environment."""
    subprocess.run([PROJECT + "/myprojectenv/bin/pip", "install", "--quiet", package], check=True)


def write_project(**files):
    """The Django project of the guide, and files beside it."""
    for name, text in files.items():
        write("%s/%s.py" % (PROJECT, name), text)
    settings = "%s/myproject/settings.py" % PROJECT
    if not os.path.exists(settings):
        command = "cd {0} && myprojectenv/bin/django-admin startproject myproject {0}".format(PROJECT)
        subprocess.run(["setpriv", "--reuid=sammy", "--regid=sammy", "--clear-groups", "sh", "-c", command], check=True)
        write(settings, "\nDEBUG = False\nALLOWED_HOSTS = ['localhost']\n", "a")


def write(path, text, mode="w"):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, mode) as file:
        file.write(text)


def output(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout


def is_listening(address):
    try:
        connect(address).close()
        return True
    except (FileNotFoundError, ConnectionRefusedError):
        return False


def first_byte(address, begun=None):
    """Seconds until a new connection has the first byte of its answer."""
    begun = begun or time.monotonic()
    with connect(address) as client:
        client.settimeout(PATIENCE)
        client.sendall(REQUEST % b"/")
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
            client.sendall(REQUEST % b"/")
            answer = b""
            while chunk := client.recv(4096):
                answer += chunk
        if not answer.startswith(b"HTTP/1.1 200"):
            os._exit(1)
        count += 1
    return count


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


def pss(pid):
    """Proportional set size in MiB: pages that several processes share count in parts."""
    with open("/proc/%d/smaps_rollup" % pid) as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024


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
        "uwsgi": output("uwsgi", "--version").strip(),
        "processors": os.cpu_count(),
    }
