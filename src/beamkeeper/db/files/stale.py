"""Which results are stale: made from a version of a file that has a newer one by now."""

from __future__ import annotations

from sqlalchemy import exists
from sqlalchemy.orm import aliased

from beamkeeper.db.files.tables import FileRow, VersionRow
from beamkeeper.db.linked import DerivationRow

_mine, _source, _of = aliased(VersionRow), aliased(VersionRow), aliased(FileRow)

IS_STALE = exists().where(
    _mine.file_id == FileRow.id,
    _mine.number == FileRow.number,
    DerivationRow.derived_id == _mine.id,
    _source.id == DerivationRow.source_id,
    _of.id == _source.file_id,
    _of.number > _source.number,
    _of.experiment_uid == FileRow.experiment_uid,  # of others nothing is told, even that there is a new version
)
"""Of a row of `files`: whether its newest version was made from one that is not the newest of its file."""
