"""What gunicorn's hooks take for the arbiter, and when they are called.

What it is for. gunicorn calls its hooks in one process, the arbiter, which lives as long as the service. Here templates
come and go, one for each version of the code, and sockd has the workers. So that hooks find what they find under
gunicorn, each template knows all living workers, and gets what the hooks before it have left on `server` and on the
workers.

What it owns. `server`: its facts, WORKERS, and what hooks have left there. What it must never do. What gunicorn's
arbiter does not do before the fork; call a hook of the service's life in a template that was not born at that moment.
"""

import json
import os
import signal
import sys

from ..log import complain
from ..notify import RequestLimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Set, Tuple

    from ..protocol import ForkOrder

# Reached into, and not documented; tried with gunicorn 19.9.0 to 27.0.1:
#   gunicorn.arbiter.Arbiter           what __init__(), setup(), start(), reload() and spawn_worker() do before the fork
#   gunicorn.config.Config             address, env, logger_class, worker_class, settings[…].value and .default
#   gunicorn.sock                      UnixSocket, TCPSocket, TCP6Socket and what their constructor takes
#   gunicorn.workers.base              WorkerTmp, and what the constructor of a Worker takes; age, pid, sockets
#   gunicorn.workers.sync              SyncWorker

# Hooks that see which workers there are.
SEE_WORKERS = ("pre_fork", "post_fork", "worker_exit", "child_exit", "nworkers_changed", "on_reload", "on_exit")
# Hooks of the service's life that are called by sockd's word.
SEE_SERVICE = ("when_ready", "on_exit")
# Hooks that are called in the template while it is to fork.
BETWEEN_FORKS = ("pre_fork", "child_exit", "nworkers_changed", "when_ready")
# What hooks leave to the templates to come goes with one message (bytes).
LONGEST_STATE = 32768


def is_set(cfg: "Any", name: str) -> bool:
    """Whether the user has set this hook."""
    return name in cfg.settings and cfg.settings[name].get() is not cfg.settings[name].default


class NoFile:
    """In the place of a worker's WorkerTmp, a temporary file that gunicorn's arbiter looks at, in the template."""

    def notify(self) -> None:
        pass

    def last_update(self) -> float:
        import time
        return time.monotonic()

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        pass


