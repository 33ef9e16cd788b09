"""The template of hypercorn: template.py with hypercorn's own command line, Config and worker functions.

What it is for. A worker is the function that hypercorn's own worker processes run (asyncio, uvloop or trio), with the
sockets that sockd hands over; only hypercorn's supervisor of processes and its reloader are replaced.

What it owns. hypercorn's Config. What it must never do. Import the application before the fork, unless it is
preloaded.
"""

import importlib
import math
import os
import sys

from ..app_server import HANG_SECONDS, AppServer, collect_from_here, installed_version, own_umask
from ..drain import (
    IDLE_SECONDS, LOOK_SECONDS, Drain, IdleConnections, accept_nobody, announcing_close, read_what_was_accepted)
from ..log import complain
from ..notify import RequestLimit, start_heartbeat
from ..scoreboard import observe_asgi
from ..sockets import socket_from, tcp_bind
from ..template import run
from ..websockets import WebSockets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, Callable, Dict, List, Optional, Set

    from ..notify import Heartbeat
    from ..protocol import ForkOrder

# Reached into, and not documented; tried with hypercorn 0.13.2 to 0.18.0, since no Python of today runs 0.11 and 0.12:
#   hypercorn.__main__.run             replaced, and given the Config that the command has made
#   hypercorn.config                   Sockets; max_requests is compared with >
#   hypercorn.utils.load_application   and where asyncio.run and trio.run have it from there
#   hypercorn.asyncio.run, .trio.run   asyncio_worker(), uvloop_worker(), trio_worker() and shutdown_event, which they
#                                      ask ten times a second; asyncio and trio, as these modules see them
#   TCPServer of these two             run(), _read_data(), protocol_send(), protocol, idle_task, reader, writer,
#                                      stream, _stop_keep_alive_timeout(), _initiate_server_close(), up to 0.13
#                                      _timeout()
#   asyncio.StreamReader               _buffer
#   hypercorn.protocol                 H2Protocol's streams, H11Protocol's stream and connection
#   hypercorn.events.RawData           is what goes to a client as it is

# HTTP/2: no new streams, please; those that are on their way are served still (RFC 9113, 6.8).
GOAWAY = bytes([0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7F, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0])


class Hypercorn(AppServer):
    """hypercorn's AppServer."""

    name = "hypercorn"
    module = "hypercorn.__main__"
    oldest = 0, 11

    def version(self) -> str:
        return installed_version("hypercorn")

    def configure(self, how: str) -> "Dict[str, Any]":
        from hypercorn import __main__ as command
        collect_from_here()
        caught: List[Any] = []
        command.run = caught.append
        command.main()
        self.config = config = caught[0]
        if config.use_reloader:
            complain("--reload is ignored: reload the service instead")
        if config.quic_bind:
            complain("--quic-bind is ignored: sockd has no sockets for QUIC")
        self.worker = worker_function(config.worker_class)
        self.pid_file = config.pid_path
        return {
            "workers": max(1, config.workers),
            "timeout": HANG_SECONDS,
            "graceful_timeout": math.ceil(config.graceful_timeout),
            "chdir": os.getcwd(),
            "bind": [bind(text) for text in config.bind + config.insecure_bind * config.ssl_enabled],
            "umask": own_umask() if config.umask is None else config.umask,
            "backlog": config.backlog,
        }

    def load(self) -> None:
        from hypercorn.utils import load_application
        # hypercorn serves WSGI since 0.14.
        limits = [self.config.wsgi_max_body_size] if hasattr(self.config, "wsgi_max_body_size") else []
        application = load_application(self.config.application_path, *limits)
        load_through(lambda _load: application)

    def work(self, order: "ForkOrder", supervisor: int) -> None:
        from hypercorn.config import Sockets
        config = self.config
        config.workers = 1
        heartbeat = start_heartbeat(order, supervisor)
        # hypercorn has the option since 0.14.
        if getattr(config, "max_requests", None) is not None:
            config.max_requests = RequestLimit(config.max_requests).reporting_to(heartbeat.notifier)
        public = [socket_from(fd) for fd in order.sockets]
        probe = [public.pop()] if order.has_probe else []
        if config.ssl_enabled:
            sockets = Sockets(public, probe, [])
        else:
            sockets = Sockets([], public + probe, [])
        websockets = WebSockets()
        departure = Departure(config)
        load_through(lambda load: observe_asgi(
            departure.announced_by(websockets.watch(load())), heartbeat.scoreboard))
        departure.know_connections()
        self.worker(config, sockets, shutdown_event=ShutdownEvent(heartbeat, websockets, departure))


