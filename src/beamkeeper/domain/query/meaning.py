"""What a request for files asks: its query, its document and its simple conditions, as one query."""

from __future__ import annotations

from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.query import fields
from beamkeeper.domain.query.ast import Builtin, Compare, Moment, Node, both
from beamkeeper.domain.query.document import parse_document
from beamkeeper.domain.query.text import parse_text


def meaning(query: FileQuery) -> Node:
    """Return every condition of a request for files, but for its experiment and what is hidden."""
    found: list[Node] = []
    if query.glob is not None:
        try:
            found.append(fields.glob(Builtin("path"), query.glob))
        except fields.RefusalError as refusal:
            raise InvalidError(f"glob: {refusal}") from refusal
    if query.min_size is not None:
        found.append(Compare(Builtin("size"), ">=", fields.clamped(query.min_size)))
    if query.max_size is not None:
        found.append(Compare(Builtin("size"), "<=", fields.clamped(query.max_size)))
    if query.modified_after is not None:
        found.append(Compare(Builtin("modified"), ">=", Moment(query.modified_after)))
    if query.modified_before is not None:
        found.append(Compare(Builtin("modified"), "<", Moment(query.modified_before)))
    if query.query is not None:
        found.append(parse_text(query.query))
    if query.filter is not None:
        found.append(parse_document(query.filter))
    return both(*found)
