"""The versions of gunicorn that are supported: the hooks' whole life beside each of them, and a refusal of what is too old.

tests/run makes an environment for each in target/gunicorns; one that is not there is left out.
"""

import glob
import os
import subprocess
import sys
import unittest
from unittest import mock

sys.path.insert(0, os.path.dirname(__file__))

import both  # noqa: E402
import test_gunicorn_both  # noqa: E402
from sockd_played import Directory, PROGRAMS  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
ENVIRONMENTS = sorted(glob.glob(os.path.join(HERE, "..", "..", "target", "gunicorns", "*", "bin")))


class Versions(test_gunicorn_both.Lives):

    def test_each(self):
        for scripts in ENVIRONMENTS:
            with self.subTest(environment=scripts), mock.patch.object(both, "SCRIPTS", scripts):
                self.compare(*self.both_lives("--preload"))

    def test_one_that_is_too_old_is_refused_in_one_line(self):
        directory = Directory(gunicorn="version_info = (19, 8, 1)\n__version__ = '19.8.1'\n")
        self.addCleanup(directory.remove)
        service = self.service(both.Sockd, "-b", "127.0.0.1:0", "hello:app", environment={"PYTHONPATH": directory.path})
        both.wait_until(lambda: "needs gunicorn" in service.output(), "a refusal")
        self.assertRegex(service.output(), "sockd needs gunicorn 19.9 or later, and this is 19.8.1: "
                                           "/[^ ]*python3? -m pip install --upgrade gunicorn\n")
        self.assertNotIn("Traceback", service.output())

    def test_a_python_that_is_too_old_is_refused_in_one_line(self):
        for python in glob.glob(os.path.expanduser("~/.pyenv/versions/[23].[1-6].*/bin/python")):
            with self.subTest(python=python):
                boot = os.path.join(PROGRAMS, "boot.py")
                refusal = subprocess.run([python, boot], capture_output=True, text=True)
                self.assertRegex(refusal.stderr, "^sockd needs Python 3.7 or later, and .* is Python [23].[0-9]: [^\\n]*\n$")
                self.assertEqual(refusal.returncode, 1)


if __name__ == "__main__":
    unittest.main()
