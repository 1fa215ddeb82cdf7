"""Provenance: the links between versions of files, and walking along them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from beamkeeper.db.base import new_uid, upsert
from beamkeeper.db.changes import changed
from beamkeeper.db.files.tables import FileRow, VersionRow
from beamkeeper.db.linked import DerivationRow
from beamkeeper.db.scope import experiment_uids
from beamkeeper.domain.errors import ConflictError, NotFoundError
from beamkeeper.domain.names import Metadata, to_b64
from beamkeeper.domain.provenance import (
    MAX_NODES,
    DerivedFrom,
    Making,
    NewDerivation,
    Provenance,
    ProvenanceFile,
    ProvenanceVersion,
    SourceRef,
    Towards,
)
from beamkeeper.domain.replication import Kind
from beamkeeper.domain.users import Reach

_LOCK = 0x70726F76
"""Held while links are added: two at once could make a cycle that neither sees."""


class _Link(NamedTuple):
    derived_id: int
    source_id: int
    job: str
    stage: str
    making: Metadata | None
    recorded_at: datetime
    recorded_by: str


class Derivations:
    """Queries on links between files."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def add(self, file_uid: UUID, new: NewDerivation, *, by: str) -> int:
        """Record links; return how many are new. ConflictError where a file would be made from itself."""
        if self._session.get_bind().dialect.name == "postgresql":
            self._session.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        derived = self._version(SourceRef(file_uid=file_uid, version=new.version))
        sources = self._versions(new.sources)
        if derived in self._beyond(sources, stop_at=derived):
            raise ConflictError(
                f"file {file_uid} cannot be made from these files, since one of them was made from it",
                uid=str(file_uid),
            )
        held = select(DerivationRow.source_id).where(DerivationRow.derived_id == derived)
        fresh = sources - set(self._session.scalars(held))
        rows = [
            {
                "uid": new_uid(),
                "derived_id": derived,
                "source_id": source,
                "job": new.job,
                "stage": new.stage,
                "making": new.making and new.making.model_dump(mode="json"),
                "recorded_at": self._now,
                "recorded_by": by,
            }
            for source in sorted(fresh)
        ]
        upsert(self._session, DerivationRow, rows, key=("derived_id", "source_id"), keep=rows[0] if rows else ())
        made = select(DerivationRow.id).where(DerivationRow.uid.in_([row["uid"] for row in rows]))
        changed(self._session, Kind.DERIVATIONS, self._session.scalars(made))
        return len(rows)

    def walk(self, file_uid: UUID, towards: Towards, reach: Reach, *, version: int | None = None) -> Provenance:
        """Return what is reached from a file along its links; behind what the caller may not see nothing is told."""
        first = self._version(SourceRef(file_uid=file_uid, version=version))
        numbers = {first: 0}
        shown = self._shown([first], reach)
        links: list[_Link] = []
        front, is_cut = [first], False
        while front and not is_cut:
            found = self._links(front, towards)
            ahead = list(dict.fromkeys(_other(link, towards) for link in found if _other(link, towards) not in numbers))
            is_cut = len(numbers) + len(ahead) > MAX_NODES
            ahead = ahead[: MAX_NODES - len(numbers)]
            numbers |= {id_: len(numbers) + place for place, id_ in enumerate(ahead)}
            links += [link for link in found if _other(link, towards) in numbers]
            shown |= self._shown(ahead, reach)
            front = [id_ for id_ in ahead if id_ in shown]
        return Provenance(
            towards=towards,
            files=[
                ProvenanceFile(number=number, is_hidden=id_ not in shown, file=shown.get(id_))
                for id_, number in numbers.items()
            ],
            links=[_told(link, numbers, shown) for link in links],
            is_cut=is_cut,
        )

    def _links(self, front: Collection[int], towards: Towards) -> list[_Link]:
        near = DerivationRow.derived_id if towards is Towards.SOURCES else DerivationRow.source_id
        found: list[_Link] = []
        columns = [getattr(DerivationRow, name) for name in _Link._fields]
        for some in _chunks(front):
            rows = self._session.execute(select(*columns).where(near.in_(some)).order_by(DerivationRow.id))
            found += [_Link(*row) for row in rows]
            if len(found) > 10 * MAX_NODES:
                break
        return found

    def _beyond(self, start: Collection[int], *, stop_at: int) -> set[int]:
        """Return all versions from which these were made, with themselves; ends early where one is looked for."""
        seen, front = set(start), set(start)
        while front and stop_at not in seen:
            ahead: set[int] = set()
            for some in _chunks(front):
                wanted = select(DerivationRow.source_id).where(DerivationRow.derived_id.in_(some))
                ahead |= set(self._session.scalars(wanted))
            front = ahead - seen
            seen |= front
        return seen

    def _version(self, ref: SourceRef) -> int:
        (found,) = self._versions([ref])
        return found

    def _versions(self, refs: Sequence[SourceRef]) -> set[int]:
        """Return the local keys of versions; NotFoundError where one is not there."""
        found: dict[tuple[UUID, int | None], int] = {}
        wanted = (
            select(FileRow.uid, VersionRow.number, FileRow.number, VersionRow.id)
            .join(VersionRow, VersionRow.file_id == FileRow.id)
            .where(FileRow.uid.in_({ref.file_uid for ref in refs}))
        )
        for uid, number, newest, id_ in self._session.execute(wanted):
            found[uid, number] = id_
            if number == newest:
                found[uid, None] = id_
        for ref in refs:
            if (ref.file_uid, ref.version) not in found:
                which = "" if ref.version is None else f" with a version {ref.version}"
                raise NotFoundError(f"there is no file {ref.file_uid}{which}", uid=str(ref.file_uid))
        return {found[ref.file_uid, ref.version] for ref in refs}

    def _shown(self, ids: Sequence[int], reach: Reach) -> dict[int, ProvenanceVersion]:
        """Return what may be told of versions: of those within reach and in sight."""
        columns: tuple[Any, ...] = (
            VersionRow.id,
            FileRow.uid,
            FileRow.experiment_uid,
            FileRow.path,
            VersionRow.number,
            FileRow.number,
        )
        found: dict[int, ProvenanceVersion] = {}
        for some in _chunks(ids):
            wanted = select(*columns).join(FileRow, FileRow.id == VersionRow.file_id)
            wanted = wanted.where(VersionRow.id.in_(some), FileRow.deleted_at.is_(None))
            if not reach.is_all:
                wanted = wanted.where(FileRow.experiment_uid.in_(experiment_uids(reach, self._now)))
            for id_, uid, experiment_uid, path, number, newest in self._session.execute(wanted):
                found[id_] = ProvenanceVersion(
                    path_b64=to_b64(path),
                    file_uid=uid,
                    experiment_uid=experiment_uid,
                    version=number,
                    is_newest=number == newest,
                )
        return found


def _chunks(ids: Collection[int], size: int = 500) -> list[list[int]]:
    ordered = list(ids)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def _other(link: _Link, towards: Towards) -> int:
    return link.source_id if towards is Towards.SOURCES else link.derived_id


def _told(link: _Link, numbers: Mapping[int, int], shown: Mapping[int, ProvenanceVersion]) -> DerivedFrom:
    """Return a link as the caller may see it: of a result that is hidden, who made it how is hidden too."""
    is_told = link.derived_id in shown
    return DerivedFrom(
        derived=numbers[link.derived_id],
        source=numbers[link.source_id],
        job=link.job if is_told else "",
        stage=link.stage if is_told else "",
        making=Making.model_validate(link.making) if is_told and link.making else None,
        recorded_at=link.recorded_at,
        recorded_by=link.recorded_by if is_told else "",
    )
