"""Some files of a DAQ or upload that was started: tried again, or taken before all others; and who may ask for it."""

from __future__ import annotations

from uuid import UUID

from beamkeeper.core import acquisition as core
from beamkeeper.db import AcquisitionTransaction
from beamkeeper.db.news import Topic
from beamkeeper.domain.acquisition import (
    ACTIVE,
    Acquisition,
    JournalState,
    Kind,
    Picked,
    PriorityRequest,
    RetryRequest,
    State,
)
from beamkeeper.domain.errors import ConflictError
from beamkeeper.domain.globs import matcher
from beamkeeper.domain.users import Caller

NAMES = {Kind.DAQ: "DAQ", Kind.UPLOAD: "upload"}


def retry(
    tx: AcquisitionTransaction, caller: Caller, uid: UUID, *, request: RetryRequest, kind: Kind | None = None
) -> Picked:
    """Try quarantined files again; one that has failed runs again for them, and for nothing else."""
    found = _locked(tx, caller, uid, kind=kind)
    name = f"{NAMES[found.kind]} {uid}"
    if found.state is State.ABORTED:
        raise ConflictError(
            f"{name} was stopped before all was delivered: start another for its directory, which takes the rest",
            state=str(found.state),
        )
    is_meant = matcher((request.pattern,)) if request.pattern is not None else lambda path: True
    count = tx.journal.retry(uid, is_meant)
    if count == 0:
        has_some = any(tally.state is JournalState.QUARANTINED for tally in tx.journal.tallies(uid))
        why = f'no quarantined file matches "{request.pattern}"' if has_some else "it has no quarantined files"
        raise ConflictError(f"there is nothing to try again in {name}: {why}", state=str(found.state))
    if found.state in ACTIVE:
        tx.about = Topic.ORDERS
    else:
        found = tx.acquisitions.run_again(uid)
        tx.events.add(core.changed(found))
    tx.acquisitions.mark_retried(uid)
    return Picked(files=count, acquisition=core.with_tallies(tx, found))


def prioritise(
    tx: AcquisitionTransaction, caller: Caller, uid: UUID, *, request: PriorityRequest, kind: Kind | None = None
) -> Picked:
    """Let files go before all others of the station: those that wait, and those that are still to come."""
    found = _locked(tx, caller, uid, kind=kind)
    if found.state not in ACTIVE:
        raise ConflictError(
            f"{NAMES[found.kind]} {uid} has ended: there is nothing left to put first", state=str(found.state)
        )
    tx.about = Topic.ORDERS
    found = tx.acquisitions.set_first(uid, request.first)
    count = tx.journal.prioritise(uid, matcher(request.first))
    return Picked(files=count, acquisition=core.with_tallies(tx, found))


def _locked(tx: AcquisitionTransaction, caller: Caller, uid: UUID, *, kind: Kind | None) -> Acquisition:
    """Return one that the caller may run; it does not end before this transaction does."""
    core.require_run(tx, caller, core.readable(tx, caller, uid, kind=kind))
    tx.acquisitions.lock(uid)
    return tx.acquisitions.get(uid)
