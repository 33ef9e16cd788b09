"""The template of gunicorn: which hooks are called, with what, and what is said of those that are not."""

import os
import signal
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))

from sockd_played import get  # noqa: E402
from test_gunicorn import Case, setUpModule  # noqa: E402, F401: unittest calls the latter


class Hooks(Case):

    def test_order_and_arguments(self):
        self.directory.write("hooks.conf.py", '''
import os, sys
def note(*words):
    print("hook", *words, file=sys.stderr, flush=True)
def nworkers_changed(server, new, old): note("nworkers_changed", new, old)
def on_starting(server): note("on_starting", server.pid == os.getpid(), server.cfg.workers)
def pre_fork(server, worker): note("pre_fork", worker.pid, worker.age)
def post_fork(server, worker): note("post_fork", worker.pid == os.getpid(), len(server.LISTENERS), server.num_workers)
def post_worker_init(worker): note("post_worker_init", worker.booted)
def worker_exit(server, worker): note("worker_exit", worker.pid == os.getpid())
''')
        template = self.started("-c", "hooks.conf.py", "--workers", "3", "hello:app")
        template.output.read_until("hook nworkers_changed 3 None\nhook on_starting True 3\n")
        worker = template.fork(5, [self.listener()])
        worker.wait_ready()
        worker.signal(signal.SIGTERM)
        self.assertEqual(worker.wait(), 0)
        hooks = [line for line in worker.output.read_to_end().splitlines() if line.startswith("hook")]
        self.assertEqual(hooks, ["hook pre_fork [booting] 5", "hook post_fork True 2 3",
                                 "hook post_worker_init False", "hook worker_exit True"])

    def test_what_is_left_out_is_named(self):
        names = ["when_ready", "on_reload", "on_exit", "child_exit"]
        self.directory.write("hooks.conf.py", "".join(
            "def %s(server%s): raise RuntimeError('called')\n" % (name, ", worker" * (name == "child_exit"))
            for name in names))
        template = self.started("-c", "hooks.conf.py", "--pid", "gunicorn.pid", "hello:app")
        template.fork(1).wait_ready()
        text = template.output.read_until("gunicorn's pidfile gunicorn.pid is not written")
        for name in names:
            self.assertEqual(text.count("gunicorn's hook %s is not called: " % name), 1, text)
        self.assertFalse(os.path.exists(self.directory / "gunicorn.pid"))

    def test_output_of_the_configuration_file_comes_once(self):
        self.directory.write("loud.conf.py", "print('configured')\n")
        template = self.started("-c", "loud.conf.py", "hello:app")
        worker = template.fork(1)
        worker.wait_ready()
        worker.signal(signal.SIGTERM)
        self.assertEqual(worker.wait(), 0)
        template.control.close()
        self.assertEqual(template.stdout.read_to_end().count("configured"), 1)

    def test_environment_settings(self):
        self.directory.write("environ.py", '''
import os
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [" ".join(os.environ.get(name, "-") for name in ("ONE", "TWO", "SERVER_SOFTWARE")).encode()]
''')
        worker = self.started("--env", "ONE=gunicorn", "environ:app").fork(1, TWO="order")
        worker.wait_ready()
        self.assertTrue(get(worker.probe_path).startswith("gunicorn order gunicorn"))


if __name__ == "__main__":
    unittest.main()
