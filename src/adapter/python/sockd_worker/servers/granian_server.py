"""The template of granian: template.py with granian's own command line, Server and worker functions.

What it is for. A worker is the function that granian's own worker processes run, for ASGI, RSGI and WSGI alike, with
the sockets that sockd hands over; only granian's supervisor of processes and its reloader are replaced.

What it owns. granian's Server, which is never started. What it must never do. Import the application before the fork,
unless it is preloaded.
"""

import os
import sys

from ..app_server import HANG_SECONDS, AppServer, collect_from_here, own_umask
from ..drain import IDLE_SECONDS, KEEP_ALIVE_SECONDS, LOOK_SECONDS, Drain, announcing_close
from ..log import complain
from ..notify import start_heartbeat
from ..scoreboard import observe_asgi
from ..sockets import ask_socket, socket_from, tcp_bind
from ..template import run
from ..warm import Unfit
from ..websockets import WebSockets
from .granian_requests import observe_rsgi, observe_wsgi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, Callable, Dict, List, Optional, Set

    from ..notify import Heartbeat
    from ..protocol import ForkOrder

# Reached into, and not documented; tried with granian 2.8.0 to 2.8.9:
#   granian._granian               BUILD_GIL, WorkerSignal
#   granian._signals               set_loop_signals(), set_sync_signals() replaced
#   granian.cli                    Server replaced, entrypoint()
#   granian.log.LOGGING_CONFIG     the stream of its console
#   granian.net.SocketHolder       made of a descriptor
#   granian.server.mp              ASGIWorker, RSGIWorker, WSGIWorker, with serve_mtr and serve_str, and with these and
#                                  _uds; _asgi_call_wrap, _rsgi_call_wrap, _wsgi_call_wrap replaced; threading, as this
#                                  module sees it
#   granian.server.Server          startup(), _spawn_worker(), _env_loader(), _shd, _sso, _ipc and its other settings

# So often a worker shows that its loop turns.
BEAT_SECONDS = 1.0
# So long the application may take to notice that its WebSockets are closed.
CLOSING_SECONDS = 2.0
# A worker without connections leaves at once; after this time it has missed that it may.
MISSED_SECONDS = 1.0


class Granian(AppServer):
    """granian's AppServer."""

    name = "granian"
    module = "granian.__main__"
    # A worker of granian's says that it has left only since then.
    oldest = 2, 8
    application = None

    def version(self) -> str:
        import granian
        return granian.__version__

    def configure(self, how: str) -> "Dict[str, Any]":
        from granian import cli
        collect_from_here()
        refuse_one_without_the_lock()
        log_to_stderr()
        self.server, self.serve, self.load_application = command_line(cli)
        server = self.server
        self.pid_file = server.wanted_pid_file
        return {
            "workers": server.workers,
            "timeout": HANG_SECONDS,
            "graceful_timeout": server.workers_kill_timeout,
            "chdir": os.getcwd(),
            "bind": [bind(server)],
            "umask": own_umask() if server.uds_permissions is None else 0o777 & ~server.uds_permissions,
            "backlog": server.backlog,
            "silent_when_busy": one_at_a_time(server),
            "speaks_tls": bool(server.ssl_ctx[0]),
        }

    def load(self) -> None:
        self.read_env_files()
        self.application = self.load_application()

    def wsgi(self) -> "Any":
        if self.server.interface.value != "wsgi":
            raise Unfit("only WSGI applications are warmed")
        # As granian's own environ has them.
        return self.application, {
            **os.environ, "SERVER_SOFTWARE": "Granian", "SCRIPT_NAME": self.server.url_path_prefix or "",
            "wsgi.url_scheme": "https" if self.server.ssl_ctx[0] else "http",
            "wsgi.multithread": True, "wsgi.multiprocess": False, "wsgi.input_terminated": True}

    def read_env_files(self) -> None:
        if self.application is None:
            self.server._env_loader(self.server.env_files)

    def work(self, order: "ForkOrder", supervisor: int) -> None:
        self.read_env_files()
        heartbeat = start_heartbeat(order, supervisor)
        server, number = self.server, order.worker - 1
        server._shd = serve_everywhere(
            order.sockets, server.backlog, Visitors(heartbeat, one_at_a_time(server)))
        server._sso, server._ipc = None, {number: (None, None)}
        # A process that is not started, but run here: granian alone knows what its worker functions take.
        server._spawn_worker(number, self.serve, self.application_for_worker).inner.run()

    def application_for_worker(self) -> "Any":
        return self.load_application() if self.application is None else self.application


