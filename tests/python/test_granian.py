"""The template of granian against the real server, for each of its interfaces: conformance.py, and its own checks."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))

import conformance  # noqa: E402
import test_asgi  # noqa: E402
import test_waitress  # noqa: E402
from fake_sockd import Client  # noqa: E402

UMASK = test_asgi.UMASK

RSGI = '''
import asyncio, os, sys

class App:
    def __rsgi_init__(self, loop):
        if "FIFO" in os.environ:
            print("starting up", file=sys.stderr, flush=True)
            open(os.environ["FIFO"]).read()
        if "FAIL" in os.environ:
            raise RuntimeError("no database")

    def __rsgi_del__(self, loop):
        try:
            print("lifespan ends", file=sys.stderr, flush=True)
        except BrokenPipeError:
            # The orphan's.
            pass

    async def __rsgi__(self, scope, protocol):
        await (self.echo(protocol) if scope.proto == "ws" else self.respond(scope, protocol))

    async def echo(self, protocol):
        transport = await protocol.accept()
        while (message := await transport.receive()).kind == 2:
            await transport.send_str(message.data)

    async def respond(self, scope, protocol):
        if scope.path == "/spin":
            print("in the request", file=sys.stderr, flush=True)
            while True:
                pass
        if scope.path == "/wait":
            print("in the request", file=sys.stderr, flush=True)
            await asyncio.get_running_loop().run_in_executor(None, lambda: open(scope.headers["x-fifo"]).read())
        protocol.response_str(200, [("content-type", "text/plain")], "%d %s" % (os.getpid(), scope.client))

app = App()
'''


def setUpModule():
    conformance.set_up()


class Checks(conformance.Checks):
    server = module = "granian"


class OfAsgi(Checks):
    source = test_asgi.HELLO
    options = ("--interface", "asgi")
    websockets = True
    failed_start = 1

    def test_settings(self):
        for arguments, environment, expected in (
                ([], {}, {"workers": 1, "timeout": 30, "graceful_timeout": None, "bind": ["127.0.0.1:8000"],
                          "umask": UMASK, "backlog": 1024, "speaks_tls": False}),
                (["--workers", "3", "--uds", "/run/x.sock", "--uds-permissions", "0660", "--backlog", "177"], {},
                 {"workers": 3, "bind": ["unix:/run/x.sock"], "umask": 0o117, "backlog": 177}),
                (["--host", "::1", "--port", "81", "--workers-kill-timeout", "9"], {},
                 {"bind": ["[::1]:81"], "graceful_timeout": 9}),
                ([], {"GRANIAN_WORKERS": "2", "GRANIAN_HOST": "127.0.0.2"},
                 {"workers": 2, "bind": ["127.0.0.2:8000"]})):
            with self.subTest(arguments=arguments):
                settings = self.template(*arguments, "hello:app", environment=environment).settings()
                self.assertEqual({name: settings[name] for name in expected}, expected)

    def test_what_sockd_cannot_do_is_said(self):
        template = self.start("--reload", "--metrics", "--workers-lifetime", "60")
        for option in ("--reload", "--metrics", "--workers-lifetime"):
            template.output.read_until("%s is ignored" % option)

    def test_version(self):
        own, ours = self.both("--version")
        self.assertEqual(own, ours)


class OfRsgi(Checks):
    source = RSGI
    websockets = True
    failed_start = 1
    # RSGI's close() takes none.
    close_codes = (0,)


class OfWsgi(Checks):
    source = test_waitress.HELLO
    options = ("--interface", "wsgi")

    def test_one_thread_is_silent_when_busy(self):
        for options, silent in (([], False), (["--blocking-threads", "1"], True)):
            settings = self.template("--interface", "wsgi", *options, "hello:app").settings()
            self.assertEqual(settings["silent_when_busy"], silent)

    def test_one_thread_serves_one_request_at_a_time_on_all_sockets(self):
        fifo, public = self.fifo(), self.listener()
        worker = self.start("--blocking-threads", "1").fork(1, [public])
        worker.wait_ready()
        first = self.request(worker, "/wait", {"X-Fifo": fifo})
        second = Client(public.getsockname())
        self.addCleanup(second.close)
        second.request("GET", "/wait", headers={"X-Fifo": fifo})
        worker.output.text = ""
        with self.assertRaises(AssertionError):
            worker.output.read_until("in the request", patience=1)
        self.release(fifo)
        self.assertEqual(first.getresponse().status, 200)
        worker.output.read_until("in the request")
        self.release(fifo)
        self.assertEqual(second.getresponse().status, 200)


del Checks

if __name__ == "__main__":
    unittest.main()
