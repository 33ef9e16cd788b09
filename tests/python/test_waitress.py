"""The template of waitress against the real server: the checks of conformance.py, and what is waitress's own."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))

import conformance  # noqa: E402
from fake_sockd import Client, get  # noqa: E402

HELLO = '''
import os, sys

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/wait":
        print("in the request", file=sys.stderr, flush=True)
        with open(environ["HTTP_X_FIFO"]) as fifo:
            fifo.read()
    body = ("%d %s" % (os.getpid(), environ.get("REMOTE_ADDR"))).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
'''


def setUpModule():
    conformance.set_up()


class Waitress(conformance.Checks):
    server = "waitress-serve"
    module = "waitress"
    source = HELLO

    def test_settings(self):
        for arguments, expected in (
                ([], {"workers": 1, "timeout": 30, "graceful_timeout": None, "bind": ["0.0.0.0:8080"],
                      "backlog": 1024}),
                (["--unix-socket=x.sock", "--unix-socket-perms=660"], {"bind": ["unix:x.sock"], "umask": 0o117}),
                (["--unix-socket=x.sock"], {"umask": 0o177}),
                (["--host=127.0.0.1", "--port=81", "--backlog=77"], {"bind": ["127.0.0.1:81"], "backlog": 77}),
                (["--listen=127.0.0.1:81", "--listen=[::1]:82"], {"bind": ["127.0.0.1:81", "[::1]:82"]})):
            with self.subTest(arguments=arguments):
                settings = self.template(*arguments, "hello:app").settings()
                self.assertEqual({name: settings[name] for name in expected}, expected)

    def test_options_that_contradict_each_other(self):
        own, ours = self.both("--host=127.0.0.1", "--listen=127.0.0.1:81", "hello:app")
        self.assertEqual(ours[0], own[0])
        self.assertEqual(ours[2].splitlines()[-1], own[2].splitlines()[-1])

    def test_called_application(self):
        self.directory.write("made.py", "from hello import app\ndef create():\n    return app\n")
        worker = self.started("--call", "made:create").fork(1)
        worker.wait_ready()
        self.assertEqual(get(worker.probe_path).split()[0], str(worker.pid))

    def test_trusted_proxy(self):
        trusting = ["--trusted-proxy=127.0.0.1", "--trusted-proxy-headers=x-forwarded-for"]
        for options, expected in ((trusting, "192.0.2.7"), ([], "127.0.0.1")):
            self.assertEqual(self.forwarded_client(*options), expected)

    def test_a_kept_connection_hears_that_it_ends(self):
        fifo = self.fifo()
        worker = self.worker()
        client = Client(worker.probe_path)
        self.addCleanup(client.close)
        client.get()
        client.request("GET", "/wait", headers={"X-Fifo": fifo})
        worker.output.read_until("in the request")
        worker.signal(15)
        conformance.wait_until(lambda: conformance.refuses(worker.probe_path), "the worker accepts nobody any more")
        self.release(fifo)
        self.assertEqual(client.getresponse().getheader("Connection"), "close")
        self.assertEqual(worker.wait(), 0)


if __name__ == "__main__":
    unittest.main()
