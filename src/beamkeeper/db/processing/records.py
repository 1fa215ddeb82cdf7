"""Rows of jobs as domain models."""

from __future__ import annotations

from beamkeeper.db.processing.tables import AttemptRow, JobFileRow, JobRow, JobStageRow
from beamkeeper.domain.processing import (
    AttemptState,
    Cause,
    ChildProcess,
    InputFileName,
    Job,
    JobStatus,
    StageOfJob,
    StageStatus,
    WorkflowOfJob,
)


def to_job(row: JobRow) -> Job:
    """Return a job."""
    return Job.model_construct(
        uid=row.uid,
        number=row.id,
        owner=row.owner,
        status=JobStatus(row.status),
        workflow=WorkflowOfJob.model_construct(
            uid=row.workflow_uid, name=row.workflow_name, owner=row.workflow_owner, version=row.workflow_version
        ),
        experiment_uid=row.experiment_uid,
        run_uid=row.run_uid,
        arguments=row.arguments,
        variables={key: str(value) for key, value in row.variables.items()},
        count_files=row.count_files,
        priority=row.priority,
        stage=row.stage,
        submitted_at=row.submitted_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        completed=row.completed,
        failed=row.failed,
        message=row.message,
        cause=None if row.cause is None else Cause(row.cause),
        warnings=tuple(row.warnings),
        rerun_of=row.rerun_of,
    )


def to_file(row: JobFileRow) -> InputFileName:
    """Return an input file."""
    return InputFileName.model_construct(path=row.path, experiment_path=row.experiment_path)


def to_stage(row: JobStageRow) -> StageOfJob:
    """Return a stage."""
    return StageOfJob(
        name=row.name,
        status=StageStatus(row.status),
        repeats=row.repeats,
        message=row.message,
        cause=None if row.cause is None else Cause(row.cause),
        started_at=row.started_at,
        ended_at=row.ended_at,
    )


def to_attempt(row: AttemptRow) -> ChildProcess:
    """Return a child process; what it wrote is in its files."""
    return ChildProcess(
        uid=row.uid,
        number=row.number,
        stage=row.stage,
        file=row.file,
        repeat=row.repeat,
        try_number=row.try_number,
        state=AttemptState(row.state),
        command=row.command,
        working_dir=row.working_dir,
        account=row.account,
        environment={key: str(value) for key, value in row.environment.items()},
        host=row.host,
        submitted_at=row.submitted_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        run_time_s=row.run_time_s,
        exit_status=row.exit_status,
        signal=row.signal,
        cause=None if row.cause is None else Cause(row.cause),
        message=row.message,
        left_behind=row.left_behind,
    )
