"""Warming: a copy of the template answers requests of sockd's own, so that its workers need not learn how.

What it is for. With its first requests a process imports, compiles and caches what the application needs, and each
worker would do that for itself, in memory of its own. A copy that nobody else talks to does it once, for all.

What it owns. The look at this process before and after: a copy that has gained what processes cannot share is refused.
What it must never do. Show the application a visitor's request, or anything that a worker would not see.
"""

import contextvars
import faulthandler
import gc
import io
import os
import stat
import sys
import time

from .process import connections, tasks, threads
from .scoreboard import PROBE, SERVER_ERROR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Set, Tuple

# A copy that answers for so long shows where, and ends.
MOST_SECONDS = 30
# After so long nothing is asked twice.
REPEAT_SECONDS = 5
# A thread that was waited for may still be leaving for so long.
LEAVING_SECONDS = 0.5
# A status from which on nothing is gained by asking again.
CLIENT_ERROR = 400
# Character devices that hold nothing of those who read them.
STATELESS = "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"


class Unfit(Exception):
    """What was warmed cannot be used; the text says why."""


class Wishes:
    """What is to be asked: the content of a "warm" command."""

    def __init__(self, content: "Dict[str, Any]") -> None:
        self.paths: List[str] = list(map(str, content.get("paths", [])))
        self.requests = int(content.get("requests", 1))
        self.host = str(content.get("host", "localhost"))
        self.headers: List[Tuple[str, str]] = [(str(name), str(value)) for name, value in content.get("headers", [])]


def warm(application: "Callable[..., Any]", wishes: Wishes, extras: "Dict[str, Any]") -> None:
    """Have a WSGI application answer those requests; `extras` is what this server adds to an environ. Unfit."""
    descriptors = open_descriptors()
    faulthandler.dump_traceback_later(MOST_SECONDS, exit=True, file=2)
    # The thread that waits for that moment is among them.
    before = tasks()
    began = time.monotonic()
    for path in wishes.paths:
        for number in range(wishes.requests):
            if number and time.monotonic() - began > REPEAT_SECONDS:
                break
            # What the application leaves in a context stays there.
            context = contextvars.copy_context()
            if context.run(ask, application, environ_of(path, wishes, extras), path) >= CLIENT_ERROR:
                break
    # What nobody refers to any more closes its files, and would be copied into every worker.
    gc.collect()
    refuse_gains(before, descriptors)
    faulthandler.cancel_dump_traceback_later()


def environ_of(path: str, wishes: Wishes, extras: "Dict[str, Any]") -> "Dict[str, Any]":
    """A GET request as PEP 3333 has it."""
    from urllib.parse import unquote_to_bytes
    target, _, query = path.partition("?")
    name, _, port = wishes.host.rpartition(":")
    if not port.isdigit():
        name, port = wishes.host, "80"
    environ: Dict[str, Any] = {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": unquote_to_bytes(target).decode("latin-1"),
        "QUERY_STRING": query, "RAW_URI": path, "REQUEST_URI": path, "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": name, "SERVER_PORT": port, "REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": "0",
        "HTTP_HOST": wishes.host, "HTTP_USER_AGENT": PROBE, "HTTP_ACCEPT": "*/*", "HTTP_CONNECTION": "close",
        "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(), "wsgi.errors": sys.stderr,
        "wsgi.multithread": False, "wsgi.multiprocess": True, "wsgi.run_once": False,
    }
    for header, value in wishes.headers:
        key = header.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key] = value
    environ.update(extras)
    prefix = environ["SCRIPT_NAME"]
    if prefix and environ["PATH_INFO"].startswith(prefix):
        environ["PATH_INFO"] = environ["PATH_INFO"][len(prefix):]
    return environ


def ask(application: "Callable[..., Any]", environ: "Dict[str, Any]", path: str) -> int:
    """The status of the answer, which is read to its end and closed, as a server does it. Unfit."""
    statuses: List[str] = []

    def start_response(status: str, _headers: "Any", _error: "Any" = None) -> "Callable[[bytes], None]":
        statuses.append(status)
        return lambda _data: None

    try:
        answer = application(environ, start_response)
        try:
            for _ in answer:
                pass
        finally:
            close = getattr(answer, "close", None)
            if close is not None:
                close()
    except BaseException as error:
        if isinstance(error, Exception):
            from traceback import print_exc
            print_exc()
        raise Unfit("GET %s ended with %s" % (path, type(error).__name__)) from error
    status = int(statuses[-1][:3]) if statuses and statuses[-1][:3].isdigit() else 0
    if not status:
        raise Unfit("GET %s was answered without a status" % path)
    if status >= SERVER_ERROR:
        raise Unfit("GET %s was answered %d" % (path, status))
    return status


def refuse_gains(before: "Set[int]", descriptors: "Dict[int, str]") -> None:
    """Refuse what a fork would take from workers, or have them share."""
    deadline = time.monotonic() + LEAVING_SECONDS
    while tasks() - before and time.monotonic() < deadline:
        time.sleep(0.005)
    gained = threads(tasks() - before)
    if gained:
        raise Unfit("the requests started the thread %s, which workers would be without" % gained[0])
    if has_children():
        raise Unfit("the requests started a child process, which workers would not have")
    peers = connections()
    for fd, target in sorted(open_descriptors().items()):
        if descriptors.get(fd) == target:
            continue
        if fd in peers:
            raise Unfit("the requests left a connection to %s open, which workers would share%s" % (peers[fd], hint()))
        if not may_be_shared(fd, target):
            raise Unfit("the requests left %s open, which workers would share%s" % (target, hint()))


def hint() -> str:
    """What an owner can do about it."""
    return "; with Django, CONN_MAX_AGE = 0 closes those to databases" if "django.db" in sys.modules else ""


def has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def open_descriptors() -> "Dict[int, str]":
    """All descriptors, and what each one leads to."""
    result = {}
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            result[fd] = os.readlink("/proc/self/fd/%d" % fd)
        except OSError:
            # That of the list itself.
            pass
    return result


def may_be_shared(fd: int, target: str) -> bool:
    """Whether processes can write to it, or read from it, without a thought for each other.

    That is a file that is only appended to, as a log is, or a device without a state. Of others they share the place
    where they read or write, and databases in files (SQLite's) do not survive a fork.
    """
    import fcntl
    try:
        kind = os.fstat(fd).st_mode
        return target in STATELESS or stat.S_ISREG(kind) and bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND)
    except OSError:
        # It has been closed.
        return True

