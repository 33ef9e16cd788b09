"""The test machine of the benchmarks, and the sockd that is copied into it."""

import atexit
import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BOOT_LIMIT = 90
# The largest that the kernel takes in cpu.shares (version 1) and in cpu.weight.
MOST_SHARES, MOST_WEIGHT = 262144, 10000


def give_up(why):
    sys.exit("cannot measure: %s" % why)


def build():
    say("building sockd")
    command = ["cargo", "build", "--release", "--locked", "--message-format=json-render-diagnostics"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE)
    if built.returncode != 0:
        give_up("sockd does not build")
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and message["executable"]:
            return pathlib.Path(message["executable"])
    give_up("cargo has built no program")


def say(text):
    print(text, file=sys.stderr, flush=True)


class Machine:
    """A booted Debian. tests/systemd/boot makes it and, when our end of its pipe closes, takes it away."""

    def __init__(self, release, precedence=False):
        if os.geteuid() != 0:
            give_up("test machines need root")
        self.name = "sockd-bench-%d" % os.getpid()
        self.precedence = Precedence(self.name) if precedence else None
        tree = self.script("rootfs", release)
        self.ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ready.bind("\0" + self.name)
        self.ready.settimeout(0.2)
        self.console = tempfile.TemporaryFile()
        say("booting %s" % release)
        self.keeper = subprocess.Popen(
            [ROOT / "tests/systemd/boot", tree, self.name], env={**os.environ, "NOTIFY_SOCKET": "@" + self.name},
            stdin=subprocess.PIPE, stdout=self.console, stderr=self.console, start_new_session=True)

    def script(self, name, *arguments):
        done = subprocess.run([ROOT / "tests/systemd" / name, *arguments], stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            give_up("tests/systemd/%s failed" % name)
        return done.stdout.strip()

    def __enter__(self):
        deadline = time.monotonic() + BOOT_LIMIT
        while b"READY=1" not in self.hear().split(b"\n"):
            if self.keeper.poll() is not None or time.monotonic() > deadline:
                give_up("the machine did not boot:\n%s" % self.console_text())
        # Process 1 tells more later on, and waits for ever where the socket is there and nobody reads.
        self.ready.close()
        self.leader = self.cgroup("payload/init.scope/cgroup.procs").read_text().strip()
        if self.precedence:
            self.precedence.of_group(self.cgroup("."))
        self.run("systemctl", "is-system-running", "--wait")
        return self

    def console_text(self):
        self.console.seek(0)
        return self.console.read().decode(errors="replace")

    def hear(self):
        try:
            return self.ready.recv(4096)
        except TimeoutError:
            return b""

    def __exit__(self, failure, *_):
        if failure:
            say("the machine's console:\n%s" % self.console_text())
        self.keeper.stdin.write(b"off\n")
        self.keeper.stdin.flush()
        try:
            self.keeper.wait(10)
        except subprocess.TimeoutExpired:
            pass
        self.keeper.stdin.close()
        self.keeper.wait()

    def cgroup(self, file):
        """A file in the machine's control group, as the keeper's mount namespace shows it."""
        return pathlib.Path("/proc/%d/root/sys/fs/cgroup" % self.keeper.pid, self.name, file)

    def run(self, *command, stdin=subprocess.DEVNULL):
        """Runs a command inside, in a control group that is no unit's; returns what it printed."""
        group = self.cgroup("payload/user.slice/bench.scope")
        script = 'mkdir -p "$1" && echo $$ >"$1/cgroup.procs" && shift && exec "$@"'
        enter = ["nsenter", "--target", self.leader, *"--mount --pid --uts --ipc --net --cgroup --".split(),
                 "/usr/bin/env", "-i", "LANG=C.UTF-8", "PATH=/usr/sbin:/usr/bin", "--chdir=/root"]
        done = subprocess.run(["bash", "-c", script, "enter", group, *enter, *map(str, command)],
                              stdin=stdin, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise SystemExit("cannot measure: %s failed inside the machine:\n%s" % (command[0], done.stdout))
        return done.stdout

    def install_bench(self):
        """The programs that measure, and what they share."""
        for file in sorted((HERE / "inside").glob("*.py")):
            self.install(file, "/opt/bench/" + file.name)

    def measure(self, what, *arguments):
        """Runs one of them; returns what it printed."""
        return self.run("/usr/bin/python3", "/opt/bench/%s.py" % what, *arguments)

    def install(self, file, path):
        with open(file, "rb") as content:
            self.run("install", "-D", "-m", "755", "/dev/stdin", path, stdin=content)


class Precedence:
    """The rest of the host waits for the machine and for all that we run in it.

    By weight, since a real-time priority has side effects: it starves what the host's kernel does in ordinary
    processes, and one running real-time process is put off for 50 ms in each second where it lets nobody else run.
    """

    V1 = pathlib.Path("/sys/fs/cgroup/cpu")

    def __init__(self, name):
        self.group = None
        if (self.V1 / "cpu.shares").exists():
            with open("/proc/self/cgroup") as file:
                lines = [line.rstrip("\n").split(":", 2) for line in file]
            self.former = next(path for _, names, path in lines if "cpu" in names.split(","))
            self.group = self.V1 / name
            self.group.mkdir()
            (self.group / "cpu.shares").write_text(str(MOST_SHARES))
            # Whatever we start is in there with us.
            (self.group / "cgroup.procs").write_text(str(os.getpid()))
            atexit.register(self.end)

    def of_group(self, group):
        """Under version 2 it is the machine's own group that has it."""
        if self.group:
            return
        try:
            (group.parent / "cgroup.subtree_control").write_text("+cpu")
            (group / "cpu.weight").write_text(str(MOST_WEIGHT))
        except OSError as error:
            give_up("this host gives nobody precedence: %s" % error)

    def end(self):
        (self.V1 / self.former.lstrip("/") / "cgroup.procs").write_text(str(os.getpid()))
        # A machine that we leave running stays in it.
        with contextlib.suppress(OSError):
            self.group.rmdir()
