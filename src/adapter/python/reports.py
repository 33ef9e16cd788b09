"""What a worker says to sockd.

What it is for. READY=1, WATCHDOG=1, X_SOCKD_SERVED=N and X_SOCKD_RETIRE=1 over the worker's own NOTIFY_SOCKET, from the places
where servers beat and count by themselves.

What it owns. The notification socket. What it must never do. Block a worker, or fail one.
"""

import os


class Notifier:
    """The worker's end of its NOTIFY_SOCKET.

    Connected at once: later the worker may run as a user who could not.
    """

    def __init__(self, address):
        import socket
        import struct
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        # A supervisor that does not read must not hold up a worker for long.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 1, 0))
        self.without_waiting = socket.MSG_DONTWAIT
        self.said = set()
        if address:
            self.socket.connect("\0" + address[1:] if address.startswith("@") else address)

    def say_once(self, state):
        """Send what must arrive, unless it was sent before. False if it could not be sent."""
        if state not in self.said and self._send(state, 0):
            self.said.add(state)
        return state in self.said

    def mention(self, state):
        """Send what the next such message makes up for, if this one is lost."""
        return self._send(state, self.without_waiting)

    def _send(self, state, flags):
        try:
            self.socket.send(state, flags)
        except OSError:
            return False
        return True


class Heartbeat:
    """Takes the place of gunicorn's WorkerTmp: a beat becomes a datagram to sockd.

    Workers beat as often as once per request; a datagram goes out at most once in beat_interval(). sockd adds that to
    the timeout before it calls a worker hung.
    """

    def __init__(self, notifier, timeout, supervisor, at_requests=False):
        import time
        self.notifier = notifier
        self.supervisor = supervisor
        self.clock = time.monotonic
        watchdog = float(os.environ.get("WATCHDOG_USEC", "inf")) / 1e6
        self.interval = min(beat_interval(timeout, at_requests), beat_interval(watchdog, at_requests))
        self.running = False
        self.ready = False
        # Gives the number of requests that were finished, where somebody counts them: sockd takes a worker that
        # finishes requests for busy, and not for stuck, when it does not answer a probe in time.
        self.served = None
        self.last = self.clock()
        # Nothing is to be done before this time: most beats come with a request and must cost it nothing.
        self.due = 0.0

    def notify(self):
        now = self.clock()
        if now >= self.due:
            self.beat(now)

    def beat(self, now):
        if not self.running:
            return
        if os.getppid() != self.supervisor:
            self.drain()
        if not self.ready:
            self.ready = self.notifier.say_once(b"READY=1")
            REASONS.ready()
            self.last = now
        elif now - self.last >= self.interval:
            served = b"" if self.served is None else b"\nX_SOCKD_SERVED=%d" % self.served()
            self.notifier.mention(b"WATCHDOG=1" + served)
            self.last = now
        if self.ready:
            self.due = now + min(1.0, self.interval)

    def drain(self):
        """Without sockd there is nobody to watch or replace this worker; uvicorn's does not look itself."""
        import signal
        self.supervisor = os.getppid()
        os.kill(os.getpid(), signal.SIGTERM)

    def last_update(self):
        return self.last

    def fileno(self):
        return self.notifier.socket.fileno()

    def close(self):
        self.running = False
        self.notifier.socket.close()


def beat_interval(limit, at_requests):
    """Seconds between two datagrams of a worker that hangs after `limit` seconds without a beat (0: nobody watches).

    One that beats with each request, and hardly ever without, can say so within a second; one that beats all the time
    would wake sockd all the time.
    """
    if limit <= 0:
        return float("inf")
    return min(limit / 4, 0.9 if at_requests else max(0.5, limit / 8))


class RequestLimit(int):
    """max_requests as a number that reports when it is reached, and then says it was not.

    Every worker class compares its own counter with it and would leave; sockd wants to start the
    successor first. Python asks the right-hand side of `count >= limit` first, when its class derives
    from the left-hand side's, so the report happens here, whichever class counts. The jitter is added
    to it by gunicorn, and zero by uvicorn: sums stay limits.
    """

    notifier = None

    def reporting_to(self, notifier):
        self.notifier = notifier
        return self

    def __add__(self, other):
        return RequestLimit(int(self) + other).reporting_to(self.notifier)

    __radd__ = __add__

    def __le__(self, count):
        if int(self) <= count:
            self.notifier.say_once(b"X_SOCKD_RETIRE=1")
        return False

    def __lt__(self, count):
        if int(self) < count:
            self.notifier.say_once(b"X_SOCKD_RETIRE=1")
        return False


