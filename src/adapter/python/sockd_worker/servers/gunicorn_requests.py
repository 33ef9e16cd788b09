"""The requests of gunicorn's workers for WSGI, on the scoreboard.

What it is for. In sync, gthread, gevent and eventlet gunicorn calls pre_request when a request is read, and
post_request when it is answered, to the end of its answer and whatever came of it. In gevent_pywsgi and tornado,
requests are read by the servers of gevent and of Tornado, which are asked there. What it must never do. Keep a hook of
the user's from being called.
"""

import sys
from _thread import get_ident

from ..scoreboard import ABORTED, NO_THREAD, PROBE, PROBED, SERVER_ERROR, WEBSOCKETS, is_probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Optional

    from ..scoreboard import Scoreboard, Token

# Reached into, and not documented; tried with gunicorn 19.9.0 to 27.0.1, gevent 26.9.0 and tornado 6.6.1:
#   gunicorn.config.Config             settings[…].value, .default
#   gunicorn.glogging.Logger           debug(), error_log
#   gunicorn.workers.ggevent           wsgi_handler
#   gevent.pywsgi.WSGIHandler          handle_one_response(), run_application(); command, path, environ, status,
#                                      headers_sent, ignored_socket_errors
#   gunicorn.workers.gtornado          IOLoop, server
#   tornado                            HTTPServer's start_request() and on_close(); what it gives start_request() for a
#                                      request: write_headers(), finish(), detach()


def observe_gunicorn(worker: "Any", reads_requests: bool, scoreboard: "Scoreboard") -> None:
    """Have this worker's requests shown, from the first on. Whether it is of a class that reads them by itself."""
    if not scoreboard.shows_requests:
        return
    if reads_requests:
        observe_wsgi(worker, scoreboard)
    for name, class_name, observe in (("gunicorn.workers.ggevent", "GeventPyWSGIWorker", observe_pywsgi),
                                      ("gunicorn.workers.gtornado", "TornadoWorker", observe_tornado)):
        if name in sys.modules and isinstance(worker, getattr(sys.modules[name], class_name)):
            observe(worker, scoreboard)


def observe_wsgi(worker: "Any", scoreboard: "Scoreboard") -> None:
    settings = worker.cfg.settings
    begin, finish = scoreboard.begin, scoreboard.finish
    before = hook_that_does_something(worker, "pre_request")
    after = hook_that_does_something(worker, "post_request")
    # By the number of its request object, which lives until it is answered.
    tokens: Dict[int, Token] = {}

    def pre_request(worker: "Any", request: "Any") -> None:
        tokens[id(request)] = begin(request.method, request.path.encode("utf-8", "replace"), get_ident())
        if before is not None:
            before(worker, request)

    def post_request(worker: "Any", request: "Any", environ: "Any", response: "Any") -> None:
        token = tokens.pop(id(request), None)
        if token is not None:
            finish(token, PROBED if is_probe(environ) else status_of(response))
        if after is not None:
            after(worker, request, environ, response)

    settings["pre_request"].value, settings["post_request"].value = pre_request, post_request
    scoreboard.counts_requests()


def status_of(response: "Any") -> int:
    """What the visitor got: gunicorn's finally clause calls the hook, and what went wrong is still on its way."""
    error = sys.exc_info()[1]
    if isinstance(error, StopIteration):
        # How gunicorn itself ends a connection, also after an error in the middle of an answer.
        error = error.__context__
    if error is None:
        status = getattr(response, "status_code", None)
        return status if isinstance(status, int) else SERVER_ERROR
    return ABORTED if isinstance(error, OSError) else SERVER_ERROR


def hook_that_does_something(worker: "Any", name: str) -> "Optional[Any]":
    """The hook, unless it is gunicorn's own: that of pre_request writes a line that nobody sees at most log levels."""
    from gunicorn.glogging import Logger
    setting, log = worker.cfg.settings[name], worker.log
    if setting.value is not setting.default:
        return setting.value
    unseen = type(log).debug is Logger.debug and not log.error_log.isEnabledFor(10)
    return None if name == "post_request" or unseen else setting.value


