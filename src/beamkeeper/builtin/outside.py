"""What the transfers by outside programs share: sources held open, digests of our own, and whose fault a failure is."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from uuid import UUID

from pydantic import Field, field_validator

from beamkeeper.builtin.held import Held
from beamkeeper.domain.errors import DestinationError
from beamkeeper.domain.names import Algorithm
from beamkeeper.plugins.api import Options, Stop, TransferItem, TransferResult
from beamkeeper.plugins.programs import ProgramStoppedError

MOST_HELD = 256
"""So many sources are open at once: a process may have 1024 files open, and several batches move at once."""

MOST_TRIES = 16
"""So often a batch is cut in two to find the one file that the far side refuses."""

Refused = dict[UUID, Exception]
"""Files that the far side did not take, and why."""


class OutsideOptions(Options):
    """What every transfer by an outside program has."""

    checksums: tuple[Algorithm, ...] = Field(
        default=(Algorithm.BLAKE3,), description="Made by us in one pass, while the program reads the same bytes."
    )
    stall_s: float = Field(
        default=20.0, ge=1, le=600, description="A program that moves nothing for so many seconds is ended."
    )

    @field_validator("checksums")
    @classmethod
    def _with_blake3(cls, value: tuple[Algorithm, ...]) -> tuple[Algorithm, ...]:
        if Algorithm.BLAKE3 not in value:
            raise ValueError("blake3 must be among them: copies are verified by it")
        return tuple(dict.fromkeys(value))


class OutsideTransfer(ABC):
    """Sends by a program that reads links in a directory. Nothing that it says of success is believed."""

    def __init__(self, checksums: Sequence[Algorithm]) -> None:
        self._checksums = checksums

    def send(self, items: Sequence[TransferItem], staging: str, stop: Stop) -> Iterator[TransferResult]:
        """Send each item to `staging`/target; what is there from before is replaced."""
        for start in range(0, len(items), MOST_HELD):
            with Held(items[start : start + MOST_HELD], self._checksums, stop) as held:
                yield from held.faults
                if not held.items:
                    continue
                if stop():
                    return
                held.begin()
                try:
                    refused = _Finder(self, held.farm, staging, stop).move(held.items)
                except ProgramStoppedError:
                    return
                for result in held.results(refused.get):
                    yield result
                    if stop():
                        return

    @abstractmethod
    def move(self, farm: str, items: Sequence[TransferItem], staging: str, stop: Stop) -> Refused:
        """Move what stands at the targets of items in `farm`; DestinationError where it failed as a whole."""


class _Finder:
    """Finds the files that a destination refuses, where a program only says that something failed."""

    def __init__(self, transfer: OutsideTransfer, farm: str, staging: str, stop: Stop) -> None:
        self._transfer = transfer
        self._farm = farm
        self._staging = staging
        self._stop = stop
        self._tries = 0

    def move(self, items: Sequence[TransferItem]) -> Refused:
        self._tries += 1
        try:
            return self._transfer.move(self._farm, items, self._staging, self._stop)
        except DestinationError as error:
            if error.details.get("code") != "failed" or len(items) == 1 or self._tries > MOST_TRIES:
                raise
            return self._halves(items)

    def _halves(self, items: Sequence[TransferItem]) -> Refused:
        middle = len(items) // 2
        refused: Refused = {}
        failures: list[DestinationError] = []
        for half in (items[:middle], items[middle:]):
            try:
                refused |= self.move(half)
            except DestinationError as error:
                if error.details.get("code") != "failed" or failures:
                    raise
                failures.append(error)
                refused |= dict.fromkeys((item.version_uid for item in half), error)
        return refused


def classified(complaint: str, known: Mapping[str, tuple[str, str]], where: str) -> DestinationError:
    """Return the fault that a program complains of; `known` has patterns with a code and a hint."""
    for pattern, (code, hint) in known.items():
        if re.search(pattern, complaint, re.IGNORECASE):
            return DestinationError(f"{where}: {_line(complaint, pattern)}; {hint}", code=code)
    return DestinationError(f"{where}: {_line(complaint, '') or 'it failed, and said nothing'}", code="failed")


def _line(complaint: str, pattern: str) -> str:
    """Return the line that says it, without what does not print."""
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    found = next((line for line in lines if pattern and re.search(pattern, line, re.IGNORECASE)), None)
    text = found or (lines[-1] if lines else "")
    return "".join(char if char.isprintable() else "?" for char in text)[:400]
