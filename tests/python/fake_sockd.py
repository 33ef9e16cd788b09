"""What the tests need of sockd: a supervisor that starts templates, orders workers and hears them.

Every wait is for an event, with a deadline that only a failure reaches; what comes without one is looked at every 2 ms.
"""

import array
import ctypes
import fcntl
import http.client
import itertools
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAMS = os.path.join(os.path.dirname(__file__), "..", "..", "src", "adapter", "python")
# What each server's template needs, by the server's console script: sockd reads the same list.
with open(os.path.join(PROGRAMS, "modules.json")) as modules:
    COMMON, SERVERS = map(json.load(modules).get, ("common", "servers"))
MODULES = {script: COMMON + server["modules"] for script, server in SERVERS.items()}
STANDARD_LIBRARY = {script: server["standard_library"] for script, server in SERVERS.items()}
SCRIPTS = os.path.dirname(sys.executable)
PATIENCE = float(os.environ.get("SOCKD_TEST_PATIENCE", "60"))
SERIAL = itertools.count()
PR_SET_CHILD_SUBREAPER = 36
# As signals.py has it.
DRAIN_TOKEN = signal.SIGRTMAX - 2
# What somebody may send who means the unit and not this process; of what is left out a process may end.
HARMLESS = [number for number in range(1, signal.NSIG) if number not in (32, 33) and number not in [
    getattr(signal, "SIG" + name) for name in
    "INT QUIT TERM KILL STOP CHLD ILL TRAP ABRT BUS FPE SEGV SYS PIPE XCPU XFSZ".split()]]


def become_subreaper():
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def wait_readable(source, what, patience=PATIENCE):
    ready, _, _ = select.select([source], [], [], patience)
    if not ready:
        raise AssertionError("nothing came within %g s: %s" % (patience, what))


def wait_for_exit(pid, patience=PATIENCE):
    """The exit code of a child, or minus the signal that ended it."""
    pidfd = os.pidfd_open(pid)
    try:
        wait_readable(pidfd, "the exit of process %d" % pid, patience)
    finally:
        os.close(pidfd)
    _, status = os.waitpid(pid, 0)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


class Output:
    """The reading end of a process's stderr, and all that came out of it."""

    def __init__(self):
        self.reader, self.writer = os.pipe()
        self.text = ""

    def close_writer(self):
        if self.writer is not None:
            os.close(self.writer)
            self.writer = None

    def read_until(self, wanted, patience=PATIENCE):
        while wanted not in self.text:
            wait_readable(self.reader, "%r in %r" % (wanted, self.text), patience)
            chunk = os.read(self.reader, 65536)
            if not chunk:
                raise AssertionError("ended without %r: %s" % (wanted, self.text))
            self.text += chunk.decode(errors="replace")
        return self.text

    def read_to_end(self, patience=PATIENCE):
        while True:
            wait_readable(self.reader, "the end of %r" % self.text, patience)
            chunk = os.read(self.reader, 65536)
            if not chunk:
                return self.text
            self.text += chunk.decode(errors="replace")

    def close(self):
        self.close_writer()
        os.close(self.reader)


class Directory:
    """A temporary directory with the application's files."""

    def __init__(self, **files):
        self.path = tempfile.mkdtemp(prefix="sockd-test-")
        for name, text in files.items():
            self.write(name + ".py", text)

    def write(self, name, text):
        with open(os.path.join(self.path, name), "w") as file:
            file.write(text)
        return os.path.join(self.path, name)

    def __truediv__(self, name):
        return os.path.join(self.path, name)

    def remove(self):
        shutil.rmtree(self.path, ignore_errors=True)


