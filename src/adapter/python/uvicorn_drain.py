"""uvicorn's WebSockets live on while their worker drains: for uvicorn itself, and for gunicorn's uvicorn workers.

What it must never do. Keep them at the end of the service: then uvicorn closes them at once, which is right.
"""


def spare_uvicorns_websockets(drain):
    """Until sockd's drain-timeout, when the worker is replaced: see Drain.

    uvicorn closes them when it shuts down. A reload must not: the visitors' pages would all come back in the same
    moment.
    """
    from uvicorn import server
    shutdown = server.Server.shutdown

    async def shut_down(self, sockets=None):
        if drain.patient:
            for connection in self.server_state.connections:
                if type(connection).__module__.startswith("uvicorn.protocols.websockets"):
                    connection.shutdown = lambda: None
        await shutdown(self, sockets)

    server.Server.shutdown = shut_down
