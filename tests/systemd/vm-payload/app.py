"""A page that takes memory, in the worker or in a process of its own."""

import subprocess
import sys

KEPT = []


def take(mebibytes):
    # Written to, so that the pages exist.
    KEPT.append(bytearray(b"x") * (mebibytes << 20))


def application(environ, start_response):
    what, _, size = environ["PATH_INFO"][1:].partition("/")
    if what == "take":
        take(int(size))
    if what == "child":
        child = [sys.executable, "-c", "kept = bytearray(b'x') * (%d << 20)" % int(size)]
        answer = "child ended with %d" % subprocess.run(child).returncode
    else:
        answer = "hello"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer.encode()]
