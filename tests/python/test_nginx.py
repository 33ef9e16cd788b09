"""Nginx with kept-alive connections to its upstream, before each Python server on sockd: what an administrator has.

Nginx asks a second time only where that does no harm, so never a POST: whatever a leaving worker does to a connection
that waits for its next request, a visitor who posts sees it as 502.
"""

import http.client
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(__file__))

import both  # noqa: E402
import fake_sockd  # noqa: E402
import test_leaving  # noqa: E402
from both import Sockd  # noqa: E402
from fake_sockd import Client, Directory, wait_until  # noqa: E402

NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
VISITORS = 12
RELOADS = 3

CONFIGURATION = """
daemon off;
master_process off;
pid nginx.pid;
error_log nginx.log;
events {}
http {
    access_log off;
    # Of a visitor's connection.
    keepalive_requests 1000000;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    upstream application {
        server unix:web.sock;
        keepalive 32;
    }
    server {
        listen unix:nginx.sock;
        location / {
            proxy_pass http://application;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }
}
"""

# Where each server is to listen.
BINDS = {
    "uvicorn": ["--uds", "web.sock"],
    "hypercorn": ["--bind", "unix:web.sock"],
    "daphne": ["-u", "web.sock"],
    "granian": ["--uds", "web.sock"],
    "waitress-serve": ["--unix-socket=web.sock"],
    "gunicorn": ["--bind", "unix:web.sock"],
}


class Visitors:
    """Who post through Nginx, each on one connection, as fast as they are answered."""

    def __init__(self, where):
        self.where = where
        self.stopping = False
        self.answered = 0
        self.failures = []
        self.threads = [threading.Thread(target=self.visit) for _ in range(VISITORS)]
        for thread in self.threads:
            thread.start()

    def visit(self):
        client = Client(self.where)
        answered = 0
        while not self.stopping:
            try:
                client.request("POST", "/", body=b"hello")
                response = client.getresponse()
                response.read()
                if response.status != 200:
                    self.failures.append(response.status)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                client = Client(self.where)
            answered += 1
        client.close()
        self.answered += answered

    def stop(self):
        self.stopping = True
        for thread in self.threads:
            thread.join(fake_sockd.PATIENCE)


def wait_for_line(service, wanted):
    """Until sockd has said so; looking at it all the time would leave the visitors no processor."""
    def is_there():
        time.sleep(0.02)
        return wanted in service.output()
    try:
        wait_until(is_there, wanted)
    except AssertionError:
        raise AssertionError("never came: %s\n%s" % (wanted, service.output())) from None


def accepts(path):
    with socket.socket(socket.AF_UNIX) as connection:
        return connection.connect_ex(path) == 0


@unittest.skipUnless(NGINX, "nginx is not installed")
class Nginx(both.Case):

    def nobody_meets_502(self, name):
        server = test_leaving.SERVERS[name]
        for module in server.wants:
            if importlib.util.find_spec(module) is None:
                self.skipTest("%s is not installed" % module)
        directory = Directory(hello=server.source)
        self.addCleanup(directory.remove)
        directory.write("sockd.toml", "[workers]\ncount = 2\n[reload]\nsoak = \"200ms\"\n")
        directory.write("nginx.conf", CONFIGURATION.replace("unix:", "unix:" + directory.path + "/"))
        service = Sockd(directory, [*BINDS[server.script], *server.options, "hello:app"], program=server.script,
                        options=["--config", "sockd.toml"])
        self.addCleanup(lambda: service.process.poll() is None and service.stop())
        nginx = subprocess.Popen([NGINX, "-p", directory.path, "-c", "nginx.conf"], cwd=directory.path)
        self.addCleanup(lambda: (nginx.terminate(), nginx.wait()))
        wait_until(lambda: accepts(directory / "nginx.sock") and accepts(directory / "web.sock"), "Nginx and sockd")
        visitors = Visitors(directory / "nginx.sock")
        try:
            wait_for_line(service, "serving, 2 of 2 workers, generation 1")
            for generation in range(2, 2 + RELOADS):
                service.signal(signal.SIGHUP)
                wait_for_line(service, "generation %d has taken over" % generation)
        finally:
            visitors.stop()
        with open(directory / "nginx.log", errors="replace") as file:
            self.assertEqual(visitors.failures, [], file.read() + service.output())
        self.assertGreater(visitors.answered, VISITORS * RELOADS)
        self.assertEqual(service.stop(), 0)


for name in ("gthread", "asgi", "uvicorn_worker", "uvicorn", "hypercorn", "daphne", "waitress", "granian"):
    setattr(Nginx, "test_" + name, lambda self, name=name: self.nobody_meets_502(name))


if __name__ == "__main__":
    unittest.main()