class Case(unittest.TestCase):
    """A test with a directory of its own, of a template of `server`."""

    server = "gunicorn"
    files = {}

    def setUp(self):
        self.directory = Directory(**self.files)
        self.addCleanup(self.directory.remove)

    def template(self, *arguments, **options):
        template = Template(self.directory, *arguments, server=self.server, **options)
        self.addCleanup(template.stop)
        return template

    def started(self, *arguments, **options):
        template = self.template(*arguments, **options)
        template.settings()
        return template

    def listener(self):
        return self.listener_at("public")

    def listener_at(self, name):
        listener = listen_unix(self.directory / name)
        self.addCleanup(listener.close)
        return listener

    def tcp_listener(self, *where):
        listener = listen_tcp(*where)
        self.addCleanup(listener.close)
        return listener

    def fifo(self):
        path = self.directory / "fifo"
        os.mkfifo(path)
        return path

    def stand_every_signal(self, template, serve):
        """Whatever somebody else sends to a whole unit ends neither the template nor a worker, at no time."""
        worker = template.fork(1)
        signal_all([template.pid, worker.pid])
        worker.wait_ready()
        for number in HARMLESS:
            signal_all([template.pid, worker.pid], [number])
            self.assertEqual(serve(worker), str(worker.pid), "after signal %d" % number)
        # What it starts gets back what is common, and nothing but the token is held back there.
        common = [signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM]
        self.assertEqual(ignored_signals(worker.pid) & mask_of(common), 0)
        self.assertEqual(blocked_signals(worker.pid), mask_of([DRAIN_TOKEN]))
        worker.signal(signal.SIGUSR2)
        worker.wait()
        worker = template.fork(2)
        worker.wait_ready()
        self.assertEqual(serve(worker), str(worker.pid))


def signal_all(pids, numbers=None):
    """From a process that is not sockd."""
    for number in HARMLESS if numbers is None else numbers:
        subprocess.run(["kill", "-%d" % number] + [str(pid) for pid in pids], check=True)


def mask_of(numbers):
    return sum(1 << number - 1 for number in numbers)


def ignored_signals(pid):
    return signals_of(pid, "SigIgn:")


def blocked_signals(pid):
    return signals_of(pid, "SigBlk:")


def signals_of(pid, field):
    with open("/proc/%d/status" % pid) as status:
        return next(int(line.split()[1], 16) for line in status if line.startswith(field))


class Scoreboard:
    """The page on which a worker shows how it is, as src/scoreboard.rs has it."""

    ROWS, COLUMNS = 6, 47
    FIRST_SLOT = 8 * (8 + ROWS * COLUMNS)

    def __init__(self):
        self.file = tempfile.TemporaryFile()
        self.file.truncate(4096 + 65536)

    def fileno(self):
        return self.file.fileno()

    def close(self):
        self.file.close()

    def words(self):
        """Version, last beat in nanoseconds, whether requests are shown; those without a slot, WebSockets."""
        return struct.unpack("=5Q", os.pread(self.fileno(), 40, 0))

    def finished(self):
        """How many requests, by the hundreds of their status; those without an answer are 0."""
        counts = struct.unpack("=%dQ" % (self.ROWS * self.COLUMNS), os.pread(self.fileno(), self.FIRST_SLOT - 64, 64))
        rows = {row: sum(counts[row * self.COLUMNS:(row + 1) * self.COLUMNS]) for row in range(self.ROWS)}
        return {row: count for row, count in rows.items() if count}

    def in_flight(self):
        """What is served in a slot of its own, without the time."""
        slots = struct.iter_unpack("=QQ8s88s", os.pread(self.fileno(), 15 * 112, self.FIRST_SLOT))
        return [b" ".join(text.rstrip(b"\0") for text in request).decode() for began, _, *request in slots if began]

    def last_failure(self):
        """The last request that was answered with 500 to 599."""
        method, path = struct.unpack("=8s88s", os.pread(self.fileno(), 96, self.FIRST_SLOT + 15 * 112))
        return b" ".join((method.rstrip(b"\0"), path.rstrip(b"\0"))).decode()

    def wait_for_finished(self, counts):
        """Until so many requests are over and none is served any more: a visitor has his answer a moment before."""
        over = counts, [], 0
        wait_until(lambda: (self.finished(), self.in_flight(), self.words()[3]) == over, "these: %s" % counts)

    @property
    def last_beat(self):
        """In seconds of time.monotonic()."""
        return self.words()[1] / 1e9

    def next_beat(self):
        before = self.last_beat
        wait_until(lambda: self.last_beat != before, "a beat")

    def wait_for_silence(self, seconds):
        wait_until(lambda: time.monotonic() - self.last_beat > seconds, "no beat for %g s" % seconds)


