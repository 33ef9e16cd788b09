"""A warm copy of a template: when it is refused, when it takes over, and how the template comes back."""

import json
import os
import re
import signal
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))

import fake_sockd  # noqa: E402
from fake_sockd import become_subreaper, children, get, open_files, wait_until  # noqa: E402

# Says in which process it was loaded, how many requests that one and its ancestors have answered, and who serves.
APPLICATION = """
import os, socket, subprocess, sys, threading, time
loaded, answered, kept = os.getpid(), 0, []
def app(environ, start_response):
    global answered
    answered += 1
    path = environ["PATH_INFO"]
    if path == "/closes":
        return Closing(start_response)
    if path == "/environ":
        print(sorted((key, value) for key, value in environ.items() if isinstance(value, (str, bool, tuple))),
              file=sys.stderr, flush=True)
    PLANTED.get(path, lambda: None)()
    status = {"/broken": "500 Internal Server Error", "/missing": "404 Not Found"}.get(path, "200 OK")
    body = b"%d %d" % (os.getpid(), answered)
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]

class Closing:
    def __init__(self, start_response):
        start_response("200 OK", [("Content-Length", "2")])
        self.left = [b"o", b"k"]
    def __iter__(self):
        return iter(self.left)
    def close(self):
        print("answer closed", file=sys.stderr, flush=True)

def connect():
    kept.append(socket.create_connection(("127.0.0.1", int(os.environ["DATABASE"]))))

def fail():
    raise ValueError("planted")

PLANTED = {
    "/thread": lambda: threading.Thread(target=threading.Event().wait, name="planted", daemon=True).start(),
    "/connection": connect,
    "/child": lambda: kept.append(subprocess.Popen(["sleep", "600"])),
    "/pipe": lambda: kept.extend(os.pipe()),
    "/database": lambda: kept.append(open("database", "w+")),
    "/read": lambda: kept.append(open(__file__)),
    "/log": lambda: kept.append(open("log", "a")),
    "/null": lambda: kept.append(open("/dev/null")),
    "/exception": fail,
    "/exit": lambda: sys.exit(7),
    "/gone": lambda: os._exit(7),
    "/killed": lambda: os.kill(os.getpid(), 9),
    "/hang": lambda: time.sleep(600),
    "/thread-that-ends": lambda: (lambda one: (one.start(), one.join()))(threading.Thread(target=int)),
}
"""

# What is refused, and why.
REFUSED = {
    "/thread": "the requests started the thread planted, which workers would be without",
    "/connection": "the requests left a connection to 127.0.0.1:[0-9]+ open, which workers would share",
    "/child": "the requests started a child process, which workers would not have",
    "/pipe": "the requests left pipe:.* open, which workers would share",
    "/database": "the requests left .*/database open, which workers would share",
    "/read": "the requests left .*/warm_app.py open, which workers would share",
    "/exception": "GET /exception ended with ValueError",
    "/broken": "GET /broken was answered 500",
    "/exit": "GET /exit ended with SystemExit",
    "/gone": "the copy of the template ended with exit code 7",
    "/killed": "the copy of the template was killed by SIGKILL",
}


def setUpModule():
    become_subreaper()


