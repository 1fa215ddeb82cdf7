"""What the storage service is asked to look at or to clear away, each with its answer as one document."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Index, UniqueConstraint, delete, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, is_due
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.status import Service
from beamkeeper.domain.storage import TaskState

KEPT = timedelta(hours=24)
"""So long an answer can be asked for; whoever asked has taken it over long before."""


class TaskKind(StrEnum):
    """What is asked for; each kind waits in a queue of its own, so that a long read holds up no short look."""

    STAT = "stat"
    READ = "read"
    LISTING = "listing"
    DISCARD = "discard"


class StorageTaskRow(Base):
    """A question to the storage, and its answer."""

    __tablename__ = "storage_tasks"
    services = frozenset({Service.STORAGE})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID]
    kind: Mapped[str]
    experiment_uid: Mapped[UUID]
    state: Mapped[str]
    request: Mapped[Metadata]
    answer: Mapped[Metadata | None]
    message: Mapped[str] = mapped_column(default="")
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime]
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None] = mapped_column(index=True)

    __table_args__ = (UniqueConstraint("uid"), Index(None, "state", "next_at"))


@dataclass(frozen=True, slots=True)
class Task:
    """A question as it was asked, with what is known of its answer."""

    id: int
    uid: UUID
    kind: TaskKind
    experiment_uid: UUID
    state: TaskState
    request: Metadata
    answer: Metadata | None
    message: str
    attempts: int
    created_at: datetime
    ended_at: datetime | None


class StorageTasks:
    """Queries on checks and listings."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def add(self, uid: UUID, kind: TaskKind, experiment_uid: UUID, request: Metadata) -> Task:
        """Keep a question."""
        row = StorageTaskRow(
            uid=uid,
            kind=kind,
            experiment_uid=experiment_uid,
            state=TaskState.PENDING,
            request=request,
            answer=None,
            message="",
            attempts=0,
            next_at=self._now,
            created_at=self._now,
            ended_at=None,
        )
        self._session.add(row)
        self._session.flush()  # for its key, and so that the uid's constraint speaks here
        return _to_task(row)

    def get(self, uid: UUID) -> Task | None:
        """Return a question with its answer, None where there is none."""
        row = self._session.scalars(select(StorageTaskRow).where(StorageTaskRow.uid == uid)).one_or_none()
        return None if row is None else _to_task(row)

    def pending(self, kinds: Collection[TaskKind]) -> Task | None:
        """Return the question of these kinds that has waited longest and is due."""
        row = self._session.scalars(
            select(StorageTaskRow)
            .where(
                StorageTaskRow.state == TaskState.PENDING,
                is_due(StorageTaskRow.next_at, self._now),
                StorageTaskRow.kind.in_(sorted(kinds)),
            )
            .order_by(StorageTaskRow.next_at, StorageTaskRow.id)
            .limit(1)
        ).one_or_none()
        return None if row is None else _to_task(row)

    def end(self, task: Task, answer: Metadata) -> None:
        """Record the answer."""
        self._set(task, state=TaskState.DONE, answer=answer, message="", ended_at=self._now)

    def pause(self, task: Task, message: str, *, until: datetime) -> None:
        """Try again later, and say why: the place fails as a whole."""
        self._set(task, attempts=task.attempts + 1, message=message[:2000], next_at=until)

    def sweep(self) -> int:
        """Forget what was answered long ago; returns how many."""
        result = self._session.execute(delete(StorageTaskRow).where(StorageTaskRow.ended_at < self._now - KEPT))
        return int(result.rowcount)  # type: ignore[attr-defined]

    def _set(self, task: Task, **values: object) -> None:
        self._session.execute(update(StorageTaskRow).where(StorageTaskRow.id == task.id).values(**values))


def _to_task(row: StorageTaskRow) -> Task:
    return Task(
        id=row.id,
        uid=row.uid,
        kind=TaskKind(row.kind),
        experiment_uid=row.experiment_uid,
        state=TaskState(row.state),
        request=row.request,
        answer=row.answer,
        message=row.message,
        attempts=row.attempts,
        created_at=row.created_at,
        ended_at=row.ended_at,
    )