class Server:
    """What gunicorn's hooks get as their first argument, `server`: the arbiter's facts, not its powers.

    Its construction does what Arbiter.__init__ and Arbiter.setup do before the application is preloaded; begin() does
    what Arbiter.start() does, or Arbiter.reload().
    """

    def __init__(self, app: "Any", settings: "Any", life: "Dict[str, Any]") -> None:
        from gunicorn import SERVER_SOFTWARE
        from gunicorn.workers import base
        os.environ["SERVER_SOFTWARE"] = SERVER_SOFTWARE
        self.settings = settings
        self.life = life
        self.app = app
        self.cfg = app.cfg
        self.log = self.cfg.logger_class(self.cfg)
        # As the arbiter does; the workers have handlers of their own.
        signal.signal(signal.SIGUSR1, lambda *_: self.log.reopen_files())
        self.worker_class = self.cfg.worker_class
        settings["silent_when_busy"] = is_sync(self.worker_class)
        settings["follows_workers"] = bool(self.cfg.statsd_host) or any(
            is_set(self.cfg, name) for name in SEE_WORKERS)
        settings["follows_service"] = any(is_set(self.cfg, name) for name in SEE_SERVICE)
        settings["runs_hooks"] = any(is_set(self.cfg, name) for name in BETWEEN_FORKS)
        self.address = self.cfg.address
        self.num_workers = self.cfg.workers
        self.timeout = self.cfg.timeout
        self.proc_name = self.cfg.proc_name
        self.pid = os.getpid()
        self.LISTENERS: List[Any] = []
        # Of the next worker, its private one too: gevent's worker, up to gunicorn 20.1, makes sockets of its own of
        # their descriptors, and lets go of them.
        self.sockets: List[Any] = []
        self.WORKERS: Dict[int, Any] = {}
        # The worker that is about to be forked, or that this process is.
        self.next_worker: Any = None
        self.next_state: Optional[str] = None
        # Variables that hooks of the service's life have set or, None, removed.
        self.environment = {}
        self.lost: Set[Tuple[str, str]] = set()
        # There is no parameter for it. sockd needs no file, and a service may have no place to write one.
        base.WorkerTmp = lambda _cfg: NoFile()
        if self.cfg.max_requests > 0:
            # Not cfg.set(), which would make a plain int of it again.
            self.cfg.settings["max_requests"].value = RequestLimit(self.cfg.max_requests)
        os.environ.update(self.cfg.env)
        # What is there from here on was left by hooks.
        self.own = frozenset(vars(self)) | {"own"}
        before = loads(life["hook_state"])
        vars(self).update(before["attributes"])
        self.environment.update(before["environment"])
        for worker in life["workers"]:
            self.worker_joined(worker["worker"], worker["pid"], worker["hook_state"])
        if life["phase"] != "again":
            self.cfg.nworkers_changed(self, self.num_workers, before["num_workers"])
        elif before["num_workers"] is not None:
            # SIGTTIN and SIGTTOU count until the next reload.
            self.num_workers = before["num_workers"]

    def begin(self) -> None:
        if self.life["phase"] == "start":
            self.once_in_life(self.cfg.on_starting)
        elif self.life["phase"] == "reload":
            self.cfg.on_reload(self)
        if hasattr(self.worker_class, "check_config"):
            self.worker_class.check_config(self.cfg, self.log)

    def service_started(self) -> None:
        if self.life["phase"] == "start":
            self.once_in_life(self.cfg.when_ready)

    def once_in_life(self, hook: "Callable[..., Any]") -> None:
        """Call a hook that templates to come do not call again: the variables that it sets are theirs, too."""
        before = dict(os.environ)
        hook(self)
        for name in before.keys() | os.environ.keys():
            if before.get(name) != os.environ.get(name):
                self.environment[name] = os.environ.get(name)

    # -----------------------------------------------------------------------------------------------
    # The workers
    # -----------------------------------------------------------------------------------------------

    def new_worker(self, number: int, sockets: "Any", supervisor: int) -> "Any":
        return self.worker_class(number, supervisor, sockets, self.app, self.cfg.timeout / 2.0, self.cfg, self.log)

    def make_worker(self, order: "ForkOrder", supervisor: int) -> None:
        sockets = listeners(order.sockets, self.cfg, self.log)
        # The worker's private socket is not one of gunicorn's, unless there is no other.
        self.LISTENERS = sockets[:len(sockets) - order.has_probe] or sockets
        self.sockets = sockets
        self.next_worker = self.new_worker(order.worker, sockets, supervisor)

    def before_fork(self, order: "ForkOrder", supervisor: int) -> None:
        """What Arbiter.spawn_worker() does before its fork."""
        self.make_worker(order, supervisor)
        # The sockets belong to the objects from here on.
        order.give_sockets_away()
        born_with = frozenset(vars(self.next_worker))
        self.cfg.pre_fork(self, self.next_worker)
        attributes = {name: value for name, value in vars(self.next_worker).items() if name not in born_with}
        self.next_state = dumps(self.lost, "worker", attributes) if attributes else None

    def workers_changed(self) -> None:
        """What gunicorn's arbiter sends to statsd."""
        self.log.debug("%d workers", len(self.WORKERS),
                       extra={"metric": "gunicorn.workers", "value": len(self.WORKERS), "mtype": "gauge"})

    def after_fork(self, pid: "Optional[int]") -> None:
        """The template lets go of the visitors' sockets, and knows the worker, if there is one."""
        for listener in self.next_worker.sockets if self.next_worker else ():
            os.close(listener.sock.detach())
        self.LISTENERS, self.sockets = [], []
        worker, self.next_worker, self.next_state = self.next_worker, None, None
        if pid:
            self.know(worker, pid)

    def know(self, worker: "Any", pid: int) -> None:
        worker.sockets = []
        worker.pid = pid
        self.WORKERS[pid] = worker

    def worker_joined(self, number: int, pid: int, state: "Optional[str]") -> None:
        if self.settings["follows_workers"]:
            self.know(self.known_by_word(number, state), pid)

    def known_by_word(self, number: int, state: "Optional[str]") -> "Any":
        """The object of a worker that another process has made."""
        worker = self.new_worker(number, [], self.life["supervisor"])
        vars(worker).update(loads(state)["attributes"])
        return worker

    def workers_resized(self, number: int, call: bool) -> None:
        before, self.num_workers = self.num_workers, number
        if call:
            self.cfg.nworkers_changed(self, number, before)

    def worker_exited(self, number: int, pid: int, state: "Optional[str]", call: bool) -> None:
        worker = self.WORKERS.get(pid)
        if worker is not None and worker.age == number:
            del self.WORKERS[pid]
        elif call:
            worker = self.known_by_word(number, state)
            worker.pid = pid
        if call:
            self.cfg.child_exit(self, worker)

    def hook_state(self) -> "Optional[str]":
        attributes = {name: value for name, value in vars(self).items() if name not in self.own}
        return dumps(self.lost, "server", attributes, environment=self.environment, num_workers=self.num_workers)


