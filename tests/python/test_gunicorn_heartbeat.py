"""When a gunicorn worker shows that it lives, and says when it has served enough, with the test playing sockd."""

import os
import signal
import sys

sys.path.insert(0, os.path.dirname(__file__))

from fake_sockd import Client, get, wait_until  # noqa: E402
from test_gunicorn import Case, setUpModule  # noqa: E402, F401


class Heartbeat(Case):

    def test_requests_bring_no_datagrams(self):
        for timeout in ("0", "1"):
            worker = self.started("-k", "gthread", "--threads", "1", "--timeout", timeout, "hello:app").fork(1)
            worker.wait_ready()
            for _ in range(50):
                get(worker.probe_path)
            worker.signal(signal.SIGTERM)
            worker.wait()
            self.assertEqual(worker.notifications_so_far(), [])

    def test_a_beat_comes_with_a_request(self):
        # Without one the sync worker beats only twice in its timeout.
        worker = self.started("--timeout", "600", "hello:app").fork(1)
        worker.wait_ready()
        before = worker.scoreboard.last_beat
        wait_until(lambda: get(worker.probe_path) and worker.scoreboard.last_beat != before, "a beat")

    def test_none_during_a_request_of_the_sync_worker(self):
        fifo = self.fifo()
        worker = self.started("--timeout", "1", "hello:app").fork(1)
        worker.wait_ready()
        client = Client(worker.probe_path)
        self.addCleanup(client.close)
        client.request("GET", "/wait", headers={"X-Fifo": fifo})
        worker.output.read_until("in the request")
        worker.scoreboard.wait_for_silence(1.5)
        with open(fifo, "w"):
            pass
        client.getresponse().read()
        worker.scoreboard.next_beat()

    def test_no_temporary_file_is_needed(self):
        worker = self.started("--worker-tmp-dir", "/nonexistent", "hello:app").fork(1)
        worker.wait_ready()


class RequestLimit(Case):

    def test_jitter_is_added(self):
        """With max_requests 1 and a jitter of at most 3, the fourth request is the last to report."""
        worker = self.started("--max-requests", "1", "--max-requests-jitter", "3", "--timeout", "0",
                              "hello:app").fork(1)
        worker.wait_ready()
        for _ in range(4):
            get(worker.probe_path)
        self.assertEqual(worker.next_notification(), "X_SOCKD_RETIRE=1")

    def test_workers_draw_different_jitters(self):
        self.directory.write("limit.conf.py", '''
def post_worker_init(worker):
    print("limit %d." % worker.max_requests, file=__import__("sys").stderr, flush=True)
''')
        template = self.started("-c", "limit.conf.py", "--max-requests", "10", "--max-requests-jitter", "1000000000",
                                "hello:app")
        limits = set()
        for number in range(3):
            worker = template.fork(number)
            text = worker.output.read_until(".\n")
            limits.add(text.split("limit ")[1].split(".")[0])
        self.assertEqual(len(limits), 3)
