"""Names that are not UTF-8: every Python server serves from such a directory, at such a path, with such arguments."""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))

import both  # noqa: E402
from both import Sockd, ask  # noqa: E402

APPLICATION = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        return await send({"type": "lifespan.shutdown.complete"})
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})
"""
# A socket's name, as Python spells bytes that are no text.
NAME = "b\udcff.sock"
SERVERS = {
    "gunicorn": ["--bind", "unix:" + NAME, "--name", "na\udcefve", "--env", "A=\udcff", "w:app"],
    "uvicorn": ["--uds", NAME, "w:asgi"],
    "hypercorn": ["--bind", "unix:" + NAME, "w:asgi"],
    "daphne": ["-u", NAME, "w:asgi"],
    "waitress-serve": ["--unix-socket=" + NAME, "w:app"],
    # Itself it cannot be at such a path.
    "granian": ["--interface", "wsgi", "w:app"],
}


class Bytes(both.Case):

    def test_every_server(self):
        for server, arguments in SERVERS.items():
            with self.subTest(server=server):
                elsewhere = server == "granian"
                service = self.service(SockdElsewhere, *arguments, program=server,
                                       options=["--listen", "unix:../web.sock"] if elsewhere else [])
                self.assertEqual(ask(service, name="web.sock" if elsewhere else "caf\udce9/" + NAME), "hello")
                self.assertEqual(service.stop(), 0, service.output())

    def test_gunicorn_changes_to_such_a_directory(self):
        service = self.service(SockdBelow, "--chdir", "caf\udce9", "w:app",
                               options=["--listen", "unix:caf\udce9/" + NAME])
        self.assertEqual(ask(service, name="caf\udce9/" + NAME), "hello")
        self.assertEqual(service.stop(), 0, service.output())


class SockdBelow(Sockd):
    """Beside a directory that is not UTF-8, with the application in it."""

    def working_directory(self):
        os.mkdir(self.directory / "caf\udce9")
        self.directory.write("caf\udce9/w.py", APPLICATION)
        return self.directory.path


class SockdElsewhere(SockdBelow):
    """In that directory."""

    def working_directory(self):
        return os.path.join(super().working_directory(), "caf\udce9")


if __name__ == "__main__":
    unittest.main()
