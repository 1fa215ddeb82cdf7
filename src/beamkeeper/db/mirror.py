"""The mirror of identities: what changed since a number, and how another service's database takes it over."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Insert, Table, bindparam, delete, func, insert, select, update
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
from beamkeeper.db.kinds import insert_into
from beamkeeper.db.storage import StorageAreaRow, to_area
from beamkeeper.db.users import GrantRow, SessionRow, UserRow, scope_of, to_session, to_user
from beamkeeper.domain.events import NewEvent
from beamkeeper.domain.mirror import GrantRecord, Mirror, MirrorState
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import SESSIONS_KEPT


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

# Jobs begin and end sessions all the time, and each service of a station asks what is new: these are built once.
_LATEST = select(*(select(func.max(table.c.revision)).scalar_subquery().label(table.name) for table in _ALL))
_STATE = cast(Table, MirrorStateRow.__table__)
_STATE_NOW = select(_STATE.c.epoch, _STATE.c.number, _STATE.c.heard_at)
_REACHED = (
    update(_STATE).values({name: bindparam(name) for name in ("epoch", "number", "heard_at")}).returning(_STATE.c.id)
)
_OLD_SESSIONS = delete(_SESSIONS).where(_SESSIONS.c.expires_at < bindparam("before"))


@lru_cache(maxsize=64)
def _upserting(table: Table, columns: tuple[str, ...], *, is_postgres: bool) -> Insert:
    """Return the statement that writes rows with these columns, in place of those with the same uid."""
    statement: Any = insert_into(table, is_postgres=is_postgres)
    news = {key: statement.excluded[key] for key in columns if key != "uid"}
    upserting: Insert = statement.on_conflict_do_update(index_elements=["uid"], set_=news)
    return upserting


class Mirrors:
    """Queries that read the identities for a mirror, and that apply one."""

    def __init__(self, session: Session, events: Events, now: datetime) -> None:
        self._session = session
        self._events = events
        self._now = now

    def latest(self) -> int:
        """Return the number of the latest change of identities; at the storage service."""
        return max(self._latest().values())

    def _latest(self) -> dict[str, int]:
        """Return the number of the latest change of each table."""
        row = self._session.connection().execute(_LATEST).one()
        return {table.name: number or 0 for table, number in zip(_ALL, row, strict=True)}

    def changed(self, after: int) -> Mirror:
        """Return what changed after a number; everything that still matters, after zero."""
        cursor = self._events.cursor()
        is_whole = after <= 0
        news = {name for name, number in self._latest().items() if number > after}

        def of(table: type[Base], wanted: Any = None) -> Sequence[Any]:
            if table.__tablename__ not in news:
                return ()
            changed = (select(table) if wanted is None else wanted).where(cast(Any, table).revision > after)
            return self._session.execute(changed).all()

        named = select(ExperimentRow, StationRow.name).join(StationRow, StationRow.uid == ExperimentRow.station_uid)
        return Mirror(
            epoch=cursor.epoch,
            number=cursor.number,
            is_whole=is_whole,
            users=[to_user(row) for (row,) in of(UserRow)],
            grants=[to_record(row) for (row,) in of(GrantRow)],
            sessions=[to_session(row) for (row,) in of(SessionRow, self._holding() if is_whole else None)],
            stations=[to_station(row) for (row,) in of(StationRow)],
            storage_areas=[to_area(row) for (row,) in of(StorageAreaRow)],
            experiment_types=[to_type(row) for (row,) in of(ExperimentTypeRow)],
            experiments=[to_experiment(row, name) for row, name in of(ExperimentRow, named)],
        )

    def _holding(self) -> Any:
        is_current = (SessionRow.expires_at.is_(None)) | (SessionRow.expires_at > self._now)
        return select(SessionRow).where(SessionRow.revoked_at.is_(None), is_current)

    def state(self) -> MirrorState | None:
        """Return how far this mirror has come; None before it was ever filled."""
        row = self._session.connection().execute(_STATE_NOW).one_or_none()
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
        self._make_way(mirror)
        experiments = [{**e.model_dump(exclude={"station"}), **revision} for e in mirror.experiments]
        self._upsert(_EXPERIMENTS, experiments)
        self._upsert(_GRANTS, [{**g.model_dump(), "scope": scope_of(g), **revision} for g in mirror.grants])
        self._session.connection().execute(_OLD_SESSIONS, {"before": self._now - SESSIONS_KEPT})
        self._upsert(_SESSIONS, [{**record.model_dump(), **revision} for record in mirror.sessions])
        values = {"epoch": mirror.epoch, "number": mirror.number, "heard_at": self._now}
        if not self._session.connection().execute(_REACHED, values).all():
            self._session.execute(insert(MirrorStateRow).values(id=1, **values))
        if mirror.is_news:
            self._events.add(NewEvent(kind="identity.changed"))

    def _make_way(self, mirror: Mirror) -> None:
        """Let go of names that were given here while this station was cut off, and at the site meanwhile as well."""
        coming = {(experiment.station_uid, experiment.name): experiment.uid for experiment in mirror.experiments}
        unsent = select(_EXPERIMENTS.c.id, _EXPERIMENTS.c.uid, _EXPERIMENTS.c.station_uid, _EXPERIMENTS.c.name)
        for row in self._session.execute(unsent.where(_EXPERIMENTS.c.number < 0)).all() if coming else ():
            if coming.get((row.station_uid, row.name), row.uid) != row.uid:
                named = update(_EXPERIMENTS).where(_EXPERIMENTS.c.id == row.id)
                self._session.execute(named.values(name=f"unsent-{row.id}"))

    def _upsert(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        if not rows:
            return
        connection = self._session.connection()
        is_postgres = connection.dialect.name == "postgresql"
        connection.execute(_upserting(table, tuple(rows[0]), is_postgres=is_postgres), list(rows))

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
