"""Publishes: batches on their way from staging to their plain names, with what became of each file.

A batch is one row, its files are a document in it: they come together, end together, and nobody asks for one alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import ColumnElement, Index, UniqueConstraint, delete, func, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, is_due
from beamkeeper.db.experiments import ExperimentRow
from beamkeeper.domain.files import ReadFrom, Verify
from beamkeeper.domain.names import Algorithm, Checksum
from beamkeeper.domain.status import Service
from beamkeeper.domain.storage import NewPublish, NewPublishItem, Outcome, Publish, PublishItem, PublishState, Replaced

KEPT = timedelta(days=7)
"""A station asks for what became of a batch within minutes, or after the time for which it was cut off."""

SWEPT = 100
"""So many are forgotten in one transaction: each has the documents of a thousand files."""


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
    asked: Mapped[str]
    """The files, as JSON."""
    answers: Mapped[str | None]
    """What became of each, in the same order."""

    __table_args__ = (UniqueConstraint("uid"), Index(None, "state", "next_at"))


_ASKED = TypeAdapter(tuple[NewPublishItem, ...])
_ANSWERS = TypeAdapter(tuple[PublishItem, ...])

Settled = tuple[Outcome, str, ReadFrom | None]
"""What became of a file, why where it was not stored, and where it was read back from."""


@dataclass(frozen=True, slots=True)
class Work:
    """A batch to be published, and its files."""

    id: int
    uid: UUID
    experiment_uid: UUID
    verify: Verify
    attempts: int
    items: Sequence[NewPublishItem]


class Publishes:
    """Queries on publishes."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def add(self, new: NewPublish) -> None:
        """Keep a new batch."""
        self._session.add(
            PublishRow(
                uid=new.uid,
                experiment_uid=new.experiment_uid,
                state=PublishState.PENDING,
                verify=new.verify,
                next_at=self._now,
                created_at=self._now,
                asked=_ASKED.dump_json(new.items).decode(),
            )
        )
        self._session.flush()  # whoever asked is answered from the row

    def get(self, uid: UUID) -> Publish | None:
        """Return a batch, and once it is done what became of its files."""
        r = PublishRow
        wanted = select(
            r.uid, r.experiment_uid, r.state, r.trouble, r.message, r.created_at, r.ended_at, r.answers
        ).where(r.uid == uid)
        row = self._session.execute(wanted).one_or_none()
        if row is None:
            return None
        return Publish(
            uid=row.uid,
            experiment_uid=row.experiment_uid,
            state=PublishState(row.state),
            trouble=row.trouble,
            message=row.message,
            created_at=row.created_at,
            ended_at=row.ended_at,
            items=_ANSWERS.validate_json(row.answers) if row.answers else (),
        )

    def pending(self, area_uid: UUID) -> Work | None:
        """Return the batch for a storage area that has waited longest and is due."""
        due = select(PublishRow).where(*self._due(area_uid)).order_by(PublishRow.next_at, PublishRow.id)
        row = self._session.scalars(due.limit(1)).one_or_none()
        if row is None:
            return None
        asked = [_to_asked(one) for one in json.loads(row.asked)]
        return Work(row.id, row.uid, row.experiment_uid, Verify(row.verify), row.attempts, asked)

    def is_due(self, area_uid: UUID) -> bool:
        """Whether a batch for a storage area is due."""
        return self._session.execute(select(PublishRow.id).where(*self._due(area_uid)).limit(1)).first() is not None

    def _due(self, area_uid: UUID) -> Sequence[ColumnElement[bool]]:
        there = select(ExperimentRow.uid).where(ExperimentRow.storage_area_uid == area_uid)
        is_pending = PublishRow.state == PublishState.PENDING
        return is_pending, is_due(PublishRow.next_at, self._now), PublishRow.experiment_uid.in_(there)

    def is_any(self, experiment_uid: UUID) -> bool:
        """Whether a batch of an experiment is not published yet."""
        mine = (PublishRow.experiment_uid == experiment_uid, PublishRow.state == PublishState.PENDING)
        return self._session.execute(select(PublishRow.id).where(*mine).limit(1)).first() is not None

    def settle(self, work: Work, outcomes: Sequence[Settled], trouble: str = "", message: str = "") -> None:
        """Record that a batch is done, what became of its files, and what failed where their bytes were lost.

        What is settled already stays so.
        """
        at = self._now.isoformat()
        answers = [
            {
                "version_uid": str(item.version_uid),
                "outcome": outcome.value,
                "message": why[:2000],
                "read_from": read_from.value if read_from else None,
                "stored_at": at if outcome is Outcome.STORED else None,
            }
            for item, (outcome, why, read_from) in zip(work.items, outcomes, strict=True)
        ]
        self._session.execute(
            update(PublishRow)
            .where(PublishRow.id == work.id, PublishRow.state == PublishState.PENDING)
            .values(
                state=PublishState.DONE,
                ended_at=self._now,
                trouble=trouble,
                message=message[:2000],
                answers=json.dumps(answers),
            )
        )

    def pause(self, work: Work, trouble: str, message: str, *, until: datetime) -> None:
        """Go on with a batch later, and say why: the storage area fails as a whole."""
        values = {"attempts": work.attempts + 1, "next_at": until, "trouble": trouble, "message": message[:2000]}
        self._session.execute(update(PublishRow).where(PublishRow.id == work.id).values(values))

    def sweep(self) -> bool:
        """Forget some that were done long ago, and tell whether there may be more.

        Who asks for one of them again gets it done again: what has its name already is found by its digest.
        """
        old = select(PublishRow.id).where(PublishRow.state == PublishState.DONE, PublishRow.ended_at < self._now - KEPT)
        ids = self._session.scalars(old.limit(SWEPT)).all()
        self._session.execute(delete(PublishRow).where(PublishRow.id.in_(ids)))
        return len(ids) == SWEPT

    def queue(self) -> tuple[dict[str, int], datetime | None]:
        """Return how many batches wait, and since when the oldest does."""
        wanted = select(func.count(), func.min(PublishRow.created_at)).where(PublishRow.state == PublishState.PENDING)
        count, oldest = self._session.execute(wanted).one()
        return {"publishes": count}, oldest


def _to_asked(asked: dict[str, Any]) -> NewPublishItem:
    """Return what was asked for one file: it was checked when it was asked, and is not checked again."""
    asked["version_uid"] = UUID(asked["version_uid"])
    asked["size"] = int(asked["size"])
    asked["checksums"] = tuple(
        Checksum.model_construct(algorithm=Algorithm(one["algorithm"]), value=one["value"])
        for one in asked["checksums"]
    )
    if asked.get("replaces") is not None:
        asked["replaces"] = Replaced.model_validate(asked["replaces"])
    return NewPublishItem.model_construct(**asked)
