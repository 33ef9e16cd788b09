"""What many workers cost sockd itself: processor time of a start, a reload and a question for the status.

Plays systemd for one sockd at a time, on this machine: workers are `sleep`, without control groups. Linear is right: ten
times the workers, ten times the time.
"""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile

COUNTS = (100, 300, 1000)


def measure(binary, rounds):
    """For each number of workers a list of {start, reload, status}, in milliseconds."""
    return {count: [measure_once(binary, count) for _ in range(rounds)] for count in COUNTS}


def measure_once(binary, count):
    with contextlib.ExitStack() as stack:
        # As RuntimeDirectory= is, in memory.
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        manager = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        manager.bind(str(directory / "notify"))
        manager.settimeout(120)
        (directory / "sockd.toml").write_text(
            "[workers]\ncount = %d\nready-after = \"500ms\"\nstart = \"at-once\"\nstop-timeout = \"1s\"\n"
            "[reload]\nsoak = \"0s\"\ncanary = false\n[listen]\naddresses = [\"unix:%s\"]\n"
            % (count, directory / "web.sock"))
        environment = {"PATH": os.environ["PATH"], "NOTIFY_SOCKET": str(directory / "notify"),
                       "RUNTIME_DIRECTORY": str(directory)}
        command = [binary, "run", "--config", directory / "sockd.toml", "--", "sleep", "infinity"]
        sockd = subprocess.Popen(command, cwd=directory, env=environment, stderr=subprocess.DEVNULL)
        try:
            wait(manager, "STATUS=serving, %d of %d workers, generation 1" % (count, count))
            start = spent(sockd.pid)
            sockd.send_signal(signal.SIGHUP)
            wait(manager, "STATUS=serving, %d of %d workers, generation 2" % (count, count))
            reload = spent(sockd.pid) - start
            # The old workers are gone, too.
            while len(ask(sockd.pid)["workers"]) > count:
                pass
            before = spent(sockd.pid, sockd.pid)
            for _ in range(10):
                ask(sockd.pid)
            status = (spent(sockd.pid, sockd.pid) - before) / 10
        finally:
            sockd.terminate()
            sockd.wait()
    return {"start": start, "reload": reload, "status": status}


def wait(manager, line):
    while line not in manager.recv(65536).decode().splitlines():
        pass


def spent(pid, thread=None):
    """Processor time of a process, or of one of its threads, in milliseconds (proc(5), schedstat)."""
    threads = [thread] if thread else os.listdir("/proc/%d/task" % pid)
    times = [pathlib.Path("/proc/%d/task/%s/schedstat" % (pid, thread)).read_text().split()[0] for thread in threads]
    return sum(map(int, times)) / 1e6


def ask(pid):
    name = next(word for word in pathlib.Path("/proc/self/net/unix").read_text().split()
                if word.startswith("@sockd/%d/" % pid))
    with socket.socket(socket.AF_UNIX) as control:
        control.connect("\0" + name[1:])
        control.sendall(b'{"command":"status"}\n')
        return json.loads(control.makefile().readline())["status"]
