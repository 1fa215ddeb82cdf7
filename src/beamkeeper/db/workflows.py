"""Workflows: tables and queries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from pydantic import JsonValue
from sqlalchemy import ForeignKey, UniqueConstraint, select, tuple_
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, new_uid
from beamkeeper.db.pages import from_cursor, to_cursor
from beamkeeper.domain.errors import ConflictError, NotFoundError
from beamkeeper.domain.status import Service
from beamkeeper.domain.workflows import Definition, checked_definition
from beamkeeper.domain.workflows.stored import Workflow, WorkflowPage, WorkflowQuery


class WorkflowRow(Base):
    """A workflow; `number` is its newest version."""

    __tablename__ = "workflows"
    __table_args__ = (UniqueConstraint("owner", "name"),)
    services = frozenset({Service.PROCESSING})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    owner: Mapped[str]
    name: Mapped[str]
    number: Mapped[int] = mapped_column(BigId)
    deleted_at: Mapped[datetime | None]


class WorkflowVersionRow(Base):
    """One version of a workflow, kept for ever."""

    __tablename__ = "workflow_versions"
    services = frozenset({Service.PROCESSING})

    workflow_id: Mapped[int] = mapped_column(BigId, ForeignKey("workflows.id"), primary_key=True)
    number: Mapped[int] = mapped_column(BigId, primary_key=True)
    definition: Mapped[dict[str, JsonValue]]
    note: Mapped[str]
    added_at: Mapped[datetime]
    added_by: Mapped[str]


class Workflows:
    """Queries on workflows."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def find(self, owner: str | None, name: str, number: int | None = None) -> Workflow:
        """Return a workflow by its name, the newest version or another; without an owner, the only one."""
        wanted = select(WorkflowRow).where(WorkflowRow.name == name, WorkflowRow.deleted_at.is_(None))
        if owner:
            wanted = wanted.where(WorkflowRow.owner == owner)
        found = self._session.scalars(wanted.order_by(WorkflowRow.owner)).all()
        if not found:
            whose = f" of {owner}" if owner else ""
            raise NotFoundError(f'there is no workflow "{name}"{whose}: `dm workflow list` shows all', name=name)
        if len(found) > 1:
            owners = ", ".join(row.owner for row in found)
            raise ConflictError(f'several people have a workflow "{name}": say whose it is ({owners})', name=name)
        return self._to_workflow(found[0], number)

    def get(self, uid: UUID, number: int | None = None) -> Workflow:
        """Return a workflow in its newest version, or another."""
        return self._to_workflow(self._row(uid), number)

    def held(self, owner: str, name: str) -> Workflow | None:
        """Return the workflow that has this name, deleted or not; it is locked until the transaction ends."""
        wanted = select(WorkflowRow).where(WorkflowRow.owner == owner, WorkflowRow.name == name).with_for_update()
        row = self._session.scalars(wanted).one_or_none()
        return None if row is None else self._to_workflow(row)

    def page(self, query: WorkflowQuery) -> WorkflowPage:
        """Return workflows by name and owner."""
        key = (WorkflowRow.name, WorkflowRow.owner)
        wanted = select(WorkflowRow).where(WorkflowRow.deleted_at.is_(None)).order_by(*key).limit(query.limit + 1)
        if query.owner is not None:
            wanted = wanted.where(WorkflowRow.owner == query.owner)
        if query.name is not None:
            wanted = wanted.where(WorkflowRow.name == query.name)
        if query.after is not None:
            wanted = wanted.where(tuple_(*key) > tuple_(*from_cursor(query.after, str, str)))
        rows = self._session.scalars(wanted).all()
        shown = [self._to_workflow(row) for row in rows[: query.limit]]
        more = to_cursor(shown[-1].name, shown[-1].owner) if len(rows) > query.limit else None
        return WorkflowPage(items=tuple(shown), next=more)

    def history(self, uid: UUID) -> Sequence[Workflow]:
        """Return every version of a workflow, newest first."""
        row = self._row(uid)
        wanted = select(WorkflowVersionRow).where(WorkflowVersionRow.workflow_id == row.id)
        versions = self._session.scalars(wanted.order_by(WorkflowVersionRow.number.desc()))
        return [_to_workflow(row, version) for version in versions]

    def add(self, owner: str, definition: Definition, *, note: str, by: str) -> Workflow:
        """Keep a workflow whose name is free."""
        row = WorkflowRow(uid=new_uid(), owner=owner, name=definition.name, number=0)
        self._session.add(row)
        self._session.flush()
        return self._next(row, definition, note, by)

    def change(self, uid: UUID, definition: Definition, *, note: str, by: str) -> Workflow:
        """Keep a new version of a workflow, which is the present one from now on; one that was deleted is back."""
        row = self._row(uid)
        row.deleted_at = None
        return self._next(row, definition, note, by)

    def delete(self, uid: UUID) -> None:
        """Hide a workflow; its versions stay, since jobs have run them."""
        self._row(uid).deleted_at = self._now
        self._session.flush()

    def _next(self, row: WorkflowRow, definition: Definition, note: str, by: str) -> Workflow:
        row.number += 1
        document = definition.model_dump(mode="json", exclude_defaults=True)
        version = WorkflowVersionRow(
            workflow_id=row.id, number=row.number, definition=document, note=note, added_at=self._now, added_by=by
        )
        self._session.add(version)
        self._session.flush()
        return _to_workflow(row, version)

    def _row(self, uid: UUID) -> WorkflowRow:
        row = self._session.scalars(select(WorkflowRow).where(WorkflowRow.uid == uid)).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no workflow {uid}", uid=str(uid))
        return row

    def _to_workflow(self, row: WorkflowRow, number: int | None = None) -> Workflow:
        version = self._session.get(WorkflowVersionRow, (row.id, number or row.number))
        if version is None:
            raise NotFoundError(f'workflow "{row.name}" has no version {number}: it has {row.number}', number=number)
        return _to_workflow(row, version)


def _to_workflow(row: WorkflowRow, version: WorkflowVersionRow) -> Workflow:
    return Workflow(
        uid=row.uid,
        name=row.name,
        owner=row.owner,
        number=version.number,
        is_newest=version.number == row.number,
        definition=checked_definition(version.definition),
        note=version.note,
        added_at=version.added_at,
        added_by=version.added_by,
        deleted_at=row.deleted_at,
    )
