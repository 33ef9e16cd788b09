"""The templates of the ASGI servers against the real servers, with the test playing sockd.

The checks are written once; what differs between the servers stands in their classes at the end.
"""

import os
import signal
import socket
import struct
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))

import sockd_played  # noqa: E402
from sockd_played import (  # noqa: E402
    SCRIPTS, Client, Template, become_subreaper, get, wait_for_exit, wait_until)
from websocket import WebSocket, refuses  # noqa: E402

UMASK = os.umask(0o22)
os.umask(UMASK)

HELLO = '''
import os, sys, time

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await echo(receive, send)
    else:
        await respond(scope, send)

async def lifespan(receive, send):
    import asyncio
    await receive()
    if "FIFO" in os.environ:
        print("starting up", file=sys.stderr, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, lambda: open(os.environ["FIFO"]).read())
    if "FAIL" in os.environ:
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("lifespan ends", file=sys.stderr, flush=True)
    await send({"type": "lifespan.shutdown.complete"})

async def echo(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})

async def respond(scope, send):
    import asyncio
    path = scope["path"]
    if path == "/spin":
        print("in the request", file=sys.stderr, flush=True)
        while True:
            pass
    if path == "/wait":
        print("in the request", file=sys.stderr, flush=True)
        fifo = dict(scope["headers"])[b"x-fifo"].decode()
        await asyncio.get_running_loop().run_in_executor(None, lambda: open(fifo).read())
    body = ("%d %s" % (os.getpid(), (scope["client"] or ["-"])[0])).encode()
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})
'''


def setUpModule():
    become_subreaper()
    for name in ("WEB_CONCURRENCY", "NOTIFY_SOCKET", "WATCHDOG_USEC", "FORWARDED_ALLOW_IPS"):
        os.environ.pop(name, None)


