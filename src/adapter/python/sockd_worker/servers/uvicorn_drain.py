"""How uvicorn leaves without losing anybody: for uvicorn itself, and for gunicorn's uvicorn workers.

What it must never do. Keep WebSockets at the end of the service: then uvicorn closes them at once, which is right.
"""

import signal

from ..drain import CLOSE, IDLE_SECONDS, LOOK_SECONDS, IdleConnections, accept_nobody, read_what_was_accepted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Set

    from ..drain import Drain

# Reached into, and not documented; tried with uvicorn 0.15.0 to 0.54.0:
#   uvicorn.server.Server              startup(), shutdown() and handle_exit() replaced; servers
#   uvicorn.server.ServerState         connections, default_headers
#   uvicorn.protocols                  of each connection: shutdown(), transport, cycle, cycles, parser, scope, conn,
#                                      default_headers; of a cycle: response_started, response_complete, scope


def drain_uvicorn(drain: "Drain") -> None:
    """Leave as drain.py says, and let WebSockets live until sockd's drain-timeout (see Drain).

    uvicorn closes idle connections, those whose request it has not read yet, and WebSockets, as soon as it shuts down.
    A reload must not: requests would be lost, and the visitors' pages would all come back in the same moment. The
    second SIGTERM closes the WebSockets that are left at the end of the drain.
    """
    from uvicorn import server
    startup, shutdown, handle_exit = server.Server.startup, server.Server.shutdown, server.Server.handle_exit

    async def start_up(self: "Any", sockets: "Any" = None) -> None:
        from asyncio import get_running_loop
        loop = get_running_loop()
        # See Drain.leave; uvicorn before 0.29 has its loop handle signals.
        drain.leave = lambda: loop.call_soon_threadsafe(handle_exit, self, signal.SIGTERM, None)
        await startup(self, sockets)

    async def shut_down(self: "Any", sockets: "Any" = None) -> None:
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

    def end_patience(self: "Any", number: int, frame: "Any") -> None:
        drain.patient = False
        handle_exit(self, number, frame)

    server.Server.startup, server.Server.shutdown, server.Server.handle_exit = start_up, shut_down, end_patience


async def close_connections(server: "Any", drain: "Drain") -> None:
    """Close what is idle, in time, and WebSockets when the service ends. Each is asked once: that may take time."""
    from asyncio import sleep
    asked: Set[Any] = set()
    idle = IdleConnections()
    while True:
        seconds = server.config.timeout_keep_alive if drain.patient else IDLE_SECONDS
        connections = server.server_state.connections - asked
        overdue = idle.overdue({each: descriptor_of(each) for each in connections if is_idle(each)}, seconds)
        if not drain.patient:
            overdue += filter(is_websocket, connections)
        for connection in overdue:
            asked.add(connection)
            type(connection).shutdown(connection)
        await sleep(LOOK_SECONDS)


def announce_close(state: "Any") -> None:
    """Have all answers that have not begun yet say that the connection ends with them."""
    state.default_headers = [*state.default_headers, CLOSE]
    for connection in state.connections:
        cycle: Any = getattr(connection, "cycle", None)
        # Up to uvicorn 0.17 each connection has its own.
        for holder in (connection, cycle):
            if hasattr(holder, "default_headers") and not getattr(holder, "response_started", False):
                holder.default_headers = [*holder.default_headers, CLOSE]


def is_websocket(connection: "Any") -> bool:
    return type(connection).__module__.startswith("uvicorn.protocols.websockets")


def is_idle(connection: "Any") -> bool:
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


def descriptor_of(connection: "Any") -> int:
    return connection.transport.get_extra_info("socket").fileno()
