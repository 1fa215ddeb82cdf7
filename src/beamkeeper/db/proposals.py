"""A facility's proposals and forms, and the roles that follow from them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Table, UniqueConstraint, bindparam, insert, select, tuple_, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, new_uids, upsert
from beamkeeper.db.events import Events
from beamkeeper.db.experiments import ExperimentRow
from beamkeeper.db.many import execute_many
from beamkeeper.db.pages import from_cursor, to_cursor
from beamkeeper.db.people import IN_ONE_STATEMENT, in_parts
from beamkeeper.db.texts import has_text
from beamkeeper.db.users import GrantRow, UserRow
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.people import Proposal, ProposalKind, ProposalPage, ProposalQuery, union
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import EXPERIMENT_ROLES, Role

FROM_PROPOSAL = "proposal"
"""The source of roles that follow a proposal; those that somebody gave or took by hand have none."""

_GRANTS = cast(Table, GrantRow.__table__)


class ProposalRow(Base):
    """A proposal or a form, as the facility has it; one that is gone there stays here."""

    __tablename__ = "proposals"
    services = frozenset({Service.STORAGE})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    kind: Mapped[str]
    number: Mapped[str]
    title: Mapped[str]
    document: Mapped[Metadata]
    changed_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("kind", "number"),)


@dataclass(frozen=True, slots=True)
class _Held:
    """A role as a row has it."""

    uid: UUID
    user_uid: UUID
    role: Role
    is_revoked: bool
    source: str


class Proposals:
    """Queries on proposals."""

    def __init__(self, session: Session, events: Events, now: datetime) -> None:
        self._session = session
        self._events = events
        self._now = now

    def is_any(self) -> bool:
        """Whether any is known: a site without a source of proposals has none."""
        return self._session.execute(select(ProposalRow.id).limit(1)).first() is not None

    def get(self, kind: ProposalKind, number: str) -> Proposal | None:
        """Return a proposal or a form, or None."""
        return self._by_number(kind, [number]).get(number)

    def page(self, query: ProposalQuery) -> ProposalPage:
        """Return some by number: those that are wanted."""
        wanted = select(ProposalRow).order_by(ProposalRow.number, ProposalRow.kind).limit(query.limit + 1)
        if query.text:
            wanted = wanted.where(has_text(query.text, ProposalRow.number, ProposalRow.title))
        if query.kind is not None:
            wanted = wanted.where(ProposalRow.kind == query.kind)
        if query.number is not None:
            wanted = wanted.where(ProposalRow.number == query.number)
        if query.after is not None:
            place = tuple_(*from_cursor(query.after, str, str))
            wanted = wanted.where(tuple_(ProposalRow.number, ProposalRow.kind) > place)
        rows = self._session.scalars(wanted).all()
        shown = rows[: query.limit]
        return ProposalPage(
            items=tuple(Proposal.model_validate(row.document) for row in shown),
            next=to_cursor(shown[-1].number, shown[-1].kind) if len(rows) > query.limit else None,
        )

    def pi_of(self, proposals: Sequence[Proposal]) -> str | None:
        """Return the username of the first PI who has an account."""
        keys = [key for key, is_pi in union(proposals).items() if is_pi]
        users = self._users(keys)
        uid = next((users[key] for key in keys if key in users), None)
        return (
            None
            if uid is None
            else self._session.execute(select(UserRow.username).where(UserRow.uid == uid)).scalar_one()
        )

    def take(self, proposals: Sequence[Proposal]) -> tuple[int, int]:
        """Add and update these; return how many of each."""
        news = {(one.kind, one.number): one for one in proposals}
        known = {
            (kind, number): found
            for kind in ProposalKind
            for number, found in self._by_number(kind, [n for k, n in news if k is kind]).items()
        }
        changed = [one for key, one in news.items() if known.get(key) != one]
        rows = [
            {
                "kind": str(one.kind),
                "number": one.number,
                "title": one.title,
                "document": one.model_dump(mode="json"),
                "changed_at": self._now,
            }
            for one in changed
        ]
        for some in in_parts(rows, 1000):
            upsert(self._session, ProposalRow, some, key=["kind", "number"])
        added = sum((one.kind, one.number) not in known for one in changed)
        return added, len(changed) - added

    def follow(self, experiment_uids: Collection[UUID] | None = None) -> tuple[int, int]:
        """Give and take the roles that follow from proposals, of some experiments or all; return how many of each.

        Roles that somebody gave by hand stay, and whom somebody removed by hand is not added again.
        """
        wanted = self._wanted(experiment_uids)
        holding = self._held(wanted)
        rows: list[dict[str, Any]] = []
        values: list[dict[str, Any]] = []
        for uid, roles in wanted.items():
            held = holding.get(uid, [])
            for user_uid in {*roles, *(one.user_uid for one in held)}:
                own = [one for one in held if one.user_uid == user_uid]
                if any(one.source != FROM_PROPOSAL for one in own):
                    continue
                role = roles.get(user_uid)
                values += [
                    {"b_uid": one.uid, "is_revoked": one.role != role}
                    for one in own
                    if one.is_revoked != (one.role != role)
                ]
                if role is not None and all(one.role != role for one in own):
                    rows.append({"user_uid": user_uid, "role": str(role), "experiment_uid": uid, "scope": str(uid)})
        self._write(rows, values)
        removed = sum(value["is_revoked"] for value in values)
        return len(rows) + len(values) - removed, removed

    def _write(self, rows: Sequence[dict[str, Any]], values: Sequence[dict[str, Any]]) -> None:
        if not rows and not values:
            return
        revision = self._events.revise()
        if rows:
            fixed = {"station_uid": None, "is_revoked": False, "source": FROM_PROPOSAL, "revision": revision}
            new = [{**fixed, **row, "uid": uid} for row, uid in zip(rows, new_uids(len(rows)), strict=True)]
            execute_many(self._session, insert(_GRANTS), new)
        if values:
            statement = update(_GRANTS).where(_GRANTS.c.uid == bindparam("b_uid"))
            execute_many(
                self._session, statement.values(is_revoked=bindparam("is_revoked"), revision=revision), list(values)
            )

    def _wanted(self, experiment_uids: Collection[UUID] | None) -> dict[UUID, dict[UUID, Role]]:
        """Return who is to have which role in each experiment that has a proposal or a form that is known."""
        asked = select(ExperimentRow.uid, ExperimentRow.proposal, ExperimentRow.esaf).where(
            ExperimentRow.deleted_at.is_(None), (ExperimentRow.proposal != "") | (ExperimentRow.esaf != "")
        )
        if experiment_uids is not None:
            asked = asked.where(ExperimentRow.uid.in_(experiment_uids))
        experiments = self._session.execute(asked).all()
        gups = self._by_number(ProposalKind.GUP, {row.proposal for row in experiments if row.proposal})
        esafs = self._by_number(ProposalKind.ESAF, {row.esaf for row in experiments if row.esaf})
        papers = {
            row.uid: [one for one in (gups.get(row.proposal), esafs.get(row.esaf)) if one is not None]
            for row in experiments
        }
        people = {uid: union(found) for uid, found in papers.items() if found}
        users = self._users({key for found in people.values() for key in found})
        return {uid: _roles(found, users) for uid, found in people.items()}

    def _users(self, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], UUID]:
        """Return the accounts that people are meant by, by username, else by badge where only one has it."""
        by_name: dict[str, UUID] = {}
        by_badge: dict[str, list[UUID]] = {}
        for some in in_parts({name for name, _ in keys if name}, IN_ONE_STATEMENT):
            found = self._session.execute(select(UserRow.username, UserRow.uid).where(UserRow.username.in_(some)))
            by_name.update({row.username: row.uid for row in found})
        for some in in_parts({badge for name, badge in keys if badge and name not in by_name}, IN_ONE_STATEMENT):
            for badge, uid in self._session.execute(select(UserRow.badge, UserRow.uid).where(UserRow.badge.in_(some))):
                by_badge.setdefault(badge, []).append(uid)
        meant = {key: [by_name[key[0]]] if key[0] in by_name else by_badge.get(key[1], []) for key in keys}
        return {key: uids[0] for key, uids in meant.items() if len(uids) == 1}

    def _by_number(self, kind: ProposalKind, numbers: Collection[str]) -> dict[str, Proposal]:
        return dict(self._documents(kind, numbers))

    def _documents(self, kind: ProposalKind, numbers: Collection[str]) -> Iterator[tuple[str, Proposal]]:
        for some in in_parts(numbers, IN_ONE_STATEMENT):
            wanted = select(ProposalRow.number, ProposalRow.document)
            for row in self._session.execute(wanted.where(ProposalRow.kind == kind, ProposalRow.number.in_(some))):
                yield row.number, Proposal.model_validate(row.document)

    def _held(self, experiment_uids: Collection[UUID]) -> dict[UUID, list[_Held]]:
        found: dict[UUID, list[_Held]] = {}
        columns = (GrantRow.uid, GrantRow.user_uid, GrantRow.role, GrantRow.is_revoked, GrantRow.source)
        wanted = select(GrantRow.experiment_uid, *columns).where(GrantRow.role.in_(sorted(EXPERIMENT_ROLES)))
        for some in in_parts(experiment_uids, IN_ONE_STATEMENT):
            for row in self._session.execute(wanted.where(GrantRow.experiment_uid.in_(some))):
                held = _Held(row.uid, row.user_uid, Role(row.role), row.is_revoked, row.source)
                found.setdefault(row.experiment_uid, []).append(held)
        return found


def _roles(people: Mapping[tuple[str, str], bool], users: Mapping[tuple[str, str], UUID]) -> dict[UUID, Role]:
    found: dict[UUID, Role] = {}
    for key, is_pi in people.items():
        uid = users.get(key)
        if uid is not None and found.get(uid) is not Role.PI:
            found[uid] = Role.PI if is_pi else Role.USER
    return found
