"""The template of gunicorn: template.py with gunicorn's own configuration, worker classes, hooks and exit codes.

What it is for. A worker is gunicorn's own worker class with gunicorn's own logger, hooks and exit codes; only the
arbiter, gunicorn's supervisor, is replaced.

What it owns. gunicorn's configuration. What it must never do. What gunicorn's arbiter does not do, before the fork.
"""

import os
import signal
import sys

from ..app_server import AppServer, collect_from_here
from ..drain import Drain
from ..notify import Heartbeat, Notifier, RequestLimit
from ..scoreboard import Scoreboard, observe_asgi
from ..signals import SHELTERED, shelter
from ..sockets import tcp_bind
from ..template import run
from ..warm import Unfit
from ..worker import WORKER_BOOT_ERROR
from .gunicorn_arbiter import Server, is_set, is_sync, restore_environment
from .gunicorn_drain import drain_gunicorn
from .gunicorn_requests import observe_gunicorn
from .gunicorn_settings import warn_of_what_is_left_out
from .uvicorn_drain import drain_uvicorn
from .uvicorn_requests import observe_uvicorn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional

    from ..protocol import ForkOrder

# Reached into, and not documented; tried with gunicorn 19.9.0 to 27.0.1:
#   gunicorn.arbiter                   left out while gunicorn.app.base is imported
#   gunicorn.app.base, .app.wsgiapp    BaseApplication.run() replaced; WSGIApplication(usage, prog), app_uri
#   gunicorn.ctl.server                where there is one, the master has it loaded, and so load_later() loads it
#   gunicorn.config.Config             worker_class_str, is_ssl, settings[…].value
#   gunicorn.http.wsgi                 FileWrapper
#   gunicorn.sock                      imported without the arbiter
#   gunicorn.util                      parse_address, _setproctitle
#   gunicorn.workers.base.Worker       tmp, sockets, max_requests, booted, init_signals(), run()
#   gunicorn.workers.sync.SyncWorker   wait_fds, run(), run_for_one(), wait(), accept()
#   gunicorn.workers.gthread           nr counts requests that a thread has taken up
#   gunicorn.workers.gtornado          IOLoop
#   gunicorn.workers.*                 server_class of the workers with another project's server
#   uvicorn.workers.UvicornWorker      config.timeout_notify

# gunicorn.arbiter.Arbiter has it, too; it is part of what gunicorn documents, like WORKER_BOOT_ERROR.
APP_LOAD_ERROR = 4
# About as long as an event loop's timer can be (seconds).
NO_TIMEOUT = 1000000


class Gunicorn(AppServer):
    """gunicorn's AppServer. Hooks are gunicorn_arbiter.py's."""

    name = "gunicorn"
    module = "gunicorn.__main__"
    oldest = 19, 9
    server: Server

    def version(self) -> str:
        import gunicorn
        return gunicorn.__version__

    def configure(self, how: str) -> "Dict[str, Any]":
        self.server = configure(how, self.life)
        self.pid_file = self.server.cfg.pidfile
        self.forks_on_order = is_set(self.server.cfg, "pre_fork")
        return self.server.settings

    def load(self) -> None:
        self.server.app.wsgi()

    def wsgi(self) -> "Any":
        cls = self.server.worker_class
        threads = sys.modules.get("gunicorn.workers.gthread")
        is_threaded = threads is not None and issubclass(cls, threads.ThreadWorker)
        if not (is_sync(cls) or is_threaded):
            raise Unfit("of gunicorn's worker classes sync and gthread are warmed")
        from gunicorn import SERVER_SOFTWARE
        from gunicorn.http.wsgi import FileWrapper
        return self.server.app.wsgi(), {
            "wsgi.url_scheme": "https" if self.server.cfg.is_ssl else "http",
            "SERVER_SOFTWARE": SERVER_SOFTWARE, "wsgi.file_wrapper": FileWrapper, "wsgi.multithread": is_threaded,
            "wsgi.input_terminated": True}

    def load_later(self) -> None:
        # gunicorn's master has it loaded before it forks, for its control socket, and with it asyncio, which takes 20
        # ms in each worker whose application imports it. gevent and eventlet patch what asyncio takes from the standard
        # library, in the worker, and want to be first.
        if not {"gevent", "eventlet"} & set(sys.modules):
            try:
                import gunicorn.ctl.server  # noqa: F401
            except ImportError:
                # An older gunicorn's has neither.
                pass

    def begin(self) -> None:
        with gunicorns_errors():
            self.server.begin()

    def hook_state(self) -> "Optional[str]":
        return self.server.hook_state()

    def before_fork(self, order: "ForkOrder", supervisor: int) -> None:
        self.server.before_fork(order, supervisor)

    def after_fork(self, pid: "Optional[int]") -> None:
        self.server.after_fork(pid)

    def worker_state(self) -> "Optional[str]":
        return self.server.next_state

    def worker_joined(self, number: int, pid: int, state: "Optional[str]") -> None:
        self.server.worker_joined(number, pid, state)

    def workers_changed(self) -> None:
        if self.server.settings["follows_workers"]:
            self.server.workers_changed()

    def worker_exited(self, number: int, pid: int, state: "Optional[str]", call: bool) -> None:
        self.server.worker_exited(number, pid, state, call)

    def workers_resized(self, number: int, call: bool) -> None:
        self.server.workers_resized(number, call)

    def service_started(self) -> None:
        self.server.service_started()

    def service_ended(self) -> None:
        self.server.cfg.on_exit(self.server)

    def work(self, order: "ForkOrder", supervisor: int) -> None:
        run_worker(self.server, order, supervisor)


