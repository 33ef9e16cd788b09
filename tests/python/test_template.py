"""What every template shares, where it does not depend on the server: here under gunicorn, the test playing sockd."""

import fcntl
import importlib.util
import os
import signal
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))

import fake_sockd  # noqa: E402
from fake_sockd import (  # noqa: E402
    Client, become_subreaper, children, get, open_files, process_group, wait_for_exit, wait_until)

APPLICATION = '''
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]
'''

# A gunicorn.conf.py with which no process can be forked as long as there is a file "refuse".
REFUSING = """
import errno, os
fork = os.fork
def refusing():
    if os.path.exists("refuse"):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()
os.fork = refusing
"""


def setUpModule():
    become_subreaper()


class Boot(fake_sockd.Case):
    """How a template begins."""

    files = {"hello": APPLICATION}

    def test_the_two_texts_stay_open_and_nothing_else_that_tracebacks_read(self):
        template = self.started("hello:app")
        texts = {fd: link for fd, link in open_files(template.pid).items() if "memfd:" in link}
        self.assertEqual(sorted(texts), [4, 5])

    def test_the_process_that_compiled_is_reaped(self):
        template = self.started("hello:app")
        template.spare()
        # The spare's own parent may have to be reaped, too.
        wait_until(lambda: not children(template.pid), "a template without children")

    def test_tracebacks_quote_the_program(self):
        self.directory.write("gunicorn.conf.py", "def on_starting(server):\n    raise ValueError('no')\n")
        template = self.template("hello:app")
        template.wait()
        text = template.output.read_to_end()
        self.assertRegex(text, 'File "<sockd>/sockd_worker.servers.gunicorn_arbiter", line [0-9]+, in begin\n'
                               '    self.once_in_life\\(self.cfg.on_starting\\)\n')
        self.assertEqual(text.count("Traceback (most recent call last)"), 1)

    def test_a_file_of_the_application_is_not_quoted_for_one_of_ours(self):
        for name in ("template.py", "gunicorn_arbiter.py"):
            self.directory.write(name, "wrong\n" * 1000)
        self.directory.write("gunicorn.conf.py", """
import sys
show = sys.excepthook
sys.excepthook = lambda *error: show(*error)
def on_starting(server):
    raise ValueError('no')
""")
        template = self.template("hello:app", environment={"PYTHONPATH": self.directory.path})
        template.wait()
        text = template.output.read_to_end()
        self.assertIn("in begin\n", text)
        self.assertNotIn("wrong", text)

    def test_stack_dumps_name_the_modules(self):
        template = self.started("hello:app")
        worker = template.fork(1)
        worker.wait_ready()
        worker.signal(signal.SIGABRT)
        worker.wait()
        self.assertRegex(worker.output.read_to_end(),
                         'File "<sockd>/sockd_worker.servers.gunicorn_server", line [0-9]+ in run_worker\n')

    def test_an_applications_own_excepthook_is_called(self):
        self.directory.write("hello.py", "import sys\nsys.excepthook = lambda *_: print('own hook', file=sys.stderr)\n"
                                         "raise ValueError('no')\n")
        template = self.template("hello:app", loading="preload")
        template.wait()
        text = template.output.read_to_end()
        self.assertIn("own hook", text)
        self.assertNotIn("Traceback", text)

    def test_a_package_that_is_closed_quotes_nothing(self):
        self.directory.write("gunicorn.conf.py", """
import os
def on_starting(server):
    os.dup2(os.pipe()[0], 4)
    raise ValueError('no')
""")
        template = self.template("hello:app")
        template.wait()
        self.assertIn("ValueError: no", template.output.read_to_end())


