"""What waits for somebody to come back is given once, and not for ever."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from beamkeeper.domain.errors import TooManyAttemptsError
from beamkeeper.portal import once
from beamkeeper.portal.once import Waiting


def test_of_many_who_come_at_once_one_gets_it() -> None:
    waiting = Waiting[str]()
    name = waiting.keep("the way in", "here")
    assert waiting.see(name) == "the way in"
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(waiting.take, [name] * 50))
    assert sorted(found, key=str) == [None] * 49 + ["the way in"]
    assert waiting.see(name) is None


def test_what_waited_for_too_long_is_given_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "WAITS_S", 0)
    waiting = Waiting[str]()
    name = waiting.keep("old", "here")
    assert waiting.see(name) is None
    assert waiting.take(name) is None


def test_no_more_wait_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "MOST_WAITING", 5)
    waiting = Waiting[int]()

    def keep(number: int) -> bool:
        try:
            return bool(waiting.keep(number, str(number)))
        except TooManyAttemptsError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(keep, range(50))) == 5


def test_one_source_keeps_only_itself_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "MOST_OF_ONE", 3)
    waiting = Waiting[int]()
    names = [waiting.keep(number, "a flood") for number in range(3)]
    for refuse in (lambda: waiting.keep(3, "a flood"), lambda: waiting.check_room("a flood")):
        with pytest.raises(TooManyAttemptsError, match="from here"):
            refuse()
    assert waiting.take(waiting.keep(4, "somebody else")) == 4
    assert waiting.take(names[0]) == 0
    waiting.check_room("a flood")
