"""Open WebSockets, for servers that drop them without a word when they leave: hypercorn and granian.

What it owns. The open connections, and how each is closed. What it must never do. Keep a worker: sockd's drain-timeout
does that.
"""

from .log import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Awaitable, Callable, Set

    from .drain import Application

    Close = Callable[[], Awaitable[Any]]


class WebSockets:
    """Stands before the application, so that its WebSockets can be closed."""

    # RFC 6455 and its registry: the service restarts; come back.
    GOING = 1012

    def __init__(self) -> None:
        self.open: Set[Close] = set()
        # Those that close() has begun to close.
        self.closing: Set[Close] = set()
        self.when_none_is_left: Callable[[], object] = lambda: None

    def watch(self, application: "Application") -> "Application":
        """An ASGI application whose WebSockets are known here."""
        async def watched(scope: "Any", receive: "Any", send: "Any", *rest: "Any") -> "Any":
            called = application(scope, receive, send, *rest)
            if scope["type"] != "websocket":
                return await called
            return await self.during(called, lambda: send({"type": "websocket.close", "code": self.GOING}))

        return watched

    async def during(self, connection: "Awaitable[Any]", close: "Close") -> "Any":
        """Wait for the end of a connection, which `close`, a coroutine function, would bring about."""
        self.open.add(close)
        try:
            return await connection
        finally:
            self.open.discard(close)
            self.closing.discard(close)
            if not self.open:
                self.when_none_is_left()

    async def close(self) -> None:
        """Close each that is open, once."""
        for close in self.open - self.closing:
            self.closing.add(close)
            try:
                await close()
            except Exception as error:
                complain("a WebSocket could not be closed: %s" % error)