class LoadedLater(fake_sockd.Case):
    """What gunicorn's master has loaded before it forks, and the template once nobody waits for it."""

    files = {"loaded": """
import sys
def app(environ, start_response):
    body = b"loaded" if "asyncio" in sys.modules else b"not loaded"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""}

    def answers(self, *arguments):
        """What the first worker says, and the second."""
        template, listener = self.started("loaded:app", *arguments), self.listener()
        result = []
        for number in (1, 2):
            worker = template.fork(number, [listener])
            worker.wait_ready()
            result.append(get(worker.probe_path))
        return result

    @unittest.skipUnless(importlib.util.find_spec("gunicorn.ctl"), "this gunicorn's master has no asyncio")
    def test_the_first_worker_is_not_held_up_and_the_next_one_has_it(self):
        self.assertEqual(self.answers(), ["not loaded", "loaded"])

    @unittest.skipUnless(importlib.util.find_spec("gevent"), "gevent is not installed")
    def test_gevent_patches_first(self):
        self.assertEqual(self.answers("-k", "gevent"), ["not loaded", "not loaded"])


class Django(fake_sockd.Case):
    """What Django leaves for the first request."""

    files = {"site_of_django": '''
from django.conf import settings
settings.configure(ROOT_URLCONF="urls", ALLOWED_HOSTS=["*"], DEBUG_PROPAGATE_EXCEPTIONS=False)
from django.core.wsgi import get_wsgi_application
app = get_wsgi_application()
'''}

    def urls(self, text):
        self.directory.write("urls.py", """import sys
print("imported the urls", file=sys.stderr, flush=True)
from django.http import HttpResponse
from django.urls import path
urlpatterns = [path("", lambda request: HttpResponse("hello"))]
""" + text)

    def test_urls_are_imported_before_the_fork(self):
        self.urls("")
        template = self.started("--preload", "site_of_django:app")
        template.output.read_until("imported the urls")
        # Nobody reads them again.
        os.unlink(self.directory / "urls.py")
        worker = template.fork(1)
        worker.wait_ready()
        self.assertEqual(get(worker.probe_path), "hello")

    def test_a_mistake_in_the_urls_is_the_requests(self):
        self.urls("raise KeyError('no such setting')\n")
        template = self.started("--preload", "site_of_django:app")
        template.output.read_until("KeyError: 'no such setting'")
        worker = template.fork(1)
        worker.wait_ready()
        client = Client(worker.probe_path)
        self.addCleanup(client.close)
        client.request("GET", "/")
        self.assertEqual(client.getresponse().status, 500)


class Sessions(fake_sockd.Case):
    """An application that asks for a session or a process group of its own."""

    def test_at_import(self):
        for call in ("os.setsid()", "os.setpgrp()", "os.setpgid(0, 0)", "os.setpgid(os.getpid(), os.getpid())"):
            for loading in ("late", "preload"):
                with self.subTest(call=call, loading=loading):
                    self.directory.write("own.py", "import os\n%s\n%s" % (call, APPLICATION))
                    template = self.started("own:app", loading=loading)
                    worker = template.fork(1)
                    worker.wait_ready()
                    self.assertEqual(get(worker.probe_path), "hello")
                    self.assertEqual(process_group(worker.pid), worker.pid)

    def test_another_group_is_refused_as_ever(self):
        self.directory.write("own.py", "import os\nos.setpgid(0, os.getppid())\n" + APPLICATION)
        template = self.started("own:app")
        worker = template.fork(1)
        self.assertEqual(worker.wait(), 3)
        self.assertIn("PermissionError", worker.output.read_to_end())


class Spares(fake_sockd.Case):
    """The process that waits for the next command, and what becomes of commands when it dies."""

    files = {"hello": APPLICATION}

    def test_the_worker_is_the_process_that_waited(self):
        template = self.started("hello:app")
        spare = template.spare()
        worker = template.fork(1)
        self.assertEqual(worker.pid, spare)
        worker.wait_ready()
        self.assertNotEqual(template.spare(), spare)

    def test_killed_spare_is_replaced(self):
        template = self.started("hello:app")
        spare = template.spare()
        os.kill(spare, signal.SIGKILL)
        self.assertEqual(wait_for_exit(spare), -signal.SIGKILL)
        worker = template.fork(1)
        self.assertNotEqual(worker.pid, spare)
        worker.wait_ready()

    def test_commands_outlive_a_killed_spare(self):
        template = self.started("hello:app")
        spare = template.spare()
        os.kill(spare, signal.SIGSTOP)
        workers = [template.order(number) for number in range(3)]
        os.kill(spare, signal.SIGKILL)
        self.assertEqual(wait_for_exit(spare), -signal.SIGKILL)
        for worker in workers:
            answer = template.receive()["forked"]
            self.assertEqual(answer["worker"], worker.number)
            worker.pid = answer["pid"]
        for worker in workers:
            worker.wait_ready()

    def test_killed_template_takes_its_spare_along(self):
        template = self.started("hello:app")
        spare = template.spare()
        os.kill(template.pid, signal.SIGKILL)
        self.assertEqual(template.wait(), -signal.SIGKILL)
        self.assertEqual(wait_for_exit(spare), 0)
        # Nobody is left who could take a command: sockd sees the end.
        self.assertEqual(template.control.recv(1), b"")

    def test_end_of_control_socket_ends_template_and_spare(self):
        template = self.started("hello:app")
        spare = template.spare()
        template.control.close()
        self.assertEqual(wait_for_exit(spare), 0)
        self.assertEqual(template.wait(), 0)

    def test_spares_that_die_one_after_the_other_end_the_template(self):
        template = self.started("hello:app")
        for _ in range(3):
            spare = template.spare()
            os.kill(spare, signal.SIGKILL)
            wait_for_exit(spare)
        self.assertEqual(template.wait(), 1)
        self.assertIn("3 spares in a row ended", template.output.read_to_end())

    def test_fork_refused(self):
        self.directory.write("gunicorn.conf.py", REFUSING)
        obstacle = self.directory.write("refuse", "")
        template = self.started("hello:app")
        for number in (5, 6):
            template.order(number)
            self.assertEqual(template.receive(), {"failed": {
                "worker": number, "error": "fork: Resource temporarily unavailable; "
                                            "the unit's TasksMax= or LimitNPROC= may be too small"}})
        os.remove(obstacle)
        template.fork(7).wait_ready()


class Group:
    """The cgroup.procs of a control group, and who has entered it: the kernel would take "0" for the writer."""

    def __init__(self):
        self.reader, self.writer = os.pipe()

    def fileno(self):
        return self.writer

    def fill(self):
        """Have everybody wait who enters, until entered() is called. Returns what that will read besides."""
        text = "x" * fcntl.fcntl(self.writer, fcntl.F_GETPIPE_SZ)
        os.write(self.writer, text.encode())
        return text

    def entered(self):
        os.close(self.writer)
        with open(self.reader) as reader:
            return reader.read()


class Groups(fake_sockd.Case):
    """Workers enter their control groups, and the spare enters that of the next one before it is ordered."""

    files = {"hello": APPLICATION}

    def test_worker_enters_its_group(self):
        template = self.started("hello:app")
        group = Group()
        worker = template.fork(1, [self.listener()], group=group)
        worker.wait_ready()
        self.assertEqual(group.entered(), "0")

    def test_worker_does_not_wait_until_it_is_in_its_group(self):
        template = self.started("hello:app")
        group = Group()
        full = group.fill()
        worker = template.fork(1, [self.listener()], group=group)
        worker.wait_ready()
        self.assertEqual(group.entered(), full + "0")

    def test_spare_waits_in_the_group_of_the_next_worker(self):
        template = self.started("hello:app")
        place, group = Group(), Group()
        template.place(1, place)
        # What holds it has it closed by the time it is entered.
        self.assertEqual(place.entered(), "0")
        worker = template.fork(1, group=group)
        worker.wait_ready()
        self.assertEqual(group.entered(), "", "it was there already")

    def test_spare_in_the_wrong_group_moves_on(self):
        template = self.started("hello:app")
        place, group = Group(), Group()
        template.place(1, place)
        template.fork(2, group=group).wait_ready()
        self.assertEqual((place.entered(), group.entered()), ("0", "0"))

    def test_template_without_a_spare_stays_where_it_is(self):
        self.directory.write("gunicorn.conf.py", REFUSING)
        obstacle = self.directory.write("refuse", "")
        template = self.started("hello:app")
        place, group = Group(), Group()
        template.place(1, place)
        template.order(1)
        self.assertIn("failed", template.receive())
        self.assertEqual(place.entered(), "")
        os.remove(obstacle)
        template.fork(2, group=group).wait_ready()
        self.assertEqual(group.entered(), "0")

    def test_nonsense_about_groups_is_refused(self):
        template = self.started("hello:app")
        template.send_bytes(b'{"place": {"worker": 1}}')
        template.send_bytes(b'{"place": {"worker": "one"}}')
        template.send_bytes(b'{"place": {}}')
        template.fork(1).wait_ready()
        self.assertIn("a place is one descriptor", template.output.read_until("has no proper"))

    def test_group_that_is_gone(self):
        template = self.started("hello:app")
        gone = Group()
        os.close(gone.reader)
        template.place(1, gone)
        worker = template.fork(1, group=gone)
        worker.wait_ready()
        self.assertIn("cannot enter its control group: Broken pipe", template.output.read_until("cannot enter"))


if __name__ == "__main__":
    unittest.main()
