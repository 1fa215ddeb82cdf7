"""Nobody but the job itself waits for its token: a storage service that hangs keeps no other job, and no stop, back."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from beamkeeper.client import Client
from beamkeeper.db import schema
from beamkeeper.db.base import new_uid
from beamkeeper.domain.processing import JobStatus
from beamkeeper.domain.status import Service
from beamkeeper.engine.jobs.loop import JobsLoop
from beamkeeper.engine.jobs.sessions import JobSessions
from beamkeeper.engine.jobs.starting import StartLoop
from beamkeeper.testing.jobs import Shop


@pytest.fixture
def hanging() -> Iterator[str]:
    """The address of a storage service that takes connections and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def jobs(tmp_path: Path, hanging: str) -> Iterator[Shop]:
    made = Shop(f"sqlite:///{tmp_path / 'processing.db'}", tmp_path / "work")
    report = made.faults.append
    with closing(made.database), Client(hanging, token="none", timeout_s=4, tries=1) as client:
        schema.create(made.database, Service.PROCESSING)
        sessions = JobSessions(client, {}, report=report)
        starting = StartLoop(made.database, sessions, report=report)
        loop = JobsLoop(
            made.database, new_uid(), made.rules, made.settings, report=report, sessions=sessions, starting=starting
        )
        for each in (loop, starting):
            each.start()
        yield made
        for each in (loop, starting):
            each.stop()
        for each in (loop, starting):
            each.join(20)


def spawners() -> set[int]:
    """Return the spawners of this process."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"beamkeeper.engine.jobs.spawner" in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
    return found


def test_a_spawner_is_begun_while_a_job_waits_for_its_token(jobs: Shop) -> None:
    before = spawners()
    (waits,) = jobs.submit({"1": "true"}, experiment_uid=new_uid())
    jobs.until(lambda: bool(spawners() - before), "a spawner")
    assert all(one.started_at is None for one in jobs.record(waits).child_processes)


def test_a_job_that_waits_for_its_token_keeps_nothing_else_back(jobs: Shop, tmp_path: Path) -> None:
    command = f"touch {tmp_path}/ran"
    stopped, waits = jobs.submit({"1": command}, experiment_uid=new_uid(), count=2)
    jobs.until(lambda: all(job.status is JobStatus.RUNNING for job in jobs.jobs([stopped, waits])), "their claim")
    assert jobs.run({"1": "true"}).status is JobStatus.DONE
    jobs.halt([stopped])
    assert jobs.ended([stopped])[0].status is JobStatus.ABORTED
    assert jobs.jobs([waits])[0].status is JobStatus.RUNNING
    assert not (tmp_path / "ran").exists()
    assert jobs.ended([waits])[0].status is JobStatus.DONE  # without a token, since none can be had
    assert any("without a token" in fault for fault in jobs.faults)
