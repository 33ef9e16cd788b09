"""sockd's template for gunicorn: one process per generation that forks gunicorn workers on command.

What it is for. sockd runs this program with the interpreter of the application's environment. It reads
gunicorn's configuration exactly as gunicorn does, tells sockd the settings that matter, and then turns
each "fork" command into one worker process. A worker is gunicorn's own worker class with gunicorn's own
logger, hooks and exit codes; only the arbiter, gunicorn's supervisor, is replaced.

What it owns. The control socket (descriptor 3) and gunicorn's configuration. Interpreter, gunicorn and
worker class are loaded once, before the first fork, so that workers start fast and share their memory.

What it must never do. Hold a visitor's socket longer than it takes to pass it to a worker. Load the
application: new code must be able to fail in one worker while the old generation serves. Decide
anything: when workers start, stop or are killed is sockd's business.

The protocol: one JSON object per datagram.
  template -> sockd   {"hello": {"gunicorn": …, "python": …, "settings": {…}}}
  sockd -> template   {"fork": {"worker": 17, "environment": {…}, "listeners": 2, "probe": true}} with the
                      descriptors: the worker's stderr, the listeners, the worker's probe socket
  template -> sockd   {"forked": {"worker": 17, "pid": 1234}} or {"failed": {"worker": 17, "error": …}}
A worker speaks to sockd through its NOTIFY_SOCKET: READY=1, WATCHDOG=1, X_SOCKD_RETIRE=1.

reports.py stands before this file: both reach the interpreter as one memfd, where there is nothing to import from.
"""

import gc
import os
import sys

CONTROL_FD = 3
LARGEST_MESSAGE = 65536
# The kernel's SCM_MAX_FD: no message can bring more descriptors.
MOST_DESCRIPTORS = 253
# A worker's grandparent adopts it as soon as its parent is gone, which takes microseconds.
ADOPTION_SECONDS = 10.0
# gunicorn.arbiter.Arbiter has these, too; they are part of what gunicorn documents.
WORKER_BOOT_ERROR = 3
APP_LOAD_ERROR = 4


def main():
    how, program = sys.argv[1:3]
    become_gunicorn(how, program)
    supervisor = os.getppid()
    ignore_signals()
    control = socket_from(CONTROL_FD)
    # This file's own descriptor stays open, close-on-exec: tracebacks and stack dumps read the source
    # through the path /proc/self/fd/4, which would otherwise come to mean whatever is opened next; a
    # pipe, for instance, which a reader would wait on for ever.
    os.set_inheritable(CONTROL_FD + 1, False)
    server = configure(how)
    template = Template(control, server, supervisor)
    # What is there now stays, in every worker: collections there need not look at it, and so need not
    # write to the memory they share (1.4 MB a worker with Django).
    gc.freeze()
    # Else every worker would print once more what the configuration file has printed.
    sys.stdout.flush()
    template.send({"hello": hello(server)})
    order = template.serve()
    if order is not None:
        run_worker(server, order, supervisor)


# ---------------------------------------------------------------------------------------------------
# Start: look like gunicorn, be configured like gunicorn
# ---------------------------------------------------------------------------------------------------

def become_gunicorn(how, program):
    """Leave sys.argv, sys.path and __main__ as gunicorn's own start would have left them."""
    # Python put the directory of /proc/self/fd/4 first, unless it was told to put nothing there.
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path[0] = os.getcwd() if how == "module" else os.path.dirname(os.path.realpath(program))
    main_module = sys.modules["__main__"]
    if how == "module":
        from importlib.util import find_spec
        main_module.__spec__ = find_spec("gunicorn.__main__")
        program = main_module.__spec__.origin
    sys.argv[:] = [program] + sys.argv[3:]
    # multiprocessing's "spawn" imports this file again in the application's child processes.
    main_module.__file__ = program


def ignore_signals():
    """A signal for the process group, or gunicorn's own reload habits, must not end the template."""
    import signal
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def restore_signals():
    import signal
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def socket_from(fd):
    import socket
    result = socket.socket(fileno=fd)
    result.set_inheritable(False)
    return result


