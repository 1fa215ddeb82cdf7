"""Transfer by copy to a mounted directory, hashing in the same pass and proving that the source held still.

Many small files are copied by helper processes, few or large ones by threads: a large file spends its time in calls
that hold up nobody.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from beamkeeper.builtin.directories import open_directory, path_of_url, remove_tree
from beamkeeper.builtin.pieces import (
    Copied,
    Copier,
    CopyError,
    StoppedError,
    is_of_one_file,
)
from beamkeeper.builtin.results import failed, writing
from beamkeeper.config.failpoints import FailPoint, hit, is_armed
from beamkeeper.domain.files import CHUNK_BYTES
from beamkeeper.domain.names import Algorithm, Checksum
from beamkeeper.plugins.api import Ahead, Options, Stop, TransferItem, TransferResult
from beamkeeper.plugins.helpers import HelperEndedError, Helpers
from beamkeeper.plugins.programs import ProgramStoppedError

MIB = 1024 * 1024
HELPED_FILES = 32
"""From so many files on a batch goes to helper processes, if they are small."""

HELPED_SIZE = 4 * MIB
"""So large may they be on average."""


class CopyOptions(Options):
    """How files are copied."""

    checksums: tuple[Algorithm, ...] = Field(
        default=(Algorithm.BLAKE3,),
        description="Made in the one pass: blake3, and md5 or sha256 where others want them.",
    )
    buffer_bytes: int = Field(default=4 * MIB, ge=4096, le=64 * MIB, description="How much is read at once.")
    threads: int = Field(default=2, ge=1, le=32, description="How many files of a batch are copied at once.")

    @field_validator("checksums")
    @classmethod
    def _with_blake3(cls, value: tuple[Algorithm, ...]) -> tuple[Algorithm, ...]:
        if Algorithm.BLAKE3 not in value:
            raise ValueError("blake3 must be among them: copies are verified by it")
        return tuple(dict.fromkeys(value))


class CopyTransfer:
    """Copies to a directory of this host: `file:///...`, with unusual characters percent-encoded."""

    options: ClassVar[type[Options]] = CopyOptions
    summary: ClassVar[str] = "Copies to a mounted directory, with checksums made in the same pass."

    def __init__(self, options: CopyOptions) -> None:
        self._options = options
        self.helpers = Helpers("beamkeeper.builtin.pieces")

    def send(self, items: Sequence[TransferItem], staging: str, stop: Stop) -> Generator[TransferResult]:
        """Copy each item to `staging`/path; what is there from before is replaced."""
        if not items:
            return
        where = path_of_url(staging)
        with writing(where):
            root = open_directory(where)
        try:
            if not is_armed() and len(items) >= HELPED_FILES and _mean_size(items) <= HELPED_SIZE:
                items = yield from self._with_helpers(items, where, stop)
            if items:
                yield from self._with_threads(items, root, stop)
        finally:
            os.close(root)

    def stage_ahead(self, item: TransferItem, staging: str, stop: Stop) -> Ahead:
        """Copy the whole chunks that a source has got; what was copied of others is copied anew the next time."""
        where = path_of_url(staging)
        with writing(where):
            root = open_directory(where)
        batch = _Batch(root, self._options, stop)
        try:
            chunks = batch.extend(item)
        except CopyError as error:
            raise failed(item, error).error or error from error
        finally:
            batch.close()
            os.close(root)
        return Ahead(len(chunks) * CHUNK_BYTES, tuple(chunks))

    def discard(self, staging: str) -> None:
        """Remove a staging directory and all in it."""
        where = path_of_url(staging)
        with writing(where):
            remove_tree(where)

    def fetch(self, place: str, into: Path, stop: Stop) -> None:
        """Copy the files of a directory of this host."""
        where = path_of_url(place)
        with writing(where), os.scandir(where) as entries:
            for entry in entries:
                if stop():
                    raise ProgramStoppedError
                if entry.is_file():
                    shutil.copyfile(entry.path, os.path.join(os.fsencode(into), entry.name))

    def remove(self, place: str) -> None:
        """Remove a directory and all in it."""
        self.discard(place)

    def _with_helpers(
        self, items: Sequence[TransferItem], where: bytes, stop: Stop
    ) -> Generator[TransferResult, None, Sequence[TransferItem]]:
        """Have items copied by helpers; returns those that are left to be copied, for a helper has died."""
        left = dict(enumerate(items))
        try:
            for place, made in self.helpers.work(self._orders(items, where), stop):
                item = left.pop(place)
                if isinstance(made[0], bool):
                    is_source, code, number = made
                    yield failed(item, CopyError(is_source=is_source, code=code, number=number))
                else:
                    yield self._result(item, made)
        except HelperEndedError:
            return list(left.values())
        return ()

    def _orders(self, items: Sequence[TransferItem], where: bytes) -> list[dict[str, Any]]:
        """Return an order for each helper; whoever is next to another in a directory goes with it."""
        rows = [
            (place, os.fsdecode(item.source), os.fsdecode(item.path), _identity(item))
            for place, item in enumerate(items)
        ]
        common = {
            "staging": os.fsdecode(where),
            "algorithms": [str(algorithm) for algorithm in self._options.checksums],
            "chunk_bytes": CHUNK_BYTES,
            "buffer_bytes": self._options.buffer_bytes,
        }
        many = self._options.threads
        shares = [rows[number * len(rows) // many : (number + 1) * len(rows) // many] for number in range(many)]
        return [{**common, "items": share} for share in shares if share]

    def _with_threads(self, items: Sequence[TransferItem], root: int, stop: Stop) -> Generator[TransferResult]:
        batch = _Batch(root, self._options, stop)
        try:
            with ThreadPoolExecutor(min(self._options.threads, len(items)), "copy") as pool:
                futures = [pool.submit(batch.copy, item) for item in items]
                try:
                    for future in as_completed(futures):
                        if (made := future.result()) is not None:
                            item, copied = made
                            yield failed(item, copied) if isinstance(copied, CopyError) else self._result(item, copied)
                finally:
                    batch.end()
        finally:
            batch.close()

    def _result(self, item: TransferItem, copied: Copied) -> TransferResult:
        size, values, chunks = copied
        # Ours, and sound: to check them again would cost as much as to make them.
        checksums = [
            Checksum.model_construct(algorithm=algorithm, value=value)
            for algorithm, value in zip(self._options.checksums, values, strict=True)
        ]
        return TransferResult(item.version_uid, size, checksums, tuple(chunks))


class _Batch:
    """The files of one call of `send` that threads copy; `copy` is called from several of them."""

    def __init__(self, root: int, options: CopyOptions, stop: Stop) -> None:
        self._stop = stop
        self._ended = threading.Event()
        self._local = threading.local()
        self._copiers: list[Copier] = []
        self._new = partial(
            Copier,
            root,
            [str(algorithm) for algorithm in options.checksums],
            chunk_bytes=CHUNK_BYTES,
            buffer_bytes=options.buffer_bytes,
            stop=self._is_over,
            copying=partial(hit, FailPoint.COPYING),
            copied=partial(hit, FailPoint.COPIED),
        )

    def end(self) -> None:
        """Leave what has not begun, and what is under way at its next buffer."""
        self._ended.set()

    def copy(self, item: TransferItem) -> tuple[TransferItem, Copied | CopyError] | None:
        """Copy one file; None where the batch was stopped."""
        try:
            known = item.ahead.chunks if item.ahead else ()
            return item, self._copier().copy(item.source, item.path, _identity(item), known)
        except StoppedError:
            return None
        except CopyError as error:
            if not is_of_one_file(error):
                self.end()
            return item, error

    def extend(self, item: TransferItem) -> list[str]:
        """Copy more of a file that is still written; return the digests of its chunks so far."""
        known = item.ahead.chunks if item.ahead else ()
        return self._copier().extend(item.source, item.path, known, item.identity.size)

    def _is_over(self, moved: int) -> bool:
        return self._ended.is_set() or self._stop(moved)

    def _copier(self) -> Copier:
        """Return this thread's copier."""
        if not hasattr(self._local, "copier"):
            self._local.copier = self._new()
            self._copiers.append(self._local.copier)
        copier: Copier = self._local.copier
        return copier

    def close(self) -> None:
        """Close what the copiers keep open, once no thread copies any more."""
        for copier in self._copiers:
            copier.close()


def _identity(item: TransferItem) -> tuple[int, int, int, int, int]:
    known = item.identity
    return known.dev, known.ino, known.size, known.mtime_ns, known.ctime_ns


def _mean_size(items: Sequence[TransferItem]) -> float:
    return sum(item.identity.size for item in items) / len(items)
