"""Following a DAQ or upload until it ends: a live table on a terminal, lines elsewhere, and the exit status."""

from __future__ import annotations

import time
from collections import deque
from itertools import islice

from rich.live import Live
from rich.table import Table
from rich.text import Text

from beamkeeper.cli import acquiring, output
from beamkeeper.cli.app import EXIT_WANTING
from beamkeeper.client.acquisition import Daqs, Uploads
from beamkeeper.domain.acquisition import UNCHANGED, UNDELIVERED, UNFINISHED, Acquisition, JournalState, State
from beamkeeper.domain.names import Uid

J = JournalState
IN_FLIGHT = (J.READY, J.STAGED, J.STORED)
WINDOW_S = 5.0
LINE_EVERY_S = 1.0


class Meter:
    """How fast bytes become available, over the last few seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def rate(self, size: int, now: float) -> float:
        """Return bytes a second, with `size` the bytes available now."""
        self._seen.append((now, size))
        while len(self._seen) > 2 and now - self._seen[0][0] > WINDOW_S:
            self._seen.popleft()
        elapsed = now - self._seen[0][0]
        return (size - self._seen[0][1]) / elapsed if elapsed > 0 else 0.0


def figures(item: Acquisition, rate: float) -> dict[str, str]:
    """Return what is watched, as headings with their texts."""
    return {
        "waiting": str(item.count(J.CANDIDATE)),
        "growing": str(item.count(J.GROWING)),
        "in flight": str(item.count(*IN_FLIGHT)),
        "available": str(item.count(J.AVAILABLE)),
        "quarantined": str(item.count(J.QUARANTINED)),
        "bytes": output.size(item.size(J.AVAILABLE)),
        "rate": f"{output.size(int(rate))}/s",
    }


def line(item: Acquisition, rate: float) -> str:
    """Return the same as one line, for logs."""
    found = figures(item, rate)
    counts = ", ".join(
        f"{found[name]} {name}" for name in ("waiting", "growing", "in flight", "available", "quarantined")
    )
    return f"{item.state}: {counts}; {found['bytes']}, {found['rate']}" + (f" ({item.message})" if item.message else "")


def table(item: Acquisition, rate: float) -> Table:
    """Return the same as a table, for a terminal."""
    found = Table(
        title=Text(f"{acquiring.NOUNS[item.kind]} {item.uid} of {item.experiment}: {item.state}"),
        box=None,
        pad_edge=False,
    )
    row = figures(item, rate)
    for heading in row:
        found.add_column(heading, justify="right", min_width=10)
    found.add_row(*(Text(value) for value in row.values()))
    if item.message:
        found.caption = Text(output.safe(item.message))
    return found


def follow(of: Daqs | Uploads, uid: Uid) -> Acquisition:
    """Show how it goes until it ends; return it then."""
    meter = Meter()
    if output.is_json():
        return of.wait(uid)
    console = output.console()
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4) as live:
            return of.wait(uid, on_change=lambda item: live.update(table(item, _rate(meter, item))))
    said: tuple[float, State | None] = (-LINE_EVERY_S, None)

    def tell(item: Acquisition) -> None:
        nonlocal said
        now, rate = time.monotonic(), _rate(meter, item)
        if item.state is not said[1] or now - said[0] >= LINE_EVERY_S:
            said = now, item.state
            output.say(line(item, rate))

    return of.wait(uid, on_change=tell)


def _rate(meter: Meter, item: Acquisition) -> float:
    return meter.rate(item.size(J.AVAILABLE), time.monotonic())


def report(of: Daqs | Uploads, ended: Acquisition, *, is_stopped: bool = False) -> int:
    """Print how it ended and what is not delivered; return the exit status."""
    status = exit_status(ended, is_stopped=is_stopped)
    if output.is_json():
        output.data(ended)
        return status
    output.say(f"{acquiring.NOUNS[ended.kind]} {ended.uid} is {ended.state}{_why(ended)}: {delivered(ended)}.")
    acquiring.show_undelivered(ended, list(islice(acquiring.undelivered(of, ended), acquiring.FIRST)))
    return status


def _why(ended: Acquisition) -> str:
    return f" ({ended.message})" if ended.message and ended.state is not State.DONE else ""


def delivered(ended: Acquisition) -> str:
    """Return what has been delivered, as a sentence without its end."""
    before = sum(t.files for t in ended.tallies if t.state is J.SKIPPED and t.reason_code == UNCHANGED)
    known = f", and {acquiring.files(before)} stored before and unchanged" if before else ""
    left = sum(t.files for t in ended.tallies if t.reason_code == UNFINISHED)
    unfinished = f", {left} of them unfinished by their writer" if left else ""
    size = output.size(ended.size(J.AVAILABLE))
    return f"{acquiring.files(ended.count(J.AVAILABLE))} available ({size}){unfinished}{known}"


def exit_status(ended: Acquisition, *, is_stopped: bool = False) -> int:
    """Return 0 where all is well, 10 where it failed or something is left; an end that was asked for is no failure."""
    is_whole = ended.count(J.QUARANTINED, *UNDELIVERED) == 0
    is_ended_well = ended.state is State.DONE or (is_stopped and ended.state is State.ABORTED)
    return 0 if is_whole and is_ended_well else EXIT_WANTING
