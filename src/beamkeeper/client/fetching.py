"""Downloading many files at once: each goes on where it was cut off, and gets its name once its checksum is right."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from threading import Event, Semaphore
from typing import Protocol

from blake3 import blake3

from beamkeeper.client.downloads import Downloads
from beamkeeper.client.landing import Landing, stays_inside
from beamkeeper.domain.errors import (
    ConflictError,
    DestinationError,
    DmError,
    FileError,
    InvalidError,
    UnavailableError,
)
from beamkeeper.domain.files import File
from beamkeeper.domain.names import Algorithm, from_b64, show_path

READ = 4 * 1024 * 1024
TRIES = 8
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

    `progress` is told of bytes as they arrive (and of those that were there), from several threads.
    """

    def __init__(
        self,
        downloads: Downloads,
        landing: Landing,
        *,
        overwrite: bool = False,
        progress: Callable[[int], None] = lambda count: None,
        patience: int = TRIES,
    ) -> None:
        self._downloads = downloads
        self._landing = landing
        self._overwrite = overwrite
        self._progress = progress
        self._patience = patience
        self._ends = Event()

    def fetch_all(self, files: Iterable[File], jobs: int) -> Iterator[Fetched]:
        """Yield what became of each file; not more are looked up than are needed."""
        room = Semaphore(jobs * 4)
        with ThreadPoolExecutor(jobs, thread_name_prefix="download") as pool:
            waiting = []
            try:
                for file in files:
                    room.acquire()
                    future = pool.submit(self.fetch, file)
                    future.add_done_callback(lambda _: room.release())
                    waiting.append(future)
                    while waiting and waiting[0].done():
                        yield waiting.pop(0).result()
                for future in waiting:
                    yield future.result()
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
            if os.fstat(descriptor).st_size == file.size and _right(file, _read(descriptor)):
                return True
        if not self._overwrite:
            raise ConflictError("another file is there already: move it away, or give --overwrite")
        return False

    def _bring(self, file: File) -> None:
        part = f"{file.version_uid}.part"
        descriptor = self._landing.open_part(part)
        try:
            for attempt in range(2):
                if self._receive(file, descriptor):
                    self._landing.land(part, file.relpath, mtime_ns=round(file.modified_at.timestamp() * 1e9))
                    return
                os.ftruncate(descriptor, 0)
                if attempt == 0:
                    self._progress(-file.size)
        except OSError as error:
            raise DestinationError(f"it cannot be written: {error.strerror}") from error
        finally:
            os.close(descriptor)
        self._landing.drop_part(part)
        raise FileError("what arrived twice has another checksum than the catalogue: `dm scrub` finds out why")

    def _receive(self, file: File, descriptor: int) -> bool:
        """Receive what is missing, trying again where the service goes away; tell whether the whole is right."""
        digest = _digest(file)
        if os.fstat(descriptor).st_size > file.size:
            os.ftruncate(descriptor, 0)
        have = 0
        for block in _read(descriptor):
            have += self._take(block, digest)
        failures = 0
        while have < file.size:
            before = have
            try:
                for block in self._downloads.read(file, have):
                    _write(descriptor, block)
                    have += self._take(block, digest)
                if have < file.size:
                    raise UnavailableError(f"the connection ended after {have} of {file.size} bytes")
            except UnavailableError:
                failures = 0 if have > before else failures + 1
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
