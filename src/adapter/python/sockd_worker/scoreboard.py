"""A worker's scoreboard: when it last beat, which requests it serves, and what became of those it has served; and the
stacks of its threads, when it is asked for them.

What it owns. The file in memory that this worker and sockd share, whose layout src/scoreboard has. A write to its page
wakes nobody. What it must never do. Cost a request more than a microsecond, or fail one.

Nothing is locked: a counter is read and written without a look at other threads in between (CPython 3.10 and later,
where Python has its lock), and what is lost elsewhere is lost to a statistic. Request slots are taken from a list and
given back to it, which no two threads can do at once.
"""

import faulthandler
import mmap
import os
import struct
import time
from bisect import bisect

from .signals import STACK_SIGNAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Tuple

    # Its slot on the page (0: it found none), and when it began (time.monotonic_ns()).
    Token = Tuple[int, int]

LENGTH = 4096
# Words of 64 bits.
VERSION, LAST_BEAT, COUNTS_REQUESTS, WITHOUT_SLOT, WEBSOCKETS, STACKS_BY, TOOK = range(7)
FINISHED = 8
# By the hundreds of the status; the first row is for those that nobody got an answer to.
ROWS = 6
# What divides durations, in nanoseconds: two numbers to each power of two, from 16 µs to 97 s.
BOUNDS = [(1 << 14 + half // 2) * (181 if half % 2 else 128) // 128 for half in range(46)]
COLUMNS = len(BOUNDS) + 1
# Bytes. When it began, its thread, its method, its path without the query.
SLOT = struct.Struct("=QQ8s88s")
METHOD = 16
FIRST_SLOT = 8 * (FINISHED + ROWS * COLUMNS)
SLOTS = 15
# Its method and its path, as in a slot.
LAST_FAILURE = FIRST_SLOT + SLOTS * SLOT.size
METHODS = {name: name.encode() for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")}
# What sockd says that it is when it asks: its own questions are nobody's requests.
PROBE = "sockd (probe)"
PROBE_HEADER = b"user-agent", PROBE.encode()
SERVER_ERROR = 500
# The thread of a request that an event loop serves beside others, or hands to another thread.
NO_THREAD = 0
# No status: the client left, or was cut off.
ABORTED = 0
# No status either: it was sockd's own question, and does not count.
PROBED = -1


class Scoreboard:
    """The page, and what servers tell it of their requests: begin(), and then finish()."""

    def __init__(self, descriptor: int, shows_requests: bool) -> None:
        """Takes the descriptor."""
        self.shows_requests = shows_requests
        memory = mmap.mmap(descriptor, LENGTH)
        self.words = memoryview(memory).cast("Q")
        self.begin, self.finish = request_functions(memory, self.words)
        # Written by C code in whichever thread gets the signal: one that waits in C code is shown as well.
        os.set_inheritable(descriptor, False)
        faulthandler.register(STACK_SIGNAL, file=descriptor, all_threads=True)
        self.words[STACKS_BY] = STACK_SIGNAL
        self.words[VERSION] = 3

    def counts_requests(self) -> None:
        """From here on every request is shown."""
        self.words[COUNTS_REQUESTS] = 1


def request_functions(
        memory: "Any", words: "Any") -> "Tuple[Callable[[str, bytes, int], Token], Callable[[Token, int], None]]":
    """begin() and finish(), which each request calls: all their names are local, as attributes take longer to find."""
    free = list(range(FIRST_SLOT, FIRST_SLOT + SLOTS * SLOT.size, SLOT.size))
    take, give, pack, clock, methods, bounds = free.pop, free.append, SLOT.pack_into, time.monotonic_ns, METHODS, BOUNDS
    failure = slice(LAST_FAILURE, LAST_FAILURE + SLOT.size - METHOD)
    # One entry for each request that has found no slot.
    others: List[None] = []

    def begin(method: str, path: bytes, thread: int) -> "Token":
        """A request is read, and this thread serves it (_thread.get_ident()), or NO_THREAD."""
        now = clock()
        try:
            slot = take()
        except IndexError:
            others.append(None)
            words[WITHOUT_SLOT] = len(others)
            return 0, now
        pack(memory, slot, now, thread, methods.get(method, b"?"), path)
        return slot, now

    def finish(token: "Token", status: int) -> None:
        """It is over, answered with this status, or ABORTED, or PROBED."""
        slot, began = token
        if slot:
            if status >= SERVER_ERROR:
                memory[failure] = memory[slot + METHOD:slot + SLOT.size]
            words[slot >> 3] = 0
            give(slot)
        else:
            others.pop()
            words[WITHOUT_SLOT] = len(others)
        if status >= 0:
            row = status // 100
            took = clock() - began
            words[TOOK] += took
            words[FINISHED + COLUMNS * (row if row < ROWS else 0) + bisect(bounds, took)] += 1

    return begin, finish


def is_probe(environ: "Dict[str, Any]") -> bool:
    """Whether a WSGI request is sockd's own question."""
    return environ.get("HTTP_USER_AGENT") == PROBE


def observe_asgi(application: "Any", scoreboard: "Scoreboard") -> "Any":
    """An ASGI application whose requests are shown; it is called with what the server calls this one with.

    A request is over with the last piece of its answer: what the application does later keeps no visitor waiting.
    """
    if not scoreboard.shows_requests:
        return application
    words, begin, finish = scoreboard.words, scoreboard.begin, scoreboard.finish
    scoreboard.counts_requests()

    async def observed(scope: "Any", receive: "Any", send: "Any", *rest: "Any") -> "Any":
        kind = scope["type"]
        if kind != "http":
            if kind != "websocket":
                return await application(scope, receive, send, *rest)
            words[WEBSOCKETS] += 1
            try:
                return await application(scope, receive, send, *rest)
            finally:
                words[WEBSOCKETS] -= 1
        path = scope.get("raw_path") or scope["path"].encode(errors="replace")
        token = begin(scope["method"], path, NO_THREAD)
        status, over = ABORTED, False

        def end() -> None:
            nonlocal over
            over = True
            finish(token, PROBED if PROBE_HEADER in scope["headers"] else status)

        def observe(message: "Any") -> "Any":
            nonlocal status
            kind = message["type"]
            if kind == "http.response.start":
                status = message["status"]
            elif kind == "http.response.body" and not message.get("more_body") and not over:
                end()
            return send(message)

        try:
            return await application(scope, receive, observe, *rest)
        except Exception:
            status = SERVER_ERROR
            raise
        except BaseException:
            status = ABORTED
            raise
        finally:
            if not over:
                end()

    return observed
