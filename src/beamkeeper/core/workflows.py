"""Workflows: what one can do with them, and who may; only managers of the station say what runs there."""

from __future__ import annotations

from uuid import UUID

from beamkeeper.db import ProcessingTransaction
from beamkeeper.domain.errors import AlreadyExistsError, InvalidError, NotFoundError, NotPermittedError
from beamkeeper.domain.events import NewEvent
from beamkeeper.domain.experiments import Station
from beamkeeper.domain.users import Action, Caller, Target, may, reach, require
from beamkeeper.domain.workflows import Definition, check, lint
from beamkeeper.domain.workflows.stored import (
    Findings,
    NewWorkflow,
    Workflow,
    WorkflowHistory,
    WorkflowPage,
    WorkflowQuery,
)

CHANGED = "workflows.changed"


def add(tx: ProcessingTransaction, caller: Caller, new: NewWorkflow) -> Workflow:
    """Keep a workflow; asking again for the same one gives it."""
    _may_manage(tx, caller, new)
    owner = _owner(caller, new)
    held = tx.workflows.held(owner, new.definition.name)
    if held is None:
        return _said(tx, tx.workflows.add(owner, _owned(new, owner), note=new.note, by=caller.username))
    if held.deleted_at is None:
        if held.definition == _owned(new, owner):
            return held
        raise AlreadyExistsError(
            f'{owner} has a workflow "{held.name}" already: change it with `dm workflow update`', name=held.name
        )
    return _changed(tx, caller, held, new)


def update(tx: ProcessingTransaction, caller: Caller, uid: UUID, *, new: NewWorkflow) -> Workflow:
    """Keep a new version of a workflow, where it differs from the present one."""
    _may_manage(tx, caller, new)
    kept = tx.workflows.get(uid)
    if new.definition.name != kept.name or (new.definition.owner or kept.owner) != kept.owner:
        raise InvalidError(
            f'workflow "{kept.name}" of {kept.owner} keeps its name and owner: add the other as one of its own'
        )
    held = tx.workflows.held(kept.owner, kept.name) or kept
    if held.deleted_at is not None:
        raise NotFoundError(f'workflow "{held.name}" is deleted: `dm workflow upsert` brings it back', uid=str(uid))
    return _changed(tx, caller, held, new)


def upsert(tx: ProcessingTransaction, caller: Caller, new: NewWorkflow) -> Workflow:
    """Keep a workflow, or a new version of the one that has its name."""
    _may_manage(tx, caller, new)
    held = tx.workflows.held(_owner(caller, new), new.definition.name)
    return add(tx, caller, new) if held is None else _changed(tx, caller, held, new)


def delete(tx: ProcessingTransaction, caller: Caller, uid: UUID) -> None:
    """Hide a workflow; its history stays, and jobs that run go on."""
    _may_manage(tx, caller, None)
    kept = tx.workflows.get(uid)
    if kept.deleted_at is None:
        tx.workflows.delete(uid)
        _said(tx, kept)


def page(tx: ProcessingTransaction, caller: Caller, query: WorkflowQuery) -> WorkflowPage:
    """Return the workflows of the station."""
    _may_read(tx, caller)
    return tx.workflows.page(query)


def show(tx: ProcessingTransaction, caller: Caller, uid: UUID, *, number: int | None = None) -> Workflow:
    """Return a workflow in its newest version, or another."""
    _may_read(tx, caller)
    return tx.workflows.get(uid, number)


def history(tx: ProcessingTransaction, caller: Caller, uid: UUID) -> WorkflowHistory:
    """Return every version of a workflow."""
    _may_read(tx, caller)
    return WorkflowHistory(items=tuple(tx.workflows.history(uid)))


def findings(tx: ProcessingTransaction, caller: Caller, new: NewWorkflow) -> Findings:
    """Return what the linter says of a definition, which is not kept."""
    _may_read(tx, caller)
    return Findings(items=lint(new.definition))


def _owner(caller: Caller, new: NewWorkflow) -> str:
    return new.definition.owner or caller.username


def _owned(new: NewWorkflow, owner: str) -> Definition:
    return new.definition.model_copy(update={"owner": owner})


def _changed(tx: ProcessingTransaction, caller: Caller, held: Workflow, new: NewWorkflow) -> Workflow:
    definition = _owned(new, held.owner)
    if held.definition == definition and held.deleted_at is None:
        return held
    return _said(tx, tx.workflows.change(held.uid, definition, note=new.note, by=caller.username))


def _said(tx: ProcessingTransaction, workflow: Workflow) -> Workflow:
    data = {"uid": str(workflow.uid), "name": workflow.name, "owner": workflow.owner, "number": workflow.number}
    tx.events.add(NewEvent(kind=CHANGED, station_uid=_home(tx).uid, data=data))
    return workflow


def _home(tx: ProcessingTransaction) -> Station:
    station = tx.experiments.find_station(tx.database.home or "")
    if station is None:
        raise NotFoundError(f'the station "{tx.database.home}" is not known here yet: try again')
    return station


def _may_manage(tx: ProcessingTransaction, caller: Caller, new: NewWorkflow | None) -> None:
    require(caller, Action.WORKFLOW_MANAGE, Target(station_uid=_home(tx).uid), "the workflows of this station")
    if new is not None:
        check(new.definition)


def _may_read(tx: ProcessingTransaction, caller: Caller) -> None:
    """Let in whoever works at the station, and whoever belongs to an experiment: they submit what is published."""
    home = _home(tx).uid
    if (
        not may(caller, Action.WORKFLOW_READ, Target(station_uid=home))
        and not reach(caller, Action.WORKFLOW_READ).experiments
    ):
        raise NotPermittedError(
            f"{caller.username} may not read the workflows of this station: they are for members of its experiments"
        )
