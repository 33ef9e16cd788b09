"""Visitors: so many clients, each request on a new connection, the unix socket and the TCP socket by turns.

    load.py RECORD END CLIENTS LIMIT SOCKET...

A socket is followed by "#" and a request, such as "#POST /order", where it is not to be GET /.

Every request becomes one line of the file RECORD: when it began (seconds since 1970), how long it took, where it went,
the status and the text of the answer, and what went wrong, if anything did. The clients leave when the file END
exists, or after LIMIT seconds.
"""

import json
import os
import socket
import sys
import threading
import time

# Longer than anything that is allowed, so that what hangs is on record with its length.
PATIENCE = 30


def main():
    record, end, clients, limit = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    places = sys.argv[5:]
    deadline = time.monotonic() + limit
    output = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def visit_again_and_again(number):
        turn = number
        while time.monotonic() < deadline and not os.path.exists(end):
            line = visit(places[turn % len(places)])
            # One write: lines of several clients do not mix.
            os.write(output, (json.dumps(line) + "\n").encode())
            turn += 1
            # Who was not answered at all does not ask again in the same moment.
            if not line["status"]:
                time.sleep(0.05)

    threads = [threading.Thread(target=visit_again_and_again, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def visit(place):
    result = {"began": time.time(), "place": place, "status": 0, "text": "", "error": ""}
    began = time.monotonic()
    try:
        result["status"], result["text"] = ask(place)
    except Exception as error:
        result["error"] = "%s: %s" % (type(error).__name__, error)
    result["took"] = time.monotonic() - began
    return result


def ask(place):
    place, _, request = place.partition("#")
    with connect(place) as connection:
        head = "%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        connection.sendall((head % (request or "GET /")).encode())
        answer = b""
        while True:
            part = connection.recv(65536)
            if not part:
                break
            answer += part
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        raise EOFError("the connection was closed after %d bytes" % len(answer))
    lines = head.decode().split("\r\n")
    for line in lines[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "content-length" and int(value) != len(body):
            raise EOFError("%d of %s bytes of the page came" % (len(body), value.strip()))
    return int(lines[0].split()[1]), body.decode()


def connect(place):
    if place.startswith("/"):
        connection = socket.socket(socket.AF_UNIX)
        address = place
    else:
        connection = socket.socket(socket.AF_INET)
        host, _, port = place.rpartition(":")
        address = (host, int(port))
    connection.settimeout(PATIENCE)
    try:
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


if __name__ == "__main__":
    main()
