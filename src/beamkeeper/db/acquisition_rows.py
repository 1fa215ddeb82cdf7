"""The table of DAQs and uploads, and its rows as the engine and people need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from beamkeeper.db.base import Base, BigId, JsonDocument, NullableDocument
from beamkeeper.domain.acquisition import Acquisition, Finished, Kind, MadeBy, State
from beamkeeper.domain.experiments import Tree
from beamkeeper.domain.files import Verify
from beamkeeper.domain.names import Metadata, path_fields
from beamkeeper.domain.status import Service
from beamkeeper.domain.workflows.plans import JobPlan


class AcquisitionRow(Base):
    """A DAQ or an upload. `path` is the real path of its directory, without the leading slash."""

    __tablename__ = "acquisitions"
    services = frozenset({Service.ACQUISITION})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID]
    kind: Mapped[str]
    state: Mapped[str]
    experiment_uid: Mapped[UUID] = mapped_column(index=True)
    experiment: Mapped[str]
    agent: Mapped[str]
    path: Mapped[bytes]
    destination: Mapped[str]
    tree: Mapped[str]
    include: Mapped[list[str]] = mapped_column(JsonDocument)
    exclude: Mapped[list[str]] = mapped_column(JsonDocument)
    with_hidden: Mapped[bool]
    with_existing: Mapped[bool]
    resend: Mapped[bool]
    finished: Mapped[str]
    quiet_s: Mapped[float | None]
    meta: Mapped[Metadata] = mapped_column("metadata")
    processors: Mapped[list[str] | None] = mapped_column(JsonDocument)
    skip_processors: Mapped[list[str]] = mapped_column(JsonDocument)
    max_run_time_s: Mapped[float | None]
    is_put: Mapped[bool]
    policy: Mapped[str]
    message: Mapped[str]
    started_by: Mapped[str]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    stop_requested_at: Mapped[datetime | None]
    stop_now: Mapped[bool]
    ended_at: Mapped[datetime | None]
    taken_over_by: Mapped[UUID | None] = mapped_column(index=True)
    taken_over_at: Mapped[datetime | None]
    existing_before: Mapped[datetime | None]
    poll: Mapped[bool]
    sentinel: Mapped[str | None]
    root: Mapped[Metadata | None]
    verify: Mapped[str]
    also: Mapped[list[str]] = mapped_column(JsonDocument)
    first: Mapped[list[str]] = mapped_column(JsonDocument)
    retries: Mapped[int]
    """How often somebody asked that files be tried again."""
    is_retry: Mapped[bool]
    """It had ended, and runs again for files that were quarantined."""
    workflow: Mapped[Metadata | None]
    made_by: Mapped[Metadata | None] = mapped_column(NullableDocument)

    __table_args__ = (UniqueConstraint("uid"), Index(None, "state"), Index(None, "created_at", "uid"))


@dataclass(frozen=True, slots=True)
class Options:
    """What a new DAQ or upload is to be, with everything decided."""

    uid: UUID | None
    kind: Kind
    agent: str
    path: bytes
    destination: str
    tree: Tree
    include: Sequence[str]
    exclude: Sequence[str]
    with_hidden: bool
    with_existing: bool
    resend: bool
    finished: Finished
    quiet_s: float | None
    metadata: Metadata
    processors: Sequence[str] | None
    skip_processors: Sequence[str]
    max_run_time_s: float | None
    is_put: bool
    started_by: str
    poll: bool = False
    sentinel: str | None = None
    verify: Verify = Verify.READ_BACK
    also: Sequence[str] = ()
    first: Sequence[str] = ()
    workflow: JobPlan | None = None
    made_by: MadeBy | None = None


@dataclass(frozen=True, slots=True)
class Control:
    """What the engine has to obey, beyond the options.

    A DAQ that ignores existing files ignores what was there before `existing_before`. What the DAQs in
    `took_over` saw before this one's `created_at` (their `taken_over_at`) stays with them.
    """

    state: State
    stop_requested: bool
    stop_now: bool
    taken_over_by: UUID | None
    taken_over_at: datetime | None
    took_over: Sequence[UUID]
    existing_before: datetime | None
    retries: int = 0
    is_retry: bool = False
    first: Sequence[str] = ()


def to_acquisition(row: AcquisitionRow) -> Acquisition:
    """Return a row as people see it."""
    return Acquisition(
        uid=row.uid,
        kind=Kind(row.kind),
        state=State(row.state),
        experiment_uid=row.experiment_uid,
        experiment=row.experiment,
        agent=row.agent,
        destination=row.destination,
        tree=Tree(row.tree),
        include=row.include,
        exclude=row.exclude,
        with_hidden=row.with_hidden,
        with_existing=row.with_existing,
        resend=row.resend,
        finished=Finished(row.finished),
        quiet_s=row.quiet_s,
        poll=row.poll,
        sentinel=row.sentinel,
        metadata=row.meta,
        processors=row.processors,
        skip_processors=row.skip_processors,
        max_run_time_s=row.max_run_time_s,
        is_put=row.is_put,
        verify=Verify(row.verify),
        also=row.also,
        first=row.first,
        workflow=None if row.workflow is None else JobPlan.model_validate(row.workflow),
        made_by=None if row.made_by is None else MadeBy.model_validate(row.made_by),
        policy=row.policy,
        message=row.message,
        started_by=row.started_by,
        created_at=row.created_at,
        started_at=row.started_at,
        stop_requested_at=row.stop_requested_at,
        ended_at=row.ended_at,
        **path_fields(row.path),
    )
