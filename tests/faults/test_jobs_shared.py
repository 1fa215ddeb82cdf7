"""F43, F46 and F54 where two services share a database: a job has one worker, whatever becomes of the other."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from beamkeeper.db import Database, ProcessingTransaction, schema
from beamkeeper.db.base import new_uid
from beamkeeper.domain.processing import AttemptState, JobStatus
from beamkeeper.domain.status import Service
from beamkeeper.engine.jobs import runner, tree
from beamkeeper.engine.jobs.hold import JobsHeld
from beamkeeper.engine.jobs.local import LocalRuns, Over
from beamkeeper.engine.jobs.loop import JobsLoop
from beamkeeper.engine.processes import Process
from beamkeeper.engine.reap import ReapLoop
from beamkeeper.testing.beamline import Clock
from beamkeeper.testing.jobs import Shop, alive
from beamkeeper.testing.station import until


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Shop]:
    """Jobs whose engine is not started."""
    made = Shop(f"sqlite:///{tmp_path / 'processing.db'}", tmp_path / "work")
    with closing(made.database):
        schema.create(made.database, Service.PROCESSING)
        yield made
        made.stop()


@pytest.fixture
def local() -> Iterator[LocalRuns]:
    made = LocalRuns(lambda: None)
    yield made
    made.close()


def workers(jobs: Shop) -> dict[UUID, int]:
    with jobs.database.read() as tx:
        return {worker.uid: worker.beat for worker in tx.workers.all()}


def owners(jobs: Shop) -> Sequence[UUID]:
    with jobs.database.read() as tx:
        return tx.engine_jobs.owners()


def register(tx: ProcessingTransaction, uid: UUID, *, host: str = "") -> None:
    me = Process.this()
    tx.workers.add(uid, host=host or me.host, boot_id=me.boot_id, pid=me.pid, start_ticks=me.start_ticks)


def ran(directory: Path) -> list[str]:
    return sorted((directory / "ran").read_text().split())


def test_two_services_on_one_database_run_every_job_once(database_url: str, tmp_path: Path) -> None:
    first, second = (Shop(database_url, tmp_path / "work", slots=4) for _ in range(2))
    with closing(first.database), closing(second.database):
        schema.create(first.database, Service.PROCESSING)
        uids = first.submit({n: f"echo $id-{n} >> {tmp_path}/ran; sleep 0.02" for n in ("1", "2")}, count=30)
        for each in (first, second):
            each.start()
        try:
            done = first.ended(uids)
        finally:
            for each in (first, second):
                each.stop()
    assert {job.status for job in done} == {JobStatus.DONE}
    assert ran(tmp_path) == sorted(f"{uid}-{n}" for uid in uids for n in (1, 2))
    assert first.faults + second.faults == []


@pytest.mark.parametrize("host", ["elsewhere", ""])
def test_who_has_lost_a_job_writes_nothing_of_it_and_ends_only_what_the_other_cannot_follow(
    jobs: Shop, tmp_path: Path, host: str
) -> None:
    names = [tmp_path / "short", tmp_path / "long"]
    command = f'case "$filePath" in *short) until [ -e {tmp_path}/go ]; do sleep 0.02; done;; *) exec sleep 30057; esac'
    jobs.start()
    uid = jobs.submit({"1": {"command": command, "parallelExec": True}}, names)[0]
    jobs.until(lambda: alive("sleep 30057"), "the command")
    other = new_uid()
    with jobs.database.write() as tx:
        register(tx, other, host=host)
        tx.engine_jobs.adopt(tx.engine_jobs.owners()[0], other)
    (tmp_path / "go").touch()
    jobs.until(lambda: any("taken over" in fault for fault in jobs.faults), "the loss")
    job = jobs.record(uid)
    assert (job.status, {child.state for child in job.child_processes}) == (JobStatus.RUNNING, {AttemptState.STARTING})
    if host:
        jobs.until(lambda: not alive("sleep 30057"), "its end")
    else:
        jobs.stop()
        [left] = alive("sleep 30057")
        os.kill(left, signal.SIGKILL)
        jobs.until(lambda: not alive("sleep 30057"), "its end")


def stopped_loop(jobs: Shop, owner: UUID) -> JobsLoop:
    """Return a loop whose steps the test takes."""
    return JobsLoop(jobs.database, owner, jobs.rules, jobs.settings, report=jobs.faults.append)


def test_jobs_that_were_taken_over_survive_a_transaction_that_fails(jobs: Shop, tmp_path: Path) -> None:
    uid, before, owner = jobs.submit({"1": "true"})[0], new_uid(), new_uid()
    with jobs.database.write() as tx:
        tx.engine_jobs.claim(before, 1, {})
    with jobs.database.write() as tx:
        ids = tx.engine_jobs.adopt(before, owner)
    loop = stopped_loop(jobs, owner)
    rename = "ALTER TABLE {} RENAME TO {}"
    with closing(sqlite3.connect(tmp_path / "processing.db")) as raw:
        raw.execute(rename.format("attempts", "away"))
        loop.take_up(ids)
        with pytest.raises(Exception, match="attempts"):
            loop.step()
        raw.execute(rename.format("away", "attempts"))
    until(lambda: loop.step() or jobs.record(uid).status is JobStatus.DONE, "the job's end")
    loop.ended()


def test_what_a_dead_service_had_is_ours_before_the_loop_hears_of_it(jobs: Shop) -> None:
    jobs.submit({"1": "true"})
    gone, owner = new_uid(), new_uid()
    heard: list[tuple[Sequence[int], Sequence[UUID]]] = []
    with jobs.database.write() as tx:
        me = Process.this()
        tx.workers.add(gone, host=me.host, boot_id=me.boot_id, pid=me.pid, start_ticks=me.start_ticks + 1)
        tx.engine_jobs.claim(gone, 1, {})
    held = JobsHeld(owner, lambda ids: heard.append((list(ids), owners(jobs))))
    ReapLoop(jobs.database, owner, lease_s=5, report=jobs.faults.append, held=held).register()
    assert heard == [([1], [owner])]


def order(directory: Path, door: Sequence[str] = ()) -> dict[str, Any]:
    return {"attempt": str(new_uid()), "directory": str(directory), "door": door}


def test_an_attempt_that_counts_as_never_begun_cannot_begin_later(local: LocalRuns, tmp_path: Path) -> None:
    wanted = order(tmp_path / "job" / "1")
    local.attach(wanted, boot_id=tree.boot_id())
    assert local.take_over() == [Over(wanted["attempt"], None, has_begun=False)]
    assert not runner.take(wanted["directory"])


@pytest.mark.parametrize("names", [(), (runner.CLAIM,)])
def test_what_a_power_cut_may_have_taken_away_is_not_taken_for_what_never_began(
    local: LocalRuns, tmp_path: Path, names: Sequence[str]
) -> None:
    wanted = order(tmp_path)
    for name in names:
        (tmp_path / name).write_text(json.dumps({"pid": 1, "start_ticks": 1, "boot_id": "before", "words": ""}))
    local.attach(wanted, boot_id="before")
    assert local.take_over() == [Over(wanted["attempt"], None, has_begun=True)]


def test_what_cannot_be_ended_at_once_is_looked_at_again(local: LocalRuns, tmp_path: Path) -> None:
    door, lives = tmp_path / "door", tmp_path / "lives"
    door.write_text(f"#!/bin/sh\n! test -e {lives}\n")
    door.chmod(0o755)
    lives.touch()
    claim = {"pid": 2**22 + 1, "start_ticks": 1, "boot_id": tree.boot_id(), "words": ""}
    (tmp_path / runner.CLAIM).write_text(json.dumps(claim))
    (tmp_path / runner.STARTED).touch()
    wanted = order(tmp_path, [str(door)])
    local.attach(wanted, boot_id=tree.boot_id())
    assert local.take_over() == []
    lives.unlink()
    until(lambda: local.has_news, "its end")
    assert local.take_over() == [Over(wanted["attempt"], None)]


def test_a_directory_that_cannot_be_read_for_a_while_keeps_no_other_attempt_back(
    local: LocalRuns, tmp_path: Path
) -> None:
    (tmp_path / "1" / runner.RESULT).mkdir(parents=True)
    bad, good = order(tmp_path / "1"), order(tmp_path / "2")
    for each in (bad, good):
        local.attach(each, boot_id=tree.boot_id())
    assert [over.attempt for over in local.take_over()] == [good["attempt"]]
    (tmp_path / "1" / runner.RESULT).rmdir()
    until(lambda: local.has_news, "the other's end")
    assert [over.attempt for over in local.take_over()] == [bad["attempt"]]


def test_f54_a_clock_that_jumps_takes_no_job_from_who_has_it(tmp_path: Path) -> None:
    clock, url = Clock(), f"sqlite:///{tmp_path / 'processing.db'}"
    first, second = Shop(url, tmp_path / "work"), Shop(url, tmp_path / "work")
    for each in (first, second):
        each.database.close()
        each.database = Database(url, ProcessingTransaction, clock=clock)
    with closing(first.database), closing(second.database):
        schema.create(first.database, Service.PROCESSING)
        first.start()
        uid = first.submit({"1": f"until [ -e {tmp_path}/go ]; do sleep 0.02; done"})[0]
        first.until(lambda: owners(first), "the job's begin")
        mine = owners(first)
        second.start()
        for jump in (86400, -3 * 86400):
            clock.tick(jump)
            first.until(partial(_have_beaten, first, workers(first)), "the beats of both")
            assert owners(first) == mine
        (tmp_path / "go").touch()
        job = first.ended([uid])[0]
        for each in (first, second):
            each.stop()
    assert (job.status, len(job.child_processes), first.faults + second.faults) == (JobStatus.DONE, 1, [])


def _have_beaten(jobs: Shop, before: dict[UUID, int]) -> bool:
    now = workers(jobs)
    return len(now) == 2 and all(now[uid] >= beat + 2 for uid, beat in before.items())
