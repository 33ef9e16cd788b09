"""The template's life after its start: the messages of sockd, and the forks.

What it is for. Each "fork" command becomes a process, sockd's child; what the user's hooks are to know reaches the
server's module, an AppServer.

What it owns. The control socket. What it must never do. Decide anything; hold a visitor's socket longer than it takes
to pass it to a worker; end, or wait for ever, for the sake of a hook.

The spare. A fork takes milliseconds that a visitor would wait for, so one process is always forked in advance: a copy
of the template, already sockd's child, which waits for the next command, answers it and is that worker from there on,
while the template makes the next spare. Commands in a row wait in the socket. Template and spare hold the ends of a
pipe: a spare without its template leaves, a template without its spare makes another, and both leave with sockd. The
next spare is made once the worker that the last one became has had its first moments, when a visitor may wait for it.
Moving into a control group can take 10 ms and more, too: a message says which worker comes next, and the spare moves
into that one's group while nobody waits for it.

The protocol is protocol.py's.
"""

import array
import errno
import gc
import json
import os
import select
import socket
import sys
import time

from .log import complain
from .protocol import DECODER, BadMessage, ForkOrder, Notice, Place, failed
from .sockets import close_all
from .worker import enter_group, wait_for_adoption

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, List, Optional, Union

    from .app_server import AppServer

LARGEST_MESSAGE = 65536
# What the order of a worker begins with.
ORDER = b'{"fork"'
# The kernel's SCM_MAX_FD: no message can bring more descriptors.
MOST_DESCRIPTORS = 253
# Plain numbers: see DECODER.
PEEK, MSG_TRUNC, MSG_CTRUNC = (
    int(flag) for flag in (socket.MSG_PEEK | socket.MSG_CMSG_CLOEXEC, socket.MSG_TRUNC, socket.MSG_CTRUNC))
# So many spares in a row that end without a command, and the template ends, too: sockd says so and makes another.
MOST_LOST_SPARES = 3
# A small application's worker is ready within this time. A fork beside it takes a processor from it, or from its
# visitor.
SPARE_DELAY_SECONDS = 0.03


class NoFork(Exception):
    """No process can be made; the text says why."""


