"""The file with the number of the process to signal, which is sockd's: for `kill -USR1 $(cat FILE)`, and for monitors.

What it is for. The pid files of gunicorn, hypercorn and granian. What it owns. The file, from the start of the service
to its end. What it must never do. Keep anybody from serving; write through a link, or leave half a file.
"""

import os

from .log import complain


def write_pid_file(path: str, pid: int) -> None:
    """In one step, over whatever has that name. Servers do not start without it; here the site comes first."""
    import tempfile
    try:
        descriptor, new = tempfile.mkstemp(dir=os.path.dirname(path) or ".")
        try:
            with open(descriptor, "w") as file:
                file.write("%d\n" % pid)
                os.fchmod(descriptor, 0o644)
            os.rename(new, path)
        except OSError:
            os.unlink(new)
            raise
    except OSError as error:
        complain("cannot write the pid file %s: %s, ignoring; a RuntimeDirectory= in the unit is a place for it"
                 % (path, error.strerror))


def remove_pid_file(path: str, pid: int) -> None:
    """Unless something else has that name by now. A FIFO there, which nobody writes to, holds nobody up."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            own = os.read(descriptor, 32).strip() == b"%d" % pid
        finally:
            os.close(descriptor)
        if own:
            os.unlink(path)
    except OSError:
        pass
