"""The requests of granian's WSGI and RSGI workers, on the scoreboard; those of ASGI are everybody's (scoreboard.py).

What it must never do. Keep what granian asks an answer or a protocol for from it.
"""

from _thread import get_ident

from ..scoreboard import ABORTED, NO_THREAD, PROBE, PROBED, SERVER_ERROR, WEBSOCKETS, is_probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from ..scoreboard import Scoreboard

# Reached into, and not documented; tried with granian 2.8.0 to 2.8.9:
#   granian.wsgi                       takes a list for the whole answer; the iterator and close() of everything else


class Answer:
    """A WSGI answer that is sent piece by piece: its request is over at its end."""

    def __init__(self, inner: "Any", end: "Callable[..., None]") -> None:
        self.inner = inner
        self.end = end
        self.iterator = iter(inner)

    def __iter__(self) -> "Answer":
        return self

    def __next__(self) -> "Any":
        try:
            return next(self.iterator)
        except StopIteration:
            self.end()
            raise
        except BaseException:
            self.end(SERVER_ERROR)
            raise

    def close(self) -> None:
        self.end()
        close = getattr(self.inner, "close", None)
        if close is not None:
            close()


def observe_wsgi(application: "Any", scoreboard: "Scoreboard") -> "Any":
    """A WSGI application whose requests are shown."""
    if not scoreboard.shows_requests:
        return application
    scoreboard.counts_requests()

    def observed(environ: "Any", start_response: "Any") -> "Any":
        path = environ["PATH_INFO"].encode(errors="replace")
        token = scoreboard.begin(environ["REQUEST_METHOD"], path, get_ident())
        status, over = SERVER_ERROR, False

        def start(line: "Any", *rest: "Any") -> "Any":
            nonlocal status
            status = int(line[:3])
            return start_response(line, *rest)

        def end(failure: int = 0) -> None:
            nonlocal over
            if not over:
                over = True
                scoreboard.finish(token, PROBED if is_probe(environ) else failure or status)

        try:
            answer = application(environ, start)
        except BaseException:
            end(SERVER_ERROR)
            raise
        if isinstance(answer, list):
            end()
            return answer
        return Answer(answer, end)

    return observed


class Protocol:
    """RSGI's protocol of one request, which sees the status of its answer."""

    def __init__(self, inner: "Any") -> None:
        self.inner = inner
        self.status = ABORTED

    def __getattr__(self, name: str) -> "Any":
        method = getattr(self.inner, name)
        if not name.startswith("response_"):
            return method

        def respond(status: int, *rest: "Any") -> "Any":
            self.status = status
            return method(status, *rest)

        return respond

    def __call__(self) -> "Any":
        return self.inner()

    def __aiter__(self) -> "Any":
        return self.inner.__aiter__()


def observe_rsgi(application: "Any", scoreboard: "Scoreboard") -> "Any":
    """An RSGI application whose requests are shown."""
    if not scoreboard.shows_requests:
        return application
    scoreboard.counts_requests()

    async def observed(scope: "Any", protocol: "Any") -> "Any":
        if scope.proto == "ws":
            scoreboard.words[WEBSOCKETS] += 1
            try:
                return await application(scope, protocol)
            finally:
                scoreboard.words[WEBSOCKETS] -= 1
        token = scoreboard.begin(scope.method, scope.path.encode(errors="replace"), NO_THREAD)
        protocol = Protocol(protocol)
        try:
            return await application(scope, protocol)
        except Exception:
            protocol.status = SERVER_ERROR
            raise
        finally:
            scoreboard.finish(token, PROBED if scope.headers.get("user-agent") == PROBE else protocol.status)

    return observed
