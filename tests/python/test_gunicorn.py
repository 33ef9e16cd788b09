"""The gunicorn template against real gunicorn, with the test playing sockd.

Run with the interpreter of an environment that has gunicorn; worker classes whose libraries are not
installed are skipped:  VENV/bin/python -m unittest discover tests/python
"""

import importlib.metadata
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))

import fake_sockd  # noqa: E402
from fake_sockd import (  # noqa: E402
    SCRIPTS, Client, Scoreboard, Template, become_subreaper, descriptors_of, get, open_files, wait_for_exit,
    wait_readable, wait_until, without_own_pipes)
from websocket import WebSocket, refuses  # noqa: E402

WSGI = '''
import os, sys

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/spin":
        announce()
        while True:
            pass
    if path == "/block":
        announce()
        spin_in_c()
    if path == "/wait":
        announce()
        with open(environ["HTTP_X_FIFO"]) as fifo:
            fifo.read()
    body = "%d %s" % (os.getpid(), environ["SERVER_NAME"])
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body.encode()]

def announce():
    print("in the request", file=sys.stderr, flush=True)

def spin_in_c():
    # A sum over an endless iterator made of C code only: no bytecode runs, so no Python handler does.
    import itertools
    sum(itertools.repeat(0))
'''

ASGI = '''
import os, sys

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    body = ("%d %s" % (os.getpid(), (scope["server"] or ["-"])[0])).encode()
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})

async def lifespan(receive, send):
    import asyncio
    await receive()
    if "FIFO" in os.environ:
        print("starting up", file=sys.stderr, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, lambda: open(os.environ["FIFO"]).read())
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
'''

WSGI_CLASSES = {
    "sync": "gunicorn.workers.sync",
    "gthread": "gunicorn.workers.gthread",
    "gevent": "gunicorn.workers.ggevent",
    "gevent_pywsgi": "gunicorn.workers.ggevent",
    "eventlet": "gunicorn.workers.geventlet",
    "tornado": "gunicorn.workers.gtornado",
}
ASGI_CLASSES = {
    "asgi": "gunicorn.workers.gasgi",
    "uvicorn_worker.UvicornWorker": "uvicorn_worker",
    "uvicorn_worker.UvicornH11Worker": "uvicorn_worker",
}
GUNICORN = os.path.join(SCRIPTS, "gunicorn")
GUNICORN_VERSION = tuple(int(part) for part in importlib.metadata.version("gunicorn").split(".")[:2])


