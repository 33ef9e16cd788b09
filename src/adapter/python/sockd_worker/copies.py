"""A template and its warm copy, as each of the two sees the other.

What it is for. The copy answers requests of sockd's own, which may hang it, end it or make it useless, while the
template goes on. Promoted, it is the template, and the one that it was forked from waits for its end.

What it owns. A pair of sockets between the two, lines of JSON, and a pipe: the kernel kills the copy, whatever it does,
when the template has gone. What it must never do. Let a worker have one of these.
"""

import fcntl
import json
import os
import select
import signal
import socket
import time

from .protocol import DECODER, Notice
from .sockets import close_all
from .warm import MOST_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, Optional

# By then a copy should have ended by itself, which shows where it hangs.
DEADLINE_SECONDS = MOST_SECONDS + 3


class Line:
    """One end of the pair."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self.rest = b""

    def fileno(self) -> int:
        return self.end.fileno()

    def say(self, text: bytes) -> None:
        try:
            self.end.sendall(text + b"\n")
        except OSError:
            # The other one has ended; that is heard where the lines are read.
            pass

    def hear(self) -> "Optional[List[bytes]]":
        """The lines that have come since, once there is something to read; None at the end."""
        try:
            chunk = self.end.recv(65536)
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            return None
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        return lines


class Copy:
    """In the template: its warm copy."""

    def __init__(self, pid: int, line: Line, life: int) -> None:
        self.pid = pid
        self.line = line
        # The writing end of the pipe. The kernel kills the copy when it is closed.
        self.life = life
        self.begun = time.monotonic()
        self.is_warm = False
        # What it has not heard since it was forked.
        self.missed: List[bytes] = []

    def leave(self) -> None:
        """In a worker: have nothing to do with it."""
        self.line.end.close()
        os.close(self.life)

    def seconds_left(self) -> "Optional[float]":
        """How long it may take for its next word; None: as long as it likes."""
        return None if self.is_warm else max(0.0, self.begun + DEADLINE_SECONDS - time.monotonic())

    def promote(self) -> None:
        for text in self.missed:
            self.line.say(text)
        self.line.say(b'{"promote": {}}')

    def end(self) -> str:
        """End it, if it has not ended; how it ended."""
        is_late = not self.is_warm and time.monotonic() - self.begun >= MOST_SECONDS
        self.leave()
        try:
            _, status = os.waitpid(self.pid, 0)
        except ChildProcessError:
            # The application ignores SIGCHLD: the kernel has reaped it.
            return "the copy of the template ended"
        if is_late:
            return "the requests were not answered within %d s" % MOST_SECONDS
        if os.WIFSIGNALED(status):
            # A real-time signal has no name of its own.
            number = os.WTERMSIG(status)
            names = {int(one): one.name for one in signal.Signals}
            return "the copy of the template was killed by %s" % names.get(number, "signal %d" % number)
        return "the copy of the template ended with exit code %d" % os.WEXITSTATUS(status)


class Original:
    """In the copy: the template that it was forked from."""

    def __init__(self, line: Line, life: int) -> None:
        self.line = line
        self.life = life
        fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(life, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(life, fcntl.F_SETFL, os.O_ASYNC)
        poll = select.poll()
        poll.register(life, 0)
        if poll.poll(0):
            # It had gone before.
            os._exit(1)

    def leave(self) -> None:
        """In a worker: have nothing to do with it."""
        self.line.end.close()
        os.close(self.life)

    def notices(self) -> "Iterator[Notice]":
        """What the copy has not heard, once it is promoted; ends with "promote"."""
        while True:
            lines = self.line.hear()
            if lines is None:
                os._exit(0)
            for text in lines:
                content: Dict[str, Any]
                content, _ = DECODER.raw_decode(text.decode())
                for kind in content:
                    yield Notice(kind, content[kind], text)


def fork_copy(closed_there: "List[int]") -> "Any":
    """Fork. The Copy in the template, the Original in the copy, where these descriptors are closed; OSError."""
    here, there = socket.socketpair()
    reader, writer = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        here.close()
        there.close()
        close_all((reader, writer))
        raise
    if pid:
        there.close()
        os.close(reader)
        return Copy(pid, Line(here), writer)
    here.close()
    close_all([writer, *closed_there])
    return Original(Line(there), reader)


def not_warm(why: str) -> bytes:
    # A path in it may hold bytes that are no text.
    return json.dumps({"not_warm": {"why": why.encode(errors="backslashreplace").decode()}}).encode()
