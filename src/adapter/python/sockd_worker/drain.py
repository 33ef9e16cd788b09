"""How a worker leaves without losing anybody: what all servers share.

What it is for. A client that keeps a connection, a proxy for one, may be sending the next request on it when the worker
is to leave, and cannot know what became of that request if the connection ends instead of an answer. So a leaving
worker accepts nobody any more, reads what it has accepted, answers whatever else comes on its connections with
"Connection: close", and closes a connection itself only after nothing has come on it for a while: for the server's own
keep-alive timeout if the worker is replaced, which is when it would have closed it anyway, and for IDLE_SECONDS if the
service ends.

What it owns. Nothing. What it must never do. Set a limit to a drain: that is sockd's.
"""

import os
import signal

from .signals import DRAIN_TOKEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, Awaitable, Callable, Dict, Hashable, Iterable, List, MutableMapping, Optional, TypeVar

    Application = Callable[..., Awaitable[Any]]
    Connection = TypeVar("Connection", bound=Hashable)

# At the end of the service.
IDLE_SECONDS = 0.5
# Of a server without a keep-alive timeout, or with one that is for other things as well.
KEEP_ALIVE_SECONDS = 5
# So often a leaving worker looks at its connections.
LOOK_SECONDS = 0.1
CLOSE = (b"connection", b"close")


class IdleConnections:
    """Since when each connection has been idle."""

    def __init__(self) -> None:
        self.since: Dict[Any, float] = {}

    def overdue(self, idle: "Dict[Connection, int]", seconds: float) -> "List[Connection]":
        """Those of the connections that have been idle for so long. `idle` has all idle ones, and their descriptors."""
        from time import monotonic
        now = monotonic()
        self.since = {connection: self.since.get(connection, now) for connection in idle}
        return [connection for connection, since in self.since.items()
                if now - since >= seconds and not has_come(idle[connection])]


def has_come(fd: int) -> bool:
    """Whether there is something to read, or we have closed.

    That the other side has closed is nothing to read: an event loop closes such a connection itself, but uvicorn 0.15
    never learns of an end that came before its own part of the connection was there, as uvloop has it.
    """
    from select import POLLIN, poll
    from socket import MSG_DONTWAIT, MSG_PEEK, socket
    if fd < 0:
        return True
    one = poll()
    one.register(fd, POLLIN)
    if not one.poll(0):
        return False
    try:
        with socket(fileno=os.dup(fd)) as connection:
            return bool(connection.recv(1, MSG_PEEK | MSG_DONTWAIT))
    except OSError:
        return True


def accept_nobody(loop: "Any", servers: "Iterable[Any]") -> None:
    """Have asyncio's servers accept nobody any more, but lose nobody whom they have accepted.

    asyncio drops, when a server closes, whom it has accepted and is about to hand over. uvloop hands over at once, and
    knows no other way to stop accepting.
    """
    for server in servers:
        if not all([loop.remove_reader(listener.fileno()) for listener in server.sockets or ()]):
            server.close()


def announcing_close(application: "Application") -> "Application":
    """An ASGI application whose answers, of HTTP/1, announce the end of the connection."""
    async def announcing(scope: "Any", receive: "Any", send: "Any", *rest: "Any") -> "Any":
        async def announce(message: "MutableMapping[str, Any]") -> None:
            if message["type"] == "http.response.start":
                message = dict(message, headers=[*message.get("headers", ()), CLOSE])
            await send(message)

        return await application(scope, receive, announce, *rest)

    return announcing


async def read_what_was_accepted(sleep: "Optional[Callable[[float], Awaitable[Any]]]" = None) -> None:
    """Let an event loop turn some more, so that it meets what visitors have sent or are about to send.

    A connection takes up to three turns from accept() to its first read. `sleep` is that of the loop, asyncio's if none
    is given.
    """
    if sleep is None:
        import asyncio
        sleep = asyncio.sleep
    for _ in range(5):
        await sleep(0.02)


class Drain:
    """A worker that is replaced gets SIGUSR2: SIGTERM, but long-lived connections may live until sockd's drain-timeout.

    Only from sockd, which sends DRAIN_TOKEN before: SIGUSR2 is also what people send to a whole unit. `patient` says
    whether it came; `begun` is called before the server learns of it.
    """

    def __init__(self, begun: "Callable[[], object]" = lambda: None) -> None:
        self.patient = False
        self.begun = begun
        # Has the server leave. A server whose signals an event loop handles has a way of its own: uvloop handles a
        # signal twice that a handler of Python's sends to its own process, and the second one would end the patience.
        self.leave: Callable[[], object] = lambda: os.kill(os.getpid(), signal.SIGTERM)

    def on_usr2(self) -> None:
        signal.signal(signal.SIGUSR2, self.begin)

    def begin(self, _signal: int, _frame: "Optional[FrameType]") -> None:
        if not came_from(DRAIN_TOKEN, os.getppid()):
            return
        self.patient = True
        self.begun()
        self.leave()


def came_from(number: int, sender: int) -> bool:
    """Whether this process has sent one of the signals of this number that wait, blocked; none waits any more."""
    found = False
    while True:
        info = signal.sigtimedwait([number], 0)
        if info is None:
            return found
        found = found or info.si_pid == sender
