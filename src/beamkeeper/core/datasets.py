"""Datasets: making, listing, filling and freezing them, and who may do which."""

from __future__ import annotations

from uuid import UUID

from beamkeeper.core import rights
from beamkeeper.db import CatalogTransaction
from beamkeeper.domain.datasets import (
    BelongingFiles,
    Belongs,
    Changed,
    Dataset,
    DatasetPage,
    DatasetQuery,
    DatasetState,
    FilesAsked,
    MemberPage,
    MemberQuery,
    NewDataset,
)
from beamkeeper.domain.errors import AlreadyExistsError, NotFoundError, NotPermittedError
from beamkeeper.domain.events import NewEvent
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import FileCount
from beamkeeper.domain.metadata import MetadataHistory, check_metadata
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.users import Action, Caller, may, reach, require

CREATED = "datasets.created"
CHANGED = "datasets.changed"
FROZEN = "datasets.frozen"


def create(tx: CatalogTransaction, caller: Caller, new: NewDataset) -> Dataset:
    """Make a dataset; asking again for the same one gives it."""
    experiment = rights.experiment(tx, caller, Action.FILE_ANNOTATE, new.experiment_uid)
    rights.check_own(tx, experiment)
    check_metadata(new.metadata)
    tx.files.lock([experiment.uid])
    if (held := tx.datasets.find(experiment.uid, new.name)) is not None:
        if (held.owner, held.title, held.query) == (caller.username, new.title, new.query):
            return held
        raise AlreadyExistsError(
            f'there is a dataset "{new.name}" in experiment "{experiment.name}" already, of {held.owner}', name=new.name
        )
    made = tx.datasets.add(new, owner=caller.username)
    if made.query is not None:
        tx.datasets.files(made, MemberQuery(limit=1))  # so that a query with a fault is refused now
    tx.events.add(_news(CREATED, experiment, made))
    return made


def page(tx: CatalogTransaction, caller: Caller, query: DatasetQuery) -> DatasetPage:
    """Return the datasets that are wanted, out of those that the caller may read."""
    if query.experiment_uid is not None:
        rights.experiment(tx, caller, Action.FILE_READ, query.experiment_uid)
    return tx.datasets.page(query, reach(caller, Action.FILE_READ))


def show(tx: CatalogTransaction, caller: Caller, uid: UUID) -> Dataset:
    """Return a dataset."""
    return _dataset(tx, caller, uid, action=Action.FILE_READ)[0]


def files(tx: CatalogTransaction, caller: Caller, uid: UUID, *, query: MemberQuery) -> MemberPage:
    """Return some files of a dataset."""
    dataset, _ = _dataset(tx, caller, uid, action=Action.FILE_READ)
    return tx.datasets.files(dataset, query)


def of_files(tx: CatalogTransaction, caller: Caller, asked: FilesAsked) -> BelongingFiles:
    """Return the newest dataset of each of some files of an experiment."""
    rights.experiment(tx, caller, Action.FILE_READ, asked.experiment_uid)
    found = tx.datasets.of_files(asked.experiment_uid, asked.file_uids)
    return BelongingFiles(items=tuple(Belongs(file_uid=file, uid=uid) for file, uid in found.items()))


def count(tx: CatalogTransaction, caller: Caller, uid: UUID) -> FileCount:
    """Return how many files a dataset has."""
    dataset, _ = _dataset(tx, caller, uid, action=Action.FILE_READ)
    return tx.datasets.count(dataset)


def add_files(tx: CatalogTransaction, caller: Caller, uid: UUID, *, file_uids: tuple[UUID, ...]) -> Changed:
    """Add files to a dataset that is a list and open."""
    _, experiment = _dataset(tx, caller, uid, action=Action.FILE_ANNOTATE)
    dataset = tx.datasets.lock(uid)
    dataset.check_list()
    added = tx.datasets.add_files(uid, file_uids, by=caller.username)
    tx.events.add(_news(CHANGED, experiment, dataset))
    return Changed(files=added)


def remove_files(tx: CatalogTransaction, caller: Caller, uid: UUID, *, file_uids: tuple[UUID, ...]) -> Changed:
    """Take files out of a dataset that is a list and open."""
    _, experiment = _dataset(tx, caller, uid, action=Action.FILE_ANNOTATE)
    dataset = tx.datasets.lock(uid)
    dataset.check_list()
    removed = tx.datasets.remove_files(uid, file_uids)
    tx.events.add(_news(CHANGED, experiment, dataset))
    return Changed(files=removed)


def freeze(tx: CatalogTransaction, caller: Caller, uid: UUID) -> Dataset:
    """Fix the files of a dataset for ever, each in its present version; for its owner and the experiment's leaders."""
    _, experiment = _dataset(tx, caller, uid, action=Action.FILE_ANNOTATE)
    dataset = tx.datasets.lock(uid)
    if dataset.owner != caller.username and not may(caller, Action.FILE_DELETE, experiment.target(tx.now)):
        raise NotPermittedError(
            f'dataset "{dataset.name}" is {dataset.owner}\'s: only its owner, the PI and managers freeze it'
        )
    if dataset.state is DatasetState.FROZEN:
        return dataset
    tx.files.lock([experiment.uid])  # what is registered or hidden meanwhile comes after
    frozen = tx.datasets.freeze(uid, by=caller.username)
    tx.events.add(_news(FROZEN, experiment, frozen))
    return frozen


def set_metadata(tx: CatalogTransaction, caller: Caller, uid: UUID, *, patch: Metadata) -> Dataset:
    """Change a dataset's metadata by a merge patch; of a frozen one too, since only its files are fixed."""
    _, experiment = _dataset(tx, caller, uid, action=Action.FILE_ANNOTATE)
    changed = tx.datasets.set_metadata(uid, patch, by=caller.username)
    tx.events.add(_news(CHANGED, experiment, changed))
    return changed


def metadata_history(
    tx: CatalogTransaction, caller: Caller, uid: UUID, *, after: str | None, limit: int
) -> MetadataHistory:
    """Return how a dataset's metadata came about, newest change first."""
    _dataset(tx, caller, uid, action=Action.FILE_READ)
    return tx.metadata.page(uid, after=after, limit=limit)


def _dataset(tx: CatalogTransaction, caller: Caller, uid: UUID, *, action: Action) -> tuple[Dataset, Experiment]:
    dataset = tx.datasets.get(uid)
    try:
        experiment = rights.experiment(tx, caller, Action.FILE_READ, dataset.experiment_uid)
    except NotFoundError as error:
        raise NotFoundError(f"there is no dataset {uid}", uid=str(uid)) from error
    require(caller, action, experiment.target(tx.now), f'dataset "{dataset.name}"')
    if action is not Action.FILE_READ:
        rights.check_own(tx, experiment)
    return dataset, experiment


def _news(kind: str, experiment: Experiment, dataset: Dataset) -> NewEvent:
    return NewEvent(
        kind=kind,
        station_uid=experiment.station_uid,
        experiment_uid=experiment.uid,
        data={"uid": str(dataset.uid), "name": dataset.name},
    )
