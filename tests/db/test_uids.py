"""Uids that services make: UUIDv7 in the order of making."""

from __future__ import annotations

import time
from uuid import RFC_4122, UUID

import pytest

from beamkeeper.db.base import new_hexes, new_uid, new_uids


@pytest.mark.parametrize("count", [0, 1, 4096, 10_000])
def test_many_at_once_are_valid_and_in_the_order_of_making(count: int) -> None:
    before = time.time_ns() // 1_000_000
    made = list(new_uids(count))
    assert len(set(made)) == count
    assert made == sorted(made)
    assert all(each.version == 7 and each.variant == RFC_4122 for each in made)
    # Of more than 4,096 the later ones are of the next milliseconds.
    assert all(before <= each.int >> 80 <= time.time_ns() // 1_000_000 + count // 4096 for each in made)


def test_the_random_part_of_each_is_its_own() -> None:
    made = [UUID(text) for text in new_hexes(4096)]
    assert len({each.int & (1 << 62) - 1 for each in made}) == len(made)


def test_one_by_one_they_rise_with_time() -> None:
    first = new_uid()
    while time.time_ns() // 1_000_000 == first.int >> 80:
        pass
    assert first < new_uid()
