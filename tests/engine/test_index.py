"""The indexer runs by itself, and goes on after a fault."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from beamkeeper.db.search import Search
from beamkeeper.engine.index import IndexLoop
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
