"""The audit log: writing what was changed, showing it, and checking that nobody changed the log."""

from __future__ import annotations

import logging

from beamkeeper.db import Transaction
from beamkeeper.domain.audit_log import FIRST_DIGEST, AuditChain, AuditPage, AuditQuery, NewAuditEntry, digest_of
from beamkeeper.domain.users import SITE, Action, Caller, require

logger = logging.getLogger(__name__)

MOST_FAULTS = 20


def note(tx: Transaction, entry: NewAuditEntry) -> None:
    """Write a row; its digest goes to the service's log as well, which may be kept where no database reaches."""
    written = tx.audit_log.add(entry)
    facts = {"number": written.number, "digest": written.digest, "action": entry.action, "result": entry.result}
    logger.info("audited", extra=facts)


def page(tx: Transaction, caller: Caller, query: AuditQuery) -> AuditPage:
    """Return rows, newest first."""
    require(caller, Action.AUDIT_LOG_READ, SITE, "the audit log")
    return tx.audit_log.page(query)


def check(tx: Transaction, caller: Caller, *, number: int | None = None, digest: str | None = None) -> AuditChain:
    """Follow the chain from the first row to the last; with a number and a digest, whether that row still has it."""
    require(caller, Action.AUDIT_LOG_READ, SITE, "the audit log")
    faults, rows, last, before = [], 0, 0, FIRST_DIGEST
    found = None
    for entry in tx.audit_log.all():
        if entry.number != last + 1:
            faults.append(f"rows {last + 1} to {entry.number - 1} are gone")
        if entry.digest != digest_of(before, entry.number, entry.at, entry):
            faults.append(f"row {entry.number} is not what was written, or the one before it is not")
        if entry.number == number:
            found = entry.digest
        rows, last, before = rows + 1, entry.number, entry.digest
    if number is not None and found is None:
        faults.append(f"row {number} is gone")
    elif number is not None and found != digest:
        faults.append(f"row {number} has another digest than was kept")
    return AuditChain(rows=rows, number=last, digest=before, faults=faults[:MOST_FAULTS])
