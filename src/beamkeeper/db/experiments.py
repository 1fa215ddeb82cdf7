"""Stations, experiment types and experiments: tables and queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import ForeignKey, Index, Table, UniqueConstraint, bindparam, func, insert, or_, select, tuple_, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, NullableDocument, new_uid
from beamkeeper.db.events import Events
from beamkeeper.db.metadata import Change, MetadataChanges
from beamkeeper.db.pages import from_cursor, to_cursor
from beamkeeper.db.scope import experiment_uids, experiments_in_reach
from beamkeeper.db.texts import has_text
from beamkeeper.domain.errors import AlreadyExistsError, NotFoundError
from beamkeeper.domain.experiments import (
    Experiment,
    ExperimentChange,
    ExperimentOrder,
    ExperimentPage,
    ExperimentQuery,
    ExperimentType,
    ExperimentTypeChange,
    NewExperiment,
    NewExperimentType,
    NewStation,
    Station,
    StationChange,
)
from beamkeeper.domain.metadata import patched
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import Reach


class StationRow(Base):
    """A station."""

    __tablename__ = "stations"
    services = frozenset(Service)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    name: Mapped[str] = mapped_column(unique=True)
    title: Mapped[str]
    timezone: Mapped[str]
    layout: Mapped[str]
    cycle: Mapped[str]
    storage_area_uid: Mapped[UUID | None] = mapped_column(ForeignKey("storage_areas.uid"))
    catalog_url: Mapped[str]
    acquisition_url: Mapped[str]
    processing_url: Mapped[str]
    created_at: Mapped[datetime]
    revision: Mapped[int] = mapped_column(BigId, index=True)


class JoinTokenRow(Base):
    """A one-time token, by its hash, with which a station's services get their key."""

    __tablename__ = "join_tokens"
    services = frozenset({Service.STORAGE})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    token_sha256: Mapped[str] = mapped_column(unique=True)
    station_uid: Mapped[UUID] = mapped_column(ForeignKey("stations.uid"))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class ExperimentTypeRow(Base):
    """A kind of experiment."""

    __tablename__ = "experiment_types"
    services = frozenset(Service)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    name: Mapped[str] = mapped_column(unique=True)
    description: Mapped[str]
    index_keys: Mapped[list[str] | None] = mapped_column(NullableDocument)
    revision: Mapped[int] = mapped_column(BigId, index=True)


class ExperimentRow(Base):
    """An experiment; a row that is deleted stays, and its name and directory with it."""

    __tablename__ = "experiments"
    services = frozenset(Service)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    number: Mapped[int] = mapped_column(BigId, unique=True)
    station_uid: Mapped[UUID] = mapped_column(ForeignKey("stations.uid"))
    name: Mapped[str]
    type: Mapped[str | None]
    title: Mapped[str]
    description: Mapped[str]
    proposal: Mapped[str]
    esaf: Mapped[str]
    pi: Mapped[str | None]
    cycle: Mapped[str]
    starts_at: Mapped[datetime | None]
    ends_at: Mapped[datetime | None]
    publicity: Mapped[str]
    embargo_until: Mapped[datetime | None]
    licence: Mapped[str]
    free: Mapped[Metadata] = mapped_column("metadata")
    storage_area_uid: Mapped[UUID] = mapped_column(ForeignKey("storage_areas.uid"))
    directory: Mapped[str]
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
    revision: Mapped[int] = mapped_column(BigId, index=True)

    __table_args__ = (
        UniqueConstraint("station_uid", "name"),
        Index(None, "storage_area_uid", "directory"),
        Index(None, "publicity"),  # the few that are open, beside those of one's own
    )


_TABLE = cast(Table, ExperimentRow.__table__)
_STATION = select(StationRow).where(StationRow.uid == bindparam("uid")).execution_options(populate_existing=True)
_NAMED = select(ExperimentRow, StationRow.name).join(StationRow, StationRow.uid == ExperimentRow.station_uid)
_ALL = _NAMED.execution_options(populate_existing=True)
_ONE = _ALL.where(ExperimentRow.uid == bindparam("uid"))
"""Made once: they are asked with most requests."""


