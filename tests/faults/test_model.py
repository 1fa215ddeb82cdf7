"""F65: whatever people do in whatever order, and whenever the station dies, it is as a model of it says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from faults.lab import Lab
from faults.model import Beamline

STEPS = 100
PLAYS = int(os.environ.get("F65_PLAYS", "100"))
"""Plays of the long form, each of so many steps."""


def play(lab: Lab, marks: Path, *, plays: int, steps: int, is_known: bool) -> None:
    chosen = settings(
        max_examples=plays,
        stateful_step_count=steps,
        derandomize=is_known,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(lambda: Beamline(lab, marks), settings=chosen)  # type: ignore[arg-type]


def test_f65_a_station_is_as_its_model_says_through_every_crash(lab: Lab, tmp_path: Path) -> None:
    play(lab, tmp_path, plays=2, steps=30, is_known=True)


@pytest.mark.long
@pytest.mark.timeout(6 * 3600)
def test_f65_a_station_is_as_its_model_says_through_very_many_steps(lab: Lab, tmp_path: Path) -> None:
    play(lab, tmp_path, plays=PLAYS, steps=STEPS, is_known=False)
