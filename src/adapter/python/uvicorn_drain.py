"""How uvicorn leaves without losing anybody: for uvicorn itself, and for gunicorn's uvicorn workers.

What it must never do. Keep WebSockets at the end of the service: then uvicorn closes them at once, which is right.
"""

import signal


def drain_uvicorn(drain):
    """Leave as leaving.py says, and let WebSockets live until sockd's drain-timeout (see Drain).

    uvicorn closes idle connections, those whose request it has not read yet, and WebSockets, as soon as it shuts down. A
    reload must not: requests would be lost, and the visitors' pages would all come back in the same moment. WebSockets
    that are left at the end of the drain are told by the second SIGTERM.
    """
    from uvicorn import server
    startup, shutdown, handle_exit = server.Server.startup, server.Server.shutdown, server.Server.handle_exit

    async def start_up(self, sockets=None):
        from asyncio import get_running_loop
        loop = get_running_loop()
        # See Drain.leave; uvicorn before 0.29 has its loop handle signals.
        drain.leave = lambda: loop.call_soon_threadsafe(handle_exit, self, signal.SIGTERM, None)
        await startup(self, sockets)

    async def shut_down(self, sockets=None):
        from asyncio import get_running_loop
        loop = get_running_loop()
        announce_close(self.server_state)
        accept_nobody(loop, self.servers)
        await read_what_was_accepted()
        for connection in self.server_state.connections:
            connection.shutdown = lambda: None
        if drain.patient:
            # sockd has a limit of its own.
            self.config.timeout_graceful_shutdown = None
        closing = loop.create_task(close_connections(self, drain))
        await shutdown(self, sockets)
        closing.cancel()

    def end_patience(self, number, frame):
        drain.patient = False
        handle_exit(self, number, frame)

    server.Server.startup, server.Server.shutdown, server.Server.handle_exit = start_up, shut_down, end_patience


async def close_connections(server, drain):
    """Close what is idle, in time, and WebSockets when the service ends. Each is asked once: that may take time."""
    from asyncio import sleep
    idle, told = IdleConnections(), set()
    while True:
        seconds = server.config.timeout_keep_alive if drain.patient else IDLE_SECONDS
        connections = server.server_state.connections - told
        overdue = idle.overdue({each: descriptor_of(each) for each in connections if is_idle(each)}, seconds)
        if not drain.patient:
            overdue += filter(is_websocket, connections)
        for connection in overdue:
            told.add(connection)
            type(connection).shutdown(connection)
        await sleep(LOOK_SECONDS)


def announce_close(state):
    """Have all answers that have not begun yet say that the connection ends with them."""
    state.default_headers = [*state.default_headers, CLOSE]
    for connection in state.connections:
        cycle = getattr(connection, "cycle", None)
        # Up to uvicorn 0.17 each connection has its own.
        for holder in (connection, cycle):
            if hasattr(holder, "default_headers") and not getattr(holder, "response_started", False):
                holder.default_headers = [*holder.default_headers, CLOSE]


def is_websocket(connection):
    return type(connection).__module__.startswith("uvicorn.protocols.websockets")


def is_idle(connection):
    """Whether there is no request, not even the beginning of one."""
    if is_websocket(connection):
        return False
    if hasattr(connection, "cycles"):
        # HTTP/2.
        return not connection.cycles
    cycle = connection.cycle
    if cycle is not None and not cycle.response_complete:
        return False
    if hasattr(connection, "parser"):
        # httptools has begun to read the next request.
        return connection.scope is None or cycle is not None and cycle.scope is connection.scope
    return not getattr(connection.conn, "trailing_data", [b""])[0]


def descriptor_of(connection):
    return connection.transport.get_extra_info("socket").fileno()
