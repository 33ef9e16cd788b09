"""The moment of leaving: who has come to a worker that is to go, and whether each one is answered.

The test plays sockd, with one worker on one public socket that it holds itself. What the worker leaves in the queue the
test would find there; a client that it has accepted is its own, and must be answered. A worker that is stopped meets
all that happened meanwhile in one turn of its loop, so the moments are made, not waited for.

As often as wanted, by hand:
    SOCKD_TEST_ROUNDS=10000 VENV/bin/python tests/python/test_leaving.py Leaving.test_hypercorn
"""

import importlib.util
import os
import random
import select
import signal
import socket
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(__file__))

import conformance  # noqa: E402
import fake_sockd  # noqa: E402
from fake_sockd import PROGRAMS, connect, listen_tcp, listen_unix, wait_until  # noqa: E402

sys.path.insert(0, PROGRAMS)

from sockd_worker.drain import has_come  # noqa: E402

ROUNDS = int(os.environ.get("SOCKD_TEST_ROUNDS", "3"))

WSGI = '''
def app(environ, start_response):
    environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]
'''

ASGI = '''
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})
'''

RSGI = '''
async def app(scope, protocol):
    await protocol()
    protocol.response_str(200, [("content-type", "text/plain")], "hello")
'''


class Server:
    """A command, its application, and what it wants to be installed."""

    def __init__(self, *command, source=ASGI, wants=(), keeps=True):
        self.script, *self.options = command
        self.source = source
        self.wants = wants
        # Whether it keeps connections alive, and so has several at a time.
        self.keeps = keeps


# Nobody reads the template's stdout: where a line of it belongs to each request, it would be full after some rounds.
QUIET = ("--no-access-log",)
SERVERS = {
    "sync": Server("gunicorn", source=WSGI, keeps=False),
    "gthread": Server("gunicorn", "-k", "gthread", "--threads", "20", source=WSGI),
    "gevent": Server("gunicorn", "-k", "gevent", source=WSGI, wants=["gevent"]),
    "gevent_pywsgi": Server("gunicorn", "-k", "gevent_pywsgi", source=WSGI, wants=["gevent"]),
    "tornado": Server("gunicorn", "-k", "tornado", source=WSGI, wants=["tornado"]),
    "asgi": Server("gunicorn", "-k", "asgi", "--asgi-loop", "asyncio", wants=["gunicorn.workers.gasgi"]),
    "asgi_on_uvloop": Server("gunicorn", "-k", "asgi", "--asgi-loop", "uvloop",
                             wants=["gunicorn.workers.gasgi", "uvloop"]),
    "uvicorn_worker": Server("gunicorn", "-k", "uvicorn_worker.UvicornWorker", wants=["uvicorn_worker"]),
    "uvicorn": Server("uvicorn", *QUIET, "--loop", "asyncio", "--http", "httptools", wants=["httptools"]),
    "uvicorn_with_h11": Server("uvicorn", *QUIET, "--loop", "asyncio", "--http", "h11"),
    "uvicorn_on_uvloop": Server("uvicorn", *QUIET, "--loop", "uvloop", wants=["uvloop"]),
    "hypercorn": Server("hypercorn"),
    "hypercorn_on_uvloop": Server("hypercorn", "-k", "uvloop", wants=["uvloop"]),
    "hypercorn_on_trio": Server("hypercorn", "-k", "trio", wants=["trio"]),
    "daphne": Server("daphne", "--access-log", os.devnull),
    "waitress": Server("waitress-serve", source=WSGI),
    "granian": Server("granian", "--interface", "asgi"),
    "granian_with_rsgi": Server("granian", "--interface", "rsgi", source=RSGI),
    "granian_with_wsgi": Server("granian", "--interface", "wsgi", source=WSGI),
}

REQUEST = b"POST / HTTP/1.1\r\nHost: testserver\r\nContent-Length: 5\r\n\r\nhello"
HALF = len(REQUEST) // 2
# What the test itself answers to those that the worker has left in the queue.
LEFT = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nleft"


class Lost(AssertionError):
    """A visitor without an answer."""


