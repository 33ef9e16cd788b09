#!/usr/bin/env python3
"""What a warm template saves: workers' private memory and their first requests, beside gunicorn --preload.

    tests/bench/warm.py SOCKD PYTHON [ROUNDS]

Runs on this machine, without a booted one: PYTHON is an interpreter with gunicorn and Django. Django with admin and
sessions, on SQLite; each worker answers 300 requests on average for the admin's login page, which templates, sessions
and CSRF tokens take part in. All variants in turns; medians.
"""

import contextlib
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

WORKERS, REQUESTS = 4, 300
PAGE = "/admin/login/"
SETTINGS = '''
import pathlib
BASE_DIR = pathlib.Path(__file__).resolve().parent.parent
SECRET_KEY = "not a secret"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["django.contrib." + name for name in
                  ("admin", "auth", "contenttypes", "sessions", "messages", "staticfiles")]
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "django.contrib.sessions.middleware.SessionMiddleware",
              "django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware",
              "django.contrib.auth.middleware.AuthenticationMiddleware",
              "django.contrib.messages.middleware.MessageMiddleware"]
ROOT_URLCONF = "site_.urls"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True, "OPTIONS": {
    "context_processors": ["django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
                           "django.contrib.messages.context_processors.messages"]}}]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
'''
URLS = '''
from django.contrib import admin
from django.urls import path
urlpatterns = [path("admin/", admin.site.urls)]
'''
WSGI = '''
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_.settings")
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
'''
# What a variant's [workers] section says; None: gunicorn without sockd.
VARIANTS = {"gunicorn --preload": None, "sockd, not warmed": "warm = []", "sockd, warm": 'warm = ["%s"]' % PAGE}


def main():
    sockd, python = map(os.path.abspath, sys.argv[1:3])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    figures = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        make_project(directory, python)
        for _ in range(rounds):
            for name, section in VARIANTS.items():
                with running(directory, sockd, python, section, WORKERS) as root:
                    figure = measure_memory(directory, root)
                with running(directory, sockd, python, section, 1) as root:
                    figure.update(measure_first(directory, root))
                figures[name].append(figure)
    for what in figures["sockd, warm"][0]:
        medians = {name: statistics.median(figure[what] for figure in all_) for name, all_ in figures.items()}
        print("%-58s %s" % (what, "  ".join("%s: %.1f" % one for one in medians.items())))


def make_project(directory, python):
    (directory / "site_").mkdir()
    for name, text in (("__init__", ""), ("settings", SETTINGS), ("urls", URLS), ("wsgi", WSGI)):
        (directory / "site_" / (name + ".py")).write_text(text)
    environment = dict(os.environ, DJANGO_SETTINGS_MODULE="site_.settings", PYTHONPATH=str(directory))
    subprocess.run([python, "-m", "django", "migrate", "--verbosity", "0"], cwd=directory, env=environment, check=True)


@contextlib.contextmanager
def running(directory, sockd, python, section, workers):
    path = directory / "web.sock"
    path.unlink(missing_ok=True)
    gunicorn = [os.path.join(os.path.dirname(python), "gunicorn"), "--preload", "--workers", str(workers),
                "--bind", "unix:%s" % path, "site_.wsgi:application"]
    if section is None:
        command = gunicorn
    else:
        (directory / "sockd.toml").write_text('[workers]\nstart = "at-once"\n%s\n' % section)
        command = [sockd, "run", "--config", str(directory / "sockd.toml"), "--", *gunicorn]
    with open(directory / "log", "w") as log:
        root = subprocess.Popen(command, cwd=directory, stderr=log, stdout=log)
    try:
        wait_until(lambda: path.exists() and len(workers_of(root.pid)) == workers, "all workers", directory)
        ask(directory)
        if section and PAGE in section:
            wait_until(lambda: "the template is warm" in (directory / "log").read_text(), "a warm template", directory)
        # Those that were made before are replaced, and what they were is gone.
        settle(root.pid, workers)
        yield root.pid
    finally:
        root.send_signal(signal.SIGTERM)
        root.wait()


def settle(root, workers):
    """Wait until the workers have stayed the same for two seconds."""
    before, since = None, time.monotonic()
    while time.monotonic() - since < 2:
        now = workers_of(root)
        if now != before or len(now) != workers:
            before, since = now, time.monotonic()
        time.sleep(0.05)


def workers_of(root):
    """Those below the root that hold the public socket."""
    listener = public_socket(root)
    return sorted(pid for pid in descendants(root) if listener in sockets(pid))


def public_socket(root):
    path = os.path.join(os.readlink("/proc/%d/cwd" % root), "web.sock")
    for line in pathlib.Path("/proc/net/unix").read_text().splitlines():
        fields = line.split()
        # A connection has the name, too, and does not listen (__SO_ACCEPTCON).
        if fields[-1] == path and int(fields[3], 16) & 0x10000:
            return "socket:[%s]" % fields[6]
    return None


def sockets(pid):
    links = set()
    with contextlib.suppress(OSError):
        for fd in os.listdir("/proc/%d/fd" % pid):
            with contextlib.suppress(OSError):
                links.add(os.readlink("/proc/%d/fd/%s" % (pid, fd)))
    return links


def measure_memory(directory, root):
    def visit():
        for _ in range(REQUESTS):
            ask(directory)
    visitors = [threading.Thread(target=visit) for _ in range(WORKERS)]
    [visitor.start() for visitor in visitors]
    [visitor.join() for visitor in visitors]
    private = [memory(pid, "Private_") for pid in workers_of(root)]
    assert len(private) == WORKERS, private
    everybody = descendants(root) + [root]
    workers = set(workers_of(root))
    makers = [memory(pid, "Private_") for pid in everybody if pid not in workers]
    return {"private memory of a worker, MiB": statistics.mean(private),
            "private memory of all other processes, MiB": sum(makers),
            "memory of all processes (PSS), MiB": sum(memory(pid, "Pss:") for pid in everybody)}


def descendants(pid):
    try:
        children = pathlib.Path("/proc/%d/task/%d/children" % (pid, pid)).read_text().split()
    except OSError:
        return []
    found = [int(child) for child in children]
    return found + [one for child in found for one in descendants(child)]


def memory(pid, field):
    """In MiB; 0 where it has just ended."""
    try:
        lines = pathlib.Path("/proc/%d/smaps_rollup" % pid).read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def measure_first(directory, root):
    """Of a worker that is new and idle: its first request; and a killed worker's successor, from the kill on."""
    old, = workers_of(root)
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: len(workers_of(root)) == 1 and workers_of(root) != [old], "a successor", directory)
    settle(root, 1)
    first = ask(directory)
    median = statistics.median(ask(directory) for _ in range(100))
    settle(root, 1)
    worker, = workers_of(root)
    os.kill(worker, signal.SIGKILL)
    successor = ask(directory)
    return {"first request of a new worker, ms": first, "median request, ms": median,
            "first request by the median": first / median,
            "from a kill to the successor's first answer, ms": successor}


def ask(directory):
    """How long a request takes, in milliseconds."""
    began = time.perf_counter()
    while True:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(directory / "web.sock"))
            connection.sendall(b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % PAGE.encode())
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                while chunk := connection.recv(65536):
                    answer += chunk
        if answer.startswith(b"HTTP/1.1 200"):
            return 1000 * (time.perf_counter() - began)
        # It was accepted by the one that was killed.


def wait_until(condition, what, directory):
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            sys.exit("never came: %s\n%s" % (what, (directory / "log").read_text()))
        time.sleep(0.005)


if __name__ == "__main__":
    main()
