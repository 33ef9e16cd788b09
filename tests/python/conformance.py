"""What must hold of every server but gunicorn, which has worker classes: the tests' common part.

The test plays sockd; each server's class says what is different.
"""

import os
import signal
import subprocess
import sys

import fake_sockd
from fake_sockd import (
    SCRIPTS, Client, Template, become_subreaper, get, open_files, wait_for_exit, wait_until)
from websocket import WebSocket, refuses


def set_up():
    become_subreaper()
    for name in ("WEB_CONCURRENCY", "NOTIFY_SOCKET", "FORWARDED_ALLOW_IPS"):
        os.environ.pop(name, None)


class Checks(fake_sockd.Case):
    """What must hold of every server, in a class for each."""

    # The application.
    source = None
    # Whether it has WebSockets; and a loop that stands still while it spins.
    websockets = False
    # "Going away" or "service restart" (RFC 6455 and its registry).
    close_codes = (1001, 1012)
    # Arguments of every start, and the application's.
    options = ()
    application = "hello:app"
    # A worker that ended because it was asked to.
    clean = (0,)
    # The exit code when the lifespan start-up fails; None for a server without lifespan.
    failed_start = None
    # The exit code when the application cannot be imported.
    failed_import = 1
    # An option that limits the number of requests.
    request_limit = None
    # The module of `python -m`.
    module = None

    def setUp(self):
        super().setUp()
        self.directory.write("hello.py", self.source)

    def start(self, *arguments, **options):
        return self.started(*self.options, *arguments, self.application, **options)

    def worker(self, *arguments, listeners=(), **environment):
        worker = self.start(*arguments).fork(1, listeners, **environment)
        worker.wait_ready()
        return worker

    def test_garbage_is_collected_where_the_application_runs(self):
        self.directory.write("hello.py", self.source + """
import gc, sys
print("collects: %s" % gc.isenabled(), file=sys.stderr, flush=True)
""")
        worker = self.worker()
        worker.output.read_until("collects: ")
        self.assertIn("collects: True", worker.output.text)

    def request(self, worker, path, headers=None):
        """A request that is in the application's hands."""
        client = Client(worker.probe_path)
        self.addCleanup(client.close)
        client.request("GET", path, headers=headers or {})
        worker.output.read_until("in the request")
        return client

    def forwarded_client(self, *options):
        """Who the application takes for the client when a proxy on TCP says that it is 192.0.2.7."""
        tcp = self.tcp_listener()
        worker = self.start(*options).fork(1, [tcp])
        worker.wait_ready()
        client = Client(tcp)
        self.addCleanup(client.close)
        return client.get("/", {"X-Forwarded-For": "192.0.2.7"}).split()[1]

    def release(self, fifo):
        with open(fifo, "w"):
            pass

    def release_who_waits(self, fifo):
        try:
            os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            # Nobody does, at this moment.
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
        self.directory.write("hello.py", self.source)
        worker = template.fork(1)
        worker.wait_ready()

    # Readiness.

    def test_not_ready_before_the_application_is_loaded(self):
        fifo = self.fifo()
        self.directory.write("hello.py", "import sys\nprint('loading', file=sys.stderr, flush=True)\n"
                                         "open(%r).read()\n" % fifo + self.source)
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

    # The application in the template.

    def test_a_preloaded_application_is_imported_once(self):
        self.directory.write("hello.py", "import sys\nprint('imported', file=sys.stderr, flush=True)\n" + self.source)
        template = self.template(*self.options, self.application, loading="preload")
        self.assertTrue(template.settings()["preload"])
        self.assertEqual(template.output.read_until("imported\n").count("imported"), 1)
        # The template is the last good code.
        self.directory.write("hello.py", "raise KeyError('no such setting')\n")
        public = self.listener()
        workers = [template.fork(number, [public]) for number in range(3)]
        for worker in workers:
            self.assertEqual(worker.wait_ready(), ["READY=1"])
            self.assertEqual(get(worker.probe_path).split()[0], str(worker.pid))
            worker.signal(signal.SIGTERM)
            self.assertIn(worker.wait(), self.clean)
            self.assertNotIn("imported", worker.output.read_to_end())

    def test_an_application_that_cannot_be_preloaded_shows_its_traceback(self):
        self.directory.write("hello.py", "def load():\n    raise KeyError('no such setting')\nload()\n")
        template = self.template(*self.options, self.application, loading="preload")
        self.assertEqual(template.wait(), 1)
        text = template.output.read_to_end()
        self.assertIn("Traceback (most recent call last)", text)
        self.assertIn("KeyError: 'no such setting'", text)

    # What is shown of requests.

    def test_requests_are_shown_while_they_are_served_and_counted_when_they_are_over(self):
        worker, fifo = self.worker(), self.fifo()
        board = worker.scoreboard
        client = self.request(worker, "/wait?secret=1", {"X-Fifo": fifo})
        self.assertEqual(board.words()[2], 1)
        self.assertEqual(board.in_flight(), ["GET /wait"])
        self.assertEqual(board.finished(), {})
        self.release(fifo)
        self.assertEqual(client.getresponse().status, 200)
        board.wait_for_finished({2: 1})

    def test_what_sockd_asks_is_nobodys_request(self):
        worker = self.worker()
        client = Client(worker.probe_path)
        self.addCleanup(client.close)
        for agent in ("sockd (probe)", "curl", "sockd (probe)"):
            client.get("/", {"User-Agent": agent})
        worker.scoreboard.wait_for_finished({2: 1})

    def test_nothing_is_shown_where_it_is_not_wanted(self):
        template = self.start()
        template.shows_requests = False
        worker = template.fork(1)
        worker.wait_ready()
        get(worker.probe_path)
        board = worker.scoreboard
        board.next_beat()
        self.assertEqual((board.words()[2], board.in_flight(), board.finished()), (0, [], {}))

    def test_more_requests_than_slots(self):
        """Those that find no slot are counted, and no slot is lost."""
        if not self.websockets:
            self.skipTest("runs the application in threads")
        worker, fifo = self.worker(), self.fifo()
        board = worker.scoreboard
        clients = [self.request(worker, "/wait", {"X-Fifo": fifo})]
        for _ in range(19):
            client = Client(worker.probe_path)
            self.addCleanup(client.close)
            client.request("GET", "/wait", headers={"X-Fifo": fifo})
            clients.append(client)
        wait_until(lambda: len(board.in_flight()) + board.words()[3] == 20, "twenty requests")
        self.assertEqual(board.words()[3], 5)
        wait_until(lambda: self.release_who_waits(fifo) or board.finished() == {2: 20}, "twenty answers")
        board.wait_for_finished({2: 20})

    def test_open_websockets_are_counted(self):
        if not self.websockets:
            self.skipTest("has none")
        worker = self.worker()
        board = worker.scoreboard
        websocket = WebSocket(worker.probe_path)
        self.addCleanup(websocket.close)
        self.assertEqual(websocket.echo(b"hello"), b"hello")
        self.assertEqual(board.words()[4], 1)
        websocket.close()
        wait_until(lambda: board.words()[4] == 0, "none")
        self.assertEqual((board.finished(), board.in_flight()), ({}, []))

    # Liveness.

    def test_heartbeat(self):
        """Beats are shown and not said: sockd sleeps while all are well."""
        worker = self.worker()
        for _ in range(3):
            worker.scoreboard.next_beat()
        self.assertEqual(worker.scoreboard.words()[0], 3)
        self.assertEqual(worker.notifications_so_far(), [])

    def test_a_loop_that_does_not_turn_is_silent_and_shows_its_stack(self):
        if not self.websockets:
            self.skipTest("runs the application in threads")
        worker = self.worker()
        self.request(worker, "/spin")
        worker.scoreboard.wait_for_silence(3)
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
                worker = template.fork(1)
                worker.wait_ready()
                os.write(writer, str(worker.pid).encode())
                os.kill(os.getpid(), signal.SIGKILL)
            finally:
                os._exit(1)
        os.close(writer)
        self.assertEqual(wait_for_exit(supervisor), -signal.SIGKILL)
        # The test is the nearest subreaper that is left.
        self.assertIn(wait_for_exit(int(os.read(reader, 100))), self.clean)

    def test_signals_to_the_whole_unit_end_nobody(self):
        self.stand_every_signal(self.start(), lambda worker: get(worker.probe_path).split()[0])

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

    def test_a_worker_that_drains_opens_nothing_more(self):
        fifo, worker = self.fifo(), self.worker()
        client = self.request(worker, "/wait", {"X-Fifo": fifo})
        worker.output.read_until("in the request")
        worker.signal(signal.SIGUSR2)
        wait_until(lambda: refuses(worker.probe_path), "the worker accepts nobody any more")
        opened = open_files(worker.pid)
        # Twenty of its looks whether somebody is still connected.
        with self.assertRaises(AssertionError):
            wait_until(lambda: len(open_files(worker.pid)) > len(opened) + 2, "more descriptors", patience=2)
        self.release(fifo)
        self.assertEqual(client.getresponse().status, 200)
        self.assertIn(worker.wait(), self.clean)

    def test_an_idle_connection_does_not_hold_up_the_end(self):
        worker = self.worker()
        client = Client(worker.probe_path)
        self.addCleanup(client.close)
        self.assertEqual(client.get().split()[0], str(worker.pid))
        worker.signal(signal.SIGTERM)
        self.assertIn(worker.wait(), self.clean)

    def open_websocket(self):
        if not self.websockets:
            self.skipTest("has no WebSockets")
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

    def test_websockets_are_closed_at_the_end_of_a_drain(self):
        worker, client = self.open_websocket()
        worker.signal(signal.SIGUSR2)
        wait_until(lambda: refuses(worker.probe_path), "the worker accepts nobody any more")
        worker.signal(signal.SIGTERM)
        self.assertIn(client.wait_for_close(), self.close_codes)
        client.close()
        self.assertIn(worker.wait(), self.clean)

    def test_websockets_are_closed_at_the_end_of_the_service(self):
        worker, client = self.open_websocket()
        worker.signal(signal.SIGTERM)
        self.assertIn(client.wait_for_close(), self.close_codes)
        client.close()
        self.assertIn(worker.wait(), self.clean)
