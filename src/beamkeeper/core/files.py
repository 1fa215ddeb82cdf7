"""Files: registering, finding, annotating, hiding and bringing back, and who may do which."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby, islice
from uuid import UUID

from pydantic import JsonValue

from beamkeeper.core import rights
from beamkeeper.db import CatalogTransaction
from beamkeeper.db.news import Topic
from beamkeeper.domain.arriving import Arriving
from beamkeeper.domain.errors import ConflictError, InvalidError, NotFoundError
from beamkeeper.domain.events import NewEvent
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.file_text import answers_text
from beamkeeper.domain.files import (
    Deleted,
    ExperimentSummary,
    File,
    FileCount,
    FileDeletion,
    FileHistory,
    FileLookup,
    FilePage,
    FileQuery,
    FileRecord,
    RegisteredAs,
    RegisteredFiles,
)
from beamkeeper.domain.frames import NewFrames
from beamkeeper.domain.metadata import MetadataHistory, removal
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.provenance import Towards
from beamkeeper.domain.users import Action, Caller, Reach, may, reach, require

AVAILABLE = "files.available"
CHANGED = "files.changed"
DELETED = "files.deleted"
RESTORED = "files.restored"
RECORD_CHANGES = 50
"""The record of a file has the newest changes of its metadata, and not more than so many."""
EVENT_UIDS = 100
"""An event names at most so many files; a reader who needs all of them lists."""


def register(tx: CatalogTransaction, caller: Caller, new: Sequence[Arriving]) -> RegisteredFiles:
    """Register stored versions, all in one transaction; the same `version_uid` again changes nothing."""
    return RegisteredFiles.model_validate_json(register_text(tx, caller, new))


def register_text(tx: CatalogTransaction, caller: Caller, new: Sequence[Arriving]) -> bytes:
    """Do the same, and return the answers as JSON, which is what nearly all want of them."""
    experiments = {
        uid: rights.experiment(tx, caller, Action.FILE_REGISTER, UUID(uid)) for uid in {file.experiment for file in new}
    }
    for experiment in experiments.values():
        rights.check_own(tx, experiment)
    tx.about = Topic.FILES
    answers = tx.files.take_in(new, by=caller.username)
    created = [
        (file, answer.file_uid)
        for file, answer in zip(new, answers, strict=True)
        if answer.result is RegisteredAs.CREATED and answer.file_uid is not None
    ]
    tx.run_rules.apply(uid for _, uid in created)
    created.sort(key=lambda pair: pair[0].experiment)
    for uid, pairs in groupby(created, key=lambda pair: pair[0].experiment):
        tx.events.add(_available(experiments[uid], list(pairs)))
    return answers_text(answers)


def lookup(tx: CatalogTransaction, caller: Caller, wanted: FileLookup) -> FilePage:
    """Return what these paths hold now; services see hidden files too, to know the next version."""
    experiment = rights.experiment(tx, caller, Action.FILE_READ, wanted.experiment_uid)
    found = tx.files.lookup(experiment.uid, [path.relpath for path in wanted.paths])
    if not may(caller, Action.FILE_REGISTER, experiment.target(tx.now)):
        found = [file for file in found if file.deleted_at is None]
    return FilePage(items=found)


def find(tx: CatalogTransaction, caller: Caller, query: FileQuery) -> FilePage:
    """Return one page of the files that are wanted, out of those that the caller may read."""
    return tx.files.find(query, _reach(tx, caller, query))


def find_text(tx: CatalogTransaction, caller: Caller, query: FileQuery) -> bytes:
    """Return the same as JSON, which is what nearly all want of it."""
    return tx.files.find_text(query, _reach(tx, caller, query))


def _reach(tx: CatalogTransaction, caller: Caller, query: FileQuery) -> Reach:
    if query.experiment_uid is not None:
        rights.experiment(tx, caller, Action.FILE_READ, query.experiment_uid)
    if query.with_deleted:
        _meant(tx, caller, query)
    return reach(caller, Action.FILE_READ)


def get(tx: CatalogTransaction, caller: Caller, uid: UUID) -> File:
    """Return a file with its newest version."""
    return _file(tx, caller, uid, action=Action.FILE_READ)[0]


def history(tx: CatalogTransaction, caller: Caller, uid: UUID) -> FileHistory:
    """Return the versions, replicas and ledger of a file."""
    _file(tx, caller, uid, action=Action.FILE_READ)
    return tx.files.history(uid)


def record(tx: CatalogTransaction, caller: Caller, uid: UUID) -> FileRecord:
    """Return the history of a file with that of its metadata, and what it was made from and what from it."""
    file, _ = _file(tx, caller, uid, action=Action.FILE_READ)
    within = reach(caller, Action.FILE_READ)
    known = tx.files.history(uid)
    made = (
        (tx.derivations.walk(uid, towards, within) for towards in (Towards.SOURCES, Towards.RESULTS))
        if file.deleted_at is None
        else (None, None)
    )
    made_from, made_into = made
    return FileRecord.model_construct(
        file=known.file,
        versions=known.versions,
        replicas=known.replicas,
        ledger=known.ledger,
        changes=tx.metadata.page(uid, after=None, limit=RECORD_CHANGES).items,
        made_from=made_from,
        made_into=made_into,
    )


def set_metadata(tx: CatalogTransaction, caller: Caller, uid: UUID, *, patch: Metadata) -> File:
    """Change a file's metadata by a merge patch."""
    file, experiment = _file(tx, caller, uid, action=Action.FILE_ANNOTATE)
    rights.check_own(tx, experiment)
    tx.files.lock([experiment.uid])  # before the file's own row, in the order in which registering takes them
    changed = tx.files.set_metadata(uid, patch, by=caller.username)
    tx.run_rules.apply([uid])
    tx.events.add(_news(CHANGED, experiment, FileCount(files=1, bytes=file.size), uids=[uid]))
    return changed


