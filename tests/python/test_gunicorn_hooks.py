"""gunicorn's template and hooks: what only a template by itself shows. test_gunicorn_both.py compares with gunicorn."""

import os
import signal
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))

from fake_sockd import descriptors_of, get, wait_until  # noqa: E402
# unittest calls the latter.
from test_gunicorn import Case, setUpModule  # noqa: E402, F401


class Hooks(Case):

    def test_a_hook_that_fails_before_the_fork_refuses_the_order(self):
        self.directory.write("hooks.conf.py", "def pre_fork(server, worker):\n    raise ValueError('no number')\n")
        template = self.started("-c", "hooks.conf.py", "hello:app")
        before = descriptors_of(template)
        template.order(5, [self.listener()])
        self.assertEqual(template.receive(), {"failed": {"worker": 5, "error": "ValueError: no number"}})
        template.output.read_until("raise ValueError('no number')")
        template.order(6, [self.listener_at("other")])
        self.assertEqual(template.receive()["failed"]["worker"], 6)
        wait_until(lambda: descriptors_of(template) == before, "a template as before")

    def test_no_visitors_socket_stays_in_a_template_that_forks_on_order(self):
        self.directory.write("hooks.conf.py", "def pre_fork(server, worker):\n    assert server.LISTENERS\n")
        template = self.started("-c", "hooks.conf.py", "hello:app")
        before = descriptors_of(template)
        for number in (1, 2):
            template.fork(number, [self.listener_at(str(number))]).wait_ready()
        wait_until(lambda: descriptors_of(template) == before, "a template as before")

    def test_a_hook_that_fails_at_a_death_ends_nothing(self):
        self.directory.write("hooks.conf.py", """
import sys
def child_exit(server, worker):
    print("exit of", worker.age, worker.pid, file=sys.stderr, flush=True)
    sys.exit("no")
""")
        template = self.started("-c", "hooks.conf.py", "hello:app")
        worker = template.fork(1)
        worker.wait_ready()
        template.exited(1, worker.pid)
        self.assertEqual(template.receive(), {"noted": {"worker": 1}})
        template.output.read_until("exit of 1 %d\n" % worker.pid)
        # One that this template has not made, and one whose hook another one calls.
        template.exited(7, 4711)
        self.assertEqual(template.receive(), {"noted": {"worker": 7}})
        template.output.read_until("exit of 7 4711\n")
        template.exited(8, 4712, call=False)
        self.assertEqual(template.receive(), {"noted": {"worker": 8}})
        template.fork(2).wait_ready()
        self.assertNotIn("exit of 8", template.output.text)

    def test_what_hooks_have_left_is_there_in_the_next_template(self):
        self.directory.write("hooks.conf.py", """
import os, sys, threading
def note(*words): print("hook", *words, file=sys.stderr, flush=True)
def on_starting(server):
    server.numbers = iter(range(5, 9))
    server.lock = threading.Lock()
    os.environ["LEFT"] = "caf\\udce9"
    del os.environ["TAKEN"]
def pre_fork(server, worker):
    worker.number = next(server.numbers)
def nworkers_changed(server, new, old): note("nworkers_changed", new, old)
def on_reload(server):
    note("on_reload", next(server.numbers), ascii(os.environ["LEFT"]), "TAKEN" in os.environ,
         [(pid, worker.age, worker.number) for pid, worker in server.WORKERS.items()])
""")
        first = self.started("-c", "hooks.conf.py", "-w", "3", "hello:app", environment={"TAKEN": "1"})
        first.output.read_until("hook nworkers_changed 3 None\n")
        first.output.read_until("server.lock is not there after the next reload: ")
        worker = first.fork(1)
        worker.wait_ready()
        life = {"phase": "reload", "hook_state": first.hook_state, "bound": True,
                "workers": [{"worker": 1, "pid": worker.pid, "hook_state": worker.hook_state}]}
        next_one = self.started("-c", "hooks.conf.py", "-w", "4", "hello:app", environment={"TAKEN": "1"}, life=life)
        next_one.output.read_until(
            "hook nworkers_changed 4 3\nhook on_reload 6 'caf\\udce9' False [(%d, 1, 5)]\n" % worker.pid)
        self.assertNotIn("on_starting", next_one.output.text)

    def test_what_is_left_out_is_named(self):
        self.directory.write("hooks.conf.py", "def pre_exec(server):\n    raise RuntimeError('called')\n")
        template = self.started("-c", "hooks.conf.py", "--reuse-port", "hello:app")
        template.fork(1).wait_ready()
        template.output.read_until("gunicorn's setting pre_exec has no effect: ")
        template.control.close()
        text = template.output.read_to_end()
        self.assertEqual(text.count("gunicorn's setting reuse_port has no effect: "), 1, text)

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
