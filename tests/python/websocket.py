"""A WebSocket client, and what it finds when nobody listens any more."""

import errno
import socket

from fake_sockd import PATIENCE


def refuses(path):
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == errno.ECONNREFUSED


class WebSocket:
    """Just enough of RFC 6455 to send short texts and read short frames."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(str(path))
        self.socket.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
        self.stream = self.socket.makefile("rb")
        status = self.stream.readline()
        if b" 101 " not in status:
            raise AssertionError("no WebSocket: %r" % status)
        while self.stream.readline().strip():
            pass

    def echo(self, text):
        # A masked text frame; the mask of zeros leaves the text as it is.
        self.socket.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
        kind, length = self.stream.read(2)
        if kind != 0x81:
            raise AssertionError("a frame of kind %#x" % kind)
        return self.stream.read(length)

    def wait_for_close(self):
        """The code of the frame that closes the connection."""
        kind, length = self.stream.read(2)
        if kind != 0x88:
            raise AssertionError("a frame of kind %#x" % kind)
        return int.from_bytes(self.stream.read(length)[:2], "big")

    def close(self):
        self.stream.close()
        self.socket.close()
