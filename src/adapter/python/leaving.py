"""How a worker leaves without losing anybody: what all servers share.

What it is for. Whoever keeps a connection, a proxy for one, may be sending the next request on it when the worker is
told to leave, and cannot know what became of that request if the connection ends instead of an answer. So a leaving
worker accepts nobody any more, reads what it has accepted, answers whatever else comes on its connections with
"Connection: close", and closes a connection itself only after nothing has come on it for a while: for the server's own
keep-alive timeout if the worker is replaced, which is when it would have closed it anyway, and for IDLE_SECONDS if the
service ends.

What it owns. Nothing. What it must never do. Set a limit to a drain: that is sockd's.
"""

# At the end of the service.
IDLE_SECONDS = 0.5
# Of a server without a keep-alive timeout, or with one that is for other things as well.
KEEP_ALIVE_SECONDS = 5
# So often a leaving worker looks at its connections.
LOOK_SECONDS = 0.1
CLOSE = (b"connection", b"close")


class IdleConnections:
    """Since when each connection has been idle."""

    def __init__(self):
        self.since = {}

    def overdue(self, idle, seconds):
        """Those of the connections that have been idle for so long. `idle` has all idle ones, and their descriptors."""
        from time import monotonic
        now = monotonic()
        self.since = {connection: self.since.get(connection, now) for connection in idle}
        return [connection for connection, since in self.since.items()
                if now - since >= seconds and not has_come(idle[connection])]


def has_come(fd):
    """Whether there is something to read, or the other side has closed, or we have."""
    from select import POLLIN, poll
    if fd < 0:
        return True
    one = poll()
    one.register(fd, POLLIN)
    return bool(one.poll(0))


def accept_nobody(loop, servers):
    """Have asyncio's servers accept nobody any more, but lose nobody whom they have accepted.

    asyncio drops, when a server closes, whom it has accepted and is about to hand over. uvloop hands over at once, and
    knows no other way to stop accepting.
    """
    for server in servers:
        if not all([loop.remove_reader(listener.fileno()) for listener in server.sockets or ()]):
            server.close()


def announcing_close(application):
    """An ASGI application whose answers, of HTTP/1, announce the end of the connection."""
    async def announcing(scope, receive, send, *rest):
        async def announce(message):
            if message["type"] == "http.response.start":
                message = dict(message, headers=[*message.get("headers", ()), CLOSE])
            await send(message)

        return await application(scope, receive, announce, *rest)

    return announcing
