"""The tables of what is asked for replicas, and of what is still to be done for each of them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from beamkeeper.db.base import Base, BigId
from beamkeeper.db.kinds import partial_index
from beamkeeper.domain.replicas import ReplicaAction, ReplicaRequest, RequestState
from beamkeeper.domain.status import Service


class ReplicaRequestRow(Base):
    """Somebody asked for replicas of many files. `place` is where choosing them goes on."""

    __tablename__ = "replica_requests"
    __table_args__ = (Index(None, "state"), Index(None, "experiment_uid"))
    services = frozenset({Service.CATALOG})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    action: Mapped[str]
    experiment_uid: Mapped[UUID]
    experiment: Mapped[str]
    storage_area_uid: Mapped[UUID | None]
    storage_area: Mapped[str]
    glob: Mapped[str | None]
    all_versions: Mapped[bool]
    state: Mapped[str]
    message: Mapped[str]
    place: Mapped[str | None]
    is_chosen: Mapped[bool]
    chosen: Mapped[int] = mapped_column(BigInteger)
    there: Mapped[int] = mapped_column(BigInteger)
    refused: Mapped[int] = mapped_column(BigInteger)
    done: Mapped[int] = mapped_column(BigInteger)
    failed: Mapped[int] = mapped_column(BigInteger)
    bytes: Mapped[int] = mapped_column(BigInteger)
    asked_by: Mapped[str]
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class ReplicaOrderRow(Base):
    """A replica is to be made, read or dropped; what is done has no row any more.

    `next_at` is None where it could not be made and nobody tries again. `batch_uid` is that of the batch in which it
    was handed out, until what became of it is known: a restart goes on with the same batch.
    """

    __tablename__ = "replica_orders"
    __table_args__ = (
        Index(None, "storage_area_uid", "next_at", "id"),
        Index(None, "experiment_uid", "storage_area_uid"),
        Index(None, "request_id"),
        partial_index(
            "ix_replica_orders_batch",
            "storage_area_uid",
            "batch_uid",
            on_postgresql="batch_uid IS NOT NULL",
            on_sqlite="batch_uid IS NOT NULL",
        ),
    )
    services = frozenset({Service.CATALOG})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    replica_id: Mapped[int] = mapped_column(BigId, ForeignKey("replicas.id"), unique=True)
    action: Mapped[str]
    experiment_uid: Mapped[UUID]
    storage_area_uid: Mapped[UUID]
    request_id: Mapped[int | None] = mapped_column(BigId)
    asked_by: Mapped[str]
    asked_at: Mapped[datetime]
    attempts: Mapped[int]
    next_at: Mapped[datetime | None]
    message: Mapped[str]
    batch_uid: Mapped[UUID | None]


def to_request(row: ReplicaRequestRow) -> ReplicaRequest:
    """Return a request as people see it."""
    return ReplicaRequest(
        uid=row.uid,
        action=ReplicaAction(row.action),
        experiment_uid=row.experiment_uid,
        experiment=row.experiment,
        storage_area=row.storage_area,
        glob=row.glob,
        all_versions=row.all_versions,
        state=RequestState(row.state),
        message=row.message,
        is_chosen=row.is_chosen,
        chosen=row.chosen,
        there=row.there,
        refused=row.refused,
        done=row.done,
        failed=row.failed,
        bytes=row.bytes,
        asked_by=row.asked_by,
        created_at=row.created_at,
        ended_at=row.ended_at,
    )
