"""The tables of jobs, and what their rows mean."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Float, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from beamkeeper.db.base import Base, BigId, JsonDocument, NullableDocument
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.status import Service

_SERVICES = frozenset({Service.PROCESSING})


class JobDefinitionRow(Base):
    """A definition as jobs hold it: once, however many jobs run it."""

    __tablename__ = "job_definitions"
    services = _SERVICES

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    sha256: Mapped[str] = mapped_column(unique=True)
    document: Mapped[Metadata]


class JobRow(Base):
    """A job."""

    __tablename__ = "jobs"
    # The second is what claiming reads, the third what the engine reads of its own.
    __table_args__ = (
        Index(None, "experiment_uid", "id"),
        Index(None, "status", "priority", "id"),
        Index(None, "worker_uid", "status"),
        Index(None, "owner", "id"),
        Index(None, "run_uid"),
        {"sqlite_autoincrement": True},
    )
    services = _SERVICES

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    owner: Mapped[str]
    status: Mapped[str]
    workflow_uid: Mapped[UUID | None]
    workflow_name: Mapped[str]
    workflow_owner: Mapped[str]
    workflow_version: Mapped[int]
    definition_id: Mapped[int] = mapped_column(BigId, ForeignKey("job_definitions.id"))
    experiment_uid: Mapped[UUID | None]
    run_uid: Mapped[UUID | None]
    arguments: Mapped[Metadata]
    variables: Mapped[Metadata]
    warnings: Mapped[list[Any]] = mapped_column(JsonDocument)
    count_files: Mapped[int]
    priority: Mapped[int]
    stage: Mapped[str]
    completed: Mapped[int]
    failed: Mapped[int]
    message: Mapped[str]
    cause: Mapped[str | None]
    rerun_of: Mapped[UUID | None]
    submitted_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    worker_uid: Mapped[UUID | None]
    """The process of the engine that has it in hand."""


class JobFileRow(Base):
    """An input file of a job, in order."""

    __tablename__ = "job_files"
    __table_args__ = (UniqueConstraint("job_id", "number"), Index(None, "path"), Index(None, "experiment_path"))
    services = _SERVICES

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int] = mapped_column(BigId, ForeignKey("jobs.id"))
    number: Mapped[int]
    path: Mapped[str]
    experiment_path: Mapped[str]
    variables: Mapped[Metadata | None] = mapped_column(NullableDocument)


class JobStageRow(Base):
    """A stage of a job that was begun."""

    __tablename__ = "job_stages"
    __table_args__ = (UniqueConstraint("job_id", "name"),)
    services = _SERVICES

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int] = mapped_column(BigId, ForeignKey("jobs.id"))
    name: Mapped[str]
    status: Mapped[str]
    repeats: Mapped[int]
    message: Mapped[str]
    cause: Mapped[str | None]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class AttemptRow(Base):
    """One try of one command."""

    __tablename__ = "attempts"
    __table_args__ = (UniqueConstraint("job_id", "number"),)
    services = _SERVICES

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    job_id: Mapped[int] = mapped_column(BigId, ForeignKey("jobs.id"))
    number: Mapped[int]
    stage: Mapped[str]
    file: Mapped[int | None]
    repeat: Mapped[int]
    try_number: Mapped[int]
    state: Mapped[str]
    command: Mapped[str]
    working_dir: Mapped[str]
    account: Mapped[str]
    environment: Mapped[Metadata]
    host: Mapped[str]
    boot_id: Mapped[str]
    submitted_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    run_time_s: Mapped[float | None] = mapped_column(Float)
    exit_status: Mapped[int | None]
    signal: Mapped[int | None]
    cause: Mapped[str | None]
    message: Mapped[str]
    left_behind: Mapped[int]
