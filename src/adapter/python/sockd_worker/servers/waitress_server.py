"""The template of waitress: template.py with waitress's own options and server.

What it is for. A worker is waitress's server on the sockets that sockd hands over, with waitress's threads.

What it owns. waitress's options, and the loop that calls waitress's. What it must never do. Import the application
before the fork, unless it is preloaded.
"""

import os
import sys
from _thread import get_ident

from ..app_server import HANG_SECONDS, AppServer, collect_from_here, installed_version
from ..drain import IDLE_SECONDS, KEEP_ALIVE_SECONDS, LOOK_SECONDS, Drain, IdleConnections
from ..notify import start_heartbeat
from ..scoreboard import ABORTED, PROBE, PROBED, SERVER_ERROR
from ..sockets import socket_from
from ..template import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, Dict, List, Optional, Tuple

    from ..notify import Heartbeat
    from ..protocol import ForkOrder
    from ..scoreboard import Scoreboard

# Reached into, and not documented; tried with waitress 1.4.4 to 3.0.2:
#   waitress.runner                    run(), and resolve() for Python 3.8 and older
#   waitress.adjustments.Adjustments   parse_args() and the settings that it makes
#   waitress.server                    create_server() with map and _dispatcher; BaseWSGIServer: adj, active_channels,
#                                      pull_trigger(), task_dispatcher
#   waitress.channel.HTTPChannel       requests, request, total_outbufs_len, will_close
#   waitress.task                      ThreadedTaskDispatcher; Task.build_response_header() and WSGITask.service()
#                                      replaced; a task's status, its request's command, path, headers
#   waitress.wasyncore                 loop(), dispatcher.close()


class Waitress(AppServer):
    """waitress's AppServer."""

    name = "waitress"
    module = "waitress.__main__"
    oldest = 1, 4
    application = None

    def version(self) -> str:
        return installed_version("waitress")

    def configure(self, how: str) -> "Dict[str, Any]":
        import waitress.server  # noqa: F401
        from waitress import runner
        collect_from_here()
        self.options, self.name_of_application, self.call = command_line(runner)
        from waitress.adjustments import Adjustments
        settings = Adjustments(**self.options)
        for name in ("host", "port", "listen", "unix_socket", "unix_socket_perms", "ipv4", "ipv6"):
            self.options.pop(name, None)
        return {
            "workers": 1,
            "timeout": HANG_SECONDS,
            "graceful_timeout": None,
            "chdir": os.getcwd(),
            "bind": binds(settings),
            "umask": 0o777 & ~settings.unix_socket_perms,
            "backlog": settings.backlog,
        }

    def load(self) -> None:
        self.application = load(self.name_of_application, self.call)

    def wsgi(self) -> "Tuple[Any, Dict[str, Any]]":
        from waitress.adjustments import Adjustments
        settings = Adjustments(**self.options)
        return self.application, {
            "SERVER_SOFTWARE": settings.ident or "waitress", "wsgi.url_scheme": settings.url_scheme,
            "SCRIPT_NAME": settings.url_prefix, "wsgi.multithread": True, "wsgi.multiprocess": False,
            "wsgi.input_terminated": True}

    def work(self, order: "ForkOrder", supervisor: int) -> None:
        heartbeat = start_heartbeat(order, supervisor)
        if self.application is None:
            self.load()
        sockets = [socket_from(fd) for fd in order.sockets]
        observe_tasks(heartbeat.scoreboard)
        Loop(make_servers(self.application, sockets, self.options), heartbeat).run()


def command_line(runner: "Any") -> "Tuple[Dict[str, Any], str, bool]":
    """waitress-serve's options, the application's name, and whether it is to be called.

    Whatever else the command does (--help, a mistake) ends the process.
    """
    from getopt import GetoptError
    from waitress.adjustments import Adjustments
    try:
        options, names = Adjustments.parse_args(sys.argv[1:])
    except GetoptError:
        names, options = [], {"help": True}
    if options.pop("help") or len(names) != 1:
        sys.exit(runner.run(sys.argv))
    return options, names[0], options.pop("call")


def binds(settings: "Any") -> "List[str]":
    """Where waitress would listen."""
    if settings.unix_socket:
        return ["unix:" + settings.unix_socket]
    return [("[%s]:%d" if ":" in address[0] else "%s:%d") % address[:2] for _, _, _, address in settings.listen]


