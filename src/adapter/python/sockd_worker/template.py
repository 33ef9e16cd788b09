"""A template: its start, and its end as a worker. forking.py has what is between.

What it is for. A template has the server loaded and its configuration read exactly as the server reads it. It reports
the settings that matter to sockd, and then turns each "fork" command into one worker process.

What it owns. The server's configuration. Interpreter and server are loaded once, before the first fork, so that workers
start fast and share their memory.

What it must never do. Hold a visitor's socket longer than it takes to pass it to a worker. Import the application,
unless it is to be preloaded. Decide anything: when workers start, stop or are killed is sockd's business.
"""

import gc
import json
import os
import sys

from .app_server import installed_version
from .forking import Template
from .preload import preload
from .protocol import CONTROL_FD, DECODER, LIFE_FD
from .reasons import REASONS
from .signals import ignore_signals
from .sockets import look_up_no_names, socket_from
from .warm import Unfit
from .worker import become_worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any, Dict, Optional, Tuple

    from .app_server import AppServer


def run(server: "AppServer") -> None:
    """A template's life, or, in the processes that it forks, a worker's."""
    how, loading, program = sys.argv[1:4]
    look_like(server.module, how, program)
    supervisor = os.getppid()
    allow_own_session()
    ignore_signals()
    control = socket_from(CONTROL_FD)
    REASONS.follow(2)
    REASONS.look_at_logs()
    with REASONS:
        live(server, how, loading, control, supervisor)


def live(server: "AppServer", how: str, loading: str, control: "socket.socket", supervisor: int) -> None:
    server.life = {**read_life(), "supervisor": supervisor}
    if server.life["bound"]:
        look_up_no_names()
    version = supported_version(server)
    settings = server.configure(how)
    settings["follows_service"] = bool(server.pid_file) or settings.get("follows_service", False)
    # gunicorn has an option of its own, which counts if sockd's configuration says nothing.
    settings["preload"] = loading == "preload" or loading == "own" and settings.get("preload_app", False)
    if settings["preload"]:
        preload(server)
        settings["unfit_to_warm"] = why_unfit(server)
    server.begin()
    template = Template(control, supervisor, server)
    # What is there now stays, in every worker: collections there need not look at it, and so need not
    # write to the memory they share (1.4 MB a worker with Django).
    gc.freeze()
    # Else every worker would print once more what the configuration file has printed.
    sys.stdout.flush()
    template.sent_state = server.hook_state()
    template.send(json.dumps({"hello": {
        server.name: version,
        "python": "%d.%d.%d" % sys.version_info[:3],
        "settings": settings,
        "hook_state": template.sent_state,
    }}).encode())
    order = template.serve()
    if order is not None:
        become_worker(order)
        server.work(order, supervisor)


def why_unfit(server: "AppServer") -> "Optional[str]":
    """Why no copy of this template can be warmed; None if one can."""
    try:
        server.wsgi()
    except Unfit as why:
        return str(why)
    return None


def look_like(module: str, how: str, program: str) -> None:
    """Leave sys.argv, sys.path and __main__ as the server's own start would have left them."""
    # Python put the directory of /proc/self/fd/5 first, unless an option says that nothing be put there.
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path[0] = os.getcwd() if how == "module" else os.path.dirname(os.path.realpath(program))
    main_module = sys.modules["__main__"]
    if how == "module":
        from importlib.util import find_spec
        spec: Any = find_spec(module)
        main_module.__spec__ = spec
        main_module.__package__ = spec.parent
        program = spec.origin
    sys.argv[:] = [program] + sys.argv[4:]
    # multiprocessing's "spawn" imports this file again in the application's child processes.
    main_module.__file__ = program


def supported_version(server: "AppServer") -> "Optional[str]":
    """The server's version, None if it has none; one that is too old ends this process."""
    try:
        version = server.version()
    except Exception:
        # An old one may not even be importable by a new Python.
        try:
            version = installed_version(server.name)
        except Exception:
            return None
    if is_older(version, server.oldest):
        in_environment = sys.prefix != sys.base_prefix
        sys.exit("sockd needs %s %d.%d or later, and this is %s: %s" % (
            server.name, *server.oldest, version,
            "%s -m pip install --upgrade %s" % (sys.executable, server.name) if in_environment
            else "install a newer one in a virtual environment"))
    return version


def is_older(version: str, oldest: "Tuple[int, int]") -> bool:
    """Whether a version is older than these two numbers. One without numbers, as a checkout may have it, is not."""
    numbers = []
    for part in version.split(".")[:2]:
        digits = part[:len(part) - len(part.lstrip("0123456789"))]
        numbers.append(int(digits) if digits else 0)
    return any(numbers) and tuple(numbers) < oldest


def read_life() -> "Dict[str, Any]":
    # Through its path: the descriptor's own offset is at the end.
    with open("/proc/self/fd/%d" % LIFE_FD, "rb") as file:
        life: Dict[str, Any]
        life, _ = DECODER.raw_decode(file.read().decode())
    os.close(LIFE_FD)
    return life


def allow_own_session() -> None:
    """Let the application ask for a session or a process group of its own, which each of our processes has already.

    The kernel refuses that to a leader, which gunicorn's workers are not; here they are, so that all that they start
    can be found and killed with them.
    """
    setsid, setpgid = os.setsid, os.setpgid

    def own_session() -> None:
        try:
            return setsid()
        except PermissionError:
            if os.getsid(0) != os.getpid():
                raise

    def own_group(pid: int, group: int) -> None:
        try:
            return setpgid(pid, group)
        except PermissionError:
            if {pid, group} - {0, os.getpid()} or os.getpgid(0) != os.getpid():
                raise

    os.setsid, os.setpgid = own_session, own_group
    os.setpgrp = lambda: own_group(0, 0)
