"""Provenance: recording what a file was made from, and asking for it, and who may."""

from __future__ import annotations

from uuid import UUID

from beamkeeper.core import rights
from beamkeeper.db import CatalogTransaction
from beamkeeper.domain.errors import NotFoundError, NotPermittedError
from beamkeeper.domain.events import NewEvent
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.provenance import NewDerivation, Provenance, Recorded, Towards
from beamkeeper.domain.users import Action, Caller, reach, require

DERIVED = "files.derived"


def record(tx: CatalogTransaction, caller: Caller, uid: UUID, *, new: NewDerivation) -> Recorded:
    """Record from which files a file was made; for who may annotate it and read all of them."""
    experiment = _experiment(tx, caller, uid, Action.FILE_ANNOTATE)
    rights.check_own(tx, experiment)
    if new.making is not None and not caller.is_service:
        raise NotPermittedError("how a job made a file is told by the service that ran it: leave `making` out")
    for source in {ref.file_uid for ref in new.sources}:
        _experiment(tx, caller, source, Action.FILE_READ)
    links = tx.derivations.add(uid, new, by=caller.username)
    if links:
        data = {"file_uid": str(uid), "links": links, "job": new.job, "stage": new.stage}
        tx.events.add(
            NewEvent(kind=DERIVED, station_uid=experiment.station_uid, experiment_uid=experiment.uid, data=data)
        )
    return Recorded(links=links)


def why(
    tx: CatalogTransaction, caller: Caller, uid: UUID, *, towards: Towards, version: int | None = None
) -> Provenance:
    """Return what a file was made from, or what was made from it, as far as the caller may see it."""
    _experiment(tx, caller, uid, Action.FILE_READ)
    return tx.derivations.walk(uid, towards, reach(caller, Action.FILE_READ), version=version)


def _experiment(tx: CatalogTransaction, caller: Caller, uid: UUID, action: Action) -> Experiment:
    """Return the experiment of a file in sight with which the caller may do it."""
    unknown = NotFoundError(f"there is no file {uid}", uid=str(uid))
    file = tx.files.get(uid)
    try:
        experiment = rights.experiment(tx, caller, Action.FILE_READ, file.experiment_uid)
    except NotFoundError as error:
        raise unknown from error
    if file.deleted_at is not None:
        raise unknown
    require(caller, action, experiment.target(tx.now), f"file {uid}")
    return experiment