def configure(how):
    """Let gunicorn read its configuration; return what stands in for the arbiter.

    Errors end the process with gunicorn's own message and exit code, and so do --help, --version,
    --check-config and --print-config.
    """
    # Nothing that an import makes is garbage; the collector would only look at all of it, again and again.
    # It runs again before any code of the user's, whose own gc.disable() shall count.
    gc.disable()
    import_gunicorn_util()
    from gunicorn.app.base import BaseApplication
    from gunicorn.app.wsgiapp import WSGIApplication
    gc.enable()

    class WithoutArbiter(BaseApplication):
        """Takes the place of BaseApplication, whose run() would start the arbiter."""

        def run(self):
            pass

    class Application(WSGIApplication, WithoutArbiter):
        pass

    app = Application("%(prog)s [OPTIONS] [APP_MODULE]", prog="gunicorn" if how == "module" else None)
    settings = reported_settings(app)
    # sockd stays in the foreground and owns the sockets; it says so to the user when it reads hello.
    app.cfg.set("daemon", False)
    app.cfg.set("reuse_port", False)
    # gunicorn's part of run(): --check-config, --print-config, --spew, --pythonpath.
    app.run()
    try:
        return Server(app, settings)
    except RuntimeError as error:
        # As BaseApplication.run() reports what goes wrong while the arbiter sets itself up.
        print("\nError: %s\n" % error, file=sys.stderr, flush=True)
        sys.exit(1)


def import_gunicorn_util():
    """Import gunicorn.util without the package metadata library that it imports but hardly ever uses.

    It serves worker classes named by an entry point ("egg:…"), and takes a fifth of gunicorn's start
    (importlib.metadata, 35 of 160 ms under -X importtime; up to gunicorn 20.1 half of it: pkg_resources,
    264 of 481 ms). gunicorn.util keeps a stand-in that imports the real one when it is used; everybody
    else who imports the library gets the real one. The rest of what gunicorn imports, the arbiter's
    module and ssl among it, is needed by its application or worker base classes. ctypes, which alone
    could set PR_SET_PDEATHSIG, costs 10 ms or more and is not imported; see Heartbeat.drain().
    """
    import importlib

    class StandIn(type(sys)):
        def __getattr__(self, attribute):
            if attribute.startswith("__"):
                raise AttributeError(attribute)
            self.step_aside()
            return getattr(importlib.import_module(self.__name__), attribute)

        def step_aside(self):
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


def reported_settings(app):
    cfg = app.cfg
    names = ("workers", "threads", "timeout", "graceful_timeout", "max_requests", "max_requests_jitter",
             "bind", "umask", "backlog", "chdir", "preload_app", "daemon", "reload", "pidfile", "proc_name")
    settings = {name: getattr(cfg, name) for name in names}
    settings["worker_class"] = cfg.worker_class_str
    settings["wsgi"] = app.app_uri
    return settings


def hello(server):
    import gunicorn
    return {
        "gunicorn": gunicorn.__version__,
        "python": "%d.%d.%d" % sys.version_info[:3],
        "settings": server.settings,
    }


class Server:
    """What gunicorn's hooks get as their first argument, `server`: the arbiter's facts, not its powers.

    Its construction does what Arbiter.__init__ and Arbiter.setup do before the first fork.
    """

    def __init__(self, app, settings):
        from gunicorn import SERVER_SOFTWARE
        os.environ["SERVER_SOFTWARE"] = SERVER_SOFTWARE
        self.settings = settings
        self.app = app
        self.cfg = app.cfg
        self.log = self.cfg.logger_class(self.cfg)
        self.worker_class = self.cfg.worker_class
        self.address = self.cfg.address
        self.num_workers = self.cfg.workers
        self.timeout = self.cfg.timeout
        self.proc_name = self.cfg.proc_name
        self.pid = os.getpid()
        self.LISTENERS = []
        self.WORKERS = {}
        os.environ.update(self.cfg.env)
        self.cfg.on_starting(self)
        if hasattr(self.worker_class, "check_config"):
            self.worker_class.check_config(self.cfg, self.log)
        self.load_preloaded()

    def load_preloaded(self):
        """The place for --preload. The application is loaded by each worker, whatever is configured."""


