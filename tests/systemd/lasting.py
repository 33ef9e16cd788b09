"""Visitors who stay: WebSockets that echo and streams that go on, until the server ends them.

    lasting.py RECORD SOCKET WEBSOCKETS STREAMS

Everything that comes becomes one line of the file RECORD: who ("websocket 0", "stream 1"), when (seconds since 1970),
and what. A WebSocket says "echo PID" ten times a second, PID being the worker who answers, then "closed CODE" with the
code of the close frame, or "broken" without one. A stream says "part PID" for each part, then "broken".
"""

import http.client
import json
import os
import socket
import sys
import threading
import time

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import unix_connect


def main():
    record, path, websockets, streams = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    output = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def teller(who):
        def tell(what):
            line = {"who": who, "at": time.time(), "what": what}
            # One write: lines of several visitors do not mix.
            os.write(output, (json.dumps(line) + "\n").encode())
        return tell

    threads = [threading.Thread(target=echo, args=(path, teller("websocket %d" % n))) for n in range(websockets)]
    threads += [threading.Thread(target=read, args=(path, teller("stream %d" % n))) for n in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def echo(path, tell):
    connection = unix_connect(path, "ws://localhost/echo", ping_interval=None)
    try:
        while True:
            connection.send("echo")
            tell(connection.recv())
            time.sleep(0.1)
    except ConnectionClosed as end:
        tell("closed %d" % end.rcvd.code if end.rcvd else "broken")


def read(path, tell):
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(path)
    connection.request("GET", "/stream")
    response = connection.getresponse()
    try:
        while True:
            line = response.readline()
            if not line:
                break
            tell(line.decode().strip())
    except (OSError, http.client.HTTPException):
        pass
    tell("broken")


if __name__ == "__main__":
    main()
