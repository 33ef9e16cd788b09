"""The supported versions of each server: a whole life under sockd of each, and a refusal of what is too old.

tests/run makes an environment for each set of versions in target/servers; one that is not there is left out, and so is
a server or a worker class that an environment does not have.
"""

import glob
import os
import signal
import subprocess
import sys
import unittest
from unittest import mock

sys.path.insert(0, os.path.dirname(__file__))

import both  # noqa: E402
import fake_sockd  # noqa: E402
import test_gunicorn_both  # noqa: E402
from fake_sockd import Client, wait_until  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
ENVIRONMENTS = sorted(glob.glob(os.path.join(
    os.environ.get("SOCKD_TEST_SERVERS") or os.path.join(HERE, "..", "..", "target", "servers"), "*", "bin")))

APPLICATION = '''
import os, sys

def is_released():
    return os.path.exists("released")

def tell():
    print("in the request", file=sys.stderr, flush=True)

def wsgi(environ, start_response):
    if environ["PATH_INFO"] == "/wait":
        import time
        tell()
        while not is_released():
            time.sleep(0.01)
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                return
    if scope["path"] == "/wait":
        import asyncio
        tell()
        while not is_released():
            await asyncio.sleep(0.01)
    body = str(os.getpid()).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
'''
SOCKET = "unix:web.sock"
# How each server is called, and what its environment must have for it.
COMMANDS = [
    (["gunicorn", "-k", "sync", "-b", SOCKET, "hello:wsgi"], "gunicorn"),
    (["gunicorn", "-k", "gthread", "--threads", "2", "-b", SOCKET, "hello:wsgi"], "gunicorn"),
    (["gunicorn", "-k", "gevent", "-b", SOCKET, "hello:wsgi"], "gevent"),
    (["gunicorn", "-k", "eventlet", "-b", SOCKET, "hello:wsgi"], "eventlet"),
    (["gunicorn", "-k", "tornado", "-b", SOCKET, "hello:wsgi"], "tornado"),
    (["gunicorn", "-k", "uvicorn.workers.UvicornWorker", "-b", SOCKET, "hello:asgi"], "uvicorn.workers"),
    (["gunicorn", "-k", "uvicorn_worker.UvicornWorker", "-b", SOCKET, "hello:asgi"], "uvicorn_worker"),
    (["uvicorn", "--uds", "web.sock", "hello:asgi"], "uvicorn"),
    (["hypercorn", "-b", SOCKET, "hello:asgi"], "hypercorn"),
    (["daphne", "-u", "web.sock", "hello:asgi"], "daphne"),
    (["waitress-serve", "--unix-socket=web.sock", "hello:wsgi"], "waitress"),
    (["granian", "--interface", "asgi", "--uds", "web.sock", "hello:asgi"], "granian"),
]
# A version before the oldest of each server that is supported, and where it says so.
TOO_OLD = {
    "gunicorn": ("gunicorn", "19.9", "19.8.1", "module"),
    "uvicorn": ("uvicorn", "0.15", "0.14.0", "module"),
    "hypercorn": ("hypercorn", "0.11", "0.10.2", "metadata"),
    "daphne": ("daphne", "3.0", "2.5.0", "module"),
    "waitress-serve": ("waitress", "1.4", "1.3.1", "metadata"),
    "granian": ("granian", "2.8", "2.7.9", "module"),
}


class Versions(test_gunicorn_both.Lives):

    def test_gunicorns_hooks(self):
        for scripts in ENVIRONMENTS:
            if os.path.exists(os.path.join(scripts, "gunicorn")):
                with self.subTest(environment=scripts), mock.patch.object(both, "SCRIPTS", scripts):
                    self.compare(*self.both_lives("--preload"))


