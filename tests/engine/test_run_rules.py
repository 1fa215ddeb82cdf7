"""Rules of runs reach the files that are there, in steps that any process may go on with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from beamkeeper.domain.datasets import MemberQuery
from beamkeeper.domain.runs import NewRunRule
from beamkeeper.engine.runs import RunRulesLoop
from beamkeeper.testing.catalogue import Catalogue, new_file


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    with closing(Catalogue(f"sqlite:///{tmp_path / 'catalog.db'}")) as made:
        yield made


def test_another_process_goes_on_where_one_ended_and_the_loop_ends_it(catalogue: Catalogue) -> None:
    uid, faults = catalogue.experiment().uid, list[str]()
    with catalogue.database.write() as tx:
        tx.files.register([new_file(f"data/1_{i}", experiment_uid=uid) for i in range(7)], by="service")
        tx.run_rules.add(NewRunRule(experiment_uid=uid, path="data/{run}_*"), by="ada")

    def files() -> int:
        with catalogue.database.read() as tx:
            run = tx.runs.find(uid, "1")
            return len(tx.runs.files(run.uid, MemberQuery()).items) if run else 0

    for done in (2, 4):
        assert RunRulesLoop(catalogue.database, report=faults.append, batch=2).step()
        assert files() == done
    loop = RunRulesLoop(catalogue.database, report=faults.append, batch=2)
    loop.start()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with catalogue.database.read() as tx:
            if not tx.run_rules.is_waiting():
                break
        time.sleep(0.01)
    loop.stop()
    loop.join()
    assert (files(), faults) == (7, [])
