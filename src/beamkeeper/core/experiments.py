"""Experiments, their types and their people: what one can do with them, and who may."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from beamkeeper.core import directories, proposals, rights
from beamkeeper.db import StorageTransaction, Transaction
from beamkeeper.domain.errors import AlreadyExistsError, ConflictError, InvalidError, NotFoundError
from beamkeeper.domain.experiments import (
    Experiment,
    ExperimentChange,
    ExperimentPage,
    ExperimentQuery,
    ExperimentType,
    ExperimentTypeChange,
    Member,
    MemberRole,
    NewExperiment,
    NewExperimentType,
    SentExperiment,
    Station,
    experiment_directory,
    layout_fields,
)
from beamkeeper.domain.metadata import MetadataHistory, check_metadata
from beamkeeper.domain.storage import StorageArea
from beamkeeper.domain.users import (
    EXPERIMENT_ROLES,
    SITE,
    Action,
    Caller,
    Grant,
    Role,
    Target,
    User,
    reach,
    require,
)

MOST_NAME = 120
"""So much of a name is kept where a number is put behind it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """An experiment that may be made, and where it will lie."""

    asked: NewExperiment
    new: NewExperiment
    station: Station
    area: StorageArea
    directory: str
    cycle: str
    pi: User | None

    def directories(self) -> AbstractContextManager[None]:
        """Make the experiment's directories while the block lasts, and keep them if it ends well."""
        if self.area.is_objects:
            return nullcontext()  # objects need none
        return directories.made(self.area.path, self.directory)


def types(tx: StorageTransaction) -> Sequence[ExperimentType]:
    """Return every experiment type."""
    return tx.experiments.types()


def create_type(tx: StorageTransaction, caller: Caller, new: NewExperimentType) -> ExperimentType:
    """Make an experiment type."""
    require(caller, Action.SITE_ADMINISTER, SITE, "the site")
    return tx.experiments.add_type(new)


def change_type(tx: StorageTransaction, caller: Caller, name: str, change: ExperimentTypeChange) -> ExperimentType:
    """Change an experiment type; the search index of the catalogues follows by itself."""
    require(caller, Action.SITE_ADMINISTER, SITE, "the site")
    return tx.experiments.change_type(name, change)


def plan(tx: StorageTransaction, caller: Caller, new: NewExperiment) -> Plan:
    """Check everything that an experiment to be made needs, before its directories are touched.

    What it does not say is taken from its proposal and its form, where those are known.
    """
    station = tx.experiments.station_named(new.station)
    require(caller, Action.EXPERIMENT_CREATE, Target(station_uid=station.uid), f'station "{station.name}"')
    return _plan(tx, station, new)


def _plan(tx: StorageTransaction, station: Station, new: NewExperiment) -> Plan:
    asked, new = new, proposals.filled(tx, new)
    _check(tx, kind=new.type, starts_at=new.starts_at, ends_at=new.ends_at)
    check_metadata(new.metadata)
    area_uid = new.storage_area_uid or station.storage_area_uid
    if area_uid is None:
        raise ConflictError(
            f'station "{station.name}" has no storage area: give it one with '
            f"`dm station update {station.name} --storage-area NAME`"
        )
    if tx.experiments.find(station.uid, new.name) is not None:
        raise AlreadyExistsError(
            f'there is or was an experiment "{new.name}" on station "{station.name}": names are given once',
            name=new.name,
        )
    directory = experiment_directory(new, station=station, now=tx.now)
    if (other := tx.experiments.overlapping(area_uid, directory)) is not None:
        raise ConflictError(
            f'"{directory}" is in the way of an experiment that has "{other.directory}": '
            f"give another directory with --root-path"
        )
    return Plan(
        asked=asked,
        new=new,
        station=station,
        area=tx.storage.get(area_uid),
        directory=directory,
        cycle=layout_fields(new, station=station, now=tx.now)["cycle"],
        pi=None if asked.pi is None else pi_named(tx, asked.pi),
    )


def pi_named(tx: Transaction, username: str) -> User:
    """Return who is to lead an experiment: one person."""
    user = tx.users.named(username)
    if user.is_shared:
        raise InvalidError(f'"{username}" is a shared account, which cannot be a PI: name a person')
    return user


def create(tx: StorageTransaction, caller: Caller, planned: Plan) -> Experiment:
    """Make an experiment whose directories are there; its PI gets the role."""
    tx.events.claim()  # from here on nobody else makes one, and what is checked again stays true
    return _make(tx, planned, plan(tx, caller, planned.asked))


def made_before(tx: StorageTransaction, caller: Caller, uid: UUID | None) -> Experiment | None:
    """Return what was made already by the same question; its answer was lost."""
    return None if uid is None or not tx.experiments.is_there(uid) else show(tx, caller, uid)


def plan_sent(tx: StorageTransaction, caller: Caller, station: str, sent: SentExperiment) -> Plan | Experiment:
    """Check what an experiment needs that a station made while it was cut off, or return it where it is made already.

    The station has decided that it may be made, and files of it may wait there. A name that was given meanwhile gets a
    number behind it.
    """
    of = tx.experiments.station_named(station)
    require(caller, Action.COMMAND_COLLECT, Target(station_uid=of.uid), f'station "{of.name}"')
    if sent.new.uid is not None and tx.experiments.is_there(sent.new.uid):
        found = tx.experiments.get(sent.new.uid)
        if found.station_uid != of.uid:
            raise NotFoundError(f'station "{of.name}" has no experiment {sent.new.uid}')
        return found
    if sent.new.station != of.name:
        raise InvalidError(f'experiment "{sent.new.name}" is for station "{sent.new.station}", not for "{of.name}"')
    return _plan(tx, of, sent.new.model_copy(update={"name": _free_name(tx, of, sent.new.name)}))


