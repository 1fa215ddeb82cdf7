"""Reading stored files from wherever a right copy is: the own storage area first, then any other that has one.

There is one way for all that reads: single files, archives, links, arrays. Where the first copy cannot be read (its
area is not there, the file is missing, of another size, or unreadable where reading begins), other storage areas are
looked into. A copy there counts if its whole content has the checksum of the catalogue, which is found out by reading
it before anything of it is sent: whoever gets it need not trust that it was right once. An area that hangs counts as
one that is not there.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from uuid import UUID

from beamkeeper.core import arrays, rights
from beamkeeper.core.arrays import Opened
from beamkeeper.core.proofs import SO_FAR, Proofs
from beamkeeper.core.stored import Objects, Store, Stored
from beamkeeper.db import StorageTransaction
from beamkeeper.domain.arrays import FileChoice
from beamkeeper.domain.errors import ConflictError, DmError, InvalidError, NotFoundError, UnavailableError
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.names import show_path
from beamkeeper.domain.users import Action, Caller

ANSWERS_S = 5.0
SEEN_S, HANGING_S = 1.0, 30.0
"""For so long a directory is taken to answer that did, and to hang that did not."""

OTHERWISE = (NotFoundError, ConflictError, InvalidError, UnavailableError)
"""What a copy fails with that another one need not fail with."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where an experiment's files may be read: in its own storage area, or else in others."""

    first: str
    others: Sequence[str] = ()
    fault: DmError | None = None
    """Why nothing can be opened in the first: it is an object store."""
    store: Store | None = None
    """That object store, which can be read all the same."""


class CopiesRead:
    """Opens files where they can be read."""

    def __init__(
        self, look: Callable[[str], object] = os.stat, *, answers_s: float = ANSWERS_S, proofs: Proofs | None = None
    ) -> None:
        self._look = look
        self._answers_s = answers_s
        self._seen: dict[str, tuple[float, bool]] = {}
        """Until when which directory is taken to answer, or not to."""
        self.proofs = proofs or Proofs()
        self.objects: Objects | None = None
        """How files in object stores are read, where that is possible."""
        self._lock = threading.Lock()

    @contextmanager
    def opened(
        self, places: Places, choice: FileChoice, *, size: int | None = None, begin: int = 0
    ) -> Iterator[Opened]:
        """Open a file from where it can be read: from `begin` on, and with `size` bytes where that is known.

        A choice without a checksum is opened in the first place alone, or in another one in a state that was found
        right before: by itself a state says nothing of bytes, and what lies in another area may be anybody's.
        """
        with ExitStack() as held:
            try:
                if places.fault is not None:
                    raise places.fault
                if places.others:
                    self._check_answers(places.first)
                found = held.enter_context(arrays.opened(places.first, choice))
                if places.others:
                    _check(found, choice, size, begin)
            except OTHERWISE as error:
                held.close()
                other = self._elsewhere(places, choice, held)
                if other is None:
                    raise error from None
                found = other
            yield found

    @contextmanager
    def readable(
        self, places: Places, choice: FileChoice, *, size: int | None = None, begin: int = 0
    ) -> Iterator[Opened | Stored]:
        """Open a file whose bytes are wanted, and nothing else of it: as `opened`, and in an object store too."""
        if places.store is not None and self.objects is not None:
            try:
                found = self.objects.find(places.store, choice, size)
            except OTHERWISE as error:
                places = replace(places, fault=error)
            else:
                yield found
                return
        with self.opened(places, choice, size=size, begin=begin) as opened:
            yield opened

    def _elsewhere(self, places: Places, choice: FileChoice, held: ExitStack) -> Opened | None:
        """Open the first of the other copies that is right; None where there is none."""
        anyhow = choice.model_copy(update={"state": None}) if choice.checksum else choice
        if choice.checksum is None and choice.state is None:
            return None
        for directory in places.others:
            with ExitStack() as trying:
                try:
                    self._check_answers(directory)
                    found = trying.enter_context(arrays.opened(directory, anyhow))
                    if self._is_right(directory, choice, found):
                        held.push(trying.pop_all())
                        return found
                except (DmError, OSError) as error:
                    if isinstance(error, DmError) and SO_FAR in error.details:
                        raise  # it is being read, and may be right
        return None

    def _check_answers(self, directory: str) -> None:
        """Refuse a directory that hangs: whoever looked into it would wait in the kernel, for nobody knows how long."""
        now = time.monotonic()
        until, does_answer = self._seen.get(directory, (now, False))
        if until <= now:
            looking = threading.Thread(target=self._try, args=(directory,), name="look at a copy", daemon=True)
            looking.start()
            looking.join(self._answers_s)
            does_answer = not looking.is_alive()
            until = time.monotonic() + (SEEN_S if does_answer else HANGING_S)
            with self._lock:
                self._seen = {name: seen for name, seen in self._seen.items() if seen[0] > now}
                self._seen[directory] = until, does_answer
        if not does_answer:
            raise UnavailableError("the storage of this experiment does not answer: try again later")

    def _try(self, directory: str) -> None:
        with suppress(OSError):  # opening it says what is wrong
            self._look(directory)

    def _is_right(self, directory: str, choice: FileChoice, found: Opened) -> bool:
        if choice.checksum is None:
            return self.proofs.was_right(directory, choice.relpath, found.state)
        return self.proofs.is_right(directory, choice.relpath, choice.checksum, found)


def root(tx: StorageTransaction, caller: Caller, experiment_uid: UUID, *, area_uid: UUID | None = None) -> Places:
    """Return where the files of an experiment are that the caller may read; in one area alone, where it is named."""
    return of(tx, rights.experiment(tx, caller, Action.FILE_READ, experiment_uid), area_uid=area_uid)


def of(tx: StorageTransaction, experiment: Experiment, *, area_uid: UUID | None = None) -> Places:
    """Return where the files of an experiment are."""
    own = tx.storage.get(area_uid or experiment.storage_area_uid)
    others: Sequence[str] = ()
    if area_uid is None and experiment.directory:
        areas = [area for area in tx.storage.list() if area.uid != own.uid and not area.is_objects]
        others = [os.path.join(area.path, experiment.directory) for area in areas]
    try:
        return Places(arrays.directory(tx, experiment, area_uid=area_uid), others)
    except ConflictError as error:
        return Places("", others, error, Store(own.path, str(experiment.directory)) if own.is_objects else None)


def _check(found: Opened, choice: FileChoice, size: int | None, begin: int) -> None:
    """Refuse a copy that has another size, or cannot be read where reading begins."""
    shown = show_path(choice.relpath)[:1000]
    if size is not None and found.size != size:
        raise ConflictError(f'"{shown}" has {found.size} bytes in the storage and {size} in the catalogue')
    try:
        os.pread(found.descriptor, 1, begin)
    except OSError as error:
        raise UnavailableError(f'"{shown}" cannot be read: {os.strerror(error.errno or 0)}') from error
