"""What every template for a Python server shares: its start, and becoming a worker. forking.py has what is between.

What it is for. sockd runs a template with the interpreter of the application's environment: reasons.py, reports.py, this
file, forking.py and the server's own program (gunicorn.py, for one) reach it as one memfd, where there is nothing to import
from, and which boot.py runs. It reads the server's configuration exactly as the server does, tells sockd the settings that
matter, and then turns each "fork" command into one worker process.

What it owns. The server's configuration. Interpreter and server are loaded
once, before the first fork, so that workers start fast and share their memory.

What it must never do. Hold a visitor's socket longer than it takes to pass it to a worker. Import the application,
unless it is to be preloaded. Decide anything: when workers start, stop or are killed is sockd's business.

Preloading. With the application in the template, workers are ready in milliseconds and share its memory, and the
template is the last good code, whatever lies on disk since. New code comes with a new template, in which it can fail.

A server's program ends with run(server), where `server` is an AppServer and has
  name, module           what hello and pip call it, and what `python -m` would run
  oldest                 the first two numbers of the oldest version whose inside is what this program takes for granted
  version()              the server's version
  configure(how)         import the server, call collect_from_here(), and read command line, environment and files as
                         the server does; return the settings for hello. Whatever the server itself would say and end
                         with (--help, a mistake) ends the template so
  load()                 import the application, for all workers; an error ends the template
  work(order, supervisor)   be a worker: serve order.sockets until told to stop
"""

import _thread
import atexit
import faulthandler
import gc
import json
import os
import signal
import socket
import sys
import time

CONTROL_FD = 3
LIFE_FD = 6
# What sockd sends before SIGUSR2: real-time signals alone say, while they are blocked, who has sent each of them.
DRAIN_TOKEN = signal.SIGRTMAX - 2
# All signals but those that end a process on purpose, tell it of its own faults and limits, or cannot be caught (and the
# two that the C library keeps for itself).
SHELTERED = sorted(set(range(1, signal.NSIG)) - {32, 33} - {getattr(signal, "SIG" + name) for name in (
    "INT QUIT TERM KILL STOP CONT CHLD ILL TRAP ABRT BUS FPE SEGV SYS PIPE XCPU XFSZ URG WINCH".split())})
COMMON = signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM
# A worker's grandparent adopts it as soon as its parent is gone, which takes microseconds.
ADOPTION_SECONDS = 10.0
# Whether sockd will bind what the settings name, so that names must be looked up.
LOOKS_UP = True
# What a worker that cannot start exits with. gunicorn documents it, uvicorn has it, too.
WORKER_BOOT_ERROR = 3
# A worker whose loop has not turned for so long hangs, where the server has no option for it: gunicorn's default.
HANG_SECONDS = 30
# A template that imports the application for so long shows where: sockd gives it up after 60 s.
LOAD_SECONDS = 55


class AppServer:
    """What a server's program may do beyond what it must: nothing, for servers without hooks."""

    # Where in the service's life this template is born: the content of LIFE_FD.
    life = None
    # Whether something is to be done in the template before each fork. Then there is no spare.
    forks_on_order = False
    # Whether workers beat with each request, and hardly ever without.
    beats_at_requests = False
    # Where the number of the process to signal is to be found while the service lives; None: nowhere.
    pid_file = None

    def begin(self):
        """Called before hello, once the application is imported if it is to be preloaded."""

    def load_later(self):
        """Import what workers import sooner or later. Called once, when the first worker is on its way: nobody waits
        for the template then, and those who come after find it loaded.
        """

    def hook_state(self):
        """What hooks have left in this process, as text, for the templates to come; None: nothing."""

    def before_fork(self, order, supervisor):
        """Called in the template; what is raised here is why there will be no worker."""

    def after_fork(self, pid):
        """Called in the template, once the worker is there or (None) could not be made."""

    def worker_state(self):
        """What hooks have left in the object of the worker that is forked next, or that this is; None: nothing."""

    def worker_joined(self, number, pid, state):
        """Another process has become, or another template has forked, this worker."""

    def worker_exited(self, number, pid, state, call):
        """A worker was reaped; `call`: and its hook is to be called here."""

    def workers_changed(self):
        """There is one more, or one fewer; only the template learns that, no spare."""

    def workers_resized(self, number, call):
        """So many workers are wanted from here on; `call`: and the hook for that is to be called here."""

    def service_started(self):
        """The sockets are bound."""

    def service_ended(self):
        """The last worker was reaped, and the service ends."""


