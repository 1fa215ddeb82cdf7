"""A simulated area detector, a process of its own: `python -m beamkeeper.cli.demo.detector DIRECTORY --truth FILE`.

It writes what a beamline's detectors write, in the ways in which they write it, and says in the truth file what it
wrote. It ends by itself. SIGTERM ends it with every file closed; run again with the same arguments, it finishes
what is missing.
"""

from __future__ import annotations

import argparse
import heapq
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from beamkeeper.cli.demo import hostile, writers
from beamkeeper.cli.demo.rings import Rings
from beamkeeper.cli.demo.target import Target
from beamkeeper.cli.demo.truth import Truth
from beamkeeper.cli.demo.writers import Beam, Writer

_NAP_S = 0.05
TERMINATED = 128 + signal.SIGTERM
"""The exit status where a signal ended it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the detector until all is written or a signal comes."""
    options = _parser().parse_args(argv)
    try:
        options.directory.mkdir(parents=True, exist_ok=True)
        with closing(Truth(options.truth)) as truth, _signals() as received:
            is_complete = run(plan(options, Target(options.directory, truth)), stop=lambda: bool(received))
    except OSError as error:
        sys.stderr.write(f"the simulated detector cannot go on: {error}\n")
        return 1
    return 0 if is_complete else TERMINATED


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect the signals that ask to end, while the block lasts."""
    received: list[int] = []
    before = [
        (number, signal.signal(number, lambda received_number, _: received.append(received_number)))
        for number in (signal.SIGTERM, signal.SIGINT)
    ]
    try:
        yield received
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="beamkeeper.cli.demo.detector", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--truth", type=Path, required=True, help="what was written, as JSON lines")
    parser.add_argument("--torture", action="store_true", help="add hostile names, links, a pipe, odd files")
    parser.add_argument("--copy", type=Path, action="append", default=[], help="add a copy of these files")
    parser.add_argument("--frames", type=int, default=300, help="TIFF frames")
    parser.add_argument("--rate", type=float, default=100.0, help="TIFF frames a second; all else keeps pace")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=datetime.fromisoformat, default=datetime.now(UTC).replace(microsecond=0))
    parser.add_argument("--sparse-bytes", type=int, default=256 * 1024**2, help="size of the sparse file")
    return parser


def plan(options: argparse.Namespace, target: Target) -> list[Writer]:
    """Return everything that is to be written."""
    beam = Beam(target, Rings(options.seed), options.rate, options.start)
    planned: list[Writer] = [
        writers.write_frames(beam, options.frames),
        *(writers.write_nexus(beam, number) for number in range(len(writers.ENERGIES_KEV))),
        writers.write_log(beam),
        writers.write_renamed(beam),
        writers.write_notes(beam),
    ]
    for directory, below in zip(options.copy, writers.copy_names(options.copy), strict=True):
        planned.append(writers.copy_files(beam, directory, below))
    if options.torture:
        planned += [
            hostile.write_names(target),
            hostile.write_oddities(target),
            hostile.write_sparse(target, options.sparse_bytes),
        ]
    return planned


def run(planned: Sequence[Writer], stop: Callable[[], bool]) -> bool:
    """Step every writer when it is due; return whether all came to their end.

    A step's time counts from when the last was due, so that the rate holds where one step was late.
    """
    start = time.monotonic()
    waiting = [(start, order, writer) for order, writer in enumerate(planned)]
    while waiting:
        due, order, writer = waiting[0]
        while (pause := due - time.monotonic()) > 0 and not stop():
            time.sleep(min(pause, _NAP_S))
        if stop():
            for _, _, unfinished in waiting:
                unfinished.close()
            return False
        heapq.heappop(waiting)
        wanted = next(writer, None)
        if wanted is not None:
            heapq.heappush(waiting, (due + wanted, order, writer))
    return True


if __name__ == "__main__":
    sys.exit(main())
