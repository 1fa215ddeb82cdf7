"""What a job keeps is derived from what it worked on: recorded as its files become available, from the job's record."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from uuid import UUID

from beamkeeper.client import Client
from beamkeeper.domain.acquisition import MadeBy
from beamkeeper.domain.errors import DmError, InternalError, NotAuthenticatedError, NotFoundError, UnavailableError
from beamkeeper.domain.names import RelPath
from beamkeeper.domain.processing import ChildProcess, JobRecord
from beamkeeper.domain.provenance import Making

LONGEST_COMMAND = 20_000


def record(
    client: Client,
    made_by: MadeBy,
    experiment_uid: UUID,
    versions: Mapping[RelPath, int],
    *,
    report: Callable[[str], None],
) -> None:
    """Record from what versions of files were made; saying it again changes nothing.

    UnavailableError where a service does not answer. What can never be recorded, since the job was deleted or a
    file would be made from itself, is reported: it keeps no file from being available.
    """
    try:
        job = client.jobs.record(made_by.job_uid)
    except NotFoundError:
        report(f"job {made_by.job_uid} is no more: what it kept is not linked to what it worked on")
        return
    child = next((one for one in job.child_processes if one.uid == made_by.attempt_uid), None)
    if made_by.attempt_uid is not None and child is None:
        report(f"job {job.uid} has no attempt {made_by.attempt_uid}: what it kept is linked to the whole job")
    sources = client.files.lookup(experiment_uid, _inputs(job, child))
    if not sources:
        return
    uids = [file.uid for file in sources]
    stage, making = (child.stage, _making(job, child)) if child else ("", None)
    for file in client.files.lookup(experiment_uid, versions):
        try:
            client.provenance.record(
                file.uid, uids, job=str(job.uid), stage=stage, making=making, version=versions[file.relpath]
            )
        except (UnavailableError, InternalError, NotAuthenticatedError):
            raise
        except DmError as error:
            report(f"what job {job.uid} kept is not linked to what it worked on: {error.message}")


def _inputs(job: JobRecord, child: ChildProcess | None) -> list[bytes]:
    """Return the paths in the experiment that a child process worked on: its own file, or all of the job's."""
    files = job.files if child is None or child.file is None else job.files[child.file : child.file + 1]
    return [os.fsencode(file.experiment_path) for file in files if file.experiment_path]


def _making(job: JobRecord, child: ChildProcess) -> Making:
    return Making(
        job_uid=job.uid,
        number=child.number,
        workflow=job.workflow.name,
        workflow_owner=job.workflow.owner,
        workflow_version=job.workflow.version,
        command=child.command[:LONGEST_COMMAND],
        environment=dict(child.environment),
        host=child.host,
        account=child.account,
    )