def refuse_one_without_the_lock() -> None:
    """Without Python's lock granian's workers are threads."""
    from granian._granian import BUILD_GIL
    if not BUILD_GIL:
        sys.exit("sockd template: granian without Python's lock has no processes: use a Python that has it")


class Configured(Exception):
    """What the command would start."""


def command_line(cli: "Any") -> "Any":
    """granian's Server as the command makes it, its worker function, and what loads the application.

    Whatever else the command does (--help, --version, a mistake) ends the process.
    """
    class Server(cli.Server):
        reload_on_changes: "Any"
        metrics_enabled: "Any"
        workers_lifetime: "Any"
        workers_rss: "Any"
        pid_file: "Any"

        def serve(self) -> None:
            for option, value, instead in (
                    ("--reload", self.reload_on_changes, "reload the service instead"),
                    ("--metrics", self.metrics_enabled, "they are those of granian's own supervisor"),
                    ("--workers-lifetime", self.workers_lifetime, "set max-age in sockd's configuration"),
                    ("--workers-max-rss", self.workers_rss, "set max-memory in sockd's configuration")):
                if value:
                    complain("%s is ignored: %s" % (option, instead))
            self.wanted_pid_file = self.pid_file
            self.reload_on_changes = self.metrics_enabled = False
            self.pid_file = self.workers_lifetime = self.workers_rss = None
            super().serve()

        def startup(self, spawn_target: "Any", target_loader: "Any") -> None:
            raise Configured(self, spawn_target, target_loader)

    cli.Server = Server
    try:
        cli.entrypoint()
    except Configured as configured:
        return configured.args


def one_at_a_time(server: "Any") -> bool:
    """Whether a worker calls the application for one request after the other."""
    return server.interface.value == "wsgi" and server.blocking_threads == 1


def bind(server: "Any") -> str:
    """Where granian would listen."""
    return "unix:%s" % server.bind_uds if server.bind_uds else tcp_bind(server.bind_addr, server.bind_port)


def log_to_stderr() -> None:
    """granian's own words come from the process that says them, as those of other servers do; its access log stays."""
    from granian.log import LOGGING_CONFIG
    LOGGING_CONFIG["handlers"]["console"]["stream"] = "ext://sys.stderr"


def serve_everywhere(fds: "List[int]", backlog: int, visitors: "Visitors") -> "Any":
    """Have granian's worker function, which serves one socket, serve all of these. Returns the first of them.

    Its Rust part is a class for each interface. An instance serves one socket in threads of its own, leaves at a signal
    object, and calls back when it has.
    """
    import socket
    from granian import _signals
    from granian.net import SocketHolder
    from granian.server import mp
    holders = []
    for fd in fds:
        listener = socket_from(fd)
        holders.append((None, SocketHolder(listener.detach(), listener.family == socket.AF_UNIX, backlog)))

    def everywhere(kind: "Any") -> "Any":
        return lambda number, _socket, *rest: Everywhere(
            [(kind(number, holder, *rest), holder[1].is_uds()) for holder in holders])

    for name in ("ASGIWorker", "RSGIWorker", "WSGIWorker"):
        setattr(mp, name, everywhere(getattr(mp, name)))
    for name, watched in (("_asgi_call_wrap", visitors.of_asgi), ("_rsgi_call_wrap", visitors.of_rsgi),
                          ("_wsgi_call_wrap", visitors.of_wsgi)):
        wrap = getattr(mp, name)
        setattr(mp, name, lambda application, *rest, wrap=wrap, watched=watched: wrap(watched(application), *rest))
    _signals.set_loop_signals = lambda loop: Departure(fds, visitors, loop)
    _signals.set_sync_signals = lambda: Departure(fds, visitors, None)
    wait_awake(mp)
    return holders[0][1]


def wait_awake(module: "Any") -> None:
    """Have the main thread of a WSGI worker, which waits for an event, look for signals every now and then.

    The kernel may give a signal to another thread, after a stop of all for one; Python's handlers run in this one.
    """
    import threading
    from types import SimpleNamespace

    class Event(threading.Event):
        def wait(self, timeout: "Any" = None) -> "Any":
            while timeout is None and not super().wait(BEAT_SECONDS):
                pass
            return super().wait(timeout)

    module.threading = SimpleNamespace(**{**vars(threading), "Event": Event})


