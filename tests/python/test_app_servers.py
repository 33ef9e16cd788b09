"""What the adapters take for granted of each server by itself, without sockd. Fails when a new version is otherwise.

Every server is given one listening socket as descriptor 3, by its own option or by systemd's variables, and is then
asked to stop. A server that is not Python's is skipped where it is not installed.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))

import fake_sockd  # noqa: E402
from fake_sockd import SCRIPTS, SERIAL, backlog_of, get, wait_readable  # noqa: E402

WSGI = '''
import os
if "FIFO" in os.environ:
    open(os.environ["FIFO"]).read()

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]
'''

ASGI = '''
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"hello"})
'''

RACK = """
run ->(env) {
  if env["PATH_INFO"] == "/slow"
    File.write("begun", "")
    File.read("gate")
  end
  [200, {"content-type" => "text/plain", "content-length" => "5"}, ["hello"]]
}
"""

UWSGI = ("uwsgi", "--master", "--no-orphans", "--http-socket", "fd://3", "--module", "wsgi:app")
WAITRESS = "import socket, waitress, wsgi; waitress.serve(wsgi.app, sockets=[socket.socket(fileno=3)])"


class Server:
    def __init__(self, *command, unix=True, tcp=True, named=False, stop=signal.SIGTERM, status=0, unlinks=False,
                 backlog=None):
        self.command = command
        self.families = [family for family, has in ((socket.AF_UNIX, unix), (socket.AF_INET, tcp)) if has]
        # Whether systemd's variables tell it of the socket, and not an option.
        self.environment = {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"} if named else {}
        self.stop = stop
        self.status = status
        # Whether it removes the path of a unix socket that it has not made.
        self.unlinks = unlinks
        # How many connections may wait since it called listen(); None if it did not.
        self.backlog = backlog

    def __str__(self):
        return " ".join(self.command)


SERVERS = [
    Server("gunicorn", "-b", "fd://3", "wsgi:app", unlinks=True),
    Server("gunicorn", "wsgi:app", named=True),
    Server("uvicorn", "--fd", "3", "asgi:app", status=-signal.SIGTERM, backlog=2048),
    Server("hypercorn", "-b", "fd://3", "--workers", "0", "asgi:app", backlog=100),
    Server("daphne", "--fd", "3", "asgi:app", unix=False),
    Server("daphne", "-e", "systemd:domain=UNIX:index=0", "asgi:app", tcp=False, named=True, unlinks=True),
    Server("python", "-c", WAITRESS, stop=signal.SIGINT, backlog=1024),
    Server("python", "-c", WAITRESS, status=-signal.SIGTERM, backlog=1024),
    Server(*UWSGI, "--need-app", stop=signal.SIGINT),
    Server("unicorn", "-E", "none", named=True, stop=signal.SIGQUIT, backlog=1024),
    Server("unicorn", "-E", "none", named=True, backlog=1024),
]


class AppServers(fake_sockd.Case):
    files = {"wsgi": WSGI, "asgi": ASGI}

    def setUp(self):
        super().setUp()
        self.directory.write("config.ru", RACK)

    def start(self, listener, *command, **environment):
        """The server with the listener as its descriptor 3, named as systemd names it."""
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(notify.close)
        notify.bind(self.directory / ("notify-%d" % next(SERIAL)))
        program = shutil.which(command[0], path=SCRIPTS + ":" + os.environ["PATH"])
        if program is None:
            self.skipTest("%s is not installed" % command[0])
        shell = 'exec 3<&%d && LISTEN_PID=$$ exec "$0" "$@"' % listener.fileno()
        process = subprocess.Popen(
            ["bash", "-c", shell, program, *command[1:]], cwd=self.directory.path, text=True,
            pass_fds=[listener.fileno()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, **environment, "NOTIFY_SOCKET": notify.getsockname()})
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process, notify

    def ends_with(self, process, status):
        text, _ = process.communicate(timeout=fake_sockd.PATIENCE)
        self.assertEqual(process.returncode, status, text)

    def test_each_as_its_adapter_takes_it(self):
        for server in SERVERS:
            for family in server.families:
                with self.subTest(server=str(server), family=family.name):
                    self.check(server, family)

    def check(self, server, family):
        path = self.directory / "public"
        if os.path.exists(path):
            os.unlink(path)
        listener = self.listener() if family == socket.AF_UNIX else self.tcp_listener()
        before = backlog_of(listener) if family == socket.AF_INET else None
        process, _ = self.start(listener, *server.command, **server.environment)
        self.assertEqual(get(path if family == socket.AF_UNIX else listener), "hello")
        if family == socket.AF_INET:
            self.assertEqual(backlog_of(listener), server.backlog or before)
        process.send_signal(server.stop)
        self.ends_with(process, server.status)
        if family == socket.AF_UNIX:
            self.assertEqual(os.path.exists(path), not server.unlinks)
        listener.close()

    def test_gunicorn_says_ready_before_it_is(self):
        fifo = self.fifo()
        process, notify = self.start(self.listener(), "gunicorn", "-b", "fd://3", "wsgi:app", FIFO=fifo)
        wait_readable(notify, "READY=1")
        self.assertIn(b"READY=1", notify.recv(4096))
        # Only now the application is loaded.
        with open(fifo, "w"):
            pass
        process.terminate()
        self.ends_with(process, 0)

    def test_uwsgi_takes_sigterm_for_a_reload(self):
        listener = self.listener()
        process, _ = self.start(listener, *UWSGI)
        self.assertEqual(get(listener.getsockname()), "hello")
        process.terminate()
        # The second one is the new life's.
        for _ in range(2):
            self.assertTrue(any("spawned uWSGI worker 1" in line for line in process.stdout), "it has ended")
        self.assertEqual(get(listener.getsockname()), "hello")
        process.send_signal(signal.SIGINT)
        self.ends_with(process, 0)

    def test_unicorn_finishes_a_request_at_sigquit_alone_and_never_says_ready(self):
        os.mkfifo(self.directory / "gate")
        for number, answer in ((signal.SIGQUIT, b"hello"), (signal.SIGTERM, b""), (signal.SIGINT, b"")):
            with self.subTest(signal=number.name):
                listener = self.tcp_listener()
                process, notify = self.start(
                    listener, "unicorn", "-E", "none", LISTEN_FDS="1", LISTEN_FDNAMES="web")
                with socket.create_connection(listener.getsockname(), timeout=fake_sockd.PATIENCE) as client:
                    client.sendall(b"GET /slow HTTP/1.0\r\nHost: x\r\n\r\n")
                    fake_sockd.wait_until(lambda: os.path.exists(self.directory / "begun"), "a request")
                    os.unlink(self.directory / "begun")
                    process.send_signal(number)
                    if answer:
                        with open(self.directory / "gate", "w"):
                            pass
                    self.assertEqual(client.makefile("rb").read()[-5:], answer)
                self.ends_with(process, 0)
                with self.assertRaises(BlockingIOError):
                    notify.recv(4096, socket.MSG_DONTWAIT)

    def test_what_they_exit_with_when_the_application_cannot_be_loaded(self):
        for command, status in (
                (("gunicorn", "-b", "fd://3", "nonesuch:app"), 3),
                (("uvicorn", "--fd", "3", "nonesuch:app"), 3),
                (("uwsgi", "--need-app", "--http-socket", "fd://3", "--module", "nonesuch:app"), 22)):
            with self.subTest(command=command):
                process, _ = self.start(self.tcp_listener(), *command)
                self.ends_with(process, status)


if __name__ == "__main__":
    unittest.main()