class Warm(fake_sockd.Case):
    """gunicorn's sync worker class, the test playing sockd."""

    files = {"warm_app": APPLICATION}

    def begun(self, *arguments, **options):
        template = self.template(*arguments, "warm_app:app", loading="preload", **options)
        self.settings = template.settings()
        self.number = 0
        return template

    def warm(self, template, *paths, requests=3, **more):
        template.send_bytes(json.dumps({"warm": {"paths": list(paths), "requests": requests, **more}}).encode())
        return template.receive()

    def promoted(self, template, *paths, **more):
        pid = self.warm(template, *paths, **more)["warmed"]["pid"]
        template.send_bytes(b'{"promote": {}}')
        return pid

    def answer(self, template):
        """What a new worker says: how many requests its process, and those it was forked from, have answered."""
        self.number += 1
        worker = template.fork(self.number)
        worker.wait_ready()
        pid, answered = map(int, get(worker.probe_path).split())
        self.assertEqual(pid, worker.pid)
        return answered

    def test_workers_come_from_the_copy_once_it_is_promoted(self):
        template = self.begun()
        self.assertIsNone(self.settings["unfit_to_warm"])
        self.assertEqual(self.answer(template), 1)
        self.assertIn("warmed", self.warm(template, "/", "/other?x=1"))
        self.assertEqual(self.answer(template), 1)
        template.send_bytes(b'{"promote": {}}')
        for _ in range(3):
            self.assertEqual(self.answer(template), 7)
        template.send_bytes(b'{"demote": {}}')
        for _ in range(3):
            self.assertEqual(self.answer(template), 1)
        wait_until(lambda: not children(template.pid), "a template without a copy")

    def test_orders_are_answered_by_whom_their_place_among_the_messages_says(self):
        template = self.begun()
        self.warm(template, "/")
        expected, workers = [], []
        for number, (message, answered) in enumerate([
                (None, 1), (b'{"promote": {}}', 4), (None, 4), (b'{"demote": {}}', 1), (None, 1)]):
            if message:
                template.send_bytes(message)
            workers.append(template.order(number))
            expected.append(answered)
        for worker in workers:
            worker.pid = template.receive()["forked"]["pid"]
            worker.wait_ready()
        self.assertEqual([int(get(worker.probe_path).split()[1]) for worker in workers], expected)

    def test_what_workers_cannot_share_is_refused(self):
        database = self.tcp_listener()
        template = self.begun(environment={"DATABASE": str(database.getsockname()[1])})
        for path, why in REFUSED.items():
            with self.subTest(path=path):
                self.assertRegex(self.warm(template, path)["not_warm"]["why"], "^%s" % why)
                self.assertEqual(self.answer(template), 1)
        # It can be asked again.
        self.promoted(template, "/")
        self.assertEqual(self.answer(template), 4)

    def test_what_workers_may_share_is_not(self):
        for path in ("/log", "/null", "/thread-that-ends", "/closes", "/missing"):
            with self.subTest(path=path):
                self.assertIn("warmed", self.warm(self.begun(), path))

    def test_an_answer_is_read_to_its_end_and_closed(self):
        template = self.begun()
        self.warm(template, "/closes", requests=2)
        self.assertEqual(template.output.read_until("closed\nanswer closed\n").count("answer closed"), 2)

    def test_what_is_not_found_is_asked_for_once(self):
        template = self.begun()
        self.promoted(template, "/missing", "/")
        self.assertEqual(self.answer(template), 5)

    def test_the_environ_is_that_of_a_request(self):
        template = self.begun()
        self.warm(template, "/environ?a=b%20c", requests=1, host="example.com:8443",
                  headers=[["X-Forwarded-Proto", "https"]])
        environ = dict(eval(re.search(r"^\[.*\]$", template.output.read_until("]\n"), re.MULTILINE)[0]))
        self.assertEqual({key: environ[key] for key in (
            "REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "HTTP_HOST", "SERVER_NAME", "SERVER_PORT",
            "HTTP_X_FORWARDED_PROTO", "HTTP_USER_AGENT", "wsgi.url_scheme", "wsgi.multithread", "wsgi.version")}, {
            "REQUEST_METHOD": "GET", "PATH_INFO": "/environ", "QUERY_STRING": "a=b%20c",
            "HTTP_HOST": "example.com:8443", "SERVER_NAME": "example.com", "SERVER_PORT": "8443",
            "HTTP_X_FORWARDED_PROTO": "https", "HTTP_USER_AGENT": "sockd (probe)", "wsgi.url_scheme": "http",
            "wsgi.multithread": False, "wsgi.version": (1, 0)})

    def test_a_copy_that_hangs_hinders_nobody_and_goes_with_the_template(self):
        template = self.begun()
        template.send_bytes(b'{"warm": {"paths": ["/hang"]}}')
        self.assertEqual(self.answer(template), 1)
        self.assertEqual(self.answer(template), 1)
        copy, = [pid for pid in children(template.pid)]
        os.kill(template.pid, signal.SIGKILL)
        template.wait()
        wait_until(lambda: not os.path.exists("/proc/%d" % copy) or ended(copy), "the end of the copy")

    def test_a_copy_that_dies_after_its_promotion_leaves_the_template(self):
        template = self.begun()
        copy = self.promoted(template, "/")
        self.assertEqual(self.answer(template), 4)
        os.kill(copy, signal.SIGKILL)
        self.assertEqual(template.receive()["not_warm"]["why"], "the copy of the template was killed by SIGKILL")
        self.assertEqual(self.answer(template), 1)

    def test_copy_and_spares_go_with_the_template(self):
        template = self.begun()
        copy = self.promoted(template, "/")
        self.assertEqual(self.answer(template), 4)
        os.kill(template.pid, signal.SIGKILL)
        template.wait()
        wait_until(lambda: not os.path.exists("/proc/%d" % copy) or ended(copy), "the end of the copy")

    def test_template_and_copy_leave_with_sockd(self):
        template = self.begun()
        self.promoted(template, "/")
        self.assertEqual(self.answer(template), 4)
        template.control.close()
        self.assertEqual(template.wait(), 0)

    def test_workers_hold_nothing_of_template_and_copy(self):
        template = self.begun()
        cold = template.fork(101)
        cold.wait_ready()
        self.promoted(template, "/")
        warm = template.fork(102)
        warm.wait_ready()
        kinds = [sorted(re.sub("[0-9]+", "N", link) for link in open_files(worker.pid).values())
                 for worker in (cold, warm)]
        self.assertEqual(*kinds)

    def test_no_process_can_be_made_for_a_copy(self):
        self.directory.write("gunicorn.conf.py", '''
import errno, os
fork = os.fork
def refusing():
    if os.path.exists("refuse"):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()
os.fork = refusing
''')
        template = self.begun()
        self.assertEqual(self.answer(template), 1)
        template.spare()
        self.directory.write("refuse", "")
        self.assertRegex(self.warm(template, "/")["not_warm"]["why"], "^fork: Resource temporarily unavailable")
        os.unlink(self.directory / "refuse")
        self.assertEqual(self.answer(template), 1)

    def test_hooks_know_the_workers_of_both(self):
        self.directory.write("gunicorn.conf.py", '''
def pre_fork(server, worker):
    print("before %d: %s" % (worker.age, sorted(one.age for one in server.WORKERS.values())), flush=True)
def child_exit(server, worker):
    print("exited %d: %s" % (worker.age, sorted(one.age for one in server.WORKERS.values())), flush=True)
def on_exit(server):
    print("the end", flush=True)
''')
        template = self.begun()
        first = template.fork(1)
        self.warm(template, "/")
        template.fork(2)
        template.send_bytes(b'{"promote": {}}')
        template.fork(3)
        template.exited(1, first.pid)
        self.assertEqual(template.receive(), {"noted": {"worker": 1}})
        template.fork(4)
        template.send_bytes(b'{"demote": {}}')
        template.fork(5)
        self.assertEqual(template.stdout.read_until("before 5: [2, 3, 4]\n"), "".join((
            "before 1: []\n", "before 2: [1]\n", "before 3: [1, 2]\n", "exited 1: [2, 3]\n", "before 4: [2, 3]\n",
            "before 5: [2, 3, 4]\n")))

    def test_the_service_ends(self):
        self.directory.write("gunicorn.conf.py", "def on_exit(server):\n    print('the end', flush=True)\n")
        for promoted in (False, True):
            with self.subTest(promoted=promoted):
                template = self.begun("--pid", "pid")
                template.send_bytes(b'{"started": {}}')
                if promoted:
                    self.promoted(template, "/")
                self.check_end(template)

    def check_end(self, template):
        self.answer(template)
        with open(self.directory / "pid") as file:
            self.assertEqual(int(file.read()), os.getpid())
        template.send_bytes(b'{"end": {}}')
        self.assertEqual(template.wait(), 0)
        self.assertEqual(template.stdout.read_until("end\n"), "the end\n")
        self.assertFalse(os.path.exists(self.directory / "pid"))

    def test_log_files_are_opened_again_by_the_copy(self):
        template = self.begun("--error-logfile", "errors")
        copy = self.promoted(template, "/")
        os.rename(self.directory / "errors", self.directory / "errors.1")
        os.kill(template.pid, signal.SIGUSR1)
        wait_until(lambda: self.directory / "errors" in open_files(copy).values(), "the new log file in the copy")

    def test_only_what_is_called_as_here_can_be_warmed(self):
        for worker_class, why in (("gthread", None), ("gevent", "of gunicorn's worker classes"),
                                  ("uvicorn_worker.UvicornWorker", "of gunicorn's worker classes")):
            with self.subTest(worker_class=worker_class):
                try:
                    self.begun("-k", worker_class)
                except AssertionError as error:
                    self.skipTest("%s: %s" % (worker_class, error))
                reported = self.settings["unfit_to_warm"]
                self.assertTrue(reported is None if why is None else reported.startswith(why), reported)


    def test_the_other_servers(self):
        for self.server, arguments, why in (
                ("waitress-serve", [], None), ("granian", ["--interface", "wsgi"], None),
                ("granian", ["--interface", "asginl"], "only WSGI applications are warmed"),
                ("uvicorn", [], "only WSGI applications are warmed")):
            with self.subTest(server=self.server, arguments=arguments):
                template = self.begun(*arguments)
                self.assertEqual(self.settings["unfit_to_warm"], why)
                if why is None:
                    self.promoted(template, "/")
                    self.assertEqual(self.answer(template), 4)


def ended(pid):
    """Whether it is a zombie: nobody waits for it here."""
    try:
        with open("/proc/%d/stat" % pid) as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


if __name__ == "__main__":
    unittest.main()
