"""Syncs with the facility's databases: asking for one, and the steps that the engine takes."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from beamkeeper.core import audit_log
from beamkeeper.db import StorageTransaction
from beamkeeper.domain.audit_log import NewAuditEntry
from beamkeeper.domain.errors import ConflictError, NotFoundError
from beamkeeper.domain.people import NewSync, Sync, SyncPage, SyncReport, SyncState
from beamkeeper.domain.users import SITE, Action, Caller, Role, require


def request(tx: StorageTransaction, caller: Caller, new: NewSync) -> Sync:
    """Ask for a sync; the same uid again gives the same one."""
    require(caller, Action.SITE_ADMINISTER, SITE, "the site")
    found = tx.syncs.add(new, asked_by=caller.username)
    if found.kind != new.kind:
        raise ConflictError(f"sync {new.uid} is another one: take a new uid")
    return found


def show(tx: StorageTransaction, caller: Caller, uid: UUID) -> Sync:
    """Return a sync."""
    require(caller, Action.SITE_ADMINISTER, SITE, "the site")
    found = tx.syncs.get(uid)
    if found is None:
        raise NotFoundError(f"there is no sync {uid}", uid=str(uid))
    return found


def page(tx: StorageTransaction, caller: Caller, *, after: str | None, limit: int) -> SyncPage:
    """Return syncs, newest first."""
    require(caller, Action.SITE_ADMINISTER, SITE, "the site")
    return tx.syncs.page(after=after, limit=limit)


def part_with(tx: StorageTransaction, staying: Collection[str], *, source: str, cap: int) -> tuple[int, int]:
    """Deactivate who left, if those are not more than the cap; return how many were, and how many were held back."""
    tx.events.claim()
    leaving = [uid for username, uid in tx.people.active(source).items() if username not in staying]
    if len(leaving) > cap:
        return 0, len(leaving)
    if leaving:
        tx.people.deactivate(leaving)
        if not tx.users.is_granted(Role.ADMINISTRATOR):
            raise ConflictError("nobody would be left who administers the site: make another administrator first")
    return len(leaving), 0


def end(tx: StorageTransaction, new: NewSync, state: SyncState, *, by: str, message: str, report: SyncReport) -> None:
    """Record how a sync ended, for who asked and in the audit log."""
    tx.syncs.end(new.uid, state, message=message, report=report)
    said = message or ", ".join(
        f"{name} {count}" for name, count in report.model_dump().items() if isinstance(count, int) and count
    )
    result = "done" if state is SyncState.DONE else "failed"
    audit_log.note(tx, NewAuditEntry(username=by, action=f"SYNC {new.kind}", result=result, message=said[:256]))