def run(server):
    """A template's life, or, in the processes that it forks, a worker's."""
    how, loading, program = sys.argv[1:4]
    look_like(server.module, how, program)
    supervisor = os.getppid()
    allow_own_session()
    ignore_signals()
    control = socket_from(CONTROL_FD)
    # This file's own descriptor stays open, close-on-exec, like that of boot.py: tracebacks and stack dumps
    # read the source through the path /proc/self/fd/4, which would otherwise come to mean whatever is opened
    # next; a pipe, for instance, which a reader would wait on for ever.
    os.set_inheritable(CONTROL_FD + 1, False)
    REASONS.follow(2)
    REASONS.look_at_logs()
    with REASONS:
        live(server, how, loading, control, supervisor)


def live(server, how, loading, control, supervisor):
    server.life = read_life()
    global LOOKS_UP
    LOOKS_UP = not server.life["bound"]
    version = supported_version(server)
    settings = server.configure(how)
    timeout = settings["timeout"]
    settings["heartbeat_interval"] = beat_interval(timeout, server.beats_at_requests) if timeout else 0
    settings["follows_service"] = bool(server.pid_file) or settings.get("follows_service", False)
    # gunicorn has an option of its own, which counts if sockd's configuration says nothing.
    settings["preload"] = loading == "preload" or loading == "own" and settings.get("preload_app", False)
    if settings["preload"]:
        preload(server)
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


# ---------------------------------------------------------------------------------------------------
# Start: look like the server that the user named
# ---------------------------------------------------------------------------------------------------

def look_like(module, how, program):
    """Leave sys.argv, sys.path and __main__ as the server's own start would have left them."""
    # Python put the directory of /proc/self/fd/5 first, unless it was told to put nothing there.
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path[0] = os.getcwd() if how == "module" else os.path.dirname(os.path.realpath(program))
    main_module = sys.modules["__main__"]
    if how == "module":
        from importlib.util import find_spec
        main_module.__spec__ = find_spec(module)
        main_module.__package__ = main_module.__spec__.parent
        program = main_module.__spec__.origin
    sys.argv[:] = [program] + sys.argv[4:]
    # multiprocessing's "spawn" imports this file again in the application's child processes.
    main_module.__file__ = program


def supported_version(server):
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


def is_older(version, oldest):
    """Whether a version is older than these two numbers. One without numbers, as a checkout may have it, is not."""
    numbers = []
    for part in version.split(".")[:2]:
        digits = part[:len(part) - len(part.lstrip("0123456789"))]
        numbers.append(int(digits) if digits else 0)
    return any(numbers) and tuple(numbers) < oldest


def read_life():
    # Through its path: the descriptor's own offset is at the end.
    with open("/proc/self/fd/%d" % LIFE_FD, "rb") as file:
        life, _ = DECODER.raw_decode(file.read().decode())
    os.close(LIFE_FD)
    return life


def allow_own_session():
    """Let the application ask for a session or a process group of its own, which each of our processes has already.

    The kernel refuses that to a leader, which gunicorn's workers are not; here they are, so that all that they start can
    be found and killed with them.
    """
    setsid, setpgid = os.setsid, os.setpgid

    def own_session():
        try:
            return setsid()
        except PermissionError:
            if os.getsid(0) != os.getpid():
                raise

    def own_group(pid, group):
        try:
            return setpgid(pid, group)
        except PermissionError:
            if {pid, group} - {0, os.getpid()} or os.getpgid(0) != os.getpid():
                raise

    os.setsid, os.setpgid = own_session, own_group
    os.setpgrp = lambda: own_group(0, 0)


