"""Runs transfers so that one that hangs holds up nobody: each in a thread that can be left behind.

A transfer shows that it lives by its results, and by asking whether to stop. One that does neither for `stall_s`
is left to itself: its thread ends when the kernel lets it, throws away what it had staged, and its results count
for nothing.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

from beamkeeper.domain.errors import DestinationError, DmError, UnavailableError
from beamkeeper.domain.names import show_path
from beamkeeper.domain.storage import StorageArea
from beamkeeper.engine.pacing import Pacing
from beamkeeper.plugins.api import Discarding, Transfer, TransferItem, TransferResult

STALL_S = 30.0
SILENT_S = 3.0
"""A transfer that was not heard of for so long keeps other batches from its storage area: they might hang as well."""

MOST_LEFT = 32
"""So many transfers may be left behind; then nothing more is begun until some of them have ended."""

SOURCE_ANSWERS_S = 10.0
LOOK_S = 0.5

NO_AREA = UUID(int=0)
SOURCE = "source"
"""The code of the UnavailableError of a source that does not answer."""

Hold = Callable[[int, Callable[[], bool], int], None]
"""Takes how many bytes were moved, whether to end, and their file system; returns when more may be moved."""


@dataclass(slots=True, eq=False)
class _Sending:
    """One transfer under way."""

    transfer: Transfer
    staging: str
    hold: Hold
    is_stopping: Callable[[], bool]
    device: int
    heard_at: float = field(default_factory=time.monotonic)
    held: list[int] = field(default_factory=list)
    is_left: bool = False
    answers: queue.SimpleQueue[TransferResult | BaseException | None] = field(default_factory=queue.SimpleQueue)

    def stop(self, moved: int = 0, /) -> bool:
        """Take a sign of life; hold up who moves faster than is allowed; tell whether to end."""
        self.heard_at = time.monotonic()
        if moved and not self._is_over():
            self.held.append(moved)
            try:
                self.hold(moved, self._is_over, self.device)
            finally:
                self.held.pop()
                self.heard_at = time.monotonic()
        return self._is_over()

    @property
    def silent_s(self) -> float:
        """How long nothing was heard of it; nothing is to be heard of who was told to wait."""
        return 0.0 if self.held else time.monotonic() - self.heard_at

    def _is_over(self) -> bool:
        return self.is_left or self.is_stopping()

    def run(self, items: Sequence[TransferItem], begin: Callable[[], None]) -> None:
        """Send, and hand over what comes of it; `begin` is called first, in this thread."""
        end: BaseException | None = None
        try:
            begin()
            for result in self.transfer.send(items, self.staging, self.stop):
                self.heard_at = time.monotonic()
                self.answers.put(result)
                if self.is_left:
                    break
        except BaseException as error:
            end = error
        if self.is_left and isinstance(self.transfer, Discarding):
            with suppress(DmError):
                self.transfer.discard(self.staging)
        self.answers.put(end)


class Sender:
    """Sends batches; shared by the workers of a process."""

    def __init__(
        self,
        transfer: Callable[[str], Transfer],
        *,
        stall_s: float = STALL_S,
        hold: Hold | None = None,
        begin: Callable[[], None] = lambda: None,
        pacing: Pacing | None = None,
    ) -> None:
        self._transfer = transfer
        self._stall_s = stall_s
        self._hold = hold or (lambda moved, is_over, device: None)
        self._begin_thread = begin
        self._pacing = pacing or Pacing()
        self._lock = threading.Lock()
        self._under_way: dict[_Sending, UUID] = {}
        self._left: list[tuple[UUID, threading.Thread]] = []

    def silent(self) -> set[UUID]:
        """Return the storage areas to which nothing is to be begun: they may be about to hang, or do, or had enough."""
        with self._lock:
            self._left = [(uid, thread) for uid, thread in self._left if thread.is_alive()]
            quiet = {uid for sending, uid in self._under_way.items() if sending.silent_s > SILENT_S}
            return quiet | {uid for uid, _ in self._left} | self._pacing.closed()

    def send(
        self, area: StorageArea, items: Sequence[TransferItem], staging: str, is_stopping: Callable[[], bool]
    ) -> dict[UUID, TransferResult]:
        """Send items; DestinationError `hanging` where the area does not answer, UnavailableError `source` likewise."""
        try:
            transfer = self._transfer(area.transfer)
        except DmError as error:  # not installed, or set wrongly
            raise DestinationError(f'storage area "{area.name}": {error.message}', code="failed") from error
        sending = _Sending(transfer, staging, self._hold, is_stopping, items[0].identity.dev)
        thread = threading.Thread(
            target=sending.run, args=(items, self._begin_thread), name=f"send to {area.name}", daemon=True
        )
        self._begin(sending, area)
        self._pacing.take(area, items)
        try:
            thread.start()
            return self._gather(sending, thread, area, items)
        finally:
            with self._lock:
                del self._under_way[sending]

    def _gather(
        self, sending: _Sending, thread: threading.Thread, area: StorageArea, items: Sequence[TransferItem]
    ) -> dict[UUID, TransferResult]:
        results: dict[UUID, TransferResult] = {}
        while True:
            try:
                answer = sending.answers.get(timeout=min(LOOK_S, self._stall_s))
            except queue.Empty:
                if sending.silent_s > self._stall_s:
                    self._leave(sending, thread, area, items)
                continue
            if isinstance(answer, TransferResult):
                results[answer.version_uid] = answer
            elif answer is not None:
                raise answer
            else:
                thread.join()
                return results

    def _begin(self, sending: _Sending, area: StorageArea) -> None:
        with self._lock:
            self._left = [(uid, thread) for uid, thread in self._left if thread.is_alive()]
            if len(self._left) >= MOST_LEFT:
                raise UnavailableError(f"{MOST_LEFT} transfers hang: nothing is begun until some of them have ended")
            self._under_way[sending] = area.uid

    def _leave(
        self, sending: _Sending, thread: threading.Thread, area: StorageArea, items: Sequence[TransferItem]
    ) -> None:
        sending.is_left = True
        looking = _looking_at(items[0].source)
        looking.join(SOURCE_ANSWERS_S)
        with self._lock:
            if looking.is_alive():
                self._left += [(NO_AREA, thread), (NO_AREA, looking)]
                # Nothing is held against its files, or against the storage.
                why = f'the source of "{show_path(items[0].source)}" does not answer: its files wait'
                raise UnavailableError(why, code=SOURCE)
            self._left.append((area.uid, thread))
        raise DestinationError(f'storage area "{area.name}" has not answered for {self._stall_s:g} s', code="hanging")


def _looking_at(path: bytes) -> threading.Thread:
    """Begin to look at a source, in a thread that may never come back."""

    def look() -> None:
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.read(descriptor, 1)
            finally:
                os.close(descriptor)

    looking = threading.Thread(target=look, name="look at a source", daemon=True)
    looking.start()
    return looking
