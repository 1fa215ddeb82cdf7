"""What is stored by directory: by what the search index counts already, or by looking at every file.

The index counts the files and bytes of each directory, of the files as they were when it came by. What has changed
since is listed, and is put right here; what is not verified is found by an index of its own. So an experiment with a
million files costs what its directories and its latest changes cost. Where that cannot be told, every file is looked
at: where the index is far behind, where many versions are unverified, and where the name of a directory cannot be read
back from how it is shown.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, case, exists, func, select
from sqlalchemy.orm import Session

from beamkeeper.db.files.tables import FileRow, ReplicaRow, VersionRow
from beamkeeper.db.finding.indexed import pending
from beamkeeper.db.pages import parts
from beamkeeper.db.search.counting import MAX_NAME
from beamkeeper.db.search.tables import DIRECTORY, SearchCountRow, SearchExperimentRow, SearchFileRow
from beamkeeper.domain.files import ReplicaState
from beamkeeper.domain.ledger import DirectoryCount, DirectoryPage, DirectoryQuery
from beamkeeper.domain.names import from_b64, to_b64

UNVERIFIED = 5000
"""So many versions that are not verified are looked at one by one; where there are more, all files are."""

_IS_NEWEST = (VersionRow.file_id == FileRow.id) & (VersionRow.number == FileRow.number)


@dataclass(slots=True)
class _Tally:
    files: int = 0
    bytes: int = 0
    unverified: int = 0
    suspect: int = 0


def directories(session: Session, experiment_uid: UUID, query: DirectoryQuery) -> DirectoryPage:
    """Return what is stored by directory, in the order of directories."""
    found = _counted(session, experiment_uid, query)
    rows = _looked_at(session, experiment_uid, query) if found is None else _shown(found, query)
    shown = rows[: query.limit]
    return DirectoryPage(items=tuple(shown), next=shown[-1].path_b64 if len(rows) > query.limit else None)


def _shown(found: Mapping[bytes, _Tally], query: DirectoryQuery) -> list[DirectoryCount]:
    after = None if query.after is None else from_b64(query.after)
    meant = sorted(path for path, tally in found.items() if tally.files and (after is None or path > after))
    return [
        DirectoryCount(
            path_b64=to_b64(path),
            files=found[path].files,
            bytes=found[path].bytes,
            verified=found[path].files - found[path].unverified,
            suspect=found[path].suspect,
        )
        for path in meant[: query.limit + 1]
    ]


def _counted(session: Session, experiment_uid: UUID, query: DirectoryQuery) -> dict[bytes, _Tally] | None:
    """Return the directories that are meant, as they are counted; None where that cannot be told."""
    waiting, is_behind = pending(session)
    unverified = [] if is_behind else _unverified(session, experiment_uid)
    if is_behind or unverified is None:
        return None
    found: defaultdict[bytes, _Tally] = defaultdict(_Tally)
    number = session.scalar(select(SearchExperimentRow.id).where(SearchExperimentRow.uid == experiment_uid))
    for name, files, size in _in_index(session, number):
        if "\\" in name or len(name) >= MAX_NAME:
            return None
        tally = found[name.encode()]
        tally.files, tally.bytes = tally.files + files, tally.bytes + size
    for first, last in waiting:
        for parent, size in _as_it_is(session, experiment_uid, first, last):
            tally = found[parent]
            tally.files, tally.bytes = tally.files + 1, tally.bytes + size
        for name, size in _as_indexed(session, number, first, last):
            tally = found[name.encode()]
            tally.files, tally.bytes = tally.files - 1, tally.bytes - size
    for parent, is_suspect in unverified:
        found[parent].unverified += 1
        found[parent].suspect += is_suspect
    return {path: tally for path, tally in found.items() if _is_below(path, query)}


def _in_index(session: Session, number: int | None) -> Iterator[tuple[str, int, int]]:
    row = SearchCountRow
    wanted = select(row.name, row.files, row.bytes).where(row.experiment_id == number, row.kind == DIRECTORY)
    yield from ((name, int(files), int(size)) for name, files, size in session.execute(wanted) if files)


def _as_it_is(session: Session, experiment_uid: UUID, first: int, last: int) -> Iterator[tuple[bytes, int]]:
    """Yield the directory and size of each file of a range that is there; those of other experiments left out."""
    # By their numbers, and the experiment beside: SQLite would go through all of its files.
    wanted = select(FileRow.experiment_uid, FileRow.parent, VersionRow.size).join(VersionRow, _IS_NEWEST)
    for uid, parent, size in session.execute(
        wanted.where(FileRow.id.between(first, last), FileRow.deleted_at.is_(None))
    ):
        if uid == experiment_uid:
            yield parent, size


def _as_indexed(session: Session, number: int | None, first: int, last: int) -> Iterator[tuple[str, int]]:
    """Yield the directory and size of each file of a range as the index counts it."""
    row = SearchFileRow
    wanted = (
        select(row.experiment_id, SearchCountRow.name, row.size)
        .join(SearchCountRow, SearchCountRow.id == row.directory_id)
        .where(row.file_id.between(first, last))
    )
    yield from ((name, size) for of, name, size in session.execute(wanted) if of == number)


def _unverified(session: Session, experiment_uid: UUID) -> list[tuple[bytes, bool]] | None:
    """Return the directory of each file whose version is not verified, and whether it is suspect; None: too many."""
    row = VersionRow
    # As both databases have it in the index; with a limit, or SQLite would go through the files of the experiment.
    is_it = row.is_verified.is_(False) if _is_postgres(session) else row.is_verified == False  # noqa: E712
    every = session.execute(select(row.id, row.file_id, row.number).where(is_it).limit(UNVERIFIED + 1)).all()
    if len(every) > UNVERIFIED:
        return None
    suspect = _suspect_among(session, [id_ for id_, _, _ in every])
    versions = {(file_id, number): id_ for id_, file_id, number in every}
    found: list[tuple[bytes, bool]] = []
    for part in parts({file_id for file_id, _ in versions}):
        wanted = select(FileRow.id, FileRow.number, FileRow.experiment_uid, FileRow.parent)
        for id_, number, uid, parent in session.execute(
            wanted.where(FileRow.id.in_(part), FileRow.deleted_at.is_(None))
        ):
            if uid == experiment_uid and (id_, number) in versions:
                found.append((parent, versions[id_, number] in suspect))
    return found


def _suspect_among(session: Session, version_ids: Sequence[int]) -> Collection[int]:
    found: set[int] = set()
    for part in parts(version_ids):
        wanted = select(ReplicaRow.version_id).where(
            ReplicaRow.version_id.in_(part), ReplicaRow.state == ReplicaState.SUSPECT
        )
        found.update(session.scalars(wanted))
    return found


def _is_postgres(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"


def _is_below(path: bytes, query: DirectoryQuery) -> bool:
    if query.below_b64 is None:
        return True
    top = from_b64(query.below_b64).strip(b"/")
    return path == top or path.startswith(top + b"/")


def _looked_at(session: Session, experiment_uid: UUID, query: DirectoryQuery) -> list[DirectoryCount]:
    """Return the directories by looking at every file of the experiment."""
    meant = [FileRow.experiment_uid == experiment_uid, FileRow.deleted_at.is_(None), *_within(query)]
    wanted = (
        select(
            FileRow.parent,
            func.count(),
            func.sum(VersionRow.size),
            func.sum(case((VersionRow.is_verified, 1), else_=0)),
        )
        .select_from(FileRow)
        .join(VersionRow, _IS_NEWEST)
        .where(*meant)
        .group_by(FileRow.parent)
        .order_by(FileRow.parent)
        .limit(query.limit + 1)
    )
    rows = session.execute(wanted).all()
    suspect = _suspect(session, meant) if any(row[1] != row[3] for row in rows) else {}
    return [
        DirectoryCount(
            path_b64=to_b64(parent),
            files=files,
            bytes=int(size),
            verified=int(verified),
            suspect=suspect.get(parent, 0),
        )
        for parent, files, size, verified in rows
    ]


def _suspect(session: Session, meant: Sequence[ColumnElement[bool]]) -> Mapping[bytes, int]:
    has_suspect = exists().where((ReplicaRow.version_id == VersionRow.id) & (ReplicaRow.state == ReplicaState.SUSPECT))
    wanted = (
        select(FileRow.parent, func.count())
        .select_from(FileRow)
        .join(VersionRow, _IS_NEWEST)
        .where(*meant, VersionRow.is_verified.is_(False), has_suspect)
        .group_by(FileRow.parent)
    )
    found: dict[bytes, int] = dict(session.execute(wanted).all())
    return found


def _within(query: DirectoryQuery) -> list[ColumnElement[bool]]:
    """Return the directories that are meant; the range of paths, beside that of parents, is what the index knows."""
    found: list[ColumnElement[bool]] = []
    if query.below_b64 is not None:
        top = from_b64(query.below_b64).strip(b"/")
        found += [FileRow.path > top + b"/", FileRow.path < top + b"0"]  # "0" is what follows "/" in ASCII
    if query.after is not None:
        after = from_b64(query.after)
        found += [FileRow.parent > after, FileRow.path > after]
    return found
