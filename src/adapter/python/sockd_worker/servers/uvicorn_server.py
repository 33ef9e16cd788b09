"""The template of uvicorn: template.py with uvicorn's own command line, Config and Server.

What it is for. A worker is uvicorn's Server.run() with the sockets that sockd hands over; only uvicorn's supervisor of
processes (--workers) and its reloader are replaced.

What it owns. uvicorn's Config. What it must never do. Import the application before the fork, unless it is preloaded.
"""

import os
import sys

from ..app_server import HANG_SECONDS, AppServer, collect_from_here
from ..drain import Drain
from ..log import complain
from ..notify import RequestLimit, start_heartbeat
from ..sockets import socket_from, tcp_bind
from ..template import run
from .uvicorn_drain import drain_uvicorn
from .uvicorn_requests import observe_loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Tuple

    from ..notify import Heartbeat
    from ..protocol import ForkOrder

# Reached into, and not documented; tried with uvicorn 0.15.0 to 0.54.0:
#   uvicorn.main.run           replaced, and given what the command would start
#   uvicorn.config.Config      load(), get_loop_factory(), configure_logging(), callback_notify, timeout_notify,
#                              limit_max_requests is compared with >=
#   uvicorn.server.Server      started

# uvicorn.config.STARTUP_FAILURE.
STARTUP_FAILURE = 3


class Uvicorn(AppServer):
    """uvicorn's AppServer."""

    name = "uvicorn"
    module = "uvicorn.__main__"
    oldest = 0, 15

    def version(self) -> str:
        import uvicorn
        return uvicorn.__version__

    def configure(self, how: str) -> "Dict[str, Any]":
        options, timeout = command_line()
        app = options.pop("app")
        # What the command does itself before it makes a Config.
        app_dir = options.pop("app_dir", None)
        if app_dir is not None:
            sys.path.insert(0, app_dir)
        if options.get("reload"):
            complain("--reload is ignored: reload the service instead")
            options["reload"] = False
        from uvicorn import Config
        self.config = config = Config(app, **options)
        rehearse(config)
        return {
            "workers": config.workers,
            "timeout": timeout,
            # uvicorn has the option since 0.22.
            "graceful_timeout": getattr(config, "timeout_graceful_shutdown", None),
            "chdir": os.getcwd(),
            "bind": [bind(config)],
            # uvicorn makes its unix socket 0666.
            "umask": 0o111,
            "backlog": config.backlog,
            "speaks_tls": bool(config.is_ssl),
        }

    def load(self) -> None:
        self.config.load()

    def work(self, order: "ForkOrder", supervisor: int) -> None:
        config = self.config
        # As uvicorn's own workers do; log files are opened afresh.
        config.configure_logging()
        heartbeat = start_heartbeat(order, supervisor)
        if config.limit_max_requests:
            config.limit_max_requests = RequestLimit(config.limit_max_requests).reporting_to(heartbeat.notifier)
        report_ready(config, heartbeat)
        drain = Drain()
        drain_uvicorn(drain)
        drain.on_usr2()
        observe_loaded(config, heartbeat.scoreboard)
        from uvicorn import Server
        server = Server(config)
        server.run(sockets=[socket_from(fd) for fd in order.sockets])
        if not server.started:
            sys.exit(STARTUP_FAILURE)


def command_line() -> "Tuple[Dict[str, Any], float]":
    """What uvicorn's command would call uvicorn.run() with, and the seconds without a heartbeat that mean a hang.

    Whatever else the command does (--help, --version, a mistake) ends the process.
    """
    import uvicorn.main  # noqa: F401
    collect_from_here()
    # The name uvicorn.main is the command's, which hides the module.
    module: Any = sys.modules["uvicorn.main"]
    caught: Dict[str, Any] = {}

    def run(app: "Any", **options: "Any") -> None:
        from click import get_current_context
        caught.update(options, app=app)
        source = get_current_context().get_parameter_source("timeout_worker_healthcheck")
        # uvicorn's default of 5 s is for a thread that always answers; here it is the event loop that must turn.
        said = source is not None and source.name != "DEFAULT"
        caught["timeout"] = options["timeout_worker_healthcheck"] if said else HANG_SECONDS

    module.run = run
    try:
        module.main()
    except SystemExit:
        if not caught:
            raise
    return caught, caught.pop("timeout")


def rehearse(config: "Any") -> None:
    """Import what a worker will need, and read its certificates, with another application in place of the user's."""
    import copy

    async def nothing(scope: "Any", receive: "Any", send: "Any") -> None:
        pass

    rehearsal = copy.copy(config)
    rehearsal.app = nothing
    rehearsal.factory = False
    rehearsal.load()
    # The module of the event loop is not loaded by load(); uvicorn has the method since 0.36.
    if hasattr(rehearsal, "get_loop_factory"):
        rehearsal.get_loop_factory()


def bind(config: "Any") -> str:
    """Where uvicorn would listen."""
    if config.fd is not None:
        return "fd://%d" % config.fd
    if config.uds:
        return "unix:" + config.uds
    return tcp_bind(config.host, config.port)


def report_ready(config: "Any", heartbeat: "Heartbeat") -> None:
    """Beat from uvicorn's main loop, whose first turn comes after the lifespan start-up."""
    async def beat() -> None:
        heartbeat.notify()

    config.callback_notify = beat
    config.timeout_notify = 0


def main() -> None:
    run(Uvicorn())
