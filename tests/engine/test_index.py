"""The indexer runs by itself, and goes on after a fault."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from beamkeeper.db.search import Search
from beamkeeper.domain import units
from beamkeeper.domain.units import to_si
from beamkeeper.engine import index
from beamkeeper.engine.index import IndexLoop, Pace
from beamkeeper.testing.catalogue import Catalogue, new_file

PATIENCE_S = 30.0


def register(catalogue: Catalogue, path: str) -> None:
    new = new_file(path, experiment_uid=catalogue.experiment().uid)
    with catalogue.database.write() as tx:
        tx.files.register([new], by="test")
    catalogue.database.tell()


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_files_are_indexed_soon_after_they_change_and_after_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[str] = []
    with closing(Catalogue(f"sqlite:///{tmp_path / 'catalog.db'}")) as catalogue:

        def is_indexed() -> bool:
            with catalogue.database.read() as tx:
                return tx.search.oldest() is None

        loop = IndexLoop(catalogue.database, report=faults.append)
        loop.start()
        register(catalogue, "data/a")
        until(is_indexed)
        step = Search.step

        def fails_once(self: Search, limit: int) -> int:
            if not faults:
                raise RuntimeError("a fault")
            return step(self, limit)

        monkeypatch.setattr(Search, "step", fails_once)
        register(catalogue, "data/b")
        until(is_indexed)
        assert faults == ["index: RuntimeError: a fault"]
        loop.stop()
        loop.join(PATIENCE_S)
        with catalogue.database.read() as tx:
            assert tx.search.lag() == (0, None)


def waits(catalogue: Catalogue) -> int:
    with catalogue.database.read() as tx:
        return tx.search.lag()[0]


def waits_after(_: bool, catalogue: Catalogue) -> int:
    return waits(catalogue)


def test_while_a_call_is_worked_on_that_may_bring_more_the_index_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_busy = True
    with closing(Catalogue(f"sqlite:///{tmp_path / 'catalog.db'}")) as catalogue:
        monkeypatch.setattr(index, "QUIET_S", 0.0)
        loop = IndexLoop(catalogue.database, is_busy=lambda: is_busy, report=pytest.fail)
        register(catalogue, "data/a")
        assert loop.step()
        assert waits(catalogue) == 1
        catalogue.clock.tick(index.PATIENCE_S)
        assert loop.step()
        assert waits(catalogue) == 0
        register(catalogue, "data/b")
        assert loop.step()
        assert waits(catalogue) == 1
        is_busy = False
        until(lambda: not waits_after(loop.step(), catalogue))


def test_a_swarm_is_taken_in_first_and_indexed_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Catalogue(f"sqlite:///{tmp_path / 'catalog.db'}")) as catalogue:
        monkeypatch.setattr(index, "QUIET_S", 0.0)
        monkeypatch.setattr(Pace, "look", lambda self, *_: setattr(self, "files_s", 2 * index.SWARM_FILES_S))
        loop = IndexLoop(catalogue.database, is_busy=lambda: True, report=pytest.fail)
        register(catalogue, "data/a")
        catalogue.clock.tick(index.SWARM_PATIENCE_S - 1)
        assert loop.step()
        assert waits(catalogue) == 1
        catalogue.clock.tick(1)
        assert loop.step()
        assert waits(catalogue) == 0


def test_how_fast_files_come_is_measured_over_a_while_and_anew_after_a_rest() -> None:
    pace = Pace()
    pace.look(10.0, 5000)
    pace.look(10.0 + index.PACE_S / 2, 9000)
    assert pace.files_s == 0
    pace.look(11.0, 7000)
    assert pace.files_s == 2000
    pace.look(13.0, 9000)
    assert pace.files_s == 1000
    pace.end()
    pace.look(20.0, 50_000)
    assert pace.files_s == 0


def test_an_idle_indexer_reads_the_units_before_anybody_searches_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr(index, "read_definitions", lambda: read.append("units"))
    with closing(Catalogue(f"sqlite:///{tmp_path / 'catalog.db'}")) as catalogue:
        loop = IndexLoop(catalogue.database, report=pytest.fail)
        loop.step()
        loop.ended()
        assert not read  # it has only just started
        monkeypatch.setattr(index, "SETTLED_S", 0.0)
        loop = IndexLoop(catalogue.database, report=pytest.fail)
        register(catalogue, "data/a")
        monkeypatch.setattr(index, "QUIET_S", 0.0)
        while loop.step():
            pass
        assert not waits(catalogue)
        loop.step()
        loop.step()
        assert read == ["units"]
        loop.ended()


def test_once_the_units_are_read_nobody_waits_for_them() -> None:
    units._registry.cache_clear()
    units.read_definitions()
    assert units._registry.cache_info().currsize == 1
    units._linear.cache_clear()
    assert to_si(1.0, "keV") is not None
    assert units._registry.cache_info().misses == 1
