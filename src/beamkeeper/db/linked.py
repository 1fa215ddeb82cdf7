"""What files belong to and what they were made from: the tables of datasets, runs and provenance."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from beamkeeper.db.base import Base, BigId, NullableDocument
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.status import Service


class DatasetRow(Base):
    """A dataset."""

    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("experiment_uid", "name"),)
    services = frozenset({Service.CATALOG})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    experiment_uid: Mapped[UUID]
    name: Mapped[str]
    title: Mapped[str]
    owner: Mapped[str]
    state: Mapped[str]
    query: Mapped[str | None]
    free: Mapped[Metadata] = mapped_column("metadata")
    created_at: Mapped[datetime]
    frozen_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    """At the site: since when its station's catalogue lacks it."""


class DatasetFileRow(Base):
    """A file that a dataset lists; with the version, where the dataset is frozen."""

    __tablename__ = "dataset_files"
    __table_args__ = (Index(None, "file_id"),)
    services = frozenset({Service.CATALOG})

    dataset_id: Mapped[int] = mapped_column(BigId, ForeignKey("datasets.id"), primary_key=True)
    file_id: Mapped[int] = mapped_column(BigId, ForeignKey("files.id"), primary_key=True)
    version_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("versions.id"))
    added_at: Mapped[datetime]
    added_by: Mapped[str]


class RunRow(Base):
    """A run."""

    __tablename__ = "runs"
    __table_args__ = (UniqueConstraint("experiment_uid", "name"),)
    services = frozenset({Service.CATALOG})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    experiment_uid: Mapped[UUID]
    name: Mapped[str]
    state: Mapped[str]
    started_at: Mapped[datetime | None]
    stopped_at: Mapped[datetime | None]
    free: Mapped[Metadata] = mapped_column("metadata")
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    deleted_at: Mapped[datetime | None]
    """A row that has been there stays for those who follow; the same name brings it back."""


class RunFileRow(Base):
    """A file of a run; without a rule where somebody said so."""

    __tablename__ = "run_files"
    __table_args__ = (Index(None, "file_id"), Index(None, "rule_id", "file_id"))
    services = frozenset({Service.CATALOG})

    run_id: Mapped[int] = mapped_column(BigId, ForeignKey("runs.id"), primary_key=True)
    file_id: Mapped[int] = mapped_column(BigId, ForeignKey("files.id"), primary_key=True)
    rule_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("run_rules.id"))


class DerivationRow(Base):
    """A version was made from another."""

    __tablename__ = "derivations"
    __table_args__ = (UniqueConstraint("derived_id", "source_id"), Index(None, "source_id"))
    services = frozenset({Service.CATALOG})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    derived_id: Mapped[int] = mapped_column(BigId, ForeignKey("versions.id"))
    source_id: Mapped[int] = mapped_column(BigId, ForeignKey("versions.id"))
    job: Mapped[str]
    stage: Mapped[str]
    making: Mapped[Metadata | None] = mapped_column(NullableDocument)
    recorded_at: Mapped[datetime]
    recorded_by: Mapped[str]