def create_sent(tx: StorageTransaction, planned: Plan) -> Experiment:
    """Make an experiment that a station has sent."""
    tx.events.claim()
    return _make(tx, planned, _plan(tx, planned.station, planned.asked))


def _free_name(tx: StorageTransaction, station: Station, name: str) -> str:
    number, free = 1, name
    while tx.experiments.find(station.uid, free) is not None:
        number += 1
        free = f"{name[:MOST_NAME]}-{number}"
    return free


def _make(tx: StorageTransaction, planned: Plan, again: Plan) -> Experiment:
    if (again.area.path, again.directory) != (planned.area.path, planned.directory):
        raise ConflictError(f'the layout of station "{again.station.name}" was changed meanwhile: try again')
    made = tx.experiments.add(
        again.new, station=again.station, cycle=again.cycle, area_uid=again.area.uid, directory=again.directory
    )
    if again.pi is not None:
        tx.users.grant(Grant(user_uid=again.pi.uid, role=Role.PI, experiment_uid=made.uid))
    tx.proposals.follow([made.uid])
    return made


def page(tx: Transaction, caller: Caller, query: ExperimentQuery) -> ExperimentPage:
    """Return the experiments that the caller may see; deleted ones for those who may delete."""
    action = Action.EXPERIMENT_DELETE if query.with_deleted else Action.EXPERIMENT_READ
    return tx.experiments.page(query, reach(caller, action))


def show(tx: Transaction, caller: Caller, uid: UUID) -> Experiment:
    """Return an experiment."""
    return rights.experiment(tx, caller, Action.EXPERIMENT_READ, uid)


def change(tx: StorageTransaction, caller: Caller, uid: UUID, change: ExperimentChange) -> Experiment:
    """Change an experiment."""
    found = rights.experiment(tx, caller, Action.EXPERIMENT_UPDATE, uid)
    is_followed = (change.proposal is not None or change.esaf is not None) and tx.proposals.is_any()
    if is_followed:  # its people follow from these
        rights.experiment(tx, caller, Action.EXPERIMENT_PEOPLE, uid)
    merged = found.model_copy(update=change.model_dump(exclude_unset=True))
    _check(tx, kind=change.type, starts_at=merged.starts_at, ends_at=merged.ends_at)
    if change.metadata is not None:
        check_metadata(change.metadata)
    changed = tx.experiments.change(uid, change, by=caller.username)
    if is_followed:
        tx.proposals.follow([uid])
    check_metadata(changed.metadata)
    return changed


def metadata_history(
    tx: StorageTransaction, caller: Caller, uid: UUID, *, after: str | None, limit: int
) -> MetadataHistory:
    """Return how an experiment's metadata came about, newest change first."""
    rights.experiment(tx, caller, Action.EXPERIMENT_READ, uid)
    return tx.metadata.page(uid, after=after, limit=limit)


def delete(tx: StorageTransaction, caller: Caller, uid: UUID) -> Experiment:
    """Hide an experiment; its files stay, and its name is not given again."""
    rights.experiment(tx, caller, Action.EXPERIMENT_DELETE, uid)
    return tx.experiments.delete(uid)


def people(tx: Transaction, caller: Caller, uid: UUID) -> Sequence[Member]:
    """Return the people of an experiment."""
    rights.experiment(tx, caller, Action.EXPERIMENT_READ, uid)
    return tx.users.members(uid)


def put_member(tx: StorageTransaction, caller: Caller, uid: UUID, username: str, *, role: MemberRole) -> Member:
    """Give somebody a role in an experiment, in place of the one held before."""
    experiment = rights.experiment(tx, caller, Action.EXPERIMENT_PEOPLE, uid)
    if role.role not in EXPERIMENT_ROLES:
        raise InvalidError(f'"{role.role}" is no role in an experiment: use pi, manager or user')
    user = pi_named(tx, username) if role.role is Role.PI else tx.users.named(username)
    for other in EXPERIMENT_ROLES - {role.role}:
        tx.users.revoke(Grant(user_uid=user.uid, role=other, experiment_uid=uid))
    tx.users.grant(Grant(user_uid=user.uid, role=role.role, experiment_uid=uid))
    _keep_pi(tx, experiment)
    return Member(username=user.username, full_name=user.full_name, role=role.role)


def remove_member(tx: StorageTransaction, caller: Caller, uid: UUID, username: str) -> None:
    """Take somebody's role in an experiment away."""
    experiment = rights.experiment(tx, caller, Action.EXPERIMENT_PEOPLE, uid)
    user = tx.users.named(username)
    held = [tx.users.revoke(Grant(user_uid=user.uid, role=role, experiment_uid=uid)) for role in EXPERIMENT_ROLES]
    if not any(held):
        raise NotFoundError(f'"{username}" has no role in experiment "{experiment.name}"', username=username)
    _keep_pi(tx, experiment)


def _keep_pi(tx: StorageTransaction, experiment: Experiment) -> None:
    """Let the experiment's PI be somebody who holds that role."""
    pis = [member.username for member in tx.users.members(experiment.uid) if member.role is Role.PI]
    if experiment.pi not in pis:
        tx.experiments.set_pi(experiment.uid, pis[0] if pis else None)


def _check(tx: StorageTransaction, *, kind: str | None, starts_at: datetime | None, ends_at: datetime | None) -> None:
    if kind is not None and not tx.experiments.is_type(kind):
        raise NotFoundError(f'there is no experiment type "{kind}": an administrator makes it with `dm type create`')
    if starts_at is not None and ends_at is not None and ends_at <= starts_at:
        raise InvalidError("the experiment would end before it starts: check the two dates")