class Experiments:
    """Queries on stations, experiment types and experiments."""

    def __init__(self, session: Session, events: Events, now: datetime) -> None:
        self._session = session
        self._events = events
        self._now = now

    def stations(self) -> Sequence[Station]:
        """Return every station, by name."""
        return [to_station(row) for row in self._session.scalars(select(StationRow).order_by(StationRow.name))]

    def get_station(self, uid: UUID) -> Station:
        """Return a station by its uid."""
        row = self._session.scalars(_STATION, {"uid": uid}).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no station {uid}", uid=str(uid))
        return to_station(row)

    def find_station(self, name: str) -> Station | None:
        """Return a station by its name, or None."""
        row = self._session.scalars(select(StationRow).where(StationRow.name == name)).one_or_none()
        return None if row is None else to_station(row)

    def station_named(self, name: str) -> Station:
        """Return a station by its name."""
        station = self.find_station(name)
        if station is None:
            raise NotFoundError(f'there is no station "{name}": `dm station list` shows all', name=name)
        return station

    def add_station(self, new: NewStation) -> Station:
        """Make a station."""
        revision = self._events.revise()
        if self.find_station(new.name) is not None:
            raise AlreadyExistsError(f'there is a station "{new.name}" already', name=new.name)
        station = Station(uid=new_uid(), created_at=self._now, **new.model_dump())
        self._session.execute(insert(StationRow).values(**station.model_dump(), revision=revision))
        return station

    def change_station(self, uid: UUID, change: StationChange) -> Station:
        """Change what is given of a station."""
        values = change.model_dump(exclude_unset=True, exclude_none=True)
        revision = self._events.revise()
        self._session.execute(update(StationRow).where(StationRow.uid == uid).values(**values, revision=revision))
        return self.get_station(uid)

    def add_join_token(self, station_uid: UUID, token_sha256: str, *, expires_at: datetime) -> None:
        """Keep a one-time token."""
        self._session.execute(
            insert(JoinTokenRow).values(
                station_uid=station_uid, token_sha256=token_sha256, created_at=self._now, expires_at=expires_at
            )
        )

    def use_join_token(self, token_sha256: str) -> Station | None:
        """Use a one-time token up and return its station; None where it is unknown, used or too old."""
        uid = self._session.execute(
            update(JoinTokenRow)
            .where(JoinTokenRow.token_sha256 == token_sha256)
            .where(JoinTokenRow.used_at.is_(None), JoinTokenRow.expires_at > self._now)
            .values(used_at=self._now)
            .returning(JoinTokenRow.station_uid)
        ).scalar_one_or_none()
        return None if uid is None else self.get_station(uid)

    def types(self) -> Sequence[ExperimentType]:
        """Return every experiment type, by name."""
        rows = self._session.scalars(select(ExperimentTypeRow).order_by(ExperimentTypeRow.name))
        return [to_type(row) for row in rows]

    def is_type(self, name: str) -> bool:
        """Whether there is an experiment type of this name."""
        wanted = select(ExperimentTypeRow.id).where(ExperimentTypeRow.name == name)
        return self._session.execute(wanted).first() is not None

    def add_type(self, new: NewExperimentType) -> ExperimentType:
        """Make an experiment type."""
        revision = self._events.revise()  # and nobody else makes one of this name meanwhile
        if self.is_type(new.name):
            raise AlreadyExistsError(f'there is an experiment type "{new.name}" already', name=new.name)
        kind = ExperimentType(uid=new_uid(), **new.model_dump())
        self._session.execute(insert(ExperimentTypeRow).values(**kind.model_dump(), revision=revision))
        return kind

    def change_type(self, name: str, change: ExperimentTypeChange) -> ExperimentType:
        """Change what is given of an experiment type."""
        values = change.model_dump(exclude_unset=True)
        changed = update(ExperimentTypeRow).where(ExperimentTypeRow.name == name)
        self._session.execute(changed.values(**values, revision=self._events.revise()))
        for kind in self.types():
            if kind.name == name:
                return kind
        raise NotFoundError(f'there is no experiment type "{name}": `dm type list` shows them', name=name)

    def get(self, uid: UUID) -> Experiment:
        """Return an experiment by its uid, deleted or not."""
        row = self._session.execute(_ONE, {"uid": uid}).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no experiment {uid}", uid=str(uid))
        return to_experiment(*row)

    def is_there(self, uid: UUID) -> bool:
        """Whether there is an experiment of this uid, deleted or not."""
        return self._session.scalar(select(ExperimentRow.id).where(ExperimentRow.uid == uid)) is not None

    def find(self, station_uid: UUID, name: str) -> Experiment | None:
        """Return an experiment by its station and name, deleted or not; or None."""
        wanted = _ALL.where(ExperimentRow.station_uid == station_uid, ExperimentRow.name == name)
        row = self._session.execute(wanted).one_or_none()
        return None if row is None else to_experiment(*row)

    def page(self, query: ExperimentQuery, reach: Reach) -> ExperimentPage:
        """Return the experiments that are wanted and within reach, in the order that is wanted."""
        wanted = _ALL.order_by(*_ORDERS[query.order]).limit(query.limit + 1)
        wanted = wanted.where(*_conditions(query))
        values: Mapping[str, object] = {}
        if not reach.is_all:
            within, values = experiments_in_reach(reach, self._now)
            wanted = wanted.where(ExperimentRow.uid.in_(within))
        if query.after is not None:
            wanted = wanted.where(_after(query.order, query.after))
        found = [to_experiment(*row) for row in self._session.execute(wanted, values)]
        more = _cursor(query.order, found[query.limit - 1]) if len(found) > query.limit else None
        return ExperimentPage(items=found[: query.limit], next=more)

    def uids(self, reach: Reach) -> Sequence[UUID]:
        """Return the uids of the experiments within reach."""
        return self._session.scalars(experiment_uids(reach, self._now)).all()

    def overlapping(self, storage_area_uid: UUID, directory: str) -> Experiment | None:
        """Return an experiment whose directory is this one, above it or below it; deleted ones count."""
        parts = directory.split("/")
        above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        # "0" follows "/" in bytes, so this range holds all that begins with the directory and a slash.
        below = (ExperimentRow.directory > f"{directory}/") & (ExperimentRow.directory < f"{directory}0")
        wanted = _ALL.where(ExperimentRow.storage_area_uid == storage_area_uid)
        row = self._session.execute(wanted.where(or_(ExperimentRow.directory.in_(above), below)).limit(1)).first()
        return None if row is None else to_experiment(*row)

    def add(self, new: NewExperiment, *, station: Station, cycle: str, area_uid: UUID, directory: str) -> Experiment:
        """Make an experiment; the name must be free for ever."""
        uid = new.uid or new_uid()
        revision = self._events.revise(experiment_uid=uid)
        if self.find(station.uid, new.name) is not None:
            raise AlreadyExistsError(
                f'there is or was an experiment "{new.name}" on station "{station.name}": names are given once',
                name=new.name,
            )
        last = self._session.execute(select(func.max(ExperimentRow.number))).scalar_one()
        experiment = Experiment(
            uid=uid,
            number=(last or 0) + 1,
            station_uid=station.uid,
            storage_area_uid=area_uid,
            cycle=cycle,
            directory=directory,
            created_at=self._now,
            **new.model_dump(exclude={"uid", "cycle", "root_path", "storage_area_uid"}),
        )
        values = {**experiment.model_dump(exclude={"station"}), "revision": revision}
        self._session.execute(insert(_TABLE).values(values))
        return experiment

    def add_unsent(self, new: NewExperiment, uid: UUID, *, station: Station, area_uid: UUID) -> Experiment:
        """Make an experiment of which the site knows nothing yet, and which has no directory until it does."""
        lowest = self._session.execute(select(func.min(ExperimentRow.number))).scalar_one_or_none()
        experiment = Experiment(
            uid=uid,
            number=min(0, lowest or 0) - 1,
            station_uid=station.uid,
            storage_area_uid=area_uid,
            cycle=new.cycle or station.cycle,
            directory="",
            created_at=self._now,
            **new.model_dump(exclude={"uid", "cycle", "root_path", "storage_area_uid"}),
        )
        values = {**experiment.model_dump(exclude={"station"}), "revision": 0}
        self._session.execute(insert(_TABLE).values(values))
        return experiment

    def change(self, uid: UUID, change: ExperimentChange, *, by: str = "") -> Experiment:
        """Change what is given of an experiment; metadata is merged, and a value of null goes."""
        given = change.model_dump(exclude_unset=True)
        values = {key: value for key, value in given.items() if value is not None or _TABLE.c[key].nullable}
        revision = self._events.revise(experiment_uid=uid)
        if change.metadata is not None:
            before = self.get(uid).metadata
            MetadataChanges(self._session, self._now).add([Change(uid, uid, before, change.metadata)], by=by)
            values["metadata"] = patched(before, change.metadata)
        self._set(uid, **values, revision=revision)
        return self.get(uid)

    def set_pi(self, uid: UUID, pi: str | None) -> None:
        """Say who the PI of an experiment is."""
        self._set(uid, pi=pi, revision=self._events.revise(experiment_uid=uid))

    def delete(self, uid: UUID) -> Experiment:
        """Hide an experiment; one that is hidden already stays as it is."""
        revision = self._events.revise(experiment_uid=uid)
        if self.get(uid).deleted_at is None:
            self._set(uid, deleted_at=self._now, revision=revision)
        return self.get(uid)

    def _set(self, uid: UUID, **values: Any) -> None:
        self._session.execute(update(_TABLE).where(_TABLE.c.uid == uid).values(values))


