"""A limit for each destination: what passes in some time is counted, by a clock of the test."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from beamkeeper.builtin.copying import CopyOptions, CopyTransfer
from beamkeeper.db.base import new_uid
from beamkeeper.domain.errors import SettingsError
from beamkeeper.domain.storage import StorageArea
from beamkeeper.engine.pacing import Pacing
from beamkeeper.engine.sending import Sender
from beamkeeper.plugins import load
from beamkeeper.plugins.api import Ahead, TransferItem
from beamkeeper.testing.conformance import LocalPlace, Sources

RATE = 50_000


class Ticks:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def area(name: str) -> StorageArea:
    url = {"station_url": "file:///x", "path": "/x", "transfer": name}
    return StorageArea(uid=new_uid(), name=name, created_at=datetime.now(UTC), **url)


def rate(name: str) -> int | None:
    return RATE if name == "slow" else None


def item(sources: Sources, size: int, ahead: int = 0) -> TransferItem:
    made = sources.add(b"%d" % size, b"")
    sized = made.identity.model_copy(update={"size": size})
    return TransferItem(made.version_uid, made.source, made.path, sized, made.target, Ahead(ahead) if ahead else None)


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return Sources(tmp_path / "source")


def passed(pacing: Pacing, clock: Ticks, to: StorageArea, batch: Callable[[], TransferItem], *, seconds: int) -> int:
    """Return how many bytes begin in some time, where one asks ten times a second."""
    found = 0
    for _ in range(seconds * 10):
        if to.uid not in pacing.closed():
            one = batch()
            pacing.take(to, [one])
            found += one.identity.size
        clock.now += 0.1
    return found


def test_what_begins_keeps_to_the_average_whatever_the_size_of_batches(sources: Sources) -> None:
    clock, chance = Ticks(), random.Random(4)
    pacing, slow = Pacing(rate, clock=clock), area("slow")
    items = [item(sources, size) for size in (1, 100, 70_000, 400_000, 500_000)]
    found = passed(pacing, clock, slow, lambda: chance.choice(items), seconds=1000)
    assert 0.9 * 1000 * RATE < found <= 1000 * RATE + 500_000


def test_what_was_not_used_is_not_saved_up_and_others_are_not_held_up(sources: Sources) -> None:
    clock = Ticks()
    pacing, slow, fast = Pacing(rate, clock=clock), area("slow"), area("fast")
    one = item(sources, RATE)
    clock.now += 1000
    assert passed(pacing, clock, slow, lambda: one, seconds=10) == 10 * RATE
    assert passed(pacing, clock, fast, lambda: one, seconds=10) == 100 * RATE
    other = area("slow")  # of two areas each has its own
    assert passed(pacing, clock, other, lambda: one, seconds=10) == 10 * RATE


def test_of_a_growing_file_what_was_brought_before_does_not_count_again(sources: Sources) -> None:
    clock = Ticks()
    pacing, slow = Pacing(rate, clock=clock), area("slow")
    pacing.take(slow, [item(sources, 100 * RATE, ahead=99 * RATE)])
    assert pacing.closed() == {slow.uid}
    clock.now += 1
    assert pacing.closed() == set()


def test_a_destination_that_had_enough_is_given_nothing_for_a_while(tmp_path: Path, sources: Sources) -> None:
    clock, place = Ticks(), LocalPlace(tmp_path / "experiment")
    sender = Sender(lambda name: CopyTransfer(CopyOptions()), pacing=Pacing(rate, clock=clock))
    slow, fast = area("slow"), area("fast")
    for to in (slow, fast):
        one = sources.add(b"f", bytes(3 * RATE))
        assert sender.send(to, [one], place.url("b1"), lambda: False)[one.version_uid].error is None
    assert sender.silent() == {slow.uid}
    clock.now += 3
    assert sender.silent() == set()


def test_every_transfer_takes_the_setting_and_what_is_no_number_is_refused() -> None:
    tables: dict[str, dict[str, object]] = {
        "grid": {"plugin": "gridftp", "average_bytes_s": 10**6},
        "bad": {"plugin": "copy", "average_bytes_s": "x"},
    }
    load.transfer_of(tables, "grid")
    assert [load.average_of(tables, name) for name in ("grid", "copy")] == [10**6, None]
    with pytest.raises(SettingsError, match="average_bytes_s"):
        load.transfer_of(tables, "bad")
