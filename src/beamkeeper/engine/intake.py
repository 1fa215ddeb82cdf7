"""One DAQ's or upload's eyes: hints and scans become candidates, evidence makes them ready.

The thread keeps in memory only what is not decided yet; everything that is decided is in the journal, so that
a restart begins with a scan and goes on.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from beamkeeper.core import acquisition as core
from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.db.acquisition import Control
from beamkeeper.db.journal import Known, Seen
from beamkeeper.domain.acquisition import Acquisition, JournalState, Kind, State
from beamkeeper.domain.globs import matcher
from beamkeeper.domain.problems import ProblemKind
from beamkeeper.engine import mounts
from beamkeeper.engine.finish import Hints, Policy, make_policy
from beamkeeper.engine.lookout import Lookout
from beamkeeper.engine.orders import Orders
from beamkeeper.engine.problems import Tell, about
from beamkeeper.engine.root import Root, RootId, Standing
from beamkeeper.engine.scan import Listing, walk
from beamkeeper.engine.sort import Sorter
from beamkeeper.engine.worker import Loop, Report

J = JournalState
TICK_S = 0.1
"""Hints are gathered for this long, so that one transaction serves many."""

SCAN_FLUSH = 1000
"""A scan writes what it found each time it has this many."""

BREATH_S = 0.2
"""A scan looks at the news after so long: a file must not wait for the end of it."""

SCANS_APART_S = 1.0
"""When hints were lost again, the next scan begins so long after the last at the earliest, or as long as that took."""

WRITTEN_S = 5.0
"""A directory in which nothing changed for so long is not being written."""

OFTEN = 6
"""Where no watch can be trusted, scans follow one another so many times more often."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the settings say of every intake of a station."""

    quiet_s: float
    scan_interval_s: float
    canary_s: float = 60.0
    is_polled: bool = False


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
        tell: Tell,
    ) -> None:
        super().__init__(f"{acquisition.kind} {acquisition.uid}", report=report, idle_s=0.5)
        self.acquisition = acquisition
        self.is_drained = False
        """Everything was scanned and decided after a stop; what the workers give back makes it false again."""
        self.scans = 0
        """How many full scans were made."""
        self._database = database
        self._rules = rules
        self._wake_workers = wake_workers
        self._tell = tell
        self._root: Root | None = None
        self._lookout: Lookout | None = None
        self._sorter: Sorter | None = None
        self._policy: Policy | None = None
        self._returned: deque[bytes] = deque()
        self._new_directories: set[bytes] = set()
        self._next_scan = 0.0
        self._scanned_at = self._lost_at = float("-inf")
        self._scan_took = self._breathed_at = 0.0
        self._is_first_scan = acquisition.state is State.PENDING
        self._is_lost = self._has_scanned = self._is_final = self._is_final_scanned = self._is_retry = False
        self._retries: int | None = None
        """How often files were to be tried again, as far as this directory was looked at for them."""
        self._first: Sequence[str] = ()
        self._notes: dict[str, str] = {}
        self._message, self._told_policy = acquisition.message, acquisition.policy
        self._orders = Orders(database, acquisition.uid, self.wake)

    @property
    def written(self) -> tuple[int, bytes] | None:
        """The file system and the directory, where something was written there in the last seconds."""
        root, sorter = self._root, self._sorter
        if root is None or sorter is None or not root.is_open or self.acquisition.is_put:
            return None
        is_written = time.monotonic() - sorter.undecided.changed_at < WRITTEN_S and not self._is_first_scan
        return (root.device, root.path) if is_written else None

    def give_back(self, paths: Sequence[bytes]) -> None:
        """Take files back from a worker: they changed or went while they were copied."""
        self.is_drained = False
        self._returned.extend(paths)
        self.wake()

    def step(self) -> bool:
        """Look at the news, scan if it is time, decide what is due, and write it all down."""
        began = time.monotonic()
        before = self._sorter
        control, announced = self._orders.take(before.heard_to if before else 0)
        self._is_retry = control.is_retry
        if control.stop_now or not self._is_root_there(control) or self._sorter is None:
            self._idle_s = 0.5
            return False
        sorter = self._sorter
        if sorter is not before:
            self._orders.take_again()
        self._obey(control, sorter)
        self._look_after_watch()
        self._take_news(sorter, control)
        self._scan_new_directories(sorter, control)
        directories = sorter.hear(announced if sorter is before else (), control)
        for directory in sorted(directories):
            self._scan_below(directory, sorter, control)
        if time.monotonic() >= self._next_scan:
            self._scan(sorter, control)
        sorter.trust(directories)
        sorter.undecided.decide_due()
        if self._is_final_scanned and not sorter.undecided:
            sorter.miss_announced()
        sorter.flush()
        self.is_drained = self._is_final_scanned and not sorter.undecided and not self._returned
        self._idle_s = max(0.0, min(0.5, sorter.undecided.next_due - time.monotonic()))
        self._stopping.wait(max(0.0, TICK_S - (time.monotonic() - began)))
        return False

    def ended(self) -> None:
        """Close the watch."""
        self._orders.close()
        self._close_lookout()

    # The directory itself.

    def _is_root_there(self, control: Control) -> bool:
        """Begin once the directory is there; never take a missing one, or another mount, for an empty one."""
        if self._root is None:
            with self._database.read() as tx:
                known = tx.acquisitions.root(self.acquisition.uid)
            self._root = Root(b"/" + self.acquisition.relpath, RootId.from_json(known) if known else None)
        standing = self._root.look()
        if standing is Standing.UNAVAILABLE:
            self._lose_root(self._root, control)
            return False
        if standing is not Standing.SAME:
            self._open(self._root, standing)
        return True

    def _lose_root(self, root: Root, control: Control) -> None:
        self._close_lookout()
        if root.known is None:
            if control.stop_requested:
                self._is_final_scanned = self.is_drained = True
            self._note("directory", f"waits for its directory: {root.why}")
            return
        if not self._is_lost:
            self._is_lost = True
            self._problem(ProblemKind.DIRECTORY_UNAVAILABLE, root.why)
        way_out = "; it ends when that is back, or at once with --now" if control.stop_requested else ""
        self._note("directory", root.why + way_out)

    def _open(self, root: Root, standing: Standing) -> None:
        """Begin, or begin anew, with a directory that is there."""
        if self._sorter is not None:
            self._sorter.flush()
        a, polled = self.acquisition, self._rules.is_polled or self.acquisition.poll
        mount = root.known.mount if root.known else mounts.Mount()
        self._policy = make_policy(
            a.finished,
            a.quiet_s,
            0.0 if a.is_put else self._rules.quiet_s,
            file_system=mount.kind,
            kind=a.kind,
            is_exported=not a.is_put and mounts.is_exported(root.path, mounts.exported()),
            is_polled=polled,
            sentinel=a.sentinel,
        )
        sorter = Sorter(a, self._database, root, self._policy, returned=self._returned, wrote=self._wrote)
        sorter.is_first = matcher(self._first) if self._first else None
        sorter.is_first_scan, sorter.is_replaced = self._is_first_scan, standing is Standing.REPLACED
        if self._is_final:
            sorter.begin_final()
        self._sorter = sorter
        self._close_lookout()
        if self._policy.is_watched and not self._is_retry:
            self._lookout = Lookout(root.path, a.uid, self.wake, canary_s=self._rules.canary_s)
        if root.known is not None:
            with self._database.write() as tx:
                tx.acquisitions.set_root(a.uid, root.known.to_json())
        # What runs again looks at the files that it runs again for, and scans nothing.
        self._next_scan = float("inf") if self._is_retry else 0.0
        self._is_final_scanned, self._retries = self._is_retry, None
        self._tell_standing(standing)
        self._tell_policy()

    def _tell_standing(self, standing: Standing) -> None:
        if standing is Standing.REPLACED:
            why = "another directory stands in the place of the watched one, and is watched now"
            self._note("directory", f"{why}: what was not delivered of the old one is listed")
            self._problem(ProblemKind.DIRECTORY_REPLACED, why)
        else:
            if self._is_lost:
                self._problem(ProblemKind.DIRECTORY_BACK, "the watched directory is there again, and is scanned")
            self._note("directory", "")
        self._is_lost = False

    def _close_lookout(self) -> None:
        if self._lookout is not None:
            self._lookout.close()
            self._lookout = None

    def _obey(self, control: Control, sorter: Sorter) -> None:
        """Do what people have asked for: the end, files that go first, files that are tried again."""
        is_one_pass = control.is_retry or (self.acquisition.kind is Kind.UPLOAD and self._has_scanned)
        if (control.stop_requested or is_one_pass) and not self._is_final:
            self._is_final = True
            self._next_scan = float("inf") if is_one_pass else 0.0
            self._is_final_scanned = is_one_pass
            sorter.begin_final()
        if control.first != self._first:
            self._first = control.first
            sorter.is_first = matcher(control.first) if control.first else None
        before, self._retries = self._retries, control.retries
        if control.is_retry if before is None else before != control.retries:
            self.is_drained = False
            self._look_for_missed(sorter, control)

    # What people are told.

    def _note(self, on: str, text: str) -> None:
        """Say something of one matter, in place of what was said of it before; nothing to say no more."""
        if text:
            self._notes[on] = text
        else:
            self._notes.pop(on, None)
        message = "; ".join(self._notes.values())
        if message != self._message:
            self._message = message
            with self._database.write() as tx:
                tx.acquisitions.set_message(self.acquisition.uid, message)

    def _problem(self, kind: ProblemKind, message: str, paths: Sequence[bytes] = ()) -> None:
        self._tell(about(kind, self.acquisition, message, paths))

    def _tell_policy(self) -> None:
        """Say when a file counts as finished here, and how files are found."""
        if self._policy is None or self._is_retry:
            return
        text = self._policy.sentence
        if self.acquisition.kind is Kind.DAQ:
            doubt = self._lookout.doubt if self._lookout else ""
            how = "it is watched" if self._lookout else "it is not watched"
            text += f"; {how}, and scanned every {self._interval():g} s" + (f" as {doubt}" if doubt else "")
        if text != self._told_policy:
            self._told_policy = text
            with self._database.write() as tx:
                tx.acquisitions.set_policy(self.acquisition.uid, text)

    def _interval(self) -> float:
        return self._rules.scan_interval_s / (1 if self._lookout and self._lookout.is_trusted else OFTEN)

    def _wrote(self, seen: list[Seen]) -> None:
        if any(file.state is J.READY for file in seen):
            self._wake_workers()
        if barred := [file for file in seen if file.state is J.QUARANTINED]:
            why = f"files are quarantined: {barred[0].reason}"
            self._problem(ProblemKind.FILES_QUARANTINED, why, [file.path for file in barred])
        if left := [file for file in seen if file.state is J.READY and file.is_snapshot]:
            why = f"files are stored as they are, and marked as unfinished: {left[0].reason}"
            self._problem(ProblemKind.FILES_UNFINISHED, why, [file.path for file in left])

    # What may have changed.

    def _look_after_watch(self) -> None:
        """Have a dead watch replaced, and scan then: what it did not tell is found."""
        if self._lookout is None:
            return
        if why := self._lookout.check():
            self._next_scan = 0.0
            self._problem(ProblemKind.WATCH_RESTARTED, f"{why}: a watch was started anew, and everything is scanned")
        fault = self._lookout.fault
        if fault and not why and fault != self._notes.get("watch"):
            self._problem(ProblemKind.WATCH_RESTARTED, fault)
        self._note("watch", fault)
        self._tell_policy()

    def _take_news(self, sorter: Sorter, control: Control) -> None:
        self._breathed_at = time.monotonic()
        looked = {self._returned.popleft(): Hints() for _ in range(len(self._returned))}
        if self._lookout is not None:
            news = self._lookout.take()
            looked.update(news.files)
            self._new_directories |= news.directories
            if news.is_overflow:
                why = "the kernel's queue of changes ran over: everything is scanned"
                self._note("overflow", why)
                self._problem(ProblemKind.QUEUE_OVERFLOW, why)
            if news.is_dirty:
                self._lost_at = self._breathed_at
                apart = max(SCANS_APART_S, self._scan_took)
                self._next_scan = min(self._next_scan, max(self._breathed_at, self._scanned_at + apart))
        if looked:
            sorter.look(list(looked.items()), control)

    def _scan_new_directories(self, sorter: Sorter, control: Control) -> None:
        found, self._new_directories = self._new_directories, set()
        for directory in sorted(found):
            self._scan_below(directory, sorter, control)

    def _scan(self, sorter: Sorter, control: Control) -> None:
        began = time.monotonic()
        self._note("overflow", "")
        if self._lookout is not None:
            self._lookout.begin_scan()
        self._scan_below(b"", sorter, control)
        self._look_for_missed(sorter, control)
        self._scanned_at = time.monotonic()
        self._scan_took = self._scanned_at - began
        self.scans += 1
        # Hints that were lost meanwhile may be of where this scan had been.
        apart = SCANS_APART_S if self._lost_at >= began else self._interval()
        self._next_scan = self._scanned_at + max(apart, 2 * self._scan_took)
        self._has_scanned = True
        if self._is_final:
            self._is_final_scanned = True
            self._next_scan = float("inf")
        if self._is_first_scan:
            sorter.flush()
            self._is_first_scan = sorter.is_first_scan = False
            with self._database.write() as tx:
                tx.events.add(core.changed(tx.acquisitions.mark_started(self.acquisition.uid)))
        self._tell_policy()

    def _scan_below(self, top: bytes, sorter: Sorter, control: Control) -> None:
        if self._root is None:
            return
        for listing in walk(self._root.path, top, self._enter):
            if self.is_stopping:
                return
            if listing.error is not None and not listing.directory:
                self._note("list", f"the directory cannot be read: {os.strerror(listing.error.errno or 0).lower()}")
            elif not listing.directory:
                self._note("list", "")
            if not sorter.is_calm(listing):
                sorter.compare(listing, self._known(listing), control)
            is_time = time.monotonic() - self._breathed_at > BREATH_S
            if is_time:
                self._take_news(sorter, control)
            if is_time or sorter.waiting >= SCAN_FLUSH:
                sorter.undecided.decide_due()
                sorter.flush()

    def _known(self, listing: Listing) -> dict[bytes, Known]:
        """Return what is known of a directory's files; of a part, only of those that it has.

        With the last part comes what is known and was in none of them: it is gone.
        """
        uid = self.acquisition.uid
        with self._database.read() as tx:
            if not listing.is_part:
                return tx.journal.known_in(uid, listing.directory)
            paths = [path for path, _ in listing.entries]
            if listing.names is not None:
                there = listing.names
                paths += (p for p in tx.journal.paths_in(uid, listing.directory) if p.rpartition(b"/")[2] not in there)
            return tx.journal.known(uid, paths)

    def _look_for_missed(self, sorter: Sorter, control: Control) -> None:
        """Look at what the journal has undecided and no scan met: its directory went while nobody watched."""
        with self._database.read() as tx:
            unsettled = tx.journal.unsettled(self.acquisition.uid)
        if missed := [path for path in unsettled if path not in sorter]:
            sorter.look([(path, Hints()) for path in missed], control)
            root = b"/" + self.acquisition.relpath
            self._new_directories |= {path for path in missed if os.path.isdir(os.path.join(root, path))}

    def _enter(self, directory: bytes) -> None:
        if self._lookout is not None:
            self._lookout.add(directory)
