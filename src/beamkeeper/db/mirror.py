"""The mirror of identities: what changed since a number, and how another service's database takes it over."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Table, delete, func, insert, select, union_all, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId
from beamkeeper.db.events import Events
from beamkeeper.db.experiments import (
    ExperimentRow,
    ExperimentTypeRow,
    StationRow,
    to_experiment,
    to_station,
    to_type,
)
from beamkeeper.db.storage import StorageAreaRow, to_area
from beamkeeper.db.users import GrantRow, SessionRow, UserRow, scope_of, to_session, to_user
from beamkeeper.domain.events import NewEvent
from beamkeeper.domain.mirror import GrantRecord, Mirror, MirrorState
from beamkeeper.domain.status import Service


class MirrorStateRow(Base):
    """How far this service's mirror has come: one row, or none before it was ever filled."""

    __tablename__ = "mirror_state"
    services = frozenset(Service) - {Service.STORAGE}

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    epoch: Mapped[str]
    number: Mapped[int] = mapped_column(BigId)
    heard_at: Mapped[datetime]


_USERS = cast(Table, UserRow.__table__)
_GRANTS = cast(Table, GrantRow.__table__)
_SESSIONS = cast(Table, SessionRow.__table__)
_STATIONS = cast(Table, StationRow.__table__)
_AREAS = cast(Table, StorageAreaRow.__table__)
_TYPES = cast(Table, ExperimentTypeRow.__table__)
_EXPERIMENTS = cast(Table, ExperimentRow.__table__)
_ALL = (_USERS, _GRANTS, _SESSIONS, _STATIONS, _AREAS, _TYPES, _EXPERIMENTS)