class Lives(both.Case):
    """A worker serves, is replaced and lost nobody, and the service stops."""

    files = {"hello": APPLICATION}

    def test_each_server(self):
        for scripts in ENVIRONMENTS:
            for command, needs in COMMANDS:
                # gunicorn 19.9 has selectors of its own, which Python 3.10 and later cannot import.
                if has(scripts, needs) and not ("gthread" in command and has(scripts, "gunicorn.selectors")):
                    environment = mock.patch.object(both, "SCRIPTS", scripts)
                    with self.subTest(environment=scripts, command=command), environment:
                        self.live(command)

    def live(self, command):
        service = self.service(both.Sockd, *command[1:], program=command[0])
        first = both.ask(service)
        waiting = self.begin(service)
        service.signal(signal.SIGHUP)
        self.wait_for(service, "generation 2 has taken over")
        self.assertEqual(self.finish(service, waiting), first, service.output())
        # Until it has heard that it is replaced it may take a visitor more.
        self.wait_for(service, "worker 1 has left")
        successor = both.ask(service)
        self.assertNotEqual(successor, first)
        waiting = self.begin(service)
        service.signal(signal.SIGTERM)
        self.wait_for(service, "stopping")
        self.assertEqual(self.finish(service, waiting), successor, service.output())
        self.assertEqual(service.process.wait(fake_sockd.PATIENCE), 0, service.output())
        self.assertNotIn("Traceback", service.output())

    def begin(self, service):
        """A request that is in the application's hands."""
        seen = service.output().count("in the request")
        client = Client(service.directory / "web.sock")
        self.addCleanup(client.close)
        client.request("GET", "/wait", headers={"Connection": "close"})
        wait_until(lambda: service.output().count("in the request") > seen, "the request: " + service.output())
        return client

    def finish(self, service, client):
        path = service.directory.write("released", "")
        answer = client.getresponse().read().decode()
        os.unlink(path)
        return answer

    def wait_for(self, service, text):
        wait_until(lambda: text in service.output(), "%r in %s" % (text, service.output()))


class Settings(unittest.TestCase):

    def test_gunicorns_own_list_of_each_version(self):
        for scripts in ENVIRONMENTS:
            if os.path.exists(os.path.join(scripts, "gunicorn")):
                with self.subTest(environment=scripts):
                    python, settings = os.path.join(scripts, "python"), os.path.join(HERE, "test_gunicorn_settings.py")
                    tests = subprocess.run(
                        [python, "-m", "unittest", settings],
                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                    self.assertEqual(tests.returncode, 0, tests.stdout)


class TooOld(fake_sockd.Case):

    files = {"hello": APPLICATION}

    def test_each_is_refused_in_one_line(self):
        for script, (package, oldest, version, place) in TOO_OLD.items():
            with self.subTest(server=package):
                self.server = script
                self.assertRegex(
                    self.refusal(package, version, place),
                    "^sockd needs %s %s or later, and this is %s: (/[^ ]*/python[0-9.]* -m pip install --upgrade %s"
                    "|install a newer one in a virtual environment)\n$" % (package, oldest, version, package))

    def test_one_that_cannot_even_be_imported_is_refused_the_same(self):
        self.server = "uvicorn"
        self.directory.write("uvicorn.py", "from asyncio import coroutine_of_old\n")
        self.assertRegex(self.refusal("uvicorn", "0.13.4", "metadata"), "^sockd needs uvicorn 0.15 or later, [^\n]*\n$")

    def test_a_version_without_numbers_is_not_refused(self):
        self.server = "waitress-serve"
        self.metadata("waitress", "0.0.0")
        self.started("hello:wsgi", environment={"PYTHONPATH": self.directory.path})

    def refusal(self, package, version, place):
        if place == "module":
            self.directory.write(package + ".py", "__version__ = %r\n" % version)
        else:
            self.metadata(package, version)
        template = self.template("hello:wsgi", environment={"PYTHONPATH": self.directory.path})
        self.assertEqual(template.wait(), 1)
        return template.output.read_to_end()

    def metadata(self, package, version):
        os.makedirs(self.directory / ("%s-%s.dist-info" % (package, version)))
        self.directory.write("%s-%s.dist-info/METADATA" % (package, version),
                             "Metadata-Version: 2.1\nName: %s\nVersion: %s\n" % (package, version))


def has(scripts, module):
    """Whether an environment has this module, or this program and its package."""
    place = os.path.join(scripts, "..", "lib", "python3.*", "site-packages", *module.split("."))
    return bool(glob.glob(place) + glob.glob(place + ".py"))


if __name__ == "__main__":
    unittest.main()
