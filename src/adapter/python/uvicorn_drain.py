"""How uvicorn leaves without losing anybody: for uvicorn itself, and for gunicorn's uvicorn workers.

What it must never do. Keep WebSockets at the end of the service: then uvicorn closes them at once, which is right.
"""


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
        for listening in self.servers:
            listening.close()
        await read_what_was_accepted()
        if drain.patient:
            # sockd has a limit of its own.
            self.config.timeout_graceful_shutdown = None
            for connection in self.server_state.connections:
                if type(connection).__module__.startswith("uvicorn.protocols.websockets"):
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
