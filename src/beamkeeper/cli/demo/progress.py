"""What one sees while the demo runs: moving bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from beamkeeper.cli import output
from beamkeeper.cli.demo.truth import Written
from beamkeeper.domain.acquisition import Acquisition, JournalState

_LINE_INTERVAL_S = 2.0


class Tail:
    """Follows a truth file as it grows."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._offset = 0
        self._sizes: dict[bytes, int] = {}

    def read(self) -> None:
        """Take in the lines that are new."""
        if not self._file.exists():
            return
        with self._file.open("rb") as stream:
            stream.seek(self._offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                written = Written.from_line(line)
                self._sizes[written.path] = written.size

    @property
    def files(self) -> int:
        """How many paths were written."""
        return len(self._sizes)

    @property
    def bytes(self) -> int:
        """How large they are."""
        return sum(self._sizes.values())


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a run is."""

    phase: str
    files: int
    bytes: int
    stored: int
    available: int
    listed: int

    @classmethod
    def of(cls, phase: str, tail: Tail, daq: Acquisition) -> Standing:
        """Return how far a DAQ has come with what was written."""
        tail.read()
        return cls(
            phase=phase,
            files=tail.files,
            bytes=tail.bytes,
            stored=daq.count(JournalState.STORED, JournalState.AVAILABLE),
            available=daq.count(JournalState.AVAILABLE),
            listed=daq.count(JournalState.SKIPPED, JournalState.QUARANTINED),
        )

    def line(self) -> str:
        """Return it as a sentence."""
        return (
            f"{self.phase}: {self.files} files written ({output.size(self.bytes)}), "
            f"{self.stored} stored, {self.available} catalogued"
        )


class Display(Protocol):
    """Shows how far a run is."""

    def show(self, standing: Standing) -> None:
        """Show it now."""
        ...


@contextmanager
def display() -> Iterator[Display]:
    """Give the display that suits where standard error goes."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    columns = (
        TextColumn("{task.description:<11}"),
        BarColumn(),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=output.console(stderr=True), transient=True) as progress:
        yield _Bars(progress)


class _Lines:
    def __init__(self) -> None:
        self._last: Standing | None = None
        self._at = 0.0

    def show(self, standing: Standing) -> None:
        now = time.monotonic()
        is_new_phase = self._last is None or self._last.phase != standing.phase
        if is_new_phase or (standing != self._last and now - self._at >= _LINE_INTERVAL_S):
            output.note(standing.line())
            self._last, self._at = standing, now


class _Bars:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {
            name: progress.add_task(name, total=None, told="") for name in ("written", "stored", "catalogued")
        }

    def show(self, standing: Standing) -> None:
        expected = max(standing.files - standing.listed, standing.stored, 1)
        self._update("written", standing.files, None if standing.phase == "measuring" else standing.files, standing)
        self._update("stored", standing.stored, expected, standing)
        self._update("catalogued", standing.available, expected, standing)

    def _update(self, name: str, files: int, total: int | None, standing: Standing) -> None:
        told = f"{files} files" + (f", {output.size(standing.bytes)}, {standing.phase}" if name == "written" else "")
        self._progress.update(self._tasks[name], completed=files, total=total, told=told)
