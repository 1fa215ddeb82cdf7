"""Datasets of a station's catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from uuid import UUID

from beamkeeper.client.http import Http
from beamkeeper.client.members import change_members, holders, members
from beamkeeper.client.metadata import changes
from beamkeeper.domain.datasets import Dataset, DatasetPage, DatasetQuery, Member, NewDataset
from beamkeeper.domain.errors import NotFoundError
from beamkeeper.domain.files import FileCount, MetadataPatch
from beamkeeper.domain.metadata import MetadataChange
from beamkeeper.domain.names import Metadata


class Datasets:
    """Named sets of files."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def create(self, new: NewDataset) -> Dataset:
        """Make a dataset; asking again for the same one gives it."""
        made: Dataset = self._http().call("POST", "/api/v1/datasets", Dataset, body=new)
        return made

    def get(self, uid: UUID) -> Dataset:
        """Return a dataset by its uid."""
        found: Dataset = self._http().get(f"/api/v1/datasets/{uid}", Dataset)
        return found

    def named(self, experiment_uid: UUID, name: str) -> Dataset:
        """Return a dataset of an experiment by its name."""
        for found in self.list(DatasetQuery(experiment_uid=experiment_uid, name=name)):
            return found
        raise NotFoundError(f'the experiment has no dataset "{name}": `dm dataset list` shows those', name=name)

    def list(self, query: DatasetQuery | None = None) -> Iterator[Dataset]:
        """Yield every dataset that is wanted and that one may read, newest first."""
        wanted = query or DatasetQuery(limit=1000)
        while True:
            page: DatasetPage = self._http().get("/api/v1/datasets", DatasetPage, query=wanted)
            yield from page.items
            if page.next is None:
                return
            wanted = wanted.model_copy(update={"after": page.next})

    def files(self, uid: UUID) -> Iterator[Member]:
        """Yield every file of a dataset, with the version that belongs to it."""
        return members(self._http, f"/api/v1/datasets/{uid}/files")

    def of_files(self, experiment_uid: UUID, file_uids: Sequence[UUID]) -> Mapping[UUID, UUID]:
        """Return the newest dataset of each of some files of an experiment; those of none are left out."""
        return holders(self._http, "/api/v1/datasets:of-files", experiment_uid, file_uids)

    def count(self, uid: UUID) -> FileCount:
        """Return how many files a dataset has, and how large they are together."""
        found: FileCount = self._http().get(f"/api/v1/datasets/{uid}/summary", FileCount)
        return found

    def add_files(self, uid: UUID, file_uids: Sequence[UUID]) -> int:
        """Add files; return how many were not there."""
        return change_members(self._http, f"/api/v1/datasets/{uid}/files:add", file_uids)

    def remove_files(self, uid: UUID, file_uids: Sequence[UUID]) -> int:
        """Take files out; return how many were there."""
        return change_members(self._http, f"/api/v1/datasets/{uid}/files:remove", file_uids)

    def freeze(self, uid: UUID) -> Dataset:
        """Fix the files of a dataset for ever, each in the version that it has now."""
        frozen: Dataset = self._http().call("POST", f"/api/v1/datasets/{uid}/freeze", Dataset, timeout_s=600)
        return frozen

    def set_metadata(self, uid: UUID, patch: Metadata) -> Dataset:
        """Change a dataset's metadata: what is left out stays, a value of None goes, objects are merged."""
        path = f"/api/v1/datasets/{uid}/metadata"
        changed: Dataset = self._http().call("PATCH", path, Dataset, body=MetadataPatch(patch))
        return changed

    def metadata_history(self, uid: UUID) -> Iterator[MetadataChange]:
        """Yield every change of a dataset's metadata, newest first."""
        return changes(self._http, f"/api/v1/datasets/{uid}/metadata/history")
