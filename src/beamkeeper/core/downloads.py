"""Getting files back: one file, and sets of files that are frozen so that every byte of their archive has its place."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from uuid import UUID

from blake3 import blake3

from beamkeeper.core import copies_read, rights
from beamkeeper.core.archive import END, ArchiveSource, FileSource, Source, StoredSource, length
from beamkeeper.core.copies_read import CopiesRead, Places
from beamkeeper.core.sessions import renewed
from beamkeeper.core.stored import Stored
from beamkeeper.db import Database, StorageTransaction
from beamkeeper.db.downloads import SetItem
from beamkeeper.domain.arrays import FileChoice
from beamkeeper.domain.downloads import ContentQuery, DeliveryPage, FileSet, NewFileSet, NewSetFile, SetFiles
from beamkeeper.domain.errors import ConflictError, NotFoundError, NotPermittedError
from beamkeeper.domain.names import from_b64, path_fields, show_path
from beamkeeper.domain.users import Action, Caller

AT_ONCE = 8
PAGE = 500
"""How many files of a set are looked up at a time."""


@dataclass(frozen=True, slots=True)
class Content:
    """What is to be sent: the bytes, what tells them from others, and who may still have them."""

    source: Source
    etag: str
    filename: str
    experiment_uid: UUID
    username: str
    check: Callable[[], None]
    """Raises DmError once the right has gone."""
    set_uid: UUID | None = None
    link_uid: UUID | None = None
    path_b64: str | None = None


def content(
    database: Database[StorageTransaction], copies: CopiesRead, caller: Caller, uid: UUID, query: ContentQuery
) -> Content:
    """Open a file of an experiment that the caller may read."""
    with database.read() as tx:
        where = copies_read.root(tx, caller, uid, area_uid=query.storage_area_uid)
    choice = FileChoice(**path_fields(query.relpath), version=query.version, checksum=query.checksum)
    source, state = _open(copies, where, choice)
    return Content(
        source=source,
        etag=f'"{state}"',
        filename=os.fsdecode(query.relpath.name),
        experiment_uid=uid,
        username=caller.username,
        check=still_readable(database, caller, uid),
        path_b64=query.path_b64,
    )


def _open(copies: CopiesRead, where: Places, choice: FileChoice) -> tuple[Source, str]:
    with copies.readable(where, choice) as file:
        if isinstance(file, Stored):
            return StoredSource(file), file.state
        source = FileSource(os.dup(file.descriptor), file.size, copies=copies, where=where, choice=choice)
        return source, file.state


def still_readable(database: Database[StorageTransaction], caller: Caller, uid: UUID) -> Callable[[], None]:
    """Return what raises once the caller's session has ended, or may not read the experiment any more."""

    def check() -> None:
        with database.read() as tx:
            now = caller if caller.session_uid is None else renewed(tx, caller.session_uid)
            rights.experiment(tx, now, Action.FILE_READ, uid)

    return check


def add_set(tx: StorageTransaction, caller: Caller, new: NewFileSet) -> FileSet:
    """Begin a set of files; the same uid again gives the same set."""
    rights.experiment(tx, caller, Action.FILE_READ, new.experiment_uid)
    if caller.user_uid is None:
        raise NotPermittedError("sets of files are for people: services read file by file")
    found = tx.downloads.find_set(new.uid)
    if found is None:
        tx.downloads.sweep()
        return tx.downloads.add_set(new, by=caller.username)
    if (found.experiment_uid, found.created_by) != (new.experiment_uid, caller.username):
        raise NotFoundError(f"{new.uid} is another set: give each a uid of its own")
    return found


def get_set(tx: StorageTransaction, caller: Caller, uid: UUID) -> FileSet:
    """Return a set of files of an experiment that the caller may read."""
    found = tx.downloads.get_set(uid)
    try:
        rights.experiment(tx, caller, Action.FILE_READ, found.experiment_uid)
    except (NotFoundError, NotPermittedError) as error:
        raise NotFoundError(f"there is no set of files {uid}") from error
    return found


