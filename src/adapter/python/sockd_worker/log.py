"""What a template says by itself: lines on its stderr, which sockd reads."""

import sys


def complain(problem: object) -> None:
    print("sockd template: %s" % problem, file=sys.stderr, flush=True)
