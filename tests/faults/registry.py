"""The faults by their ids: how each is played, and what a trial of it says."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from _pytest.mark.structures import ParameterSet

from beamkeeper.testing.checker import Finding
from faults.lab import CannotInjectError, Lab, Trial

Play = Callable[[Trial], "list[Finding] | None"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of the campaign. `play` makes it happen; it may end the trial itself and return what was found."""

    id: str
    title: str
    play: Play
    needs_root: bool = False
    has_own_station: bool = False


@dataclass(slots=True)
class Outcome:
    """What came of one trial."""

    findings: list[Finding] = field(default_factory=list)
    refused: str = ""
    """Why this machine does not let the fault happen."""


FAULTS: list[Fault] = []

LONG = frozenset({"F03", "F08", "F21", "F25", "F27", "F33", "F37", "F38", "F39", "F40"})
"""Faults that take longer than a run of all tests should: `make test-long` and `make faults` play them."""


def fault(id_: str, title: str, *, needs_root: bool = False, has_own_station: bool = False) -> Callable[[Play], Play]:
    """Add a fault to the campaign."""

    def add(play: Play) -> Play:
        FAULTS.append(Fault(id_, title, play, needs_root, has_own_station))
        return play

    return add


def of_module(name: str) -> list[Fault]:
    """Return the faults that a module plays."""
    return [found for found in FAULTS if found.play.__module__ == name]


def cases(name: str) -> list[ParameterSet]:
    """Return the faults that a module plays as the parameters of its test."""
    return [
        pytest.param(found, id=found.id, marks=[pytest.mark.long] if found.id in LONG else [])
        for found in of_module(name)
    ]


def may_play(found: Fault) -> bool:
    """Whether we have the rights."""
    return not found.needs_root or os.geteuid() == 0


def play(lab: Lab, found: Fault, *, seed: int = 0) -> Outcome:
    """Play a fault once."""
    trial = lab.trial(found.id, seed=seed)
    try:
        findings = found.play(trial)
        return Outcome(trial.finish() if findings is None else findings)
    except CannotInjectError as error:
        return Outcome(refused=str(error))
    finally:
        trial.close()
