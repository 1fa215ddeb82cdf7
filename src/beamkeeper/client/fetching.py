"""Downloading many files at once: each goes on where it was cut off, and gets its name once its checksum is right."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass
from enum import StrEnum
from threading import Event
from typing import Protocol
from uuid import UUID

from blake3 import blake3

from beamkeeper.client.downloads import Downloads
from beamkeeper.client.landing import Landing, stays_inside
from beamkeeper.domain.errors import (
    ConflictError,
    DestinationError,
    DmError,
    FileError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from beamkeeper.domain.files import File
from beamkeeper.domain.names import Algorithm, from_b64, show_path

READ = 4 * 1024 * 1024
TRIES = 8
AHEAD = 4
"""So many files are looked up for each that is on its way."""

LONGEST_PAUSE_S = 30.0


class Got(StrEnum):
    """What became of one file."""

    GOT = "got"
    SAME = "same"
    """It was there already, with the same bytes."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file, what became of it, and why not."""

    file: File
    got: Got
    message: str = ""


class _Digest(Protocol):
    def update(self, data: bytes, /) -> object: ...

    def hexdigest(self) -> str: ...


def _digest(file: File) -> _Digest | None:
    algorithm = file.checksums[0].algorithm if file.checksums else None
    if algorithm is None:
        return None
    found: _Digest = blake3() if algorithm is Algorithm.BLAKE3 else hashlib.new(str(algorithm), usedforsecurity=False)
    return found


class Fetcher:
    """Brings files into a directory, some at the same time.

    `progress` is told of bytes as they arrive (and of those that were there), from several threads. `elsewhere` names
    storage areas with other copies of a file: they are tried where the first copy is not there, or is not right.
    """

    def __init__(
        self,
        downloads: Downloads,
        landing: Landing,
        *,
        overwrite: bool = False,
        progress: Callable[[int], None] = lambda count: None,
        patience: int = TRIES,
        elsewhere: Callable[[File], Sequence[UUID]] = lambda file: (),
    ) -> None:
        self._downloads = downloads
        self._landing = landing
        self._overwrite = overwrite
        self._progress = progress
        self._patience = patience
        self._elsewhere = elsewhere
        self._ends = Event()

    def fetch_all(self, files: Iterable[File], jobs: int) -> Iterator[Fetched]:
        """Yield what became of each file as it ends; not more are looked up, and kept, than are needed."""
        with ThreadPoolExecutor(jobs, thread_name_prefix="download") as pool:
            going: set[Future[Fetched]] = set()
            try:
                for file in files:
                    going.add(pool.submit(self.fetch, file))
                    if len(going) >= jobs * AHEAD:
                        ended, going = wait(going, return_when=FIRST_COMPLETED)
                        yield from (future.result() for future in ended)
                yield from (future.result() for future in as_completed(going))
            except BaseException:
                self._ends.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def fetch(self, file: File) -> Fetched:
        """Bring one file; what it fails with is in the answer."""
        try:
            if file.link_target_b64 is not None:
                return self._link(file, from_b64(file.link_target_b64))
            if self._is_there(file):
                self._progress(file.size)
                return Fetched(file, Got.SAME)
            self._bring(file)
        except DmError as error:
            return Fetched(file, Got.FAILED, error.message)
        return Fetched(file, Got.GOT)

    def _link(self, file: File, target: bytes) -> Fetched:
        if not stays_inside(file.relpath, target):
            raise InvalidError(f"it is a link to {show_path(target)}, which is outside of the experiment: not made")
        return Fetched(file, Got.GOT if self._landing.link(file.relpath, target) else Got.SAME)

    def _is_there(self, file: File) -> bool:
        with self._landing.existing(file.relpath) as descriptor:
            if descriptor is None:
                return False
            try:
                if os.fstat(descriptor).st_size == file.size and _right(file, _read(descriptor)):
                    return True
            except OSError as error:
                raise DestinationError(f"what is there already cannot be read: {error.strerror}") from error
        if not self._overwrite:
            raise ConflictError("another file is there already: move it away, or give --overwrite")
        return False

    def _bring(self, file: File) -> None:
        part = f"{file.version_uid}.part"
        descriptor = self._landing.open_part(part)
        try:
            if self._is_brought(file, descriptor):
                self._landing.land(part, file.relpath, mtime_ns=round(file.modified_at.timestamp() * 1e9))
                return
        except OSError as error:
            raise DestinationError(f"it cannot be written: {error.strerror}") from error
        finally:
            os.close(descriptor)
        self._landing.drop_part(part)
        raise FileError("what arrived twice has another checksum than the catalogue: `dm scrub` finds out why")

    def _is_brought(self, file: File, descriptor: int) -> bool:
        """Receive a file, twice where it is not right, and then its other copies; tell whether one was right."""
        fault: DmError | None = None
        others: Sequence[UUID | None] | None = None
        waiting: list[UUID | None] = [None, None]
        while waiting:
            area_uid = waiting.pop(0)
            try:
                if self._receive(file, descriptor, area_uid):
                    return True
            except (NotFoundError, ConflictError) as error:
                fault = fault or error
                waiting = [uid for uid in waiting if uid is not None]
            self._progress(-os.fstat(descriptor).st_size)
            os.ftruncate(descriptor, 0)
            if not waiting and others is None:
                waiting = list(others := self._elsewhere(file))
        if fault is not None:
            raise fault
        return False

    def _receive(self, file: File, descriptor: int, area_uid: UUID | None) -> bool:
        """Receive what is missing, trying again where the service goes away; tell whether the whole is right."""
        digest = _digest(file)
        if os.fstat(descriptor).st_size > file.size:
            os.ftruncate(descriptor, 0)
        have = 0
        for block in _read(descriptor):
            have += self._take(block, digest)
        failures, proven = 0, -1
        while have < file.size:
            before = have
            try:
                for block in self._downloads.read(file, have, area_uid=area_uid):
                    _write(descriptor, block)
                    have += self._take(block, digest)
                if have < file.size:
                    raise UnavailableError(f"the connection ended after {have} of {file.size} bytes")
            except UnavailableError as error:
                so_far = _so_far(error)
                failures = 0 if have > before or so_far > proven else failures + 1
                proven = max(proven, so_far)
                if failures >= self._patience or self._ends.is_set():
                    raise
                self._ends.wait(min(LONGEST_PAUSE_S, random.uniform(0.05, 0.2) * 2**failures))
        os.fsync(descriptor)
        return have == file.size and (digest is None or digest.hexdigest() == file.checksums[0].value)

    def _take(self, block: bytes, digest: _Digest | None) -> int:
        if self._ends.is_set():
            raise UnavailableError("the download was stopped")
        if digest is not None:
            digest.update(block)
        self._progress(len(block))
        return len(block)


def _so_far(error: UnavailableError) -> int:
    """Return how much of another copy the service has read to see whether it is right; -1 where it is about no such."""
    found = error.details.get("so_far")
    return found if isinstance(found, int) else -1


def _write(descriptor: int, block: bytes) -> None:
    left = memoryview(block)
    while left:
        left = left[os.write(descriptor, left) :]


def _read(descriptor: int) -> Iterator[bytes]:
    """Yield what a file has, and leave the position at its end."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    while block := os.read(descriptor, READ):
        yield block


def _right(file: File, blocks: Iterable[bytes]) -> bool:
    digest = _digest(file)
    if digest is None:
        return False
    for block in blocks:
        digest.update(block)
    return digest.hexdigest() == file.checksums[0].value
