"""Reading the files of a page by the driver, as the text that is answered: no row becomes an object of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from beamkeeper.domain.file_text import ChecksumText, ReadFile

_FILES = "files AS f JOIN versions AS v ON v.file_id = f.id AND v.number = f.number"
_CHECKSUMS = "(SELECT {0}(algorithm || ' ' || value, ',') FROM checksums WHERE version_id = v.id)"
"""As one text, with what joins texts: to ask for those of a page by itself takes as long as to read ten files."""
_COLUMNS = (
    "f.id, v.id, f.uid{0}, f.experiment_uid{0}, f.path, f.kind, v.number, v.uid{0}, v.size, v.link_target, "
    "f.source_agent, f.source_path, v.identity{0}, v.is_snapshot, v.is_verified, v.is_suspect, v.modified_at, "
    "v.finished_at, v.transferred_at, v.verified_at, v.catalogued_at, f.metadata{0}, f.deleted_at"
)
"""In the order of ReadFile, with what makes text of a document and of a uid."""


def read_files(session: Session, ids: Sequence[int]) -> Iterator[tuple[ReadFile, Sequence[ChecksumText]]]:
    """Yield files by their local numbers, in this order, with the checksums of their newest versions."""
    if not ids:
        return iter(())
    connection = session.connection()
    is_postgres = connection.dialect.name == "postgresql"
    columns = _COLUMNS.format("::text" if is_postgres else "")
    checksums = _CHECKSUMS.format("string_agg" if is_postgres else "group_concat")
    rows = _rows(connection, f"{columns}, {checksums}", ids)
    found = {row[0]: (ReadFile(*row[:-1]), _checksums(row[-1])) for row in rows}
    return (found[id_] for id_ in ids if id_ in found)


def _checksums(joined: str | None) -> Sequence[ChecksumText]:
    return [ChecksumText(*each.split(" ")) for each in sorted(joined.split(","))] if joined else ()


def _rows(connection: Connection, columns: str, numbers: Sequence[int]) -> Sequence[Any]:
    """Return the rows of files of these numbers of ours, which stand in the statement where that is quicker."""
    listed = ", ".join(map(str, numbers))
    wanted = f"SELECT {columns} FROM {_FILES} WHERE f.id "  # noqa: S608 - names and numbers of ours
    if connection.dialect.name == "postgresql":
        return connection.exec_driver_sql(f"{wanted}= ANY(%s::bigint[])", (f"{{{listed}}}",)).all()
    return connection.exec_driver_sql(f"{wanted}IN ({listed})").all()