class Visitor:
    """One connection, and what it was answered."""

    def __init__(self, where, name):
        self.name = name
        self.socket = connect(where)
        self.answer = b""

    def send(self, data=REQUEST):
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise Lost("%s: cannot send: %s" % (self.name, error)) from None

    def read(self):
        """Its whole answer: head and body."""
        while not self.is_complete():
            try:
                data = self.socket.recv(65536)
            except OSError as error:
                raise Lost("%s: %s after %r" % (self.name, error, self.answer)) from None
            if not data:
                raise Lost("%s: closed after %r" % (self.name, self.answer))
            self.answer += data
        answer, self.answer = self.answer, b""
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise Lost("%s: %r" % (self.name, answer))
        return answer

    def is_asked_to_leave(self):
        """Asks, and whether the answer ends the connection."""
        self.send()
        return b"connection: close" in self.read().lower()

    def is_complete(self):
        head, end, body = self.answer.partition(b"\r\n\r\n")
        if not end:
            return False
        for line in head.lower().split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name == b"content-length":
                return len(body) >= int(value)
            if name == b"transfer-encoding":
                return body.endswith(b"0\r\n\r\n")
        raise Lost("%s: an answer without an end: %r" % (self.name, self.answer))

    def close(self):
        self.socket.close()


def is_late(number, goes_on):
    """Whether a worker that went on then may have closed what is idle by now: drain.py's IDLE_SECONDS."""
    return number == signal.SIGTERM and time.monotonic() - goes_on >= 0.5


class Moment:
    """One worker's leaving, with visitors in every state that the server knows."""

    def __init__(self, worker, listener, keeps):
        self.worker = worker
        self.listener = listener
        self.where = listener if listener.family != socket.AF_UNIX else listener.getsockname()
        self.keeps = keeps
        self.visitors = []

    def come(self, name):
        visitor = Visitor(self.where, name)
        self.visitors.append(visitor)
        return visitor

    def kept(self, name):
        """A connection that was answered, and is idle."""
        visitor = self.come(name)
        visitor.send()
        visitor.read()
        return visitor

    def leave(self, number):
        """All at once; raises Lost."""
        first, later, silent, half = [], [], [], []
        if self.keeps:
            first = [self.kept("kept, asks just before")]
            later = [self.kept("kept, asks just after") for _ in range(2)]
            silent = [self.kept("kept, asks later")]
            first += [self.come("accepted, asks just before") for _ in range(2)]
            later += [self.come("accepted, asks just after")]
            silent += [self.come("accepted, asks later")]
            half = [self.come("half a request")]
            half[0].send(REQUEST[:HALF])
            # Once a later one is answered, all these are accepted.
            last = self.come("the last one")
            last.send()
            last.read()
            last.close()
        os.kill(self.worker.pid, signal.SIGSTOP)
        queued = [self.come("in the queue") for _ in range(5)]
        for visitor in first + queued[:4]:
            visitor.send()
        self.worker.signal(number)
        for visitor in later:
            visitor.send()
        goes_on = time.monotonic()
        os.kill(self.worker.pid, signal.SIGCONT)
        stream = self.stream(queued[4])
        try:
            for visitor in silent:
                visitor.send()
        except Lost:
            if not is_late(number, goes_on):
                raise
        if is_late(number, goes_on):
            # Nobody has promised them anything.
            silent = []
        for visitor in half:
            visitor.send(REQUEST[HALF:])
        self.settle(first + queued + later + half + silent + stream)

    def stream(self, one):
        """Visitors who come while the worker goes, and one who was there and asks only then."""
        came = []
        for index in range(20):
            visitor = self.come("on the way, %d" % index)
            visitor.send()
            came.append(visitor)
            if index == 5:
                one.send()
            time.sleep(random.random() * 0.002)
        return came

    def settle(self, visitors):
        """Read all answers; those that nobody has accepted when the worker is gone, the test answers itself."""
        pidfd = os.pidfd_open(self.worker.pid)
        waiting, deadline = set(visitors), time.monotonic() + fake_sockd.PATIENCE
        is_gone = False
        try:
            while waiting:
                sources = {visitor.socket: visitor for visitor in waiting}
                readable, _, _ = select.select([*sources, *([] if is_gone else [pidfd])], [], [], 0 if is_gone else 1)
                for source in readable:
                    if source != pidfd:
                        sources[source].read()
                        sources[source].close()
                        waiting.discard(sources[source])
                if is_gone and not readable:
                    # All that the worker said has arrived.
                    self.answer_the_queue()
                is_gone = is_gone or pidfd in readable
                if time.monotonic() > deadline:
                    raise Lost("never answered: %s" % sorted(visitor.name for visitor in waiting))
        finally:
            os.close(pidfd)

    def answer_the_queue(self):
        self.listener.setblocking(False)
        while True:
            try:
                connection, _ = self.listener.accept()
            except BlockingIOError:
                return
            with connection:
                connection.settimeout(fake_sockd.PATIENCE)
                connection.recv(65536)
                connection.sendall(LEFT)

    def close(self):
        for visitor in self.visitors:
            visitor.close()