_ORDERS: dict[ExperimentOrder, tuple[Any, ...]] = {
    ExperimentOrder.NEWEST: (ExperimentRow.number.desc(),),
    ExperimentOrder.OLDEST: (ExperimentRow.number,),
    ExperimentOrder.NAME: (ExperimentRow.name, ExperimentRow.number),
    ExperimentOrder.NAME_DOWN: (ExperimentRow.name.desc(), ExperimentRow.number.desc()),
}
_BY_NAME = frozenset({ExperimentOrder.NAME, ExperimentOrder.NAME_DOWN})


def _cursor(order: ExperimentOrder, last: Experiment) -> str:
    return to_cursor(last.name, last.number) if order in _BY_NAME else to_cursor(last.number)


def _after(order: ExperimentOrder, cursor: str) -> Any:
    """Return what holds for the experiments after a cursor in an order."""
    if order in _BY_NAME:
        place, key = tuple_(ExperimentRow.name, ExperimentRow.number), tuple_(*from_cursor(cursor, str, int))
    else:
        place, key = tuple_(ExperimentRow.number), tuple_(*from_cursor(cursor, int))
    return place > key if order in (ExperimentOrder.OLDEST, ExperimentOrder.NAME) else place < key


def _conditions(query: ExperimentQuery) -> list[Any]:
    found: list[Any] = []
    if query.station is not None:
        found.append(StationRow.name == query.station)
    if query.name is not None:
        found.append(ExperimentRow.name == query.name)
    if query.type is not None:
        found.append(ExperimentRow.type == query.type)
    if query.text:
        columns = (ExperimentRow.name, ExperimentRow.title, ExperimentRow.proposal, ExperimentRow.pi)
        found.append(has_text(query.text, *columns))
    if not query.with_deleted:
        found.append(ExperimentRow.deleted_at.is_(None))
    return found


def to_station(row: StationRow) -> Station:
    """Return the station that a row holds."""
    return Station.model_validate(row, from_attributes=True)


def to_type(row: ExperimentTypeRow) -> ExperimentType:
    """Return the experiment type that a row holds."""
    return ExperimentType.model_validate(row, from_attributes=True)


def to_experiment(row: ExperimentRow, station: str) -> Experiment:
    """Return the experiment that a row holds; its station is named in another table."""
    plain = {key: getattr(row, key) for key in Experiment.model_fields if key not in ("station", "metadata")}
    return Experiment.model_validate({**plain, "station": station, "metadata": row.free})