# ---------------------------------------------------------------------------------------------------
# Start: be configured like gunicorn
# ---------------------------------------------------------------------------------------------------

def configure(how: str, life: "Dict[str, Any]") -> Server:
    """Let gunicorn read its configuration; return what stands in for the arbiter.

    Errors end the process with gunicorn's own message and exit code, and so do --help, --version,
    --check-config and --print-config.
    """
    restore_environment(life)
    import_gunicorn_util()
    import_without_arbiter()
    from gunicorn.app.base import BaseApplication
    from gunicorn.app.wsgiapp import WSGIApplication
    collect_from_here()

    class WithoutArbiter(BaseApplication):
        """Takes the place of BaseApplication, whose run() would start the arbiter."""

        def run(self) -> None:
            pass

    class Application(WSGIApplication, WithoutArbiter):
        pass

    app = Application("%(prog)s [OPTIONS] [APP_MODULE]", prog="gunicorn" if how == "module" else None)
    settings = reported_settings(app)
    warn_of_what_is_left_out(app.cfg)
    app.cfg.set("daemon", False)
    app.cfg.set("reuse_port", False)
    # gunicorn's part of run(): --check-config, --print-config, --spew, --pythonpath.
    app.run()
    with gunicorns_errors():
        return Server(app, settings, life)


class gunicorns_errors:
    """What goes wrong while the arbiter sets itself up is reported as BaseApplication.run() reports it."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: "Any", error: "Any", _traceback: "Any") -> None:
        if isinstance(error, RuntimeError):
            print("\nError: %s\n" % error, file=sys.stderr, flush=True)
            sys.exit(1)


def import_gunicorn_util() -> None:
    """Import gunicorn.util without the package metadata library that it imports but hardly ever uses.

    It serves worker classes named by an entry point ("egg:…"), and takes a fifth of gunicorn's start
    (importlib.metadata, 35 of 160 ms under -X importtime; up to gunicorn 20.1 half of it: pkg_resources,
    264 of 481 ms). gunicorn.util keeps a stand-in that imports the real one when it is used; everybody
    else who imports the library gets the real one. The rest of what gunicorn imports, ssl among it, is
    needed by its application or worker base classes. ctypes, which alone could set PR_SET_PDEATHSIG,
    costs 10 ms or more and is not imported; see Heartbeat.drain().
    """
    import importlib

    class StandIn(type(sys)):  # type: ignore[misc]
        def __getattr__(self, attribute: "Any") -> "Any":
            if attribute.startswith("__"):
                raise AttributeError(attribute)
            self.step_aside()
            return getattr(importlib.import_module(self.__name__), attribute)

        def step_aside(self) -> None:
            if sys.modules.get(self.__name__) is self:
                del sys.modules[self.__name__]

    stand_ins = {name: StandIn(name) for name in ("importlib.metadata", "pkg_resources") if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        import gunicorn.util  # noqa: F401
    finally:
        for stand_in in stand_ins.values():
            stand_in.step_aside()
    # Code that says "importlib.metadata" without an import of its own has always got away with it.
    if "importlib.metadata" in stand_ins and not hasattr(importlib, "metadata"):
        importlib.metadata = stand_ins["importlib.metadata"]


def import_without_arbiter() -> None:
    """Import what gunicorn's application classes need, but for the arbiter, which will not run."""
    import gunicorn.sock  # noqa: F401
    stand_in: Any = type(sys)("gunicorn.arbiter")
    stand_in.Arbiter = None
    sys.modules[stand_in.__name__] = stand_in
    try:
        import gunicorn.app.base  # noqa: F401
    finally:
        del sys.modules[stand_in.__name__]


