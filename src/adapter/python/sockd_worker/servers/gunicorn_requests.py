"""The requests of gunicorn's own workers for WSGI, on the scoreboard: sync, gthread, gevent, eventlet.

What it is for. gunicorn calls pre_request when a request is read, and post_request when it is answered, to the end of
its answer and whatever came of it. What it must never do. Keep a hook of the user's from being called.
"""

import sys
from _thread import get_ident

from ..scoreboard import ABORTED, PROBED, SERVER_ERROR, is_probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional

    from ..scoreboard import Scoreboard, Token

# Reached into, and not documented; tried with gunicorn 19.9.0 to 27.0.1:
#   gunicorn.config.Config             settings[…].value, .default
#   gunicorn.glogging.Logger           debug(), error_log


def observe_wsgi(worker: "Any", scoreboard: "Scoreboard") -> None:
    """Have this worker's requests shown, from the first on."""
    if not scoreboard.shows_requests:
        return
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
