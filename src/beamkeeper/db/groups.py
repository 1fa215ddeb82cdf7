"""Groups of experiments: their names and numbers, who is to be in them, and how they were when last compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import ColumnElement, ForeignKey, Table, func, insert, or_, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId
from beamkeeper.db.experiments import ExperimentRow, StationRow
from beamkeeper.db.many import execute_many
from beamkeeper.db.pages import from_cursor, to_cursor
from beamkeeper.db.people import IN_ONE_STATEMENT, in_parts
from beamkeeper.db.scope import experiment_uids
from beamkeeper.db.users import GrantRow, UserRow
from beamkeeper.domain.groups import ExperimentGroup, GroupDifference, GroupPage, GroupQuery, GroupState, group_name
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import EXPERIMENT_ROLES, Reach

NOTHING = GroupDifference()
AGAIN = timedelta(minutes=1)
"""What could not be kept is tried again after this long."""


class ExperimentGroupRow(Base):
    """The group of an experiment; it keeps its name and its number for ever."""

    __tablename__ = "experiment_groups"
    services = frozenset({Service.STORAGE})

    experiment_uid: Mapped[UUID] = mapped_column(ForeignKey("experiments.uid"), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    gid: Mapped[int | None] = mapped_column(BigId, unique=True)
    applied_gid: Mapped[int | None] = mapped_column(BigId)
    """The group that the files of the experiment have been given to."""
    state: Mapped[str]
    message: Mapped[str]
    difference: Mapped[Metadata]
    is_repair: Mapped[bool]
    asked_by: Mapped[str]
    asked_at: Mapped[datetime]
    tried_at: Mapped[datetime | None]
    looked_at: Mapped[datetime | None]
    is_known_to_host: Mapped[bool | None]


@dataclass(frozen=True, slots=True)
class KeptGroup:
    """A group as the engine takes it in hand: who is to be in it, and who ever was of the experiment."""

    experiment_uid: UUID
    name: str
    gid: int | None
    is_repair: bool
    asked_by: str
    wanted: frozenset[str]
    ours: frozenset[str]


@dataclass(frozen=True, slots=True)
class Settled:
    """What came of keeping a group."""

    experiment_uid: UUID
    state: GroupState
    gid: int | None
    difference: GroupDifference = NOTHING
    message: str = ""
    is_known_to_host: bool | None = None


class Groups:
    """Queries on groups of experiments."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def name_new(self, template: str) -> int:
        """Give a name to the group of each experiment that has none; return to how many."""
        wanted = (
            select(ExperimentRow.uid, ExperimentRow.name, ExperimentRow.number, StationRow.name.label("station"))
            .join(StationRow, StationRow.uid == ExperimentRow.station_uid)
            .outerjoin(ExperimentGroupRow, ExperimentGroupRow.experiment_uid == ExperimentRow.uid)
            .where(ExperimentGroupRow.experiment_uid.is_(None), ExperimentRow.deleted_at.is_(None))
            .order_by(ExperimentRow.number)
        )
        found = self._session.execute(wanted).all()
        if not found:
            return 0
        taken = set(self._session.scalars(select(ExperimentGroupRow.name)))
        rows = []
        for uid, experiment, number, station in found:
            name = group_name(template, experiment=experiment, station=station, number=number, taken=taken)
            taken.add(name)
            rows.append({"experiment_uid": uid, "name": name, **self._new()})
        execute_many(self._session, insert(cast(Table, ExperimentGroupRow.__table__)), rows)
        return len(rows)

    def _new(self) -> dict[str, Any]:
        return {
            "gid": None,
            "applied_gid": None,
            "state": GroupState.WAITING,
            "message": "",
            "difference": {},
            "is_repair": False,
            "asked_by": "",
            "asked_at": self._now,
            "tried_at": None,
            "looked_at": None,
            "is_known_to_host": None,
        }

    def changed_since(self, revision: int) -> set[UUID]:
        """Return the experiments whose people may have changed since."""
        of_grants = select(GrantRow.experiment_uid).where(
            GrantRow.revision > revision, GrantRow.experiment_uid.is_not(None)
        )
        of_users = (
            select(GrantRow.experiment_uid)
            .join(UserRow, UserRow.uid == GrantRow.user_uid)
            .where(UserRow.revision > revision, GrantRow.experiment_uid.is_not(None))
        )
        deleted = select(ExperimentRow.uid).where(ExperimentRow.revision > revision)
        found: set[UUID | None] = set()
        for wanted in (of_grants, of_users, deleted):
            found.update(self._session.scalars(wanted))
        return {uid for uid in found if uid is not None}

    def ask(self, uids: Collection[UUID] | None, *, by: str = "", is_repair: bool = False) -> int:
        """Have groups compared now, of some experiments or all; return how many.

        A repair that somebody waits for stays one, whoever asks for a comparison meanwhile.
        """
        values: dict[str, Any] = {"asked_at": self._now}
        if is_repair:
            values |= {"asked_by": by, "is_repair": True}
        statement = update(ExperimentGroupRow).values(**values)
        if uids is None:
            return len(self._session.execute(statement.returning(ExperimentGroupRow.experiment_uid)).all())
        done = 0
        for some in in_parts(uids, IN_ONE_STATEMENT):
            met = statement.where(ExperimentGroupRow.experiment_uid.in_(some))
            done += len(self._session.execute(met.returning(ExperimentGroupRow.experiment_uid)).all())
        return done

    def due(self, *, every: timedelta, limit: int) -> Sequence[KeptGroup]:
        """Return the groups that are to be compared: whose people changed, or that were compared long ago."""
        row = ExperimentGroupRow
        is_due = _is_waiting() | ((row.state == GroupState.FAILED) & (row.looked_at <= self._now - AGAIN))
        if every:
            is_due |= row.looked_at <= self._now - every
        rows = self._session.scalars(select(row).where(is_due).order_by(row.asked_at, row.name).limit(limit)).all()
        people = self._people([one.experiment_uid for one in rows])
        return [
            KeptGroup(one.experiment_uid, one.name, one.gid, one.is_repair, one.asked_by, *people[one.experiment_uid])
            for one in rows
        ]

    def _people(self, uids: Collection[UUID]) -> Mapping[UUID, tuple[frozenset[str], frozenset[str]]]:
        """Return who is to be in each group, and who was ever of the experiment.

        Who shares an account shares it in every experiment: on disk nothing would bind it to one, so it is in no group.
        """
        is_in = GrantRow.is_revoked.is_(False) & UserRow.is_enabled.is_(True) & UserRow.is_shared.is_(False)
        asked = (
            select(GrantRow.experiment_uid, UserRow.username, is_in & ExperimentRow.deleted_at.is_(None))
            .join(UserRow, UserRow.uid == GrantRow.user_uid)
            .join(ExperimentRow, ExperimentRow.uid == GrantRow.experiment_uid)
            .where(GrantRow.experiment_uid.in_(uids), GrantRow.role.in_(sorted(EXPERIMENT_ROLES)))
        )
        wanted: defaultdict[UUID | None, set[str]] = defaultdict(set)
        ours: defaultdict[UUID | None, set[str]] = defaultdict(set)
        for uid, username, is_wanted in self._session.execute(asked):
            ours[uid].add(username)
            if is_wanted:
                wanted[uid].add(username)
        return {uid: (frozenset(wanted[uid]), frozenset(ours[uid])) for uid in uids}

    def next_gid(self, first: int, last: int) -> int:
        """Return the number after the highest that was ever given of a range."""
        row = ExperimentGroupRow
        highest = select(func.max(row.gid)).where(row.gid >= first, row.gid <= last)
        return (self._session.execute(highest).scalar_one() or first - 1) + 1

    def holder_of(self, gid: int) -> str | None:
        """Return the name of the group that has a number."""
        wanted = select(ExperimentGroupRow.name).where(ExperimentGroupRow.gid == gid)
        return self._session.execute(wanted).scalar_one_or_none()

    def settle(self, one: Settled, *, began: datetime) -> None:
        """Record what came of keeping a group; who asked after it began is answered by the next comparison."""
        row = ExperimentGroupRow
        values: dict[str, Any] = {"state": one.state, "message": one.message[:2000]}
        values |= {"tried_at": began, "looked_at": began}
        if one.state is not GroupState.FAILED:
            document = one.difference.model_dump(mode="json", exclude_defaults=True)
            known = {"is_known_to_host": one.is_known_to_host}
            is_asked_since = row.is_repair & (row.asked_at >= began)
            values |= {"gid": one.gid, "difference": document, "is_repair": is_asked_since, **known}
        self._session.execute(update(row).where(row.experiment_uid == one.experiment_uid).values(**values))

    def trouble(self, message: str, *, began: datetime) -> None:
        """Record that the directory server does not answer, for all who wait for it."""
        values = {"state": GroupState.FAILED, "message": message[:2000], "tried_at": began}
        self._session.execute(update(ExperimentGroupRow).where(_is_waiting()).values(**values))

    def get(self, experiment_uid: UUID) -> ExperimentGroup | None:
        """Return the group of an experiment; None where it has none."""
        row = self._session.execute(_groups().where(ExperimentGroupRow.experiment_uid == experiment_uid)).one_or_none()
        return None if row is None else _to_group(*row)

    def page(self, query: GroupQuery, reach: Reach) -> GroupPage:
        """Return the groups of the experiments within reach, by name."""
        row = ExperimentGroupRow
        wanted = _groups().order_by(row.name).limit(query.limit + 1)
        if not reach.is_all:
            wanted = wanted.where(row.experiment_uid.in_(experiment_uids(reach, self._now)))
        if query.is_differing:
            wanted = wanted.where((row.state != GroupState.SAME) | _is_pending())
        if query.after is not None:
            wanted = wanted.where(row.name > from_cursor(query.after, str)[0])
        found = [_to_group(*one) for one in self._session.execute(wanted)]
        more = to_cursor(found[query.limit - 1].name) if len(found) > query.limit else None
        return GroupPage(items=found[: query.limit], next=more)

    def gids_in(self, storage_area_uid: UUID, *, limit: int) -> Sequence[int]:
        """Return the numbers of the newest groups whose experiments lie in a storage area."""
        row = ExperimentGroupRow
        wanted = (
            select(row.gid)
            .join(ExperimentRow, ExperimentRow.uid == row.experiment_uid)
            .where(ExperimentRow.storage_area_uid == storage_area_uid, row.gid.is_not(None))
            .order_by(ExperimentRow.number.desc())
        )
        return [gid for gid in self._session.scalars(wanted.limit(limit)) if gid is not None]


def _is_waiting() -> ColumnElement[bool]:
    row = ExperimentGroupRow
    return or_(row.looked_at.is_(None), row.looked_at <= row.asked_at)


def _is_pending() -> ColumnElement[bool]:
    row = ExperimentGroupRow
    return or_(row.tried_at.is_(None), row.tried_at <= row.asked_at)


def _groups() -> Any:
    return (
        select(ExperimentGroupRow, ExperimentRow.name, StationRow.name)
        .join(ExperimentRow, ExperimentRow.uid == ExperimentGroupRow.experiment_uid)
        .join(StationRow, StationRow.uid == ExperimentRow.station_uid)
        .execution_options(populate_existing=True)
    )


def _to_group(row: ExperimentGroupRow, experiment: str, station: str) -> ExperimentGroup:
    return ExperimentGroup(
        experiment_uid=row.experiment_uid,
        experiment=experiment,
        station=station,
        name=row.name,
        gid=row.gid,
        state=GroupState(row.state),
        message=row.message,
        difference=GroupDifference.model_validate(row.difference),
        is_pending=row.tried_at is None or row.tried_at <= row.asked_at,
        compared_at=row.looked_at,
        is_known_to_host=row.is_known_to_host,
    )
