"""How uvicorn leaves without losing anybody: for uvicorn itself, and for gunicorn's uvicorn workers.

What it must never do. Keep WebSockets at the end of the service: then uvicorn closes them at once, which is right.
"""

# An accepted connection whose request has not come is closed after this time.
FIRST_REQUEST_SECONDS = 1.0


def drain_uvicorn(drain):
    """Serve every request of an accepted connection, and let WebSockets live until sockd's drain-timeout (see Drain).

    uvicorn closes connections whose request it has not read yet, and WebSockets, as soon as it shuts down. A reload
    must not: requests would be lost, and the visitors' pages would all come back in the same moment. WebSockets that
    are left at the end of the drain are told by the second SIGTERM.
    """
    from uvicorn import server
    shutdown, handle_exit = server.Server.shutdown, server.Server.handle_exit
    spared = []

    async def shut_down(self, sockets=None):
        from asyncio import get_running_loop
        loop, connections = get_running_loop(), self.server_state.connections
        # Not by closing the servers: asyncio drops what it has accepted and is about to hand over when one closes.
        for listening in self.servers:
            for public in listening.sockets:
                loop.remove_reader(public.fileno())
        await read_what_was_accepted()
        for connection in connections:
            if not has_asked(connection):
                connection.shutdown = lambda it=connection: loop.call_later(
                    FIRST_REQUEST_SECONDS, lambda: it in connections and type(it).shutdown(it))
        if drain.patient:
            # sockd has a limit of its own.
            self.config.timeout_graceful_shutdown = None
            for connection in connections:
                if is_websocket(connection):
                    spared.append(connection.shutdown)
                    connection.shutdown = lambda: None
        await shutdown(self, sockets)

    def close_spared(self, number, frame):
        from asyncio import get_running_loop
        if self.should_exit:
            drain.patient = False
            while spared:
                get_running_loop().call_soon_threadsafe(spared.pop())
        handle_exit(self, number, frame)

    server.Server.shutdown, server.Server.handle_exit = shut_down, close_spared


def is_websocket(connection):
    return type(connection).__module__.startswith("uvicorn.protocols.websockets")


def has_asked(connection):
    # HTTP/2 has several requests at a time.
    return is_websocket(connection) or bool(getattr(connection, "cycle", None) or getattr(connection, "cycles", None))
