"""When a gunicorn worker says that it lives, and when it has served enough, with the test playing sockd."""

import os
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))

from sockd_played import Client, get  # noqa: E402
from test_gunicorn import Case, setUpModule  # noqa: E402, F401


class Heartbeat(Case):

    def test_none_without_a_timeout(self):
        worker = self.started("-k", "gthread", "--threads", "1", "--timeout", "0", "hello:app").fork(1)
        worker.wait_ready()
        for _ in range(20):
            get(worker.probe_path)
        worker.signal(signal.SIGTERM)
        worker.wait()
        self.assertEqual(worker.notifications_so_far(), [])

    def reported_interval(self, worker_class):
        template = self.template("-k", worker_class, "--timeout", "30", "hello:app")
        return template, template.settings()["heartbeat_interval"]

    def test_many_requests_make_few_datagrams(self):
        template, interval = self.reported_interval("sync")
        worker = template.fork(1)
        worker.wait_ready()
        began = time.monotonic()
        for _ in range(50):
            get(worker.probe_path)
        self.assertLessEqual(len(worker.notifications_so_far()), (time.monotonic() - began) / interval + 1)

    def test_a_beat_that_comes_with_a_request_is_soon_told(self):
        # A hang is found within the timeout and a second; one that beats all the time must not wake sockd as often.
        self.assertEqual([self.reported_interval(name)[1] for name in ("sync", "gthread")], [0.9, 3.75])
        worker = self.started("--timeout", "30", "hello:app").fork(1)
        worker.wait_ready()
        while "WATCHDOG=1" not in worker.notifications_so_far():
            get(worker.probe_path)

    def test_silent_during_a_request_of_the_sync_worker(self):
        fifo = self.fifo()
        worker = self.started("--timeout", "1", "hello:app").fork(1)
        worker.wait_ready()
        client = Client(worker.probe_path)
        self.addCleanup(client.close)
        client.request("GET", "/wait", headers={"X-Fifo": fifo})
        worker.output.read_until("in the request")
        worker.notifications_so_far()
        with self.assertRaises(AssertionError):
            worker.next_notification(patience=1.5)
        with open(fifo, "w"):
            pass
        client.getresponse().read()
        worker.wait_notification("WATCHDOG=1")

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
