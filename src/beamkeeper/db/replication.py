"""How far the site's catalogue has followed each station's: as the site keeps it, and as a station knows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, JsonDocument, upsert
from beamkeeper.db.experiments import StationRow
from beamkeeper.domain.replication import Follower, Kind, Position
from beamkeeper.domain.status import Service


class FollowedRow(Base):
    """At the site: how far one station's documents of one kind have come."""

    __tablename__ = "followed"
    services = frozenset({Service.CATALOG})

    station_uid: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    epoch: Mapped[str]
    number: Mapped[int] = mapped_column(BigId)
    after: Mapped[UUID | None]
    is_listing: Mapped[bool]
    heard_at: Mapped[datetime]
    waiting: Mapped[int] = mapped_column(BigId)
    refused: Mapped[int]
    unlisted: Mapped[int]
    message: Mapped[str]


class SiteLinkRow(Base):
    """At a station: one row with what it knows of the site's catalogue; none before it ever had to do with it."""

    __tablename__ = "site_link"
    services = frozenset({Service.CATALOG})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    positions: Mapped[dict[str, Any]] = mapped_column(JsonDocument)
    heard_at: Mapped[datetime | None]
    cut_off_since: Mapped[datetime | None]
    message: Mapped[str]
    forgotten: Mapped[int] = mapped_column(BigId)
    """Changes numbered below this are not kept any more."""


class Replication:
    """Queries on both sides."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def followed(self, station_uid: UUID, kind: Kind) -> FollowedRow | None:
        """Return how far a station's documents have come; until this transaction ends nobody else moves that."""
        wanted = select(FollowedRow).where(FollowedRow.station_uid == station_uid, FollowedRow.kind == kind)
        return self._session.scalars(wanted.with_for_update()).one_or_none()

    def positions(self, station_uid: UUID) -> Mapping[Kind, Position]:
        """Return how far a station's documents have come, by kind."""
        rows = self._session.scalars(select(FollowedRow).where(FollowedRow.station_uid == station_uid))
        return {Kind(row.kind): to_position(row) for row in rows if row.kind in list(Kind)}

    def move(self, station_uid: UUID, kind: Kind, position: Position, **values: Any) -> None:
        """Keep a station's new position, and when it was heard."""
        row = {"station_uid": station_uid, "kind": kind, **position.model_dump(), "heard_at": self._now, **values}
        upsert(self._session, FollowedRow, [row], key=("station_uid", "kind"))

    def followers(self) -> Sequence[Follower]:
        """Return how far the copies of all stations' catalogues are."""
        wanted = (
            select(FollowedRow, StationRow.name)
            .join(StationRow, StationRow.uid == FollowedRow.station_uid)
            .order_by(StationRow.name, FollowedRow.kind)
        )
        return [
            Follower(
                station=name,
                kind=Kind(row.kind),
                heard_at=row.heard_at,
                waiting=row.waiting,
                is_listing=row.is_listing,
                refused=row.refused,
                unlisted=row.unlisted,
                message=row.message,
            )
            for row, name in self._session.execute(wanted)
        ]

    def link(self) -> SiteLinkRow | None:
        """Return what the station knows of the site's catalogue."""
        return self._session.get(SiteLinkRow, 1)

    def keep_link(self, **values: Any) -> None:
        """Keep what the station knows of the site's catalogue; what is left out stays."""
        row = self.link()
        if row is None:
            row = SiteLinkRow(id=1, positions={}, heard_at=None, cut_off_since=None, message="", forgotten=0)
            self._session.add(row)
        for name, value in values.items():
            setattr(row, name, value)


def to_position(row: FollowedRow) -> Position:
    """Return the position that a row keeps."""
    return Position(epoch=row.epoch, number=row.number, after=row.after, is_listing=row.is_listing)
