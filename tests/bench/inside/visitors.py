"""Visitors: a few clients that ask for the page again and again, each time on a new connection, and keep a record.

They pause between their visits, so that it is the server's moment of weakness that makes them wait, and not a
processor that has no time left for anybody.
"""

import os
import threading
import time

from service import PATIENCE, REQUEST, connect

PAUSE = 0.005
# Who was not answered at all does not ask again in the same moment.
PAUSE_AFTER_FAILURE = 0.05


class Visit:
    """One request: what was answered, when, and how long it took."""

    def __init__(self, address, path=b"/"):
        self.status, self.text, self.error, self.inode = 0, "", "", None
        self.began = time.monotonic()
        try:
            with connect(address) as connection:
                self.inode = os.fstat(connection.fileno()).st_ino
                connection.settimeout(PATIENCE)
                connection.sendall(REQUEST % path)
                answer = b""
                while part := connection.recv(65536):
                    answer += part
            self.read(answer)
        except OSError as error:
            self.error = type(error).__name__
        self.ended = time.monotonic()

    def read(self, answer):
        head, separator, body = answer.partition(b"\r\n\r\n")
        if separator:
            self.status, self.text = int(head.split()[1]), body.decode()
        else:
            self.error = "closed after %d bytes" % len(answer)

    @property
    def took(self):
        return self.ended - self.began

    @property
    def good(self):
        return self.status == 200


class Visitors:
    """With them as a context, the clients come; afterwards all have their answer."""

    def __init__(self, address, clients):
        self.address = address
        self.visits = []
        self.leave = False
        self.threads = [threading.Thread(target=self.come_again_and_again) for _ in range(clients)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.leave = True
        for thread in self.threads:
            thread.join()

    def come_again_and_again(self):
        while not self.leave:
            visit = Visit(self.address)
            self.visits.append(visit)
            time.sleep(PAUSE if visit.good else PAUSE_AFTER_FAILURE)

    def wait_for(self, count, wanted=lambda visit: True):
        """Until so many more visits, one after the other, were as wanted; gives up after PATIENCE seconds."""
        deadline = time.monotonic() + PATIENCE
        seen, row = len(self.visits), 0
        while row < count:
            assert time.monotonic() < deadline, "%s does not serve as it should" % self.address
            time.sleep(0.01)
            fresh = self.visits[seen:]
            seen += len(fresh)
            for visit in fresh:
                row = row + 1 if wanted(visit) else 0

    def failed(self):
        return [visit for visit in self.visits if not visit.good]

    def longest(self):
        """Seconds that the slowest answer took, or that nobody was answered, if that is more."""
        answered = sorted(visit.ended for visit in self.visits if visit.good)
        gaps = [after - before for before, after in zip(answered, answered[1:])]
        return max([visit.took for visit in self.visits] + gaps)
