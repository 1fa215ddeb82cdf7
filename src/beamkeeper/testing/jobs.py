"""A processing service's database with the loops that run its jobs, for tests of the engine."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

from beamkeeper.db import Database, ProcessingTransaction, schema
from beamkeeper.db.base import new_uid
from beamkeeper.db.processing.queries import Submission
from beamkeeper.domain.processing import InputFileName, Job, JobRecord
from beamkeeper.domain.status import Service
from beamkeeper.domain.workflows import checked_arguments, checked_definition
from beamkeeper.engine.jobs.hold import JobsHeld
from beamkeeper.engine.jobs.loop import JobsLoop, Settings
from beamkeeper.engine.jobs.orders import RunRules, attempt_directory
from beamkeeper.engine.reap import ReapLoop

PATIENCE_S = 60.0


def rules(work: Path, **changed: Any) -> RunRules:
    """Return how commands run in a test."""
    plain = RunRules(
        work=work,
        path=os.environ["PATH"],
        grace_s=1.0,
        timeout_s=0,
        memory_bytes=0,
        processes=500,
        file_bytes=0,
        head_bytes=100_000,
        tail_bytes=100_000,
        accounts=(getpass.getuser(),),
    )
    return replace(plain, **changed)


class Shop:
    """Jobs with their engine; `crash` and `start` as often as a test likes."""

    def __init__(self, url: str, work: Path, *, slots: int = 8, limits: Mapping[str, int] | None = None) -> None:
        self.database: Database[ProcessingTransaction] = Database(url, ProcessingTransaction)
        self.rules = rules(work)
        self.settings = Settings("TEST", slots, limits or {})
        self.faults: list[str] = []
        self._loops: list[Any] = []

    def start(self) -> None:
        """Start the loops, as a new process would."""
        owner = new_uid()
        loop = JobsLoop(self.database, owner, self.rules, self.settings, report=self.faults.append)
        held = JobsHeld(owner, loop.take_up)
        reaper = ReapLoop(self.database, owner, lease_s=5, report=self.faults.append, held=held)
        reaper.register()
        self._loops = [loop, reaper]
        for each in self._loops:
            each.start()

    def stop(self) -> None:
        """Stop the loops; commands go on."""
        for each in self._loops:
            each.stop()
        for each in self._loops:
            each.join(20)
        self._loops = []

    def submit(
        self,
        stages: Mapping[str, Any],
        files: Sequence[Path] = (),
        count: int = 1,
        arguments: Mapping[str, Any] | None = None,
        **job: Any,
    ) -> list[UUID]:
        """Submit jobs of a definition."""
        top: dict[str, Any] = {"name": "test", "stages": {name: _stage(stage) for name, stage in stages.items()}}
        top |= job.pop("definition", {})
        definition = checked_definition(top)
        values = checked_arguments(definition, arguments or {}).values
        named = [InputFileName(path=str(path), experiment_path=path.name) for path in files]
        plain: dict[str, Any] = {
            "owner": "ada",
            "workflow_uid": None,
            "workflow_name": definition.name,
            "workflow_owner": "ada",
            "workflow_version": 1,
            "experiment_uid": None,
            "run_uid": None,
            "arguments": dict(arguments or {}),
            "variables": dict(values),
            "warnings": [],
            "priority": 0,
            "rerun_of": None,
        }
        document = definition.model_dump(mode="json")
        made = [Submission({**plain, **job}, document, named) for _ in range(count)]
        with self.database.write() as tx:
            tx.jobs.add(made)
        self.database.tell()
        return [one.uid for one in made]

    def run(self, stages: Mapping[str, Any], files: Sequence[Path] = (), **job: Any) -> JobRecord:
        """Submit one job, and return it when it has ended."""
        return self.ended(self.submit(stages, files, **job))[0]

    def ended(self, uids: Sequence[UUID], timeout_s: float = PATIENCE_S) -> list[JobRecord]:
        """Return jobs when all of them have ended."""
        self.until(lambda: all(job.has_ended for job in self.jobs(uids)), "the jobs' end", timeout_s)
        with self.database.read() as tx:
            return [tx.jobs.record(uid) for uid in uids]

    def jobs(self, uids: Sequence[UUID]) -> list[Job]:
        """Return jobs as they stand."""
        with self.database.read() as tx:
            found = tx.jobs.find(uids)
        return [found[uid] for uid in uids]

    def record(self, uid: UUID) -> JobRecord:
        """Return a job as it stands."""
        with self.database.read() as tx:
            return tx.jobs.record(uid)

    def halt(self, uids: Sequence[UUID]) -> None:
        """Ask for the end of jobs."""
        with self.database.write() as tx:
            tx.jobs.stop(uids, "stopped by ada")
        self.database.tell()

    def output(self, uid: UUID, number: int = 1, stream: str = "stdout") -> bytes:
        """Return what a child process wrote, as far as it is kept in its head."""
        path = attempt_directory(self.rules.work, uid, number) / stream
        return path.read_bytes() if path.exists() else b""

    def until(self, is_so: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait for something, looking again as soon as there is news."""
        deadline = time.monotonic() + timeout_s
        while not is_so():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {timeout_s:g} s; faults: {self.faults}")
            time.sleep(0.01)


def _stage(stage: Any) -> Any:
    return {"command": stage} if isinstance(stage, str) else stage


@contextmanager
def shop(url: str, work: Path, **options: Any) -> Iterator[Shop]:
    """Give a shop whose loops run, on an empty database."""
    made = Shop(url, work, **options)
    with closing(made.database):
        schema.create(made.database, Service.PROCESSING)
        made.start()
        try:
            yield made
        finally:
            made.stop()


def alive(words: str) -> list[int]:
    """Return the processes with these words in their command line."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                line = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ")
            except OSError:
                continue
            if words.encode() in line:
                found.append(int(name))
    return found
