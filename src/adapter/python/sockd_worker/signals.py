"""Signals that a template and its workers stand.

What it is for. A signal that somebody sends to a whole unit must end neither a template nor a worker that begins.

What it must never do. Hold back what ends a process on purpose.
"""

import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Optional

# What sockd sends before SIGUSR2: real-time signals alone say, while they are blocked, who has sent each of them.
DRAIN_TOKEN = signal.SIGRTMAX - 2
# What has a worker write the stacks of its threads (scoreboard.py): a signal that nobody sends to a whole unit, where
# its handler would be one more on faulthandler's stack (see shelter()). Python ignores it, so that a file that is too
# large is an error of write(2), which it stays.
STACK_SIGNAL = signal.SIGXFSZ
# All signals but those that end a process on purpose, report its own faults and limits, or cannot be caught (and the
# two that the C library keeps for itself).
SHELTERED = sorted(set(range(1, signal.NSIG)) - {32, 33} - {getattr(signal, "SIG" + name) for name in (
    "INT QUIT TERM KILL STOP CONT CHLD ILL TRAP ABRT BUS FPE SEGV SYS PIPE XCPU XFSZ URG WINCH".split())})
COMMON = signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM


def ignore_signals() -> None:
    """Whatever a whole unit is sent must not end the template, nor a worker that begins."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Before there is a thread: each inherits the mask.
    signal.pthread_sigmask(signal.SIG_BLOCK, [DRAIN_TOKEN])
    shelter()


def shelter() -> None:
    """Have those signals do nothing that would end or stop this process, and that nobody handles.

    The common ones by a handler, since programs that the application starts inherit what is ignored. Not all: handlers
    of signals that come together pile up, and faulthandler's stack has room for three or four.
    """
    for number in SHELTERED:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.SIG_IGN):
            signal.signal(number, do_nothing if number in COMMON else signal.SIG_IGN)


def do_nothing(_signal: int, _frame: "Optional[FrameType]") -> None:
    pass
