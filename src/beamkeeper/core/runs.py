"""Runs and the rules by which files belong to them: what one can do, and who may."""

from __future__ import annotations

from uuid import UUID

from beamkeeper.core import rights
from beamkeeper.db import CatalogTransaction
from beamkeeper.db.news import Topic
from beamkeeper.domain.datasets import BelongingFiles, Belongs, Changed, FilesAsked, MemberPage, MemberQuery
from beamkeeper.domain.errors import NotFoundError
from beamkeeper.domain.events import NewEvent
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import FileCount
from beamkeeper.domain.metadata import MetadataHistory, check_metadata
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.runs import NewRun, NewRunRule, Run, RunPage, RunQuery, RunRule, RunRules, RunState, RunStop
from beamkeeper.domain.users import SITE, Action, Caller, reach, require

STARTED = "runs.started"
STOPPED = "runs.stopped"
CHANGED = "runs.changed"
STEP_FILES = 1000
"""So many files a rule that is new is applied to in one transaction."""


def create(tx: CatalogTransaction, caller: Caller, new: NewRun) -> Run:
    """Say that a run has begun; asking again gives it, and one that files made known before is taken over."""
    experiment = rights.experiment(tx, caller, Action.FILE_ANNOTATE, new.experiment_uid)
    rights.check_own(tx, experiment)
    check_metadata({"start": new.start})
    tx.files.lock([experiment.uid])
    held = tx.runs.find(experiment.uid, new.name)
    if held is not None and held.state is not RunState.INFERRED and held.started_at is not None:
        held.check_same_start(new)
        return held
    run = tx.runs.add(new, by=caller.username) if held is None else tx.runs.start(held.uid, new, by=caller.username)
    tx.events.add(_news(STARTED, experiment, run))
    return run


def stop(tx: CatalogTransaction, caller: Caller, uid: UUID, *, end: RunStop) -> Run:
    """Say that a run has ended; saying the same again changes nothing."""
    _, experiment = _run(tx, caller, uid, action=Action.FILE_ANNOTATE)
    check_metadata({"stop": end.stop})
    run = tx.runs.lock(uid)
    if run.is_same_stop(end):
        return run
    stopped = tx.runs.stop(uid, end, by=caller.username)
    tx.events.add(_news(STOPPED, experiment, stopped))
    return stopped


def page(tx: CatalogTransaction, caller: Caller, query: RunQuery) -> RunPage:
    """Return the runs that are wanted, out of those that the caller may read."""
    if query.experiment_uid is not None:
        rights.experiment(tx, caller, Action.FILE_READ, query.experiment_uid)
    return tx.runs.page(query, reach(caller, Action.FILE_READ))


def show(tx: CatalogTransaction, caller: Caller, uid: UUID) -> Run:
    """Return a run."""
    return _run(tx, caller, uid, action=Action.FILE_READ)[0]


def files(tx: CatalogTransaction, caller: Caller, uid: UUID, *, query: MemberQuery) -> MemberPage:
    """Return some files of a run."""
    _run(tx, caller, uid, action=Action.FILE_READ)
    return tx.runs.files(uid, query)


def of_files(tx: CatalogTransaction, caller: Caller, asked: FilesAsked) -> BelongingFiles:
    """Return the newest run of each of some files of an experiment."""
    rights.experiment(tx, caller, Action.FILE_READ, asked.experiment_uid)
    found = tx.runs.of_files(asked.experiment_uid, asked.file_uids)
    return BelongingFiles(items=tuple(Belongs(file_uid=file, uid=uid) for file, uid in found.items()))


def count(tx: CatalogTransaction, caller: Caller, uid: UUID) -> FileCount:
    """Return how many files a run has."""
    _run(tx, caller, uid, action=Action.FILE_READ)
    return tx.runs.count(uid)


