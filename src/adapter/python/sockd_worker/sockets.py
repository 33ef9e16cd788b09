"""Sockets: those that come as descriptors, and addresses as sockd wants them."""

import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable

# Of getaddrinfo(): whether names are looked up.
_FLAGS = 0


def look_up_no_names() -> None:
    """sockd has its sockets already, and binds nothing that the settings name."""
    global _FLAGS
    _FLAGS = socket.AI_NUMERICHOST


def tcp_bind(host: str, port: int) -> str:
    """An address as the hello has it: in numbers, unless nobody will bind it. Of several the first of IPv4.

    A name server may take long to answer, or not answer at all: then it is sockd's to say so.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=_FLAGS)
    except OSError:
        return ("[%s]:%d" if ":" in host else "%s:%d") % (host, port)
    address: Any
    family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    if family != socket.AF_INET6:
        return "%s:%d" % address
    zone = "%%%s" % socket.if_indextoname(address[3]) if address[3] and "%" not in address[0] else ""
    return "[%s%s]:%d" % (address[0], zone, address[1])


def ask_socket(fd: int, method: str) -> "Any":
    """What an open descriptor answers as a socket: "getpeername", "getsockname". OSError where it is none.

    Nothing is copied, so nothing can be left open, and nothing is changed: Python does not apply its default timeout to
    a socket whose type says how it waits (init_sockobject in socketmodule.c), and gevent's class is not asked.
    """
    import _socket
    one = _socket.socket(fileno=fd, type=_socket.SOCK_STREAM | _socket.SOCK_NONBLOCK)
    try:
        return getattr(one, method)()
    finally:
        one.detach()


def socket_from(fd: int) -> socket.socket:
    result = socket.socket(fileno=fd)
    result.set_inheritable(False)
    return result


def close_all(descriptors: "Iterable[int]") -> None:
    for fd in descriptors:
        os.close(fd)
