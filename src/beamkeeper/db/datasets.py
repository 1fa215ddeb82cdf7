"""Datasets: tables and queries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Select,
    delete,
    exists,
    func,
    select,
    update,
)
from sqlalchemy.orm import Session

from beamkeeper.db.base import new_uid, upsert
from beamkeeper.db.changes import changed
from beamkeeper.db.files import Files
from beamkeeper.db.files.members import IS_NEWEST, file_ids, newest_of, page_of, version_of
from beamkeeper.db.files.tables import FileRow, VersionRow
from beamkeeper.db.finding import Exactly
from beamkeeper.db.linked import DatasetFileRow, DatasetRow
from beamkeeper.db.metadata import Change, MetadataChanges
from beamkeeper.db.pages import to_cursor, uid_of
from beamkeeper.db.scope import experiment_uids
from beamkeeper.domain.datasets import (
    Dataset,
    DatasetPage,
    DatasetQuery,
    DatasetState,
    Member,
    MemberPage,
    MemberQuery,
    NewDataset,
)
from beamkeeper.domain.errors import NotFoundError
from beamkeeper.domain.files import FileCount, FileOrder, FileQuery
from beamkeeper.domain.metadata import check_metadata, patched
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.replication import Kind
from beamkeeper.domain.users import Reach


class Datasets:
    """Queries on datasets and their files."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def find(self, experiment_uid: UUID, name: str) -> Dataset | None:
        """Return a dataset by its name, or None."""
        wanted = select(DatasetRow).where(
            DatasetRow.experiment_uid == experiment_uid, DatasetRow.name == name, DatasetRow.deleted_at.is_(None)
        )
        row = self._session.scalars(wanted).one_or_none()
        return None if row is None else to_dataset(row)

    def get(self, uid: UUID) -> Dataset:
        """Return a dataset."""
        return to_dataset(self._row(uid))

    def page(self, query: DatasetQuery, reach: Reach) -> DatasetPage:
        """Return the datasets that are wanted, newest first, out of the experiments within reach."""
        wanted = select(DatasetRow).where(DatasetRow.deleted_at.is_(None))
        wanted = wanted.order_by(DatasetRow.uid.desc()).limit(query.limit + 1)
        if query.experiment_uid is not None:
            wanted = wanted.where(DatasetRow.experiment_uid == query.experiment_uid)
        if query.name is not None:
            wanted = wanted.where(DatasetRow.name == query.name)
        if query.file_uid is not None:
            link = (DatasetFileRow.dataset_id == DatasetRow.id) & (DatasetFileRow.file_id == FileRow.id)
            wanted = wanted.where(exists().where(link, FileRow.uid == query.file_uid))
        if not reach.is_all:
            wanted = wanted.where(DatasetRow.experiment_uid.in_(experiment_uids(reach, self._now)))
        if query.after is not None:
            wanted = wanted.where(DatasetRow.uid < uid_of(query.after))
        items = [to_dataset(row) for row in self._session.scalars(wanted)]
        more = to_cursor(items[query.limit - 1].uid.hex) if len(items) > query.limit else None
        return DatasetPage(items=items[: query.limit], next=more)

    def add(self, new: NewDataset, *, owner: str) -> Dataset:
        """Make a dataset; the experiment is locked, and the name is free."""
        dataset = Dataset(
            uid=new_uid(),
            experiment_uid=new.experiment_uid,
            name=new.name,
            title=new.title,
            owner=owner,
            state=DatasetState.OPEN,
            query=new.query,
            metadata=new.metadata,
            created_at=self._now,
        )
        row = DatasetRow(free=dataset.metadata, **dataset.model_dump(exclude={"metadata"}))
        self._session.add(row)
        self._session.flush()
        changed(self._session, Kind.DATASETS, [row.id])
        return dataset

    def set_metadata(self, uid: UUID, patch: Metadata, *, by: str) -> Dataset:
        """Change a dataset's metadata by a merge patch."""
        row = self._row(uid, is_for_update=True)
        change = Change(uid, row.experiment_uid, row.free, check_metadata(patch))
        MetadataChanges(self._session, self._now).add([change], by=by)
        row.free = check_metadata(patched(row.free, patch))
        changed(self._session, Kind.DATASETS, [row.id])
        self._session.flush()
        return to_dataset(row)

    def lock(self, uid: UUID) -> Dataset:
        """Return a dataset that nobody else changes until this transaction ends."""
        return to_dataset(self._row(uid, is_for_update=True))

    def add_files(self, uid: UUID, file_uids: Sequence[UUID], *, by: str) -> int:
        """Add files to a list; return how many were not there."""
        row = self._row(uid)
        ids = set(file_ids(self._session, row.experiment_uid, file_uids)) - self._listed(row.id, file_uids)
        self._list(row.id, sorted(ids), by)
        return len(ids)

    def _listed(self, dataset_id: int, file_uids: Sequence[UUID]) -> set[int]:
        wanted = (
            select(DatasetFileRow.file_id)
            .join(FileRow, FileRow.id == DatasetFileRow.file_id)
            .where(DatasetFileRow.dataset_id == dataset_id, FileRow.uid.in_(set(file_uids)))
        )
        return set(self._session.scalars(wanted))

    def remove_files(self, uid: UUID, file_uids: Sequence[UUID]) -> int:
        """Take files out of a list; return how many were there."""
        row = self._row(uid)
        ids = self._listed(row.id, file_uids)
        link = (DatasetFileRow.dataset_id == row.id) & DatasetFileRow.file_id.in_(ids)
        self._session.execute(delete(DatasetFileRow).where(link))
        changed(self._session, Kind.FILES, ids)
        return len(ids)

    def files(self, dataset: Dataset, query: MemberQuery) -> MemberPage:
        """Return some files of a dataset: of a list in the order in which they were catalogued, else by path."""
        if dataset.state is DatasetState.OPEN and dataset.query is not None:
            return self._found(dataset, query)
        return page_of(self._session, self._linked(dataset, FileRow, VersionRow), DatasetFileRow.file_id, query)

    def _found(self, dataset: Dataset, query: MemberQuery) -> MemberPage:
        wanted = _wanted(dataset).model_copy(update={"after": query.after, "limit": query.limit})
        page = Files(self._session, self._now).find(wanted, Reach(is_all=True))
        items = [Member(file=file, version=version_of(file)) for file in page.items]
        return MemberPage(items=items, next=page.next)

    def of_files(self, experiment_uid: UUID, file_uids: Sequence[UUID]) -> dict[UUID, UUID]:
        """Return the dataset that lists each of these files, or holds it frozen; of several the newest."""
        linked = select(FileRow.uid, DatasetRow.uid).join(DatasetFileRow, DatasetFileRow.file_id == FileRow.id)
        wanted = linked.join(DatasetRow, DatasetRow.id == DatasetFileRow.dataset_id).where(
            FileRow.uid.in_(file_uids), DatasetRow.experiment_uid == experiment_uid, DatasetRow.deleted_at.is_(None)
        )
        return newest_of(self._session, wanted)

    def count(self, dataset: Dataset) -> FileCount:
        """Return how many files a dataset has, and how large the versions are that belong to it."""
        if dataset.state is DatasetState.OPEN and dataset.query is not None:
            return self._meant(dataset).count()
        wanted = self._linked(dataset, func.count(), func.coalesce(func.sum(VersionRow.size), 0))
        files, size = self._session.execute(wanted).one()
        return FileCount(files=files, bytes=int(size))

    def freeze(self, uid: UUID, *, by: str) -> Dataset:
        """Fix the files of a dataset, each in the version that it has now; a list that is frozen stays so."""
        row = self._row(uid, is_for_update=True)
        if row.query is not None:
            for ids in self._meant(to_dataset(row)).parts():
                self._list(row.id, ids, by)
        self._pin(row.id)
        row.state, row.frozen_at = DatasetState.FROZEN, self._now
        changed(self._session, Kind.DATASETS, [row.id])
        self._session.flush()
        return to_dataset(row)

    def _list(self, dataset_id: int, ids: Sequence[int], by: str) -> None:
        common = {"dataset_id": dataset_id, "added_at": self._now, "added_by": by}
        rows = [{**common, "file_id": id_} for id_ in ids]
        upsert(self._session, DatasetFileRow, rows, key=("dataset_id", "file_id"), keep=("added_at", "added_by"))
        changed(self._session, Kind.FILES, ids)

    def _pin(self, dataset_id: int) -> None:
        hidden = select(FileRow.id).where(FileRow.id == DatasetFileRow.file_id, FileRow.deleted_at.is_not(None))
        is_own = DatasetFileRow.dataset_id == dataset_id
        changed(self._session, Kind.FILES, self._session.scalars(select(DatasetFileRow.file_id).where(is_own)))
        options = {"synchronize_session": False}
        self._session.execute(delete(DatasetFileRow).where(is_own, exists(hidden)), execution_options=options)
        newest = (
            select(VersionRow.id).join(FileRow, IS_NEWEST).where(FileRow.id == DatasetFileRow.file_id).scalar_subquery()
        )
        self._session.execute(update(DatasetFileRow).where(is_own).values(version_id=newest), execution_options=options)

    def _linked(self, dataset: Dataset, *columns: Any) -> Select[Any]:
        """Select from the files that a dataset lists; of an open one those in sight, with their newest versions."""
        wanted = (
            select(*columns)
            .select_from(DatasetFileRow)
            .join(DatasetRow, DatasetRow.id == DatasetFileRow.dataset_id)
            .join(FileRow, FileRow.id == DatasetFileRow.file_id)
            .where(DatasetRow.uid == dataset.uid)
        )
        if dataset.state is DatasetState.FROZEN:
            return wanted.join(VersionRow, VersionRow.id == DatasetFileRow.version_id)
        return wanted.join(VersionRow, IS_NEWEST).where(FileRow.deleted_at.is_(None))

    def _meant(self, dataset: Dataset) -> Exactly:
        """Return all files that a saved query finds: those of the dataset's own experiment."""
        return Exactly(self._session, self._now, _wanted(dataset), FileRow.deleted_at.is_(None))

    def _row(self, uid: UUID, *, is_for_update: bool = False) -> DatasetRow:
        wanted = select(DatasetRow).where(DatasetRow.uid == uid, DatasetRow.deleted_at.is_(None))
        row = self._session.scalars(wanted.with_for_update() if is_for_update else wanted).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no dataset {uid}", uid=str(uid))
        return row


def _wanted(dataset: Dataset) -> FileQuery:
    return FileQuery(experiment_uid=dataset.experiment_uid, query=dataset.query, order=FileOrder.PATH)


def to_dataset(row: DatasetRow) -> Dataset:
    """Return the dataset that a row holds."""
    plain = {key: getattr(row, key) for key in Dataset.model_fields if key != "metadata"}
    return Dataset.model_validate({**plain, "metadata": row.free})