def worker_function(worker_class: "Any") -> "Callable[..., Any]":
    """As hypercorn.run.run() chooses it; an unknown class is its error, too."""
    if worker_class == "trio":
        return importlib.import_module("hypercorn.trio.run").trio_worker
    if worker_class not in ("asyncio", "uvloop"):
        raise ValueError("No worker of class %s exists" % worker_class)
    if worker_class == "uvloop":
        importlib.import_module("uvloop")
    return getattr(importlib.import_module("hypercorn.asyncio.run"), worker_class + "_worker")


def bind(text: str) -> str:
    """A bind of hypercorn's as the report has it."""
    if text.startswith(("unix:", "fd://")):
        return text
    host, _, port = text.replace("[", "").replace("]", "").rpartition(":")
    return tcp_bind(host, int(port)) if host and port.isdigit() else tcp_bind(text, 8000)


def load_through(loader: "Any") -> None:
    """Have the worker function get its application from `loader`, which is given the way to load it so far."""
    for name in ("hypercorn.asyncio.run", "hypercorn.trio.run"):
        module: Any = sys.modules.get(name)
        if module:
            load = module.load_application
            module.load_application = lambda *arguments, load=load: loader(lambda: load(*arguments))


class Departure:
    """What hypercorn does at its end is done before it learns of that, as drain.py says.

    hypercorn closes every connection that has no request in the moment in which it stops to accept: also those whose
    request it has not read yet, and whom it has only just accepted, which would be lost.
    """

    def __init__(self, config: "Any") -> None:
        self.config = config
        self.connections: Set[Any] = set()
        # Of asyncio; and what ends trio's accepting.
        self.servers: List[Any] = []
        self.accepting: List[Callable[[], None]] = []
        self.begun = False
        self.over = False
        # Until when, by time.monotonic(): hypercorn's --graceful-timeout, at the end of the service; else sockd's limit
        self.limit = None

    def know_connections(self) -> None:
        """Have hypercorn's connections, and what accepts them, known here."""
        for name, listening in (("hypercorn.asyncio.run", ListeningByAsyncio),
                                ("hypercorn.trio.run", ListeningByTrio)):
            module: Any = sys.modules.get(name)
            if module:
                module.TCPServer = known_connection(module.TCPServer, self.connections)
                loop_module = name.split(".")[1]
                setattr(module, loop_module, listening(self, sys.modules[loop_module]))

    def announced_by(self, application: "Any") -> "Callable[..., Any]":
        """An ASGI application that announces the end of HTTP/1's connections once this has begun."""
        announcing = announcing_close(application)

        async def chosen(scope: "Any", *rest: "Any") -> "Any":
            ends = self.begun and scope["type"] == "http" and scope["http_version"].startswith("1")
            return await (announcing if ends else application)(scope, *rest)

        return chosen

    def end_by_the_graceful_timeout(self) -> None:
        from time import monotonic
        self.limit = monotonic() + self.config.graceful_timeout

    async def drain(self) -> None:
        """Runs once, in the loop."""
        from time import monotonic
        if self.accepting:
            from trio import sleep
            for cancel in self.accepting:
                cancel()
        else:
            from asyncio import get_running_loop, sleep
            accept_nobody(get_running_loop(), self.servers)
        self.begun = True
        await read_what_was_accepted(sleep)
        for server in self.servers:
            server.close()
        for connection in list(self.connections):
            await connection.say_goaway()
        idle = IdleConnections()
        while self.connections:
            if self.limit is not None and monotonic() >= self.limit:
                self.config.graceful_timeout = 0
                break
            seconds = self.config.keep_alive_timeout if self.limit is None else IDLE_SECONDS
            descriptors = {each: each.descriptor() for each in self.connections if each.is_idle()}
            for connection in idle.overdue(descriptors, seconds):
                await connection.end()
            await sleep(LOOK_SECONDS)
        self.over = True


