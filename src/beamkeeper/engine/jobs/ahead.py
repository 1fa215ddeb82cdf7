"""Which commands are ordered before there is room for them: short ones would wait for the database in between."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

MOST = 16
"""So many at most are ordered ahead; a job that is more urgent waits for no more than these, which are short."""

SHORT_S = 0.5
ENOUGH = 2
"""A command is short that has ended within SHORT_S so often, the last times."""

KEPT = 1000
"""Commands, and workflows, that are remembered."""


class Ahead:
    """What commands on this machine took last. The spawner holds what is ordered ahead until another has ended."""

    def __init__(self, slots: int) -> None:
        self.most = min(2 * slots, MOST)
        self._ends: dict[str, int] = {}
        self._first: dict[str, tuple[str, ...]] = {}

    def ended(self, command: str, result: Mapping[str, Any] | None) -> None:
        """Take note of what a command took; where that is not known, it was not short."""
        took_s = (result or {}).get("run_time_s")
        is_short = took_s is not None and took_s <= SHORT_S
        _put(self._ends, command, self._ends.get(command, 0) + 1 if is_short else 0)

    def is_short(self, command: str) -> bool:
        """Whether a command was short whenever it ran last."""
        return self._ends.get(command, 0) >= ENOUGH

    def begun(self, workflow: str, commands: Iterable[str]) -> None:
        """Take note of the commands with which jobs of a workflow begin."""
        _put(self._first, workflow, tuple(commands))

    @property
    def is_anything(self) -> bool:
        """Whether jobs of any workflow begin with what is short."""
        return any(map(self.begins_short, self._first))

    def begins_short(self, workflow: str) -> bool:
        """Whether jobs of a workflow begin with what is short."""
        return workflow in self._first and all(map(self.is_short, self._first[workflow]))


def _put(kept: dict[str, Any], key: str, value: object) -> None:
    kept.pop(key, None)
    kept[key] = value
    while len(kept) > KEPT:
        del kept[next(iter(kept))]
