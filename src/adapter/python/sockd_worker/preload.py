"""Preloading: the application in the template.

With the application in the template, workers are ready in milliseconds and share its memory, and the template is the
last good code, whatever lies on disk since. New code comes with a new template, in which it can fail.
"""

import faulthandler
import gc
import sys

from .log import complain
from .process import connections, tasks, threads

TYPE_CHECKING = False
if TYPE_CHECKING:
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
