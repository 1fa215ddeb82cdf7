"""The language in which files are searched: what a query is, its two notations, and what it means of a document."""

from beamkeeper.domain.query.document import parse_document as parse_document
from beamkeeper.domain.query.meaning import meaning as meaning
from beamkeeper.domain.query.printer import printed as printed
from beamkeeper.domain.query.text import parse_text as parse_text

__all__ = ["meaning", "parse_document", "parse_text", "printed"]