class Everywhere:
    """One worker of granian's for each socket, in place of the only one."""

    def __init__(self, workers: "Any") -> None:
        self.workers = workers

    def __getattr__(self, method: "Any") -> "Any":
        """serve_mtr and serve_str, for unix sockets with _uds: one is asked for, and each socket needs its own."""
        def serve(scheduler: "Any", loop: "Any", departure: "Departure") -> None:
            for worker, is_unix in self.workers:
                name = method.removesuffix("_uds") + ("_uds" if is_unix else "")
                getattr(worker, name)(scheduler, loop, departure.of_one_more())
            departure.all_serve()

        return serve


class Departure:
    """In place of the signal at which granian's only worker leaves: all leave, and it calls back after the last one.

    granian finishes the requests that it has read, and drops WebSockets and all connections that are idle, or whose
    request is still to be read. So a worker that leaves accepts nobody any more, at first, and granian learns of it
    when nobody is connected, or when HTTP/1 has brought nothing for a while and the last WebSocket has ended: to HTTP/2
    granian says by itself what is lost.
    """

    def __init__(self, fds: "List[int]", visitors: "Visitors", loop: "Any") -> None:
        self.fds = fds
        self.visitors = visitors
        self.loop = loop
        self.signals: List[Any] = []
        self.serving = 0
        self.patient = False

    def add_cb(self, all_have_left: "Any") -> None:
        self.all_have_left = all_have_left

    def of_one_more(self) -> "Any":
        from granian._granian import WorkerSignal
        signal = WorkerSignal()
        signal.add_cb(self.one_has_left)
        self.signals.append(signal)
        self.serving += 1
        return signal

    def one_has_left(self) -> None:
        self.serving -= 1
        if not self.serving:
            self.all_have_left()

    def all_serve(self) -> None:
        import signal
        import socket
        # Made now: at the end there may be no descriptor left.
        self.unknown = socket.socket(socket.AF_UNIX)
        self.unknown.bind("")
        self.unknown.listen()
        self.unknown.setblocking(False)
        self.drain = Drain()
        self.drain.on_usr2()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.begin)
        self.visitors.beat(self.loop)

    def begin(self, _signal: int, _frame: "Optional[FrameType]") -> None:
        self.patient, self.drain.patient = self.drain.patient, False
        if not self.visitors.leaving:
            self.visitors.leaving = True
            addresses = set(map(address_of, self.fds))
            self.accept_nobody()
            self.in_a_thread(lambda: self.leave_in_time(addresses))
        if not self.patient:
            self.close_websockets()

    def accept_nobody(self) -> None:
        """Give the numbers of our sockets to ones that nobody knows: granian knows no other way, but to leave."""
        for fd in self.fds:
            os.dup2(self.unknown.fileno(), fd, inheritable=False)

    def in_a_thread(self, function: "Callable[..., Any]") -> None:
        from threading import Thread
        Thread(target=function, daemon=True).start()

    def close_websockets(self) -> None:
        if self.visitors.websockets.open:
            self.loop.call_soon_threadsafe(lambda: self.loop.create_task(self.visitors.websockets.close()))

    def leave_in_time(self, addresses: "Set[Any]") -> None:
        from time import monotonic, sleep
        self.visitors.last = monotonic()
        closed = None
        while somebody_is_connected(addresses):
            now = monotonic()
            if not self.patient:
                # One may have come meanwhile.
                self.close_websockets()
                closed = closed or now
                if now - closed >= CLOSING_SECONDS:
                    break
            seconds = KEEP_ALIVE_SECONDS if self.patient else IDLE_SECONDS
            if now - self.visitors.last >= seconds and not self.visitors.websockets.open:
                break
            sleep(LOOK_SECONDS)
        self.leave()
        # granian's threads can miss each other, and then wait for ever for somebody to leave.
        last = monotonic()
        while self.serving:
            if somebody_is_connected(addresses):
                last = monotonic()
            elif monotonic() - last >= MISSED_SECONDS:
                self.serving = 0
                self.all_have_left()
            sleep(LOOK_SECONDS)

    def leave(self) -> None:
        """From any thread, any number of times."""
        while self.signals:
            self.signals.pop().set()


