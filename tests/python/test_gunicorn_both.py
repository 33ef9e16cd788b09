"""gunicorn's hooks: which are called, when, where and with what, each time beside gunicorn's own arbiter."""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(__file__))

import both  # noqa: E402
from both import Gunicorn, Sockd, ask  # noqa: E402
from fake_sockd import wait_until  # noqa: E402

APPLICATION = '''
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]
'''

# Each hook writes a line: in which process, and what it was given. Numbers are given as people give them: the lowest
# that no living worker has.
CONFIGURATION = '''
import itertools, os, sys
workers = 2
bind = "unix:web.sock"
def note(*words):
    with open("hooks", "a") as file:
        print(*words, file=file)
def alive(pid):
    try:
        os.kill(pid, 0)
        return True
    except ProcessLookupError:
        return False
def numbers(server):
    return sorted(worker.number for worker in list(server.WORKERS.values()))
def nworkers_changed(server, new, old):
    note("nworkers_changed", new, old)
def on_starting(server):
    server.forks = 0
    os.environ["SET_BY_ON_STARTING"] = "yes"
    note("on_starting", "imported" if "hello" in sys.modules else "not-imported", len(server.WORKERS))
def when_ready(server):
    note("when_ready", os.path.exists("web.sock"), server.num_workers, len(server.WORKERS))
def on_reload(server):
    note("on_reload", server.forks, numbers(server))
def pre_fork(server, worker):
    used = numbers(server)
    worker.number = next(number for number in itertools.count(1) if number not in used)
    server.forks += 1
    note("pre_fork", worker.pid, worker.age, worker.number, server.forks, used, len(server.LISTENERS))
def post_fork(server, worker):
    note("post_fork", worker.age, worker.number, worker.pid == os.getpid(), worker.pid in server.WORKERS,
         os.environ.get("SET_BY_ON_STARTING"))
def post_worker_init(worker):
    note("post_worker_init", worker.age, worker.number)
    note("pid", worker.number, worker.pid)
def worker_int(worker):
    note("worker_int", worker.age)
def worker_abort(worker):
    note("worker_abort", worker.age)
def worker_exit(server, worker):
    note("worker_exit", worker.age, worker.number, worker.pid == os.getpid())
def child_exit(server, worker):
    note("child_exit", worker.age, worker.number, worker.pid != os.getpid(), alive(worker.pid), numbers(server))
def on_exit(server):
    note("on_exit", len(server.WORKERS), server.forks)
'''


def of(lines, *names):
    return [line for line in lines if line.split()[0] in names]


class SockdWithoutCanary(Sockd):
    """As many workers as gunicorn has."""

    def prefix(self, options):
        return super().prefix(["--no-canary", *options])


class Privileges(both.Case):
    """As root, for another user: to whom sockets and log files belong, and what workers are."""

    files = {"who": '''
import os
def app(environ, start_response):
    body = repr((os.getuid(), os.getgid(), os.getgroups())).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
''', "conf": '''
import os
user, group, umask = "nobody", "nogroup", 0o007
def post_fork(server, worker):
    with open("hooks", "a") as file:
        print("post_fork", os.getuid(), file=file)
'''}

    def facts(self, kind, *arguments):
        service = self.service(kind, "-b", "unix:web.sock", "--error-logfile", "error.log",
                               "--access-logfile", "access.log", *arguments, "who:app")
        os.chmod(service.directory.path, 0o755)
        answer = ask(service)
        files = {}
        for name in ("web.sock", "error.log", "access.log"):
            stat = os.stat(service.directory / name)
            files[name] = (stat.st_uid, stat.st_gid, oct(stat.st_mode))
        service.stop()
        return answer, files, service.lines()

    @unittest.skipUnless(os.getuid() == 0, "only root can become somebody else")
    def test_owners(self):
        for arguments in (["-u", "nobody", "-g", "nogroup", "-m", "007"],
                          ["-u", "nobody", "-g", "nogroup", "-m", "007", "--initgroups"],
                          ["-c", "conf.py"]):
            with self.subTest(arguments=arguments):
                self.assertEqual(self.facts(Sockd, *arguments), self.facts(Gunicorn, *arguments))


