"""How gunicorn's own workers leave without losing anybody, where they do not by themselves.

What it must never do. Keep a worker that gunicorn would let go: sync, gevent and eventlet are left as they are.
"""

import signal
import sys

from ..drain import (
    IDLE_SECONDS, KEEP_ALIVE_SECONDS, LOOK_SECONDS, IdleConnections, accept_nobody, read_what_was_accepted)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Set

    from ..drain import Drain

# Reached into, and not documented; tried with gunicorn 19.9.0 to 27.0.1, gevent 26.9.0 and tornado 6.6.1:
#   gunicorn.workers.gasgi       since 24: ASGIProtocol with _will_close(), _awaiting_request, _keepalive_timeout(),
#                                req_count and transport; ASGIWorker's _shutdown(), loop, servers, handle_exit_signal()
#   gunicorn.workers.gtornado    heartbeat(), server_alive, server
#   tornado                      HTTPServer's conn_params and _connections, IOStream's _read_regex and _read_buffer_size
#   gunicorn.workers.ggevent     wsgi_handler
#   gevent.pywsgi.WSGIHandler    read_requestline(), finalize_headers(), close_connection, response_headers
#   gunicorn.workers.gthread     before 24: _lock, _keep, poller, tpool, nr_conns, finish_request(),
#                                on_client_socket_readable() or, older, reuse_connection()


def drain_gunicorn(worker: "Any", drain: "Drain") -> None:
    """Leave as drain.py says, whichever class the worker is of."""
    for name, class_name, arrange in (("gunicorn.workers.gasgi", "ASGIWorker", drain_asgi),
                                      ("gunicorn.workers.gtornado", "TornadoWorker", drain_tornado),
                                      ("gunicorn.workers.ggevent", "GeventPyWSGIWorker", drain_pywsgi),
                                      ("gunicorn.workers.gthread", "ThreadWorker", drain_gthread)):
        if name in sys.modules and isinstance(worker, getattr(sys.modules[name], class_name)):
            arrange(worker, drain)


def until_the_second(worker: "Any", drain: "Drain", handle: "Any") -> "Callable[..., Any]":
    """A handler of SIGTERM; the second one is the end of a patient drain."""
    def handle_exit(*arguments: "Any") -> None:
        if not worker.alive:
            drain.patient = False
        handle(*arguments)

    return handle_exit


def drain_asgi(worker: "Any", drain: "Drain") -> None:
    """gunicorn's asgi worker loses whom it has just accepted, and waits for a client that never says anything."""
    module: Any = sys.modules["gunicorn.workers.gasgi"]
    connections: Set[Any] = set()
    shutdown = worker._shutdown

    class Protocol(module.ASGIProtocol):
        # The number of the request of which something has come.
        heard = 0
        # The request that is answered, or was last.
        answered = None

        def __init__(self, worker: "Any") -> None:
            super().__init__(WorkerOfOne(worker))

        def _will_close(self, request: "Any", *arguments: "Any") -> bool:
            """Whether the answer announces the end of the connection; asked as it begins, and once more at its end."""
            if request is not self.answered:
                self.answered, self.worker.has_promised = request, False
            self.worker.has_promised = not super()._will_close(request, *arguments)
            return not self.worker.has_promised

        def connection_made(self, transport: "Any") -> None:
            connections.add(self)
            super().connection_made(transport)

        def connection_lost(self, error: "Any") -> None:
            connections.discard(self)
            super().connection_lost(error)

        def data_received(self, data: "Any") -> None:
            self.heard = self.req_count
            super().data_received(data)

        def is_idle(self) -> bool:
            return getattr(self, "_awaiting_request", False) and self.heard != self.req_count

    async def close_idle_connections() -> None:
        from asyncio import sleep
        idle = IdleConnections()
        while True:
            seconds = worker.cfg.keepalive if drain.patient else IDLE_SECONDS
            descriptors = {each: each.transport.get_extra_info("socket").fileno()
                           for each in connections if each.is_idle()}
            for connection in idle.overdue(descriptors, seconds):
                connection._keepalive_timeout()
            await sleep(LOOK_SECONDS)

    async def shut_down() -> None:
        accept_nobody(worker.loop, worker.servers)
        await read_what_was_accepted()
        closing = worker.loop.create_task(close_idle_connections())
        await shutdown()
        closing.cancel()

    def handle_exit() -> None:
        drain.patient = False
        worker.handle_exit_signal()

    module.ASGIProtocol = Protocol
    worker._shutdown = shut_down
    # See Drain.leave.
    drain.leave = lambda: worker.loop.call_soon_threadsafe(worker.handle_exit_signal)
    worker.loop.add_signal_handler(signal.SIGTERM, handle_exit)


