"""The jobs that files of a DAQ ask for: each once, whatever dies in between, and their inputs are held."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from beamkeeper.db.base import new_uid
from beamkeeper.db.job_requests import SUBMITTED, WAITING, JobRequestRow, Wanted
from beamkeeper.db.journal import Seen
from beamkeeper.domain.acquisition import Acquisition, JournalState, NewDaq, NewPut, State
from beamkeeper.domain.datasets import NewDataset
from beamkeeper.domain.errors import InvalidError, NotPermittedError
from beamkeeper.domain.experiments import NewExperiment
from beamkeeper.domain.files import FileKind, SourceIdentity
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.processing import Job, NewJob
from beamkeeper.domain.runs import NewRunRule, RunStop
from beamkeeper.domain.status import Service
from beamkeeper.domain.workflows import checked_definition
from beamkeeper.domain.workflows.plans import JobPlan
from beamkeeper.engine.scene import Scene
from beamkeeper.engine.submit import JobEndsLoop, SubmitLoop
from beamkeeper.testing.catalogue import new_file
from beamkeeper.testing.services import Running, running

NUMBERS = count(1)
DEFINITION: dict[str, Any] = {
    "name": "average",
    "arguments": {"bins": {"type": "int", "default": 10}},
    "stages": {"1": {"command": "average --bins $bins $filePath"}},
}


@pytest.fixture(scope="module")
def beamline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(
        Service.ACQUISITION, Service.PROCESSING, Service.CATALOG, directory=tmp_path_factory.mktemp("site")
    ) as made:
        made.client.workflows.add(checked_definition(DEFINITION))
        yield made


class Daq:
    """A DAQ whose files ask for jobs."""

    def __init__(self, beamline: Running, directory: Path, **plan: Any) -> None:
        self.beamline = beamline
        self.database: Any = beamline.contexts[Service.ACQUISITION].database
        self.told: list[str] = []
        client, station = beamline.client, beamline.settings.station.name
        experiment = client.experiments.create(NewExperiment(name=f"e{next(NUMBERS)}", station=station))
        plan = {"workflow": "average", **plan}
        directory.mkdir()
        new = NewDaq(
            experiment_uid=experiment.uid, workflow=JobPlan(**plan), **path_fields(bytes(directory).lstrip(b"/"))
        )
        self.made: Acquisition = client.daqs.start(new)

    def step(self) -> None:
        """Take one step, as a process that has just started does."""
        service = self.beamline.as_service()
        service.credentials.mirror = self.beamline.client.credentials.mirror
        loop = SubmitLoop(self.database, service, report=self.told.append)
        loop.step()
        loop.ended()
        JobEndsLoop(self.database, service, report=self.told.append).step()

    def settle(self) -> None:
        """Let the same process look at runs and datasets twice, with the time between that it waits."""
        loop = SubmitLoop(self.database, self.beamline.as_service(), report=self.told.append, look_s=0.05)
        loop.step()
        time.sleep(0.05)
        loop.step()
        loop.ended()

    def catalogue(self, *names: str) -> list[UUID]:
        """Do what the step to available does, and the catalogue before it."""
        new = [new_file(f"data/{name}", experiment_uid=self.made.experiment_uid) for name in names]
        done = self.beamline.as_service().files.register(new)
        self.deliver(*names)
        return [answer.file_uid for answer in done.files if answer.file_uid is not None]

    def deliver(self, *names: str, number: int = 1) -> None:
        """Do what the step to available does."""
        top = bytes(self.made.relpath)
        is_first = number == 1 or (self.made.workflow is not None and self.made.workflow.again)
        files = [Wanted(new_uid(), f"data/{name}".encode(), top + f"/{name}".encode(), is_first) for name in names]
        with self.database.write() as tx:
            tx.job_requests.add(self.made.uid, files)

    def finish(self, *names: str, is_snapshot: bool = False) -> None:
        """Do what the watch does when files are finished at the source."""
        seen = [
            Seen(
                name.encode(),
                JournalState.READY,
                FileKind.FILE,
                SourceIdentity(dev=1, ino=next(NUMBERS), size=1, mtime_ns=1, ctime_ns=1),
                finished_at=datetime.now(UTC),
                is_snapshot=is_snapshot,
            )
            for name in names
        ]
        with self.database.write() as tx:
            tx.journal.see(self.made.uid, seen)

    def make_available(self, number: int = 1) -> None:
        """Do what a worker does: take what is ready, and bring it to available in one step with its jobs."""
        with self.database.write() as tx:
            batch = tx.journal.claim(new_uid(), files=10, size=10**9)
            while batch.acquisition_uid != self.made.uid:  # what other tests have left
                batch = tx.journal.claim(new_uid(), files=10, size=10**9)
            scene = Scene.of(tx, batch.acquisition_uid)
            tx.journal.step(
                batch, JournalState.AVAILABLE, {f.id: {"available_at": tx.now} for f in batch.files}, free=True
            )
            tx.job_requests.add(self.made.uid, scene.wanted(replace(file, number=number) for file in batch.files))

    def clock_on(self) -> None:
        """Let what waits be due."""
        with self.database.read() as tx:
            mine = JobRequestRow.acquisition_uid == self.made.uid
            uids = [uid for uid in tx.session.scalars(select(JobRequestRow.job_uid).where(mine)) if uid is not None]
        with self.database.write() as tx:
            tx.job_requests.mark(uids, WAITING)

    def jobs(self) -> list[Job]:
        """Return the jobs of the experiment, oldest first."""
        found = self.beamline.client.jobs.list(experiment_uid=self.made.experiment_uid)
        return sorted(found, key=lambda job: job.number)

    def held(self) -> set[bytes]:
        """Return which files are held from wiping."""
        top = bytes(self.made.relpath)
        with self.database.read() as tx:
            return {path[len(top) + 1 :] for path in tx.job_requests.holding([top + b"/a", top + b"/b", top + b"/c"])}


def test_each_file_gets_one_job_with_its_stored_path_and_is_held_until_that_has_ended(
    beamline: Running, tmp_path: Path
) -> None:
    daq = Daq(beamline, tmp_path / "d", arguments={"bins": 5})
    daq.deliver("a", "b")
    daq.step()
    jobs = daq.jobs()
    assert [(job.owner, job.arguments["bins"], job.count_files) for job in jobs] == [(daq.made.started_by, 5, 1)] * 2
    paths = [beamline.client.jobs.record(job.uid).files[0] for job in jobs]
    assert [file.experiment_path for file in paths] == ["data/a", "data/b"]
    assert all(Path(file.path).is_relative_to(beamline.area) for file in paths)
    assert daq.held() == {b"a", b"b"}
    beamline.client.jobs.stop(jobs[0].uid)
    daq.step()
    assert daq.held() == {b"b"}


def test_a_crash_between_submitting_and_noting_it_doubles_nothing(beamline: Running, tmp_path: Path) -> None:
    daq = Daq(beamline, tmp_path / "d")
    daq.deliver("a", "b", "c")
    daq.step()
    before = {job.uid for job in daq.jobs()}
    with daq.database.write() as tx:
        tx.job_requests.mark(list(before), WAITING)
    daq.step()
    assert {job.uid for job in daq.jobs()} == before
    assert beamline.client.daqs.get(daq.made.uid).jobs == {SUBMITTED: 3}


@pytest.mark.parametrize("per", ["file", 2])
def test_a_job_of_one_file_is_due_with_the_step_that_makes_it_available(
    beamline: Running, tmp_path: Path, per: object
) -> None:
    daq = Daq(beamline, tmp_path / "d", per=per)
    daq.finish("a", "b")
    daq.make_available()
    with daq.database.read() as tx:
        due = [one.paths for one in tx.job_requests.due(1000) if one.acquisition_uid == daq.made.uid]
    assert due == ([[b"data/a"], [b"data/b"]] if per == "file" else [])
    daq.step()
    assert [job.count_files for job in daq.jobs()] == ([1, 1] if per == "file" else [2])


@pytest.mark.parametrize(("per", "sizes"), [(2, [2, 1]), ("end", [3])])
def test_so_many_files_share_a_job_and_the_end_takes_the_rest(
    beamline: Running, tmp_path: Path, per: object, sizes: list[int]
) -> None:
    daq = Daq(beamline, tmp_path / "d", per=per)
    daq.deliver("a", "b", "c")
    daq.step()
    assert [job.count_files for job in daq.jobs()] == sizes[:-1]
    with daq.database.write() as tx:
        tx.acquisitions.mark_ended(daq.made.uid, State.ABORTED)
    daq.step()
    assert [job.count_files for job in daq.jobs()] == sizes


@pytest.mark.parametrize(("again", "jobs"), [(False, 1), (True, 2)])
def test_a_new_version_of_a_file_gets_another_job_only_where_that_is_asked_for(
    beamline: Running, tmp_path: Path, *, again: bool, jobs: int
) -> None:
    daq = Daq(beamline, tmp_path / "d", again=again)
    daq.deliver("a")
    daq.step()
    daq.deliver("a", number=2)
    daq.step()
    assert len(daq.jobs()) == jobs


def test_at_ready_a_new_version_gets_another_job_only_where_that_is_asked_for(
    beamline: Running, tmp_path: Path
) -> None:
    for again in (False, True):
        daq = Daq(beamline, tmp_path / str(again), at="ready", again=again)
        for number in (1, 2):
            daq.finish("a")
            daq.step()
            daq.make_available(number)
            daq.step()
        assert len(daq.jobs()) == 1 + again


def names(jobs: Sequence[Job], beamline: Running) -> list[set[str]]:
    return [{file.experiment_path[5:] for file in beamline.client.jobs.record(job.uid).files} for job in jobs]


def test_a_run_that_has_stopped_makes_a_job_and_the_end_makes_one_of_each_other(
    beamline: Running, tmp_path: Path
) -> None:
    daq, client = Daq(beamline, tmp_path / "d", per="run"), beamline.client
    client.runs.add_rule(NewRunRule(experiment_uid=daq.made.experiment_uid, path="data/s{run}_*"))
    daq.catalogue("s1_a", "s2_a", "s1_b", "none", "s3_a")
    daq.finish("s1_c")  # on its way as the run stops
    first = client.runs.named(daq.made.experiment_uid, "1")
    client.runs.stop(first.uid, RunStop())
    daq.settle()
    assert daq.jobs() == []
    daq.make_available()
    daq.catalogue("s1_c")
    daq.settle()
    assert names(daq.jobs(), beamline) == [{"s1_a", "s1_b", "s1_c"}]
    assert [job.run_uid for job in daq.jobs()] == [first.uid]
    assert list(client.jobs.list(run_uid=first.uid)) == daq.jobs()
    with daq.database.write() as tx:
        tx.acquisitions.mark_ended(daq.made.uid, State.ABORTED)
    daq.step()
    assert sorted(map(sorted, names(daq.jobs()[1:], beamline))) == [["none"], ["s2_a"], ["s3_a"]]


def test_more_files_of_no_run_than_a_job_may_have_get_several(
    beamline: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beamkeeper.engine.grouping.MOST_FILES", 2)
    daq = Daq(beamline, tmp_path / "d", per="run")
    daq.catalogue("a", "b", "c")
    with daq.database.write() as tx:
        tx.acquisitions.mark_ended(daq.made.uid, State.ABORTED)
    daq.step()
    assert sorted(map(sorted, names(daq.jobs(), beamline))) == [["a", "b"], ["c"]]


def test_a_dataset_that_is_frozen_makes_a_job(beamline: Running, tmp_path: Path) -> None:
    daq, client = Daq(beamline, tmp_path / "d", per="dataset"), beamline.client
    uids = daq.catalogue("a", "b", "c")
    experiment = daq.made.experiment_uid
    made = [client.datasets.create(NewDataset(experiment_uid=experiment, name=name)) for name in ("done", "open")]
    for dataset, file_uids in zip(made, (uids[:2], uids[2:]), strict=True):
        client.datasets.add_files(dataset.uid, file_uids)
    client.datasets.freeze(made[0].uid)
    daq.settle()
    assert names(daq.jobs(), beamline) == [{"a", "b"}]
    with daq.database.write() as tx:
        tx.acquisitions.mark_ended(daq.made.uid, State.ABORTED)
    daq.step()
    assert names(daq.jobs(), beamline) == [{"a", "b"}, {"c"}]


def test_files_wait_for_a_workflow_that_is_not_there_yet(beamline: Running, tmp_path: Path) -> None:
    daq = Daq(beamline, tmp_path / "d", workflow="later")
    daq.deliver("a")
    daq.step()
    assert (daq.jobs(), daq.held()) == ([], {b"a"})
    assert 'no workflow "later"' in daq.told[0]
    beamline.client.workflows.add(checked_definition({**DEFINITION, "name": "later"}))
    daq.clock_on()
    daq.step()
    assert len(daq.jobs()) == 1


def test_what_the_service_refuses_is_said_and_holds_nothing(beamline: Running, tmp_path: Path) -> None:
    daq = Daq(beamline, tmp_path / "d", arguments={"bin": 5})
    daq.deliver("a")
    daq.step()
    assert daq.jobs() == []
    assert 'no argument "bin"' in daq.told[0]
    assert daq.held() == set()


def test_only_a_service_submits_in_the_name_of_somebody_else(beamline: Running, tmp_path: Path) -> None:
    daq = Daq(beamline, tmp_path / "d")
    with pytest.raises(NotPermittedError, match="only services"):
        beamline.client.jobs.submit(
            NewJob(workflow="average", experiment_uid=daq.made.experiment_uid, on_behalf_of="somebody")
        )


@pytest.mark.parametrize("is_seen_first", [True, False])
def test_at_ready_each_file_gets_one_job_on_its_source_and_is_held(
    beamline: Running, tmp_path: Path, is_seen_first: bool
) -> None:
    daq = Daq(beamline, tmp_path / "d", at="ready")
    daq.finish("a", "b")
    daq.finish("c", is_snapshot=True)
    if is_seen_first:
        daq.step()
        assert len(daq.jobs()) == 2
    daq.make_available()
    daq.step()
    files = [beamline.client.jobs.record(job.uid).files[0] for job in daq.jobs()]
    assert [(file.path, file.experiment_path) for file in files] == [
        (str(tmp_path / "d" / name), f"data/{name}") for name in "ab"
    ]
    assert daq.held() == {b"a", b"b"}
    beamline.client.jobs.stop(*(job.uid for job in daq.jobs()))
    daq.step()
    assert daq.held() == set()


def test_at_ready_a_file_that_changes_afterwards_gets_another_job(beamline: Running, tmp_path: Path) -> None:
    daq = Daq(beamline, tmp_path / "d", at="ready")
    for _ in range(2):
        daq.finish("a")
        daq.step()
        daq.step()
    assert len(daq.jobs()) == 2


def test_what_is_put_has_no_source_for_a_job(beamline: Running, tmp_path: Path) -> None:
    daq = Daq(beamline, tmp_path / "d")
    plan = JobPlan(workflow="average", at="ready")
    with pytest.raises(InvalidError, match="at available"):
        beamline.client.uploads.put(NewPut(experiment_uid=daq.made.experiment_uid, workflow=plan), [])


def test_a_file_whose_name_is_no_text_keeps_no_other_back(beamline: Running, tmp_path: Path) -> None:
    daq = Daq(beamline, tmp_path / "d")
    top = bytes(daq.made.relpath)
    with daq.database.write() as tx:
        tx.job_requests.add(daq.made.uid, [Wanted(new_uid(), b"data/\xff", top + b"/\xff")])
    daq.deliver("a")
    daq.step()
    assert [job.count_files for job in daq.jobs()] == [1]
    assert any("UTF-8" in told for told in daq.told)
