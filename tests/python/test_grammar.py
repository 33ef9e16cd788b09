"""Our Python programs can be read by the oldest Python that is supported, and bootstrap.py by those that it refuses."""

import ast
import glob
import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))

from fake_sockd import PROGRAMS  # noqa: E402

OLDEST = 3, 7
ADAPTERS = os.path.join(PROGRAMS, "..")


def pythons(pattern):
    """Interpreters of other versions, where pyenv has made some."""
    return glob.glob(os.path.expanduser("~/.pyenv/versions/%s/bin/python" % pattern))


class Grammar(unittest.TestCase):

    def programs(self):
        found = glob.glob(os.path.join(ADAPTERS, "**", "*.py"), recursive=True)
        self.assertGreater(len(found), 10)
        return found

    def test_no_program_needs_a_newer_python(self):
        for path in self.programs():
            with self.subTest(path=path), open(path) as file:
                ast.parse(file.read(), path, feature_version=OLDEST)

    def test_a_newer_grammar_would_be_found(self):
        for text in ("if (a := 1): pass", "def f(a, /): pass", "match a:\n    case 1: pass",
                     "try: pass\nexcept* E: pass", "type A = int"):
            with self.subTest(text=text), self.assertRaises(SyntaxError):
                ast.parse(text, feature_version=OLDEST)

    def test_the_oldest_python_itself_reads_them(self):
        for python in pythons("3.7.*"):
            command = "import sys\nfor path in sys.argv[1:]: compile(open(path).read(), path, 'exec')"
            subprocess.run([python, "-c", command, *self.programs()], check=True)

    def test_a_python_that_is_too_old_is_refused_in_one_line(self):
        for python in pythons("[23].[1-6].*") + pythons("2.7.*"):
            with self.subTest(python=python):
                bootstrap = os.path.join(PROGRAMS, "sockd_worker", "bootstrap.py")
                refusal = subprocess.run([python, bootstrap], capture_output=True, text=True)
                self.assertRegex(refusal.stderr, "^sockd needs Python 3.7 or later, and .* is Python [23].[0-9]: "
                                                 "[^\\n]*\n$")
                self.assertEqual(refusal.returncode, 1)


if __name__ == "__main__":
    unittest.main()
