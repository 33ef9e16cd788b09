"""prometheus_client's documented recipe for gunicorn, beside gunicorn: counters stay, gauges of the ended do not."""

import os
import re
import signal
import sys
import unittest

sys.path.insert(0, os.path.dirname(__file__))

import both  # noqa: E402
from both import Gunicorn, Sockd, ask  # noqa: E402
from fake_sockd import wait_until  # noqa: E402

try:
    import prometheus_client
except ImportError:
    prometheus_client = None

APPLICATION = '''
import os
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest, multiprocess
requests = Counter("requests", "those that are counted")
alive = Gauge("alive", "one for each process", multiprocess_mode="liveall")
alive.set(1)
if os.path.exists("broken"):
    raise RuntimeError("not today")
def app(environ, start_response):
    if environ["PATH_INFO"] == "/count":
        requests.inc()
        body = b"%d" % os.getpid()
    elif environ["PATH_INFO"] == "/metrics":
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        body = generate_latest(registry)
    else:
        body = b"hello"
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
'''

CONFIGURATION = '''
import glob, os
from prometheus_client import multiprocess
workers = 2
bind = "unix:web.sock"
max_requests = 5
def on_starting(server):
    for file in glob.glob(os.path.join(os.environ["PROMETHEUS_MULTIPROC_DIR"], "*.db")):
        os.unlink(file)
def post_worker_init(worker):
    with open("hooks", "a") as file:
        print("ready", worker.pid, file=file)
def child_exit(server, worker):
    multiprocess.mark_process_dead(worker.pid)
'''


@unittest.skipUnless(prometheus_client, "prometheus_client is not installed")
class Prometheus(both.Case):

    files = {"metrics": APPLICATION, "conf": CONFIGURATION}

    def life(self, kind):
        metrics = both.Directory()
        self.addCleanup(metrics.remove)
        metrics.write("counter_1.db", "")
        service = self.service(kind, "-c", "conf.py", "metrics:app",
                               environment={"PROMETHEUS_MULTIPROC_DIR": metrics.path})
        service.wait_for(2, "ready")
        self.assertFalse(os.path.exists(metrics / "counter_1.db"), "on_starting was not called")
        counted, pids = 0, set()
        for reload in range(5):
            while len(pids) < 4 * (reload + 1):
                pids.add(ask(service, "/count"))
                counted += 1
            if kind is Sockd and reload % 2:
                # Here a broken deploy is refused; gunicorn would end.
                open(service.directory / "broken", "w").close()
                service.signal(signal.SIGHUP)
                wait_until(lambda so_far=reload // 2: service.output().count("refused: ") > so_far, "a refused reload")
                os.unlink(service.directory / "broken")
            else:
                before = len(service.lines())
                service.signal(signal.SIGHUP)
                service.wait_for(before + 2, "ready")
        # Recycled ones leave for a while yet.
        wait_until(lambda: self.gauges(metrics, service) <= 2, "gauges of the living alone", 20)
        text = ask(service, "/metrics")
        samples = re.findall(r'^alive\{pid="(\d+)"\} 1\.0$', text, re.M)
        total = float(re.search(r"^requests_total (.*)$", text, re.M).group(1))
        self.assertGreaterEqual(len(pids), 20)
        service.stop()
        return total == counted, len(samples), len([name for name in os.listdir(metrics.path) if "gauge" in name])

    def gauges(self, metrics, service):
        return len([name for name in os.listdir(metrics.path) if name.startswith("gauge_liveall_")])

    def test_as_under_gunicorn(self):
        self.assertEqual(self.life(Gunicorn), (True, 2, 0))
        self.assertEqual(self.life(Sockd), (True, 2, 0))


if __name__ == "__main__":
    unittest.main()
