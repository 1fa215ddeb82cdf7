"""Plans and runs of wipes: the directory is listed afresh, each entry proven, and only then, and only that, deleted."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain
from pathlib import Path
from uuid import UUID

from beamkeeper.client import Client
from beamkeeper.config.failpoints import WipePoint, hit
from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.db.news import Topic
from beamkeeper.db.wipe_entries import NewEntry, Planned
from beamkeeper.db.wipes import Counts
from beamkeeper.domain.errors import ConflictError, DmError, UnavailableError
from beamkeeper.domain.names import show_path
from beamkeeper.domain.wipes import EntryState, Reason, Wipe, WipeState, WipeTally, is_at_or_below
from beamkeeper.engine.asking import Services
from beamkeeper.engine.beneath import Beneath
from beamkeeper.engine.entries import Entry, Tree
from beamkeeper.engine.opened import open_files
from beamkeeper.engine.proof import Prover, held_paths, needed_by_jobs
from beamkeeper.engine.wiping import Outcome, Wiper, write_list
from beamkeeper.engine.worker import Loop, Report

SWEEP_S = 3600.0
OLD_PLANS = timedelta(days=7)
DELETE_AT_ONCE = 200
"""So many files are written down as about to be deleted, and then deleted."""


@dataclass(frozen=True, slots=True)
class WipeLimits:
    """What the settings say of every wipe."""

    heard_within_s: float
    patience_s: float
    lists: Path
    """Where lists of files are written that only their owner may delete."""


class _RefusedError(Exception):
    """Nothing more is deleted in this wipe, and the message says why."""


class _StoppingError(Exception):
    """The engine stops: the wipe goes on when it is up again."""


@dataclass
class _Tally:
    """What was judged so far."""

    reasons: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    files: int = 0
    size: int = 0
    unseen: int = 0

    def add(self, entry: Entry) -> None:
        size = entry.status.st_size if entry.status is not None else 0
        if entry.reason:
            self.reasons[entry.reason] += 1
            self.sizes[entry.reason] += size
        else:
            self.files, self.size, self.unseen = self.files + 1, self.size + size, self.unseen + entry.is_unseen

    def counts(self, directories: int) -> Counts:
        tallies = [
            WipeTally(reason=reason, files=count, bytes=self.sizes[reason])
            for reason, count in sorted(self.reasons.items())
        ]
        return Counts(self.files, self.size, tallies, directories, self.unseen)


class WipeLoop(Loop):
    """Takes the oldest wipe of this agent that has work, and brings it to its end."""

    rest_s = 0.1
    quiet_s = 4.0

    def __init__(
        self,
        database: Database[AcquisitionTransaction],
        client: Client,
        agent: str,
        owner: UUID,
        *,
        limits: WipeLimits,
        unheard_s: Callable[[], float],
        report: Report,
    ) -> None:
        super().__init__("wipe", report=report, idle_s=1.0)
        self._database = database
        self._agent = agent
        self._owner = owner
        self._limits = limits
        self._unheard_s = unheard_s
        self._services = Services(client, patience_s=limits.patience_s, stop=lambda: self.is_stopping)
        self._swept_at = time.monotonic()
        self._unlisten = database.listen(self.wake, Topic.WIPES)

    def step(self) -> bool:
        """Take one wipe to its end."""
        with self._database.write() as tx:
            wipe = tx.wipes.claim(self._agent, self._owner)
        if wipe is None:
            self._sweep()
            return False
        try:
            self._advance(wipe)
        except _StoppingError:
            return False
        except ConflictError:
            raise  # another process has it now
        except (_RefusedError, DmError, OSError) as error:
            if self.is_stopping:
                return False
            self._refuse(wipe, error)
        self._database.tell(Topic.WIPES)
        return True

    def _advance(self, wipe: Wipe) -> None:
        if wipe.is_glance:
            self._glance(wipe)
            return
        is_planned = wipe.state in (WipeState.PENDING, WipeState.PLANNING)
        self._set(wipe, WipeState.PLANNING if is_planned else WipeState.RUNNING)
        with self._opened(wipe) as beneath:
            if is_planned:
                self._plan(wipe, beneath)
            else:
                self._run(wipe, beneath)

    def _set(self, wipe: Wipe, state: WipeState, **values: object) -> None:
        with self._database.write() as tx:
            tx.wipes.step(wipe.uid, self._owner, state, **values)

    def _refuse(self, wipe: Wipe, error: Exception) -> None:
        why = error.message if isinstance(error, DmError) else str(error)
        if isinstance(error, UnavailableError):
            why = f"cut off: {why}"
        self._report(f"wipe {wipe.uid} is refused: {why}")
        self._set(wipe, WipeState.REFUSED, message=why)

    @contextmanager
    def _opened(self, wipe: Wipe) -> Iterator[Beneath]:
        try:
            beneath = Beneath(b"/" + wipe.relpath)
        except OSError as error:
            raise _RefusedError(
                f"directory /{show_path(wipe.relpath)} cannot be opened ({(error.strerror or '').lower()})"
            ) from error
        with beneath:
            yield beneath

    # Planning, which is also what a run begins with.

    def _plan(self, wipe: Wipe, beneath: Beneath) -> None:
        with self._database.write() as tx:
            key = tx.wipes.key(wipe.uid, self._owner)
            tx.wipe_entries.clear(key)
        tally, tree = _Tally(), Tree(beneath, bytes(wipe.relpath))
        for entries in self._proven(wipe, beneath, tree):
            for entry in entries:
                tally.add(entry)
            # A plan that is too large to be carried out is still an answer; it needs no row for each proven file.
            kept = [entry for entry in entries if entry.reason or tally.files <= wipe.max_files]
            with self._database.write() as tx:
                tx.wipes.count(wipe.uid, self._owner, tally.counts(tree.directories))
                tx.wipe_entries.write(key, [entry.judged() for entry in kept])
        with self._database.write() as tx:
            tx.wipes.count(wipe.uid, self._owner, tally.counts(tree.directories))
            is_safe = not tally.reasons and tally.files > 0
            message = (
                "" if tally.files or tally.reasons else "there is no file in it: is it the right one, and mounted?"
            )
            tx.wipes.step(wipe.uid, self._owner, WipeState.PLANNED, is_safe=is_safe, message=message)

    def _glance(self, wipe: Wipe) -> None:
        """Prove up to the first entry that is not: the answer counts, and no entry is kept."""
        self._set(wipe, WipeState.PLANNING)
        tally, directories = _Tally(), 0
        if _is_there(b"/" + wipe.relpath):  # else there is nothing that could be wiped
            with self._opened(wipe) as beneath:
                tree = Tree(beneath, bytes(wipe.relpath))
                for entries in self._proven(wipe, beneath, tree):
                    for entry in entries:
                        tally.add(entry)
                    if tally.reasons:
                        break
                directories = tree.directories
        with self._database.write() as tx:
            tx.wipes.count(wipe.uid, self._owner, tally.counts(directories))
            is_safe = not tally.reasons and tally.files > 0
            tx.wipes.step(wipe.uid, self._owner, WipeState.PLANNED, is_safe=is_safe)

    def _proven(self, wipe: Wipe, beneath: Beneath, tree: Tree) -> Iterator[Sequence[Entry]]:
        """Yield every entry of the directory, judged."""
        prover = Prover(wipe, beneath, self._database, self._services)
        self._require_contact()
        for entries in tree.entries():
            if self.is_stopping:
                raise _StoppingError
            self._require_contact()
            prover.prove(entries)
            yield entries

    def _require_contact(self) -> None:
        unheard_s = self._unheard_s()
        if unheard_s > self._limits.heard_within_s:
            raise _RefusedError(
                f"cut off: the site was not heard of for {min(unheard_s, 1e9):.0f} s, and what was changed there may "
                f"not be known here: try again when `dm status` shows the mirror up to date"
            )

    # The run.

    def _run(self, wipe: Wipe, beneath: Beneath) -> None:
        wiper = Wiper(beneath, bytes(wipe.relpath))
        with self._database.read() as tx:
            key = tx.wipes.key(wipe.uid)
        self._settle_unfinished(key, wiper)
        self._prove_again(wipe, beneath, key)
        hit(WipePoint.WIPE_PROVEN)
        after = 0
        while True:
            if self.is_stopping:
                raise _StoppingError
            self._require_contact()
            with self._database.write() as tx:
                tx.wipes.key(wipe.uid, self._owner)
                batch = tx.wipe_entries.in_state(key, EntryState.PROVEN, after=after, limit=DELETE_AT_ONCE)
                tx.wipe_entries.mark_deleting([entry.id for entry in batch], by=wipe.run_by or "")
            if not batch:
                break
            after = batch[-1].id
            hit(WipePoint.WIPE_MARKED)
            opened, holds = open_files(), held_paths(self._database, self._agent)
            needed = needed_by_jobs(self._database, [entry.path for entry in batch])
            outcomes = {entry.id: wiper.delete(entry, opened, [*holds, *needed]) for entry in batch}
            hit(WipePoint.WIPE_DELETED)
            self._settle(wipe, key, outcomes)
        self._finish(wipe, key, wiper)

    def _settle_unfinished(self, key: int, wiper: Wiper) -> None:
        """After a crash: a file that was about to be deleted and is gone was deleted; one that is there was not."""
        while True:
            with self._database.read() as tx:
                batch = tx.wipe_entries.in_state(key, EntryState.DELETING)
            if not batch:
                return
            again: Outcome = (EntryState.PROVEN, "", "")
            gone: Outcome = (EntryState.DELETED, "", "found deleted after a restart")
            outcomes = {entry.id: again if wiper.is_there(entry) else gone for entry in batch}
            with self._database.write() as tx:
                tx.wipe_entries.settle(outcomes)

    def _prove_again(self, wipe: Wipe, beneath: Beneath, key: int) -> None:
        """List and prove everything anew; where anything is not as the plan has it, nothing is deleted."""
        tally, tree = _Tally(), Tree(beneath, bytes(wipe.relpath))
        for entries in self._proven(wipe, beneath, tree):
            with self._database.read() as tx:
                planned = tx.wipe_entries.known(key, [entry.path for entry in entries])
            for entry in entries:
                if entry.is_open and not _is_planned(entry, planned.get(entry.path)):
                    entry.refuse(Reason.NOT_IN_PLAN, "the plan does not have it, or has it in another state")
                tally.add(entry)
            if against := [entry.judged() for entry in entries if entry.reason]:
                self._contradict(wipe, key, against)
        if tally.reasons:
            with self._database.write() as tx:
                tx.wipes.count(wipe.uid, self._owner, tally.counts(tree.directories))
                tx.wipes.step(wipe.uid, self._owner, WipeState.RUNNING, is_safe=False)
            raise _RefusedError(
                f"not safe any more: {sum(tally.reasons.values())} entries are not proven now, or not in the plan; "
                f"nothing more was deleted: make another plan"
            )

    def _contradict(self, wipe: Wipe, key: int, entries: Sequence[NewEntry]) -> None:
        with self._database.write() as tx:
            tx.wipes.key(wipe.uid, self._owner)
            tx.wipe_entries.write(key, entries)

    def _settle(self, wipe: Wipe, key: int, outcomes: dict[int, Outcome]) -> None:
        with self._database.write() as tx:
            tx.wipe_entries.settle(outcomes)
            tx.wipes.count_deleted(wipe.uid, self._owner, *tx.wipe_entries.totals(key))

    def _finish(self, wipe: Wipe, key: int, wiper: Wiper) -> None:
        removed = self._remove_directories(key, wiper) if wipe.remove_directories else 0
        list_file = self._write_list(wipe, key)
        with self._database.write() as tx:
            files, size, kept = tx.wipe_entries.totals(key)
            tx.wipes.count_deleted(wipe.uid, self._owner, files, size, kept)
            message = f"{files} files deleted" + "".join(f", {tally.files} kept ({tally.reason})" for tally in kept)
            tx.wipes.step(
                wipe.uid,
                self._owner,
                WipeState.DONE,
                message=message,
                list_file=list_file,
                removed_directories=removed,
            )

    def _remove_directories(self, key: int, wiper: Wiper) -> int:
        with self._database.read() as tx:
            roots = [bytes(daq.relpath) for daq in tx.acquisitions.holding(self._agent)]
            deleted = tx.wipe_entries.paths(key, EntryState.DELETED)
            directories = {path.rpartition(b"/")[0] for path in deleted}
        return wiper.remove_empty(directories, lambda path: any(is_at_or_below(root, path) for root in roots))

    def _write_list(self, wipe: Wipe, key: int) -> str:
        """Write the names of what only its owner may delete; returns where, or nothing where there is none."""
        with self._database.read() as tx:
            names = tx.wipe_entries.paths(key, EntryState.KEPT, Reason.NOT_PERMITTED)
            first = next(names, None)
            if first is None:
                return ""
            path = self._limits.lists / f"{wipe.uid}.list"
            write_list(path, chain([first], names))
        return str(path)

    def _sweep(self) -> None:
        """Forget plans that nobody carried out."""
        if time.monotonic() - self._swept_at < SWEEP_S:
            return
        self._swept_at = time.monotonic()
        with self._database.read() as tx:
            old = tx.wipes.old_plans(OLD_PLANS)
        for key in old:
            with self._database.write() as tx:
                tx.wipe_entries.clear(key)
                tx.wipes.remove(key)

    def ended(self) -> None:
        """Listen no more."""
        self._unlisten()


def _is_there(path: bytes) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def _is_planned(entry: Entry, planned: Planned | None) -> bool:
    return (
        planned is not None
        and planned.state is EntryState.PROVEN
        and planned.kind is entry.kind
        and planned.identity == entry.identity
    )