class PidFile(both.Case):
    """For log rotation by `kill -USR1 $(cat FILE)`, and for monitors."""

    files = {"hello": APPLICATION, "conf": """
def on_exit(server):
    with open("hooks", "a") as file:
        print("on_exit", file=file)
""", "ahello": """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"hello"})
"""}

    def life(self, kind, program, *arguments):
        place = tempfile.TemporaryDirectory(prefix="sockd-test-")
        self.addCleanup(place.cleanup)
        path = pathlib.Path(place.name, "web.pid")
        gone = subprocess.Popen(["true"])
        gone.wait()
        path.write_text("%d\n" % gone.pid)
        service = self.service(kind, *arguments, str(path), program=program)
        ask(service)

        def named():
            return path.exists() and path.read_text() == "%d\n" % service.process.pid
        wait_until(named, "the number of the main process")
        if kind is Sockd:
            service.signal(signal.SIGHUP)
            wait_until(lambda: "generation 2 has taken over" in service.output(), "the reload")
        ask(service)
        wait_until(named, "the number of the main process, after a reload")
        mode = oct(path.stat().st_mode)
        self.assertEqual(service.stop(), 0, service.output())
        return mode, os.listdir(place.name)

    def test_it_is_there_while_the_service_is(self):
        gunicorn = "gunicorn", "-b", "unix:web.sock", "hello:app", "-p"
        expected = self.life(Gunicorn, *gunicorn)
        for words in (gunicorn, ("hypercorn", "-b", "unix:web.sock", "ahello:app", "--pid"),
                      ("granian", "--interface", "asgi", "--uds", "web.sock", "ahello:app", "--pid-file")):
            with self.subTest(program=words[0]):
                self.assertEqual(self.life(Sockd, *words), expected)

    def test_a_fifo_in_its_place_holds_nobody_up(self):
        service = self.service(Sockd, "-b", "unix:web.sock", "-c", "conf.py", "-p", "web.pid", "hello:app")
        ask(service)
        path = service.directory / "web.pid"
        wait_until(lambda: os.path.exists(path), "the file")
        os.unlink(path)
        os.mkfifo(path)
        self.assertEqual(service.stop(), 0, service.output())
        # What comes after it in the template.
        self.assertEqual(service.lines(), ["on_exit"])
        self.assertTrue(os.path.exists(path))

    def test_a_file_that_cannot_be_written_keeps_nobody_from_serving(self):
        service = self.service(Sockd, "-b", "unix:web.sock", "-p", "/nowhere/web.pid", "hello:app")
        self.assertEqual(ask(service), "hello")
        wait_until(lambda: "cannot write the pid file /nowhere/web.pid: No such file or directory, ignoring"
                   in service.output(), "a warning")
        self.assertEqual(service.stop(), 0, service.output())


class Deaths(both.Case):
    """What gunicorn has not: canaries, refused reloads, templates that end. Each process has its child_exit, once."""

    files = {"hello": APPLICATION, "hooks_conf": '''
import os
workers = 2
bind = "unix:web.sock"
def note(*words):
    with open("hooks", "a") as file:
        print(*words, file=file)
def on_starting(server): note("on_starting", os.getpid())
def on_reload(server): note("on_reload", os.getpid())
def post_fork(server, worker): note("post_fork", worker.age, worker.pid, sorted(w.age for w in server.WORKERS.values()))
def post_worker_init(worker): note("ready", worker.age, worker.pid)
def child_exit(server, worker): note("child_exit", worker.age, worker.pid)
def on_exit(server): note("on_exit", len(server.WORKERS))
'''}

    def test_every_death_is_reported_once(self):
        service = self.service(Sockd, "-c", "hooks_conf.py", "hello:app")
        service.wait_for(2, "ready")
        service.directory.write("hello.py", "raise RuntimeError('not today')")
        service.signal(signal.SIGHUP)
        # The canary's own template goes with it.
        service.wait_for(1, "child_exit 3 ")
        wait_until(lambda: "refused: " in service.output(), "a refused reload")
        service.directory.write("hello.py", APPLICATION)
        # One that dies while there is no template at all.
        template = int(of(service.lines(), "on_starting")[0].split()[1])
        worker = int(of(service.lines(), "post_fork")[0].split()[2])
        os.kill(template, signal.SIGKILL)
        os.kill(worker, signal.SIGKILL)
        service.wait_for(1, "child_exit 1 %d" % worker)
        service.wait_for(3, "ready")
        service.signal(signal.SIGHUP)
        service.wait_for(5, "ready")
        self.assertEqual(service.stop(), 0, service.output())
        lines = service.lines()
        born = sorted(line.split()[1:3] for line in of(lines, "post_fork"))
        self.assertEqual(sorted(line.split()[1:3] for line in of(lines, "child_exit")), born)
        self.assertEqual(len(of(lines, "on_starting")), 1)
        self.assertEqual(lines[-1], "on_exit 0")
        # A worker sees those that live, whatever has forked them.
        self.assertEqual(of(lines, "post_fork")[2].split(" ", 3)[3], "[1, 2]")


