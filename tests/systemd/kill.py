"""Kills a random worker of the generation that serves: kill.py UNIT SEED [LEAST].

Prints between which moments (seconds since 1970), the process and the worker's number. With fewer than LEAST workers ready (2 when not
given) it kills nobody and prints nothing: somebody must serve on.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time


def main():
    unit, seed = sys.argv[1:3]
    least = int(sys.argv[3]) if len(sys.argv) > 3 else 2
    status = json.loads(subprocess.run(["sockd", "status", "--json", unit], stdout=subprocess.PIPE).stdout)[0]["sockd"]
    ready = [w for w in status["workers"] if w["state"] == "ready" and w["generation"] == status["generation"]]
    if len(ready) < least:
        return
    victim = random.Random(int(seed)).choice(ready)
    before = time.time()
    os.kill(victim["pid"], signal.SIGKILL)
    print("%.6f %.6f %d %d" % (before, time.time(), victim["pid"], victim["id"]))


if __name__ == "__main__":
    main()