class WorkerOfOne:
    """gunicorn's asgi worker as one connection sees it: alive, too, if its last answer has promised to be kept."""

    def __init__(self, worker: "Any") -> None:
        vars(self).update(worker=worker, has_promised=False)

    def __getattr__(self, name: str) -> "Any":
        return getattr(self.worker, name)

    def __setattr__(self, name: str, value: "Any") -> None:
        if name == "has_promised":
            vars(self)[name] = value
        else:
            setattr(self.worker, name, value)

    @property
    def alive(self) -> bool:
        return self.worker.alive or self.has_promised


def drain_tornado(worker: "Any", drain: "Drain") -> None:
    """gunicorn's tornado worker ends its loop a second after it has stopped to accept."""
    heartbeat, idle = worker.heartbeat, IdleConnections()

    def heartbeat_until_all_have_gone() -> None:
        if worker.alive:
            return
        if worker.server_alive:
            worker.server.conn_params.no_keep_alive = True
        elif worker.server._connections:
            descriptors = {each: each.stream.socket.fileno()
                           for each in worker.server._connections if is_idle(each.stream)}
            for connection in idle.overdue(descriptors, KEEP_ALIVE_SECONDS if drain.patient else IDLE_SECONDS):
                connection.stream.close()
            return
        heartbeat()

    def is_idle(stream: "Any") -> bool:
        """Whether the head of a request is waited for, and nothing of it has come."""
        return not stream.closed() and stream._read_regex is not None and not stream._read_buffer_size

    worker.heartbeat = heartbeat_until_all_have_gone
    signal.signal(signal.SIGTERM, until_the_second(worker, drain, worker.handle_exit))


def drain_pywsgi(worker: "Any", drain: "Drain") -> None:
    """gevent's own WSGI server never tells a kept connection that it ends, and waits for it as long as it lasts."""
    waiting = {}

    class Handler(worker.wsgi_handler):
        close_connection: "Any"

        def read_requestline(self) -> "Any":
            waiting[self] = self.socket
            try:
                return super().read_requestline()
            finally:
                del waiting[self]

        def finalize_headers(self) -> None:
            if not worker.alive and not self.close_connection:
                self.close_connection = True
                self.response_headers.append((b"Connection", b"close"))
            super().finalize_headers()

    def close_idle_connections() -> None:
        from socket import SHUT_RD
        from gevent import sleep
        idle = IdleConnections()
        while True:
            seconds = worker.cfg.keepalive if drain.patient else IDLE_SECONDS
            for handler in idle.overdue({each: its.fileno() for each, its in waiting.items()}, seconds):
                # It reads the end of the connection.
                waiting[handler].shutdown(SHUT_RD)
            sleep(LOOK_SECONDS)

    def handle_exit(number: int, frame: "Any") -> None:
        if worker.alive:
            from gevent import spawn
            spawn(close_idle_connections)
        handle(number, frame)

    handle = until_the_second(worker, drain, worker.handle_exit)
    worker.wsgi_handler = Handler
    signal.signal(signal.SIGTERM, handle_exit)


def drain_gthread(worker: "Any", drain: "Drain") -> None:
    """gunicorn's gthread worker let go of idle connections, and of new ones, at once; since 24 it drains by itself."""
    if hasattr(worker, "wait_for_and_dispatch_events"):
        return
    from functools import partial
    from time import monotonic
    finish_request, shut_down_threads = worker.finish_request, worker.tpool.shutdown
    read_again = getattr(worker, "on_client_socket_readable", None) or worker.reuse_connection

    def finish(future: "Any") -> "Any":
        """Keep a connection whose answer has promised it, also where the worker has begun to leave meanwhile."""
        if worker.alive or future.cancelled() or future.exception() or not future.result()[0]:
            return finish_request(future)
        connection = future.result()[1]
        connection.sock.setblocking(False)
        connection.set_timeout()
        with worker._lock:
            worker._keep.append(connection)
            worker.poller.register(connection.sock, 1, partial(read_again, connection))

    def close(connection: "Any") -> None:
        with worker._lock:
            worker.poller.unregister(connection.sock)
            if connection in worker._keep:
                worker._keep.remove(connection)
        worker.nr_conns -= 1
        connection.close()

    def drain_first(*arguments: "Any") -> None:
        """The first thing that the worker does after its loop."""
        for listener in worker.sockets:
            worker.poller.unregister(listener)
        idle, limit = IdleConnections(), monotonic() + worker.cfg.graceful_timeout
        while worker.nr_conns > 0 and monotonic() < limit:
            for key, _ in worker.poller.select(LOOK_SECONDS):
                key.data(key.fileobj)
            waiting = {key.data.args[0]: key.fd for key in list(worker.poller.get_map().values())}
            for connection in idle.overdue(waiting, worker.cfg.keepalive if drain.patient else IDLE_SECONDS):
                close(connection)
        shut_down_threads(*arguments)

    worker.finish_request, worker.tpool.shutdown = finish, drain_first
    signal.signal(signal.SIGTERM, until_the_second(worker, drain, worker.handle_exit))
