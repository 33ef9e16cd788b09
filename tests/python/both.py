"""The real gunicorn and sockd, each running the same gunicorn command in a directory of its own.

Only where the two must agree is a test written with this. Waits are for lines of a file that the hooks write.
"""

import os
import signal
import socket
import subprocess
import sys
import unittest

import fake_sockd
from fake_sockd import Directory, get, wait_until

# Where the servers are: another virtual environment brings another version.
SCRIPTS = os.environ.get("SOCKD_TEST_SCRIPTS") or os.path.dirname(sys.executable)
SOCKD = os.environ.get("SOCKD_TEST_BINARY") or os.path.join(
    os.path.dirname(__file__), "..", "..", "target", "debug", "sockd")


class Service:
    """A gunicorn command, run by gunicorn's own arbiter or by sockd."""

    def __init__(self, directory, arguments, environment=None, options=(), program="gunicorn"):
        self.directory = directory
        self.log = open(directory / "log", "wb")
        command = [os.path.join(SCRIPTS, program), *arguments]
        self.process = subprocess.Popen(
            [*self.prefix(options), *command], cwd=self.working_directory(), stdout=self.log, stderr=self.log,
            env=dict(os.environ, **(environment or {})), start_new_session=True)

    def prefix(self, _options):
        return []

    def working_directory(self):
        return self.directory.path

    def lines(self, name="hooks"):
        try:
            with open(self.directory / name) as file:
                return file.read().splitlines()
        except FileNotFoundError:
            return []

    def wait_for(self, count, *beginnings):
        """Until as many lines of the hooks' file begin so."""
        def there():
            if self.process.poll() is not None:
                raise AssertionError("%s ended: %s" % (type(self).__name__, self.output()))
            return sum(line.startswith(beginnings) for line in self.lines()) >= count
        try:
            wait_until(there, "%d of %r" % (count, beginnings))
        except AssertionError as error:
            raise AssertionError("%s: %s; %r\n%s" % (type(self).__name__, error, self.lines(), self.output())) from None

    def output(self):
        with open(self.log.name, errors="replace") as file:
            return file.read()

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            self.process.wait(fake_sockd.PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.log.close()
        return self.process.returncode


class Gunicorn(Service):
    """By gunicorn's own arbiter."""


class Sockd(Service):
    """By sockd."""

    def prefix(self, options):
        return [SOCKD, "run", *options, "--"]


@unittest.skipUnless(os.path.exists(SOCKD), "there is no %s: cargo build makes it" % SOCKD)
class Case(unittest.TestCase):
    """A test of both."""

    files = {}

    def service(self, kind, *arguments, **options):
        directory = Directory(**self.files)
        self.addCleanup(directory.remove)
        service = kind(directory, arguments, **options)
        self.addCleanup(lambda: service.process.poll() is None and service.stop())
        return service


def ask(service, path="/", name="web.sock"):
    """Ask until somebody listens."""
    where = service.directory / name

    def listens():
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(where) == 0
    wait_until(listens, "somebody who listens on %s: %s" % (where, service.output()))
    return get(where, path)
