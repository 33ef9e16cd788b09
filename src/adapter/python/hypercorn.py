"""The template of hypercorn: template.py with hypercorn's own command line, Config and worker functions.

What it is for. A worker is the function that hypercorn's own worker processes run (asyncio, uvloop or trio), with the
sockets that sockd hands over; only hypercorn's supervisor of processes and its reloader are replaced.

What it owns. hypercorn's Config. What it must never do. Import the application before the fork, unless it is
preloaded.
"""

import importlib
import math
import os
import sys

# A patient drain has sockd's limit alone: seconds that nobody lives to see.
WITHOUT_LIMIT = 10 ** 8


class Hypercorn(AppServer):
    """What template.py asks of a server."""

    name = "hypercorn"
    module = "hypercorn.__main__"

    def version(self):
        from importlib.metadata import version
        return version("hypercorn")

    def configure(self, how):
        from hypercorn import __main__ as command
        collect_from_here()
        caught = []
        command.run = caught.append
        command.main()
        self.config = config = caught[0]
        if config.use_reloader:
            complain("--reload is ignored: reload the service instead")
        if config.quic_bind:
            complain("--quic-bind is ignored: sockd has no sockets for QUIC")
        self.worker = worker_function(config.worker_class)
        return {
            "workers": max(1, config.workers),
            "timeout": HANG_SECONDS,
            "graceful_timeout": math.ceil(config.graceful_timeout),
            "chdir": os.getcwd(),
            "bind": [bind(text) for text in config.bind + config.insecure_bind * config.ssl_enabled],
            "umask": own_umask() if config.umask is None else config.umask,
            "backlog": config.backlog,
        }

    def load(self):
        from hypercorn.utils import load_application
        application = load_application(self.config.application_path, self.config.wsgi_max_body_size)
        load_through(lambda _load: application)

    def work(self, order, supervisor):
        from hypercorn.config import Sockets
        config = self.config
        config.workers = 1
        heartbeat = start_heartbeat(HANG_SECONDS, supervisor)
        if config.max_requests is not None:
            config.max_requests = RequestLimit(config.max_requests).reporting_to(heartbeat.notifier)
        public = [socket_from(fd) for fd in order.sockets]
        probe = [public.pop()] if order.has_probe else []
        if config.ssl_enabled:
            sockets = Sockets(public, probe, [])
        else:
            sockets = Sockets([], public + probe, [])
        websockets = WebSockets()
        load_through(lambda load: websockets.watch(load()))
        close_idle_connections_later()
        self.worker(config, sockets, shutdown_event=ShutdownEvent(config, heartbeat, websockets))


def worker_function(worker_class):
    """As hypercorn.run.run() chooses it; an unknown class is its error, too."""
    if worker_class == "trio":
        return importlib.import_module("hypercorn.trio.run").trio_worker
    if worker_class not in ("asyncio", "uvloop"):
        raise ValueError("No worker of class %s exists" % worker_class)
    if worker_class == "uvloop":
        importlib.import_module("uvloop")
    return getattr(importlib.import_module("hypercorn.asyncio.run"), worker_class + "_worker")


def bind(text):
    """A bind of hypercorn's as the report has it."""
    if text.startswith(("unix:", "fd://")):
        return text
    host, _, port = text.replace("[", "").replace("]", "").rpartition(":")
    return tcp_bind(host, int(port)) if host and port.isdigit() else tcp_bind(text, 8000)


def load_through(loader):
    """Have the worker function get its application from `loader`, which is given the way to load it so far."""
    for name in ("hypercorn.asyncio.run", "hypercorn.trio.run"):
        module = sys.modules.get(name)
        if module:
            load = module.load_application
            module.load_application = lambda *arguments, load=load: loader(lambda: load(*arguments))


def close_idle_connections_later():
    """Read what visitors have sent before idle connections are closed.

    hypercorn closes every connection that has no request in the moment in which it stops to accept: also those whose
    request it has not read yet, which would be lost.
    """
    for name, later in (("hypercorn.asyncio.run", in_a_task_of_asyncio), ("hypercorn.trio.run", at_once_in_trio)):
        module = sys.modules.get(name)
        if module:
            module.WorkerContext = context_that_waits(module.WorkerContext, later)


def context_that_waits(context_class, later):
    """hypercorn's WorkerContext, whose event `terminated` is set `later`."""
    class Terminated(context_class.event_class):
        async def set(self):
            await later(super().set)

    class Context(context_class):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.terminated = Terminated()

    return Context


async def in_a_task_of_asyncio(function):
    from asyncio import ensure_future

    async def read_first():
        await read_what_was_accepted()
        await function()

    # The loop knows its tasks only weakly.
    function.__self__.setting = ensure_future(read_first())


async def at_once_in_trio(function):
    from trio import CancelScope, sleep
    with CancelScope(shield=True):
        await read_what_was_accepted(sleep)
        await function()


class ShutdownEvent:
    """What a worker function asks, ten times a second, whether it is to end, once it serves.

    So the first question means that it is ready, and every question that its loop turns.
    """

    def __init__(self, config, heartbeat, websockets):
        self.config = config
        self.heartbeat = heartbeat
        self.websockets = websockets
        self.in_the_loop = None
        self.ended = False

    def is_set(self):
        if self.in_the_loop is None:
            self.listen_to_signals()
            if self.config.worker_class == "trio":
                # A worker whose lifespan start-up has failed asks as well, once.
                return False
        self.heartbeat.notify()
        return self.ended

    def listen_to_signals(self):
        import signal
        self.in_the_loop = starter_of_tasks(self.config.worker_class)
        drain = Drain()
        drain.on_usr2()

        def end(_signal, _frame):
            patient, drain.patient = drain.patient, False
            self.ended = True
            if patient:
                self.config.graceful_timeout = WITHOUT_LIMIT
            else:
                self.in_the_loop(self.websockets.close)

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)


def starter_of_tasks(worker_class):
    """What starts a coroutine function in the loop that turns here, from a signal handler."""
    if worker_class == "trio":
        from trio.lowlevel import current_trio_token, spawn_system_task
        token = current_trio_token()
        return lambda function: token.run_sync_soon(spawn_system_task, function)
    from asyncio import get_running_loop
    loop = get_running_loop()
    return lambda function: loop.call_soon_threadsafe(lambda: loop.create_task(function()))


run(Hypercorn())
