"""What a worker says to sockd, and its heartbeat.

What it is for. READY=1 and X_SOCKD_RETIRE=1 over the worker's own NOTIFY_SOCKET; heartbeats on its scoreboard, from the
places where servers beat by themselves.

What it owns. The notification socket. What it must never do. Block a worker, or fail one.
"""

import os
import time

from .reasons import REASONS
from .scoreboard import LAST_BEAT, Scoreboard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional, Set

    from .protocol import ForkOrder

# Nanoseconds between two looks at what changes seldom, while the worker beats as often as it likes.
BETWEEN_LOOKS = 10 ** 9


class Notifier:
    """The worker's end of its NOTIFY_SOCKET.

    Connected at once: later the worker may run as a user who could not.
    """

    def __init__(self, address: "Optional[str]") -> None:
        import socket
        import struct
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # A supervisor that does not read must not hold up a worker for long.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 1, 0))
        self.said: Set[bytes] = set()
        if address:
            self.socket.connect("\0" + address[1:] if address.startswith("@") else address)

    def say_once(self, state: bytes) -> bool:
        """Send what must arrive, unless it was sent before. False if it could not be sent."""
        if state not in self.said and self.send(state):
            self.said.add(state)
        return state in self.said

    def send(self, state: bytes) -> bool:
        try:
            self.socket.send(state)
        except OSError:
            return False
        return True


class Heartbeat:
    """Takes the place of gunicorn's WorkerTmp: a beat is a time on the scoreboard. The first one is READY=1, too."""

    def __init__(self, notifier: "Notifier", scoreboard: "Scoreboard", supervisor: int) -> None:
        self.notifier = notifier
        self.supervisor = supervisor
        self.scoreboard = scoreboard
        self.words = scoreboard.words
        self.clock = time.monotonic_ns
        self.running = False
        self.ready = False
        # More is not to be done before this time: most beats come with a request and must cost it next to nothing.
        self.due = 0

    def notify(self) -> None:
        self.words[LAST_BEAT] = now = self.clock()
        if now >= self.due:
            self.beat(now)

    def beat(self, now: int) -> None:
        if not self.running:
            return
        if os.getppid() != self.supervisor:
            self.drain()
        if not self.ready:
            self.ready = self.notifier.say_once(b"READY=1")
            REASONS.ready()
        if self.ready:
            self.due = now + BETWEEN_LOOKS

    def drain(self) -> None:
        """Without sockd there is nobody to watch or replace this worker; uvicorn's does not look itself."""
        import signal
        self.supervisor = os.getppid()
        os.kill(os.getpid(), signal.SIGTERM)

    def last_update(self) -> float:
        return self.words[LAST_BEAT] / 1e9

    def fileno(self) -> int:
        return self.notifier.socket.fileno()

    def close(self) -> None:
        self.running = False
        self.notifier.socket.close()


class RequestLimit(int):
    """max_requests as a number that reports when it is reached, and then says it was not.

    Every worker class compares its own counter with it and would leave; sockd wants to start the
    successor first. Python asks the right-hand side of `count >= limit` first, when its class derives
    from the left-hand side's, so the report happens here, whichever class counts. The jitter is added
    to it by gunicorn, and zero by uvicorn: sums stay limits.
    """

    notifier: "Optional[Notifier]" = None

    def reporting_to(self, notifier: "Optional[Notifier]") -> "RequestLimit":
        self.notifier = notifier
        return self

    def __add__(self, other: int) -> "RequestLimit":
        return RequestLimit(int(self) + other).reporting_to(self.notifier)

    __radd__ = __add__

    def report(self) -> None:
        if self.notifier is not None:
            self.notifier.say_once(b"X_SOCKD_RETIRE=1")

    def __le__(self, count: int) -> bool:
        if int(self) <= count:
            self.report()
        return False

    def __lt__(self, count: int) -> bool:
        if int(self) < count:
            self.report()
        return False


def start_heartbeat(order: "ForkOrder", supervisor: int) -> "Heartbeat":
    """The worker's Heartbeat, whose first beat is READY=1."""
    scoreboard = Scoreboard(order.scoreboard, order.shows_requests)
    heartbeat = Heartbeat(Notifier(os.environ.get("NOTIFY_SOCKET")), scoreboard, supervisor)
    heartbeat.running = True
    return heartbeat