def known_connection(connection_class: "Any", connections: "Any") -> "Any":
    """hypercorn's TCPServer, which is one connection."""
    class Connection(connection_class):
        async def run(self) -> None:
            connections.add(self)
            try:
                await super().run()
            finally:
                connections.discard(self)

        async def _read_data(self) -> None:
            await super()._read_data()
            # It would wait for the time in which an idle connection may bring another request.
            if hasattr(self, "idle_task"):
                await self.idle_task.stop()
            elif hasattr(self, "_stop_keep_alive_timeout"):
                await self._stop_keep_alive_timeout()

        async def end(self) -> None:
            # Up to 0.13 it is the timeout's.
            await (getattr(self, "_initiate_server_close", None) or self._timeout)()

        def descriptor(self) -> int:
            if hasattr(self, "writer"):
                return self.writer.get_extra_info("socket").fileno()
            stream: Any = self.stream
            return getattr(stream, "transport_stream", stream).socket.fileno()

        def is_http2(self) -> bool:
            return hasattr(self, "protocol") and hasattr(self.protocol.protocol, "streams")

        def is_idle(self) -> bool:
            """Whether there is no request, not even the beginning of one."""
            if not hasattr(self, "protocol"):
                # It shakes hands.
                return True
            if getattr(getattr(self, "reader", None), "_buffer", None):
                return False
            protocol = self.protocol.protocol
            if self.is_http2():
                return not protocol.streams
            return protocol.stream is None and not protocol.connection.trailing_data[0]

        async def say_goaway(self) -> None:
            if self.is_http2():
                from hypercorn.events import RawData
                await self.protocol_send(RawData(GOAWAY))

    return Connection


class Listening:
    """asyncio or trio, as hypercorn alone sees it: what it listens with is known to its departure."""

    def __init__(self, departure: "Departure", module: "Any") -> None:
        self.departure = departure
        self.module = module

    def __getattr__(self, name: str) -> "Any":
        return getattr(self.module, name)


class ListeningByAsyncio(Listening):
    async def start_server(self, *arguments: "Any", **options: "Any") -> "Any":
        server = await self.module.start_server(*arguments, **options)
        self.departure.servers.append(server)
        return server


class ListeningByTrio(Listening):
    async def serve_listeners(self, *arguments: "Any", **options: "Any") -> None:
        with self.module.CancelScope() as scope:
            self.departure.accepting.append(scope.cancel)
            await self.module.serve_listeners(*arguments, **options)
        await self.module.sleep_forever()


class ShutdownEvent:
    """What a worker function asks, ten times a second, whether it is to end, once it serves.

    So the first question means that it is ready, and every question that its loop turns. The answer is yes when it has
    drained.
    """

    def __init__(self, heartbeat: "Heartbeat", websockets: WebSockets, departure: "Departure") -> None:
        self.heartbeat = heartbeat
        self.websockets = websockets
        self.departure = departure
        self.worker_class = departure.config.worker_class
        self.in_the_loop: Any = None
        self.ends = False

    def is_set(self) -> bool:
        if self.in_the_loop is None:
            self.listen_to_signals()
            if self.worker_class == "trio":
                # A worker whose lifespan start-up has failed asks as well, once.
                return False
        self.heartbeat.notify()
        return self.departure.over

    def listen_to_signals(self) -> None:
        import signal
        self.in_the_loop = starter_of_tasks(self.worker_class)
        drain = Drain()
        drain.on_usr2()

        def end(_signal: int, _frame: "Optional[FrameType]") -> None:
            patient, drain.patient = drain.patient, False
            if not self.ends:
                self.ends = True
                self.in_the_loop(self.departure.drain)
            if not patient:
                self.departure.end_by_the_graceful_timeout()
                self.in_the_loop(self.websockets.close)

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)


def starter_of_tasks(worker_class: "Any") -> "Callable[..., Any]":
    """What starts a coroutine function in the loop that turns here, from a signal handler."""
    if worker_class == "trio":
        from trio.lowlevel import current_trio_token, spawn_system_task
        token = current_trio_token()
        return lambda function: token.run_sync_soon(spawn_system_task, function)
    from asyncio import get_running_loop
    loop = get_running_loop()
    return lambda function: loop.call_soon_threadsafe(lambda: loop.create_task(function()))


def main() -> None:
    run(Hypercorn())