def reported_settings(app: "Any") -> "Dict[str, Any]":
    cfg = app.cfg
    names = ("workers", "threads", "timeout", "graceful_timeout", "max_requests", "max_requests_jitter",
             "bind", "umask", "backlog", "chdir", "preload_app", "daemon", "reload", "pidfile", "proc_name")
    settings = {name: getattr(cfg, name) for name in names}
    settings["bind"] = [in_numbers(bind) for bind in cfg.bind]
    settings["owner"] = [cfg.uid, cfg.gid]
    settings["worker_class"] = cfg.worker_class_str
    settings["speaks_tls"] = bool(cfg.is_ssl)
    # gunicorn has the option since 24.
    settings["speaks_uwsgi"] = getattr(cfg, "protocol", "http") == "uwsgi" and heeds_protocol(cfg.worker_class)
    settings["wsgi"] = app.app_uri
    return settings


def heeds_protocol(worker_class: "Any") -> bool:
    """Whether requests are read by gunicorn itself, and not by the server of some other project."""
    # That of gevent_pywsgi, for one.
    if getattr(worker_class, "server_class", None) is not None:
        return False
    own = {"sync": "SyncWorker", "base_async": "AsyncWorker", "gthread": "ThreadWorker", "gasgi": "ASGIWorker"}
    modules = {name: sys.modules.get("gunicorn.workers." + name) for name in own}
    return any(module and issubclass(worker_class, getattr(module, own[name])) for name, module in modules.items())


def in_numbers(bind: "Any") -> str:
    """An address of gunicorn's without a name in it, if there is one."""
    from gunicorn.util import parse_address
    try:
        address = parse_address(bind)
    except RuntimeError:
        # sockd says what is wrong with it, or ignores it.
        return bind
    return tcp_bind(*address) if isinstance(address, tuple) else bind


# ---------------------------------------------------------------------------------------------------
# In a worker
# ---------------------------------------------------------------------------------------------------

def run_worker(server: Server, order: "ForkOrder", supervisor: int) -> None:
    """Be gunicorn's worker: the child's half of Arbiter.spawn_worker(), with its log lines and exit codes."""
    from gunicorn import util
    from gunicorn.errors import AppImportError

    log, cfg = server.log, server.cfg
    worker = None
    try:
        # Files that logrotate renamed since the template opened them are opened afresh.
        log.reopen_files()
        worker = equip_worker(server, order, supervisor)
        worker.pid = os.getpid()
        # Private, but the one name for "the process title, if setproctitle is there".
        util._setproctitle("worker [%s]" % server.proc_name)
        log.info("Booting worker with pid: %s", worker.pid)
        cfg.post_fork(server, worker)
        worker.init_process()
        sys.exit(0)
    except SystemExit:
        raise
    except AppImportError as error:
        log.debug("Exception while loading the application", exc_info=True)
        print(error, file=sys.stderr, flush=True)
        sys.exit(APP_LOAD_ERROR)
    except Exception as error:
        log.exception("Exception in worker process")
        print(error, file=sys.stderr, flush=True)
        sys.exit(-1 if worker is not None and worker.booted else WORKER_BOOT_ERROR)
    finally:
        log.info("Worker exiting (pid: %s)", os.getpid())
        leave(server, worker)


def leave(server: Server, worker: "Any") -> None:
    import traceback
    if worker is None:
        return
    try:
        worker.tmp.close()
        server.cfg.worker_exit(server, worker)
    except Exception:
        server.log.warning("Exception during worker exit:\n%s", traceback.format_exc())


def equip_worker(server: Server, order: "ForkOrder", supervisor: int) -> "Any":
    """The worker object, with its reports going to sockd instead of to an arbiter."""
    notifier = Notifier(os.environ.get("NOTIFY_SOCKET"))
    heartbeat = Heartbeat(notifier, Scoreboard(order.scoreboard, order.shows_requests), supervisor)
    if server.next_worker is None:
        server.make_worker(order, supervisor)
    worker = server.next_worker
    worker.tmp = heartbeat
    if isinstance(worker.max_requests, RequestLimit):
        worker.max_requests.reporting_to(notifier)
    probe = None
    if order.has_probe and len(worker.sockets) == 2 and waits_by_itself(server.worker_class):
        probe = worker.sockets.pop()
        # As init_process() does with the sockets that it knows.
        os.set_inheritable(probe.fileno(), False)
    dump_stacks_on_abort(worker)
    report_ready(worker, heartbeat, probe)
    return worker


def waits_by_itself(worker_class: "Any") -> bool:
    """Whether this is gunicorn's sync worker, which serves one socket faster than two.

    With one it accepts until nobody waits and only then calls select(); with two it calls select()
    before each accept. A probe socket must not cost the visitors that.
    """
    if not is_sync(worker_class):
        return False
    from gunicorn.workers.sync import SyncWorker
    return all(getattr(worker_class, name) is getattr(SyncWorker, name) for name in ("run", "run_for_one", "wait"))


