"""Getting files back: their bytes, archives of many, and links for people without an account."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from uuid import UUID

from uuid6 import uuid7

from beamkeeper.client.http import Http
from beamkeeper.domain.downloads import (
    SET_LIMIT,
    ContentQuery,
    Delivery,
    DeliveryPage,
    FileSet,
    Link,
    NewFileSet,
    NewLink,
    NewLinkMade,
    NewSetFile,
    SetFiles,
    Sharing,
    SharingChange,
)
from beamkeeper.domain.files import File


class Downloads:
    """The bytes of files, as the storage service sends them."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def read(self, file: File, begin: int = 0, *, area_uid: UUID | None = None) -> Iterator[bytes]:
        """Yield the bytes of the version that a file has, from a position on; of its copy in another area, if named."""
        told = str(file.checksums[0]) if file.checksums else None
        query = ContentQuery(path_b64=file.path_b64, version=file.version, storage_area_uid=area_uid, checksum=told)
        path = f"/api/v1/experiments/{file.experiment_uid}/content"
        with self._http().stream(path, query=query.model_dump(mode="json", exclude={"path"}), begin=begin) as response:
            yield from response.iter_raw()

    def freeze(self, experiment_uid: UUID, name: str, files: Iterator[File]) -> FileSet:
        """Return a frozen set of files, whose archive is always the same."""
        new = NewFileSet(uid=UUID(bytes=uuid7().bytes), experiment_uid=experiment_uid, name=name)
        made: FileSet = self._http().call("POST", "/api/v1/sets", FileSet, body=new)
        is_end = False
        while not is_end:
            some = [_of_set(file) for file in islice(files, SET_LIMIT)]
            is_end = len(some) < SET_LIMIT
            more = SetFiles(start=made.files, files=some, is_end=is_end)
            made = self._http().call("POST", f"/api/v1/sets/{made.uid}/files", FileSet, body=more, timeout_s=300.0)
        return made

    def get_set(self, uid: UUID) -> FileSet:
        """Return a set of files."""
        found: FileSet = self._http().get(f"/api/v1/sets/{uid}", FileSet)
        return found

    def archive(self, uid: UUID, begin: int = 0) -> Iterator[bytes]:
        """Yield the tar of a frozen set, from a position on."""
        with self._http().stream(f"/api/v1/sets/{uid}/archive", begin=begin) as response:
            yield from response.iter_raw()

    def deliveries(self, experiment_uid: UUID) -> Iterator[Delivery]:
        """Yield who got what of an experiment and how far it came, newest first."""
        after: str | None = None
        while True:
            path = f"/api/v1/experiments/{experiment_uid}/deliveries"
            page: DeliveryPage = self._http().get(path, DeliveryPage, query={"after": after})
            yield from page.items
            if (after := page.next) is None:
                return


class Links:
    """Links that need no client and no login."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def create(self, of: FileSet, expires_at: datetime, note: str = "") -> tuple[Link, str]:
        """Make a link to a frozen set; returns it with its address, which is shown this once."""
        new = NewLink(uid=UUID(bytes=uuid7().bytes), set_uid=of.uid, expires_at=expires_at, note=note)
        made: NewLinkMade = self._http().call("POST", "/api/v1/links", NewLinkMade, body=new)
        return made.link, self._http().url + made.path

    def list(self, experiment_uid: UUID) -> Sequence[Link]:
        """Return the links into an experiment, newest first."""
        found: Sequence[Link] = self._http().get(f"/api/v1/experiments/{experiment_uid}/links", Sequence[Link])
        return found

    def revoke(self, uid: UUID) -> Link:
        """Let a link lead nowhere."""
        revoked: Link = self._http().call("DELETE", f"/api/v1/links/{uid}", Link)
        return revoked

    def sharing(self, experiment_uid: UUID) -> Sharing:
        """Return whether links may be made into an experiment."""
        found: Sharing = self._http().get(f"/api/v1/experiments/{experiment_uid}/sharing", Sharing)
        return found

    def allow(self, experiment_uid: UUID, is_allowed: bool) -> Sharing:
        """Allow links into an experiment, or forbid them; those that exist follow."""
        change = SharingChange(is_allowed=is_allowed)
        path = f"/api/v1/experiments/{experiment_uid}/sharing"
        decided: Sharing = self._http().call("PUT", path, Sharing, body=change)
        return decided


def _of_set(file: File) -> NewSetFile:
    return NewSetFile(
        path_b64=file.path_b64,
        version=file.version,
        size=file.size,
        checksum=file.checksums[0] if file.checksums else None,
        link_target_b64=file.link_target_b64,
    )