def observe_pywsgi(worker: "Any", scoreboard: "Scoreboard") -> None:
    """gevent's own server answers by itself for what goes wrong, so that nothing is raised here."""
    words, begin, finish = scoreboard.words, scoreboard.begin, scoreboard.finish

    class Handler(worker.wsgi_handler):
        # What came of it, where its status does not say so.
        outcome: "Optional[int]" = None

        def handle_one_response(self) -> None:
            if self.environ.get("HTTP_UPGRADE", "").lower() == "websocket":
                words[WEBSOCKETS] += 1
                try:
                    return super().handle_one_response()
                finally:
                    words[WEBSOCKETS] -= 1
            self.outcome = PROBED if is_probe(self.environ) else None
            token = begin(self.command, without_query(self.path), get_ident())
            try:
                super().handle_one_response()
            finally:
                finish(token, status_number(self.status) if self.outcome is None else self.outcome)

        def run_application(self) -> None:
            try:
                super().run_application()
            except Exception as error:
                if isinstance(error, OSError) and error.args and error.args[0] in self.ignored_socket_errors:
                    self.outcome = ABORTED
                elif self.headers_sent:
                    self.outcome = SERVER_ERROR
                raise

    worker.wsgi_handler = Handler
    scoreboard.counts_requests()


def observe_tornado(worker: "Any", scoreboard: "Scoreboard") -> None:
    """Tornado's server asks what is to become of a request, and gets its answer through what it gave for it."""
    words, begin, finish = scoreboard.words, scoreboard.begin, scoreboard.finish
    # How the request ends that is served on a connection.
    ends: Dict[Any, Callable[[int], None]] = {}

    def observe() -> None:
        server = worker.server
        start_request, on_close = server.start_request, server.on_close

        def start_observed(connection: "Any", request: "Any") -> "Any":
            delegate = start_request(connection, request)
            received, write_headers, done, detach = (
                delegate.headers_received, request.write_headers, request.finish, request.detach)
            token: Optional[Token] = None
            status, probed = ABORTED, False

            def end(status: int) -> None:
                nonlocal token
                ends.pop(connection, None)
                if token is not None:
                    finish(token, PROBED if probed else status)
                    token = None

            def headers_received(line: "Any", headers: "Any") -> "Any":
                nonlocal token, probed
                probed = headers.get("User-Agent") == PROBE
                token = begin(line.method, without_query(line.path), NO_THREAD)
                ends[connection] = end
                return received(line, headers)

            def write_observed(line: "Any", *arguments: "Any", **options: "Any") -> "Any":
                nonlocal status
                status = line.code
                return write_headers(line, *arguments, **options)

            def finish_observed() -> None:
                done()
                # A WebSocket that opens is no request that is answered.
                end(PROBED if status == 101 else status)

            def detach_observed() -> "Any":
                stream = detach()
                if status == 101:
                    watch_websocket(stream, words)
                return stream

            delegate.headers_received = headers_received
            request.write_headers, request.finish, request.detach = write_observed, finish_observed, detach_observed
            return delegate

        def close_observed(connection: "Any") -> None:
            end = ends.get(connection)
            if end is not None:
                end(ABORTED)
            on_close(connection)

        server.start_request, server.on_close = start_observed, close_observed

    # Once run() has made the server, and before it takes anybody.
    sys.modules["gunicorn.workers.gtornado"].IOLoop.current().add_callback(observe)
    scoreboard.counts_requests()


def watch_websocket(stream: "Any", words: "Any") -> None:
    """A WebSocket is open from now on, until its stream is closed, and others may wait for that, too."""
    set_close_callback = stream.set_close_callback
    wanted: Optional[Callable[[], None]] = None

    def closed() -> None:
        words[WEBSOCKETS] -= 1
        if wanted is not None:
            wanted()

    def keep(callback: "Optional[Callable[[], None]]") -> None:
        nonlocal wanted
        wanted = callback

    words[WEBSOCKETS] += 1
    set_close_callback(closed)
    stream.set_close_callback = keep


def without_query(target: str) -> bytes:
    """The path of a request's target."""
    return target.split("?", 1)[0].encode("utf-8", "replace")


def status_number(status: "Any") -> int:
    """The number in a status line's end, which gevent has as text or as bytes; None: there was no answer."""
    return int(status[:3]) if status else ABORTED