# ---------------------------------------------------------------------------------------------------
# The template's life: one command at a time
# ---------------------------------------------------------------------------------------------------

class BadMessage(Exception):
    """A message that cannot be obeyed; the text is for the log."""


class ForkOrder:
    """One parsed "fork" command and the descriptors that came with it, which it owns."""

    def __init__(self, command, descriptors):
        self.descriptors = descriptors
        self.worker = expect(command, "worker", int)
        self.environment = expect(command, "environment", dict)
        if not all(isinstance(value, str) for value in self.environment.values()):
            raise BadMessage("the environment of worker %d has a value that is not a string" % self.worker)
        self.has_probe = bool(command.get("probe"))
        wanted = 1 + expect(command, "listeners", int) + (1 if self.has_probe else 0)
        if len(descriptors) != wanted:
            raise BadMessage("worker %d needs %d descriptors, %d came" % (self.worker, wanted, len(descriptors)))
        if not self.sockets:
            raise BadMessage("worker %d would have nothing to serve" % self.worker)

    @property
    def stderr(self):
        return self.descriptors[0]

    @property
    def sockets(self):
        """The public listeners, then the probe socket: gunicorn serves all of them alike."""
        return self.descriptors[1:]


def expect(command, key, kind):
    value = command.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BadMessage('"fork" has no proper "%s"' % key)
    return value


