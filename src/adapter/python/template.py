"""What every template for a Python server shares: the protocol, the forking, becoming a worker.

What it is for. sockd runs a template with the interpreter of the application's environment: reports.py, this file and
the server's own program (gunicorn.py, for one) reach it as one memfd, where there is nothing to import from, and which
boot.py runs. It reads the server's configuration exactly as the server does, tells sockd the settings that matter, and
then turns each "fork" command into one worker process.

What it owns. The control socket (descriptor 3) and the server's configuration. Interpreter and server are loaded
once, before the first fork, so that workers start fast and share their memory.

What it must never do. Hold a visitor's socket longer than it takes to pass it to a worker. Import the application,
unless it is to be preloaded. Decide anything: when workers start, stop or are killed is sockd's business.

Preloading. With the application in the template, workers are ready in milliseconds and share its memory, and the
template is the last good code, whatever lies on disk since. New code comes with a new template, in which it can fail.

The spare. A fork takes milliseconds that a visitor would wait for, so one process is always forked in advance: a copy
of the template, already sockd's child, which waits for the next command, answers it and is that worker from there on,
while the template makes the next spare. Commands in a row wait in the socket. Template and spare hold the ends of a
pipe: a spare without its template leaves, a template without its spare makes another, and both leave with sockd.
Moving into a control group can take 10 ms and more, too: told which worker comes next, the spare moves into that
one's group while nobody waits for it.

The protocol: one JSON object per datagram.
  template -> sockd   {"hello": {"gunicorn": …, "python": …, "settings": {…}}}; src/adapter/report.rs has the settings
  sockd -> template   {"fork": {"worker": 17, "environment": {…}, "listeners": 2, "probe": true, "group": true}} with
                      the descriptors: the worker's stderr, the listeners, the worker's probe socket, the cgroup.procs
                      of its control group
  sockd -> template   {"place": {"worker": 17}} with one descriptor, the cgroup.procs of that worker's control group: the
                      next command will probably be for this worker. There is no answer
  template -> sockd   {"forked": {"worker": 17, "pid": 1234}} or {"failed": {"worker": 17, "error": …}}
A worker's pid is that of the spare, which sends the answer itself.
A worker speaks to sockd through its NOTIFY_SOCKET: READY=1, WATCHDOG=1, X_SOCKD_SERVED=N, X_SOCKD_RETIRE=1.

A server's program ends with run(server), where `server` has
  name, module           what hello calls it, and what `python -m` would run
  version()              the server's version
  configure(how)         import the server, call collect_from_here(), and read command line, environment and files as
                         the server does; return the settings for hello. Whatever the server itself would say and end
                         with (--help, a mistake) ends the template so
  load()                 import the application, for all workers; an error ends the template
  work(order, supervisor)   be a worker: serve order.sockets until told to stop
"""

import array
import faulthandler
import gc
import json
import os
import select
import signal
import socket
import sys
import time

CONTROL_FD = 3
LARGEST_MESSAGE = 65536
# The kernel's SCM_MAX_FD: no message can bring more descriptors.
MOST_DESCRIPTORS = 253
# Plain numbers, and a decoder without frills: each page that a spare or a worker touches becomes its own, and what
# json.loads(), json.dumps() and the arithmetic of socket's flags touch came to 200 KB of every worker.
PEEK, MSG_TRUNC, MSG_CTRUNC = (
    int(flag) for flag in (socket.MSG_PEEK | socket.MSG_CMSG_CLOEXEC, socket.MSG_TRUNC, socket.MSG_CTRUNC))
DECODER = json.JSONDecoder()
# A worker's grandparent adopts it as soon as its parent is gone, which takes microseconds.
ADOPTION_SECONDS = 10.0
# So many spares in a row that end without a command, and the template ends, too: sockd says so and makes another.
MOST_LOST_SPARES = 3
# What a worker that cannot start exits with. gunicorn documents it, uvicorn has it, too.
WORKER_BOOT_ERROR = 3
# A worker whose loop has not turned for so long hangs, where the server has no option for it: gunicorn's default.
HANG_SECONDS = 30
# A template that imports the application for so long shows where: sockd gives it up after 60 s.
LOAD_SECONDS = 55


