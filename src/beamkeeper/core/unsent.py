"""Experiments that are made at a station while it is cut off from the site, which makes them as well afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from beamkeeper.core import rights
from beamkeeper.core.experiments import pi_named
from beamkeeper.db import AcquisitionTransaction, Transaction
from beamkeeper.db.base import new_uid
from beamkeeper.domain.acquisition import AcquisitionQuery
from beamkeeper.domain.errors import AlreadyExistsError, ConflictError, InvalidError, NotFoundError
from beamkeeper.domain.experiments import (
    Experiment,
    NewExperiment,
    SentExperiment,
    Station,
    UnsentChange,
    UnsentExperiment,
)
from beamkeeper.domain.metadata import check_metadata
from beamkeeper.domain.users import Action, Caller, Target, require

CUT_OFF = timedelta(seconds=12)
"""A station that has not heard of its site for so long is cut off; while it is not, it hears every five seconds."""


def create(tx: AcquisitionTransaction, caller: Caller, new: NewExperiment, *, station: str) -> Experiment:
    """Make an experiment that the site does not know of yet; the same uid again gives the same one."""
    here = tx.experiments.station_named(new.station)
    require(caller, Action.EXPERIMENT_CREATE, Target(station_uid=here.uid), f'station "{here.name}"')
    uid = new.uid or new_uid()
    if tx.experiments.is_there(uid):
        return rights.experiment(tx, caller, Action.EXPERIMENT_READ, uid)
    _check(tx, new, station)
    area_uid = new.storage_area_uid or here.storage_area_uid
    if area_uid is None:
        raise ConflictError(f'station "{here.name}" has no storage area: what is stored needs one')
    if tx.experiments.find(here.uid, new.name) is not None:
        raise AlreadyExistsError(
            f'there is or was an experiment "{new.name}" on station "{here.name}": names are given once', name=new.name
        )
    tx.unsent.add(uid, SentExperiment(new=new.model_copy(update={"uid": uid}), by=caller.username))
    return tx.experiments.add_unsent(new, uid, station=here, area_uid=tx.storage.get(area_uid).uid)


def is_cut_off(tx: Transaction) -> bool:
    """Whether this station has not heard of its site for a while."""
    state = tx.mirror.state()
    return state is not None and tx.now - state.heard_at >= CUT_OFF


def list_(tx: AcquisitionTransaction, caller: Caller, *, station: str) -> Sequence[UnsentExperiment]:
    """Return what was made here and the site does not have yet, for those who may make experiments here."""
    _require(tx, caller, station)
    return tx.unsent.list()


def send_again(
    tx: AcquisitionTransaction, caller: Caller, uid: UUID, change: UnsentChange, *, station: str
) -> UnsentExperiment:
    """Have an experiment sent to the site now, perhaps with changes: it may have been refused as it was."""
    here = _require(tx, caller, station)
    found = tx.unsent.get(uid)
    given = change.model_dump(exclude_unset=True)
    if given.get("name", "") is None:
        raise InvalidError("an experiment has a name: leave it out, or say which")
    # As of an experiment that the site has: a text is never nothing, so that null leaves it.
    given = {key: value for key, value in given.items() if value is not None or key not in ("proposal", "esaf")}
    new = NewExperiment.model_validate({**found.wanted.new.model_dump(), **given})
    _check_contents(tx, new)
    if new.name != found.name:
        if tx.experiments.find(here.uid, new.name) is not None:
            raise AlreadyExistsError(f'there is or was an experiment "{new.name}": names are given once', name=new.name)
        tx.unsent.rename(uid, new.name)
    return tx.unsent.send_again(uid, found.wanted.model_copy(update={"new": new}))


def drop(tx: AcquisitionTransaction, caller: Caller, uid: UUID, *, station: str) -> None:
    """Give up an experiment that the site does not have: its files stay at the source, and are nobody's again."""
    _require(tx, caller, station)
    found = tx.unsent.get(uid)
    running = tx.acquisitions.page(None, AcquisitionQuery(experiment_uid=uid, is_active=True, limit=1), None).items
    if running:
        raise ConflictError(
            f'{running[0].kind} {running[0].uid} of experiment "{found.name}" has not ended: stop it first, with --now',
            uid=str(running[0].uid),
        )
    tx.unsent.drop(uid)


def _require(tx: AcquisitionTransaction, caller: Caller, station: str) -> Station:
    here = tx.experiments.station_named(station)
    require(caller, Action.EXPERIMENT_CREATE, Target(station_uid=here.uid), f'station "{here.name}"')
    return here


def _check(tx: AcquisitionTransaction, new: NewExperiment, station: str) -> None:
    if new.station != station:
        raise InvalidError(f'these are the services of station "{station}": those of "{new.station}" make its own')
    if not is_cut_off(tx):
        raise ConflictError("this station is not cut off from its site: experiments are made there, try again")
    _check_contents(tx, new)


def _check_contents(tx: AcquisitionTransaction, new: NewExperiment) -> None:
    """Refuse what the site would refuse, as far as it is known here."""
    if new.type is not None and not tx.experiments.is_type(new.type):
        raise NotFoundError(f'there is no experiment type "{new.type}": `dm type list` shows them')
    if new.pi is not None:
        pi_named(tx, new.pi)
    if new.starts_at is not None and new.ends_at is not None and new.ends_at <= new.starts_at:
        raise InvalidError("the experiment would end before it starts: check the two dates")
    check_metadata(new.metadata)
