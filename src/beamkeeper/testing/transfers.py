"""Transfers that fail in the ways in which real ones do: they lie, hang, and say nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from beamkeeper.builtin.copying import CopyOptions, CopyTransfer
from beamkeeper.builtin.directories import path_of_url
from beamkeeper.plugins.api import Options, Stop, TransferItem, TransferResult

HANG_LOOK_S = 0.02


class FaultyOptions(CopyOptions):
    """Where the fault is switched on: while this file is there."""

    gate: Path = Field(default=Path("/nowhere"), description="The fault lasts while this file is there.")


class _FaultyTransfer:
    """A copy with a fault."""

    options: ClassVar[type[Options]] = FaultyOptions
    summary: ClassVar[str] = "Fails on purpose."

    def __init__(self, options: FaultyOptions) -> None:
        self._gate = options.gate
        self._copy = CopyTransfer(options)

    def send(self, items: Sequence[TransferItem], staging: str, stop: Stop) -> Iterator[TransferResult]:
        """Copy."""
        return self._copy.send(items, staging, stop)

    def discard(self, staging: str) -> None:
        """Remove a staging directory."""
        self._copy.discard(staging)


class LyingTransfer(_FaultyTransfer):
    """Says that all is well, and has truncated every file that has bytes (exit status 0, and not all is there)."""

    def send(self, items: Sequence[TransferItem], staging: str, stop: Stop) -> Iterator[TransferResult]:
        """Copy, and cut what was copied."""
        paths = {item.version_uid: item.path for item in items}
        for result in self._copy.send(items, staging, stop):
            if self._gate.exists() and result.error is None and result.size:
                os.truncate(os.path.join(path_of_url(staging), paths[result.version_uid]), result.size - 1)
            yield result


class HangingTransfer(_FaultyTransfer):
    """Neither moves nor says anything, as a process does that waits for a server which is away."""

    def send(self, items: Sequence[TransferItem], staging: str, stop: Stop) -> Iterator[TransferResult]:
        """Hang, and copy when that is over."""
        while self._gate.exists():
            time.sleep(HANG_LOOK_S)
        yield from self._copy.send(items, staging, stop)


class SilentTransfer(_FaultyTransfer):
    """Ends well, and says nothing of half of its files."""

    def send(self, items: Sequence[TransferItem], staging: str, stop: Stop) -> Iterator[TransferResult]:
        """Copy, and tell of some."""
        for number, result in enumerate(self._copy.send(items, staging, stop)):
            if not self._gate.exists() or number % 2:
                yield result


class VanishingTransfer(_FaultyTransfer):
    """Ends well; and then somebody removes the staging directory, before what is in it was published."""

    def send(self, items: Sequence[TransferItem], staging: str, stop: Stop) -> Iterator[TransferResult]:
        """Copy, and remove it all."""
        results = list(self._copy.send(items, staging, stop))
        if self._gate.exists():
            self._copy.discard(staging)
        yield from results


FAULTY = {
    "lying": LyingTransfer,
    "hanging": HangingTransfer,
    "silent": SilentTransfer,
    "vanishing": VanishingTransfer,
}


def provide(directory: Path) -> dict[str, str]:
    """Make them known by their names as an installed package does; return the environment that a process needs."""
    about = directory / "beamkeeper_faulty-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: beamkeeper-faulty\nVersion: 1.0\n")
    lines = [f"{name} = {__name__}:{cls.__name__}" for name, cls in FAULTY.items()]
    (about / "entry_points.txt").write_text("\n".join(["[beamkeeper.transfers]", *lines]) + "\n")
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(directory), *([before] if before else [])])}
