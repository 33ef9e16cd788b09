"""A template on each Python that is supported, from the oldest on, with the oldest waitress, which is Python alone."""

import glob
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))

import fake_sockd  # noqa: E402
from fake_sockd import become_subreaper, get  # noqa: E402
from test_grammar import OLDEST, pythons  # noqa: E402
from test_server_versions import ENVIRONMENTS  # noqa: E402

WAITRESS = [path for scripts in ENVIRONMENTS if "oldest" in scripts
            for path in glob.glob(os.path.join(scripts, "..", "lib", "python3.*", "site-packages"))]
APPLICATION = '''
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]
'''


def setUpModule():
    become_subreaper()


def supported():
    """The interpreters that are there, but for those that are too old."""
    for python in pythons("3.*"):
        version = python.split("/versions/")[1].split("/")[0]
        if tuple(int(number) for number in version.split(".")[:2]) >= OLDEST:
            yield python


@unittest.skipUnless(WAITRESS, "there is no environment with the oldest servers")
class Pythons(fake_sockd.Case):

    server = "waitress-serve"
    files = {"hello": APPLICATION, "broken": "raise ValueError('no')\n"}

    def worker(self, python, application):
        path = os.pathsep.join([*WAITRESS, self.directory.path])
        return self.started(application, how="module", python=python, environment={"PYTHONPATH": path}).fork(1)

    def test_a_worker_serves(self):
        for python in supported():
            with self.subTest(python=python):
                worker = self.worker(python, "hello:app")
                worker.wait_ready()
                self.assertEqual(get(worker.probe_path), "hello")

    def test_a_traceback_quotes_the_package(self):
        for python in supported():
            with self.subTest(python=python):
                worker = self.worker(python, "broken:app")
                self.assertEqual(worker.wait(), 1)
                self.assertRegex(
                    worker.output.read_to_end(),
                    'File "<sockd>/sockd_worker.servers.waitress_server", line [0-9]+, in work\n    self.load')


if __name__ == "__main__":
    unittest.main()