def run(server):
    """A template's life, or, in the processes that it forks, a worker's."""
    how, loading, program = sys.argv[1:4]
    look_like(server.module, how, program)
    supervisor = os.getppid()
    ignore_signals()
    control = socket_from(CONTROL_FD)
    # This file's own descriptor stays open, close-on-exec: tracebacks and stack dumps read the source
    # through the path /proc/self/fd/4, which would otherwise come to mean whatever is opened next; a
    # pipe, for instance, which a reader would wait on for ever.
    os.set_inheritable(CONTROL_FD + 1, False)
    settings = server.configure(how)
    # gunicorn has an option of its own, which counts if sockd's configuration says nothing.
    settings["preload"] = loading == "preload" or loading == "own" and settings.get("preload_app", False)
    if settings["preload"]:
        preload(server)
    template = Template(control, supervisor)
    # What is there now stays, in every worker: collections there need not look at it, and so need not
    # write to the memory they share (1.4 MB a worker with Django).
    gc.freeze()
    # Else every worker would print once more what the configuration file has printed.
    sys.stdout.flush()
    template.send(json.dumps({"hello": {
        server.name: server.version(),
        "python": "%d.%d.%d" % sys.version_info[:3],
        "settings": settings,
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


def ignore_signals():
    """A signal for the process group, or the server's own reload habits, must not end the template."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


def restore_signals():
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def tcp_bind(host, port):
    """An address as the report has it: in numbers. Names are looked up, as the server would."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return ("[%s]:%d" if family == socket.AF_INET6 else "%s:%d") % address[:2]


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
    known = {thread.native_id: thread.name for thread in threading.enumerate()}
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


def own_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def socket_from(fd):
    result = socket.socket(fileno=fd)
    result.set_inheritable(False)
    return result


# ---------------------------------------------------------------------------------------------------
# The template's life and its spare's: one command at a time
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
        self.has_group = bool(command.get("group"))
        wanted = 1 + expect(command, "listeners", int) + self.has_probe + self.has_group
        if len(descriptors) != wanted:
            raise BadMessage("worker %d needs %d descriptors, %d came" % (self.worker, wanted, len(descriptors)))
        # Whether this process is in that worker's control group already.
        self.in_place = False
        if not self.sockets:
            raise BadMessage("worker %d would have nothing to serve" % self.worker)

    @property
    def stderr(self):
        return self.descriptors[0]

    @property
    def sockets(self):
        """The public listeners, then the probe socket: all are served alike."""
        return self.descriptors[1:-1] if self.has_group else self.descriptors[1:]

    @property
    def group(self):
        """The cgroup.procs of the worker's control group, or None."""
        return self.descriptors[-1] if self.has_group else None


def expect(command, key, kind):
    value = command.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BadMessage('a command has no proper "%s"' % key)
    return value


class Place:
    """One parsed "place" command: a group to be in, since the next worker will want to be there."""

    def __init__(self, command, descriptors):
        self.worker = expect(command, "worker", int)
        if len(descriptors) != 1:
            raise BadMessage("a place is one descriptor, %d came" % len(descriptors))
        self.group, = descriptors


class Template:
    """Keeps a spare; serve() returns in the template at its end, and in each worker."""

    def __init__(self, control, supervisor):
        self.control = control
        self.supervisor = supervisor
        self.is_spare = False
        # The worker in whose group this process is.
        self.placed = None

    def serve(self):
        """Keep a spare until sockd closes the control socket (None), or until this is a worker (its order)."""
        lost, command_waits = 0, False
        while lost < MOST_LOST_SPARES:
            # The spare alone holds the writing end, the template alone the reading end: each learns of the other's end.
            reader, writer = os.pipe()
            problem = self.fork_orphan()
            if problem is None:
                os.close(reader)
                return self.be_spare(writer)
            os.close(writer)
            if problem:
                # The next command is worth another try, and is refused only if that fails, too.
                if command_waits:
                    self.refuse(problem)
                command_waits = self.wait_for(self.control)
                at_end = not command_waits
            else:
                command_waits = False
                at_end = not self.wait_for(reader)
                lost = 0 if at_end or os.read(reader, 1) else lost + 1
            os.close(reader)
            if at_end:
                return None
        sys.exit("sockd template: %d spares in a row ended before a command came" % lost)

    def fork_orphan(self):
        """Fork a process that is sockd's child. None in that process; in the template "", or why there is none.

        Its parent is a short-lived intermediate, so that the kernel gives it to the nearest subreaper, which is sockd:
        its parent, as if sockd had forked it.
        """
        try:
            intermediate = os.fork()
            if intermediate == 0:
                self.fork_again_and_leave()
                return None
            _, status = os.waitpid(intermediate, 0)
        except OSError as error:
            return "fork: %s" % error.strerror
        if os.WIFSIGNALED(status):
            return "fork: the intermediate died"
        number = os.WEXITSTATUS(status)
        return "fork: %s" % os.strerror(number) if number else ""

    def fork_again_and_leave(self):
        """In the intermediate: fork, and exit with the error number if that fails. Returns only in the new process."""
        try:
            if os.fork() == 0:
                return
            number = 0
        except OSError as error:
            number = error.errno
        # Nothing of the template's may be flushed, closed or finalized a second time.
        os._exit(number)

    def wait_for(self, source):
        """Wait until there is something to read, or the end of it. False once sockd has closed the control socket."""
        poll = select.poll()
        poll.register(self.control, 0)
        poll.register(source, select.POLLIN)
        return not dict(poll.poll()).get(self.control.fileno(), 0) & select.POLLHUP

    def be_spare(self, writer):
        """In the spare: wait for a command, and take it. Returns the order of the worker that this process is now."""
        wait_for_adoption(self.supervisor)
        self.is_spare = True
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        # The one thing that can happen to it: nobody is left to read.
        poll.register(writer, 0)
        while True:
            events = dict(poll.poll())
            if writer in events or events[self.control.fileno()] & select.POLLHUP:
                os._exit(0)
            order = self.take(lambda worker: b'{"forked": {"worker": %d, "pid": %d}}' % (worker, os.getpid()))
            if order is not None:
                order.in_place = order.worker == self.placed
                os.write(writer, b"taken")
                os.close(writer)
                return order

    def refuse(self, problem):
        """Answer the next command with why it cannot be obeyed."""
        order = self.take(lambda worker: failed(worker, problem))
        if order is not None:
            close_all(order.descriptors)

    def take(self, answer):
        """Answer the next command, then remove it from the socket. None if it makes no sense, or sockd is gone.

        In this order it is answered even if this process dies at the worst moment: the next spare finds it again.
        """
        descriptors = []
        try:
            order = self.parse(self.peek(descriptors), descriptors)
            if isinstance(order, Place):
                order = self.take_place(order)
            else:
                self.send(answer(order.worker))
        except BadMessage as problem:
            order = None
            complain(problem)
            close_all(descriptors)
        except ConnectionResetError:
            return None
        self.control.recv(1)
        return order

    def take_place(self, place):
        """Be in the group of the next worker. The template itself, which has no spare then, stays where it is."""
        if self.is_spare and enter_group(place.group):
            self.placed = place.worker
        os.close(place.group)

    def peek(self, descriptors):
        """The next datagram, which stays; its descriptors, appended to the list given, are copies."""
        numbers = array.array("i")
        # Not socket.recv_fds(), which forgets its flags.
        message, ancillary, flags, _ = self.control.recvmsg(
            LARGEST_MESSAGE, socket.CMSG_SPACE(MOST_DESCRIPTORS * numbers.itemsize), PEEK)
        for _, _, data in ancillary:
            numbers.frombytes(data)
        descriptors.extend(numbers)
        if flags & MSG_TRUNC:
            raise BadMessage("a message is longer than %d bytes" % LARGEST_MESSAGE)
        if flags & MSG_CTRUNC:
            raise BadMessage("descriptors of a message were lost")
        return message

    def parse(self, message, descriptors):
        try:
            content, _ = DECODER.raw_decode(message.decode())
        except (ValueError, RecursionError) as error:
            raise BadMessage("a message is not JSON: %s" % error)
        if isinstance(content, dict) and isinstance(content.get("place"), dict):
            return Place(content["place"], descriptors)
        command = content.get("fork") if isinstance(content, dict) else None
        if not isinstance(command, dict):
            raise BadMessage("a message is not a command: %.100r" % message)
        try:
            return ForkOrder(command, descriptors)
        except BadMessage as problem:
            # sockd waits for an answer about this worker.
            if isinstance(command.get("worker"), int):
                self.send(failed(command["worker"], str(problem)))
            raise

    def send(self, message):
        try:
            self.control.send(message)
        except OSError as error:
            # With sockd gone the control socket's end comes next.
            complain("cannot answer: %s" % error.strerror)


def failed(worker, why):
    return json.dumps({"failed": {"worker": worker, "error": why}}).encode()


def complain(problem):
    print("sockd template: %s" % problem, file=sys.stderr, flush=True)


def close_all(descriptors):
    for fd in descriptors:
        os.close(fd)


# ---------------------------------------------------------------------------------------------------
# In a worker
# ---------------------------------------------------------------------------------------------------

def become_worker(order):
    """Turn a copy of the template into a process that has only what a worker may have."""
    if order.group is not None:
        # Before anything is allocated: memory stays charged where it was touched.
        if not order.in_place:
            enter_group(order.group)
        os.close(order.group)
    os.setsid()
    os.close(CONTROL_FD)
    os.dup2(order.stderr, 2)
    os.close(order.stderr)
    restore_signals()
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

    `patient` says whether it came; `begun` is called before the server learns of it.
    """

    def __init__(self, begun=lambda: None):
        self.patient = False
        self.begun = begun

    def on_usr2(self):
        signal.signal(signal.SIGUSR2, self.begin)

    def begin(self, _signal, _frame):
        self.patient = True
        self.begun()
        os.kill(os.getpid(), signal.SIGTERM)