def note_frames(tx: CatalogTransaction, caller: Caller, experiment_uid: UUID, new: NewFrames) -> None:
    """Add to the metadata of files what was found in their first frames: those who register files may."""
    experiment = rights.experiment(tx, caller, Action.FILE_REGISTER, experiment_uid)
    rights.check_own(tx, experiment)
    tx.files.lock([experiment.uid])  # before the files' own rows, in the order in which registering takes them
    if changed := tx.files.note_frames(experiment.uid, new.items):
        uids = [uid for uid, _ in changed]
        tx.run_rules.apply(uids)
        count = FileCount(files=len(uids), bytes=sum(size for _, size in changed))
        tx.events.add(_news(CHANGED, experiment, count, uids=uids))


def metadata_history(
    tx: CatalogTransaction, caller: Caller, uid: UUID, *, after: str | None, limit: int
) -> MetadataHistory:
    """Return how a file's metadata came about, newest change first."""
    _file(tx, caller, uid, action=Action.FILE_READ)
    return tx.metadata.page(uid, after=after, limit=limit)


def remove_metadata(tx: CatalogTransaction, caller: Caller, uid: UUID, *, key: str) -> File:
    """Remove one key of a file's metadata, which may be a dotted path."""
    file, _ = _file(tx, caller, uid, action=Action.FILE_ANNOTATE)
    return set_metadata(tx, caller, uid, patch=removal(file.metadata, key))


def delete(tx: CatalogTransaction, caller: Caller, wanted: FileDeletion) -> Deleted:
    """Count the files that are meant; hide them where the caller expects just so many."""
    experiment = _meant(tx, caller, wanted.query)
    rights.check_own(tx, experiment)
    tx.files.lock([experiment.uid])
    count = tx.files.count(wanted.query, is_deleted=False)
    if wanted.expected_count is None:
        return Deleted(files=count.files, bytes=count.bytes, is_done=False)
    if wanted.expected_count != count.files:
        raise ConflictError(
            f'{count.files} files of "{experiment.name}" are meant now, and not {wanted.expected_count}: '
            f"nothing was deleted, look again",
            files=count.files,
            bytes=count.bytes,
        )
    tx.files.hide(wanted.query, by=caller.username)
    tx.events.add(_news(DELETED, experiment, count))
    return Deleted(files=count.files, bytes=count.bytes, is_done=True)


def restore(tx: CatalogTransaction, caller: Caller, query: FileQuery) -> FileCount:
    """Bring back the hidden files that a query means, of the last 30 days."""
    experiment = _meant(tx, caller, query)
    rights.check_own(tx, experiment)
    tx.files.lock([experiment.uid])
    count = tx.files.count(query, is_deleted=True)
    if count.files:
        tx.files.bring_back(query)
        tx.events.add(_news(RESTORED, experiment, count))
    return count


def summary(tx: CatalogTransaction, caller: Caller, experiment_uid: UUID) -> ExperimentSummary:
    """Return the files of an experiment in numbers."""
    experiment = rights.experiment(tx, caller, Action.EXPERIMENT_READ, experiment_uid)
    return tx.files.summary(experiment.uid)


def _file(tx: CatalogTransaction, caller: Caller, uid: UUID, *, action: Action) -> tuple[File, Experiment]:
    """Return a file with which the caller may do it; what is hidden is there only for who may bring it back."""
    file = tx.files.get(uid)
    unknown = NotFoundError(f"there is no file {uid}", uid=str(uid))
    try:
        experiment = rights.experiment(tx, caller, Action.FILE_READ, file.experiment_uid)
    except NotFoundError as error:
        raise unknown from error
    target = experiment.target(tx.now)
    if file.deleted_at is not None and not may(caller, Action.FILE_DELETE, target):
        raise unknown
    require(caller, action, target, f"file {uid}")
    return file, experiment


def _meant(tx: CatalogTransaction, caller: Caller, query: FileQuery) -> Experiment:
    """Return the experiment whose files may be hidden or brought back, one at a time."""
    if query.experiment_uid is None:
        raise InvalidError("deleted files are of one experiment at a time: say which")
    return rights.experiment(tx, caller, Action.FILE_DELETE, query.experiment_uid)


def _available(experiment: Experiment, created: Sequence[tuple[Arriving, str]]) -> NewEvent:
    count = FileCount(files=len(created), bytes=sum(file.size for file, _ in created))
    return _news(AVAILABLE, experiment, count, uids=(UUID(uid) for _, uid in created))


def _news(kind: str, experiment: Experiment, count: FileCount, *, uids: Iterable[UUID] = ()) -> NewEvent:
    first: list[JsonValue] = []
    first.extend(str(uid) for uid in islice(uids, EVENT_UIDS))
    data: Metadata = {"count": count.files, "bytes": count.bytes}
    return NewEvent(
        kind=kind,
        station_uid=experiment.station_uid,
        experiment_uid=experiment.uid,
        data={**data, "file_uids": first} if first else data,
    )