def add_files(tx: CatalogTransaction, caller: Caller, uid: UUID, *, file_uids: tuple[UUID, ...]) -> Changed:
    """Let files belong to a run by call."""
    run, experiment = _run(tx, caller, uid, action=Action.FILE_ANNOTATE)
    added = tx.runs.add_files(uid, file_uids)
    tx.events.add(_news(CHANGED, experiment, run))
    return Changed(files=added)


def remove_files(tx: CatalogTransaction, caller: Caller, uid: UUID, *, file_uids: tuple[UUID, ...]) -> Changed:
    """Let files not belong to a run by call any more."""
    run, experiment = _run(tx, caller, uid, action=Action.FILE_ANNOTATE)
    removed = tx.runs.remove_files(uid, file_uids)
    tx.events.add(_news(CHANGED, experiment, run))
    return Changed(files=removed)


def set_metadata(tx: CatalogTransaction, caller: Caller, uid: UUID, *, patch: Metadata) -> Run:
    """Change a run's metadata by a merge patch."""
    _, experiment = _run(tx, caller, uid, action=Action.FILE_ANNOTATE)
    changed = tx.runs.set_metadata(uid, patch, by=caller.username)
    tx.events.add(_news(CHANGED, experiment, changed))
    return changed


def metadata_history(
    tx: CatalogTransaction, caller: Caller, uid: UUID, *, after: str | None, limit: int
) -> MetadataHistory:
    """Return how a run's metadata came about, newest change first."""
    _run(tx, caller, uid, action=Action.FILE_READ)
    return tx.metadata.page(uid, after=after, limit=limit)


def rules(tx: CatalogTransaction, caller: Caller, experiment_uid: UUID) -> RunRules:
    """Return the rules of an experiment: its own, and those of its type."""
    experiment = rights.experiment(tx, caller, Action.FILE_READ, experiment_uid)
    return RunRules(items=tx.run_rules.of(experiment.uid, experiment.type))


def add_rule(tx: CatalogTransaction, caller: Caller, new: NewRunRule) -> RunRule:
    """Keep a rule of an experiment, or for administrators of a type; asking again for the same one gives it."""
    if new.experiment_uid is not None:
        rights.check_own(tx, rights.experiment(tx, caller, Action.EXPERIMENT_UPDATE, new.experiment_uid))
    else:
        require(caller, Action.SITE_ADMINISTER, SITE, f'experiment type "{new.type}"')
    tx.about = Topic.RUN_RULES
    return tx.run_rules.add(new, by=caller.username)


def remove_rule(tx: CatalogTransaction, caller: Caller, uid: UUID) -> None:
    """Let a rule count no more; what it did is undone by and by."""
    rule = tx.run_rules.get(uid)
    if rule.experiment_uid is None:
        require(caller, Action.SITE_ADMINISTER, SITE, f'experiment type "{rule.type}"')
    else:
        try:
            rights.experiment(tx, caller, Action.EXPERIMENT_UPDATE, rule.experiment_uid)
        except NotFoundError as error:
            raise NotFoundError(f"there is no rule {uid}", uid=str(uid)) from error
    tx.about = Topic.RUN_RULES
    tx.run_rules.remove(uid)


def _run(tx: CatalogTransaction, caller: Caller, uid: UUID, *, action: Action) -> tuple[Run, Experiment]:
    run = tx.runs.get(uid)
    try:
        experiment = rights.experiment(tx, caller, Action.FILE_READ, run.experiment_uid)
    except NotFoundError as error:
        raise NotFoundError(f"there is no run {uid}", uid=str(uid)) from error
    require(caller, action, experiment.target(tx.now), f'run "{run.name}"')
    if action is not Action.FILE_READ:
        rights.check_own(tx, experiment)
    return run, experiment


def _news(kind: str, experiment: Experiment, run: Run) -> NewEvent:
    return NewEvent(
        kind=kind,
        station_uid=experiment.station_uid,
        experiment_uid=experiment.uid,
        data={"uid": str(run.uid), "name": run.name},
    )
