"""Commands for stations, as they wait at the site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Index, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, NullableDocument
from beamkeeper.domain.commands import CommandAnswer, CommandState, NewCommand
from beamkeeper.domain.errors import NotFoundError
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.status import Service

MOST_AT_ONCE = 20


class StationCommandRow(Base):
    """A command."""

    __tablename__ = "station_commands"
    services = frozenset({Service.STORAGE})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    station_uid: Mapped[UUID]
    experiment_uid: Mapped[UUID]
    user_uid: Mapped[UUID]
    asked_by: Mapped[str]
    bound_experiment_uid: Mapped[UUID | None]
    identities: Mapped[int] = mapped_column(BigId)
    request: Mapped[Metadata]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    is_done: Mapped[bool | None]
    code: Mapped[str]
    message: Mapped[str]
    answer: Mapped[Metadata | None] = mapped_column(NullableDocument)
    ended_at: Mapped[datetime | None]

    __table_args__ = (Index(None, "station_uid", "id"),)


@dataclass(frozen=True, slots=True)
class HeldCommand:
    """A command as it is kept."""

    new: NewCommand
    station_uid: UUID
    user_uid: UUID
    asked_by: str
    bound_experiment_uid: UUID | None
    identities: int
    created_at: datetime
    expires_at: datetime
    state: CommandState
    code: str
    message: str
    answer: Metadata | None
    ended_at: datetime | None


class StationCommands:
    """Queries on commands for stations."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def add(
        self, new: NewCommand, *, station_uid: UUID, user_uid: UUID, by: str, bound: UUID | None, identities: int
    ) -> None:
        """Keep a command."""
        row = StationCommandRow(
            uid=new.uid,
            station_uid=station_uid,
            experiment_uid=new.experiment_uid,
            user_uid=user_uid,
            asked_by=by,
            bound_experiment_uid=bound,
            identities=identities,
            request=new.model_dump(mode="json"),
            created_at=self._now,
            expires_at=self._now + timedelta(hours=new.hours),
            is_done=None,
            code="",
            message="",
            answer=None,
            ended_at=None,
        )
        self._session.add(row)
        self._session.flush()  # so that the uid's constraint speaks here

    def find(self, uid: UUID) -> HeldCommand | None:
        """Return a command, None where there is none."""
        row = self._session.scalars(select(StationCommandRow).where(StationCommandRow.uid == uid)).one_or_none()
        return None if row is None else self._held(row)

    def get(self, uid: UUID) -> HeldCommand:
        """Return a command."""
        if (found := self.find(uid)) is None:
            raise NotFoundError(f"there is no command {uid}", uid=str(uid))
        return found

    def waiting(self, station_uid: UUID) -> Sequence[HeldCommand]:
        """Return the commands that a station should do now, in the order in which they were given."""
        wanted = select(StationCommandRow).where(
            StationCommandRow.station_uid == station_uid,
            StationCommandRow.ended_at.is_(None),
            StationCommandRow.expires_at > self._now,
        )
        rows = self._session.scalars(wanted.order_by(StationCommandRow.id).limit(MOST_AT_ONCE))
        return [self._held(row) for row in rows]

    def of_station(
        self, station_uid: UUID, *, limit: int, user_uid: UUID | None = None, bound: UUID | None = None
    ) -> Sequence[HeldCommand]:
        """Return the commands of a station, newest first: all, or those of a user, or those within one experiment."""
        wanted = select(StationCommandRow).where(StationCommandRow.station_uid == station_uid)
        if user_uid is not None:
            wanted = wanted.where(StationCommandRow.user_uid == user_uid)
        if bound is not None:
            wanted = wanted.where(StationCommandRow.experiment_uid == bound)
        return [
            self._held(row) for row in self._session.scalars(wanted.order_by(StationCommandRow.id.desc()).limit(limit))
        ]

    def end(self, uid: UUID, answer: CommandAnswer) -> None:
        """Keep what became of a command; the first answer counts."""
        is_open = (StationCommandRow.uid == uid) & StationCommandRow.ended_at.is_(None)
        self._session.execute(
            update(StationCommandRow).where(is_open).values(**answer.model_dump(), ended_at=self._now)
        )
        self._session.expire_all()

    def _held(self, row: StationCommandRow) -> HeldCommand:
        if row.ended_at is not None:
            state = CommandState.DONE if row.is_done else CommandState.REFUSED
        else:
            state = CommandState.WAITING if row.expires_at > self._now else CommandState.EXPIRED
        return HeldCommand(
            new=NewCommand.model_validate(row.request),
            station_uid=row.station_uid,
            user_uid=row.user_uid,
            asked_by=row.asked_by,
            bound_experiment_uid=row.bound_experiment_uid,
            identities=row.identities,
            created_at=row.created_at,
            expires_at=row.expires_at,
            state=state,
            code=row.code,
            message=row.message,
            answer=row.answer,
            ended_at=row.ended_at,
        )