class Worker:
    """One ordered worker: its process, its notifications, its stderr, its probe socket."""

    def __init__(self, template, number, listeners, probe, group, requests, environment):
        directory = template.directory
        self.number = number
        self.pid = None
        self.status = None
        self.output = Output()
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        serial = next(SERIAL)
        self.notify_path = directory / ("notify-%d" % serial)
        self.notify.bind(self.notify_path)
        self.probe_path = directory / ("probe-%d" % serial)
        self.scoreboard = Scoreboard()
        descriptors = [self.output.writer, self.scoreboard.fileno()] + [listener.fileno() for listener in listeners]
        probe_socket = None
        if probe:
            probe_socket = listen_unix(self.probe_path)
            descriptors.append(probe_socket.fileno())
        if group:
            descriptors.append(group.fileno())
        command = {
            "worker": number,
            "environment": dict(environment, NOTIFY_SOCKET=self.notify_path),
            "requests": requests,
            "listeners": len(listeners),
            "probe": probe,
            "group": group is not None,
            "unheard-of": True,
        }
        template.send_bytes(json.dumps({"fork": command}).encode(), descriptors)
        self.output.close_writer()
        if probe_socket:
            probe_socket.close()

    def next_notification(self, patience=PATIENCE):
        wait_readable(self.notify, "a notification of worker %d; %s" % (self.number, self.output.text), patience)
        return self.notify.recv(4096).decode()

    def wait_notification(self, wanted, patience=PATIENCE):
        """Everything that came, up to and including what was wanted."""
        seen = []
        while wanted not in seen:
            seen.append(self.next_notification(patience))
        return seen

    def wait_ready(self):
        try:
            return self.wait_notification("READY=1")
        except AssertionError:
            os.kill(self.pid, signal.SIGKILL)
            raise AssertionError("worker never ready: %s" % self.output.read_to_end()) from None

    def notifications_so_far(self):
        seen = []
        while select.select([self.notify], [], [], 0)[0]:
            seen.append(self.notify.recv(4096).decode())
        return seen

    def signal(self, number):
        if number == signal.SIGUSR2:
            # sockd drains with two signals.
            os.kill(self.pid, DRAIN_TOKEN)
        os.kill(self.pid, number)

    def wait(self, patience=PATIENCE):
        if self.status is None:
            self.status = wait_for_exit(self.pid, patience)
        return self.status

    def stop(self):
        if self.pid is not None and self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        self.notify.close()
        self.scoreboard.close()
        self.output.close()


class Template:
    """A running template and the workers that it was ordered to fork."""

    # Whether workers are to show their requests.
    shows_requests = True

    def __init__(self, directory, *arguments, server="gunicorn", how="script", loading="own", options=(),
                 environment=None, life=None, python=sys.executable):
        self.directory = directory
        self.output = Output()
        self.stdout = Output()
        self.workers = []
        self.status = None
        self.hook_state = None
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        program = os.path.join(os.path.dirname(python), server) if how == "script" else python
        code, boot = memory(package(server)), memory(source("sockd_worker/bootstrap.py"))
        life = life or {"phase": "start", "hook_state": None, "bound": False, "workers": []}
        life = memory(json.dumps(life).encode())
        # Out of the way of the numbers that the child shall see.
        theirs_high = fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, 100)
        code_high = fcntl.fcntl(code, fcntl.F_DUPFD_CLOEXEC, 100)
        boot_high = fcntl.fcntl(boot, fcntl.F_DUPFD_CLOEXEC, 100)
        life_high = fcntl.fcntl(life, fcntl.F_DUPFD_CLOEXEC, 100)
        environment = dict(os.environ, **(environment or {}))
        back = os.getcwd()
        os.chdir(directory.path)
        try:
            self.pid = os.posix_spawn(
                python,
                [python, *options, "/proc/self/fd/5", how, loading, program, *arguments],
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, self.stdout.writer, 1),
                    (os.POSIX_SPAWN_DUP2, self.output.writer, 2),
                    (os.POSIX_SPAWN_DUP2, theirs_high, 3),
                    (os.POSIX_SPAWN_DUP2, code_high, 4),
                    (os.POSIX_SPAWN_DUP2, boot_high, 5),
                    (os.POSIX_SPAWN_DUP2, life_high, 6),
                ],
                setsid=True)
        finally:
            os.chdir(back)
        theirs.close()
        for fd in (theirs_high, code_high, boot_high, life_high, code, boot, life):
            os.close(fd)
        self.stdout.close_writer()
        self.output.close_writer()

    def receive(self, patience=PATIENCE):
        """The next message, but for what hooks leave in the template, which is remembered."""
        while True:
            wait_readable(self.control, "a message of the template", patience)
            message = self.control.recv(65536)
            if not message:
                raise AssertionError("template ended: %s" % self.output.read_to_end())
            content = json.loads(message)
            if "hook_state" not in content:
                self.hook_state = content.get("hello", {}).get("hook_state", self.hook_state)
                return content
            self.hook_state = content["hook_state"]

    def settings(self):
        return self.receive()["hello"]["settings"]

    def send_bytes(self, data, descriptors=()):
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self.control.sendmsg([data], ancillary)

    def order(self, number, listeners=(), probe=True, group=None, **environment):
        worker = Worker(self, number, listeners, probe, group, self.shows_requests, environment)
        self.workers.append(worker)
        return worker

    def place(self, number, group):
        self.send_bytes(json.dumps({"place": {"worker": number}}).encode(), [group.fileno()])

    def fork(self, number, listeners=(), probe=True, group=None, **environment):
        worker = self.order(number, listeners, probe, group, **environment)
        answer = self.receive()
        if "forked" not in answer:
            raise AssertionError("no worker: %r" % answer)
        assert answer["forked"]["worker"] == number
        worker.pid = answer["forked"]["pid"]
        worker.hook_state = answer["forked"].get("hook_state")
        return worker

    def exited(self, number, pid, call=True):
        notice = {"worker": number, "pid": pid, "hook_state": None, "call": call}
        self.send_bytes(json.dumps({"exited": notice}).encode())

    def spare(self):
        """The process that will be the next worker: ours by now, but still of the template's process group."""
        found = []

        def is_there():
            found[:] = [pid for pid in children() if pid != self.pid and process_group(pid) == self.pid]
            return found
        wait_until(is_there, "a spare")
        return found[0]

    def wait(self):
        if self.status is None:
            self.status = wait_for_exit(self.pid)
        return self.status

    def stop(self):
        self.control.close()
        for worker in self.workers:
            worker.stop()
        self.wait()
        self.stdout.close()
        self.output.close()


