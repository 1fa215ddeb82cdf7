"""A catalogue as a whole: yielding its documents, importing them, checking it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from uuid import UUID

from beamkeeper.client.http import Http
from beamkeeper.domain.catalogues import CheckPage, CheckQuery, DocumentPage, Imported, NewDocuments, Reindexed
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.replication import FileDocument

PAGE = 200
"""So many documents are asked for and sent at a time: each may have two megabytes of metadata."""

CALL_BYTES = 16 * 1024 * 1024
"""About the largest body of one call; services take several times this."""


class Catalogues:
    """The whole of a catalogue."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def documents(self, query: FileQuery) -> Iterator[FileDocument]:
        """Yield every file that a query means as a whole document, asking for a page at a time."""
        wanted = query.model_copy(update={"limit": min(query.limit, PAGE)})
        while True:
            page: DocumentPage = self._http().call("POST", "/api/v1/files:export", DocumentPage, body=wanted)
            yield from page.items
            if page.next is None:
                return
            wanted = wanted.model_copy(update={"after": page.next})

    def import_(self, documents: Iterable[Metadata]) -> Iterator[Imported]:
        """Add files that are not there, a call at a time; yields what became of each part."""
        part: list[Metadata] = []
        size = 0
        for document in documents:
            weight = len(str(document))
            if part and (len(part) == PAGE or size + weight > CALL_BYTES):
                yield self._import(part)
                part, size = [], 0
            part.append(document)
            size += weight
        if part:
            yield self._import(part)

    def _import(self, part: list[Metadata]) -> Imported:
        done: Imported = self._http().call(
            "POST", "/api/v1/files:import", Imported, body=NewDocuments(documents=tuple(part))
        )
        return done

    def reindex(self) -> Reindexed:
        """Make the search index anew; it says about how many files that are."""
        begun: Reindexed = self._http().call("POST", "/api/v1/index:rebuild", Reindexed)
        return begun

    def check(self, experiment_uid: UUID | None = None) -> Iterator[CheckPage]:
        """Yield what does not fit together, a page of files at a time."""
        query = CheckQuery(experiment_uid=experiment_uid)
        while True:
            page: CheckPage = self._http().call("POST", "/api/v1/files:check", CheckPage, body=query)
            yield page
            if page.next is None:
                return
            query = query.model_copy(update={"after": page.next})
