"""The WebSockets of an ASGI server that does not close them when it leaves: hypercorn and daphne.

What it must never do. Touch anything that is no WebSocket.
"""


class WebSockets:
    """Stands before an application, so that WebSockets can be told to go in the application's name."""

    # RFC 6455 and its registry: the service restarts; come back.
    GOING = 1012

    def __init__(self):
        self.open = set()

    def watch(self, application):
        async def watched(scope, receive, send, *rest):
            if scope["type"] != "websocket":
                return await application(scope, receive, send, *rest)
            self.open.add(send)
            try:
                return await application(scope, receive, send, *rest)
            finally:
                self.open.discard(send)

        return watched

    async def close(self):
        for send in list(self.open):
            try:
                await send({"type": "websocket.close", "code": self.GOING})
            except Exception as error:
                complain("a WebSocket could not be closed: %s" % error)
