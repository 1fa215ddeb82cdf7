"""What becomes of each file that is met: settled already, refused, a link, or to be decided; and writing that down."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from beamkeeper.config.failpoints import FailPoint, hit
from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.db.acquisition import Control
from beamkeeper.db.journal import Known, Seen
from beamkeeper.domain.acquisition import Acquisition, JournalState, Kind
from beamkeeper.domain.files import FileKind, SourceIdentity
from beamkeeper.domain.names import show_path
from beamkeeper.engine import choose
from beamkeeper.engine.choose import Choice
from beamkeeper.engine.decide import Undecided, unopened, vanished
from beamkeeper.engine.finish import Hints, Policy
from beamkeeper.engine.root import Root
from beamkeeper.engine.scan import Listing, identity_of
from beamkeeper.engine.sentinel import Sentinels

J = JournalState
UNDECIDED = (J.CANDIDATE, J.GROWING)
_OF_DIRECTORIES = (choose.UNREADABLE, choose.OTHER_DEVICE, choose.TOO_LONG)


class Sorter:
    """Takes in files as they are met, and keeps in memory only what is not decided yet.

    `returned` takes paths to be looked at again. Nothing counts as gone unless the directory itself is there.
    """

    def __init__(
        self,
        acquisition: Acquisition,
        database: Database[AcquisitionTransaction],
        root: Root,
        policy: Policy,
        *,
        returned: deque[bytes],
        wrote: Callable[[list[Seen]], None],
    ) -> None:
        self.undecided = Undecided(root.path, policy, self.put, is_there=root.is_same, unopened=self._unopened)
        self.is_first_scan = False
        self.is_final = False
        self.heard_to = 0
        """The number of the last announcement that was taken in."""
        self.is_replaced = False
        """Another directory stands in the place of the one that was: what went with that is kept until the end."""
        self.is_first: Callable[[bytes], bool] | None = None
        """Which files go before all others."""
        self._acquisition = acquisition
        self._database = database
        self._root = root
        self._choice = Choice(acquisition)
        self._sentinels = Sentinels(acquisition.sentinel)
        self._returned = returned
        self._wrote = wrote
        self._out: dict[bytes, Seen] = {}
        self._drop: list[bytes] = []
        self._heard: set[bytes] = set()
        """What was announced and is not decided yet."""
        self._announced: set[bytes] = set()
        """What was announced and not met since."""
        self._settled: set[bytes] = set()
        """What was announced and needs no further look."""
        self._calm: dict[bytes, int] = {}
        """Directories in which nothing was left to be done, each with what its files looked like then."""

    @property
    def waiting(self) -> int:
        """How many files wait to be written down."""
        return len(self._out)

    def __contains__(self, path: bytes) -> bool:
        return path in self._out or path in self.undecided

    def begin_final(self) -> None:
        """Decide without waiting for more: the end was asked for, or one pass is over."""
        self.is_final = True
        self.undecided.begin_final()

    # What is met.

    def look(self, hinted: list[tuple[bytes, Hints]], control: Control) -> None:
        """Look at files of which there is news."""
        found: list[tuple[bytes, os.stat_result, Hints]] = []
        gone: list[bytes] = []
        barred: dict[bytes, OSError] = {}
        for path, hints in hinted:
            try:
                found.append((path, os.lstat(os.path.join(self._root.path, path)), hints))
            except (FileNotFoundError, NotADirectoryError):
                gone.append(path)
            except OSError as error:
                barred[path] = error
        if not self._root.is_same():
            self._returned.extend(path for path, _ in hinted)
            return
        with self._database.read() as tx:
            known = tx.journal.known(self._acquisition.uid, [path for path, _ in hinted])
        for path, status, hints in found:
            if not stat.S_ISDIR(status.st_mode):
                self._meet(path, status, known.get(path), hints, control)
            elif path in known:
                self._drop.append(path)  # it could not be read, and is tried again: what is in it is listed itself
        for path in gone:
            self._gone(path, known.get(path))
        for path, refusal in barred.items():
            before = known.get(path)
            if before is None or (before.state in UNDECIDED and not before.is_leased):
                self.put(unopened(path, before.identity if before else None, refusal))

    def is_calm(self, listing: Listing) -> bool:
        """Whether a directory looks as it did when all of it was settled: then the journal need not be asked."""
        return _is_whole(listing) and self._calm.get(listing.directory) == _looks_of(listing)

    def compare(self, listing: Listing, known: dict[bytes, Known], control: Control) -> None:
        """Compare what stands in a directory with what is known of it."""
        is_calm = _is_whole(listing)
        if listing.error is not None and listing.directory:
            code, why = choose.unreadable(listing.error, "the directory")
            self.put(Seen(listing.directory, J.QUARANTINED, reason_code=code, reason=why))
            # The one above takes that back once it can be read, which need not change how it looks there.
            self._calm.pop(listing.directory.rpartition(b"/")[0], None)
        for path, status in listing.entries:
            before = known.pop(path, None)
            if not stat.S_ISDIR(status.st_mode):
                is_calm = self._meet(path, status, before, None, control) and is_calm
            elif status.st_dev != self._root.device:
                self._pass_over(path, before)
                is_calm = False
            elif before is not None and before.reason_code in _OF_DIRECTORIES:
                self._drop.append(path)
        for path in listing.passed_over:
            if known.pop(path, None) is None:
                why = "it is the file system's own"
                self.put(Seen(path, J.SKIPPED, reason_code=choose.SPECIAL, reason=why))
        if listing.error is None and known and self._root.is_same():
            for path, before in known.items():
                self._gone(path, before)
                is_calm = is_calm and not before.is_leased and _is_settled(before)
        self._calm.pop(listing.directory, None)
        if is_calm:
            self._calm[listing.directory] = _looks_of(listing)

    def _pass_over(self, path: bytes, before: Known | None) -> None:
        if before is None or before.reason_code != choose.OTHER_DEVICE:
            why = "another file system is mounted there: start a DAQ of its own for it"
            self.put(Seen(path, J.SKIPPED, reason_code=choose.OTHER_DEVICE, reason=why))

    def _meet(
        self, path: bytes, status: os.stat_result, known: Known | None, hints: Hints | None, control: Control
    ) -> bool:
        """Take in how a file is now; `hints` is None where a scan found it. Tells whether all is done for it."""
        identity = identity_of(status)
        if known is None and control.taken_over_at is not None and path not in self.undecided:
            return False  # it belongs to the DAQ that took over
        if known is not None and known.is_leased:
            if known.identity != identity:
                self._returned.append(path)
            return False
        if known is not None and self._is_unchanged(known, identity) and _is_settled(known):
            self._settle(path)
            return True
        if path in self._announced:
            self._announced.discard(path)
            hints = replace(hints or Hints(), is_announced=True)
        if refused := self._refusal(path, status, known, control, hints=hints):
            if known is None or known.state is not J.SKIPPED or known.identity != identity:
                code, why = refused
                is_waited_for = code == choose.TEMPORARY and not self.is_final and self._acquisition.kind is Kind.DAQ
                state = J.CANDIDATE if is_waited_for else J.SKIPPED
                self.put(Seen(path, state, identity=identity, reason_code=code, reason=why))
            return False
        if stat.S_ISLNK(status.st_mode):
            self._link(path, identity)
            return False
        self._sentinels.meet(path)
        self.undecided.track(path, identity, known, hints)
        return False

    def _is_unchanged(self, known: Known, identity: SourceIdentity) -> bool:
        """Whether a file is as it was; a file system that is mounted anew may have got another device number."""
        if known.identity is None or identity.dev == known.identity.dev:
            return known.identity == identity
        is_renumbered = self._root.has_had(known.identity.dev) and identity.dev == self._root.device
        return is_renumbered and known.identity == identity.model_copy(update={"dev": known.identity.dev})

    def _refusal(
        self,
        path: bytes,
        status: os.stat_result,
        known: Known | None,
        control: Control,
        *,
        hints: Hints | None,
    ) -> tuple[str, str] | None:
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            return choose.SPECIAL, "it is neither a file nor a link"
        if refused := self._choice.refuse(path):
            return refused
        is_announced = hints is not None and hints.is_announced
        if self._choice.is_temporary(path) and not self._acquisition.is_put and not is_announced:
            return choose.TEMPORARY, "its name is one that writers use until a file is whole"
        if known is None and self.is_first_scan and hints is None and _was_there(status, control.existing_before):
            return choose.EXISTING, "it was there before the DAQ started"
        if known is None and self.is_first_scan and control.took_over and self._is_of_old(path, control):
            return choose.TAKEN_OVER, "the DAQ before this one had seen it"
        return None

    def _is_of_old(self, path: bytes, control: Control) -> bool:
        with self._database.read() as tx:
            for uid in control.took_over:
                old = tx.acquisitions.get(uid)
                relative = os.path.relpath(os.path.join(self._root.path, path), b"/" + old.relpath)
                if tx.journal.known(uid, [relative]):
                    return True
        return False

    def _link(self, path: bytes, identity: SourceIdentity) -> None:
        try:
            target = os.readlink(os.path.join(self._root.path, path))
        except FileNotFoundError:
            return  # the next look finds it gone
        except OSError as error:
            self.put(unopened(path, identity, error))
            return
        self.put(Seen(path, J.READY, FileKind.LINK, identity, finished_at=datetime.now(UTC), link_target=target))

    def _gone(self, path: bytes, known: Known | None) -> None:
        self.undecided.forget(path)
        self._out.pop(path, None)
        if known is None or known.is_leased:
            return
        if known.reason_code == choose.TEMPORARY:
            self._drop.append(path)
        elif known.state in UNDECIDED and (self.is_final or not self.is_replaced):
            gone = vanished(path, known.identity, is_replaced=self.is_replaced)
            self.put(self._hidden(path, known.identity) or gone)

    def _unopened(self, path: bytes, identity: SourceIdentity | None, error: OSError) -> Seen:
        hidden = self._hidden(path, identity) if isinstance(error, FileNotFoundError) else None
        return hidden or unopened(path, identity, error)

    def _hidden(self, path: bytes, identity: SourceIdentity | None) -> Seen | None:
        """Return what is written of a file that a mount over a directory above it hides: it may not be gone at all."""
        above = path
        while above := above.rpartition(b"/")[0]:
            try:
                found = os.lstat(os.path.join(self._root.path, above))
            except OSError:
                continue
            if found.st_dev == self._root.device:
                return None
            why = f'another file system is mounted over "{show_path(above)}", and hides it'
            return Seen(path, J.QUARANTINED, identity=identity, reason_code=choose.UNREADABLE, reason=why)
        return None

    # The writer's own word.

    def hear(self, announced: Sequence[tuple[int, bytes]], control: Control) -> set[bytes]:
        """Take in paths that were announced; returns those that are directories, to be scanned and then `trust`ed."""
        if not announced:
            return set()
        self.heard_to = announced[-1][0]
        new = {path for _, path in announced}
        directories = {path for path in new if os.path.isdir(os.path.join(self._root.path, path))}
        self._heard |= new
        self._settled -= new
        self._announced |= new - directories
        self.look([(path, Hints(is_announced=True)) for path in sorted(new - directories)], control)
        return directories

    def trust(self, directories: Iterable[bytes]) -> None:
        """Take every undecided file in these directories, and those that sentinels speak of, as finished."""
        for directory in directories:
            self._settle(directory)
            self._sentinels.add_directory(directory)
        if self._sentinels:
            self.undecided.announce(self._sentinels.covers)
            self._sentinels.clear()

    def miss_announced(self) -> None:
        """List what was announced and never came; to be called at the end."""
        for path in self._announced:
            why = "its writer announced it, and it never was there"
            self.put(Seen(path, J.VANISHED, reason_code="announced", reason=why))
        self._announced.clear()

    def _settle(self, path: bytes) -> None:
        self._announced.discard(path)
        if path in self._heard:
            self._settled.add(path)

    # Writing it down.

    def put(self, seen: Seen) -> None:
        """Have something written down of a file; what is said later counts."""
        self._out[seen.path] = seen

    def flush(self) -> None:
        """Write everything down in one transaction, unless the DAQ or upload has ended."""
        if not self._out and not self._drop and not self._settled:
            return
        out, drop = list(self._out.values()), self._drop
        self._settled.update(p for p in self._heard & self._out.keys() if self._out[p].state not in UNDECIDED)
        hit(FailPoint.SEEN_WRITING)
        with self._database.write() as tx:
            if not tx.acquisitions.goes_on(self._acquisition.uid):
                # Its journal balanced, and it was ended before its watch heard of it. What comes later is not its own,
                # and nobody would ever deliver it.
                self._out, self._drop, self._settled = {}, [], set()
                return
            tx.journal.drop(self._acquisition.uid, drop)
            tx.journal.see(self._acquisition.uid, out, is_first=self.is_first)
            tx.announcements.drop(self._acquisition.uid, sorted(self._settled), up_to=self.heard_to)
        self._heard -= self._settled
        self._out, self._drop, self._settled = {}, [], set()
        hit(FailPoint.SEEN_WRITTEN)
        self._wrote(out)


def _was_there(status: os.stat_result, before: datetime | None) -> bool:
    """Whether a file is as it was before a time: the first scan of a large tree takes a while, and writers go on.

    Where the clock of a file server is ahead, a file too many is taken; that harms less than one too few.
    """
    return before is not None and status.st_ctime_ns <= int(before.timestamp() * 1_000_000) * 1000


def _is_whole(listing: Listing) -> bool:
    """Whether a listing tells all of a directory; one that fails has no entries, as an empty directory has none."""
    return listing.error is None and not listing.is_part and not listing.passed_over


def _looks_of(listing: Listing) -> int:
    """Return a number for what a directory's entries look like, all that tells of a change."""
    looks = [(p, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_mode, s.st_dev) for p, s in listing.entries]
    return hash(tuple(looks))


def _is_settled(known: Known) -> bool:
    if known.state in (*UNDECIDED, J.VANISHED) or known.reason_code == choose.TEMPORARY:
        return False
    return not (known.state is J.QUARANTINED and known.reason_code == choose.UNREADABLE)
