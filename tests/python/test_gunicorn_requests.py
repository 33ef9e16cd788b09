"""What gunicorn's workers show of their requests, with the test playing sockd."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))

from fake_sockd import Client, get, wait_until  # noqa: E402
from websocket import WebSocket  # noqa: E402
from test_gunicorn import ASGI_CLASSES, GUNICORN_VERSION, USABLE, Case, application_for, setUpModule  # noqa: E402, F401

# Their requests are read by gunicorn itself.
OWN_WSGI = [name for name in ("sync", "gthread", "gevent", "eventlet") if name in USABLE]
# By the servers of gevent and of Tornado.
OTHER_WSGI = [name for name in ("gevent_pywsgi", "tornado") if name in USABLE]
FAILING = """
import sys
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/raise":
        raise KeyError("no such setting")
    if path == "/raise-late":
        return late(start_response)
    if path == "/endless":
        start_response("200 OK", [])
        return iter(lambda: b"x" * 65536, b"")
    start_response(path[1:], [("Content-Length", "0")])
    return []

def late(start_response):
    start_response("200 OK", [])
    yield b"the beginning"
    raise KeyError("no such setting")
"""
TORNADO = """
import sys
import tornado.web
import tornado.websocket

class Echo(tornado.websocket.WebSocketHandler):
    def on_message(self, message):
        self.write_message(message, binary=isinstance(message, bytes))

    def on_close(self):
        print("the handler knows", file=sys.stderr, flush=True)

app = tornado.web.Application([("/", Echo)])
"""


class Requests(Case):

    def test_shown_while_they_are_served_and_counted_when_they_are_over(self):
        for worker_class in OWN_WSGI + OTHER_WSGI:
            with self.subTest(worker_class=worker_class):
                fifo = self.directory / ("fifo-" + worker_class)
                os.mkfifo(fifo)
                worker = self.started("-k", worker_class, "hello:app").fork(1)
                worker.wait_ready()
                board = worker.scoreboard
                client = Client(worker.probe_path)
                self.addCleanup(client.close)
                client.request("POST", "/wait?secret=1", headers={"X-Fifo": fifo})
                worker.output.read_until("in the request")
                self.assertEqual((board.in_flight(), board.finished()), (["POST /wait"], {}))
                with open(fifo, "w"):
                    pass
                client.getresponse().read()
                board.wait_for_finished({2: 1})

    def test_counted_by_every_class_that_shows_them(self):
        for worker_class in OWN_WSGI + OTHER_WSGI + [name for name in ASGI_CLASSES if name in USABLE]:
            with self.subTest(worker_class=worker_class):
                worker = self.started("-k", worker_class, application_for(worker_class)).fork(1)
                worker.wait_ready()
                client = Client(worker.probe_path)
                self.addCleanup(client.close)
                client.get("/", {"User-Agent": "sockd (probe)", "Connection": "close"})
                for _ in range(3):
                    get(worker.probe_path)
                worker.scoreboard.wait_for_finished({2: 3})
                self.assertEqual(worker.scoreboard.words()[2], 1)

    def test_nothing_is_shown_where_it_is_not_wanted(self):
        for worker_class in OWN_WSGI + OTHER_WSGI + [name for name in ASGI_CLASSES if name in USABLE]:
            with self.subTest(worker_class=worker_class):
                template = self.started("-k", worker_class, application_for(worker_class))
                template.shows_requests = False
                worker = template.fork(1)
                worker.wait_ready()
                get(worker.probe_path)
                board = worker.scoreboard
                board.next_beat()
                self.assertEqual((board.words()[2], board.in_flight(), board.finished()), (0, [], {}))

    def test_counted_by_what_the_visitor_got(self):
        self.directory.write("failing.py", FAILING)
        for worker_class in OWN_WSGI + [name for name in OTHER_WSGI if name != "tornado"]:
            with self.subTest(worker_class=worker_class):
                worker = self.started("-k", worker_class, "failing:app").fork(1)
                worker.wait_ready()
                for path in "/204%20None /302%20Found /404%20Missing /503%20Busy /raise /raise-late".split():
                    client = Client(worker.probe_path)
                    client.request("GET", path, headers={"Connection": "close"})
                    while client.sock.recv(65536):
                        pass
                    client.close()
                leaver = Client(worker.probe_path)
                leaver.request("GET", "/endless")
                leaver.sock.recv(65536)
                leaver.close()
                worker.scoreboard.wait_for_finished({0: 1, 2: 1, 3: 1, 4: 1, 5: 3})
                self.assertEqual(worker.scoreboard.last_failure()[:4], "GET ")

    @unittest.skipUnless("tornado" in USABLE, "tornado is not installed")
    def test_counted_by_what_the_visitor_of_tornado_got(self):
        """Its container for WSGI leaves a visitor without an answer where the application raises an error."""
        self.directory.write("failing.py", FAILING)
        worker = self.started("-k", "tornado", "failing:app").fork(1)
        worker.wait_ready()
        for path in "/204%20None /302%20Found /404%20Missing /503%20Busy".split():
            get(worker.probe_path, path)
        leaver = Client(worker.probe_path)
        leaver.request("GET", "/raise")
        worker.output.read_until("no such setting")
        self.assertEqual(worker.scoreboard.in_flight(), ["GET /raise"])
        leaver.close()
        worker.scoreboard.wait_for_finished({0: 1, 2: 1, 3: 1, 4: 1, 5: 1})
        self.assertEqual(worker.scoreboard.last_failure(), "GET /503%20Busy")

    @unittest.skipUnless("tornado" in USABLE and GUNICORN_VERSION > (20, 1), "takes Tornado's applications for WSGI")
    def test_open_websockets_of_tornado_are_counted(self):
        self.directory.write("sockets.py", TORNADO)
        worker = self.started("-k", "tornado", "sockets:app").fork(1)
        worker.wait_ready()
        board = worker.scoreboard
        get(worker.probe_path, "/page")
        board.wait_for_finished({4: 1})
        websocket = WebSocket(worker.probe_path)
        self.assertEqual(websocket.echo(b"hello"), b"hello")
        self.assertEqual((board.words()[4], board.in_flight()), (1, []))
        websocket.close()
        worker.output.read_until("the handler knows")
        wait_until(lambda: board.words()[4] == 0, "none")
        self.assertEqual((board.finished(), board.in_flight()), ({4: 1}, []))

    def test_hooks_of_the_users_are_called_as_before(self):
        self.directory.write("hooks.conf.py", """
import sys
def pre_request(worker, req):
    print("before %s" % req.path, file=sys.stderr, flush=True)
def post_request(worker, req, environ, resp):
    print("after %s %s" % (environ["PATH_INFO"], resp.status), file=sys.stderr, flush=True)
""")
        worker = self.started("-c", "hooks.conf.py", "hello:app").fork(1)
        worker.wait_ready()
        get(worker.probe_path, "/page")
        worker.output.read_until("before /page")
        worker.output.read_until("after /page 200 OK")
        worker.scoreboard.wait_for_finished({2: 1})

    def test_the_line_of_gunicorns_own_hook_is_written_where_it_is_seen(self):
        worker = self.started("--log-level", "debug", "hello:app").fork(1)
        worker.wait_ready()
        get(worker.probe_path, "/page")
        worker.output.read_until("GET /page")
