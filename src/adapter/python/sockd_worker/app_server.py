"""What a server's module offers, and what all of these modules need.

A server's module has a class derived from AppServer, and main(), which calls run() of template.py with one.
"""

import gc
import os

from .pid_file import remove_pid_file, write_pid_file
from .warm import Unfit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Optional, Tuple

    from .protocol import ForkOrder, Notice

# A worker whose loop has not turned for so long hangs, where the server has no option for it: gunicorn's default.
HANG_SECONDS = 30


class AppServer:
    """One server: what templates need of it, and, from begin() on, what hooks need, which does nothing here."""

    # What hello and pip call it, and what `python -m` would run.
    name: str
    module: str
    # The first two numbers of the oldest version whose inside is what the module takes for granted.
    oldest: "Tuple[int, int]"
    # Where in the service's life this template begins: the content of LIFE_FD, and sockd's process id as "supervisor".
    life: "Dict[str, Any]"
    # Whether something is to be done in the template before each fork. Then there is no spare.
    forks_on_order = False
    # Where the number of the process to signal is to be found while the service lives; None: nowhere.
    pid_file: "Optional[str]" = None

    def version(self) -> str:
        """The server's version."""
        raise NotImplementedError

    def configure(self, how: str) -> "Dict[str, Any]":
        """Import the server, call collect_from_here(), and read command line, environment and files as the server does.

        Returns the settings for hello. Whatever the server itself would say and end with (--help, a mistake) ends the
        template so.
        """
        raise NotImplementedError

    def load(self) -> None:
        """Import the application, for all workers; an error ends the template."""
        raise NotImplementedError

    def wsgi(self) -> "Tuple[Callable[..., Any], Dict[str, Any]]":
        """The application that is loaded, if it is a WSGI application, and what this server adds to an environ; Unfit.

        Workers must call it in one thread or in several, and do nothing with it before that would be new to it.
        """
        raise Unfit("only WSGI applications are warmed")

    def work(self, order: "ForkOrder", supervisor: int) -> None:
        """Be a worker: serve order.sockets until a signal ends that."""
        raise NotImplementedError

    def begin(self) -> None:
        """Called before hello, once the application is imported if it is to be preloaded."""

    def load_later(self) -> None:
        """Import what workers import sooner or later.

        Called once, when the first worker is on its way: nobody waits for the template then, and those who come after
        find it loaded.
        """

    def hook_state(self) -> "Optional[str]":
        """What hooks have left in this process, as text, for the templates to come; None: nothing."""

    def before_fork(self, order: "ForkOrder", supervisor: int) -> None:
        """Called in the template; what is raised here is why there will be no worker."""

    def after_fork(self, pid: "Optional[int]") -> None:
        """Called in the template, once the worker is there or (None) could not be made."""

    def worker_state(self) -> "Optional[str]":
        """What hooks have left in the object of the worker that is forked next, or that this is; None: nothing."""

    def worker_joined(self, number: int, pid: int, state: "Optional[str]") -> None:
        """Another process has become, or another template has forked, this worker."""

    def worker_exited(self, number: int, pid: int, state: "Optional[str]", call: bool) -> None:
        """A worker was reaped; `call`: and its hook is to be called here."""

    def take_notice(self, notice: "Notice", call: bool) -> None:
        """Something that hooks are to know; `call`: and hooks may be called in this process."""
        if notice.kind == "joined":
            self.worker_joined(notice.worker, notice.pid, notice.state)
        elif notice.kind == "exited":
            self.worker_exited(notice.worker, notice.pid, notice.state, notice.call and call)
        elif notice.kind == "resized":
            self.workers_resized(notice.workers, call)
        elif call and notice.kind == "started":
            if self.pid_file:
                write_pid_file(self.pid_file, self.life["supervisor"])
            self.service_started()
        elif call and notice.kind == "end":
            if self.pid_file:
                remove_pid_file(self.pid_file, self.life["supervisor"])
            self.service_ended()

    def workers_changed(self) -> None:
        """There is one more, or one fewer; only the template learns that, no spare."""

    def workers_resized(self, number: int, call: bool) -> None:
        """So many workers are wanted from here on; `call`: and the hook for that is to be called here."""

    def service_started(self) -> None:
        """The sockets are bound."""

    def service_ended(self) -> None:
        """The last worker was reaped, and the service ends."""


def collect_from_here() -> None:
    """Have the garbage collected that the user's code will make, whose own gc.disable() shall count.

    bootstrap.py has stopped that: nothing that an import makes is garbage, and the collector would only look at all of
    it, again and again.
    """
    gc.freeze()
    gc.enable()


def installed_version(package: str) -> str:
    try:
        from importlib.metadata import version
    except ImportError:
        # Python 3.7.
        from pkg_resources import get_distribution
        return str(get_distribution(package).version)
    return version(package)


def own_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