def load(name: str, call: bool) -> "Any":
    """The application, found as waitress-serve finds it; but a mistake in it shows its traceback."""
    import logging
    import pkgutil
    logging.basicConfig()
    log = logging.getLogger("waitress")
    if log.level == logging.NOTSET:
        log.setLevel(logging.INFO)
    sys.path.append(os.getcwd())
    if hasattr(pkgutil, "resolve_name"):
        application = pkgutil.resolve_name(name)
    else:
        # Python 3.8, where waitress takes MODULE:OBJECT alone.
        from waitress.runner import resolve
        application = resolve(*name.split(":"))
    return application() if call else application


def make_servers(application: "Any", sockets: "Any", options: "Any") -> "Dict[int, Any]":
    """waitress's servers on one map and one set of threads: one call takes no unix sockets beside others."""
    import socket
    from waitress.server import create_server
    from waitress.task import ThreadedTaskDispatcher
    from waitress.adjustments import Adjustments
    dispatcher = ThreadedTaskDispatcher()
    dispatcher.set_thread_count(Adjustments(**options).threads)
    channels: Dict[int, Any] = {}
    for unix in (False, True):
        part = [listener for listener in sockets if (listener.family == socket.AF_UNIX) == unix]
        if part:
            create_server(application, map=channels, sockets=part, _dispatcher=dispatcher, **options)
    return channels


class Loop:
    """Turns waitress's loop, beats, and leaves at a signal: waitress alone drops what is in flight."""

    def __init__(self, channels: "Any", heartbeat: "Heartbeat") -> None:
        from waitress.server import BaseWSGIServer
        self.channels = channels
        self.heartbeat = heartbeat
        self.servers = [channel for channel in channels.values() if isinstance(channel, BaseWSGIServer)]
        self.drain = Drain()
        self.patient = False
        self.ended = False

    def run(self) -> None:
        import signal
        self.drain.on_usr2()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.end)
        while not self.ended:
            self.heartbeat.notify()
            self.turn()
        self.leave()

    def turn(self, seconds: float = 1) -> None:
        from waitress import wasyncore
        settings = self.servers[0].adj
        wasyncore.loop(timeout=seconds, count=1, map=self.channels, use_poll=settings.asyncore_use_poll)

    def end(self, _signal: int, _frame: "Optional[FrameType]") -> None:
        self.patient, self.drain.patient = self.drain.patient, False
        self.ended = True
        # The loop is waiting for something to happen.
        self.servers[0].pull_trigger()

    def leave(self) -> None:
        """Accept nobody any more, read what was sent, answer it, close."""
        from waitress import wasyncore
        for server in self.servers:
            # Not its own close(), which takes the trigger along that wakes the loop.
            wasyncore.dispatcher.close(server)
        close_after_the_answer()
        idle = IdleConnections()
        while self.close_idle_connections(idle):
            self.turn(LOOK_SECONDS)
        self.servers[0].task_dispatcher.shutdown()

    def close_idle_connections(self, idle: "Any") -> int:
        """Close those that are idle, in time; how many are left."""
        left = [channel for server in self.servers for channel in list(server.active_channels.values())]
        descriptors = {channel: channel.socket.fileno() for channel in left
                       if not (channel.requests or channel.request or channel.total_outbufs_len)}
        for channel in idle.overdue(descriptors, KEEP_ALIVE_SECONDS if self.patient else IDLE_SECONDS):
            channel.will_close = True
        return len(left)


def observe_tasks(scoreboard: "Scoreboard") -> None:
    """Have each request shown while a thread serves it."""
    if not scoreboard.shows_requests:
        return
    from waitress.task import WSGITask
    service = WSGITask.service

    def observed(self: "Any") -> None:
        request = self.request
        token = scoreboard.begin(request.command, request.path.encode(errors="replace"), get_ident())
        status = SERVER_ERROR
        try:
            service(self)
            status = int(self.status.split(" ", 1)[0])
        except Exception as error:
            # waitress has the class since 1.0; it is caught by the channel.
            if type(error).__name__ == "ClientDisconnected":
                status = ABORTED
            raise
        finally:
            scoreboard.finish(token, PROBED if request.headers.get("USER_AGENT") == PROBE else status)

    WSGITask.service = observed
    scoreboard.counts_requests()


def close_after_the_answer() -> None:
    """From now on no connection is kept alive."""
    from waitress.task import Task
    build = Task.build_response_header

    def build_response_header(self: "Any") -> "Any":
        self.request.headers["CONNECTION"] = "close"
        return build(self)

    Task.build_response_header = build_response_header


def main() -> None:
    run(Waitress())
