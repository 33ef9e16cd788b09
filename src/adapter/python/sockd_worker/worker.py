"""The start of a worker: a copy of the template becomes a process that has only what a worker may have."""

import _thread
import atexit
import faulthandler
import os
import signal
import sys
import time

from .log import complain
from .protocol import CONTROL_FD
from .reasons import REASONS
from .signals import SHELTERED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .protocol import ForkOrder

# A worker's grandparent adopts it as soon as its parent is gone, which takes microseconds.
ADOPTION_SECONDS = 10.0
# What a worker that cannot start exits with. gunicorn documents it, uvicorn has it, too.
WORKER_BOOT_ERROR = 3


def become_worker(order: "ForkOrder") -> None:
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


def enter_group(procs: int) -> bool:
    """Move this process into the control group whose cgroup.procs this is. False if that cannot be."""
    try:
        os.write(procs, b"0")
        return True
    except OSError as error:
        complain("process %d cannot enter its control group: %s" % (os.getpid(), error.strerror))
        return False


def enter_group_aside(procs: int) -> None:
    """Move this process into a control group while it goes on: a visitor may be waiting for what it does meanwhile.

    The kernel takes milliseconds for it, up to 60 on a busy machine; memory that is touched until then stays charged to
    the group of the template. A thread that Python's threading module knows nothing of does it, and leaves.
    """
    def enter_and_close() -> None:
        enter_group(procs)
        os.close(procs)

    try:
        _thread.start_new_thread(enter_and_close, ())
    except RuntimeError:
        enter_and_close()


def wait_for_adoption(supervisor: int) -> None:
    """Wait until sockd is the parent: what a worker takes for its parent must be sockd."""
    deadline = time.monotonic() + ADOPTION_SECONDS
    while os.getppid() != supervisor:
        if time.monotonic() > deadline:
            complain("process %d was adopted by process %d, not by sockd" % (os.getpid(), os.getppid()))
            sys.exit(WORKER_BOOT_ERROR)
        time.sleep(0.0002)
