"""What this process has: threads and connections, also those that Python does not know."""

import os

from .protocol import CONTROL_FD
from .sockets import ask_socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Iterable, List, Set


def tasks() -> "Set[int]":
    """The numbers of all threads."""
    return set(map(int, os.listdir("/proc/self/task")))


def threads(numbers: "Iterable[int]") -> "List[str]":
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


def connections() -> "Dict[int, str]":
    """Descriptors that lead to another process, and where to."""
    result = {}
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            peer = ask_socket(fd, "getpeername")
        except OSError:
            continue
        # The ends of a pair have no names.
        if peer and fd != CONTROL_FD:
            result[fd] = "%s:%s" % peer[:2] if isinstance(peer, tuple) else repr(peer)
    return result
