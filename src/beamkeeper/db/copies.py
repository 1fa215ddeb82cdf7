"""Copies from one storage area to another, and removals: batches of versions, with what became of each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import Index, UniqueConstraint, delete, func, literal, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, UtcMicroseconds, is_due
from beamkeeper.domain.replicas import Copy, CopyItem, NewCopy, NewCopyItem
from beamkeeper.domain.status import Service
from beamkeeper.domain.storage import TaskState

KEPT = timedelta(hours=24)
"""So long what became of a copy can be asked for; whoever asks later has it done again, which finds it done."""

SWEPT = 100


class CopyRow(Base):
    """A batch to be copied to a storage area, or, without a source, to be removed from it."""

    __tablename__ = "copies"
    __table_args__ = (
        UniqueConstraint("uid"),
        Index(None, "state", "storage_area_uid", "next_at"),
        Index(None, "ended_at"),
    )
    services = frozenset({Service.STORAGE})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID]
    experiment_uid: Mapped[UUID]
    storage_area_uid: Mapped[UUID]
    source_area_uid: Mapped[UUID | None]
    state: Mapped[str]
    trouble: Mapped[str]
    message: Mapped[str]
    failed_at: Mapped[datetime | None]
    """When the area began to fail for it."""
    attempts: Mapped[int]
    next_at: Mapped[datetime]
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    files: Mapped[int]
    asked: Mapped[str]
    """The versions, as JSON."""
    answers: Mapped[str | None]


class CopyPlaceRow(Base):
    """The directory of an experiment was made in a further storage area: where it is not there, nothing is mounted."""

    __tablename__ = "copy_places"
    services = frozenset({Service.STORAGE})

    storage_area_uid: Mapped[UUID] = mapped_column(primary_key=True)
    experiment_uid: Mapped[UUID] = mapped_column(primary_key=True)
    made_at: Mapped[datetime]


_ASKED = TypeAdapter(tuple[NewCopyItem, ...])
_ANSWERS = TypeAdapter(tuple[CopyItem, ...])


@dataclass(frozen=True, slots=True)
class CopyWork:
    """A batch as the engine has it in hand."""

    id: int
    uid: UUID
    experiment_uid: UUID
    storage_area_uid: UUID
    source_area_uid: UUID | None
    attempts: int
    items: Sequence[NewCopyItem]


@dataclass(frozen=True, slots=True)
class FailingCopy:
    """A storage area that takes no copies at present, and why."""

    storage_area_uid: UUID
    trouble: str
    message: str
    since: datetime
    files: int


class Copies:
    """Queries on copies."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def add(self, new: NewCopy) -> None:
        """Keep a new batch."""
        self._session.add(
            CopyRow(
                uid=new.uid,
                experiment_uid=new.experiment_uid,
                storage_area_uid=new.storage_area_uid,
                source_area_uid=new.source_area_uid,
                state=TaskState.PENDING,
                trouble="",
                message="",
                attempts=0,
                next_at=self._now,
                created_at=self._now,
                files=len(new.items),
                asked=_ASKED.dump_json(new.items).decode(),
            )
        )
        self._session.flush()  # whoever asked is answered from the row

    def get(self, uid: UUID) -> Copy | None:
        """Return a batch, and once it is done what became of its versions."""
        row = self._session.scalars(select(CopyRow).where(CopyRow.uid == uid)).one_or_none()
        if row is None:
            return None
        return Copy(
            uid=row.uid,
            experiment_uid=row.experiment_uid,
            state=TaskState(row.state),
            trouble=row.trouble,
            message=row.message,
            created_at=row.created_at,
            ended_at=row.ended_at,
            items=_ANSWERS.validate_json(row.answers) if row.answers else (),
        )

    def areas(self) -> Collection[UUID]:
        """Return the storage areas for which a batch is due."""
        wanted = select(CopyRow.storage_area_uid).where(
            CopyRow.state == TaskState.PENDING, is_due(CopyRow.next_at, self._now)
        )
        return set(self._session.scalars(wanted.distinct()))

    def pending(self, area_uid: UUID) -> CopyWork | None:
        """Return the batch for a storage area that has waited longest and is due."""
        row = self._session.scalars(
            select(CopyRow)
            .where(
                CopyRow.state == TaskState.PENDING,
                CopyRow.storage_area_uid == area_uid,
                is_due(CopyRow.next_at, self._now),
            )
            .order_by(CopyRow.next_at, CopyRow.id)
            .limit(1)
        ).one_or_none()
        if row is None:
            return None
        items = _ASKED.validate_json(row.asked)
        return CopyWork(
            row.id, row.uid, row.experiment_uid, row.storage_area_uid, row.source_area_uid, row.attempts, items
        )

    def settle(self, work: CopyWork, items: Sequence[CopyItem]) -> None:
        """Record that a batch is done, and what became of its versions."""
        values = {"state": TaskState.DONE, "ended_at": self._now, "trouble": "", "message": ""}
        self._set(work, **values, answers=_ANSWERS.dump_json(tuple(items)).decode())

    def pause(self, work: CopyWork, trouble: str, message: str, *, until: datetime) -> None:
        """Go on with a batch later, and say why: the storage area fails as a whole."""
        values = {"attempts": work.attempts + 1, "next_at": until, "trouble": trouble, "message": message[:2000]}
        self._set(work, **values, failed_at=func.coalesce(CopyRow.failed_at, literal(self._now, UtcMicroseconds())))

    def end_older(self, work: CopyWork) -> None:
        """End what was asked for this experiment and area before: nobody waits for it who asks for something else."""
        mine = (CopyRow.experiment_uid == work.experiment_uid, CopyRow.storage_area_uid == work.storage_area_uid)
        older = update(CopyRow).where(*mine, CopyRow.state == TaskState.PENDING, CopyRow.id < work.id)
        self._session.execute(older.values(state=TaskState.DONE, ended_at=self._now))

    def is_made(self, work: CopyWork) -> bool:
        """Whether the experiment's directory was made in the storage area before."""
        return self._session.get(CopyPlaceRow, (work.storage_area_uid, work.experiment_uid)) is not None

    def mark_made(self, work: CopyWork) -> None:
        """Remember that the experiment's directory is in the storage area."""
        if not self.is_made(work):
            place = {"storage_area_uid": work.storage_area_uid, "experiment_uid": work.experiment_uid}
            self._session.add(CopyPlaceRow(**place, made_at=self._now))

    def failing(self) -> Sequence[FailingCopy]:
        """Return the storage areas for which copies wait because they fail, by area."""
        wanted = (
            select(CopyRow)
            .where(CopyRow.state == TaskState.PENDING, CopyRow.attempts > 0)
            .order_by(CopyRow.storage_area_uid, CopyRow.id)
        )
        found: dict[UUID, FailingCopy] = {}
        for row in self._session.scalars(wanted.limit(SWEPT)):
            before = found.get(row.storage_area_uid)
            found[row.storage_area_uid] = FailingCopy(
                row.storage_area_uid,
                row.trouble,
                row.message,
                before.since if before else row.failed_at or row.created_at,
                row.files + (before.files if before else 0),
            )
        return list(found.values())

    def sweep(self) -> bool:
        """Forget some that were done long ago, and tell whether there may be more."""
        ids = self._session.scalars(select(CopyRow.id).where(CopyRow.ended_at < self._now - KEPT).limit(SWEPT)).all()
        self._session.execute(delete(CopyRow).where(CopyRow.id.in_(ids)))
        return len(ids) == SWEPT

    def queue(self) -> Mapping[str, int]:
        """Return how many batches wait."""
        wanted = select(func.count()).where(CopyRow.state == TaskState.PENDING)
        count = self._session.execute(wanted).scalar_one()
        return {"copies": count} if count else {}

    def _set(self, work: CopyWork, **values: object) -> None:
        mine = update(CopyRow).where(CopyRow.id == work.id, CopyRow.state == TaskState.PENDING)
        self._session.execute(mine.values(**values))
