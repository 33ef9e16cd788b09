"""Why code cannot serve, where the server's own words go elsewhere.

Expected is what the same server says when no option has it write into a file.
"""

import os
import select
import signal
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))

import conformance  # noqa: E402
import fake_sockd  # noqa: E402
from fake_sockd import Client  # noqa: E402

BROKEN = "import a_module_that_is_missing\n"
MISSING = "ModuleNotFoundError: No module named 'a_module_that_is_missing'"

BAD = "ValueError: new and bad"

CLOSES_ALL = '''
import os
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
os.closerange(3, 100)
# Whatever numbers there are now belong to these.
files = [os.open("own", os.O_CREAT | os.O_WRONLY) for _ in range(30)]
'''

BROKEN_VIEW = '''
def app(environ, start_response):
    raise ValueError("new and bad")
'''

BROKEN_ASGI_VIEW = '''
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    raise ValueError("new and bad")
'''

BROKEN_LIFESPAN = '''
async def app(scope, receive, send):
    raise ValueError("new and bad")
'''

LOGS_TO_A_FILE = '''
[loggers]
keys = root, error
[handlers]
keys = file
[formatters]
keys = plain
[logger_root]
level = INFO
handlers = file
[logger_error]
level = INFO
handlers = file
propagate = 0
qualname = %s
[handler_file]
class = FileHandler
formatter = plain
args = ("error.log",)
[formatter_plain]
format = %%(message)s
'''

DJANGO = '''
import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.urls import path
def view(request):
    raise ValueError("new and bad")
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x",
                   LOGGING_CONFIG="logging.config.dictConfig")
urlpatterns = [path("", view)]
django.setup()
app = WSGIHandler()
'''


class Reasons(fake_sockd.Case):

    def said(self, command, loading="own", listeners=(), **files):
        """All that a worker says to sockd until it ends, and how; where it gets ready it is asked before that."""
        for name, text in files.items():
            self.directory.write(name.replace("_", "."), text)
        self.server, *arguments = command.split()
        worker = self.started(*arguments, "hello:app", loading=loading).fork(1, listeners)
        if select.select([worker.notify, pidfd_of(self, worker)], [], [], fake_sockd.PATIENCE)[0] == [worker.notify]:
            worker.wait_ready()
            client = Client(worker.probe_path)
            self.addCleanup(client.close)
            client.request("GET", "/")
            self.assertEqual(client.getresponse().status, 500)
            worker.signal(signal.SIGTERM)
        status = worker.wait()
        return worker.output.read_to_end(), status

    def is_said_once(self, error, output, place):
        """As Python shows it, with where it comes from."""
        self.assertEqual(output.splitlines().count(error), 1, output)
        self.assertIn(place, output)

    def test_a_module_that_is_missing_is_named_wherever_the_log_goes(self):
        files = {"hello_py": BROKEN, "gunicorn_ini": LOGS_TO_A_FILE % "gunicorn.error"}
        for command, expected in (("gunicorn", 3),
                                  ("gunicorn --error-logfile error.log", 3),
                                  ("gunicorn --error-logfile error.log --capture-output", 3),
                                  ("gunicorn --log-config gunicorn.ini", 3),
                                  ("uvicorn", 1),
                                  ("hypercorn --error-logfile error.log", 1)):
            with self.subTest(command):
                output, status = self.said(command, **files)
                self.assertEqual(status, expected, output)
                self.is_said_once(MISSING, output, 'hello.py", line 1')

    def test_what_uvicorn_says_to_a_file_is_said_to_sockd_as_well(self):
        plain, _ = self.said("uvicorn --lifespan on", hello_py=BROKEN_LIFESPAN)
        output, status = self.said("uvicorn --lifespan on --log-config uvicorn.ini", hello_py=BROKEN_LIFESPAN,
                                   uvicorn_ini=LOGS_TO_A_FILE % "uvicorn.error")
        self.assertEqual(status, 3)
        for said in (plain, output):
            self.is_said_once(BAD, said, "in app")
        output, status = self.said("uvicorn --log-config uvicorn.ini", hello_py="application = 1\n")
        self.assertEqual(status, 3, output)
        self.assertIn('Attribute "app" not found in module "hello".', output)

    def test_a_canarys_error_500_is_said_and_a_workers_is_not(self):
        for command, source in (("gunicorn", BROKEN_VIEW),
                                ("gunicorn --error-logfile error.log --capture-output", BROKEN_VIEW),
                                # By default it writes none of it anywhere.
                                ("gunicorn", DJANGO),
                                ("uvicorn --log-config uvicorn.ini", BROKEN_ASGI_VIEW),
                                ("hypercorn --error-logfile error.log", BROKEN_ASGI_VIEW)):
            with self.subTest(command):
                files = {"hello_py": source, "uvicorn_ini": LOGS_TO_A_FILE % "uvicorn.error"}
                output, _ = self.said(command, **files)
                self.is_said_once(BAD, output, "hello.py")
                if command != "gunicorn" or source == DJANGO:
                    output, _ = self.said(command, listeners=[self.tcp_listener()], **files)
                    self.assertNotIn(BAD, output)

    def test_a_template_names_why_it_cannot_be(self):
        self.directory.write("hello.py", BROKEN)
        for arguments in ([], ["--error-logfile", "error.log", "--capture-output"]):
            with self.subTest(arguments):
                template = self.template(*arguments, "hello:app", loading="preload")
                self.is_said_once(MISSING, template.output.read_to_end(), 'hello.py", line 1')

    def test_an_application_that_closes_what_it_does_not_know_gets_no_word_in_its_own_files(self):
        output, status = self.said("gunicorn", hello_py=CLOSES_ALL + BROKEN)
        self.assertNotIn(MISSING, output)
        self.assertEqual(status, 3)
        with open(self.directory / "own") as own:
            self.assertEqual(own.read(), "")


def pidfd_of(case, worker):
    pidfd = os.pidfd_open(worker.pid)
    case.addCleanup(os.close, pidfd)
    return pidfd


def setUpModule():
    conformance.set_up()


if __name__ == "__main__":
    unittest.main()
