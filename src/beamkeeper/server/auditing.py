"""Transactions of the edge: what they change leaves a row in the audit log, and so does what was refused."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fastapi import Request

from beamkeeper.core import audit_log
from beamkeeper.db import Database, Transaction
from beamkeeper.domain.audit_log import AuditedChange, NewAuditEntry
from beamkeeper.domain.errors import DmError, InvalidError, NotAuthenticatedError
from beamkeeper.domain.users import Caller, User

logger = logging.getLogger(__name__)

READING = frozenset({"GET", "HEAD", "OPTIONS"})
LONGEST = 256


@contextmanager
def audited(request: Request, database: Database[Any]) -> Iterator[Any]:
    """Open a transaction that is written; its row in the audit log is written with it or not at all."""
    held: list[Any] = []

    def last(tx: Transaction) -> None:
        if not _is_service(request):
            audit_log.note(tx, _entry(request, changes=held[0].changes(), more=held[0].more))

    with database.write(last=last) as tx:
        recorder = tx.audit_log.record()
        recorder.is_off = _is_service(request)
        held.append(recorder)
        yield tx


def refused(request: Request, database: Database[Any], error: DmError | None) -> None:
    """Leave a row of a change that was refused, or that failed; reading, and what made no sense, leave none."""
    is_somebody = isinstance(_caller(request), Caller) or _acting(request)
    is_nobody = isinstance(error, NotAuthenticatedError) and not _acting(request)
    if request.method in READING or not is_somebody or _is_service(request) or is_nobody:
        return
    if isinstance(error, InvalidError):
        return
    code, message = ("internal", "") if error is None else (error.code, error.message[:LONGEST])
    try:
        with database.write() as tx:
            audit_log.note(tx, _entry(request, result=code, message=message))
    except Exception:
        logger.exception("the audit log could not be written", extra={"path": request.url.path, "code": code})


def acting_as(request: Request, user: User | None) -> None:
    """Say whose login a request is; of names that are no account nothing is kept: people type passwords there."""
    if user is not None:
        request.state.acting = user.username


def _entry(
    request: Request, *, changes: Sequence[AuditedChange] = (), more: int = 0, result: str = "done", message: str = ""
) -> NewAuditEntry:
    caller = _caller(request)
    return NewAuditEntry(
        username=(caller.username if caller else _acting(request))[:LONGEST],
        user_uid=caller.user_uid if caller else None,
        session_uid=caller.session_uid if caller else None,
        address=request.client.host if request.client else "",
        action=f"{request.method} {_route(request)}",
        target={name: str(value)[:LONGEST] for name, value in request.path_params.items()},
        result=result,
        message=message,
        changes=changes,
        more=more,
    )


def _route(request: Request) -> str:
    path = getattr(request.scope.get("route"), "path", request.url.path)
    return str(path).removeprefix("/api/v1")


def _caller(request: Request) -> Caller | None:
    return getattr(request.state, "caller", None)


def _acting(request: Request) -> str:
    return str(getattr(request.state, "acting", ""))


def _is_service(request: Request) -> bool:
    caller = _caller(request)
    return caller is not None and caller.is_service