# ---------------------------------------------------------------------------------------------------
# What hooks leave to the templates to come
# ---------------------------------------------------------------------------------------------------

def dumps(lost: "Set[Tuple[str, str]]", what: str, attributes: "Any", **more: "Any") -> "Optional[str]":
    """As text, with all attributes that can be carried; the others are named once, in `lost`."""
    carried = {}
    if attributes:
        from base64 import b64encode
        from pickle import dumps as pickled
        for name, value in attributes.items():
            try:
                carried[name] = b64encode(pickled(value, 4)).decode()
            except Exception as error:
                lose(lost, what, name, error)
    text = json.dumps(dict(more, attributes=carried))
    if len(text) > LONGEST_STATE:
        lose(lost, what, "*", "more than %d bytes" % LONGEST_STATE)
        return None
    return text


def lose(lost: "Set[Tuple[str, str]]", what: str, name: str, why: object) -> None:
    if (what, name) not in lost:
        lost.add((what, name))
        complain("what a hook has put into %s.%s is not there after the next reload: %s" % (what, name, why))


def loads(text: "Optional[str]") -> "Dict[str, Any]":
    """What dumps() has made. What cannot be had again is left out: its class may have gone with the old code."""
    state: Dict[str, Any] = {"environment": {}, "num_workers": None, "attributes": {}}
    state.update(json.loads(text) if text else {})
    attributes, state["attributes"] = state["attributes"], {}
    for name, value in attributes.items():
        from base64 import b64decode
        from pickle import loads as unpickled
        try:
            state["attributes"][name] = unpickled(b64decode(value))
        except Exception as error:
            complain("what a hook had put into %s is lost: %s" % (name, error))
    return state


def restore_environment(life: "Dict[str, Any]") -> None:
    """Set the variables that hooks of the service's life have set, before anything is read."""
    for name, value in loads(life["hook_state"])["environment"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def is_sync(worker_class: "Any") -> bool:
    """Whether it serves one request at a time, and nobody else meanwhile."""
    sync: Any = sys.modules.get("gunicorn.workers.sync")
    return bool(sync) and issubclass(worker_class, sync.SyncWorker)


def listeners(descriptors: "List[int]", cfg: "Any", log: "Any") -> "List[Any]":
    """gunicorn's socket objects for inherited descriptors.

    As gunicorn.sock.create_sockets() makes them, which would add every "fd://" of the bind setting.
    """
    import socket
    from gunicorn import sock
    kinds = {socket.AF_UNIX: sock.UnixSocket, socket.AF_INET: sock.TCPSocket, socket.AF_INET6: sock.TCP6Socket}
    result = []
    for fd in descriptors:
        inherited = socket.socket(fileno=fd)
        kind, name = kinds[inherited.family], inherited.getsockname()
        # The constructor closes the descriptor it is given, having duplicated it.
        result.append(kind(name, cfg, log, fd=inherited.detach()))
    return result
