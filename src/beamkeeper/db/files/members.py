"""Files that belong to something, such as a dataset or a run: naming them by uid, and listing them in pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from beamkeeper.db.files.registering import checksums_of
from beamkeeper.db.files.tables import FileRow, VersionRow, to_file, to_version
from beamkeeper.db.pages import to_cursor, uid_of
from beamkeeper.domain.datasets import Member, MemberPage, MemberQuery
from beamkeeper.domain.errors import NotFoundError
from beamkeeper.domain.files import File, Version

IS_NEWEST: ColumnElement[bool] = (VersionRow.file_id == FileRow.id) & (VersionRow.number == FileRow.number)


def file_ids(session: Session, experiment_uid: UUID, uids: Sequence[UUID]) -> list[int]:
    """Return the local keys of files of an experiment; NotFoundError where one is hidden or of another."""
    wanted = select(FileRow.uid, FileRow.id).where(
        FileRow.uid.in_(set(uids)), FileRow.experiment_uid == experiment_uid, FileRow.deleted_at.is_(None)
    )
    found: dict[UUID, int] = dict(session.execute(wanted).all())
    for uid in uids:
        if uid not in found:
            raise NotFoundError(f"there is no file {uid} in this experiment", uid=str(uid))
    return sorted(found.values())


def newest_of(session: Session, wanted: Select[UUID, UUID]) -> dict[UUID, UUID]:
    """Return what files belong to, of a select of their uids with those of what holds them: the newest of several."""
    rows = sorted(session.execute(wanted).all(), key=lambda row: row[1])
    return {row[0]: row[1] for row in rows}


def page_of(session: Session, wanted: Select[Any], link: InstrumentedAttribute[int], query: MemberQuery) -> MemberPage:
    """Return a page of a select of files with versions that is joined with a table of links, in the links' order."""
    if query.after is not None:
        last = select(FileRow.id).where(FileRow.uid == uid_of(query.after)).scalar_subquery()
        wanted = wanted.where(link > last)
    rows = [(file, version) for file, version in session.execute(wanted.order_by(link).limit(query.limit + 1))]
    items = members(session, rows[: query.limit])
    return MemberPage(items=items, next=to_cursor(items[-1].file.uid.hex) if len(rows) > query.limit else None)


def version_of(file: File) -> Version:
    """Return the newest version of a file, as the file tells it."""
    fields = set(Version.model_fields) - {"uid", "number", "file_uid"}
    told = {name: getattr(file, name) for name in fields}
    return Version(uid=file.version_uid, file_uid=file.uid, number=file.version, **told)


def members(session: Session, rows: Sequence[tuple[FileRow, VersionRow]]) -> list[Member]:
    """Return files with the versions that are meant; a file says of itself what it holds now."""
    others = [file.id for file, version in rows if version.number != file.number]
    newest: dict[int, VersionRow] = {file.id: version for file, version in rows if version.number == file.number}
    if others:
        found = select(VersionRow).join(FileRow, FileRow.id == VersionRow.file_id)
        for row in session.scalars(found.where(FileRow.id.in_(others), IS_NEWEST)):
            newest[row.file_id] = row
    meant = [version.id for _, version in rows]
    checksums = checksums_of(session, [*meant, *(newest[file_id].id for file_id in others)])
    return [
        Member(
            file=to_file(file, newest[file.id], checksums),
            version=to_version(version, file.uid, checksums),
        )
        for file, version in rows
    ]