def template_of(case, name):
    """The template of one of SERVERS, in a test case; a test whose server is not installed is skipped."""
    server = SERVERS[name]
    for module in server.wants:
        if importlib.util.find_spec(module) is None:
            case.skipTest("%s is not installed" % module)
    case.directory.write("hello.py", server.source)
    case.server = server.script
    return case.started(*server.options, "hello:app", loading="preload")


class Leaving(fake_sockd.Case):

    def nobody_is_lost(self, name):
        template, keeps = template_of(self, name), SERVERS[name].keeps
        lost = []
        for index in range(ROUNDS):
            listener = listen_tcp() if index % 2 else listen_unix(self.directory / ("public-%d" % index))
            worker = template.fork(index, [listener], probe=False)
            worker.wait_ready()
            moment = Moment(worker, listener, keeps)
            try:
                moment.leave(signal.SIGTERM if index % 3 == 2 else signal.SIGUSR2)
            except Lost as what:
                lost.append("round %d: %s" % (index, what))
            moment.close()
            self.assertIn(worker.wait(), (0, -signal.SIGTERM))
            worker.stop()
            template.workers.clear()
            listener.close()
        self.assertEqual(lost, [])

    def what_is_idle_is_kept(self, name):
        """When it is replaced and at the end of the service, the next answer announces the end of the connection."""
        if not SERVERS[name].keeps:
            self.skipTest("keeps no connection")
        template = template_of(self, name)
        for index, number in enumerate((signal.SIGUSR2, signal.SIGTERM)):
            worker = template.fork(index)
            worker.wait_ready()
            busy, idle = Visitor(worker.probe_path, "busy"), Visitor(worker.probe_path, "idle")
            for visitor in (busy, idle):
                self.addCleanup(visitor.close)
                self.assertFalse(visitor.is_asked_to_leave())
            worker.signal(number)
            wait_until(busy.is_asked_to_leave, "an answer with Connection: close")
            busy.close()
            self.assertTrue(idle.is_asked_to_leave())
            self.assertEqual(idle.socket.recv(1), b"")
            idle.close()
            self.assertIn(worker.wait(), (0, -signal.SIGTERM))


for name in SERVERS:
    setattr(Leaving, "test_" + name, lambda self, name=name: self.nobody_is_lost(name))
    setattr(Leaving, "test_what_is_idle_is_kept_by_" + name, lambda self, name=name: self.what_is_idle_is_kept(name))


class Come(unittest.TestCase):
    """What lets an idle connection wait for its server."""

    def test_a_request_is_and_an_end_is_not(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.assertFalse(has_come(ours.fileno()))
            theirs.send(b"GET")
            theirs.shutdown(socket.SHUT_WR)
            self.assertTrue(has_come(ours.fileno()))
            self.assertEqual(ours.recv(8), b"GET")
            self.assertFalse(has_come(ours.fileno()))
        self.assertTrue(has_come(ours.fileno()))


def setUpModule():
    conformance.set_up()


if __name__ == "__main__":
    unittest.main()
