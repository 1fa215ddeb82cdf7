"""Which experiment is meant, and whether the caller may: the one verb that other verbs call."""

from __future__ import annotations

from uuid import UUID

from beamkeeper.db import Transaction
from beamkeeper.domain.errors import ConflictError, NotFoundError
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.users import Action, Caller, may, require

_EVEN_DELETED = frozenset({Action.EXPERIMENT_READ, Action.EXPERIMENT_DELETE})


def experiment(tx: Transaction, caller: Caller, action: Action, uid: UUID) -> Experiment:
    """Return an experiment on which the caller may do this.

    One that the caller may not even see is not found; so is a deleted one, but for those who may delete.
    """
    found = tx.experiments.get(uid)
    target = found.target(tx.now)
    is_seen = may(caller, Action.EXPERIMENT_READ, target)
    is_hidden = found.deleted_at is not None and not caller.is_service
    if not is_seen or (is_hidden and not may(caller, Action.EXPERIMENT_DELETE, target)):
        raise NotFoundError(f"there is no experiment {uid}", uid=str(uid))
    require(caller, action, target, f'experiment "{found.name}"')
    if is_hidden and action not in _EVEN_DELETED:
        raise ConflictError(f'experiment "{found.name}" is deleted: nothing of it can be read or changed')
    return found


def owner(tx: Transaction, caller: Caller, action: Action, uid: UUID, *, missing: NotFoundError) -> Experiment:
    """Return the experiment of a thing; `missing` is raised where there is no such thing, or none to be known of."""
    try:
        return experiment(tx, caller, action, uid)
    except NotFoundError as error:
        raise missing from error


def check_own(tx: Transaction, experiment: Experiment) -> None:
    """Refuse to change what is a copy here: an experiment of another station is changed in its own catalogue alone."""
    home = tx.database.home
    if home is None or experiment.station == home or tx.experiments.find_station(home) is None:
        return
    url = tx.experiments.get_station(experiment.station_uid).catalog_url
    raise ConflictError(
        f'experiment "{experiment.name}" is of station "{experiment.station}", and the catalogue of station "{home}" '
        f"only follows it: change it there, with --station {experiment.station}{f' ({url})' if url else ''}",
        station=experiment.station,
        url=url,
    )
