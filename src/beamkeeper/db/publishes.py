"""Publishes: batches on their way from staging to their plain names, with what became of each file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Index, Table, UniqueConstraint, bindparam, func, insert, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, is_due
from beamkeeper.db.experiments import ExperimentRow
from beamkeeper.db.many import execute_many
from beamkeeper.domain.files import ReadFrom, Verify
from beamkeeper.domain.names import Algorithm, Checksum, Metadata, path_fields
from beamkeeper.domain.status import Service
from beamkeeper.domain.storage import NewPublish, NewPublishItem, Outcome, Publish, PublishItem, PublishState, Replaced


class PublishRow(Base):
    """A batch."""

    __tablename__ = "publishes"
    services = frozenset({Service.STORAGE})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID]
    experiment_uid: Mapped[UUID] = mapped_column(index=True)
    state: Mapped[str]
    verify: Mapped[str]
    trouble: Mapped[str] = mapped_column(default="")
    message: Mapped[str] = mapped_column(default="")
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]

    __table_args__ = (UniqueConstraint("uid"), Index(None, "state", "next_at"))


class PublishItemRow(Base):
    """One file of a batch."""

    __tablename__ = "publish_items"
    services = frozenset({Service.STORAGE})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    publish_id: Mapped[int] = mapped_column(BigId, index=True)
    path: Mapped[bytes]
    version_uid: Mapped[UUID]
    request: Mapped[Metadata]
    outcome: Mapped[str]
    message: Mapped[str] = mapped_column(default="")
    read_from: Mapped[str | None]
    stored_at: Mapped[datetime | None]


_ITEMS = cast(Table, PublishItemRow.__table__)
_ANSWER = (
    PublishItemRow.path,
    PublishItemRow.version_uid,
    PublishItemRow.outcome,
    PublishItemRow.message,
    PublishItemRow.read_from,
    PublishItemRow.stored_at,
)


@dataclass(frozen=True, slots=True)
class Work:
    """A batch to be published: what was asked for, and what is settled already."""

    id: int
    uid: UUID
    experiment_uid: UUID
    verify: Verify
    attempts: int
    items: Sequence[tuple[int, NewPublishItem, Outcome]]


class Publishes:
    """Queries on publishes."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def add(self, new: NewPublish) -> None:
        """Keep a new batch."""
        row = PublishRow(
            uid=new.uid,
            experiment_uid=new.experiment_uid,
            state=PublishState.PENDING,
            verify=new.verify,
            next_at=self._now,
            created_at=self._now,
        )
        self._session.add(row)
        self._session.flush()  # for the key that the items need
        # The table, not its class: the mapper would cost as much again as the insert.
        execute_many(
            self._session,
            insert(_ITEMS),
            [
                {
                    "publish_id": row.id,
                    "path": bytes(item.relpath),
                    "version_uid": item.version_uid,
                    "request": item.model_dump(mode="json"),
                    "outcome": str(Outcome.PENDING),
                    "message": "",
                }
                for item in new.items
            ],
        )

    def get(self, uid: UUID) -> Publish | None:
        """Return a batch, and once it is done what became of its files.

        Who waits for a batch looks at it after every commit: its thousand files are read when it has ended, not
        each time.
        """
        row = self._session.scalars(select(PublishRow).where(PublishRow.uid == uid)).one_or_none()
        if row is None:
            return None
        is_done = row.state == PublishState.DONE
        wanted = select(*_ANSWER).where(PublishItemRow.publish_id == row.id).order_by(PublishItemRow.id)
        items = self._session.execute(wanted).all() if is_done else []
        return Publish(
            uid=row.uid,
            experiment_uid=row.experiment_uid,
            state=PublishState(row.state),
            trouble=row.trouble,
            message=row.message,
            created_at=row.created_at,
            ended_at=row.ended_at,
            items=tuple(_to_item(item) for item in items),
        )

    def pending(self, area_uid: UUID) -> Work | None:
        """Return the batch for a storage area that has waited longest and is due."""
        is_there = PublishRow.experiment_uid.in_(
            select(ExperimentRow.uid).where(ExperimentRow.storage_area_uid == area_uid)
        )
        row = self._session.scalars(
            select(PublishRow)
            .where(PublishRow.state == PublishState.PENDING, is_due(PublishRow.next_at, self._now), is_there)
            .order_by(PublishRow.next_at, PublishRow.id)
            .limit(1)
        ).one_or_none()
        if row is None:
            return None
        wanted = select(PublishItemRow.id, PublishItemRow.request, PublishItemRow.outcome)
        items = self._session.execute(wanted.where(PublishItemRow.publish_id == row.id).order_by(PublishItemRow.id))
        return Work(
            row.id,
            row.uid,
            row.experiment_uid,
            Verify(row.verify),
            row.attempts,
            [(item.id, _to_asked(item.request), Outcome(item.outcome)) for item in items],
        )

    def settle(self, outcomes: Mapping[int, tuple[Outcome, str, ReadFrom | None]]) -> None:
        """Record what became of files; what is settled already stays so."""
        statement = (
            update(_ITEMS)
            .where(_ITEMS.c.id == bindparam("b_id"), _ITEMS.c.outcome == str(Outcome.PENDING))
            .values(
                outcome=bindparam("b_outcome"),
                message=bindparam("b_message"),
                read_from=bindparam("b_read"),
                stored_at=bindparam("b_at"),
            )
        )
        rows: list[dict[str, Any]] = [
            {
                "b_id": id_,
                "b_outcome": str(outcome),
                "b_message": message[:2000],
                "b_read": str(read) if read else None,
                "b_at": self._now if outcome is Outcome.STORED else None,
            }
            for id_, (outcome, message, read) in outcomes.items()
        ]
        if rows:
            execute_many(self._session, statement, rows)

    def end(self, work: Work, trouble: str = "", message: str = "") -> None:
        """Record that a batch is done, and what the storage area failed with where its bytes were lost."""
        self._set(work, state=PublishState.DONE, ended_at=self._now, trouble=trouble, message=message[:2000])

    def pause(self, work: Work, trouble: str, message: str, *, until: datetime) -> None:
        """Go on with a batch later, and say why: the storage area fails as a whole."""
        self._set(work, attempts=work.attempts + 1, next_at=until, trouble=trouble, message=message[:2000])

    def _set(self, work: Work, **values: object) -> None:
        self._session.execute(update(PublishRow).where(PublishRow.id == work.id).values(**values))

    def queue(self) -> tuple[dict[str, int], datetime | None]:
        """Return how many batches wait, and since when the oldest does."""
        wanted = select(func.count(), func.min(PublishRow.created_at)).where(PublishRow.state == PublishState.PENDING)
        count, oldest = self._session.execute(wanted).one()
        return {"publishes": count}, oldest


def _to_asked(request: Metadata) -> NewPublishItem:
    """Return what was asked for one file: it was checked when it was asked, and is not checked again."""
    known: dict[str, Any] = dict(request)
    known["version_uid"] = UUID(known["version_uid"])
    known["size"] = int(known["size"])
    known["checksums"] = tuple(
        Checksum.model_construct(algorithm=Algorithm(one["algorithm"]), value=one["value"])
        for one in known["checksums"]
    )
    if known.get("replaces") is not None:
        known["replaces"] = Replaced.model_validate(known["replaces"])
    return NewPublishItem.model_construct(**known)


def _to_item(row: Any) -> PublishItem:
    return PublishItem.model_construct(
        version_uid=row.version_uid,
        outcome=Outcome(row.outcome),
        message=row.message,
        read_from=ReadFrom(row.read_from) if row.read_from else None,
        stored_at=row.stored_at,
        **path_fields(row.path),
    )
