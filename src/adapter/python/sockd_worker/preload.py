"""Preloading: the application in the template.

With the application in the template, workers are ready in milliseconds and share its memory, and the template is the
last good code, whatever lies on disk since. New code comes with a new template, in which it can fail.
"""

import faulthandler
import gc
import os
import sys

from .log import complain
from .protocol import CONTROL_FD
from .sockets import ask_socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Iterable, List, Set

    from .app_server import AppServer

# A template that imports the application for so long shows where: sockd gives it up after 60 s.
LOAD_SECONDS = 55


def preload(server: "AppServer") -> None:
    """Import the application, and say what of it cannot be in the workers as it is here."""
    before = connections()
    faulthandler.dump_traceback_later(LOAD_SECONDS, file=2)
    # The thread that waits for that moment is among them.
    ours = tasks()
    server.load()
    load_urls_of_django()
    # Before that thread ends: a list that is read while one ends may stop there (next_tid in fs/proc/base.c).
    started = threads(tasks() - ours)
    faulthandler.cancel_dump_traceback_later()
    for name in started:
        complain("preload: the application started the thread %s while it was imported; "
                 "the workers are without it" % name)
    for fd, peer in sorted(connections().items() - before.items()):
        complain("preload: the application connected to %s while it was imported; all workers share descriptor %d"
                 % (peer, fd))
    # What the import has left behind would be copied into every worker.
    gc.collect()


def load_urls_of_django() -> None:
    """Import URLs and views, which Django leaves for the first request: each worker would do it, and keep 1 MB of it.

    After a mistake in them Django tries again with every request, and may find another, of what was left behind.
    """
    if "django.core.handlers.base" in sys.modules:
        from django.urls import get_resolver
        try:
            _ = get_resolver().url_patterns
        except Exception:
            from traceback import print_exc
            print_exc()


def tasks() -> "Set[int]":
    """The numbers of all threads."""
    return set(map(int, os.listdir("/proc/self/task")))


def threads(numbers: "Iterable[int]") -> "List[str]":
    """The names of threads, those that Python does not know as well."""
    import threading
    # Python 3.7 does not know its number.
    known = {getattr(thread, "native_id", None): thread.name for thread in threading.enumerate()}
    result = []
    for number in numbers:
        try:
            with open("/proc/self/task/%d/comm" % number) as comm:
                result.append(known.get(number) or comm.read().strip())
        except OSError:
            # It has ended.
            pass
    return sorted(result)


def connections() -> "Dict[int, str]":
    """Descriptors that lead to another process, and where to."""
    result = {}
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            peer = ask_socket(fd, "getpeername")
        except OSError:
            continue
        # The ends of a pair have no names.
        if peer and fd != CONTROL_FD:
            result[fd] = "%s:%s" % peer[:2] if isinstance(peer, tuple) else repr(peer)
    return result
