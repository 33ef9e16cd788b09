"""Visitors who stay: WebSockets that echo and streams that go on, until the server ends them.

    long_lived_connections.py RECORD SOCKET WEBSOCKETS STREAMS

Everything that comes becomes one line of the file RECORD: who ("websocket 0", "stream 1"), when (seconds since 1970),
and what. A WebSocket says "echo PID" ten times a second, PID being the worker who answers, then "closed CODE" with the
code of the close frame, or "broken" without one. A stream says "part PID" for each part, then "broken".
"""

import contextlib
import http.client
import json
import os
import socket
import sys
import threading
import time


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
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    connection.sendall(
        b"GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    )
    incoming = connection.makefile("rb")
    if b" 101 " not in incoming.readline():
        return tell("refused")
    while incoming.readline().strip():
        pass
    try:
        while True:
            # Who sends into a connection that was closed just now still finds the close frame, which came before.
            with contextlib.suppress(ConnectionError):
                send(connection, TEXT, b"echo")
            kind, content = receive(incoming)
            while kind == PING:
                send(connection, PONG, content)
                kind, content = receive(incoming)
            if kind == CLOSE:
                tell("closed %d" % int.from_bytes(content[:2], "big"))
                with contextlib.suppress(OSError):
                    send(connection, CLOSE, content)
                return
            tell(content.decode())
            time.sleep(0.1)
    except (OSError, EOFError):
        tell("broken")


# A frame of RFC 6455, section 5.2, of at most 125 bytes; a client's has a mask, here of zeros.
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


def send(connection, kind, content):
    connection.sendall(bytes([0x80 | kind, 0x80 | len(content)]) + bytes(4) + content)


def receive(incoming):
    head = incoming.read(2)
    if len(head) < 2:
        raise EOFError
    return head[0] & 0x0F, incoming.read(head[1])


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
