"""Adding to the metadata of files what was found in their first frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from beamkeeper.db.files.tables import FileRow, VersionRow
from beamkeeper.db.search import note_changed
from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.frames import NewFrame, with_frame
from beamkeeper.domain.metadata import check_metadata


def note_frames(
    session: Session, now: datetime, experiment_uid: UUID, frames: Mapping[UUID, NewFrame]
) -> Sequence[tuple[UUID, int]]:
    """Add what was found to the newest versions among these; return which files have changed, and their sizes.

    It is no change of a version's metadata but a late part of them: their history has changes by people and versions.
    """
    wanted = (
        select(FileRow, VersionRow)
        .join(VersionRow, (VersionRow.file_id == FileRow.id) & (VersionRow.number == FileRow.number))
        .where(VersionRow.uid.in_(frames), FileRow.experiment_uid == experiment_uid)
        .order_by(FileRow.id)
        .with_for_update(of=FileRow)
    )
    changed: list[tuple[FileRow, int]] = []
    for file, version in session.execute(wanted):
        try:
            metadata = check_metadata(with_frame(file.metadata_, file.annotations, frames[version.uid]))
        except InvalidError:
            continue  # they are as large as metadata may be
        if metadata != file.metadata_:
            file.metadata_ = metadata
            changed.append((file, version.size))
    note_changed(session, now, [file.id for file, _ in changed])
    session.flush()  # so that a query of the same transaction finds it
    return [(file.uid, size) for file, size in changed]