def add_files(tx: StorageTransaction, caller: Caller, uid: UUID, more: SetFiles, frozen: Sequence[SetItem]) -> FileSet:
    """Add files to a set, as `frozen` found them; what is in it already is not added twice."""
    found = get_set(tx, caller, uid)
    if found.created_by != caller.username:
        raise NotPermittedError(f"set {uid} is added to by {found.created_by} alone")
    if more.start + len(more.files) <= found.files and (found.is_frozen or not more.is_end):
        return found  # an answer was lost
    if found.is_frozen:
        raise ConflictError(f"set {uid} is frozen: make another for other files")
    if more.start != found.files:
        raise ConflictError(f"set {uid} has {found.files} files: go on there, not at {more.start}", files=found.files)
    placed, end = _placed(found.name, frozen, begin=found.size)
    tx.downloads.add_items(uid, more.start, placed)
    values: dict[str, object] = {
        "files": found.files + len(placed),
        "bytes": found.bytes + sum(item.size for item in placed),
        "size": end,
        "etag": _etag(found.etag, placed),
    }
    if more.is_end:
        values |= {"size": end + len(END), "is_frozen": True}
    return tx.downloads.change_set(uid, **values)


def find_files(
    database: Database[StorageTransaction], copies: CopiesRead, caller: Caller, uid: UUID, files: Sequence[NewSetFile]
) -> Sequence[SetItem]:
    """Look at the files of a set as they lie in the storage; no transaction is open meanwhile."""
    with database.read() as tx:
        found = get_set(tx, caller, uid)
        where = copies_read.root(tx, caller, found.experiment_uid)
    if where.store is None:
        return [_frozen(copies, where, file) for file in files]
    with ThreadPoolExecutor(AT_ONCE, "look at objects") as pool:  # each is a question over the network
        return list(pool.map(lambda file: _frozen(copies, where, file), files))


def _frozen(copies: CopiesRead, where: Places, file: NewSetFile) -> SetItem:
    told = "" if file.checksum is None else str(file.checksum)
    target = None if file.link_target_b64 is None else from_b64(file.link_target_b64)
    if target is not None:
        return SetItem(file.relpath, file.version, 0, 0, "", told, target, 0)
    choice = FileChoice(**path_fields(file.relpath), version=file.version, checksum=told or None)
    with copies.readable(where, choice, size=file.size) as opened:
        if opened.size != file.size:
            raise ConflictError(
                f'"{show_path(file.relpath)}" has {opened.size} bytes in the storage and {file.size} in the catalogue: '
                f"`dm scrub` finds out why"
            )
        at = opened.modified_s if isinstance(opened, Stored) else int(os.fstat(opened.descriptor).st_mtime)
        return SetItem(file.relpath, file.version, file.size, at, opened.state, told, None, 0)


def _placed(name: str, items: Sequence[SetItem], *, begin: int) -> tuple[Sequence[SetItem], int]:
    """Return files with their places in the archive, and where the next one goes."""
    placed = []
    for item in items:
        placed.append(replace(item, begin=begin))
        begin += length(name, item)
    return placed, begin


def _etag(before: str, items: Sequence[SetItem]) -> str:
    """Return the digest of all that an archive is made of, from the one of the files before; in whatever calls."""
    for item in items:
        facts = repr((item.path, item.size, item.modified_s, item.state, item.checksum, item.link_target, item.begin))
        before = blake3(before.encode() + facts.encode()).hexdigest()
    return before


def archive(database: Database[StorageTransaction], copies: CopiesRead, caller: Caller, uid: UUID) -> Content:
    """Return the archive of a frozen set of an experiment that the caller may read."""
    with database.read() as tx:
        found = get_set(tx, caller, uid)
        where = copies_read.root(tx, caller, found.experiment_uid)
    check = still_readable(database, caller, found.experiment_uid)
    return archive_of(database, copies, found, where, username=caller.username, check=check)


def archive_of(
    database: Database[StorageTransaction],
    copies: CopiesRead,
    found: FileSet,
    where: Places,
    *,
    username: str,
    check: Callable[[], None],
    link_uid: UUID | None = None,
) -> Content:
    """Return the archive of a frozen set."""
    if not found.is_frozen:
        raise ConflictError(f"set {found.uid} is not frozen yet: its last files are still to be named")

    def items(begin: int) -> Sequence[SetItem]:
        with database.read() as tx:
            return tx.downloads.items(found.uid, begin, limit=PAGE)

    return Content(
        source=ArchiveSource(copies, where, found.name, found.size, items),
        etag=f'"{found.etag}"',
        filename=f"{found.name}.tar",
        experiment_uid=found.experiment_uid,
        username=username,
        check=check,
        set_uid=found.uid,
        link_uid=link_uid,
    )


def deliveries(tx: StorageTransaction, caller: Caller, uid: UUID, *, after: str | None, limit: int) -> DeliveryPage:
    """Return who got what of an experiment and how far it came, for those who lead it."""
    rights.experiment(tx, caller, Action.FILE_SHARE, uid)
    return tx.downloads.deliveries(uid, after=after, limit=limit)
