"""Files of a station's catalogue: registering, finding, metadata, hiding and bringing back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from urllib.parse import quote
from uuid import UUID

from beamkeeper.client.arrays import ArrayFile, Arrays
from beamkeeper.client.http import Http
from beamkeeper.client.metadata import changes
from beamkeeper.domain.errors import InvalidError, NotFoundError
from beamkeeper.domain.files import (
    REGISTER_LIMIT,
    Deleted,
    ExperimentSummary,
    File,
    FileCount,
    FileDeletion,
    FileHistory,
    FileLookup,
    FilePage,
    FileQuery,
    FileRecord,
    MetadataPatch,
    NewFile,
    PathRef,
    Registered,
    RegisteredFiles,
    ReplicaState,
)
from beamkeeper.domain.frames import FRAMES_LIMIT, NewFrame, NewFrames
from beamkeeper.domain.ledger import (
    DIRECTORY_LIMIT,
    DirectoryCount,
    DirectoryPage,
    DirectoryQuery,
    FileProof,
    FileProofs,
    NewVerification,
    NewVerifications,
    Recorded,
    RecordedVerifications,
    ReplicaPage,
    ReplicaQuery,
)
from beamkeeper.domain.metadata import MetadataChange
from beamkeeper.domain.names import Metadata, RelPath, show_path, to_b64
from beamkeeper.domain.stats import FACET_HITS, FacetQuery, Facets, Stat, StatPage, StatsBy, StatsQuery

CALL_BYTES = 16 * 1024 * 1024
"""About the largest body of one call that registers; services take several times this."""

IN_FLIGHT = 4
"""So many calls of one `register` are under way at once: one on its way, one read, two written."""


class Files:
    """The catalogue's files."""

    def __init__(self, http: Callable[[], Http], arrays: Arrays) -> None:
        self._http = http
        self._arrays = arrays

    def register(self, files: Sequence[NewFile]) -> RegisteredFiles:
        """Register stored versions, and return the answers in the order asked; idempotent.

        Metadata that no catalogue keeps is replaced by the reason, as the service would do: one such file
        must not keep the others from being registered. Many go in calls of a thousand; where one is refused,
        calls after it may be under way already.
        """
        parts = _parts(files)
        first, second = next(parts, None), next(parts, None)
        if first is None or second is None:
            return RegisteredFiles(files=()) if first is None else _register(self._http(), first)
        answers: list[Registered] = []
        http = self._http()  # which is made here, and not by two at once
        with ThreadPoolExecutor(IN_FLIGHT, "register") as senders:
            # A service reads one part while it writes others; the next is made meanwhile.
            sent: deque[tuple[_Part, Future[RegisteredFiles]]] = deque()
            for part in chain((first, second), parts):
                while len(sent) == IN_FLIGHT or any(part.names & before.names for before, _ in sent):
                    answers.extend(sent.popleft()[1].result().files)
                sent.append((part, senders.submit(_register, http, part)))
            for _, each in sent:
                answers.extend(each.result().files)
        return RegisteredFiles.model_construct(files=tuple(answers))

    def lookup(self, experiment_uid: UUID, paths: Iterable[bytes]) -> Sequence[File]:
        """Return what these paths hold now; those that are not catalogued are left out."""
        refs = [{"path_b64": to_b64(path)} for path in dict.fromkeys(map(bytes, paths))]
        found: list[File] = []
        for start in range(0, len(refs), REGISTER_LIMIT):
            wanted = {"experiment_uid": str(experiment_uid), "paths": refs[start : start + REGISTER_LIMIT]}
            page: FilePage = self._http().call("POST", "/api/v1/files:lookup", FilePage, body=wanted)
            found.extend(page.items)
        return found

    def find(self, query: FileQuery | str | None = None) -> Iterator[File]:
        """Yield every file that a query means, asking for a page at a time.

        A text is a query in the short notation: `client.files.find("size > 1GB and energy >= 12keV")`.
        """
        wanted = query if isinstance(query, FileQuery) else FileQuery(query=query, limit=REGISTER_LIMIT)
        while True:
            page = self.page(wanted)
            yield from page.items
            if page.next is None:
                return
            wanted = wanted.model_copy(update={"after": page.next})

    def page(self, query: FileQuery) -> FilePage:
        """Return one page of a query."""
        page: FilePage = self._http().call("POST", "/api/v1/files:find", FilePage, body=query)
        return page

    def get(self, uid: UUID) -> File:
        """Return a file with its newest version."""
        file: File = self._http().get(f"/api/v1/files/{uid}", File)
        return file

    def open(
        self, which: File | UUID | str | bytes, *, experiment: UUID | str | None = None, version: int | None = None
    ) -> ArrayFile:
        """Return an HDF5 or TIFF file as it lies in the storage: slices of its arrays are read over HTTP.

        By its uid, or by its path (`data/scan_1.h5`) in an experiment that is named. Needs numpy
        (`pip install 'beamkeeper[arrays]'`) once values are asked for.
        """
        file = which if isinstance(which, File) else self._meant(which, experiment)
        return self._arrays.open(file, version, lambda path: self._meant(path, file.experiment_uid))

    def _meant(self, which: UUID | str | bytes, experiment: UUID | str | None) -> File:
        if isinstance(which, str):
            with suppress(ValueError):
                which = UUID(which)
        if isinstance(which, UUID):
            return self.get(which)
        if experiment is None:
            raise InvalidError("say of which experiment this is a path: open(path, experiment=NAME)")
        path = RelPath(which)
        uid = experiment if isinstance(experiment, UUID) else self._arrays.experiment(experiment)
        found = self.lookup(uid, [path])
        if not found:
            raise NotFoundError(f'the experiment has no file "{show_path(path)}": paths begin with data/ or analysis/')
        return found[0]

    def history(self, uid: UUID) -> FileHistory:
        """Return the versions, replicas and ledger of a file."""
        found: FileHistory = self._http().get(f"/api/v1/files/{uid}/history", FileHistory)
        return found

    def record(self, uid: UUID) -> FileRecord:
        """Return all of a file at once: its history, that of its metadata, what it was made from and what from it."""
        found: FileRecord = self._http().get(f"/api/v1/files/{uid}/record", FileRecord)
        return found

    def verified_elsewhere(self, file: File) -> Sequence[UUID]:
        """Return the storage areas that have a verified copy of the version that a file has."""
        found = self.history(file.uid).replicas
        is_good = ReplicaState.VERIFIED
        return [one.storage_area_uid for one in found if one.version_uid == file.version_uid and one.state is is_good]

    def set_metadata(self, uid: UUID, patch: Metadata) -> File:
        """Change a file's metadata: what is left out stays, a value of None goes, objects are merged."""
        file: File = self._http().call("PATCH", f"/api/v1/files/{uid}/metadata", File, body=MetadataPatch(patch))
        return file

    def metadata_history(self, uid: UUID) -> Iterator[MetadataChange]:
        """Yield every change of a file's metadata, newest first."""
        return changes(self._http, f"/api/v1/files/{uid}/metadata/history")

    def remove_metadata(self, uid: UUID, key: str) -> File:
        """Remove one key of a file's metadata, which may be a dotted path such as `sample.name`."""
        file: File = self._http().call("DELETE", f"/api/v1/files/{uid}/metadata/{quote(key, safe='')}", File)
        return file

    def delete(self, query: FileQuery, expected_count: int | None = None) -> Deleted:
        """Count the files that a query means; hide them where just so many are expected."""
        wanted = FileDeletion(query=query, expected_count=expected_count)
        deleted: Deleted = self._http().call("POST", "/api/v1/files:delete", Deleted, body=wanted)
        return deleted

    def restore(self, query: FileQuery) -> FileCount:
        """Bring back the hidden files that a query means."""
        count: FileCount = self._http().call("POST", "/api/v1/files:restore", FileCount, body=query)
        return count

    def facets(
        self, keys: Sequence[str], files: FileQuery | None = None, *, limit: int = 20, hits: int = FACET_HITS
    ) -> Facets:
        """Return which values metadata keys have; without conditions that is counted already.

        With conditions at most `hits` of the files that meet them are counted.
        """
        query = FacetQuery(keys=tuple(keys), files=files or FileQuery(), limit=limit, hits=hits)
        found: Facets = self._http().call("POST", "/api/v1/files:facets", Facets, body=query)
        return found

    def stats(self, by: StatsBy = StatsBy.EXPERIMENT, experiment_uid: UUID | None = None) -> Iterator[Stat]:
        """Yield how many files there are, by experiment, directory, type or day."""
        query = StatsQuery(by=by, experiment_uid=experiment_uid, limit=1000)
        while True:
            page = self.stat_page(query)
            yield from page.items
            if page.next is None:
                return
            query = query.model_copy(update={"after": page.next})

    def stat_page(self, query: StatsQuery) -> StatPage:
        """Return one page of counts, with the sum of all."""
        page: StatPage = self._http().get("/api/v1/stats", StatPage, query=query)
        return page

    def summary(self, experiment_uid: UUID) -> ExperimentSummary:
        """Return the files of an experiment in numbers."""
        found: ExperimentSummary = self._http().get(f"/api/v1/experiments/{experiment_uid}/summary", ExperimentSummary)
        return found

    def verified(self, items: Sequence[NewVerification], *, on_behalf_of: str = "") -> Sequence[Recorded]:
        """Record verifications, for services; returns what the replicas are now, in the order asked. Idempotent."""
        answers: list[Recorded] = []
        for start in range(0, len(items), REGISTER_LIMIT):
            new = NewVerifications(on_behalf_of=on_behalf_of, items=tuple(items[start : start + REGISTER_LIMIT]))
            done: RecordedVerifications = self._http().call(
                "POST", "/api/v1/files:verified", RecordedVerifications, body=new
            )
            answers.extend(done.items)
        return answers

    def note_frames(self, experiment_uid: UUID, frames: Sequence[NewFrame]) -> None:
        """Tell what was found in the first frames of versions of an experiment, for services. Idempotent."""
        for start in range(0, len(frames), FRAMES_LIMIT):
            new = NewFrames(items=frames[start : start + FRAMES_LIMIT])
            self._http().call("POST", f"/api/v1/experiments/{experiment_uid}/frames", None, body=new)

    def replicas(self, query: ReplicaQuery) -> ReplicaPage:
        """Return a page of replicas, for services: those looked at longest ago first."""
        page: ReplicaPage = self._http().call("POST", "/api/v1/files:replicas", ReplicaPage, body=query)
        return page

    def proofs(self, experiment_uid: UUID, paths: Iterable[bytes]) -> Sequence[FileProof]:
        """Return what proves the newest versions at these paths; those that are not catalogued are left out."""
        refs = [PathRef(path_b64=to_b64(path)) for path in dict.fromkeys(map(bytes, paths))]
        found: list[FileProof] = []
        for start in range(0, len(refs), REGISTER_LIMIT):
            wanted = FileLookup(experiment_uid=experiment_uid, paths=tuple(refs[start : start + REGISTER_LIMIT]))
            answer: FileProofs = self._http().call("POST", "/api/v1/files:proofs", FileProofs, body=wanted)
            found.extend(answer.items)
        return found

    def directories(self, experiment_uid: UUID, below: bytes | None = None) -> Iterator[DirectoryCount]:
        """Yield what is stored of an experiment by directory: of all, or of one and those below it."""
        query = DirectoryQuery(below_b64=None if below is None else to_b64(below), limit=DIRECTORY_LIMIT)
        while True:
            path = f"/api/v1/experiments/{experiment_uid}/directories"
            page: DirectoryPage = self._http().get(path, DirectoryPage, query=query)
            yield from page.items
            if page.next is None:
                return
            query = query.model_copy(update={"after": page.next})


@dataclass(slots=True)
class _Part:
    """What one call registers."""

    files: list[bytes] = field(default_factory=list)
    names: set[object] = field(default_factory=set)
    """Paths and uids of versions: calls that have one in common come one after the other."""
    size: int = 0


def _register(http: Http, part: _Part) -> RegisteredFiles:
    body = b'{"files":[' + b",".join(part.files) + b"]}"
    done: RegisteredFiles = http.call("POST", "/api/v1/files:register", RegisteredFiles, body=body)
    return done


def _parts(files: Sequence[NewFile]) -> Iterator[_Part]:
    """Yield the files as JSON in calls that a service takes, by number and by size."""
    part = _Part()
    for file in files:
        # Its metadata was made text to be looked at, and is not made so again.
        rest = file.model_dump_json(exclude={"metadata"}, exclude_defaults=True)
        sent = f'{rest[:-1]},"metadata":{file.metadata_text}}}'.encode()
        if part.files and (len(part.files) == REGISTER_LIMIT or part.size + len(sent) > CALL_BYTES):
            yield part
            part = _Part()
        part.files.append(sent)
        part.names.update((file.path_b64, file.version_uid.int))
        part.size += len(sent)
    if part.files:
        yield part
