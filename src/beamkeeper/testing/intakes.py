"""A watched directory for a test: a real intake in its thread, over a real database, and workers that only say so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from beamkeeper.db.base import new_uid
from beamkeeper.domain.acquisition import Acquisition, JournalEntry, JournalState, Kind, State
from beamkeeper.domain.problems import Problem, ProblemKind
from beamkeeper.engine.intake import Intake, Rules
from beamkeeper.testing.beamline import Beamline, options
from beamkeeper.testing.station import until

J = JournalState
QUICK = Rules(quiet_s=0.2, scan_interval_s=600.0, canary_s=600.0)
"""Little patience, and no scan but those that something gives a reason for."""

PATIENCE_S = 60.0
"""What takes so long does not happen: tests measure no times, and machines may be busy."""


class Watched:
    """One directory with its DAQ (or upload); `start` and `stop` its intake as often as a test likes."""

    def __init__(self, place: Path, rules: Rules = QUICK, *, directory: Path | None = None, **asked: Any) -> None:
        self.directory = directory or place / "det"
        self.directory.mkdir(exist_ok=True)
        self.rules = rules
        self.problems: list[Problem] = []
        self.reports: list[str] = []
        self.wakes = 0
        self.beamline = Beamline(f"sqlite:///{place / 'journal.db'}", place / "storage")
        self.database = self.beamline.database
        self.beamline.clock.now = datetime.now(UTC)
        made = options(os.path.realpath(os.fsencode(self.directory))[1:], **asked)
        experiment = self.beamline.experiment()
        with self.database.write() as tx:
            self.uid = tx.acquisitions.add(experiment, made).uid
        self._intake: Intake | None = None

    @property
    def intake(self) -> Intake:
        """The intake that runs."""
        assert self._intake is not None
        return self._intake

    def start(self) -> Self:
        """Start the intake, as the engine does after every start of the service."""
        self._intake = Intake(
            self.acquisition,
            self.database,
            self.rules,
            wake_workers=self._woken,
            report=self.reports.append,
            tell=self.problems.append,
        )
        self._intake.start()
        return self

    def _woken(self) -> None:
        self.wakes += 1

    def stop(self) -> None:
        """End the intake; what it saw is in the journal."""
        if self._intake is not None:
            self._intake.stop()
            self._intake.join(timeout=PATIENCE_S)
            assert not self._intake.is_alive()
            self._intake = None

    def begun(self) -> Self:
        """Start, and wait until the first scan is over."""
        self.start()
        until(lambda: self.acquisition.state is not State.PENDING, "the first scan")
        return self

    def drained(self) -> Self:
        """Ask for the end, and wait until the intake has nothing more to say."""
        with self.database.write() as tx:
            tx.acquisitions.request_stop(self.uid)
        self.intake.wake()
        until(lambda: self.intake.is_drained, "the end")
        return self

    @property
    def acquisition(self) -> Acquisition:
        """The DAQ as the database has it now."""
        with self.database.read() as tx:
            return tx.acquisitions.get(self.uid)

    def entries(self) -> dict[bytes, JournalEntry]:
        """The journal, by path."""
        with self.database.read() as tx:
            return {bytes(entry.relpath): entry for entry in tx.journal.page(self.uid, None, None, 100_000).items}

    def state(self, path: bytes) -> JournalState | None:
        """Where a file stands; None where the journal does not know it."""
        found = self.entries().get(path)
        return None if found is None else found.state

    def awaits(self, path: bytes, *states: JournalState, timeout_s: float = PATIENCE_S) -> JournalEntry:
        """Wait until a file is in one of these states, and return its entry."""

        def look() -> JournalEntry | None:
            found = self.entries().get(path)
            return found if found is not None and found.state in states else None

        return until(look, f"{path!r} {' or '.join(states)}", timeout_s)

    def awaits_count(self, count: int, state: JournalState = J.READY, timeout_s: float = PATIENCE_S) -> None:
        """Wait until so many files are in a state."""

        def look() -> bool:
            with self.database.read() as tx:
                return sum(t.files for t in tx.journal.tallies(self.uid) if t.state is state) >= count

        until(look, f"{count} files {state}", timeout_s)

    def awaits_problem(self, kind: ProblemKind, timeout_s: float = PATIENCE_S) -> Problem:
        """Wait until a problem is told, and return it."""
        return until(lambda: next((p for p in self.problems if p.kind is kind), None), f"problem {kind}", timeout_s)

    def deliver(self) -> int:
        """Say of all that is ready that it is available; returns how many files that were."""
        self.beamline.clock.now = datetime.now(UTC)
        count = 0
        while True:
            with self.database.write() as tx:
                batch = tx.journal.claim(new_uid(), files=1000, size=10**12)
                if batch is None:
                    return count
                done = {file.id: {"available_at": tx.now} for file in batch.files}
                count += tx.journal.step(batch, J.AVAILABLE, done, free=True)

    def announce(self, *paths: bytes) -> None:
        """Say that files are finished, as their writer does."""
        with self.database.write() as tx:
            tx.announcements.add(self.uid, paths)
        self.intake.wake()

    def announced(self) -> list[bytes]:
        """What was announced and is not decided yet."""
        with self.database.read() as tx:
            return [path for _, path in tx.announcements.after(self.uid)]

    def close(self) -> None:
        """End everything."""
        self.stop()
        self.beamline.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def watched(place: Path, rules: Rules = QUICK, **asked: Any) -> Iterator[Watched]:
    """Give a DAQ of a new directory whose first scan is over."""
    with Watched(place, rules, **asked) as made:
        yield made.begun()


def uploaded(place: Path, rules: Rules = QUICK, **asked: Any) -> Watched:
    """Return an upload of a new directory, not started yet."""
    return Watched(place, rules, kind=Kind.UPLOAD, **asked)