def ignore_signals():
    """Whatever a whole unit is sent must not end the template, nor a worker that begins."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Before there is a thread: each inherits the mask.
    signal.pthread_sigmask(signal.SIG_BLOCK, [DRAIN_TOKEN])
    shelter()


def shelter():
    """Have those signals do nothing that would end or stop this process, and that nobody handles.

    The common ones by a handler, since programs that the application starts inherit what is ignored. Not all: handlers of
    signals that come together pile up, and faulthandler's stack has room for three or four.
    """
    for number in SHELTERED:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.SIG_IGN):
            signal.signal(number, do_nothing if number in COMMON else signal.SIG_IGN)


def do_nothing(_signal, _frame):
    pass


def tcp_bind(host, port):
    """An address as the report has it: in numbers, unless nobody will bind it. Of several the first of IPv4.

    A name server may take long to answer, or not answer at all: then it is sockd's to say so.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=0 if LOOKS_UP else socket.AI_NUMERICHOST)
    except OSError:
        return ("[%s]:%d" if ":" in host else "%s:%d") % (host, port)
    family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    if family != socket.AF_INET6:
        return "%s:%d" % address
    zone = "%%%s" % socket.if_indextoname(address[3]) if address[3] and "%" not in address[0] else ""
    return "[%s%s]:%d" % (address[0], zone, address[1])


def preload(server):
    """Import the application, and say what of it cannot be in the workers as it is here."""
    before = connections()
    faulthandler.dump_traceback_later(LOAD_SECONDS, file=2)
    # The thread that waits for that moment is among them, and may be for a while after it was told to end.
    ours = tasks()
    server.load()
    load_urls_of_django()
    faulthandler.cancel_dump_traceback_later()
    for name in threads(tasks() - ours):
        complain("preload: the application started the thread %s while it was imported; "
                 "the workers are without it" % name)
    for fd, peer in sorted(connections().items() - before.items()):
        complain("preload: the application connected to %s while it was imported; all workers share descriptor %d"
                 % (peer, fd))
    # What the import has left behind would be copied into every worker.
    gc.collect()


def load_urls_of_django():
    """Import URLs and views, which Django leaves for the first request: each worker would do it, and keep 1 MB of it.

    After a mistake in them Django tries again with every request, and may find another, of what was left behind.
    """
    if "django.core.handlers.base" in sys.modules:
        from django.urls import get_resolver
        try:
            get_resolver().url_patterns
        except Exception:
            from traceback import print_exc
            print_exc()


def tasks():
    """The numbers of all threads."""
    return set(map(int, os.listdir("/proc/self/task")))


def threads(numbers):
    """The names of threads, those that Python does not know as well."""
    import threading
    # Python 3.7 does not know its number.
    known = {getattr(thread, "native_id", None): thread.name for thread in threading.enumerate()}
    result = []
    for number in numbers:
        try:
            with open("/proc/self/task/%d/comm" % number) as comm:
                result.append(known.get(number) or comm.read().strip())
        except OSError:
            # It has ended.
            pass
    return sorted(result)


def connections():
    """Descriptors that lead to another process, and where to."""
    result = {}
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            with socket.socket(fileno=os.dup(fd)) as connection:
                peer = connection.getpeername()
        except OSError:
            continue
        # The ends of a pair have no names.
        if peer and fd != CONTROL_FD:
            result[fd] = "%s:%s" % peer[:2] if isinstance(peer, tuple) else repr(peer)
    return result


def collect_from_here():
    """Have the garbage collected that the user's code will make, whose own gc.disable() shall count.

    boot.py has stopped that: nothing that an import makes is garbage, and the collector would only look at all of it,
    again and again.
    """
    gc.freeze()
    gc.enable()


def installed_version(package):
    try:
        from importlib.metadata import version
    except ImportError:
        # Python 3.7.
        from pkg_resources import get_distribution
        return get_distribution(package).version
    return version(package)


