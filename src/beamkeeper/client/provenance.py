"""Provenance of the files of a station's catalogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from beamkeeper.client.http import Http
from beamkeeper.domain.provenance import SOURCES_LIMIT, Making, NewDerivation, Provenance, Recorded, SourceRef, Towards


class ProvenanceOf:
    """What files were made from."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def record(
        self,
        file_uid: UUID,
        sources: Sequence[UUID | SourceRef],
        *,
        job: str = "",
        stage: str = "",
        making: Making | None = None,
        version: int | None = None,
    ) -> int:
        """Record from which files a file was made; return how many links are new. Idempotent."""
        refs = [one if isinstance(one, SourceRef) else SourceRef(file_uid=one) for one in sources]
        links = 0
        for start in range(0, len(refs), SOURCES_LIMIT):
            some = tuple(refs[start : start + SOURCES_LIMIT])
            new = NewDerivation(version=version, sources=some, job=job, stage=stage, making=making)
            done: Recorded = self._http().call("POST", f"/api/v1/files/{file_uid}/sources", Recorded, body=new)
            links += done.links
        return links

    def why(self, file_uid: UUID, towards: Towards = Towards.SOURCES) -> Provenance:
        """Return what a file was made from, down to raw frames; or what was made from it."""
        query = {"towards": str(towards)}
        found: Provenance = self._http().get(f"/api/v1/files/{file_uid}/provenance", Provenance, query=query)
        return found