class Template:
    """Receives commands and forks. serve() returns in the template at its end, and in each worker."""

    def __init__(self, control, server, supervisor):
        self.control = control
        self.server = server
        self.supervisor = supervisor

    def serve(self):
        """Obey until sockd closes the control socket (None), or until this is a worker (its order)."""
        while True:
            descriptors = []
            try:
                message = self.receive(descriptors)
                if message is None:
                    return None
                order = self.parse(message, descriptors)
                if self.fork(order):
                    return order
            except BadMessage as problem:
                complain(problem)
            close_all(descriptors)

    def receive(self, descriptors):
        """One datagram, its descriptors appended to the list given; None at the end."""
        import socket
        try:
            message, received, flags, _ = socket.recv_fds(
                self.control, LARGEST_MESSAGE, MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return None
        descriptors.extend(received)
        if flags & socket.MSG_TRUNC:
            raise BadMessage("a message is longer than %d bytes" % LARGEST_MESSAGE)
        if flags & socket.MSG_CTRUNC:
            raise BadMessage("descriptors of a message were lost")
        return message if message or received else None

    def parse(self, message, descriptors):
        import json
        try:
            content = json.loads(message)
        except (ValueError, RecursionError) as error:
            raise BadMessage("a message is not JSON: %s" % error)
        command = content.get("fork") if isinstance(content, dict) else None
        if not isinstance(command, dict):
            raise BadMessage("a message is not a command: %.100r" % message)
        try:
            return ForkOrder(command, descriptors)
        except BadMessage as problem:
            # sockd waits for an answer about this worker.
            if isinstance(command.get("worker"), int):
                self.send({"failed": {"worker": command["worker"], "error": str(problem)}})
            raise

    def fork(self, order):
        """Fork the worker and report it. True in the worker, False in the template.

        The worker's parent is a short-lived intermediate, so that the kernel gives the worker to the
        nearest subreaper, which is sockd: its parent, as if sockd had forked it.
        """
        reader, writer = os.pipe()
        try:
            intermediate = os.fork()
            if intermediate == 0:
                self.fork_again_and_leave(writer)
                return True
            os.close(writer)
            writer = None
            answer = os.read(reader, 256).decode()
            # Once the intermediate is reaped the worker is sockd's child, and sockd may wait for it.
            os.waitpid(intermediate, 0)
        except OSError as error:
            answer = "fork: %s" % error.strerror
        finally:
            os.close(reader)
            if writer is not None:
                os.close(writer)
        if answer.isdigit():
            self.send({"forked": {"worker": order.worker, "pid": int(answer)}})
        else:
            self.send({"failed": {"worker": order.worker, "error": answer or "fork: the intermediate died"}})
        return False

    def fork_again_and_leave(self, writer):
        """In the intermediate: fork the worker, pass its pid on, exit. Returns only in the worker."""
        try:
            worker = os.fork()
            if worker == 0:
                return
            answer = str(worker)
        except OSError as error:
            answer = "fork: %s" % error.strerror
        os.write(writer, answer.encode())
        # Nothing of the template's may be flushed, closed or finalized a second time.
        os._exit(0)

    def send(self, message):
        import json
        try:
            self.control.send(json.dumps(message).encode())
        except OSError as error:
            # With sockd gone the next receive() ends the template.
            complain("cannot answer: %s" % error.strerror)


def complain(problem):
    print("sockd template: %s" % problem, file=sys.stderr, flush=True)


def close_all(descriptors):
    for fd in descriptors:
        os.close(fd)


# ---------------------------------------------------------------------------------------------------
# In a worker
# ---------------------------------------------------------------------------------------------------

def run_worker(server, order, supervisor):
    """Be gunicorn's worker: the child's half of Arbiter.spawn_worker(), with its log lines and exit codes."""
    from gunicorn import util
    from gunicorn.errors import AppImportError

    become_worker(order)
    log, cfg = server.log, server.cfg
    worker = None
    try:
        # Files that logrotate renamed since the template opened them are opened afresh.
        log.reopen_files()
        worker = construct_worker(server, order, supervisor)
        cfg.pre_fork(server, worker)
        worker.pid = os.getpid()
        # Private, but the one name for "the process title, if setproctitle is there".
        util._setproctitle("worker [%s]" % server.proc_name)
        wait_for_adoption(supervisor)
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


def leave(server, worker):
    import traceback
    if worker is None:
        return
    try:
        worker.tmp.close()
        server.cfg.worker_exit(server, worker)
    except Exception:
        server.log.warning("Exception during worker exit:\n%s", traceback.format_exc())


def become_worker(order):
    """Turn a copy of the template into a process that has only what a worker may have."""
    import faulthandler
    import random
    os.setsid()
    os.close(CONTROL_FD)
    os.dup2(order.stderr, 2)
    os.close(order.stderr)
    restore_signals()
    # From here on SIGABRT prints every thread's stack, even of a worker that hangs in an import.
    faulthandler.enable(file=2, all_threads=True)
    os.environ.update(order.environment)
    random.seed()


def wait_for_adoption(supervisor):
    """Wait until sockd is the parent: gunicorn's workers leave when getppid() is not what they were told."""
    import time
    deadline = time.monotonic() + ADOPTION_SECONDS
    while os.getppid() != supervisor:
        if time.monotonic() > deadline:
            complain("worker %d was adopted by process %d, not by sockd" % (os.getpid(), os.getppid()))
            sys.exit(WORKER_BOOT_ERROR)
        time.sleep(0.0002)


def construct_worker(server, order, supervisor):
    """Create the worker object, with its reports going to sockd instead of to an arbiter."""
    from gunicorn.workers import base
    cfg = server.cfg
    notifier = Notifier(os.environ.get("NOTIFY_SOCKET"))
    heartbeat = Heartbeat(notifier, cfg.timeout, supervisor)
    # The class creates its WorkerTmp, a temporary file that the arbiter looks at, as it is constructed;
    # there is no parameter for it. sockd needs none, and a service may have no place to write one.
    base.WorkerTmp = lambda _cfg: heartbeat
    if cfg.max_requests > 0:
        # Not cfg.set(), which would make a plain int of it again.
        cfg.settings["max_requests"].value = RequestLimit(cfg.max_requests).reporting_to(notifier)
    server.LISTENERS = listeners(order.sockets, cfg, server.log)
    served, probe = list(server.LISTENERS), None
    if order.has_probe and len(served) == 2 and waits_by_itself(server.worker_class):
        probe = served.pop()
        # As init_process() does with the sockets that it knows.
        os.set_inheritable(probe.fileno(), False)
    worker = server.worker_class(
        order.worker, supervisor, served, server.app, cfg.timeout / 2.0, cfg, server.log)
    worker.tmp = heartbeat
    dump_stacks_on_abort(worker)
    report_ready(worker, heartbeat, probe)
    return worker


def waits_by_itself(worker_class):
    """Whether this is gunicorn's sync worker, which serves one socket faster than two.

    With one it accepts until nobody waits and only then calls select(); with two it calls select()
    before each accept. A probe socket must not cost the visitors that.
    """
    sync = sys.modules.get("gunicorn.workers.sync")
    return bool(sync) and issubclass(worker_class, sync.SyncWorker) and all(
        getattr(worker_class, name) is getattr(sync.SyncWorker, name) for name in ("run", "run_for_one", "wait"))


def serve_probe_aside(worker, probe):
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

    def accept():
        try:
            worker.accept(probe)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                raise

    def wait_for_both(timeout):
        ready = wait(timeout)
        if ready and probe in ready:
            accept()
        return ready

    def notify_and_look():
        nonlocal due
        now = clock()
        if now >= due:
            due = now + 0.5
            notify()
            accept()

    worker.wait, worker.notify = wait_for_both, notify_and_look


def listeners(descriptors, cfg, log):
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


def dump_stacks_on_abort(worker):
    """Keep the stack dump on SIGABRT working after the worker has installed its own handlers.

    gunicorn's handler is Python code: in a worker stuck inside C code it never runs. faulthandler's
    runs at once, then raises the signal again for the handler it has displaced, so that the
    worker_abort hook and the exit code stay gunicorn's. It cannot be enabled twice, and disabling it
    puts back the handler it found: hence the order.
    """
    import faulthandler
    init_signals = worker.init_signals

    def init_signals_below_faulthandler():
        faulthandler.disable()
        init_signals()
        faulthandler.enable(file=2, all_threads=True)

    worker.init_signals = init_signals_below_faulthandler


def report_ready(worker, heartbeat, probe):
    """Arrange READY=1 for the moment the worker's main loop turns.

    init_process() ends by calling run(), after the application is loaded and post_worker_init was
    called. Inside run() the first heartbeat tells that the loop runs: sync, gthread, gevent, eventlet
    and asgi beat once their sockets are set up (asgi after the lifespan start-up), uvicorn's workers in
    the first turn of their main loop, which is after the lifespan start-up, too.
    """
    run = worker.run

    def run_and_report():
        if probe is not None:
            serve_probe_aside(worker, probe)
        drain_on_usr2()
        heartbeat.running = True
        hasten_first_beat(worker)
        run()

    worker.run = run_and_report


def drain_on_usr2():
    """A worker that is replaced gets SIGUSR2: SIGTERM, but WebSockets may live until sockd's drain-timeout.

    uvicorn closes them at once when it shuts down, which is right when the service ends. A reload must
    not cut them: the visitors' pages would all come back in the same moment.
    """
    import signal
    state = {"patient": False}
    uvicorn = sys.modules.get("uvicorn.server")
    if uvicorn:
        shutdown = uvicorn.Server.shutdown

        async def shut_down(self, sockets=None):
            if state["patient"]:
                for connection in self.server_state.connections:
                    if type(connection).__module__.startswith("uvicorn.protocols.websockets"):
                        connection.shutdown = lambda: None
            await shutdown(self, sockets)

        uvicorn.Server.shutdown = shut_down

    def drain(_signal, _frame):
        state["patient"] = True
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGUSR2, drain)


def hasten_first_beat(worker):
    """For the classes whose first heartbeat comes late or never."""
    gtornado = sys.modules.get("gunicorn.workers.gtornado")
    if gtornado and isinstance(worker, gtornado.TornadoWorker):
        # Its first beat is due a second after the start; its loop can bring one in the first turn.
        gtornado.IOLoop.current().add_callback(worker.notify)
    elif not mentions_notify(type(worker)):
        worker.notify()


def mentions_notify(worker_class):
    """Whether any method of the class, gunicorn's base class aside, uses a "notify"."""
    from gunicorn.workers.base import Worker
    members = (member for cls in worker_class.__mro__ if cls not in (Worker, object) for member in vars(cls).values())
    return any(code_mentions(getattr(getattr(member, "__func__", member), "__code__", None), "notify")
               for member in members)


def code_mentions(code, name):
    if code is None:
        return False
    return name in code.co_names or any(
        code_mentions(constant, name) for constant in code.co_consts if isinstance(constant, type(code)))


if __name__ == "__main__":
    main()