class Lives(both.Case):
    """A whole life: start, a worker killed, a reload, the end."""

    files = {"hello": APPLICATION, "hooks_conf": CONFIGURATION}

    def life(self, kind, *arguments):
        service = self.service(kind, "-c", "hooks_conf.py", *arguments, "hello:app")
        service.wait_for(2, "post_worker_init")
        self.assertEqual(ask(service), "hello")
        pids = {line.split()[1]: int(line.split()[2]) for line in of(service.lines(), "pid")}
        os.kill(pids["1"], signal.SIGKILL)
        service.wait_for(3, "post_worker_init")
        service.wait_for(1, "child_exit")
        service.signal(signal.SIGHUP)
        service.wait_for(3, "child_exit")
        service.wait_for(5, "post_worker_init")
        self.assertEqual(ask(service), "hello")
        self.assertEqual(service.stop(), 0, service.output())
        return service.lines()

    def both_lives(self, *arguments):
        return self.life(Gunicorn, *arguments), self.life(SockdWithoutCanary, *arguments)

    def compare(self, gunicorn, sockd):
        # In one process, and so in one order.
        own = ("nworkers_changed", "on_starting", "when_ready", "on_reload", "pre_fork", "on_exit")
        self.assertEqual(of(sockd, *own), of(gunicorn, *own))
        # At ends that come together the order is chance, and with it who is left.
        for name in ("post_fork", "post_worker_init", "worker_exit"):
            self.assertEqual(sorted(of(sockd, name)), sorted(of(gunicorn, name)))
        exits = [[line.rpartition("[")[0] for line in of(lines, "child_exit")] for lines in (sockd, gunicorn)]
        self.assertEqual(sorted(exits[0]), sorted(exits[1]))
        self.assertEqual(len(exits[0]), 5)


class BesideGunicorn(Lives):

    def numbers_of_workers(self, kind):
        service = self.service(kind, "-c", "hooks_conf.py", "hello:app")
        ask(service)
        service.wait_for(2, "post_worker_init")
        for count, number in enumerate((signal.SIGTTIN, signal.SIGTTOU, signal.SIGTTOU), 2):
            service.signal(number)
            service.wait_for(count, "nworkers_changed")
        service.signal(signal.SIGHUP)
        service.wait_for(5, "nworkers_changed")
        self.assertEqual(service.stop(), 0, service.output())
        return service.lines()

    def test_another_number_of_workers(self):
        gunicorn, sockd = (self.numbers_of_workers(kind) for kind in (Gunicorn, SockdWithoutCanary))
        changes = ["nworkers_changed " + change for change in ("2 None", "3 2", "2 3", "1 2", "2 1")]
        self.assertEqual(of(sockd, "nworkers_changed"), changes)
        self.assertEqual(of(sockd, "nworkers_changed"), of(gunicorn, "nworkers_changed"))
        # The hook comes before the fork.
        order = [line.split()[0] for line in sockd if line.startswith(("nworkers_changed", "pre_fork"))]
        self.assertEqual(order[:5], ["nworkers_changed", "pre_fork", "pre_fork", "nworkers_changed", "pre_fork"])

    def test_life(self):
        gunicorn, sockd = self.both_lives()
        self.compare(gunicorn, sockd)
        self.assertEqual(of(sockd, "on_starting"), ["on_starting not-imported 0"])

    def test_life_preloaded(self):
        gunicorn, sockd = self.both_lives("--preload")
        self.compare(gunicorn, sockd)
        self.assertEqual(of(sockd, "on_starting"), ["on_starting imported 0"])


if __name__ == "__main__":
    unittest.main()