def usable(module):
    """Whether a worker class's module can be imported, in a process that it may patch as it likes."""
    return subprocess.run([sys.executable, "-c", "import " + module],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


USABLE = {name for name, module in {**WSGI_CLASSES, **ASGI_CLASSES}.items() if usable(module)}


def setUpModule():
    become_subreaper()
    for name in ("GUNICORN_CMD_ARGS", "WEB_CONCURRENCY", "NOTIFY_SOCKET"):
        os.environ.pop(name, None)


class Case(fake_sockd.Case):
    files = {"hello": WSGI, "asgi_hello": ASGI}


def application_for(worker_class):
    return "hello:app" if worker_class in WSGI_CLASSES else "asgi_hello:app"


class Hello(Case):

    def test_defaults(self):
        hello = self.template("hello:app").receive()["hello"]
        self.assertEqual(hello["gunicorn"], importlib.metadata.version("gunicorn"))
        self.assertEqual(hello["python"], "%d.%d.%d" % sys.version_info[:3])
        self.assertEqual(hello["settings"], {
            "workers": 1, "worker_class": "sync", "silent_when_busy": True, "speaks_tls": False,
            "speaks_uwsgi": False, "threads": 1,
            "timeout": 30, "graceful_timeout": 30, "max_requests": 0, "max_requests_jitter": 0,
            "bind": ["127.0.0.1:8000"], "umask": 0, "owner": [os.geteuid(), os.getegid()], "backlog": 2048,
            "chdir": os.path.realpath(self.directory.path), "preload_app": False, "daemon": False,
            "follows_workers": False, "follows_service": False, "runs_hooks": False, "preload": False, "reload": False,
            "pidfile": None, "wsgi": "hello:app", "proc_name": "hello:app"})

    def test_command_line(self):
        settings = self.template(
            "--workers", "3", "--threads=2", "-b", "unix:/run/x.sock", "-b", "[::1]:8001", "--daemon", "--preload",
            "--max-requests", "1000", "--max-requests-jitter", "50", "-p", "/run/g.pid", "-m", "007",
            "--name", "shop", "hello:app").settings()
        self.assertEqual(settings["workers"], 3)
        self.assertEqual(settings["worker_class"], "gthread")
        self.assertEqual(settings["bind"], ["unix:/run/x.sock", "[::1]:8001"])
        self.assertTrue(settings["daemon"] and settings["preload_app"])
        self.assertEqual((settings["max_requests"], settings["max_requests_jitter"]), (1000, 50))
        self.assertEqual((settings["pidfile"], settings["umask"], settings["proc_name"]), ("/run/g.pid", 7, "shop"))

    def test_environment(self):
        settings = self.template("hello:app", environment={
            "GUNICORN_CMD_ARGS": "--timeout 7 --graceful-timeout=3", "WEB_CONCURRENCY": "5"}).settings()
        self.assertEqual((settings["timeout"], settings["graceful_timeout"], settings["workers"]), (7, 3, 5))

    def test_default_configuration_file(self):
        self.directory.write("gunicorn.conf.py", "workers = 4\nwsgi_app = 'hello:app'\n")
        settings = self.template().settings()
        self.assertEqual((settings["workers"], settings["wsgi"]), (4, "hello:app"))

    def test_named_configuration_file_and_chdir(self):
        os.mkdir(self.directory / "inner")
        config = self.directory.write("production.py", "timeout = 11\nchdir = %r\n" % (self.directory / "inner"))
        settings = self.template("-c", config, "hello:app").settings()
        self.assertEqual((settings["timeout"], settings["chdir"]), (11, self.directory / "inner"))

    def test_a_configuration_file_finds_what_the_template_does_without(self):
        self.directory.write("gunicorn.conf.py", """
import gc, importlib.metadata
from gunicorn.arbiter import Arbiter
assert gc.isenabled()
assert issubclass(Arbiter, object) and importlib.metadata.version("gunicorn")
workers = 6
""")
        self.assertEqual(self.template("hello:app").settings()["workers"], 6)

    def test_started_as_a_module(self):
        self.assertEqual(self.template("hello:app", how="module").settings()["wsgi"], "hello:app")


class LikeGunicorn(Case):
    """What the user sees of gunicorn when nothing is forked."""

    def both(self, *arguments, how="script"):
        """What gunicorn itself and the template print, and their exit codes."""
        command = [GUNICORN] if how == "script" else [sys.executable, "-m", "gunicorn"]
        own = subprocess.run([*command, *arguments], cwd=self.directory.path, capture_output=True, text=True)
        template = self.template(*arguments, how=how)
        ours = (template.wait(), template.stdout.read_to_end(), template.output.read_to_end())
        return (own.returncode, own.stdout, own.stderr), ours

    def assert_same(self, *arguments, **options):
        own, ours = self.both(*arguments, **options)
        self.assertEqual(own, ours)
        return ours

    def test_version(self):
        self.assert_same("--version")

    def test_help(self):
        self.assert_same("--help")

    @unittest.skipIf(GUNICORN_VERSION < (22, 0), "called itself __main__.py")
    def test_help_of_the_module(self):
        self.assert_same("--help", how="module")

    def test_check_config(self):
        code, _, _ = self.assert_same("--check-config", "hello:app")
        self.assertEqual(code, 0)

    def test_check_config_of_a_broken_application(self):
        self.directory.write("broken.py", "import nowhere_to_be_found\n")
        own, ours = self.both("--check-config", "broken:app")
        self.assertEqual((own[0], ours[0]), (1, 1))
        self.assertIn("No module named 'nowhere_to_be_found'", ours[2])

    def test_print_config(self):
        own, ours = self.both("--print-config", "--workers", "3", "hello:app")
        self.assertEqual((ours[0], ours[2]), (own[0], own[2]))
        differences = set(ours[1].splitlines()) ^ set(own[1].splitlines())
        # The two settings that sockd takes out of gunicorn's hands are off by default.
        self.assertEqual(differences, set())

    def test_configuration_errors(self):
        self.directory.write("bad.py", "this is no Python\n")
        for arguments in (["--workers", "many", "hello:app"], [], ["-c", "missing.py", "hello:app"],
                          ["-c", "bad.py", "hello:app"], ["--bogus"]):
            with self.subTest(arguments=arguments):
                own, ours = self.both(*arguments)
                self.assertNotEqual(own[0], 0)
                self.assertEqual(ours[:2], own[:2])
                self.assertEqual(ours[2].splitlines()[-1], own[2].splitlines()[-1])

    def test_unknown_worker_class(self):
        own, ours = self.both("-k", "nonesuch", "hello:app")
        self.assertEqual(ours[0], own[0])
        self.assertIn("Error: class uri 'nonesuch' invalid or not found", ours[2])


class ImportPath(Case):
    APP = '''
import json, sys
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [json.dumps({"path": sys.path, "argv": sys.argv, "main": sys.modules["__main__"].__file__}).encode()]
'''

    def facts(self, *options, how="script", arguments=()):
        self.directory.write("facts.py", self.APP)
        template = self.started(*arguments, "facts:app", how=how, options=options)
        worker = template.fork(1)
        worker.wait_ready()
        return json.loads(get(worker.probe_path))

    def assert_no_trace(self, facts):
        for entry in facts["path"] + facts["argv"] + [facts["main"]]:
            self.assertNotIn("/proc", entry)
            self.assertNotIn("memfd", entry)

    def test_script(self):
        facts = self.facts()
        self.assert_no_trace(facts)
        self.assertEqual(facts["path"][:2], [self.directory.path, os.path.dirname(os.path.realpath(GUNICORN))])
        self.assertEqual(facts["argv"], [GUNICORN, "facts:app"])
        self.assertEqual(facts["main"], GUNICORN)

    def test_module(self):
        facts = self.facts(how="module")
        self.assert_no_trace(facts)
        self.assertEqual(facts["path"][0], self.directory.path)
        self.assertTrue(facts["argv"][0].endswith("gunicorn/__main__.py"))

    @unittest.skipIf(sys.version_info < (3, 11), "-P is new in Python 3.11")
    def test_safe_path_adds_nothing(self):
        facts = self.facts("-P")
        self.assert_no_trace(facts)
        self.assertNotIn(os.path.dirname(os.path.realpath(GUNICORN)), facts["path"])

    def test_isolated_adds_nothing(self):
        facts = self.facts("-I")
        self.assert_no_trace(facts)
        self.assertNotIn(os.path.dirname(os.path.realpath(GUNICORN)), facts["path"])

    def test_pythonpath_option(self):
        os.mkdir(self.directory / "more")
        facts = self.facts(arguments=["--pythonpath", self.directory / "more"])
        self.assertEqual(facts["path"][0], self.directory / "more")


class MetadataLibrary(Case):
    """The template starts without importlib.metadata, and nobody notices."""

    def test_application_gets_the_real_one(self):
        self.directory.write("meta.py", """
import importlib
without_import = importlib.metadata.version("gunicorn")
import importlib.metadata as first
from importlib.metadata import version, PackageNotFoundError
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    from importlib import metadata
    same = first is metadata is importlib.metadata and isinstance(metadata.__file__, str)
    return [repr((without_import == version("gunicorn"), same)).encode()]
""")
        worker = self.started("meta:app").fork(1)
        worker.wait_ready()
        self.assertEqual(get(worker.probe_path), "(True, True)")

    def test_worker_class_named_by_an_entry_point(self):
        os.mkdir(self.directory / "named-1.dist-info")
        self.directory.write("named-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: named\nVersion: 1\n")
        self.directory.write("named-1.dist-info/entry_points.txt",
                             "[gunicorn.workers]\nmine = gunicorn.workers.sync:SyncWorker\n")
        worker = self.started("-k", "egg:named#mine", "hello:app").fork(1)
        worker.wait_ready()

    def test_unknown_name_of_a_worker_class(self):
        template = self.template("-k", "egg:nonesuch#mine", "hello:app")
        self.assertEqual(template.wait(), 1)
        self.assertIn("nonesuch", template.output.read_to_end())


class EveryClass(Case):
    """One test per worker class and question, made below."""

    def start(self, worker_class, *arguments):
        return self.started("-k", worker_class, *arguments, application_for(worker_class))

    def check_serving(self, worker_class):
        """A worker answers on all its sockets, and its probe socket is its own."""
        public, tcp = self.listener(), self.tcp_listener()
        template = self.start(worker_class, "--workers", "2")
        first, second = template.fork(1, [public, tcp]), template.fork(2, [public, tcp])
        first.wait_ready()
        second.wait_ready()
        self.assertNotEqual(first.pid, second.pid)
        for worker in (first, second):
            for _ in range(3):
                self.assertEqual(get(worker.probe_path).split()[0], str(worker.pid))
        pids = {str(first.pid), str(second.pid)}
        self.assertIn(get(public.getsockname()).split()[0], pids)
        self.assertIn(get(tcp).split()[0], pids)
        first.signal(signal.SIGKILL)
        self.assertEqual(first.wait(), -signal.SIGKILL)
        self.assertEqual(get(public.getsockname()).split()[0], str(second.pid))
        self.assertTrue(os.path.exists(public.getsockname()))

    def check_canary(self, worker_class):
        """Without listeners a worker serves its probe socket alone."""
        worker = self.start(worker_class).fork(1)
        worker.wait_ready()
        self.assertEqual(get(worker.probe_path).split()[0], str(worker.pid))

    def check_heartbeat(self, worker_class):
        """An idle worker beats; the first beat is READY=1, and comes once. All but sync beat each second, whatever the
        timeout: else a request that takes long would be taken for one that takes too long.
        """
        worker = self.start(worker_class, "--timeout", "1" if worker_class == "sync" else "600").fork(1)
        self.assertEqual(worker.wait_ready(), ["READY=1"])
        for _ in range(3):
            worker.scoreboard.next_beat()
        self.assertEqual(worker.notifications_so_far(), [])

    def check_drain(self, worker_class):
        """TERM ends a worker that has an idle kept-alive connection, and nothing of it is left."""
        public = self.listener()
        # gevent, eventlet and asgi wait for their clients to go, until the graceful timeout.
        template = self.start(worker_class, "--keep-alive", "3600", "--graceful-timeout", "1")
        worker = template.fork(1, [public])
        worker.wait_ready()
        client = Client(public.getsockname())
        self.addCleanup(client.close)
        self.assertEqual(client.get().split()[0], str(worker.pid))
        worker.signal(signal.SIGTERM)
        self.assertIn(worker.wait(), (0, -signal.SIGTERM))
        self.assertTrue(os.path.exists(public.getsockname()))

    def check_quit(self, worker_class):
        """QUIT ends a worker soon."""
        if worker_class.startswith("uvicorn_worker"):
            self.skipTest("does nothing about QUIT, under gunicorn's arbiter either")
        worker = self.start(worker_class).fork(1)
        worker.wait_ready()
        worker.signal(signal.SIGQUIT)
        self.assertIn(worker.wait(patience=10), (0, -signal.SIGQUIT))

    def check_request_limit(self, worker_class):
        """At max_requests a worker asks to be retired, once, and serves on."""
        if worker_class == "gevent_pywsgi":
            self.skipTest("counts no requests, under gunicorn's arbiter either")
        worker = self.start(worker_class, "--max-requests", "2", "--timeout", "0").fork(1)
        worker.wait_ready()
        for _ in range(2):
            get(worker.probe_path)
        self.assertEqual(worker.next_notification(), "X_SOCKD_RETIRE=1")
        for _ in range(3):
            self.assertEqual(get(worker.probe_path).split()[0], str(worker.pid))
        worker.signal(signal.SIGTERM)
        self.assertIn(worker.wait(), (0, -signal.SIGTERM))
        self.assertEqual(worker.notifications_so_far(), [])

    def check_orphan(self, worker_class):
        """A worker whose supervisor is gone leaves by itself."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        supervisor = os.fork()
        if supervisor == 0:
            try:
                become_subreaper()
                template = Template(self.directory, "-k", worker_class, "--timeout", "2",
                                    application_for(worker_class))
                template.settings()
                worker = template.fork(1)
                worker.wait_ready()
                os.write(writer, str(worker.pid).encode())
                os.kill(os.getpid(), signal.SIGKILL)
            finally:
                os._exit(1)
        os.close(writer)
        self.assertEqual(wait_for_exit(supervisor), -signal.SIGKILL)
        worker = int(os.read(reader, 100))
        # The test is the nearest subreaper that is left.
        self.assertIn(wait_for_exit(worker), (0, -signal.SIGTERM))


def add_checks():
    for worker_class in (*WSGI_CLASSES, *ASGI_CLASSES):
        for check in [name for name in vars(EveryClass) if name.startswith("check_")]:
            def test(self, check=check, worker_class=worker_class):
                getattr(self, check)(worker_class)
            test.__doc__ = getattr(EveryClass, check).__doc__
            name = "test_%s_%s" % (worker_class.rpartition(".")[2], check[len("check_"):])
            test.__name__ = name
            installed = unittest.skipUnless(worker_class in USABLE, worker_class + " not installed")
            setattr(EveryClass, name, installed(test))


add_checks()


class Readiness(Case):

    def test_lifespan_start_up_comes_first(self):
        for worker_class in sorted(USABLE & set(ASGI_CLASSES)):
            with self.subTest(worker_class=worker_class):
                fifo = self.fifo()
                template = self.started("-k", worker_class, "asgi_hello:app", environment={"FIFO": fifo})
                worker = template.fork(1)
                worker.output.read_until("starting up")
                self.assertEqual(worker.notifications_so_far(), [])
                with open(fifo, "w"):
                    pass
                worker.wait_ready()
                os.unlink(fifo)

    def test_failed_lifespan_start_up(self):
        self.directory.write("failing.py", '''
async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
''')
        for worker_class in sorted(USABLE & set(ASGI_CLASSES)):
            with self.subTest(worker_class=worker_class):
                worker = self.started("-k", worker_class, "failing:app").fork(1)
                self.assertEqual(worker.wait(), 3)
                self.assertIn("no database", worker.output.read_to_end())
                self.assertEqual(worker.notifications_so_far(), [])

    def test_class_that_never_notifies(self):
        self.directory.write("silent.py", '''
import signal
from gunicorn.workers.base import Worker
class Silent(Worker):
    def run(self):
        print("running", file=__import__("sys").stderr, flush=True)
        signal.pause()
''')
        worker = self.started("-k", "silent.Silent", "hello:app").fork(1)
        worker.wait_ready()
        worker.output.read_until("running")

    def test_not_ready_before_the_application_is_loaded(self):
        fifo = self.fifo()
        self.directory.write("slow.py", "import sys\nprint('loading', file=sys.stderr, flush=True)\n"
                                        "open(%r).read()\nfrom hello import app\n" % fifo)
        worker = self.started("slow:app").fork(1)
        worker.output.read_until("loading")
        self.assertEqual(worker.notifications_so_far(), [])
        with open(fifo, "w"):
            pass
        worker.wait_ready()

    def test_abstract_notification_socket(self):
        heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(heard.close)
        heard.bind("\0sockd-test-%d" % os.getpid())
        template, scoreboard = self.started("hello:app"), Scoreboard()
        self.addCleanup(scoreboard.close)
        template.send_bytes(json.dumps({"fork": {
            "worker": 1, "environment": {"NOTIFY_SOCKET": "@sockd-test-%d" % os.getpid()},
            "listeners": 1, "probe": False}}).encode(), [2, scoreboard.fileno(), self.listener().fileno()])
        pid = template.receive()["forked"]["pid"]
        try:
            wait_readable(heard, "READY=1")
            self.assertEqual(heard.recv(100), b"READY=1")
        finally:
            os.kill(pid, signal.SIGKILL)
            wait_for_exit(pid)

    @unittest.skipUnless(os.getuid() == 0, "needs root")
    def test_readiness_of_a_worker_that_drops_privileges(self):
        os.chmod(self.directory.path, 0o755)
        # Afterwards an interpreter in root's home is out of reach: load what gunicorn's util.seed() needs.
        self.directory.write("seed.conf.py", "import random\nrandom.seed('x')\n")
        worker = self.started("-c", "seed.conf.py", "--user", "65534", "--group", "65534", "--timeout", "1",
                              "hello:app").fork(1)
        os.chmod(worker.notify_path, 0o600)
        worker.wait_ready()
        self.assertEqual(os.stat("/proc/%d" % worker.pid).st_uid, 65534)
        worker.scoreboard.next_beat()


class Failures(Case):

    def failed_worker(self, *arguments):
        template = self.started(*arguments)
        worker = template.fork(1)
        status = worker.wait()
        self.assertEqual(worker.notifications_so_far(), [])
        return status, worker.output.read_to_end(), template

    def test_exception_in_the_application(self):
        self.directory.write("broken.py", "def load():\n    raise KeyError('no such setting')\nload()\n")
        status, text, template = self.failed_worker("broken:app")
        self.assertEqual(status, 3)
        self.assertIn("Traceback (most recent call last)", text)
        self.assertIn("KeyError: 'no such setting'", text)
        self.assertIn("Booting worker with pid", text)
        self.assertIn("Worker exiting", text)
        # The frame of this program is shown with its source, like any other.
        self.assertIn("worker.init_process()", text)
        self.assertIsInstance(template.fork(2).pid, int)

    def test_missing_module(self):
        status, text, _ = self.failed_worker("nonesuch:app")
        self.assertEqual(status, 3)
        self.assertIn("ModuleNotFoundError: No module named 'nonesuch'", text)

    def test_missing_attribute(self):
        status, text, _ = self.failed_worker("hello:nonesuch")
        self.assertEqual(status, 4)
        self.assertIn("Failed to find attribute 'nonesuch' in 'hello'", text)

    def test_application_that_exits(self):
        self.directory.write("leaving.py", "import sys; sys.exit(7)\n")
        self.assertEqual(self.failed_worker("leaving:app")[0], 7)

    def test_broken_hook(self):
        self.directory.write("hook.conf.py", "def post_fork(server, worker):\n    raise ValueError('hooked')\n")
        status, text, _ = self.failed_worker("-c", "hook.conf.py", "hello:app")
        self.assertEqual(status, 3)
        self.assertIn("ValueError: hooked", text)

    def test_exit_as_gunicorn_itself(self):
        """The exit code of gunicorn's master, which repeats its worker's."""
        self.directory.write("broken.py", "1 / 0\n")
        for application, code in (("broken:app", 3), ("hello:nonesuch", 4)):
            own = subprocess.run([GUNICORN, "-b", "unix:" + (self.directory / "own"), application],
                                 cwd=self.directory.path, capture_output=True, text=True)
            self.assertEqual(own.returncode, code)


class Processes(Case):

    def test_worker_is_sockds_child_and_a_session_of_its_own(self):
        worker = self.started("hello:app").fork(1)
        worker.wait_ready()
        with open("/proc/%d/stat" % worker.pid) as stat:
            fields = stat.read().rpartition(")")[2].split()
        self.assertEqual(int(fields[1]), os.getpid())
        self.assertEqual((int(fields[2]), int(fields[3])), (worker.pid, worker.pid))

    def test_killed_worker_is_reaped_with_its_status(self):
        worker = self.started("hello:app").fork(1)
        worker.signal(signal.SIGKILL)
        self.assertEqual(worker.wait(), -signal.SIGKILL)

    def test_signals_to_the_whole_unit_end_nobody(self):
        for worker_class, module in [("sync", None), ("gthread", None), ("gevent", "gevent"), ("tornado", "tornado"),
                                     ("asgi", None), ("uvicorn_worker.UvicornWorker", "uvicorn_worker")]:
            with self.subTest(worker_class=worker_class):
                if module and importlib.util.find_spec(module) is None:
                    continue
                template = self.started("-k", worker_class, application_for(worker_class))
                self.stand_every_signal(template, lambda worker: get(worker.probe_path).split()[0])

    def test_interrupting_the_template_does_nothing(self):
        template = self.started("hello:app")
        os.kill(template.pid, signal.SIGINT)
        template.fork(1).wait_ready()

    def test_usr1_opens_log_files_afresh(self):
        """In the template, a worker that serves and one that has begun to start, as gunicorn's arbiter has it."""
        error, access = self.directory / "error.log", self.directory / "access.log"
        # Not in one system call: gunicorn has those go on at SIGUSR1, and opens its files after them.
        self.directory.write("slow.py", """
import os
import time
while os.path.exists("gate"):
    time.sleep(0.01)
from hello import app
""")
        template = self.started("--error-logfile", error, "--access-logfile", access, "slow:app")
        serving = template.fork(1)
        serving.wait_ready()
        self.directory.write("gate", "")
        starting = template.fork(2)
        wait_until(lambda: "pid: %d" % starting.pid in read(error), "the second worker begins")
        for path in (error, access):
            os.rename(path, path + ".1")
        for process in (template, serving, starting):
            os.kill(process.pid, signal.SIGUSR1)
        wait_until(lambda: len(holders(error, [template.pid, serving.pid, starting.pid])) == 3, "all have the new file")
        os.unlink(self.directory / "gate")
        starting.wait_ready()
        for worker in (serving, starting):
            self.assertEqual(get(worker.probe_path).split()[0], str(worker.pid))
            worker.signal(signal.SIGTERM)
            self.assertEqual(worker.wait(), 0)
        self.assertEqual(read(access).count("GET / HTTP"), 2)
        for worker in (serving, starting):
            self.assertIn("Worker exiting (pid: %d)" % worker.pid, read(error))

    def test_term_ends_the_template_and_workers_live_on(self):
        template = self.started("hello:app")
        worker = template.fork(1)
        worker.wait_ready()
        os.kill(template.pid, signal.SIGTERM)
        self.assertEqual(template.wait(), -signal.SIGTERM)
        self.assertEqual(get(worker.probe_path).split()[0], str(worker.pid))

    def test_end_of_control_socket_ends_the_template_and_workers_live_on(self):
        template = self.started("hello:app")
        worker = template.fork(1)
        worker.wait_ready()
        template.control.close()
        self.assertEqual(template.wait(), 0)
        self.assertEqual(get(worker.probe_path).split()[0], str(worker.pid))

    def test_descriptors(self):
        """The template keeps nothing of a worker's; a worker has nothing of the template's or a sibling's."""
        public = self.listener()
        template = self.started("hello:app")
        spare = template.spare()
        before = descriptors_of(template)
        strays = without_own_pipes([link for fd, link in open_files(spare).items() if fd > 4])
        first, second = template.fork(1, [public]), template.fork(2, [public])
        first.wait_ready()
        second.wait_ready()
        template.spare()
        wait_until(lambda: descriptors_of(template) == before, "every descriptor closed")
        inode = "socket:[%d]" % os.fstat(public.fileno()).st_ino
        for worker in (first, second):
            links = [link for link in open_files(worker.pid).values() if link not in strays]
            self.assertEqual(links.count(inode), 1)
            # The public listener, the probe's, the notification socket.
            self.assertEqual(len([link for link in links if link.startswith("socket:")]), 3)
        siblings = set(open_files(first.pid).values()) & set(open_files(second.pid).values())
        self.assertNotIn(open_files(first.pid)[2], siblings)

    def test_children_of_the_application_inherit_nothing(self):
        self.directory.write("spawning.py", '''
import subprocess, sys
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [subprocess.run(["ls", "/proc/self/fd"], close_fds=False, capture_output=True).stdout]
''')
        public = self.listener()
        template = self.started("spawning:app")
        # What was open before the tests is everybody's.
        strays = {str(fd) for fd in open_files(template.pid) if fd > 4}
        worker = template.fork(1, [public])
        worker.wait_ready()
        # 0, 1, 2, and the directory that ls reads.
        self.assertEqual(set(get(worker.probe_path).split()) - strays, {"0", "1", "2", "3"})

    def test_multiprocessing_spawn(self):
        self.directory.write("multi.py", '''
import multiprocessing, operator
def app(environ, start_response):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        result = pool.apply(operator.add, (40, 2))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(result).encode()]
''')
        for how in ("script", "module"):
            worker = self.started("multi:app", how=how).fork(1)
            worker.wait_ready()
            self.assertEqual(get(worker.probe_path), "42")


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return ""


def holders(path, pids):
    """Who has this file open, and no longer the one that had its name before."""
    def files(pid):
        return {os.readlink("/proc/%d/fd/%s" % (pid, fd)) for fd in os.listdir("/proc/%d/fd" % pid)
                if os.path.lexists("/proc/%d/fd/%s" % (pid, fd))}
    return [pid for pid in pids if path in files(pid) and path + ".1" not in files(pid)]


class Preload(Case):

    def preloaded(self, text="", *arguments, **options):
        self.directory.write("loaded.py", text + WSGI)
        return self.template(*arguments, "loaded:app", **options)

    def test_who_says_whether(self):
        for arguments, loading, expected in (
                ([], "own", False), (["--preload"], "own", True),
                ([], "preload", True), (["--preload"], "late", False)):
            with self.subTest(arguments=arguments, loading=loading):
                template = self.preloaded("import sys\nprint('imported', file=sys.stderr, flush=True)\n",
                                          *arguments, loading=loading)
                self.assertEqual(template.settings()["preload"], expected)
                worker = template.fork(1)
                worker.wait_ready()
                (template if expected else worker).output.read_until("imported\n")
                self.assertEqual(get(worker.probe_path).split()[0], str(worker.pid))

    def test_every_class(self):
        for worker_class in sorted(USABLE):
            with self.subTest(worker_class=worker_class):
                template = self.started("--preload", "-k", worker_class, application_for(worker_class))
                os.rename(self.directory / "hello.py", self.directory / "gone")
                os.rename(self.directory / "asgi_hello.py", self.directory / "gone too")
                worker = template.fork(1)
                worker.wait_ready()
                self.assertEqual(get(worker.probe_path).split()[0], str(worker.pid))
                os.rename(self.directory / "gone", self.directory / "hello.py")
                os.rename(self.directory / "gone too", self.directory / "asgi_hello.py")

    def test_hooks_run_in_every_worker(self):
        self.directory.write("hooks.conf.py", '''
import os, sys
def post_fork(server, worker):
    print("hook post_fork in %d" % os.getpid(), file=sys.stderr, flush=True)
''')
        template = self.preloaded("", "--preload", "-c", "hooks.conf.py")
        template.settings()
        for number in (1, 2):
            worker = template.fork(number)
            worker.output.read_until("hook post_fork in %d" % worker.pid)

    def test_threads_are_named(self):
        template = self.preloaded('''
import threading
threading.Thread(target=threading.Event().wait, name="metrics", daemon=True).start()
''', "--preload")
        template.settings()
        self.assertIn("the application started the thread metrics while it was imported",
                      template.output.read_until("the workers are without it"))

    def test_connections_are_named(self):
        database = self.tcp_listener()
        template = self.preloaded('''
import os, socket
connection = socket.create_connection(("127.0.0.1", int(os.environ["DATABASE"])))
pair = socket.socketpair()
''', "--preload", environment={"DATABASE": str(database.getsockname()[1])})
        template.settings()
        text = template.output.read_until("all workers share descriptor")
        self.assertIn("connected to 127.0.0.1:%d while it was imported" % database.getsockname()[1], text)
        self.assertEqual(text.count("connected to"), 1)

    def test_looking_for_connections_neither_copies_nor_changes_a_descriptor(self):
        database = self.tcp_listener()
        template = self.preloaded('''
import os, socket, sys
socket.setdefaulttimeout(5)
connection = socket.socket()
connection.settimeout(None)
connection.connect(("127.0.0.1", int(os.environ["DATABASE"])))
print("opened %d" % len(os.listdir("/proc/self/fd")), file=sys.stderr, flush=True)
''', "--preload", environment={"DATABASE": str(database.getsockname()[1])})
        template.settings()
        text = template.output.read_until("all workers share descriptor")
        # The spare's pipes come after the import; a copy of each would double them.
        self.assertLess(len(open_files(template.pid)), int(re.search("opened ([0-9]+)", text)[1]) * 1.5)
        connection = next(fd for fd in open_files(template.pid) if "share descriptor %d\n" % fd in text)
        with open("/proc/%d/fdinfo/%d" % (template.pid, connection)) as info:
            flags = int(re.search("flags:\\s*([0-7]+)", info.read())[1], 8)
        self.assertFalse(flags & os.O_NONBLOCK)

    def test_an_innocent_application_is_not_warned_about(self):
        template = self.preloaded("", "--preload")
        template.settings()
        template.control.close()
        self.assertEqual(template.wait(), 0)
        self.assertEqual(template.output.read_to_end(), "")

    def test_random_numbers_differ(self):
        self.directory.write("random_number.py", '''
import random
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(random.getrandbits(64)).encode()]
''')
        template = self.started("--preload", "random_number:app")
        numbers = set()
        for number in range(3):
            worker = template.fork(number)
            worker.wait_ready()
            numbers.add(get(worker.probe_path))
        self.assertEqual(len(numbers), 3)


class Hanging(Case):
    """SIGABRT prints the stack of every thread, wherever a worker hangs."""

    def abort(self, worker):
        worker.signal(signal.SIGABRT)
        return worker.output.read_until("most recent call first")

    def hang(self, path, *arguments):
        worker = self.started(*arguments, "hello:app").fork(1)
        worker.wait_ready()
        client = Client(worker.probe_path)
        self.addCleanup(client.close)
        client.request("GET", path)
        worker.output.read_until("in the request")
        return worker

    def test_loop_in_python(self):
        worker = self.hang("/spin")
        self.abort(worker)
        text = worker.output.read_until("in app")
        self.assertIn("hello.py", text)
        # gunicorn's own handler has run after the dump.
        self.assertIn(worker.wait(), (0, 1))

    def test_loop_in_c(self):
        worker = self.hang("/block")
        self.abort(worker)
        worker.output.read_until("in app")
        worker.signal(signal.SIGKILL)
        self.assertEqual(worker.wait(), -signal.SIGKILL)

    def test_thread_of_gthread(self):
        worker = self.hang("/spin", "-k", "gthread", "--threads", "2")
        self.abort(worker)
        worker.output.read_until("in app")

    def test_worker_abort_hook(self):
        self.directory.write("hooks.conf.py", '''
def worker_abort(worker):
    print("hook worker_abort", file=__import__("sys").stderr, flush=True)
''')
        worker = self.started("-c", "hooks.conf.py", "hello:app").fork(1)
        worker.wait_ready()
        self.abort(worker)
        worker.output.read_until("hook worker_abort")
        self.assertEqual(worker.wait(), 1)

    def test_during_import(self):
        self.directory.write("stuck.py", "import sys\nprint('stuck', file=sys.stderr, flush=True)\n"
                                         "while True:\n    pass\n")
        worker = self.started("stuck:app").fork(1)
        worker.output.read_until("stuck")
        self.abort(worker)
        worker.output.read_until("stuck.py")
        worker.wait()

    def test_during_a_hook_before_the_handlers(self):
        self.directory.write("hooks.conf.py", '''
def post_fork(server, worker):
    print("stuck", file=__import__("sys").stderr, flush=True)
    while True:
        pass
''')
        worker = self.started("-c", "hooks.conf.py", "hello:app").fork(1)
        worker.output.read_until("stuck")
        self.abort(worker)
        worker.output.read_until("in post_fork")
        self.assertEqual(worker.wait(), -signal.SIGABRT)

    def test_every_class(self):
        for worker_class in sorted(USABLE):
            with self.subTest(worker_class=worker_class):
                worker = self.started("-k", worker_class, application_for(worker_class)).fork(1)
                worker.wait_ready()
                self.abort(worker)
                self.assertIn(worker.wait(), (0, 1, -signal.SIGABRT))


def need(*modules):
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise unittest.SkipTest("%s is not installed" % module)


class Draining(Case):

    def test_request_in_flight_is_finished(self):
        for worker_class in ("sync", "gthread"):
            with self.subTest(worker_class=worker_class):
                fifo = self.directory / worker_class
                os.mkfifo(fifo)
                worker = self.started("-k", worker_class, "hello:app").fork(1)
                worker.wait_ready()
                client = Client(worker.probe_path)
                self.addCleanup(client.close)
                client.request("GET", "/wait", headers={"X-Fifo": fifo})
                worker.output.read_until("in the request")
                worker.signal(signal.SIGTERM)
                with open(fifo, "w"):
                    pass
                self.assertEqual(client.getresponse().read().split()[0], str(worker.pid).encode())
                client.close()
                self.assertEqual(worker.wait(), 0)

    def test_a_replaced_worker_keeps_its_websockets_until_the_service_ends(self):
        need("uvicorn_worker", "websockets")
        self.directory.write("echo.py", '''
async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
''')
        worker = self.started("-k", "uvicorn_worker.UvicornWorker", "echo:app").fork(1)
        worker.wait_ready()
        client = WebSocket(worker.probe_path)
        self.addCleanup(client.close)
        self.assertEqual(client.echo(b"before"), b"before")
        worker.signal(signal.SIGUSR2)
        wait_until(lambda: refuses(worker.probe_path), "the worker accepts nobody any more")
        self.assertEqual(client.echo(b"after"), b"after")
        client.close()
        self.assertEqual(worker.wait(), -signal.SIGTERM)

    def test_one_that_has_just_come_to_an_uvicorn_worker_is_served(self):
        need("uvicorn_worker")
        for leaving in (signal.SIGUSR2, signal.SIGTERM):
            with self.subTest(signal=leaving):
                worker_class = "uvicorn_worker.UvicornWorker"
                worker = self.started("-k", worker_class, application_for(worker_class)).fork(1)
                worker.wait_ready()
                # The one that is answered came after the others: they are accepted, and have not asked.
                late, silent, answered = (Client(worker.probe_path) for _ in range(3))
                self.addCleanup(late.close)
                self.addCleanup(silent.close)
                self.assertEqual(answered.get().split()[0], str(worker.pid))
                answered.close()
                worker.signal(leaving)
                worker.output.read_until("Waiting for connections to close")
                self.assertEqual(late.get().split()[0], str(worker.pid))
                # Nobody waits for somebody who never asks.
                self.assertEqual(worker.wait(), -signal.SIGTERM)

    def test_the_graceful_timeout_does_not_end_a_replaced_worker(self):
        # These two wait for their clients to go; sockd's own drain-timeout bounds that.
        for worker_class in ("gevent", "asgi"):
            with self.subTest(worker_class=worker_class):
                if worker_class == "gevent":
                    need("gevent")
                template = self.started("-k", worker_class, "--keep-alive", "3600", "--graceful-timeout", "1",
                                        application_for(worker_class))
                worker = template.fork(1)
                worker.wait_ready()
                client = Client(worker.probe_path)
                self.assertEqual(client.get().split()[0], str(worker.pid))
                worker.signal(signal.SIGUSR2)
                with self.assertRaises(AssertionError):
                    worker.wait(patience=3)
                client.close()
                self.assertEqual(worker.wait(), 0)

    def test_sigusr2_drains_like_sigterm(self):
        for worker_class in ("sync", "gthread"):
            with self.subTest(worker_class=worker_class):
                worker = self.started("-k", worker_class, "hello:app").fork(1)
                worker.wait_ready()
                worker.signal(signal.SIGUSR2)
                self.assertEqual(worker.wait(), 0)

    def test_term_before_the_worker_is_ready(self):
        self.directory.write("hooks.conf.py", '''
import signal
def post_fork(server, worker):
    print("here", file=__import__("sys").stderr, flush=True)
    signal.pause()
''')
        worker = self.started("-c", "hooks.conf.py", "hello:app").fork(1)
        worker.output.read_until("here")
        worker.signal(signal.SIGTERM)
        self.assertEqual(worker.wait(), -signal.SIGTERM)


class Messages(Case):
    """Whatever comes, the template says so in one line and serves on."""

    def assert_complaint(self, template, wanted):
        text = template.output.read_until("\n")
        self.assertEqual(len(text.splitlines()), 1, text)
        self.assertTrue(text.startswith("sockd template: "), text)
        self.assertIn(wanted, text)
        template.output.text = ""

    def assert_serving(self, template):
        worker = template.fork(99)
        worker.wait_ready()

    def test_bad_messages(self):
        template = self.started("hello:app")
        for message, complaint in (
                (b"garbage \xff", "not JSON"),
                (b"[1, 2]", "not a command"),
                (b'{"spoon": {}}', "not a command"),
                (b'{"fork": 7}', "not a command"),
                (b'{"fork": {}}', '"worker"'),
                (b"[" * 60000, "JSON"),
                (b" " * 65537, "longer than 65536 bytes")):
            with self.subTest(message=message[:20]):
                template.send_bytes(message)
                self.assert_complaint(template, complaint)
        self.assert_serving(template)

    def test_wrong_number_of_descriptors(self):
        template = self.started("hello:app")
        spare, before = template.spare(), None
        for count in (0, 1, 2, 4, 50):
            template.send_bytes(json.dumps({"fork": {
                "worker": 5, "environment": {}, "listeners": 1, "probe": False}}).encode(), [2] * count)
            self.assertEqual(template.receive(), {"failed": {
                "worker": 5, "error": "worker 5 needs 3 descriptors, %d came" % count}})
            self.assert_complaint(template, "needs 3 descriptors")
            # The first one brings nothing, and the spare is done with its own beginning by then.
            before = before or open_files(spare)
        wait_until(lambda: open_files(spare) == before, "every descriptor closed")
        self.assert_serving(template)

    def test_bad_environment(self):
        template = self.started("hello:app")
        template.send_bytes(json.dumps({"fork": {
            "worker": 5, "environment": {"A": 1}, "listeners": 1, "probe": False}}).encode(), [2, 2, 2])
        self.assertEqual(template.receive()["failed"]["worker"], 5)
        self.assert_complaint(template, "environment")

    def test_many_forks_in_a_row(self):
        template = self.started("hello:app")
        workers = [template.order(number) for number in range(10)]
        for worker in workers:
            answer = template.receive()["forked"]
            self.assertEqual(answer["worker"], worker.number)
            worker.pid = answer["pid"]
        for worker in workers:
            worker.wait_ready()


if __name__ == "__main__":
    unittest.main()