def own_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def socket_from(fd):
    result = socket.socket(fileno=fd)
    result.set_inheritable(False)
    return result


# ---------------------------------------------------------------------------------------------------
# In a worker
# ---------------------------------------------------------------------------------------------------

def become_worker(order):
    """Turn a copy of the template into a process that has only what a worker may have."""
    if order.group is not None:
        if order.in_place:
            os.close(order.group)
        else:
            enter_group_aside(order.group)
    os.setsid()
    os.close(CONTROL_FD)
    os.dup2(order.stderr, 2)
    # One that serves no visitors is a canary.
    REASONS.follow(order.stderr, goes_on=len(order.sockets) == order.has_probe)
    os.close(order.stderr)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # As the interpreter ends, it takes its handlers back.
    atexit.register(signal.pthread_sigmask, signal.SIG_BLOCK, SHELTERED)
    # From here on SIGABRT prints every thread's stack, even of a worker that hangs in an import.
    faulthandler.enable(file=2, all_threads=True)
    os.environ.update(order.environment)


def enter_group(procs):
    """Move this process into the control group whose cgroup.procs this is. False if that cannot be."""
    try:
        os.write(procs, b"0")
        return True
    except OSError as error:
        complain("process %d cannot enter its control group: %s" % (os.getpid(), error.strerror))
        return False


def enter_group_aside(procs):
    """Move this process into a control group while it goes on: a visitor may be waiting for what it does meanwhile.

    The kernel takes milliseconds for it, up to 60 on a busy machine; memory that is touched until then stays charged to
    the group of the template. A thread that Python's threading module knows nothing of does it, and leaves.
    """
    def enter_and_close():
        enter_group(procs)
        os.close(procs)

    try:
        _thread.start_new_thread(enter_and_close, ())
    except RuntimeError:
        enter_and_close()


def wait_for_adoption(supervisor):
    """Wait until sockd is the parent: what a worker takes for its parent must be sockd."""
    deadline = time.monotonic() + ADOPTION_SECONDS
    while os.getppid() != supervisor:
        if time.monotonic() > deadline:
            complain("process %d was adopted by process %d, not by sockd" % (os.getpid(), os.getppid()))
            sys.exit(WORKER_BOOT_ERROR)
        time.sleep(0.0002)


def start_heartbeat(timeout, supervisor):
    """The worker's voice; the first beat is READY=1."""
    heartbeat = Heartbeat(Notifier(os.environ.get("NOTIFY_SOCKET")), timeout, supervisor)
    heartbeat.running = True
    return heartbeat


async def read_what_was_accepted(sleep=None):
    """Let an event loop turn some more, so that it meets what visitors have sent or are about to send.

    A connection takes up to three turns from accept() to its first read. `sleep` is that of the loop, asyncio's if none
    is given.
    """
    if sleep is None:
        from asyncio import sleep
    for _ in range(5):
        await sleep(0.02)


class Drain:
    """A worker that is replaced gets SIGUSR2: SIGTERM, but long-lived connections may live until sockd's drain-timeout.

    Only from sockd, which sends DRAIN_TOKEN before: SIGUSR2 is also what people send to a whole unit. `patient` says
    whether it came; `begun` is called before the server learns of it.
    """

    def __init__(self, begun=lambda: None):
        self.patient = False
        self.begun = begun
        # Has the server leave. A server whose signals an event loop handles has a way of its own: uvloop handles a
        # signal twice that a handler of Python's sends to its own process, and the second one would end the patience.
        self.leave = lambda: os.kill(os.getpid(), signal.SIGTERM)

    def on_usr2(self):
        signal.signal(signal.SIGUSR2, self.begin)

    def begin(self, _signal, _frame):
        if not came_from(DRAIN_TOKEN, os.getppid()):
            return
        self.patient = True
        self.begun()
        self.leave()


def came_from(number, sender):
    """Whether this process has sent one of the signals of this number that wait, blocked; none waits any more."""
    found = False
    while True:
        info = signal.sigtimedwait([number], 0)
        if info is None:
            return found
        found = found or info.si_pid == sender
