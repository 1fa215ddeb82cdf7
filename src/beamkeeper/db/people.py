"""A facility's people as accounts of ours: many at a time, in a few statements."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar, cast
from uuid import UUID

from sqlalchemy import Table, bindparam, delete, func, insert, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, new_uids
from beamkeeper.db.events import Events
from beamkeeper.db.many import execute_many
from beamkeeper.db.users import CredentialRow, SessionRow, UserRow
from beamkeeper.domain.people import DirectoryAccount, Person, Refused
from beamkeeper.domain.status import Service

_USERS = cast(Table, UserRow.__table__)
_TAKEN = ("full_name", "email", "badge", "institution")
IN_ONE_STATEMENT = 5000
ValueT = TypeVar("ValueT")


class DepartureRow(Base):
    """Somebody whom a sync deactivated: if they come back, so does the account. Whom a person disabled is not here."""

    __tablename__ = "departures"
    services = frozenset({Service.STORAGE})

    user_uid: Mapped[UUID] = mapped_column(primary_key=True)
    left_at: Mapped[datetime]


@dataclass(frozen=True, slots=True)
class Taken:
    """What taking over some people changed."""

    added: int = 0
    updated: int = 0
    reactivated: int = 0
    refused: Sequence[Refused] = ()


class People:
    """Queries on accounts that come from a directory."""

    def __init__(self, session: Session, events: Events, now: datetime) -> None:
        self._session = session
        self._events = events
        self._now = now

    def take(self, people: Sequence[Person], *, source: str) -> Taken:
        """Add and update the accounts of these people, and bring back who had left."""
        revision = self._events.revise()
        known = {row.username: row for row in self._rows(UserRow.username, [person.username for person in people])}
        left = set(self._session.scalars(select(DepartureRow.user_uid)))
        new, changed, adopted, back, refused = [], [], [], [], []
        for person in {person.username: person for person in people}.values():
            row = known.get(person.username)
            if row is None:
                if person.is_active:
                    new.append(person)
            elif row.source != source and not (row.source == "" and row.badge and row.badge == person.badge):
                kept = f'of directory "{row.source}"' if row.source else "kept here, and has not the same badge"
                refused.append(Refused(what=person.username, why=f"there is an account of this name that is {kept}"))
            else:
                is_back = person.is_active and not row.is_enabled and row.uid in left
                if is_back:
                    back.append(row.uid)
                if row.source != source:
                    adopted.append(row.uid)
                if is_back or row.source != source or any(getattr(row, f) != getattr(person, f) for f in _TAKEN):
                    changed.append({"b_uid": row.uid, "is_enabled": row.is_enabled or is_back, **_values(person)})
        self._add(new, source, revision)
        if changed:
            columns: dict[str, Any] = {name: bindparam(name) for name in (*_TAKEN, "is_enabled")}
            statement = update(_USERS).where(_USERS.c.uid == bindparam("b_uid"))
            execute_many(self._session, statement.values(**columns, source=source, revision=revision), changed)
        for some in in_parts(adopted, IN_ONE_STATEMENT):  # the directory has their passwords from now on
            self._session.execute(delete(CredentialRow).where(CredentialRow.user_uid.in_(some)))
        for some in in_parts(back, IN_ONE_STATEMENT):
            self._session.execute(delete(DepartureRow).where(DepartureRow.user_uid.in_(some)))
        return Taken(len(new), len(changed) - len(back), len(back), refused)

    def active(self, source: str) -> dict[str, UUID]:
        """Return the accounts of a directory that are enabled."""
        wanted = select(UserRow.username, UserRow.uid).where(UserRow.source == source, UserRow.is_enabled.is_(True))
        return {row.username: row.uid for row in self._session.execute(wanted)}

    def deactivate(self, uids: Collection[UUID]) -> None:
        """Disable accounts and end their sessions and keys; nothing is deleted."""
        revision = self._events.revise()
        for some in in_parts(uids, IN_ONE_STATEMENT):
            self._session.execute(
                update(UserRow).where(UserRow.uid.in_(some)).values(is_enabled=False, revision=revision)
            )
            self._session.execute(
                update(SessionRow)
                .where(SessionRow.user_uid.in_(some), SessionRow.revoked_at.is_(None))
                .values(revoked_at=self._now, revision=revision)
            )
        rows = [{"user_uid": uid, "left_at": self._now} for uid in uids]
        if rows:
            execute_many(self._session, insert(cast(Table, DepartureRow.__table__)), rows)

    def forget_departure(self, uid: UUID) -> None:
        """Let an account be enabled or disabled by hand from now on, whatever a sync did with it."""
        self._session.execute(delete(DepartureRow).where(DepartureRow.user_uid == uid))

    def accounts(self, source: str) -> Iterator[DirectoryAccount]:
        """Yield the accounts of a directory as a directory server is to have them, without passwords."""
        columns = (UserRow.username, UserRow.number, UserRow.full_name, UserRow.email, UserRow.badge)
        wanted = select(*columns, UserRow.institution, UserRow.is_enabled).where(UserRow.source == source)
        for row in self._session.execute(wanted).mappings():
            yield DirectoryAccount.model_validate(dict(row))

    def _add(self, people: Sequence[Person], source: str, revision: int) -> None:
        if not people:
            return
        last = self._session.execute(select(func.max(UserRow.number))).scalar_one() or 0
        fixed = {"is_shared": False, "is_enabled": True, "created_at": self._now, "source": source}
        rows = [
            {
                **fixed,
                **_values(person),
                "uid": uid,
                "username": person.username,
                "number": number,
                "revision": revision,
            }
            for number, (uid, person) in enumerate(zip(new_uids(len(people)), people, strict=True), start=last + 1)
        ]
        execute_many(self._session, insert(_USERS), rows)

    def _rows(self, column: Any, values: Sequence[str]) -> Iterator[Any]:
        columns = (UserRow.uid, UserRow.username, UserRow.is_enabled, UserRow.source)
        for some in in_parts(values, IN_ONE_STATEMENT):
            wanted = select(*columns, *(getattr(UserRow, name) for name in _TAKEN)).where(column.in_(some))
            yield from self._session.execute(wanted)


def in_parts(values: Iterable[ValueT], size: int) -> Iterator[list[ValueT]]:
    """Yield lists of so many values: databases take only so many parameters."""
    rest = iter(values)
    while some := list(islice(rest, size)):
        yield some


def _values(person: Person) -> Mapping[str, str]:
    return {name: getattr(person, name) for name in _TAKEN}