def serve_probe_aside(worker: "Any", probe: "Any") -> None:
    """Serve the probe socket of a sync worker beside the one public socket.

    When nobody waits, select() covers both. While somebody always does, the worker never gets there, so
    the probe is looked at from notify(), which is called once for each request, at most twice a second.
    """
    import errno
    import time
    wait, notify, clock = worker.wait, worker.notify, time.monotonic
    worker.wait_fds = worker.wait_fds + [probe]
    probe.setblocking(0)
    due = 0.0

    def accept() -> None:
        try:
            worker.accept(probe)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                raise

    def wait_for_both(timeout: "Any") -> "Any":
        ready = wait(timeout)
        if ready and probe in ready:
            accept()
        return ready

    def notify_and_look() -> None:
        nonlocal due
        now = clock()
        if now >= due:
            due = now + 0.5
            notify()
            accept()

    worker.wait, worker.notify = wait_for_both, notify_and_look


def dump_stacks_on_abort(worker: "Any") -> None:
    """Keep the stack dump on SIGABRT working after the worker has installed its own handlers.

    gunicorn's handler is Python code: in a worker stuck inside C code it never runs. faulthandler's
    runs at once, then raises the signal again for the handler it has displaced, so that the
    worker_abort hook and the exit code stay gunicorn's. It cannot be enabled twice, and disabling it
    puts back the handler it found: hence the order.
    """
    import faulthandler
    init_signals = worker.init_signals

    def init_signals_below_faulthandler() -> None:
        faulthandler.disable()
        # gunicorn resets more signals than it handles, and some of them only to handle them.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SHELTERED)
        init_signals()
        shelter()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        faulthandler.enable(file=2, all_threads=True)

    worker.init_signals = init_signals_below_faulthandler


def report_ready(worker: "Any", heartbeat: Heartbeat, probe: "Any") -> None:
    """Arrange READY=1 for the moment the worker's main loop turns.

    init_process() ends by calling run(), after the application is loaded and post_worker_init was
    called. Inside run() the first heartbeat tells that the loop runs: sync, gthread, gevent, eventlet
    and asgi beat once their sockets are set up (asgi after the lifespan start-up), uvicorn's workers in
    the first turn of their main loop, which is after the lifespan start-up, too.
    """
    run = worker.run

    def run_and_report() -> None:
        if probe is not None:
            serve_probe_aside(worker, probe)
        # sockd's drain-timeout bounds a drain, not gunicorn's --graceful-timeout.
        graceful_timeout = worker.cfg.settings["graceful_timeout"]
        drain = Drain(lambda: setattr(graceful_timeout, "value", NO_TIMEOUT))
        if "uvicorn.server" in sys.modules:
            drain_uvicorn(drain)
            observe_uvicorn(heartbeat.scoreboard)
        elif getattr(worker, "asgi", None) is not None:
            worker.asgi = observe_asgi(worker.asgi, heartbeat.scoreboard)
        else:
            observe_gunicorn(worker, heeds_protocol(type(worker)), heartbeat.scoreboard)
        drain_gunicorn(worker, drain)
        drain.on_usr2()
        heartbeat.running = True
        beat_each_second(worker)
        run()

    worker.run = run_and_report


def beat_each_second(worker: "Any") -> None:
    """For the classes whose heartbeats come late, or seldom, or never."""
    if "uvicorn.server" in sys.modules and hasattr(getattr(worker, "config", None), "timeout_notify"):
        # Once in half of --timeout, else: too late to tell a request that takes long from one that takes too long.
        worker.config.timeout_notify = 0
    gtornado = sys.modules.get("gunicorn.workers.gtornado")
    if gtornado and isinstance(worker, gtornado.TornadoWorker):
        # Its first beat is due a second after the start; its loop can bring one in the first turn.
        gtornado.IOLoop.current().add_callback(worker.notify)
    elif not mentions_notify(type(worker)):
        worker.notify()


def mentions_notify(worker_class: "Any") -> bool:
    """Whether any method of the class, gunicorn's base class aside, uses a "notify"."""
    from gunicorn.workers.base import Worker
    members = (member for cls in worker_class.__mro__ if cls not in (Worker, object) for member in vars(cls).values())
    return any(code_mentions(getattr(getattr(member, "__func__", member), "__code__", None), "notify")
               for member in members)


def code_mentions(code: "Any", name: str) -> bool:
    if code is None:
        return False
    return name in code.co_names or any(
        code_mentions(constant, name) for constant in code.co_consts if isinstance(constant, type(code)))


def main() -> None:
    run(Gunicorn())