def children(pid="self"):
    with open("/proc/%s/task/%s/children" % (pid, os.getpid() if pid == "self" else pid)) as file:
        return [int(pid) for pid in file.read().split()]


def process_group(pid):
    with open("/proc/%d/stat" % pid) as stat:
        return int(stat.read().rpartition(")")[2].split()[2])


def open_files(pid):
    directory = "/proc/%d/fd" % pid
    links = {}
    for fd in os.listdir(directory):
        try:
            links[int(fd)] = os.readlink(os.path.join(directory, fd))
        except FileNotFoundError:
            # Closed since the directory was read.
            pass
    return links


def descriptors_of(template):
    """What the template has open, but for its pipe from the spare, which is another one each time."""
    return sorted(without_own_pipes(open_files(template.pid).values()))


def without_own_pipes(links):
    """Without the pipes that we have no end of: between template and spare, where each learns of the other's end.

    The links are of one look at the process: a pipe that is open only while the template forks is gone at the next.
    """
    ours = set(open_files(os.getpid()).values())
    return [link for link in links if not link.startswith("pipe:") or link in ours]


def source(path):
    with open(os.path.join(PROGRAMS, path), "rb") as file:
        return file.read()


def package(server):
    """What a server's template needs as sockd hands it over."""
    head = " ".join(STANDARD_LIBRARY[server]).encode() + b"\n"
    sources = [(path.encode(), source(path)) for path in MODULES[server]]
    return head + b"".join(b"%s %d\n%s" % (path, len(text), text) for path, text in sources)


def memory(text):
    fd = os.memfd_create("sockd-template")
    os.write(fd, text)
    return fd


def listen_unix(path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(128)
    return listener


def backlog_of(listener):
    """How many connections may wait (tcpi_sacked of a listening socket's TCP_INFO)."""
    return struct.unpack_from("I", listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 28)[0]


def listen_tcp(family=socket.AF_INET, host="127.0.0.1"):
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind((host, 0))
    listener.listen(128)
    return listener


def connect(where):
    """A connection to a path or to a listening socket's address."""
    if isinstance(where, str):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        address = where
    else:
        connection = socket.socket(where.family, socket.SOCK_STREAM)
        address = where.getsockname()
    connection.settimeout(PATIENCE)
    connection.connect(address)
    return connection


class Client(http.client.HTTPConnection):
    """An HTTP connection, kept alive, to a path or a listening socket."""

    def __init__(self, where):
        super().__init__("testserver")
        self.sock = connect(where)

    def get(self, path="/", headers=None):
        self.request("GET", path, headers=headers or {})
        response = self.getresponse()
        return response.read().decode()


def get(where, path="/"):
    client = Client(where)
    try:
        return client.get(path, {"Connection": "close"})
    finally:
        client.close()


def wait_until(condition, what, patience=PATIENCE):
    """Look every 2 ms, until the deadline, for one of the few facts that come without an event, as in shared memory."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("never came: %s" % what)
        time.sleep(0.002)
