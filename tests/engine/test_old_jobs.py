"""What old jobs wrote is removed, and nothing else: not of young ones, nor of those that run, nor what is nobody's."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from uuid import UUID, uuid4

from beamkeeper.db import Database, ProcessingTransaction, schema
from beamkeeper.domain.processing import JobStatus
from beamkeeper.domain.status import Service
from beamkeeper.engine.jobs.old import OldJobsLoop
from beamkeeper.testing.beamline import Clock
from beamkeeper.testing.jobs import Shop

DAY_S = 86400.0


def test_the_directories_of_jobs_go_that_ended_long_ago(database_url: str, tmp_path: Path) -> None:
    clock, work, faults = Clock(), tmp_path / "work", list[str]()
    clock.tick(-400 * DAY_S)
    made = Shop(database_url, work)
    made.database.close()
    made.database = Database(database_url, ProcessingTransaction, clock=clock)
    outside = tmp_path / "result"
    outside.write_text("photons")
    with closing(made.database):
        schema.create(made.database, Service.PROCESSING)
        old, young, waits = (made.submit({"1": "true"}, uid=uuid4())[0] for _ in range(3))
        strange = [work / name for name in (str(uuid4()), "notes", str(old).upper())]
        for directory in (*(work / str(uid) for uid in (old, young, waits)), *strange):
            (directory / "1").mkdir(parents=True)
        (work / str(old) / "link").symlink_to(outside)
        loop = OldJobsLoop(made.database, work, 30, report=faults.append)
        _end(made, old)
        clock.tick(20 * DAY_S)
        _end(made, young)
        clock.tick(11 * DAY_S)
        loop.step()
        assert made.record(old).status is JobStatus.ABORTED
    left = {work / str(uid) for uid in (young, waits)} | set(strange)
    assert (set(work.iterdir()), outside.read_text(), faults) == (left, "photons", [])


def _end(made: Shop, uid: UUID) -> None:
    with made.database.write() as tx:
        tx.jobs.stop([uid], "stopped by ada")