class Template:
    """Forks workers; serve() returns in the template at its end, and in each worker."""

    def __init__(self, control: socket.socket, supervisor: int, server: "AppServer") -> None:
        self.control = control
        self.supervisor = supervisor
        self.server = server
        # In a spare, where notices go on to the template.
        self.writer: Optional[int] = None
        # In a worker that was forked on order, its order.
        self.order: Optional[ForkOrder] = None
        self.ended = False
        # Whether the server was asked to load_later().
        self.has_loaded = False
        self.sent_state: Optional[str] = None
        # The worker in whose group this process is.
        self.placed: Optional[int] = None

    def serve(self) -> "Optional[ForkOrder]":
        """Fork workers until sockd or the service has ended (None), or until this process is one (its order)."""
        return self.serve_on_order() if self.server.forks_on_order else self.serve_with_spares()

    def serve_with_spares(self) -> "Optional[ForkOrder]":
        lost, command_waits = 0, False
        while lost < MOST_LOST_SPARES:
            # The spare alone holds the writing end, the template alone the reading end: each learns of the other's end.
            reader, writer = os.pipe()
            try:
                if self.fork_orphan() == 0:
                    os.close(reader)
                    return self.be_spare(writer)
                os.close(writer)
                command_waits = False
                taken = self.hear_spare(reader)
                lost = 0 if taken else lost + 1
                at_end = taken is None
                if taken:
                    self.load_later()
                    self.wait_before_next_spare()
            except NoFork as problem:
                os.close(writer)
                # The next command is worth another try, and is refused only if that fails, too.
                if command_waits:
                    why = str(problem)
                    self.take(lambda order: self.refuse(order, why))  # noqa: B023
                command_waits = self.wait_for(self.control)
                at_end = not command_waits
            os.close(reader)
            if at_end or self.ended:
                return None
        sys.exit("sockd template: %d spares in a row ended before a command came" % lost)

    def load_later(self) -> None:
        if not self.has_loaded:
            self.has_loaded = True
            self.server.load_later()
            # As at the start: see live() in template.py.
            gc.freeze()

    def wait_before_next_spare(self) -> None:
        """Wait a moment, unless the next worker is ordered already, or sockd has gone."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        try:
            ordered = poll.poll(0) and self.control.recv(len(ORDER), PEEK) == ORDER
        except ConnectionResetError:
            # sockd has gone, and serve() finds that out.
            return
        if not ordered:
            time.sleep(SPARE_DELAY_SECONDS)

    def hear_spare(self, reader: int) -> "Optional[bool]":
        """Take notices from the spare until it is a worker: True; False if it ended, None if the template is to end."""
        rest = b""
        while self.wait_for(reader) and not self.ended:
            chunk = os.read(reader, LARGEST_MESSAGE)
            if not chunk:
                return False
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                content, _ = DECODER.raw_decode(line.decode())
                if "taken" in content:
                    self.server.worker_joined(content["taken"]["worker"], content["taken"]["pid"], None)
                    self.server.workers_changed()
                    return True
                notice = self.notice(content, line)
                if notice is not None:
                    self.hear(notice)
        return None

    def serve_on_order(self) -> "Optional[ForkOrder]":
        while not self.ended and self.wait_for(self.control):
            self.take(self.fork_on_order)
            if self.order is not None:
                return self.order
            self.load_later()
        return None

    def fork_on_order(self, order: ForkOrder) -> None:
        pid = None
        try:
            self.server.before_fork(order, self.supervisor)
            # Before the worker can answer: sockd knows then what the fork has changed.
            self.send_hook_state()
            pid = self.fork_orphan()
        except NoFork as problem:
            self.refuse(order, str(problem))
        except (Exception, SystemExit) as error:
            from traceback import print_exc
            print_exc()
            self.refuse(order, "%s: %s" % (type(error).__name__, error))
        if pid == 0:
            self.order = order
            wait_for_adoption(self.supervisor)
            self.send(self.forked(order))
            return
        if pid is not None:
            close_all(order.descriptors)
        self.server.after_fork(pid)
        self.server.workers_changed()

    def forked(self, order: ForkOrder) -> bytes:
        state = self.server.worker_state()
        rest = b', "hook_state": %s' % json.dumps(state).encode() if state else b""
        return b'{"forked": {"worker": %d, "pid": %d%s}}' % (order.worker, os.getpid(), rest)

    def fork_orphan(self) -> int:
        """Fork a process that is sockd's child. 0 in that process, its process id in the template.

        Its parent is a short-lived intermediate, so that the kernel gives it to the nearest subreaper, which is sockd:
        its parent, as if sockd had forked it.
        """
        reader, writer = os.pipe()
        try:
            intermediate = os.fork()
            if intermediate == 0:
                self.fork_again_and_leave(writer)
                return 0
            try:
                os.waitpid(intermediate, 0)
            except ChildProcessError:
                # The application ignores SIGCHLD: the kernel has reaped it.
                pass
            os.close(writer)
            writer = -1
            number = int(os.read(reader, 32) or b"0")
        except OSError as error:
            raise NoFork(why_not(error.errno)) from error
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)
        if number <= 0:
            raise NoFork(why_not(-number) if number else "fork: the intermediate died")
        return number

    def fork_again_and_leave(self, writer: int) -> None:
        """In the intermediate: fork, and say the new process's id, or minus the error number. Returns only in that."""
        try:
            number = os.fork()
            if number == 0:
                return
        except OSError as error:
            number = -(error.errno or errno.EIO)
        os.write(writer, b"%d" % number)
        # Nothing of the template's may be flushed, closed or finalized a second time.
        os._exit(0)

    def wait_for(self, source: "Union[int, socket.socket]") -> bool:
        """Wait until there is something to read, or the end of it. False once sockd has closed the control socket."""
        poll = select.poll()
        poll.register(self.control, 0)
        poll.register(source, select.POLLIN)
        return not dict(poll.poll()).get(self.control.fileno(), 0) & select.POLLHUP

    def be_spare(self, writer: int) -> ForkOrder:
        """In the spare: wait for a command, and take it. Returns the order of the worker that this process is now."""
        wait_for_adoption(self.supervisor)
        self.writer = writer
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        # The one thing that can happen to it: nobody is left to read.
        poll.register(writer, 0)
        while True:
            events = dict(poll.poll())
            if writer in events or events[self.control.fileno()] & select.POLLHUP:
                os._exit(0)
            order = self.take(lambda order: self.send(self.forked(order)))
            if order is not None:
                order.in_place = order.worker == self.placed
                os.write(writer, b'{"taken": {"worker": %d, "pid": %d}}\n' % (order.worker, os.getpid()))
                os.close(writer)
                return order

    def refuse(self, order: ForkOrder, why: str) -> None:
        self.send(failed(order.worker, why))
        close_all(order.descriptors)

    def take(self, obey: "Callable[[ForkOrder], None]") -> "Optional[ForkOrder]":
        """Obey the next message, then remove it from the socket. The order if it was one, else None.

        In this order a command is answered even if this process dies at the worst moment: the next one finds it again.
        """
        descriptors: List[int] = []
        order = None
        try:
            message = self.parse(self.peek(descriptors), descriptors)
            if isinstance(message, Notice):
                self.hear(message)
            elif isinstance(message, Place):
                self.take_place(message)
            else:
                order = message
                obey(order)
                if self.order is not None:
                    # In the worker: the template removes the message.
                    return order
        except BadMessage as problem:
            complain(problem)
            close_all(descriptors)
        except ConnectionResetError:
            return None
        self.control.recv(1)
        return order

    def hear(self, notice: Notice) -> None:
        """Tell the server what the user's hooks are to know; in a spare, the template as well, which calls them."""
        if self.writer is not None:
            self.server.take_notice(notice, call=False)
            os.write(self.writer, notice.text + b"\n")
            return
        try:
            self.server.take_notice(notice, call=True)
        except (Exception, SystemExit):
            # A hook's error is shown, and ends neither the template nor the service.
            from traceback import print_exc
            print_exc()
        self.ended = notice.kind == "end"
        self.send_hook_state()
        if notice.kind in ("joined", "exited"):
            self.server.workers_changed()
            self.send(b'{"noted": {"worker": %d}}' % notice.worker)

    def send_hook_state(self) -> None:
        state = self.server.hook_state()
        if state is not None and state != self.sent_state:
            self.send(json.dumps({"hook_state": state}).encode())
            self.sent_state = state

    def take_place(self, place: Place) -> None:
        """Be in the group of the next worker. The template itself, which has no spare then, stays where it is."""
        if self.writer is not None and enter_group(place.group):
            self.placed = place.worker
        os.close(place.group)

    def peek(self, descriptors: "List[int]") -> bytes:
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

    def parse(self, message: bytes, descriptors: "List[int]") -> "Union[Notice, Place, ForkOrder]":
        try:
            content, _ = DECODER.raw_decode(message.decode())
        except (ValueError, RecursionError) as error:
            raise BadMessage("a message is not JSON: %s" % error) from error
        notice = self.notice(content, message)
        if notice is not None:
            return notice
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

    def notice(self, content: "Any", message: bytes) -> "Optional[Notice]":
        """The notice that a message is, or None."""
        if isinstance(content, dict):
            for kind in Notice.KINDS:
                if isinstance(content.get(kind), dict):
                    return Notice(kind, content[kind], message)
        return None

    def send(self, message: bytes) -> None:
        try:
            self.control.send(message)
        except OSError as error:
            # With sockd gone the control socket's end comes next.
            complain("cannot answer: %s" % error.strerror)


def why_not(number: "Optional[int]") -> str:
    """Why there is no process, in words for people."""
    limits = "; the unit's TasksMax= or LimitNPROC= may be too small" if number == errno.EAGAIN else ""
    return "fork: %s%s" % (os.strerror(number or errno.EIO), limits)
