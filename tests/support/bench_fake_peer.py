"""A peer without torch: the server's own loop with kinds that count, fail, or end the process."""

import os
import sys

from experiments.bench.peers.server import serve


class Counter:
    """Its runs take as many seconds as there have been."""

    def __init__(self, start=0):
        self.count, self.facts = start, {"start": start}

    def run(self, step=1):
        self.count += step
        return {"seconds": float(self.count)}


class Ends:
    """Ends the process when it is run."""

    facts = {}  # noqa: RUF012

    def run(self):
        os._exit(3)


if __name__ == "__main__":
    told = []
    serve({"counter": Counter, "ends": Ends, "threads": lambda: Counter(told[-1])}, sys.stdin, sys.stdout, told.append)
