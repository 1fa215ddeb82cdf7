"""A station for all workflows of the library, and what a person does there: install, run, look at the result."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from beamkeeper.client import Client
from beamkeeper.domain.acquisition import Acquisition, NewDaq, NewPut
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import File
from beamkeeper.domain.names import RelPath, path_fields
from beamkeeper.domain.processing import Job, JobStatus, NewJob
from beamkeeper.domain.workflows.plans import JobPlan
from beamkeeper.engine.jobs.orders import FILES, job_directory
from beamkeeper.testing.station import Station, until


@dataclass
class Beamline:
    """A station with an experiment, and what a person at a beamline does with the library."""

    station: Station
    client: Client
    experiment: Experiment

    def dm(self, *words: str, status: int = 0) -> str:
        """Run a command as somebody does who is logged in, and return what it says."""
        login = {
            "BEAMKEEPER_URL": self.client.url,
            "BEAMKEEPER_TOKEN": self.client.credentials.token or "",
            "BEAMKEEPER_EXPERIMENT": self.experiment.name,
        }
        done = subprocess.run(
            [sys.executable, "-c", "from beamkeeper.cli.app import main; main()", *words],
            env={**os.environ, **login},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    def keep(self, *files: Path) -> list[File]:
        """Send files, and return them when they are available."""
        names = [(RelPath(path.name), path) for path in files]
        put = self.client.uploads.put(NewPut(experiment_uid=self.experiment.uid), names)
        until(lambda: self.client.uploads.get(put.uid).ended_at, "the upload's end")
        return [self.file(f"data/{path.name}") for path in files]

    def file(self, path: str) -> File:
        """Return a file by its path."""
        (found,) = self.client.files.lookup(self.experiment.uid, [RelPath(path)])
        return found

    def local(self, path: str) -> Path:
        """Return where a file lies."""
        return self.station.storage / self.experiment.directory / path

    def run(self, workflow: str, *paths: str, **arguments: object) -> Job:
        """Run a workflow on files of the experiment, and return its job, which is done."""
        new = NewJob(
            workflow=workflow,
            experiment_uid=self.experiment.uid,
            paths=paths,
            arguments={name: str(value) for name, value in arguments.items()},
        )
        return self.done(self.client.jobs.submit(new))

    def watch(self, directory: Path, workflow: str, **arguments: JsonValue) -> Acquisition:
        """Start a DAQ whose files are given to a workflow, one job for each."""
        plan = JobPlan(workflow=workflow, arguments=arguments)
        where = path_fields(bytes(directory).lstrip(b"/"))
        return self.client.daqs.start(NewDaq(experiment_uid=self.experiment.uid, workflow=plan, **where))

    def started(self, workflow: str, count: int = 1) -> list[Job]:
        """Return the jobs of a workflow when there are so many, and all of them are done."""

        def all_of_them() -> list[Job] | None:
            found = list(self.client.jobs.list(workflow=workflow))
            return found if len(found) == count else None

        return [self.done(job) for job in until(all_of_them, f"{count} jobs of {workflow}")]

    def done(self, job: Job) -> Job:
        """Return a job when it has ended, and well."""
        ended = self.client.jobs.wait(job.uid, 100)
        if ended.status is not JobStatus.DONE:
            errors = [path.read_text()[-800:] for path in self.left(job).parent.rglob("stderr")]
            raise AssertionError(f"{ended.status}: {ended.message}: {errors}")
        return ended

    def left(self, job: Job) -> Path:
        """Return the directory with what a job's commands wrote."""
        return job_directory(self.station.data / "jobs", job.uid) / FILES
