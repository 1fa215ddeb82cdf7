"""Writers of one process take turns, where a database has one writer at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from beamkeeper.domain.events import NewEvent
from beamkeeper.testing.catalogue import Catalogue


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Catalogue]:
    with closing(Catalogue(f"sqlite:///{tmp_path / 'catalog.db'}")) as catalogue:
        yield catalogue


def test_a_writer_begins_when_the_one_before_it_has_ended(made: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beamkeeper.db.base.SQLITE_BUSY_S", 60.0)
    order: list[str] = []
    begins = threading.Event()

    def second() -> None:
        begins.set()
        with made.database.write() as tx:
            order.append("second")
            tx.events.add(NewEvent(kind="test"))

    thread = threading.Thread(target=second)
    with made.database.write() as tx:
        thread.start()
        assert begins.wait(20)
        tx.events.add(NewEvent(kind="test"))
        tx.flush()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_thread_that_opens_one_more_before_it_wrote_waits_not_for_itself(
    made: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beamkeeper.db.base.SQLITE_BUSY_S", 600.0)
    with made.database.read() as tx:
        before = tx.events.cursor().number
    with made.database.write() as outer:
        with made.database.write() as inner:
            inner.events.add(NewEvent(kind="inner"))
        outer.events.add(NewEvent(kind="outer"))
    with made.database.write() as tx:
        assert tx.events.cursor().number == before + 2
