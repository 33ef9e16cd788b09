"""The requests of uvicorn's workers, on the scoreboard: for uvicorn itself, and for gunicorn's uvicorn workers.

What it must never do. Stand anywhere but before everything else that uvicorn puts before the application.
"""

from ..scoreboard import observe_asgi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..scoreboard import Scoreboard

# Reached into, and not documented; tried with uvicorn 0.15.0 to 0.54.0:
#   uvicorn.config.Config              load(), loaded, loaded_app


def observe_uvicorn(scoreboard: "Scoreboard") -> None:
    """Have the requests of each Config that is loaded from here on shown."""
    from uvicorn.config import Config
    load = Config.load

    def load_observed(self: "Any") -> None:
        load(self)
        self.loaded_app = observe_asgi(self.loaded_app, scoreboard)

    Config.load = load_observed


def observe_loaded(config: "Any", scoreboard: "Scoreboard") -> None:
    """The same for a Config that may be loaded already."""
    if config.loaded:
        config.loaded_app = observe_asgi(config.loaded_app, scoreboard)
    else:
        observe_uvicorn(scoreboard)
