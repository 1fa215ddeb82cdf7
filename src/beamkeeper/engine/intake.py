"""One DAQ's or upload's eyes: hints and scans become candidates, evidence makes them ready.

The thread keeps in memory only what is not decided yet; everything that is decided is in the journal, so that
a restart begins with a scan and goes on.
"""

from __future__ import annotations

import os
import stat
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from beamkeeper.config.failpoints import FailPoint, hit
from beamkeeper.core import acquisition as core
from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.db.acquisition import Control
from beamkeeper.db.journal import Known, Seen
from beamkeeper.domain.acquisition import Acquisition, JournalState, Kind, State
from beamkeeper.domain.files import FileKind, SourceIdentity
from beamkeeper.domain.names import show_path
from beamkeeper.engine import choose
from beamkeeper.engine.choose import Choice
from beamkeeper.engine.decide import Undecided, unopened, vanished
from beamkeeper.engine.finish import Hints, file_system_of, make_policy
from beamkeeper.engine.scan import Listing, identity_of, walk
from beamkeeper.engine.watch import Watch
from beamkeeper.engine.worker import Loop, Report

J = JournalState
TICK_S = 0.05
"""Hints are gathered for this long, so that one transaction serves many."""

SCAN_FLUSH = 1000
"""A scan writes what it found each time it has this many."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the settings say of every intake of a station."""

    quiet_s: float
    scan_interval_s: float