class Checks(sockd_played.Case):
    """What must hold of every ASGI server."""

    files = {"hello": HELLO}
    # Arguments of every start, and the application's.
    options = ()
    application = "hello:app"
    # A worker that ended because it was told to.
    clean = (0,)
    # The exit code when the lifespan start-up fails; None for a server without lifespan.
    failed_start = None
    # The exit code when the application cannot be imported.
    failed_import = 1
    # An option that limits the number of requests.
    request_limit = None
    # The module of `python -m`.
    module = None

    def start(self, *arguments, **options):
        return self.started(*self.options, *arguments, self.application, **options)

    def worker(self, *arguments, listeners=(), **environment):
        worker = self.start(*arguments).fork(1, listeners, **environment)
        worker.wait_ready()
        return worker

    def request(self, worker, path, headers=None):
        """A request that is in the application's hands."""
        client = Client(worker.probe_path)
        self.addCleanup(client.close)
        client.request("GET", path, headers=headers or {})
        worker.output.read_until("in the request")
        return client

    def release(self, fifo):
        with open(fifo, "w"):
            pass

    # Like the server itself.

    def both(self, *arguments, how="script"):
        """What the server itself and the template print, and their exit codes."""
        script = os.path.join(SCRIPTS, self.server)
        command = [script] if how == "script" else [sys.executable, "-m", self.module]
        own = subprocess.run([*command, *arguments], cwd=self.directory.path, capture_output=True, text=True)
        template = self.template(*arguments, how=how)
        ours = (template.wait(), template.stdout.read_to_end(), template.output.read_to_end())
        return (own.returncode, own.stdout, own.stderr), ours

    def test_help(self):
        for how in ("script", "module"):
            own, ours = self.both("--help", how=how)
            self.assertEqual(own, ours)
            self.assertEqual(own[0], 0)

    def test_mistakes(self):
        for arguments in (["--bogus", "hello:app"], []):
            own, ours = self.both(*arguments)
            self.assertEqual(own, ours)
            self.assertNotEqual(own[0], 0)

    # Serving.

    def test_serving(self):
        """A worker answers on all its sockets, and its probe socket is its own."""
        public, tcp = self.listener(), self.tcp_listener()
        template = self.start()
        first, second = template.fork(1, [public, tcp]), template.fork(2, [public, tcp])
        self.assertEqual(first.wait_ready(), ["READY=1"])
        second.wait_ready()
        for worker in (first, second):
            for _ in range(3):
                self.assertEqual(get(worker.probe_path).split()[0], str(worker.pid))
        pids = {str(first.pid), str(second.pid)}
        self.assertIn(get(public.getsockname()).split()[0], pids)
        self.assertIn(get(tcp).split()[0], pids)
        first.signal(signal.SIGKILL)
        self.assertEqual(first.wait(), -signal.SIGKILL)
        self.assertEqual(get(public.getsockname()).split()[0], str(second.pid))
        second.signal(signal.SIGTERM)
        self.assertIn(second.wait(), self.clean)
        self.assertTrue(os.path.exists(public.getsockname()), "the socket's path was removed")

    def test_canary(self):
        """Without listeners a worker serves its probe socket alone."""
        worker = self.worker()
        self.assertEqual(get(worker.probe_path).split()[0], str(worker.pid))

    def test_started_as_a_module(self):
        worker = self.start(how="module").fork(1)
        worker.wait_ready()
        self.assertEqual(get(worker.probe_path).split()[0], str(worker.pid))

    def test_the_application_is_not_imported_before_the_fork(self):
        self.directory.write("hello.py", "raise KeyError('no such setting')\n")
        template = self.start()
        self.directory.write("hello.py", HELLO)
        worker = template.fork(1)
        worker.wait_ready()

    # Readiness.

    def test_not_ready_before_the_application_is_loaded(self):
        fifo = self.fifo()
        self.directory.write("hello.py", "import sys\nprint('loading', file=sys.stderr, flush=True)\n"
                                         "open(%r).read()\n" % fifo + HELLO)
        worker = self.start().fork(1)
        worker.output.read_until("loading")
        self.assertEqual(worker.notifications_so_far(), [])
        self.release(fifo)
        worker.wait_ready()

    def test_lifespan_start_up_comes_first(self):
        if self.failed_start is None:
            self.skipTest("has no lifespan")
        fifo = self.fifo()
        worker = self.start().fork(1, FIFO=fifo)
        worker.output.read_until("starting up")
        self.assertEqual(worker.notifications_so_far(), [])
        self.release(fifo)
        worker.wait_ready()

    def test_failed_lifespan_start_up(self):
        if self.failed_start is None:
            self.skipTest("has no lifespan")
        worker = self.start().fork(1, FAIL="yes")
        self.assertEqual(worker.wait(), self.failed_start)
        self.assertIn("no database", worker.output.read_to_end())
        self.assertEqual(worker.notifications_so_far(), [])

    def failed_worker(self, text):
        self.directory.write("hello.py", text)
        worker = self.start().fork(1)
        status = worker.wait()
        self.assertEqual(worker.notifications_so_far(), [])
        return status, worker.output.read_to_end()

    def test_exception_in_the_application(self):
        status, text = self.failed_worker("def load():\n    raise KeyError('no such setting')\nload()\n")
        self.assertEqual(status, 1)
        self.assertIn("Traceback (most recent call last)", text)
        self.assertIn("KeyError: 'no such setting'", text)

    def test_missing_attribute(self):
        status, text = self.failed_worker("")
        self.assertEqual(status, self.failed_import)
        self.assertIn("app", text)

    # Liveness.

    def test_heartbeat(self):
        worker = self.worker(WATCHDOG_USEC="2000000")
        self.assertEqual(worker.next_notification(), "WATCHDOG=1")
        self.assertEqual(worker.next_notification(), "WATCHDOG=1")

    def test_a_loop_that_does_not_turn_is_silent_and_shows_its_stack(self):
        worker = self.worker(WATCHDOG_USEC="400000")
        self.request(worker, "/spin")
        worker.notifications_so_far()
        with self.assertRaises(AssertionError):
            worker.next_notification(patience=3)
        worker.signal(signal.SIGABRT)
        worker.output.read_until("most recent call first")
        worker.output.read_until("in respond")
        self.assertEqual(worker.wait(), -signal.SIGABRT)

    def test_request_limit(self):
        """At its limit a worker asks to be retired, once, and serves on."""
        if self.request_limit is None:
            self.skipTest("has no limit")
        worker = self.worker(self.request_limit, "2")
        for _ in range(3):
            get(worker.probe_path)
        self.assertEqual(worker.next_notification(), "X_SOCKD_RETIRE=1")
        self.assertEqual(get(worker.probe_path).split()[0], str(worker.pid))
        worker.signal(signal.SIGTERM)
        self.assertIn(worker.wait(), self.clean)
        self.assertEqual(worker.notifications_so_far(), [])

    def test_orphan(self):
        """A worker whose supervisor is gone leaves by itself."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        supervisor = os.fork()
        if supervisor == 0:
            try:
                become_subreaper()
                template = Template(self.directory, *self.options, self.application, server=self.server)
                template.settings()
                worker = template.fork(1, WATCHDOG_USEC="2000000")
                worker.wait_ready()
                os.write(writer, str(worker.pid).encode())
                os.kill(os.getpid(), signal.SIGKILL)
            finally:
                os._exit(1)
        os.close(writer)
        self.assertEqual(wait_for_exit(supervisor), -signal.SIGKILL)
        # The test is the nearest subreaper that is left.
        self.assertIn(wait_for_exit(int(os.read(reader, 100))), self.clean)

    # Leaving.

    def finishes_its_request(self, number):
        fifo = self.fifo()
        worker = self.worker()
        client = self.request(worker, "/wait", {"X-Fifo": fifo})
        worker.signal(number)
        wait_until(lambda: refuses(worker.probe_path), "the worker accepts nobody any more")
        self.release(fifo)
        self.assertEqual(client.getresponse().read().split()[0], str(worker.pid).encode())
        client.close()
        self.assertIn(worker.wait(), self.clean)
        return worker.output.read_to_end()

    def test_a_request_in_flight_is_finished_at_the_end_of_the_service(self):
        text = self.finishes_its_request(signal.SIGTERM)
        if self.failed_start is not None:
            self.assertIn("lifespan ends", text)

    def test_a_request_in_flight_is_finished_when_the_worker_is_replaced(self):
        self.finishes_its_request(signal.SIGUSR2)

    def test_an_idle_connection_does_not_hold_up_the_end(self):
        worker = self.worker()
        client = Client(worker.probe_path)
        self.addCleanup(client.close)
        self.assertEqual(client.get().split()[0], str(worker.pid))
        worker.signal(signal.SIGTERM)
        self.assertIn(worker.wait(), self.clean)

    def open_websocket(self):
        worker = self.worker()
        client = WebSocket(worker.probe_path)
        self.addCleanup(client.close)
        self.assertEqual(client.echo(b"before"), b"before")
        return worker, client

    def test_a_replaced_worker_keeps_its_websockets(self):
        worker, client = self.open_websocket()
        worker.signal(signal.SIGUSR2)
        wait_until(lambda: refuses(worker.probe_path), "the worker accepts nobody any more")
        self.assertEqual(client.echo(b"after"), b"after")
        client.close()
        self.assertIn(worker.wait(), self.clean)

    def test_websockets_are_told_at_the_end_of_a_drain(self):
        worker, client = self.open_websocket()
        worker.signal(signal.SIGUSR2)
        wait_until(lambda: refuses(worker.probe_path), "the worker accepts nobody any more")
        worker.signal(signal.SIGTERM)
        self.assertIn(client.wait_for_close(), (1001, 1012))
        client.close()
        self.assertIn(worker.wait(), self.clean)

    def test_websockets_are_told_at_the_end_of_the_service(self):
        worker, client = self.open_websocket()
        worker.signal(signal.SIGTERM)
        self.assertIn(client.wait_for_close(), (1001, 1012))
        client.close()
        self.assertIn(worker.wait(), self.clean)


class Uvicorn(Checks):
    server = module = "uvicorn"
    options = ("--loop", "asyncio", "--timeout-graceful-shutdown", "20")
    clean = (0, -signal.SIGTERM)
    failed_start = 3
    failed_import = 3
    request_limit = "--limit-max-requests"

    def test_settings(self):
        for arguments, environment, expected in (
                ([], {}, {"workers": 1, "timeout": 30, "graceful_timeout": None, "bind": ["127.0.0.1:8000"],
                          "umask": 0o111, "backlog": 2048}),
                (["--workers", "3", "--uds", "/run/x.sock", "--backlog", "77"], {},
                 {"workers": 3, "bind": ["unix:/run/x.sock"], "backlog": 77}),
                (["--host", "::1", "--port", "81", "--timeout-graceful-shutdown", "9"], {"WEB_CONCURRENCY": "4"},
                 {"workers": 4, "bind": ["[::1]:81"], "graceful_timeout": 9}),
                (["--fd", "3", "--timeout-worker-healthcheck", "7"], {}, {"bind": ["fd://3"], "timeout": 7}),
                ([], {"UVICORN_WORKERS": "5"}, {"workers": 5})):
            with self.subTest(arguments=arguments):
                settings = self.template(*arguments, "hello:app", environment=environment).settings()
                self.assertEqual({name: settings[name] for name in expected}, expected)

    def test_version(self):
        own, ours = self.both("--version")
        self.assertEqual(own, ours)

    def test_reload_is_not_for_production(self):
        template = self.start("--reload")
        self.assertIn("--reload is ignored", template.output.read_until("\n"))

    def test_app_dir_and_factory(self):
        os.mkdir(self.directory / "inner")
        self.directory.write("inner/made.py", "from hello import app\ndef create():\n    return app\n")
        worker = self.started("--app-dir", "inner", "--factory", "made:create",
                              environment={"PYTHONPATH": self.directory.path}).fork(1)
        worker.wait_ready()

    def test_proxy_headers(self):
        for options, expected in (([], "192.0.2.7"), (["--no-proxy-headers"], "127.0.0.1")):
            tcp = self.tcp_listener()
            worker = self.start(*options).fork(1, [tcp])
            worker.wait_ready()
            client = Client(tcp)
            self.addCleanup(client.close)
            self.assertEqual(client.get("/", {"X-Forwarded-For": "192.0.2.7"}).split()[1], expected)


class Hypercorn(Checks):
    server = module = "hypercorn"
    options = ("--graceful-timeout", "20")
    failed_start = 1
    request_limit = "--max-requests"

    def test_settings(self):
        self.directory.write("hypercorn.toml", 'bind = ["unix:a.sock", "localhost"]\nworkers = 7\numask = 7\n')
        for arguments, expected in (
                ([], {"workers": 1, "timeout": 30, "graceful_timeout": 3, "bind": ["127.0.0.1:8000"], "backlog": 100,
                      "umask": UMASK}),
                (["--workers", "3", "-b", "unix:/run/x.sock", "-b", "[::1]:81", "-b", "127.0.0.2", "-b", "fd://4",
                  "--backlog", "77"],
                 {"workers": 3, "bind": ["unix:/run/x.sock", "[::1]:81", "127.0.0.2:8000", "fd://4"], "backlog": 77}),
                (["--workers", "0", "--graceful-timeout", "9", "--umask", "63"],
                 {"workers": 1, "graceful_timeout": 9, "umask": 63}),
                (["-c", "hypercorn.toml"], {"workers": 7, "umask": 7, "bind": ["unix:a.sock", "127.0.0.1:8000"]})):
            with self.subTest(arguments=arguments):
                settings = self.template(*arguments, "hello:app").settings()
                self.assertEqual({name: settings[name] for name in expected}, expected)

    def test_what_sockd_cannot_do_is_said(self):
        template = self.start("--reload", "--quic-bind", "127.0.0.1:4433")
        template.output.read_until("--reload is ignored")
        template.output.read_until("--quic-bind is ignored")

    def test_unknown_worker_class(self):
        own, ours = self.both("-k", "nonesuch", "hello:app")
        self.assertEqual(ours[0], own[0])
        self.assertEqual(ours[2].splitlines()[-1], own[2].splitlines()[-1])

    def test_wsgi(self):
        self.directory.write("wsgi.py", "def app(environ, start_response):\n"
                                        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
                                        "    return [b'wsgi']\n")
        worker = self.started("wsgi:app").fork(1)
        worker.wait_ready()
        self.assertEqual(get(worker.probe_path), "wsgi")

    def test_the_graceful_timeout_is_for_the_end_of_the_service_alone(self):
        for number, served in ((signal.SIGTERM, False), (signal.SIGUSR2, True)):
            fifo = self.directory / str(int(number))
            os.mkfifo(fifo)
            worker = self.worker("--graceful-timeout", "1")
            client = self.request(worker, "/wait", {"X-Fifo": fifo})
            worker.signal(number)
            if served:
                with self.assertRaises(AssertionError):
                    wait_for_exit(worker.pid, 3)
                self.release(fifo)
            try:
                status = client.getresponse().status
            except OSError:
                status = None
            self.assertEqual(status == 200, served)
            # A thread of the application's may still wait for what never comes.
            worker.signal(signal.SIGKILL)


class Daphne(Checks):
    server = module = "daphne"

    def test_settings(self):
        for arguments, bind in (
                ([], ["127.0.0.1:8000"]), (["-p", "81"], ["127.0.0.1:81"]), (["-b", "::1"], ["[::1]:8000"]),
                (["-u", "/run/x.sock"], ["unix:/run/x.sock"]), (["--fd", "3"], ["fd://3"]),
                (["-e", "systemd:domain=UNIX:index=0"], []),
                (["-u", "x.sock", "-b", "127.0.0.2"], ["unix:x.sock", "127.0.0.2:8000"])):
            with self.subTest(arguments=arguments):
                self.assertEqual(self.template(*arguments, "hello:app").settings()["bind"], bind)
        self.start("-e", "ssl:443").output.read_until("--endpoint ssl:443 is ignored")

    def test_proxy_headers(self):
        for options, expected in ((["--proxy-headers"], "192.0.2.7"), ([], "127.0.0.1")):
            tcp = self.tcp_listener()
            worker = self.start(*options).fork(1, [tcp])
            worker.wait_ready()
            client = Client(tcp)
            self.addCleanup(client.close)
            self.assertEqual(client.get("/", {"X-Forwarded-For": "192.0.2.7"}).split()[1], expected)

    def test_the_backlog_is_left_alone(self):
        tcp = self.tcp_listener()
        before = tcp_limit(tcp)
        self.start().fork(1, [tcp]).wait_ready()
        self.assertEqual(tcp_limit(tcp), before)


def tcp_limit(listener):
    """How many connections may wait (tcpi_sacked of a listening socket's TCP_INFO)."""
    return struct.unpack_from("I", listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 28)[0]


class HypercornOnUvloop(Hypercorn):
    options = ("-k", "uvloop", "--graceful-timeout", "20")


class UvicornOnUvloop(Uvicorn):
    options = ("--loop", "uvloop")

    @classmethod
    def setUpClass(cls):
        try:
            import uvloop  # noqa: F401
        except ImportError:
            raise unittest.SkipTest("uvloop is not installed") from None


del Checks

if __name__ == "__main__":
    unittest.main()
