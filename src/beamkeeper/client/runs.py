"""Runs of a station's catalogue, and the rules by which files belong to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from uuid import UUID

from beamkeeper.client.http import Http
from beamkeeper.client.members import change_members, holders, members
from beamkeeper.client.metadata import changes
from beamkeeper.domain.datasets import Member
from beamkeeper.domain.errors import NotFoundError
from beamkeeper.domain.files import FileCount, MetadataPatch
from beamkeeper.domain.metadata import MetadataChange
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.runs import NewRun, NewRunRule, Run, RunPage, RunQuery, RunRule, RunRules, RunStop


class Runs:
    """Scans and measurements, as the control system names them."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def create(self, new: NewRun) -> Run:
        """Say that a run has begun; asking again for the same one gives it."""
        made: Run = self._http().call("POST", "/api/v1/runs", Run, body=new)
        return made

    def stop(self, uid: UUID, stop: RunStop) -> Run:
        """Say that a run has ended; saying the same again changes nothing."""
        stopped: Run = self._http().call("POST", f"/api/v1/runs/{uid}/stop", Run, body=stop)
        return stopped

    def get(self, uid: UUID) -> Run:
        """Return a run by its uid."""
        found: Run = self._http().get(f"/api/v1/runs/{uid}", Run)
        return found

    def named(self, experiment_uid: UUID, name: str) -> Run:
        """Return a run of an experiment by its name."""
        for found in self.list(RunQuery(experiment_uid=experiment_uid, name=name)):
            return found
        raise NotFoundError(f'the experiment has no run "{name}": `dm run list` shows those', name=name)

    def list(self, query: RunQuery | None = None) -> Iterator[Run]:
        """Yield every run that is wanted and that one may read, newest first."""
        wanted = query or RunQuery(limit=1000)
        while True:
            page: RunPage = self._http().get("/api/v1/runs", RunPage, query=wanted)
            yield from page.items
            if page.next is None:
                return
            wanted = wanted.model_copy(update={"after": page.next})

    def files(self, uid: UUID) -> Iterator[Member]:
        """Yield every file of a run."""
        return members(self._http, f"/api/v1/runs/{uid}/files")

    def of_files(self, experiment_uid: UUID, file_uids: Sequence[UUID]) -> Mapping[UUID, UUID]:
        """Return the newest run of each of some files of an experiment; those of none are left out."""
        return holders(self._http, "/api/v1/runs:of-files", experiment_uid, file_uids)

    def count(self, uid: UUID) -> FileCount:
        """Return how many files a run has, and how large they are together."""
        found: FileCount = self._http().get(f"/api/v1/runs/{uid}/summary", FileCount)
        return found

    def add_files(self, uid: UUID, file_uids: Sequence[UUID]) -> int:
        """Add files by call; return how many were not there so."""
        return change_members(self._http, f"/api/v1/runs/{uid}/files:add", file_uids)

    def remove_files(self, uid: UUID, file_uids: Sequence[UUID]) -> int:
        """Take files out that were added by call; return how many."""
        return change_members(self._http, f"/api/v1/runs/{uid}/files:remove", file_uids)

    def set_metadata(self, uid: UUID, patch: Metadata) -> Run:
        """Change a run's metadata: what is left out stays, a value of None goes, objects are merged."""
        changed: Run = self._http().call("PATCH", f"/api/v1/runs/{uid}/metadata", Run, body=MetadataPatch(patch))
        return changed

    def metadata_history(self, uid: UUID) -> Iterator[MetadataChange]:
        """Yield every change of a run's metadata, newest first."""
        return changes(self._http, f"/api/v1/runs/{uid}/metadata/history")

    def rules(self, experiment_uid: UUID) -> Sequence[RunRule]:
        """Return the rules of an experiment: its own, and those of its type."""
        query = {"experiment_uid": str(experiment_uid)}
        found: RunRules = self._http().get("/api/v1/run-rules", RunRules, query=query)
        return found.items

    def add_rule(self, new: NewRunRule) -> RunRule:
        """Make a rule; asking again for the same one gives it."""
        made: RunRule = self._http().call("POST", "/api/v1/run-rules", RunRule, body=new)
        return made

    def remove_rule(self, uid: UUID) -> None:
        """Remove a rule; what it did is undone by and by."""
        self._http().call("DELETE", f"/api/v1/run-rules/{uid}")
