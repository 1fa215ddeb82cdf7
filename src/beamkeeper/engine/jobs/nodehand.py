"""The process on a node that runs the attempts of one worker, one after another: a runner as at home.

It is small, where a worker has libraries of some ten megabytes: a copy of that for each command takes longer than most
commands. It ends with its worker: what runs then is ended, by the runner's own way.
"""

from __future__ import annotations

import os
import signal
import sys

from beamkeeper.engine.jobs import hands, tree

MOST_ATTEMPTS = 5000
"""It ends after so many: another one is a start of Python, which costs what twenty short commands do."""


def main() -> int:
    """Run attempts until the worker is gone, or it is enough."""
    tree.die_with_parent(signal.SIGTERM)
    if os.getppid() != int(sys.argv[1]):
        return 1
    orders, ended, null = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(null, descriptor)
    if (order := hands.next_order(orders)) is not None:
        hands.work(order, orders, ended, MOST_ATTEMPTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
