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

The warm copy (copies.py) is a fork of the template, its child, that has answered requests. Once sockd promotes it, it
is the template: it has the control socket to itself, makes the spares, and hears the notices, while the template that
it comes from waits for its end, and is the template again then. Which of the two makes a worker follows from the order
of the messages: the spare that takes the "promote" or "demote" passes it on and ends, and the next one is the other's.

The protocol is protocol.py's.
"""

import array
import errno
import gc
import json
import os
import select
import signal
import socket
import sys
import time

from .copies import Copy, Original, fork_copy, not_warm
from .log import complain
from .protocol import DECODER, BadMessage, ForkOrder, Notice, Place, failed
from .sockets import close_all
from .warm import Unfit, Wishes, warm
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
        # The end of the pipe whose other end the spare holds.
        self.reader: Optional[int] = None
        # The copy of this template, and what this process is a copy of.
        self.copy: Optional[Copy] = None
        self.original: Optional[Original] = None
        # Whether this is a copy that has yet to be warmed.
        self.is_fresh = False
        # What this process does in place of making spares; it returns whether it makes spares then.
        self.next_step: Optional[Callable[[], bool]] = None
        # Whether this is a spare that ends, since the next worker is to come from elsewhere.
        self.is_leaving = False

    def serve(self) -> "Optional[ForkOrder]":
        """Fork workers until sockd or the service has ended (None), or until this process is one (its order)."""
        while True:
            order = self.serve_on_order() if self.server.forks_on_order else self.serve_with_spares()
            step, self.next_step = self.next_step, None
            if order is not None or step is None or not step():
                break
        if order is None and self.original is not None:
            # What is to be done at the end of a Python process, the original does.
            sys.stdout.flush()
            os._exit(0)
        return order

    def serve_with_spares(self) -> "Optional[ForkOrder]":
        lost, command_waits = 0, False
        while lost < MOST_LOST_SPARES:
            # The spare alone holds the writing end, the template alone the reading end: each learns of the other's end.
            reader, writer = os.pipe()
            self.reader = reader
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
                command_waits = self.next_step is None and self.wait_for(self.control)
                at_end = not command_waits
            if self.reader is not None:
                os.close(reader)
                self.reader = None
            if at_end or self.ended or self.next_step is not None:
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
        while not self.ended and self.wait_for(reader):
            chunk = os.read(reader, LARGEST_MESSAGE)
            if not chunk:
                return False
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                content, _ = DECODER.raw_decode(line.decode())
                if "taken" in content:
                    self.server.worker_joined(content["taken"]["worker"], content["taken"]["pid"], None)
                    self.server.workers_changed()
                    self.pass_on_joined(content["taken"]["worker"], content["taken"]["pid"])
                    return True
                notice = self.notice(content, line)
                if notice is not None:
                    self.hear(notice)
                    if self.reader is None:
                        # This is the copy, and the spare is not its own.
                        return None
        return None

    def serve_on_order(self) -> "Optional[ForkOrder]":
        while not self.ended and self.next_step is None and self.wait_for(self.control):
            self.take(self.fork_on_order)
            if self.order is not None:
                return self.order
            if self.next_step is None:
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
            self.pass_on_joined(order.worker, pid)
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
                for relative in (self.copy, self.original):
                    if relative is not None:
                        relative.leave()
                self.copy = self.original = None
                return
        except OSError as error:
            number = -(error.errno or errno.EIO)
        os.write(writer, b"%d" % number)
        # Nothing of the template's may be flushed, closed or finalized a second time.
        os._exit(0)

    def wait_for(self, source: "Union[int, socket.socket]") -> bool:
        """Wait until there is something to read, or the end of it. False once sockd has closed the control socket."""
        while True:
            poll = select.poll()
            poll.register(self.control, 0)
            poll.register(source, select.POLLIN)
            seconds = None
            if self.copy is not None:
                poll.register(self.copy.line, select.POLLIN)
                seconds = self.copy.seconds_left()
            events = dict(poll.poll(None if seconds is None else seconds * 1000 + 1))
            number = source if isinstance(source, int) else source.fileno()
            if events.get(self.control.fileno(), 0) & select.POLLHUP:
                return False
            if self.copy is not None and (not events or self.copy.line.fileno() in events):
                self.hear_copy(self.copy)
            if number in events:
                return True

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
            if self.is_leaving:
                os._exit(0)
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
            if self.order is not None or self.is_fresh:
                # In the worker, or the copy: the template removes the message.
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
            os.write(self.writer, notice.text + b"\n")
        if notice.kind in notice.OF_COPY:
            self.hear_of_copy(notice)
            return
        if self.writer is not None:
            self.server.take_notice(notice, call=False)
            return
        self.pass_on(notice.text)
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

    def hear_of_copy(self, notice: Notice) -> None:
        """Make a copy, or let it take over, or end; what makes no sense here was asked of one that has ended."""
        if self.writer is not None:
            self.is_leaving = notice.kind != "warm"
        elif notice.kind == "warm":
            if self.copy is None and self.original is None:
                self.make_copy(Wishes(notice.content))
        elif notice.kind == "promote":
            if self.copy is not None and self.copy.is_warm:
                self.next_step = self.wait_for_copy
        elif self.original is not None:
            self.next_step = self.step_down
        elif self.copy is not None:
            self.copy.end()
            self.copy = None

    def make_copy(self, wishes: Wishes) -> None:
        try:
            relative = fork_copy([self.reader] if self.reader is not None else [])
        except OSError as error:
            self.send(not_warm(why_not(error.errno)))
            return
        if isinstance(relative, Copy):
            self.copy = relative
            self.share_signal(signal.SIGUSR1)
            return
        self.original, self.reader = relative, None
        self.is_fresh = True
        self.next_step = lambda: self.be_warmed(relative, wishes)

    def share_signal(self, number: int) -> None:
        """Have the copy get it, too: it reopens log files."""
        handler = signal.getsignal(number)

        def share(number: int, frame: "Any") -> None:
            if callable(handler):
                handler(number, frame)
            if self.copy is not None:
                os.kill(self.copy.pid, number)

        signal.signal(number, share)

    def be_warmed(self, original: Original, wishes: Wishes) -> bool:
        """In the copy: answer the requests, and wait to be promoted."""
        self.is_fresh = False
        self.load_later()
        try:
            application, extras = self.server.wsgi()
            warm(application, wishes, extras)
        except Unfit as why:
            sys.stdout.flush()
            original.line.say(not_warm(str(why)))
            os._exit(0)
        # As at the start: see live() in template.py.
        gc.freeze()
        sys.stdout.flush()
        original.line.say(b'{"warmed": {"pid": %d}}' % os.getpid())
        for notice in original.notices():
            if notice.kind == "promote":
                return True
            self.server.take_notice(notice, call=False)
            if notice.kind in ("joined", "exited"):
                self.server.workers_changed()
        return False

    def hear_copy(self, copy: Copy) -> None:
        """In the template, before the copy is promoted: it has said something, or has ended, or its time is over."""
        lines = copy.line.hear() if copy.seconds_left() != 0 else None
        if lines is None:
            self.copy = None
            self.send(not_warm(copy.end()))
        for line in lines or ():
            self.send(line)
            if line.startswith(b'{"warmed"'):
                copy.is_warm = True
            else:
                self.copy = None
                copy.end()

    def wait_for_copy(self) -> bool:
        """In the template: the copy is promoted, and is the template until it ends."""
        copy = self.copy
        if copy is None:
            return True
        copy.promote()
        is_demoted = False
        while self.wait_for_either(copy):
            lines = copy.line.hear()
            if lines is None:
                self.copy = None
                why = copy.end()
                if not is_demoted and not self.ended:
                    self.send(not_warm(why))
                return not self.ended
            for line in lines:
                content, _ = DECODER.raw_decode(line.decode())
                is_demoted |= "demote" in content
                notice = self.notice(content, line)
                if notice is not None and notice.kind not in notice.OF_COPY:
                    self.server.take_notice(notice, call=False)
                    self.ended |= notice.kind == "end"
        return False

    def wait_for_either(self, copy: Copy) -> bool:
        poll = select.poll()
        poll.register(self.control, 0)
        poll.register(copy.line, select.POLLIN)
        return not dict(poll.poll()).get(self.control.fileno(), 0) & select.POLLHUP

    def step_down(self) -> bool:
        """In the promoted copy: the template takes over again."""
        self.pass_on(b'{"demote": {}}')
        return False

    def pass_on(self, text: bytes) -> None:
        """Have the other of template and copy know it, too."""
        if self.copy is not None:
            self.copy.missed.append(text)
        elif self.original is not None:
            self.original.line.say(text)

    def pass_on_joined(self, worker: int, pid: int) -> None:
        self.pass_on(b'{"joined": {"worker": %d, "pid": %d}}' % (worker, pid))

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
