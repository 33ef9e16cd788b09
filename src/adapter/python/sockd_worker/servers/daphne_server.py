"""The template of daphne: template.py with daphne's own command line and Server.

What it is for. A worker is daphne's Server on Twisted's reactor, with the connections of the sockets that sockd hands
over. They are accepted here: an endpoint of Twisted's would change the mode of a unix socket's path, remove it at the
end, and cut the socket's backlog to 50.

What it owns. daphne's options, the reactor's event loop. What it must never do. Import the application before the fork,
unless it is preloaded.
"""

import os
import sys

from ..app_server import HANG_SECONDS, AppServer, collect_from_here
from ..drain import IDLE_SECONDS, KEEP_ALIVE_SECONDS, LOOK_SECONDS, Drain, IdleConnections, read_what_was_accepted
from ..log import complain
from ..notify import start_heartbeat
from ..scoreboard import observe_asgi
from ..sockets import socket_from, tcp_bind
from ..template import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from types import FrameType
    from typing import Any, Dict, List, Optional

    from ..notify import Heartbeat
    from ..protocol import ForkOrder

# Reached into, and not documented; tried with daphne 3.0.2 to 4.2.3 and Twisted 26.10.0:
#   daphne.cli                         CommandLineInterface: parser, server_class, run(); import_by_path replaced
#   daphne.server                      twisted_loop; Server: run(), endpoints, http_factory, connections with details
#   daphne.utils.import_by_path        finds the application
#   twisted.internet.asyncioreactor    the reactor's __init__() called again with another loop; reactor.waker
#   twisted.web.http.HTTPChannel       checkPersistence() replaced; _channel, requests, _buffer, _dataBuffer,
#                                      _HTTPChannel__first_line
#   autobahn                           sendCloseFrame(), state, STATE_OPEN

DEFAULT_BACKLOG = 2048
# So many connections are accepted in one turn of the loop; Twisted's own number.
MOST_ACCEPTS = 100


class Daphne(AppServer):
    """daphne's AppServer."""

    name = "daphne"
    module = "daphne.__main__"
    oldest = 3, 0
    application = None

    def version(self) -> str:
        from daphne import __version__
        return __version__

    def configure(self, how: str) -> "Dict[str, Any]":
        from daphne import cli
        collect_from_here()
        command = cli.CommandLineInterface()
        arguments = command.parser.parse_args(sys.argv[1:])
        self.name_of_application = arguments.application
        self.options = caught_options(cli, command)
        return {
            "workers": 1,
            "timeout": HANG_SECONDS,
            "graceful_timeout": None,
            "chdir": os.getcwd(),
            "bind": binds(arguments),
            # Twisted makes its unix sockets 0666.
            "umask": 0o111,
            "backlog": DEFAULT_BACKLOG,
        }

    def load(self) -> None:
        from asgiref.compatibility import guarantee_single_callable
        from daphne.utils import import_by_path
        self.application = guarantee_single_callable(import_by_path(self.name_of_application))

    def work(self, order: "ForkOrder", supervisor: int) -> None:
        loop = fresh_loop()
        from daphne.server import Server
        heartbeat = start_heartbeat(order, supervisor)
        if self.application is None:
            self.load()
        acceptor: Acceptor
        application = observe_asgi(self.application, heartbeat.scoreboard)
        options = dict(self.options, application=application, ready_callable=lambda: acceptor.open())
        server = Server(**options)
        # They were for the constructor, which wants some.
        server.endpoints = []
        acceptor = Acceptor(loop, server, [socket_from(fd) for fd in order.sockets])
        leaving = Leaving(loop, server, acceptor)
        beat_from(loop, heartbeat, leaving)
        server.run()


def caught_options(cli: "Any", command: "Any") -> "Dict[str, Any]":
    """What daphne's command would make its Server with, and an application that is none."""
    import logging
    caught: Dict[str, Any] = {}

    class Server:
        abort_start = False

        def __init__(self, **options: "Any") -> None:
            caught.update(options)

        def run(self) -> None:
            pass

    async def nothing(scope: "Any", receive: "Any", send: "Any") -> None:
        pass

    command.server_class = Server
    cli.import_by_path = lambda _path: nothing
    # "Starting server at …" would name what sockd may bind elsewhere.
    log = logging.getLogger(cli.__name__)
    log.disabled = True
    command.run(sys.argv[1:])
    log.disabled = False
    return caught


def binds(arguments: "Any") -> "List[str]":
    """Where daphne would listen."""
    result = []
    if arguments.unix_socket:
        result.append("unix:" + arguments.unix_socket)
    if arguments.file_descriptor is not None:
        result.append("fd://%d" % arguments.file_descriptor)
    for text in arguments.socket_strings:
        if not text.startswith(("systemd:", "fd:")):
            complain("--endpoint %s is ignored: use --bind, --port or --unix-socket, or a socket unit" % text)
    said = arguments.host or arguments.port is not None
    if said or not (result or arguments.socket_strings):
        host = arguments.host or "127.0.0.1"
        result.append(tcp_bind(host.strip("[]"), 8000 if arguments.port is None else arguments.port))
    return result


