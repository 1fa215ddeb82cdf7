"""Reading the files of a page by the driver, as the text that is answered: no row becomes an object of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from beamkeeper.domain.file_text import ChecksumText, ReadFile

_FILES = "files AS f JOIN versions AS v ON v.file_id = f.id AND v.number = f.number"
_COLUMNS = (
    "f.id, v.id, f.uid, f.experiment_uid, f.path, f.kind, v.number, v.uid, v.size, v.link_target, f.source_agent, "
    "f.source_path, v.identity{0}, v.is_snapshot, v.is_verified, v.is_suspect, v.modified_at, v.finished_at, "
    "v.transferred_at, v.verified_at, v.catalogued_at, f.metadata{0}, f.deleted_at"
)
"""In the order of ReadFile, with what makes text of a document."""


def read_files(session: Session, ids: Sequence[int]) -> Iterator[tuple[ReadFile, Sequence[ChecksumText]]]:
    """Yield files by their local numbers, in this order, with the checksums of their newest versions."""
    if not ids:
        return iter(())
    connection = session.connection()
    columns = _COLUMNS.format("::text" if connection.dialect.name == "postgresql" else "")
    found = {row[0]: ReadFile(*row) for row in _rows(connection, columns, _FILES, "f.id", ids)}
    checksums: defaultdict[int, list[ChecksumText]] = defaultdict(list)
    of = [file.version_id for file in found.values()]
    for version, *checksum in sorted(_rows(connection, "version_id, algorithm, value", "checksums", "version_id", of)):
        checksums[version].append(ChecksumText(*checksum))
    return ((found[id_], checksums.get(found[id_].version_id, ())) for id_ in ids if id_ in found)


def _rows(connection: Connection, columns: str, tables: str, key: str, numbers: Sequence[int]) -> Sequence[Any]:
    """Return the rows whose key is one of these numbers of ours, which stand in the statement where that is quicker."""
    listed = ", ".join(map(str, numbers))
    wanted = f"SELECT {columns} FROM {tables} WHERE {key} "  # noqa: S608 - names and numbers of ours
    if connection.dialect.name == "postgresql":
        return connection.exec_driver_sql(f"{wanted}= ANY(%s::bigint[])", (f"{{{listed}}}",)).all()
    return connection.exec_driver_sql(f"{wanted}IN ({listed})").all()
