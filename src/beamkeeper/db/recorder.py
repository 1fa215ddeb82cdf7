"""What a transaction changes, row by row, before and after: for the audit log."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from pydantic import JsonValue
from sqlalchemy import Insert, Table, event, inspect, select
from sqlalchemy.orm import ORMExecuteState, Session, UOWTransaction
from sqlalchemy.sql.dml import UpdateBase

from beamkeeper.domain.audit_log import MOST_CHANGES, AuditedChange

_SECRET = re.compile(r"password|passphrase|secret|token|credential|verifier|hash|private|_key$|^key$", re.IGNORECASE)
_IN_URL = re.compile(r"(://[^/?#@:]*):[^@/?#]*@")
_BOOKKEEPING = frozenset(
    {
        "events",
        "sequence",
        "changes",
        "audit_log",
        "journal",
        "publish_items",
        "storage_tasks",
        "mirror_state",
        "login_attempts",
    }
)
_LOCAL = frozenset({"id", "revision"})
LONGEST_TEXT = 2000


class Recorder:
    """Listens to one session; a thing that changes twice is one change."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._seen: dict[tuple[str, str], tuple[Table, Mapping[str, Any] | None]] = {}
        self._made: list[AuditedChange] = []
        self.more = 0
        self.is_off = False
        """Set where nothing is to be recorded, as for services."""
        event.listen(session, "do_orm_execute", self._statement)
        event.listen(session, "before_flush", self._flush)

    def changes(self) -> Sequence[AuditedChange]:
        """Return what has changed so far."""
        found = list(self._made)
        for (name, _), (table, before) in self._seen.items():
            after = self._row(table, before) if before is not None else None
            if change := _difference(name, before, after):
                found.append(change)
        return found[:MOST_CHANGES]

    def _statement(self, state: ORMExecuteState) -> None:
        statement = state.statement
        if self.is_off or not isinstance(statement, UpdateBase) or not isinstance(statement.table, Table):
            return
        table = statement.table
        if not _is_audited(table):
            return
        if isinstance(statement, Insert):
            self._insert(table, statement, state.parameters)
            return
        where = getattr(statement, "_where_criteria", ())
        connection = self._session.connection()
        parameters = state.parameters if isinstance(state.parameters, Mapping) else None
        rows = connection.execute(select(table).where(*where).limit(MOST_CHANGES + 1), parameters).mappings()
        for row in rows:
            self._keep(table, dict(row))

    def _insert(self, table: Table, statement: Insert, parameters: Any) -> None:
        if statement.select is not None:
            self.more += 1
            return
        given = parameters if isinstance(parameters, Sequence) else [parameters or {}]
        fixed = {getattr(k, "key", str(k)): v for k, v in (getattr(statement, "_values", None) or {}).items()}
        several = [values for each in getattr(statement, "_multi_values", ()) for values in each]
        for values in several or given:
            named = {getattr(k, "key", str(k)): v for k, v in dict(values).items()}
            after = {k: getattr(v, "value", v) for k, v in {**fixed, **named}.items()}
            self._add(AuditedChange(table=table.name, uid=_uid(after), after=_plain(after)))

    def _flush(self, session: Session, _context: UOWTransaction, _instances: object) -> None:
        if self.is_off:
            return
        for new in session.new:
            state = inspect(new)
            if _is_audited(state.mapper.local_table):
                values = {attr.key: attr.loaded_value for attr in state.attrs if attr.key in state.dict}
                self._add(AuditedChange(table=state.mapper.local_table.name, uid=_uid(values), after=_plain(values)))
        for changed in (*session.dirty, *session.deleted):
            state = inspect(changed)
            table = state.mapper.local_table
            if isinstance(table, Table) and _is_audited(table):
                self._keep(table, self._row(table, {c.name: getattr(changed, c.key) for c in table.primary_key}))

    def _row(self, table: Table, key: Mapping[str, Any]) -> Mapping[str, Any] | None:
        wanted = select(table).where(*(column == key[column.name] for column in table.primary_key))
        found = self._session.connection().execute(wanted).mappings().one_or_none()
        return None if found is None else dict(found)

    def _keep(self, table: Table, before: Mapping[str, Any] | None) -> None:
        if before is None:
            return
        key = (table.name, ",".join(str(before[column.name]) for column in table.primary_key))
        if key in self._seen:
            return
        if len(self._seen) + len(self._made) >= MOST_CHANGES:
            self.more += 1
            return
        self._seen[key] = (table, before)

    def _add(self, change: AuditedChange) -> None:
        if len(self._seen) + len(self._made) >= MOST_CHANGES:
            self.more += 1
        else:
            self._made.append(change)


def _is_audited(table: Any) -> bool:
    return table.name not in _BOOKKEEPING and not table.info.get("is_derived")


def _difference(name: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> AuditedChange | None:
    old, new = _plain(before or {}), _plain(after or {})
    secrets = {k for k in old if k in new and (before or {}).get(k) != (after or {}).get(k)}
    if after is not None:
        old, new = {k: v for k, v in old.items() if k in secrets}, {k: v for k, v in new.items() if k in secrets}
        if not new:
            return None
    return AuditedChange(table=name, uid=_uid(before or {}), before=old, after=new if after is not None else None)


def _uid(row: Mapping[str, Any]) -> str:
    return str(row.get("uid") or row.get("user_uid") or "")


def _plain(row: Mapping[str, Any]) -> dict[str, JsonValue]:
    return {name: _value(name, value) for name, value in row.items() if name not in _LOCAL}


def _value(name: str, value: Any) -> JsonValue:
    if _SECRET.search(name) and value is not None:
        return "(secret)"
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")[:LONGEST_TEXT]
    if isinstance(value, Mapping):
        return {str(key): _value(str(key), each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return list(map(partial(_value, name), value))
    text = str(value) if isinstance(value, str | UUID) else repr(value)
    return _IN_URL.sub(r"\1:(secret)@", text)[:LONGEST_TEXT]