def fresh_loop() -> "Any":
    """Give the reactor, which lives since the import of daphne, an event loop that no other process has."""
    import asyncio
    import daphne.server
    from twisted.internet import asyncioreactor, reactor
    reactor.waker.connectionLost(None)
    daphne.server.twisted_loop.close()
    loop = daphne.server.twisted_loop = asyncio.new_event_loop()
    if "ASGI_THREADS" in os.environ:
        from concurrent.futures import ThreadPoolExecutor
        loop.set_default_executor(ThreadPoolExecutor(max_workers=int(os.environ["ASGI_THREADS"])))
    asyncioreactor.AsyncioSelectorReactor.__init__(reactor, loop)
    return loop


class Acceptor:
    """Accepts connections and hands them to the reactor."""

    def __init__(self, loop: "Any", server: "Any", listeners: "List[socket.socket]") -> None:
        self.loop = loop
        self.server = server
        self.listeners = listeners
        self.connections: List[Any] = []

    def open(self) -> None:
        for listener in self.listeners:
            listener.setblocking(False)
            self.watch(listener)

    def watch(self, listener: "socket.socket") -> None:
        if listener in self.listeners:
            self.loop.add_reader(listener.fileno(), self.accept, listener)

    def close(self) -> None:
        for listener in self.listeners:
            self.loop.remove_reader(listener.fileno())
            listener.close()
        self.listeners = []

    def accept(self, listener: "socket.socket") -> None:
        from twisted.internet import reactor
        self.connections = [connection for connection in self.connections if connection.connected]
        for _ in range(MOST_ACCEPTS):
            try:
                accepted, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of descriptors, most likely; nothing else would hold up the loop until there are some.
                complain("cannot accept: %s" % error.strerror)
                self.loop.remove_reader(listener.fileno())
                self.loop.call_later(1, self.watch, listener)
                return
            with accepted:
                accepted.setblocking(False)
                try:
                    connection = reactor.adoptStreamConnection(
                        accepted.fileno(), accepted.family, self.server.http_factory)
                except OSError:
                    # It has gone again.
                    continue
            if connection:
                self.connections.append(connection)


class Leaving:
    """SIGTERM and SIGUSR2: serve what was asked, then stop the reactor. daphne alone drops what is in flight."""

    def __init__(self, loop: "Any", server: "Any", acceptor: "Any") -> None:
        self.loop = loop
        self.server = server
        self.acceptor = acceptor
        self.drain = Drain()
        self.patient = False
        self.begun = False
        self.idle = IdleConnections()

    def listen_to_signals(self) -> None:
        import signal
        self.drain.on_usr2()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.on_signal)

    def on_signal(self, _signal: int, _frame: "Optional[FrameType]") -> None:
        self.patient, self.drain.patient = self.drain.patient, False
        self.loop.call_soon_threadsafe(lambda: self.loop.create_task(self.leave()))

    async def leave(self) -> None:
        if not self.patient:
            self.close_websockets()
        if self.begun:
            return
        self.begun = True
        from asyncio import sleep
        from twisted.internet import reactor
        self.acceptor.close()
        close_after_the_answer()
        await read_what_was_accepted()
        while self.close_idle_connections() or self.application_is_busy():
            await sleep(LOOK_SECONDS)
        reactor.stop()

    def close_websockets(self) -> None:
        """Tell them that the service restarts (1012 of RFC 6455's registry), as daphne tells them of an error."""
        for protocol in self.server.connections:
            if hasattr(protocol, "sendCloseFrame") and protocol.state == protocol.STATE_OPEN:
                protocol.sendCloseFrame(code=1012)

    def close_idle_connections(self) -> int:
        """Close those that are idle, in time; how many are left, closed ones that still send too."""
        busy = {id(protocol.transport) for protocol, details in self.server.connections.items()
                if not details.get("disconnected")}
        left = [connection for connection in self.acceptor.connections if connection.connected]
        idle = {each: each.fileno() for each in left if id(each) not in busy and is_between_requests(each.protocol)}
        for connection in self.idle.overdue(idle, KEEP_ALIVE_SECONDS if self.patient else IDLE_SECONDS):
            connection.loseConnection()
        return len(left)

    def application_is_busy(self) -> bool:
        instances = [details.get("application_instance") for details in self.server.connections.values()]
        return any(instance and not instance.done() for instance in instances)


def is_between_requests(protocol: "Any") -> bool:
    """Whether Twisted has read nothing of a request."""
    channel = getattr(protocol, "_channel", protocol)
    return (getattr(channel, "_HTTPChannel__first_line", True)
            and not any(getattr(channel, name, None) for name in ("requests", "_buffer", "_dataBuffer")))


def close_after_the_answer() -> None:
    """From now on no connection is kept alive."""
    from twisted.web.http import HTTPChannel

    def check_persistence(_self: "Any", request: "Any", _version: "Any") -> bool:
        request.responseHeaders.setRawHeaders(b"connection", [b"close"])
        return False

    HTTPChannel.checkPersistence = check_persistence


def beat_from(loop: "Any", heartbeat: "Heartbeat", leaving: "Any") -> None:
    """Beat once a second from the loop; its first turn is the readiness."""
    from twisted.internet import reactor

    def beat() -> None:
        heartbeat.notify()
        loop.call_later(1, beat)

    # After the reactor has installed its own handlers.
    reactor.callWhenRunning(leaving.listen_to_signals)
    reactor.callWhenRunning(beat)


def main() -> None:
    run(Daphne())