class Intake(Loop):
    """Watches and scans one directory, and writes what is there into the journal."""

    def __init__(
        self,
        acquisition: Acquisition,
        database: Database[AcquisitionTransaction],
        rules: Rules,
        *,
        wake_workers: Callable[[], None],
        report: Report,
    ) -> None:
        super().__init__(f"{acquisition.kind} {acquisition.uid}", report=report, idle_s=0.5)
        self.acquisition = acquisition
        self.is_drained = False
        """Everything was scanned and decided after a stop; what the workers give back makes it false again."""
        self._database = database
        self._rules = rules
        self._wake_workers = wake_workers
        self._root = b"/" + acquisition.relpath
        self._choice = Choice(acquisition)
        self._root_id: tuple[int, int] | None = None
        self._watch: Watch | None = None
        self._undecided: Undecided | None = None
        self._out: dict[bytes, Seen] = {}
        self._drop: list[bytes] = []
        self._returned: deque[bytes] = deque()
        self._next_scan = 0.0
        self._is_first_scan = acquisition.state is State.PENDING
        self._has_scanned = False
        self._is_final = False
        self._is_final_scanned = False
        self._message = acquisition.message

    def give_back(self, paths: Sequence[bytes]) -> None:
        """Take files back from a worker: they changed while they were copied."""
        self.is_drained = False
        self._returned.extend(paths)
        self.wake()

    def step(self) -> bool:
        """Look at the news, scan if it is time, decide what is due, and write it all down."""
        began = time.monotonic()
        with self._database.read() as tx:
            control = tx.acquisitions.control(self.acquisition.uid)
        if control.stop_now or not self._is_root_there(control) or self._undecided is None:
            return False
        self._begin_final(control)
        self._take_news(control)
        if time.monotonic() >= self._next_scan:
            self._scan(control)
        self._undecided.decide_due()
        self._flush()
        self.is_drained = self._is_final_scanned and not self._undecided and not self._returned
        self._idle_s = max(0.0, min(0.5, self._undecided.next_due - time.monotonic()))
        self._stopping.wait(max(0.0, TICK_S - (time.monotonic() - began)))
        return False

    def ended(self) -> None:
        """Close the watch."""
        if self._watch is not None:
            self._watch.close()

    # The directory itself.

    def _is_root_there(self, control: Control) -> bool:
        """Open the watch once the directory is there; never take a missing one for an empty one."""
        try:
            found = os.stat(self._root)
            is_there = stat.S_ISDIR(found.st_mode) or self.acquisition.kind is Kind.UPLOAD
        except OSError:
            is_there = False
        if not is_there:
            if control.stop_requested and self._root_id is None:
                self._is_final_scanned = self.is_drained = True
            self._say(f"waits for its directory /{show_path(self.acquisition.relpath)}, which is not there")
            return False
        if self._root_id is not None and self._root_id != (found.st_dev, found.st_ino):
            self._say("its directory is another one than before: it was moved or unmounted; scanning anew")
            self._close_watch()
        if self._root_id != (found.st_dev, found.st_ino):
            self._open(found)
        return True

    def _open(self, found: os.stat_result) -> None:
        self._root_id = (found.st_dev, found.st_ino)
        file_system = file_system_of(self._root)
        a = self.acquisition
        default = 0.0 if a.is_put else self._rules.quiet_s
        policy = make_policy(a.finished, a.quiet_s, default, file_system=file_system, kind=a.kind)
        self._undecided = Undecided(self._root, policy, self._put)
        if a.kind is Kind.DAQ and not policy.is_network:
            self._watch = Watch(self._root, self.wake)
        with self._database.write() as tx:
            tx.acquisitions.set_policy(a.uid, policy.sentence)
        self._say("")
        self._next_scan = 0.0

    def _close_watch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _say(self, message: str) -> None:
        if message != self._message:
            self._message = message
            with self._database.write() as tx:
                tx.acquisitions.set_message(self.acquisition.uid, message)

    def _begin_final(self, control: Control) -> None:
        is_one_pass = self.acquisition.kind is Kind.UPLOAD and self._has_scanned
        if (control.stop_requested or is_one_pass) and not self._is_final and self._undecided is not None:
            self._is_final = True
            self._next_scan = float("inf") if is_one_pass else 0.0
            self._is_final_scanned = is_one_pass
            self._undecided.begin_final()

    # What may have changed.

    def _take_news(self, control: Control) -> None:
        looked = {self._returned.popleft(): Hints() for _ in range(len(self._returned))}
        if self._watch is not None:
            news = self._watch.take()
            looked.update(news.files)
            if news.is_dirty or not self._watch.is_alive:
                self._say("the kernel's queue of changes ran over: scanning everything" if news.is_dirty else "")
                self._next_scan = 0.0
            for directory in sorted(news.directories):
                self._scan_below(directory, control)
        if looked:
            self._look(list(looked.items()), control)

    def _look(self, hinted: list[tuple[bytes, Hints]], control: Control) -> None:
        found: list[tuple[bytes, os.stat_result, Hints]] = []
        gone: list[bytes] = []
        barred: dict[bytes, OSError] = {}
        for path, hints in hinted:
            try:
                found.append((path, os.lstat(os.path.join(self._root, path)), hints))
            except (FileNotFoundError, NotADirectoryError):
                gone.append(path)
            except OSError as error:
                barred[path] = error
        with self._database.read() as tx:
            known = tx.journal.known(self.acquisition.uid, [path for path, _ in hinted])
        for path, status, hints in found:
            if not stat.S_ISDIR(status.st_mode):
                self._meet(path, status, known.get(path), hints, control)
        for path in gone:
            self._gone(path, known.get(path))
        for path, refusal in barred.items():
            before = known.get(path)
            if before is None or (before.state in (J.CANDIDATE, J.GROWING) and not before.is_leased):
                self._put(unopened(path, before.identity if before else None, refusal))

    def _gone(self, path: bytes, known: Known | None) -> None:
        if self._undecided is not None:
            self._undecided.forget(path)
        self._out.pop(path, None)
        if known is None or known.is_leased:
            return
        if known.reason_code == choose.TEMPORARY:
            self._drop.append(path)
        elif known.state in (J.CANDIDATE, J.GROWING):
            self._put(vanished(path, known.identity))

    # Scans.

    def _scan(self, control: Control) -> None:
        began = time.monotonic()
        self._scan_below(b"", control)
        self._look_for_missed(control)
        took = time.monotonic() - began
        shorter = self._watch is not None and self._watch.limit_reached
        if shorter:
            self._say(
                "the kernel's limit of watches is reached (fs.inotify.max_user_watches): scanning every few seconds"
            )
        interval = self._rules.scan_interval_s / (6 if shorter or self._watch is None else 1)
        self._next_scan = time.monotonic() + max(interval, 2 * took)
        self._has_scanned = True
        if self._is_final:
            self._is_final_scanned = True
            self._next_scan = float("inf")
        if self._is_first_scan:
            self._flush()
            self._is_first_scan = False
            with self._database.write() as tx:
                tx.events.add(core.changed(tx.acquisitions.mark_started(self.acquisition.uid)))

    def _scan_below(self, top: bytes, control: Control) -> None:
        for listing in walk(self._root, top, self._enter):
            if self.is_stopping:
                return
            with self._database.read() as tx:
                known = tx.journal.known_in(self.acquisition.uid, listing.directory)
            self._compare(listing, known, control)
            if len(self._out) >= SCAN_FLUSH:
                if self._undecided is not None:
                    self._undecided.decide_due()
                self._flush()

    def _look_for_missed(self, control: Control) -> None:
        """Look at what the journal has undecided and no scan met: its directory went while nobody watched."""
        with self._database.read() as tx:
            unsettled = tx.journal.unsettled(self.acquisition.uid)
        missed = [path for path in unsettled if path not in self._out and not self._is_tracked(path)]
        if missed:
            self._look([(path, Hints()) for path in missed], control)

    def _enter(self, directory: bytes) -> None:
        if self._watch is not None:
            self._watch.add(directory)

    def _compare(self, listing: Listing, known: dict[bytes, Known], control: Control) -> None:
        if listing.error is not None:
            self._unlisted(listing)
        for path, status in listing.entries:
            before = known.pop(path, None)
            if not stat.S_ISDIR(status.st_mode):
                self._meet(path, status, before, None, control)
            elif before is not None and before.reason_code == choose.UNREADABLE:
                self._drop.append(path)
        if listing.error is None:
            for path, before in known.items():
                self._gone(path, before)

    def _unlisted(self, listing: Listing) -> None:
        why = f"the directory cannot be read: {os.strerror(listing.error.errno or 0)}" if listing.error else ""
        if listing.directory:
            self._put(Seen(listing.directory, J.QUARANTINED, reason_code=choose.UNREADABLE, reason=why))
        else:
            self._say(why)

    # One file.

    def _meet(
        self, path: bytes, status: os.stat_result, known: Known | None, hints: Hints | None, control: Control
    ) -> None:
        """Take in how a file is now; `hints` is None where a scan found it."""
        identity = identity_of(status)
        if known is None and control.taken_over_at is not None and not self._is_tracked(path):
            return  # it belongs to the DAQ that took over
        if known is not None and known.is_leased:
            if known.identity != identity:
                self._returned.append(path)
            return
        if known is not None and known.identity == identity and self._is_settled(known):
            return
        if refused := self._refusal(path, status, known, control):
            if known is None or known.state is not J.SKIPPED or known.identity != identity:
                code, why = refused
                is_waited_for = code == choose.TEMPORARY and not self._is_final and self.acquisition.kind is Kind.DAQ
                state = J.CANDIDATE if is_waited_for else J.SKIPPED
                self._put(Seen(path, state, identity=identity, reason_code=code, reason=why))
            return
        if stat.S_ISLNK(status.st_mode):
            self._link(path, identity)
            return
        if self._undecided is not None:
            self._undecided.track(path, identity, known, hints)

    def _is_tracked(self, path: bytes) -> bool:
        return self._undecided is not None and path in self._undecided

    def _is_settled(self, known: Known) -> bool:
        if known.state in (J.CANDIDATE, J.GROWING, J.VANISHED) or known.reason_code == choose.TEMPORARY:
            return False
        return not (known.state is J.QUARANTINED and known.reason_code == choose.UNREADABLE)

    def _refusal(
        self, path: bytes, status: os.stat_result, known: Known | None, control: Control
    ) -> tuple[str, str] | None:
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            return choose.SPECIAL, "it is neither a file nor a link"
        if refused := self._choice.refuse(path):
            return refused
        if self._choice.is_temporary(path) and not self.acquisition.is_put:
            return choose.TEMPORARY, "its name is one that writers use until a file is whole"
        if known is None and self._is_first_scan and control.existing_before is not None:
            return choose.EXISTING, "it was there before the DAQ started"
        if known is None and self._is_first_scan and control.took_over and self._is_of_old(path, control):
            return choose.TAKEN_OVER, "the DAQ before this one had seen it"
        return None

    def _is_of_old(self, path: bytes, control: Control) -> bool:
        with self._database.read() as tx:
            for uid in control.took_over:
                old = tx.acquisitions.get(uid)
                relative = os.path.relpath(os.path.join(self._root, path), b"/" + old.relpath)
                if tx.journal.known(uid, [relative]):
                    return True
        return False

    def _link(self, path: bytes, identity: SourceIdentity) -> None:
        try:
            target = os.readlink(os.path.join(self._root, path))
        except OSError:
            return
        self._put(Seen(path, J.READY, FileKind.LINK, identity, finished_at=datetime.now(UTC), link_target=target))

    def _put(self, seen: Seen) -> None:
        self._out[seen.path] = seen

    def _flush(self) -> None:
        if not self._out and not self._drop:
            return
        out, drop = list(self._out.values()), self._drop
        hit(FailPoint.SEEN_WRITING)
        with self._database.write() as tx:
            tx.journal.drop(self.acquisition.uid, drop)
            tx.journal.see(self.acquisition.uid, out)
        self._out, self._drop = {}, []
        hit(FailPoint.SEEN_WRITTEN)
        if any(seen.state is J.READY for seen in out):
            self._wake_workers()
