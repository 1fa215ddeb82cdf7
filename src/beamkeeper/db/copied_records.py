"""Datasets, runs and links of provenance as documents: read at their station, and taken over at the site."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Select, delete, select, tuple_, update

from beamkeeper.db.base import upsert
from beamkeeper.db.copied import Copied, Row, Span, Taken, taken, weight_of
from beamkeeper.db.experiments import ExperimentRow
from beamkeeper.db.files.tables import FileRow, VersionRow
from beamkeeper.db.linked import DatasetRow, DerivationRow, RunRow
from beamkeeper.db.metadata import histories, take_histories
from beamkeeper.db.pages import parts
from beamkeeper.domain.datasets import DatasetState
from beamkeeper.domain.provenance import Making
from beamkeeper.domain.replication import (
    DatasetDocument,
    DerivationDocument,
    MetadataChangeDocument,
    Refusal,
    RunDocument,
)
from beamkeeper.domain.runs import RunState

_LINK_BYTES = 500
"""About what a link has, besides how a job made it."""

NamedT = TypeVar("NamedT", DatasetDocument, RunDocument)

History = tuple[MetadataChangeDocument, ...]


class _Records(Copied[NamedT]):
    """What has a name in its experiment, metadata and a history of them."""

    _noun: str

    @abstractmethod
    def _document(self, row: Any, history: History) -> NamedT:
        """Return the document of a row."""

    def _weight(self, row: DatasetRow | RunRow) -> int:
        return weight_of(row.free)

    def of(self, rows: Sequence[Any]) -> list[NamedT]:
        """Return the documents of these rows, in their order."""
        history = histories(self._session, [row.uid for row in rows])
        return [self._document(row, tuple(history.get(row.uid, ()))) for row in rows]

    def take(self, documents: Sequence[NamedT]) -> Taken:
        """Take documents over; return the local keys, and what is refused."""
        return taken(self._session, documents, self._take, self._refusal)

    def _take(self, documents: Sequence[NamedT]) -> Taken:
        own, refused = self._without_strangers(documents)
        self._make_room(own)
        upsert(self._session, self._table, [_row(each) for each in own], key=("uid",))
        take_histories(self._session, own)
        ids: list[int] = []
        for part in parts([each.uid for each in own]):
            ids += self._session.scalars(select(self._table.id).where(self._table.uid.in_(part)))
        return ids, refused

    def _refusal(self, document: NamedT, why: str) -> Refusal:
        return Refusal(uid=document.uid, message=f'{self._noun} "{document.name}" {why}'[:2000])

    def _without_strangers(self, documents: Sequence[NamedT]) -> tuple[list[NamedT], list[Refusal]]:
        """Return documents without those that are there twice, or have the uid of something else."""
        held: dict[UUID, tuple[UUID, str]] = {}
        table = self._table
        for part in parts([each.uid for each in documents]):
            rows = self._session.execute(select(table.uid, table.experiment_uid, table.name).where(table.uid.in_(part)))
            held |= {uid: (experiment_uid, name) for uid, experiment_uid, name in rows}
        own: dict[tuple[UUID, str], NamedT] = {}
        refused: list[Refusal] = []
        for each in documents:
            key = (each.experiment_uid, each.name)
            if key in own:
                refused.append(self._refusal(each, "is there twice"))
            elif held.get(each.uid, key) != key:
                refused.append(self._refusal(each, f"has the uid {each.uid} of another {self._noun}"))
            else:
                own[key] = each
        return list(own.values()), refused

    def _make_room(self, documents: Sequence[NamedT]) -> None:
        """Give what has the names of documents under other uids those of the documents: its station has it no more."""
        table = self._table
        keys = {(each.experiment_uid, each.name): each.uid for each in documents}
        found: list[Row] = []
        for part in parts(keys):
            wanted = select(table.id, table.uid, table.experiment_uid, table.name)
            rows = self._session.execute(wanted.where(tuple_(table.experiment_uid, table.name).in_(part)))
            found += [
                {"id": id_, "uid": keys[experiment_uid, name]}
                for id_, uid, experiment_uid, name in rows
                if uid != keys[experiment_uid, name]
            ]
        if found:
            self._session.execute(update(table), found)

    def hide_unlisted(self, station_uid: UUID, span: Span, *, known: Collection[UUID], limit: int, by: str) -> int:
        """Hide what a listing of the station did not have, at most `limit`; return how many there are in all."""
        table = self._table
        wanted = _within(self._of_station(station_uid).with_only_columns(table.id, table.uid), table, span)
        rows = self._session.execute(wanted.where(table.deleted_at.is_(None)))
        gone = [id_ for id_, uid in rows if uid not in known]
        for part in parts(gone[:limit]):
            hiding = update(table).where(table.id.in_(part)).values(deleted_at=self._now)
            self._session.execute(hiding, execution_options={"synchronize_session": False})
        return len(gone)


class DatasetDocuments(_Records[DatasetDocument]):
    """Datasets; which files they have, the documents of the files say."""

    _table = DatasetRow
    _noun = "dataset"

    def _document(self, row: DatasetRow, history: History) -> DatasetDocument:
        return DatasetDocument(
            uid=row.uid,
            experiment_uid=row.experiment_uid,
            name=row.name,
            title=row.title,
            owner=row.owner,
            state=DatasetState(row.state),
            query=row.query,
            metadata=row.free,
            created_at=row.created_at,
            frozen_at=row.frozen_at,
            deleted_at=row.deleted_at,
            history=history,
        )


class RunDocuments(_Records[RunDocument]):
    """Runs; which files they have, the documents of the files say."""

    _table = RunRow
    _noun = "run"

    def _document(self, row: RunRow, history: History) -> RunDocument:
        return RunDocument(
            uid=row.uid,
            experiment_uid=row.experiment_uid,
            name=row.name,
            state=RunState(row.state),
            started_at=row.started_at,
            stopped_at=row.stopped_at,
            metadata=row.free,
            created_at=row.created_at,
            created_by=row.created_by,
            deleted_at=row.deleted_at,
            history=history,
        )


class DerivationDocuments(Copied[DerivationDocument]):
    """Links between versions of files, which have come before them."""

    _table = DerivationRow

    def _weight(self, row: DerivationRow) -> int:
        return _LINK_BYTES + weight_of(row.making or {})

    def _of_station(self, station_uid: UUID) -> Select[Any]:
        own = select(ExperimentRow.uid).where(ExperimentRow.station_uid == station_uid)
        return (
            select(DerivationRow)
            .join(VersionRow, VersionRow.id == DerivationRow.derived_id)
            .join(FileRow, FileRow.id == VersionRow.file_id)
            .where(FileRow.experiment_uid.in_(own))
        )

    def of(self, rows: Sequence[DerivationRow]) -> list[DerivationDocument]:
        """Return the documents of these rows, in their order."""
        versions: dict[int, tuple[UUID, UUID]] = {}
        for part in parts({id_ for row in rows for id_ in (row.derived_id, row.source_id)}):
            wanted = select(VersionRow.id, VersionRow.uid, FileRow.experiment_uid).join(
                FileRow, FileRow.id == VersionRow.file_id
            )
            for id_, uid, experiment_uid in self._session.execute(wanted.where(VersionRow.id.in_(part))):
                versions[id_] = (uid, experiment_uid)
        return [
            DerivationDocument(
                uid=row.uid,
                experiment_uid=versions[row.derived_id][1],
                derived_uid=versions[row.derived_id][0],
                source_uid=versions[row.source_id][0],
                job=row.job,
                stage=row.stage,
                making=Making.model_validate(row.making) if row.making else None,
                recorded_at=row.recorded_at,
                recorded_by=row.recorded_by,
            )
            for row in rows
        ]

    def take(self, documents: Sequence[DerivationDocument]) -> Taken:
        """Take documents over; return the local keys, and what is refused."""
        return taken(self._session, documents, self._take, _refused_link)

    def _take(self, documents: Sequence[DerivationDocument]) -> Taken:
        versions = self._versions({uid for each in documents for uid in (each.derived_uid, each.source_uid)})
        held = self._held([each.uid for each in documents])
        rows: dict[tuple[int, int], Row] = {}
        refused: list[Refusal] = []
        for each in documents:
            derived, source = versions.get(each.derived_uid), versions.get(each.source_uid)
            if derived is None or source is None:
                refused.append(_refused_link(each, "is of a version that is not here"))
                continue
            key = (derived[0], source[0])
            if derived[1] != each.experiment_uid or derived[2] != source[2]:
                refused.append(_refused_link(each, "is of a file of another station or experiment"))
            elif held.get(each.uid, key) != key:
                refused.append(_refused_link(each, "has the uid of another link"))
            else:
                told = each.model_dump(exclude={"experiment_uid", "derived_uid", "source_uid", "making"})
                making = each.making and each.making.model_dump(mode="json")
                rows[key] = {**told, "making": making, "derived_id": key[0], "source_id": key[1]}
        upsert(self._session, DerivationRow, list(rows.values()), key=("derived_id", "source_id"))
        return list(self._ids([row["uid"] for row in rows.values()])), refused

    def _versions(self, uids: Collection[UUID]) -> Mapping[UUID, tuple[int, UUID, UUID]]:
        """Return the local keys of versions with their experiments and stations."""
        found: dict[UUID, tuple[int, UUID, UUID]] = {}
        for part in parts(uids):
            wanted = (
                select(VersionRow.uid, VersionRow.id, FileRow.experiment_uid, ExperimentRow.station_uid)
                .join(FileRow, FileRow.id == VersionRow.file_id)
                .join(ExperimentRow, ExperimentRow.uid == FileRow.experiment_uid)
                .where(VersionRow.uid.in_(part))
            )
            for uid, id_, experiment_uid, station_uid in self._session.execute(wanted):
                found[uid] = (id_, experiment_uid, station_uid)
        return found

    def _held(self, uids: Sequence[UUID]) -> Mapping[UUID, tuple[int, int]]:
        found: dict[UUID, tuple[int, int]] = {}
        columns = (DerivationRow.uid, DerivationRow.derived_id, DerivationRow.source_id)
        for part in parts(uids):
            for uid, derived, source in self._session.execute(select(*columns).where(DerivationRow.uid.in_(part))):
                found[uid] = (derived, source)
        return found

    def _ids(self, uids: Sequence[UUID]) -> Sequence[int]:
        found: list[int] = []
        for part in parts(uids):
            found += self._session.scalars(select(DerivationRow.id).where(DerivationRow.uid.in_(part)))
        return found

    def hide_unlisted(self, station_uid: UUID, span: Span, *, known: Collection[UUID], limit: int, by: str) -> int:
        """Remove links that a listing of the station did not have, at most `limit`; return how many there are in all.

        A link says nothing that the station could not say again.
        """
        columns: tuple[Any, ...] = (DerivationRow.id, DerivationRow.uid)
        wanted = self._of_station(station_uid).with_only_columns(*columns)
        gone = [id_ for id_, uid in self._session.execute(_within(wanted, DerivationRow, span)) if uid not in known]
        for part in parts(gone[:limit]):
            removing = delete(DerivationRow).where(DerivationRow.id.in_(part))
            self._session.execute(removing, execution_options={"synchronize_session": False})
        return len(gone)


def _within(wanted: Select[Any], table: Any, span: Span) -> Select[Any]:
    first, last = span
    wanted = wanted if first is None else wanted.where(table.uid > first)
    return wanted if last is None else wanted.where(table.uid <= last)


def _row(document: DatasetDocument | RunDocument) -> Row:
    return document.model_dump(exclude={"history"})


def _refused_link(document: DerivationDocument, why: str) -> Refusal:
    return Refusal(uid=document.uid, message=f"link {document.uid} {why}")
