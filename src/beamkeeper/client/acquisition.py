"""DAQs, uploads, puts and plugins of a station."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import ClassVar, TypeVar
from uuid import UUID

from uuid6 import uuid7

from beamkeeper.client.http import Http
from beamkeeper.domain.acquisition import (
    ACTIVE,
    ANNOUNCE_LIMIT,
    PUT_CHUNK_BYTES,
    Acquisition,
    AcquisitionPage,
    AcquisitionQuery,
    Announced,
    Announcement,
    ChunkQuery,
    JournalEntry,
    JournalPage,
    JournalQuery,
    JournalState,
    NewDaq,
    NewPut,
    NewUpload,
    PathBelow,
    Picked,
    PluginInfo,
    PriorityRequest,
    PutChunk,
    RetryRequest,
    StopRequest,
)
from beamkeeper.domain.errors import ConflictError, SourceError, UnavailableError
from beamkeeper.domain.masters import MasterFile, MasterPage, MasterQuery
from beamkeeper.domain.names import RelPath, Uid, show_path, to_b64

PAGE = 500
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
PAUSE_FOR_ANSWER = 8
PATIENCE_S = 60.0
"""So long a wait goes on while the service does not answer: it may be starting again."""

ASKS_AGAIN = 3
"""So often a put goes back to what the service says it has, before it is given up."""

NewT = TypeVar("NewT", NewDaq, NewUpload, NewPut)


class _Acquisitions:
    """What DAQs and uploads share."""

    path: ClassVar[str]

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def get(self, uid: Uid) -> Acquisition:
        """Return one with its tallies."""
        found: Acquisition = self._http().get(f"{self.path}/{uid}", Acquisition)
        return found

    def list(self, *, experiment_uid: Uid | None = None, active: bool = False) -> Iterator[Acquisition]:
        """Yield those that one may see, newest first; only the active ones carry tallies."""
        after: str | None = None
        while True:
            page = self.page(AcquisitionQuery(experiment_uid=experiment_uid, is_active=active, after=after, limit=PAGE))
            yield from page.items
            if (after := page.next) is None:
                return

    def page(self, query: AcquisitionQuery) -> AcquisitionPage:
        """Return one page of those that one may see, newest first."""
        page: AcquisitionPage = self._http().get(self.path, AcquisitionPage, query=query)
        return page

    def stop(self, uid: Uid, now: bool = False) -> Acquisition:
        """Ask for the end: after a last scan and the delivery of the rest, or now."""
        body = StopRequest(now=now)
        found: Acquisition = self._http().call("POST", f"{self.path}/{uid}:stop", Acquisition, body=body)
        return found

    def retry(self, uid: Uid, pattern: str | None = None) -> Picked:
        """Try quarantined files again, all or those that a pattern matches; also when it has ended."""
        body = RetryRequest(pattern=pattern)
        found: Picked = self._http().call("POST", f"{self.path}/{uid}:retry", Picked, body=body)
        return found

    def prioritise(self, uid: Uid, patterns: Iterable[str]) -> Picked:
        """Let files go before all others, in place of those that did before; none for no patterns."""
        body = PriorityRequest(first=tuple(patterns))
        found: Picked = self._http().call("POST", f"{self.path}/{uid}:prioritise", Picked, body=body)
        return found

    def entries(self, uid: Uid, state: JournalState | None = None) -> Iterator[JournalEntry]:
        """Yield files in the order of their paths, with where they stand and why."""
        after: str | None = None
        while True:
            page = self.entry_page(uid, JournalQuery(state=state, after=after, limit=PAGE))
            yield from page.items
            if (after := page.next) is None:
                return

    def entry_page(self, uid: Uid, query: JournalQuery) -> JournalPage:
        """Return one page of files in the order of their paths, with where they stand and why."""
        page: JournalPage = self._http().get(f"{self.path}/{uid}/entries", JournalPage, query=query)
        return page

    def masters(self, uid: Uid, is_complete: bool | None = None) -> Iterator[MasterFile]:
        """Yield files that link to others, with how many of those are missing; all, or (in)complete ones only."""
        after: str | None = None
        while True:
            query = MasterQuery(is_complete=is_complete, after=after, limit=PAGE)
            page: MasterPage = self._http().get(f"{self.path}/{uid}/masters", MasterPage, query=query)
            yield from page.items
            if (after := page.next) is None:
                return

    def wait(
        self,
        uid: Uid,
        timeout_s: float | None = None,
        on_change: Callable[[Acquisition], None] | None = None,
    ) -> Acquisition:
        """Return when it has ended; UnavailableError where that takes longer than `timeout_s`.

        `on_change` gets every new state of it. Asks with pauses that grow while nothing changes, and goes on
        asking while the service starts again.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        seen, pause = None, SHORTEST_PAUSE_S
        while True:
            asked_at = time.monotonic()
            found = self._get_patiently(uid)
            if found != seen:
                # To count the files of a long journal takes a while: whoever waits is not to be most of the work.
                seen, pause = found, _pause_after(time.monotonic() - asked_at)
                if on_change is not None:
                    on_change(found)
            if found.state not in ACTIVE:
                return found
            if deadline is not None and time.monotonic() + pause > deadline:
                raise UnavailableError(
                    f"{found.kind} {uid} has not ended within {timeout_s:g} s: it is {found.state}",
                    state=str(found.state),
                )
            time.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE_S)

    def _get_patiently(self, uid: Uid) -> Acquisition:
        patience_ends = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.get(uid)
            except UnavailableError:
                if time.monotonic() > patience_ends:
                    raise
                time.sleep(LONGEST_PAUSE_S)


