"""Sources that are held open while an outside program reads them: the very files, and one state of each (I6).

The program gets a directory of links to our open descriptors. Whatever happens to the names of the sources meanwhile,
what it reads is what we opened, looked at and hash; no name of a source reaches it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self
from uuid import UUID

from beamkeeper.builtin.digests import Digests
from beamkeeper.builtin.pieces import CHANGED, CopyError, Identity, StoppedError, check_unchanged, open_source
from beamkeeper.builtin.results import failed
from beamkeeper.domain.files import CHUNK_BYTES
from beamkeeper.domain.names import Algorithm, Checksum
from beamkeeper.plugins.api import Stop, TransferItem, TransferResult

BUFFER_BYTES = 2 * 1024 * 1024
HASHERS = 2


class Held:
    """Some items, their sources open. Use it as a context, in one thread."""

    def __init__(self, items: Sequence[TransferItem], algorithms: Sequence[Algorithm], stop: Stop) -> None:
        self.farm = tempfile.mkdtemp(prefix="beamkeeper-send-")
        """A directory with a link for each item, at its target."""
        self.items: list[TransferItem] = []
        """Those that can be sent."""
        self.faults: list[TransferResult] = []
        self._algorithms = list(algorithms)
        self._stop = stop
        self._is_over = threading.Event()
        self._open: dict[UUID, int] = {}
        self._digests: dict[UUID, Future[Digests]] = {}
        self._pool = ThreadPoolExecutor(HASHERS, "hash")
        try:
            for item in items:
                self._hold(item)
        except BaseException:
            self.close()
            raise

    def _hold(self, item: TransferItem) -> None:
        try:
            opened, _ = open_source(item.source, identity_of(item))
        except CopyError as error:
            self.faults.append(failed(item, error))
            return
        self._open[item.version_uid] = opened
        _link(self.farm, item, opened)
        self.items.append(item)

    def begin(self) -> None:
        """Begin to hash: what the program reads at the same time is read from the device once."""
        self._digests = {item.version_uid: self._pool.submit(self._hash, item) for item in self.items}

    def _hash(self, item: TransferItem) -> Digests:
        opened, size = self._open[item.version_uid], item.identity.size
        digests = Digests([str(algorithm) for algorithm in self._algorithms], size, CHUNK_BYTES)
        buffer = memoryview(bytearray(min(BUFFER_BYTES, max(size, 1))))
        done = count = 0
        while done < size:
            if self._is_over.is_set() or self._stop(count):
                raise StoppedError
            try:
                count = os.preadv(opened, [buffer[: size - done]], done)
            except OSError as error:
                raise CopyError(is_source=True, number=error.errno or 0) from error
            if not count:
                raise CopyError(is_source=True, code=CHANGED)
            digests.update(buffer[:count])
            done += count
        self._stop(count)
        return digests

    def results(self, refused: Callable[[UUID], Exception | None]) -> Iterator[TransferResult]:
        """Yield what became of each item, once the program has ended; `refused` says what it could not store.

        A source that has changed meanwhile is not delivered, whatever the program says.
        """
        for item in self.items:
            try:
                digests = self._digests[item.version_uid].result()
                check_unchanged(self._open[item.version_uid], item.source, identity_of(item))
            except StoppedError:
                return
            except CopyError as error:
                yield failed(item, error)
                continue
            except OSError as error:
                yield failed(item, CopyError(is_source=True, number=error.errno or 0))
                continue
            if (why := refused(item.version_uid)) is not None:
                yield TransferResult(item.version_uid, error=why)
                continue
            checksums = [
                Checksum.model_construct(algorithm=algorithm, value=value)
                for algorithm, value in zip(self._algorithms, digests.values(), strict=True)
            ]
            yield TransferResult(item.version_uid, item.identity.size, checksums, tuple(digests.chunks()))

    def close(self) -> None:
        """Let go of everything."""
        self._is_over.set()
        self._pool.shutdown(cancel_futures=True)
        for opened in self._open.values():
            os.close(opened)
        self._open.clear()
        with suppress(OSError):
            shutil.rmtree(self.farm)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def growing(item: TransferItem) -> Iterator[tuple[str, int]]:
    """Yield a directory with a link at the target of a file that is still written, and the file's size now."""
    try:
        opened, found = open_source(item.source, None)
    except CopyError as error:
        raise failed(item, error).error or error from error
    farm = tempfile.mkdtemp(prefix="beamkeeper-send-")
    try:
        _link(farm, item, opened)
        yield farm, found.st_size
    finally:
        os.close(opened)
        with suppress(OSError):
            shutil.rmtree(farm)


def _link(farm: str, item: TransferItem, opened: int) -> None:
    link = os.path.join(os.fsencode(farm), item.target)
    if item.target.parent:
        os.makedirs(os.path.dirname(link), exist_ok=True)
    os.symlink(f"/proc/{os.getpid()}/fd/{opened}", link)


def identity_of(item: TransferItem) -> Identity:
    """Return what says that a source is still the same."""
    known = item.identity
    return known.dev, known.ino, known.size, known.mtime_ns, known.ctime_ns
