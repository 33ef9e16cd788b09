"""Open WebSockets, for servers that drop them without a word when they leave: hypercorn and granian.

What it owns. Who is connected, and how each is told to go. What it must never do. Keep a worker: sockd's drain-timeout
does that.
"""


class WebSockets:
    """Stands before the application, so that its WebSockets can be closed."""

    # RFC 6455 and its registry: the service restarts; come back.
    GOING = 1012

    def __init__(self):
        self.open = set()
        self.told = set()
        self.when_none_is_left = lambda: None

    def watch(self, application):
        """An ASGI application whose WebSockets are known here."""
        async def watched(scope, receive, send, *rest):
            called = application(scope, receive, send, *rest)
            if scope["type"] != "websocket":
                return await called
            return await self.during(called, lambda: send({"type": "websocket.close", "code": self.GOING}))

        return watched

    async def during(self, connection, close):
        """Wait for the end of a connection, which `close`, a coroutine function, would bring about."""
        self.open.add(close)
        try:
            return await connection
        finally:
            self.open.discard(close)
            self.told.discard(close)
            if not self.open:
                self.when_none_is_left()

    async def close(self):
        """Tell all that were not told."""
        for close in self.open - self.told:
            self.told.add(close)
            try:
                await close()
            except Exception as error:
                complain("a WebSocket could not be closed: %s" % error)