def somebody_is_connected(addresses: "Set[Any]") -> bool:
    return any(address_of(fd) in addresses for fd in map(int, os.listdir("/proc/self/fd")))


def address_of(fd: int) -> "Any":
    """What a listener and the connections that it has accepted have in common: a path, or a port; else None."""
    try:
        name = ask_socket(fd, "getsockname")
    except OSError:
        # It is none, or it has been closed.
        return None
    return name[1] if isinstance(name, tuple) else name or None


class Visitors:
    """Shows the requests, knows the WebSockets, and tells sockd that the worker is alive."""

    def __init__(self, heartbeat: "Heartbeat", one_at_a_time: bool) -> None:
        from threading import Lock
        self.heartbeat = heartbeat
        # With a thread for each socket, one_at_a_time is no more granian's to keep.
        self.turn = Lock() if one_at_a_time else None
        self.websockets = WebSockets()
        # Whether the worker leaves, and when since then HTTP/1 has brought a request (time.monotonic()).
        self.leaving = False
        self.last = 0.0

    def ends_with_its_answer(self, version: str) -> bool:
        """Whether a request's connection is to end; granian's own `version` is "1.1", WSGI's "HTTP/1.1"."""
        if not self.leaving or not version.replace("HTTP/", "").startswith("1"):
            return False
        from time import monotonic
        self.last = monotonic()
        return True

    def of_asgi(self, application: "Any") -> "Callable[..., Any]":
        watched = self.websockets.watch(application)
        announcing = announcing_close(watched)

        def chosen(scope: "Any", *rest: "Any") -> "Any":
            ends = scope["type"] == "http" and self.ends_with_its_answer(scope["http_version"])
            return (announcing if ends else watched)(scope, *rest)

        return observe_asgi(chosen, self.heartbeat.scoreboard)

    def of_rsgi(self, application: "Any") -> "Callable[..., Any]":
        async def watched(scope: "Any", protocol: "Any") -> "Any":
            if scope.proto != "ws":
                ends = self.ends_with_its_answer(scope.http_version)
                return await application(scope, AnnouncingClose(protocol) if ends else protocol)

            async def close() -> None:
                protocol.close(self.websockets.GOING)

            return await self.websockets.during(application(scope, protocol), close)

        return observe_rsgi(watched, self.heartbeat.scoreboard)

    def of_wsgi(self, application: "Any") -> "Callable[..., Any]":
        def watched(environ: "Any", start_response: "Any") -> "Any":
            if self.ends_with_its_answer(environ["SERVER_PROTOCOL"]):
                start = start_response

                def start_response(status: "Any", headers: "Any", *rest: "Any") -> "Any":
                    return start(status, [*headers, ("Connection", "close")], *rest)

            return application(environ, start_response)

        turn: Any = self.turn

        def in_turn(*arguments: "Any") -> "Any":
            with turn:
                return watched(*arguments)

        return observe_wsgi(in_turn if turn else watched, self.heartbeat.scoreboard)

    def beat(self, loop: "Any") -> None:
        """Beat from the event loop, whose first turn means that all is served; from a thread if no loop turns."""
        if loop is None:
            from threading import Thread
            Thread(target=self.beat_for_ever, name="heartbeat", daemon=True).start()
        else:
            loop.call_soon(self.beat_again, loop)

    def beat_again(self, loop: "Any") -> None:
        self.heartbeat.notify()
        loop.call_later(BEAT_SECONDS, self.beat_again, loop)

    def beat_for_ever(self) -> None:
        from time import sleep
        while True:
            self.heartbeat.notify()
            sleep(BEAT_SECONDS)


class AnnouncingClose:
    """RSGI's protocol of one request, whose answer announces the end of the connection."""

    def __init__(self, protocol: "Any") -> None:
        self.protocol = protocol

    def __getattr__(self, name: str) -> "Any":
        method = getattr(self.protocol, name)
        if not name.startswith("response_"):
            return method
        return lambda status, headers, *rest: method(status, [*headers, ("connection", "close")], *rest)

    def __call__(self) -> "Any":
        return self.protocol()

    def __aiter__(self) -> "Any":
        return self.protocol.__aiter__()


def main() -> None:
    run(Granian())
