"""The templates of the ASGI servers against the real servers: conformance.py, and what is each one's own."""

import os
import signal
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))

import conformance  # noqa: E402
from fake_sockd import backlog_of, get, wait_for_exit  # noqa: E402

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

async def in_thread(call):
    import asyncio
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        import trio
        await trio.to_thread.run_sync(call)
    else:
        await loop.run_in_executor(None, call)

async def lifespan(receive, send):
    await receive()
    if "FIFO" in os.environ:
        print("starting up", file=sys.stderr, flush=True)
        await in_thread(lambda: open(os.environ["FIFO"]).read())
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
    path = scope["path"]
    if path == "/spin":
        print("in the request", file=sys.stderr, flush=True)
        while True:
            pass
    if path == "/wait":
        print("in the request", file=sys.stderr, flush=True)
        fifo = dict(scope["headers"])[b"x-fifo"].decode()
        await in_thread(lambda: open(fifo).read())
    body = ("%d %s" % (os.getpid(), (scope["client"] or ["-"])[0])).encode()
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})
'''


def setUpModule():
    conformance.set_up()


class Checks(conformance.Checks):
    """An ASGI server's."""

    source = HELLO
    websockets = True


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
            self.assertEqual(self.forwarded_client(*options), expected)


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
            self.assertEqual(self.forwarded_client(*options), expected)

    def test_the_backlog_is_left_alone(self):
        tcp = self.tcp_listener()
        before = backlog_of(tcp)
        self.start().fork(1, [tcp]).wait_ready()
        self.assertEqual(backlog_of(tcp), before)


class HypercornOnUvloop(Hypercorn):
    options = ("-k", "uvloop", "--graceful-timeout", "20")


class HypercornOnTrio(Hypercorn):
    options = ("-k", "trio", "--graceful-timeout", "20")

    @classmethod
    def setUpClass(cls):
        try:
            import trio  # noqa: F401
        except ImportError:
            raise unittest.SkipTest("trio is not installed") from None


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
