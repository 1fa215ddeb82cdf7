"""Asking the storage to look at what it holds or to clear away, and reading what came of it."""

from __future__ import annotations

from uuid import UUID

from beamkeeper.core import rights
from beamkeeper.db import StorageTransaction
from beamkeeper.db.storage_tasks import Task, TaskKind
from beamkeeper.domain.errors import ConflictError, InvalidError, NotFoundError
from beamkeeper.domain.names import RelPath, from_b64, show_path
from beamkeeper.domain.storage import (
    Check,
    CheckItem,
    CheckMode,
    Discard,
    Listing,
    NewCheck,
    NewDiscard,
    NewListing,
    PublishState,
    TaskState,
)
from beamkeeper.domain.users import Action, Caller

_KINDS = {CheckMode.STAT: TaskKind.STAT, CheckMode.READ: TaskKind.READ}


def request(tx: StorageTransaction, caller: Caller, new: NewCheck) -> Check:
    """Ask for stored files to be looked at; the same uid again gives the same check."""
    rights.experiment(tx, caller, Action.STORAGE_CHECK, new.experiment_uid)
    for item in new.items:
        if new.mode is CheckMode.READ and item.checksum is None and item.link_target_b64 is None:
            raise InvalidError(f'"{show_path(item.relpath)}" is to be read, and no checksum is given to compare with')
    if new.storage_area_uid is not None:
        tx.storage.get(new.storage_area_uid)
    kind = _KINDS[new.mode]
    found = tx.tasks.get(new.uid) or tx.tasks.add(
        new.uid, kind, new.experiment_uid, new.model_dump(mode="json", exclude_none=True)
    )
    return _check(_same(found, new.experiment_uid, kind))


def show(tx: StorageTransaction, caller: Caller, uid: UUID) -> Check:
    """Return a check."""
    missing = NotFoundError(f"there is no check {uid}: answers are kept for a day", uid=str(uid))
    found = tx.tasks.get(uid)
    if found is None or found.kind not in _KINDS.values():
        raise missing
    rights.owner(tx, caller, Action.STORAGE_CHECK, found.experiment_uid, missing=missing)
    return _check(found)


def request_listing(tx: StorageTransaction, caller: Caller, new: NewListing) -> Listing:
    """Ask for a page of plain names; the same uid again gives the same listing."""
    rights.experiment(tx, caller, Action.STORAGE_CHECK, new.experiment_uid)
    for bound in (new.after_b64, new.upto_b64):
        if bound is not None:
            RelPath(from_b64(bound))
    found = tx.tasks.get(new.uid) or tx.tasks.add(
        new.uid, TaskKind.LISTING, new.experiment_uid, new.model_dump(mode="json")
    )
    return _listing(_same(found, new.experiment_uid, TaskKind.LISTING))


def show_listing(tx: StorageTransaction, caller: Caller, uid: UUID) -> Listing:
    """Return a listing."""
    missing = NotFoundError(f"there is no listing {uid}: answers are kept for a day", uid=str(uid))
    found = tx.tasks.get(uid)
    if found is None or found.kind is not TaskKind.LISTING:
        raise missing
    rights.owner(tx, caller, Action.STORAGE_CHECK, found.experiment_uid, missing=missing)
    return _listing(found)


def request_discard(tx: StorageTransaction, caller: Caller, new: NewDiscard) -> Discard:
    """Ask for a staging directory to be removed; ConflictError while its batch is being published."""
    rights.experiment(tx, caller, Action.PUBLISH, new.experiment_uid)
    publish = tx.publishes.get(new.batch_uid)
    if publish is not None and publish.state is not PublishState.DONE:
        raise ConflictError(f"batch {new.batch_uid} is being published: its staging directory is needed")
    found = tx.tasks.get(new.uid) or tx.tasks.add(
        new.uid, TaskKind.DISCARD, new.experiment_uid, new.model_dump(mode="json", exclude_none=True)
    )
    return _discard(_same(found, new.experiment_uid, TaskKind.DISCARD))


def show_discard(tx: StorageTransaction, caller: Caller, uid: UUID) -> Discard:
    """Return whether a staging directory is gone."""
    found = tx.tasks.get(uid)
    missing = NotFoundError(f"there is no discard {uid}: answers are kept for a day", uid=str(uid))
    if found is None or found.kind is not TaskKind.DISCARD:
        raise missing
    rights.owner(tx, caller, Action.PUBLISH, found.experiment_uid, missing=missing)
    return _discard(found)


def _discard(task: Task) -> Discard:
    return Discard(
        uid=task.uid,
        experiment_uid=task.experiment_uid,
        batch_uid=UUID(str(task.request["batch_uid"])),
        state=task.state,
        message=task.message,
    )


def _same(task: Task, experiment_uid: UUID, kind: TaskKind) -> Task:
    if task.experiment_uid != experiment_uid or task.kind is not kind:
        raise NotFoundError(f"{task.uid} is another question: give each a uid of its own")
    return task


def _check(task: Task) -> Check:
    asked = NewCheck.model_validate(task.request)
    facts = {
        "uid": task.uid,
        "experiment_uid": task.experiment_uid,
        "mode": asked.mode,
        "state": task.state,
        "message": task.message,
        "created_at": task.created_at,
        "ended_at": task.ended_at,
    }
    if task.state is TaskState.DONE and task.answer is not None:
        return Check.model_validate({**facts, **task.answer})
    waiting = [CheckItem(path_b64=i.path_b64, version_uid=i.version_uid, number=i.number) for i in asked.items]
    return Check.model_validate({**facts, "items": waiting})


def _listing(task: Task) -> Listing:
    return Listing.model_validate(
        {
            "uid": task.uid,
            "experiment_uid": task.experiment_uid,
            "state": task.state,
            "message": task.message,
            "created_at": task.created_at,
            "ended_at": task.ended_at,
            **(task.answer or {}),
        }
    )
