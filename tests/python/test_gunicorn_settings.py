"""gunicorn's settings: each is honoured, or named when it is set; the tables know all of gunicorn's own."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))

import fake_sockd  # noqa: E402
from fake_sockd import PROGRAMS, become_subreaper  # noqa: E402

sys.path.insert(0, PROGRAMS)

from sockd_worker.servers.gunicorn_settings import HONOURED, LEFT_OUT  # noqa: E402

# A value for each that is left out, and another one than its default.
CONFIGURATION = """
daemon = reuse_port = enable_backlog_metric = True
control_socket = "somewhere"
control_socket_mode = 0o660
dirty_apps = ["hello:app"]
dirty_workers = 2
dirty_threads = 3
dirty_timeout = dirty_graceful_timeout = 7
def pre_exec(server): pass
def on_dirty_starting(arbiter): pass
def dirty_post_fork(arbiter, worker): pass
def dirty_worker_init(worker): pass
def dirty_worker_exit(arbiter, worker): pass
"""


def setUpModule():
    become_subreaper()


class Settings(fake_sockd.Case):

    files = {"hello": "def app(environ, start_response): pass\n"}

    def test_the_tables_have_each_setting_once(self):
        from gunicorn.config import KNOWN_SETTINGS
        both = " ".join(HONOURED.values()).split() + list(LEFT_OUT)
        self.assertEqual(len(both), len(set(both)))
        self.assertEqual({setting.name for setting in KNOWN_SETTINGS} - set(both), set())

    def test_what_is_left_out_is_named_once_if_it_is_set(self):
        from gunicorn.config import KNOWN_SETTINGS
        self.directory.write("left_out.py", CONFIGURATION)
        template = self.started("-c", "left_out.py", "hello:app")
        template.fork(1).wait_ready()
        template.control.close()
        text = template.output.read_to_end()
        for name, why in LEFT_OUT.items():
            known = any(setting.name == name for setting in KNOWN_SETTINGS)
            self.assertEqual(text.count("gunicorn's setting %s has no effect: %s\n" % (name, why)), known, text)

    def test_nothing_is_named_if_nothing_is_set(self):
        template = self.started("--worker-tmp-dir", "/dev/shm", "hello:app")
        template.fork(1).wait_ready()
        template.control.close()
        self.assertEqual(template.output.read_to_end(), "")

    def test_a_setting_that_nobody_knows_is_named(self):
        self.directory.write("newer.py", """
import gunicorn.config
class Newer(gunicorn.config.Setting):
    name = "newer"
    section = "Newer"
    validator = staticmethod(gunicorn.config.validate_bool)
    default = False
    desc = "A setting of a later version."
""")
        self.directory.write("sitecustomize.py", "import newer\n")
        self.directory.write("conf.py", "newer = True\n")
        template = self.started("-c", "conf.py", "hello:app", environment={"PYTHONPATH": self.directory.path})
        template.output.read_until("gunicorn's setting newer has no effect: it is newer than this sockd")


if __name__ == "__main__":
    unittest.main()