class Daqs(_Acquisitions):
    """Running watches of directories."""

    path = "/api/v1/daqs"

    def start(self, new: NewDaq) -> Acquisition:
        """Start to watch a directory."""
        found: Acquisition = self._http().call("POST", self.path, Acquisition, body=_named(new))
        return found

    def announce(self, uid: Uid, paths: Iterable[bytes | str]) -> int:
        """Say that files are finished, by their paths below the directory; returns how many were taken.

        Of a directory it says that all files that are in it by now are finished. Saying it again changes nothing.
        """
        refs = [PathBelow(path_b64=to_b64(RelPath(path))) for path in dict.fromkeys(paths)]
        count = 0
        for start in range(0, len(refs), ANNOUNCE_LIMIT):
            body = Announcement(paths=tuple(refs[start : start + ANNOUNCE_LIMIT]))
            taken: Announced = self._http().call("POST", f"{self.path}/{uid}/files:announce", Announced, body=body)
            count += taken.paths
        return count


class Uploads(_Acquisitions):
    """Single passes over directories, and files sent from this machine."""

    path = "/api/v1/uploads"

    def start(self, new: NewUpload) -> Acquisition:
        """Start one pass over a directory or file that the station sees."""
        body = _of_attempt(_named(new), self._http())
        found: Acquisition = self._http().call("POST", self.path, Acquisition, body=body)
        return found

    def put(
        self,
        new: NewPut,
        files: Iterable[tuple[RelPath, Path]],
        on_bytes: Callable[[int], None] | None = None,
    ) -> Acquisition:
        """Send files of this machine and return the upload that they have become.

        Where it breaks off, calling again with the same `new.uid` and files sends what is missing.
        `on_bytes` hears of each piece how many bytes it was.
        """
        named = _of_attempt(_named(new), self._http())
        put: Acquisition = self._http().call("POST", "/api/v1/puts", Acquisition, body=named)
        for path, source in files:
            self._send(put.uid, path, source, on_bytes=on_bytes or _silent)
        found: Acquisition = self._http().call("POST", f"/api/v1/puts/{put.uid}:close", Acquisition)
        return found

    def _send(self, uid: UUID, path: RelPath, source: Path, *, on_bytes: Callable[[int], None]) -> None:
        try:
            file = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise _unreadable(source, error) from error
        try:
            before = os.fstat(file)
            if not stat.S_ISREG(before.st_mode):
                raise SourceError(f'"{_shown(source)}" is not a file: name files, or directories with --recursive')
            if not self._send_open(uid, path, file, before, on_bytes):
                raise SourceError(f'"{_shown(source)}" changed while it was sent: send it again when it is finished')
        except OSError as error:
            raise _unreadable(source, error) from error
        finally:
            os.close(file)

    def _send_open(
        self, uid: UUID, path: RelPath, file: int, before: os.stat_result, on_bytes: Callable[[int], None]
    ) -> bool:
        """Send a file; False where it changed, and then its last bytes are not sent: the service has no whole file."""
        offset, asked = 0, 0
        while True:
            content = os.pread(file, min(PUT_CHUNK_BYTES, before.st_size - offset), offset)
            is_last = offset + len(content) >= before.st_size
            if (is_last or not content) and _identity(os.fstat(file)) != _identity(before):
                return False
            try:
                reached = self._send_chunk(uid, path, offset, before, content)
            except ConflictError as error:
                known = error.details.get("size")
                if asked == ASKS_AGAIN or not isinstance(known, int):
                    raise
                asked, offset = asked + 1, known
                continue
            on_bytes(reached - offset)
            offset = reached
            if offset >= before.st_size:
                return True

    def _send_chunk(self, uid: UUID, path: RelPath, offset: int, before: os.stat_result, content: bytes) -> int:
        query = ChunkQuery(offset=offset, size=before.st_size, modified_ns=before.st_mtime_ns)
        url = f"/api/v1/puts/{uid}/files/{to_b64(path)}"
        answer: PutChunk = self._http().call("PUT", url, PutChunk, content=content, query=query)
        return answer.size


class Plugins:
    """The plugins that the station can use."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def list(self) -> list[PluginInfo]:
        """Return the plugins that are installed."""
        found: list[PluginInfo] = self._http().get("/api/v1/plugins", list[PluginInfo])
        return found


def _named(new: NewT) -> NewT:
    """Return what is to be made with a uid, so that it is made once though the request be sent twice."""
    return new if new.uid is not None else new.model_copy(update={"uid": UUID(bytes=uuid7().bytes)})


def _of_attempt(new: NewT, http: Http) -> NewT:
    """Return what is to be kept with the attempt of a job, where its command asks under the job's own session."""
    attempt, token = os.environ.get("BEAMKEEPER_ATTEMPT"), os.environ.get("BEAMKEEPER_TOKEN")
    if not attempt or not token or http.credentials.token != token or new.attempt_uid is not None:
        return new
    return new.model_copy(update={"attempt_uid": UUID(attempt)})


def _silent(_count: int) -> None:
    return


def _identity(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _shown(source: Path) -> str:
    return show_path(os.fsencode(source))


def _unreadable(source: Path, error: OSError) -> SourceError:
    return SourceError(f'"{_shown(source)}" cannot be read: {(error.strerror or type(error).__name__).lower()}')


def _pause_after(answer_s: float) -> float:
    return min(LONGEST_PAUSE_S, max(SHORTEST_PAUSE_S, PAUSE_FOR_ANSWER * answer_s))
