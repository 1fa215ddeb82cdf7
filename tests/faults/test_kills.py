"""F30, F31: the services are killed at every fail point, at calls that change a file system, and at any moment."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from contextlib import suppress

import pytest

from beamkeeper.config.failpoints import FailPoint, TroublePoint
from faults import kills
from faults.lab import CannotInjectError, Lab


@pytest.mark.timeout(300)
def test_f30_a_kill_at_every_fail_point_harms_no_file(lab: Lab) -> None:
    rng = random.Random(30)
    points = list(FailPoint)
    rng.shuffle(points)
    with kills.watched(lab, "f30", 30) as trial:
        kills.kill_at_each(trial, points, rng)
        assert trial.settle() == []
        assert kills.has_delivered(trial)


@pytest.mark.timeout(300)
def test_f30_a_kill_in_the_middle_of_trouble_harms_no_file(lab: Lab) -> None:
    rng = random.Random(302)
    with kills.watched(lab, "f30t", 302) as trial:
        for number, point in enumerate(TroublePoint):
            with suppress(CannotInjectError):
                kills.die_in_trouble(trial, point, number, rng)
        assert trial.settle() == []
        assert kills.has_delivered(trial)


@pytest.mark.timeout(300)
def test_f31_a_kill_at_calls_that_change_a_file_system_harms_no_file(
    lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    rng = random.Random(31)
    with kills.watched(lab, "f31", 31) as trial:
        if not trial.shim.is_loaded(lab.station.pid):
            record_property("cannot be injected here", "there is no C compiler")
            return
        for number, call in enumerate((1, 23, 58)):
            assert kills.kill_at_call(trial, call, number, rng) == []


@pytest.mark.timeout(300)
def test_f30_kills_at_moments_of_chance_harm_no_file(lab: Lab) -> None:
    rng = random.Random(300)
    with kills.watched(lab, "f30r", 300) as trial:
        for number in range(3):
            assert kills.kill_anywhere(trial, number, rng) == []


def test_a_fail_point_that_is_not_passed_kills_nobody(lab: Lab) -> None:
    with kills.watched(lab, "unset", 1) as trial:
        lab.up(f"{FailPoint.CLAIMED}:1000:kill")
        trial.writer.renamed(b"one.dat", b"1")
        assert trial.settle() == []
        assert lab.is_alive


def test_a_name_that_is_no_fail_point_is_refused(lab: Lab) -> None:
    lab.down()
    lab.launch("nowhere:kill")
    assert lab.await_death() not in (0, -signal.SIGKILL)
