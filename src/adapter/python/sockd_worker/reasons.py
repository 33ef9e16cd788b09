"""Why code cannot serve, said where sockd reads it.

What it is for. With --error-logfile and --capture-output, a logging configuration with files, or a stderr that the
application has redirected, a worker's last lines stand in a file that sockd knows nothing of; and of an error 500
Django says nothing at all, by default. What goes elsewhere is said on the stderr that the process was given, too: until
a worker is ready, and of a canary, which is asked before anybody else, as long as it lives.

What it owns. A copy of that stderr. What it must never do. Say what stands there already, or say much; change what is
logged; fail.
"""

import logging
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Optional, Tuple, Type

# Of one process; each of at most so many lines and characters.
MOST_REASONS = 20
MOST_LINES = 30
LONGEST_LINE = 500


class Reasons:
    """What has gone wrong in this process, for those who read it nowhere else."""

    def __init__(self) -> None:
        self.stderr: Optional[int] = None
        self.identity: Optional[Tuple[int, int]] = None
        # Whether a worker that is ready goes on.
        self.goes_on = False
        self.left = MOST_REASONS
        self.last: Optional[BaseException] = None

    def follow(self, stderr: int, goes_on: bool = False) -> None:
        """Say what goes wrong from here on on this descriptor, of which this keeps a copy."""
        self.end()
        self.stderr, self.goes_on, self.left = os.dup(stderr), goes_on, MOST_REASONS
        self.identity = identity_of(self.stderr)

    def ready(self) -> None:
        if not self.goes_on:
            self.end()

    def end(self) -> None:
        if self.stderr is not None and self.is_there():
            os.close(self.stderr)
        self.stderr = None

    def is_there(self) -> bool:
        """Whether the copy is still that: the application may have closed it and opened another file."""
        return self.stderr is not None and identity_of(self.stderr) == self.identity

    def look_at_logs(self) -> None:
        call_handlers = logging.Logger.callHandlers

        def call_handlers_and_look(logger: logging.Logger, record: logging.LogRecord) -> None:
            call_handlers(logger, record)
            if record.levelno >= logging.ERROR and self.is_there():
                self.logged(logger, record)

        logging.Logger.callHandlers = call_handlers_and_look  # type: ignore[assignment, method-assign]

    def logged(self, logger: logging.Logger, record: logging.LogRecord) -> None:
        try:
            if not self.is_shown(logger, record):
                self.say(record.getMessage(), record.exc_info[1] if record.exc_info else None)
        except Exception:
            # What a handler of the application's may fail at, this may fail at.
            pass

    def is_shown(self, logger: "Optional[logging.Logger]", record: logging.LogRecord) -> bool:
        """Whether a handler has written it to this stderr."""
        nobody = True
        while logger:
            for handler in logger.handlers:
                nobody = False
                if (record.levelno >= handler.level and self.is_own(getattr(handler, "stream", None))
                        and handler.filter(record)):
                    return True
            logger = logger.parent if logger.propagate else None
        return nobody and self.is_own(sys.stderr)

    def is_own(self, stream: "Any") -> bool:
        try:
            return identity_of(stream.fileno()) == self.identity
        except (AttributeError, OSError, ValueError):
            return False

    def say(self, text: str, error: "Optional[BaseException]") -> None:
        """A text and how an error came about, as Python shows it."""
        if self.stderr is None or self.left == 0 or error is not None and error is self.last:
            return
        self.left -= 1
        self.last = error
        lines = text.splitlines()[-MOST_LINES:]
        if error is not None:
            from traceback import format_exception
            shown = format_exception(type(error), error, error.__traceback__, limit=-10, chain=False)
            lines += "".join(shown).splitlines()[-MOST_LINES:]
        text = "".join(line[:LONGEST_LINE] + "\n" for line in lines)
        os.write(self.stderr, text.encode(errors="backslashreplace"))

    def __enter__(self) -> "Reasons":
        return self

    def __exit__(self, _kind: "Optional[Type[BaseException]]", error: "Optional[BaseException]",
                 _traceback: "Optional[TracebackType]") -> None:
        """The end of the process. What Python shows now, or the server has shown, may have gone elsewhere."""
        if error is None or not self.is_there() or self.is_own(sys.stderr):
            return
        text = ""
        if isinstance(error, SystemExit):
            if error.code is None or error.code == 0:
                return
            text = "" if isinstance(error.code, int) else str(error.code)
            # Servers that say what went wrong by themselves leave like this.
            error = error.__context__
        if text or error is not None:
            self.say(text, error)


def identity_of(fd: int) -> "Optional[Tuple[int, int]]":
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino


REASONS = Reasons()