class Mirrors:
    """Queries that read the identities for a mirror, and that apply one."""

    def __init__(self, session: Session, events: Events, now: datetime) -> None:
        self._session = session
        self._events = events
        self._now = now

    def latest(self) -> int:
        """Return the number of the latest change of identities; at the storage service."""
        highest = union_all(*(select(func.max(table.c.revision).label("revision")) for table in _ALL)).subquery()
        return self._session.execute(select(func.max(highest.c.revision))).scalar_one() or 0

    def changed(self, after: int) -> Mirror:
        """Return what changed after a number; everything that still matters, after zero."""
        cursor = self._events.cursor()
        is_whole = after <= 0
        sessions = select(SessionRow).where(SessionRow.revision > after)
        if is_whole:
            is_current = (SessionRow.expires_at.is_(None)) | (SessionRow.expires_at > self._now)
            sessions = sessions.where(SessionRow.revoked_at.is_(None), is_current)
        experiments = select(ExperimentRow, StationRow.name).join(
            StationRow, StationRow.uid == ExperimentRow.station_uid
        )
        all_of, rows_of = self._session.scalars, self._session.execute
        return Mirror(
            epoch=cursor.epoch,
            number=cursor.number,
            is_whole=is_whole,
            users=[to_user(row) for row in all_of(select(UserRow).where(UserRow.revision > after))],
            grants=[to_record(row) for row in all_of(select(GrantRow).where(GrantRow.revision > after))],
            sessions=[to_session(row) for row in all_of(sessions)],
            stations=[to_station(row) for row in all_of(select(StationRow).where(StationRow.revision > after))],
            storage_areas=[
                to_area(row) for row in all_of(select(StorageAreaRow).where(StorageAreaRow.revision > after))
            ],
            experiment_types=[
                to_type(row) for row in all_of(select(ExperimentTypeRow).where(ExperimentTypeRow.revision > after))
            ],
            experiments=[
                to_experiment(row, name) for row, name in rows_of(experiments.where(ExperimentRow.revision > after))
            ],
        )

    def state(self) -> MirrorState | None:
        """Return how far this mirror has come; None before it was ever filled."""
        row = self._session.execute(
            select(MirrorStateRow.epoch, MirrorStateRow.number, MirrorStateRow.heard_at)
        ).one_or_none()
        return None if row is None else MirrorState(epoch=row.epoch, number=row.number, heard_at=row.heard_at)

    def apply(self, mirror: Mirror) -> None:
        """Take over what changed; a whole mirror also puts away what it does not hold."""
        if mirror.is_whole:
            self._put_away(mirror)
        revision = {"revision": mirror.number}
        self._upsert(_AREAS, [{**area.model_dump(), **revision} for area in mirror.storage_areas])
        self._upsert(_STATIONS, [{**station.model_dump(), **revision} for station in mirror.stations])
        self._upsert(_USERS, [{**user.model_dump(), **revision} for user in mirror.users])
        self._upsert(_TYPES, [{**kind.model_dump(), **revision} for kind in mirror.experiment_types])
        experiments = [{**e.model_dump(exclude={"station"}), **revision} for e in mirror.experiments]
        self._upsert(_EXPERIMENTS, experiments)
        self._upsert(_GRANTS, [{**g.model_dump(), "scope": scope_of(g), **revision} for g in mirror.grants])
        self._upsert(_SESSIONS, [{**record.model_dump(), **revision} for record in mirror.sessions])
        values = {"epoch": mirror.epoch, "number": mirror.number, "heard_at": self._now}
        if not self._session.execute(update(MirrorStateRow).values(**values).returning(MirrorStateRow.id)).all():
            self._session.execute(insert(MirrorStateRow).values(id=1, **values))
        if mirror.is_news:
            self._events.add(NewEvent(kind="identity.changed"))

    def _upsert(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        if not rows:
            return
        is_postgres = self._session.get_bind().dialect.name == "postgresql"
        statement: Any = (postgresql.insert if is_postgres else sqlite.insert)(table)
        news = {key: statement.excluded[key] for key in rows[0] if key != "uid"}
        connection = self._session.connection()
        connection.execute(statement.on_conflict_do_update(index_elements=["uid"], set_=news), list(rows))

    def _put_away(self, mirror: Mirror) -> None:
        """Make room for a storage database that was restored, or is another one altogether.

        Grants and sessions that it does not know are over. Users and experiments may be named by other rows, so
        they stay, out of the way: numbered below zero, named so that nobody else is.
        """
        self._delete_all_but(_SESSIONS, {record.uid for record in mirror.sessions})
        self._delete_all_but(_GRANTS, {grant.uid for grant in mirror.grants})
        users = self._all_but(_USERS, {user.uid for user in mirror.users})
        for id_ in users:
            self._session.execute(
                update(_USERS).where(_USERS.c.id == id_).values(username=f"lost-{id_}", number=-id_, is_enabled=False)
            )
        for id_ in self._all_but(_EXPERIMENTS, {experiment.uid for experiment in mirror.experiments}):
            self._session.execute(
                update(_EXPERIMENTS).where(_EXPERIMENTS.c.id == id_).values(name=f"lost-{id_}", number=-id_)
            )
        named = ((_STATIONS, mirror.stations), (_AREAS, mirror.storage_areas), (_TYPES, mirror.experiment_types))
        for table, kept in named:
            for id_ in self._all_but(table, {item.uid for item in kept}):
                self._session.execute(update(table).where(table.c.id == id_).values(name=f"lost-{id_}"))

    def _all_but(self, table: Table, kept: Collection[UUID]) -> Sequence[int]:
        rows = self._session.execute(select(table.c.id, table.c.uid))
        return [row.id for row in rows if row.uid not in kept]

    def _delete_all_but(self, table: Table, kept: Collection[UUID]) -> None:
        for id_ in self._all_but(table, kept):
            self._session.execute(delete(table).where(table.c.id == id_))


def to_record(row: GrantRow) -> GrantRecord:
    """Return a grant as the mirror carries it."""
    return GrantRecord.model_validate(row, from_attributes=True)
