"""The files of a directory that are not decided yet: when to look at each again, and what the evidence makes of it."""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from beamkeeper.db.journal import Known, Seen
from beamkeeper.domain.acquisition import SNAPSHOT_INTERVAL_S, JournalState, Kind
from beamkeeper.domain.files import CHUNK_BYTES, SourceIdentity
from beamkeeper.engine import choose
from beamkeeper.engine.finish import Hints, Policy, Verdict, Writer, format_of, weigh, writer_of
from beamkeeper.engine.scan import identity_of

J = JournalState

LAST_PATIENCE_S = 10.0
"""After a stop, a file that never gets quiet is taken as a snapshot after this long (or three quiet periods)."""

LONGEST_PAUSE_S = 5.0
TELL_GROWTH_S = 10.0
"""How a growing file grows is written down at most this often."""

READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(slots=True)
class Track:
    """A file that is not decided yet; times are of the monotonic clock but for `changed_wall`."""

    identity: SourceIdentity
    changed_at: float
    changed_wall: datetime
    hints: Hints = field(default_factory=Hints)
    hold_until: float = 0.0
    has_grown: bool = False
    is_growing: bool = False
    told_at: float = 0.0
    due_at: float = float("inf")
    """When it is looked at next: an entry of another time in the queue counts for nothing."""


class Undecided:
    """Tracks files until the policy calls them finished; `put` takes what was decided.

    `is_there` tells whether the directory itself is there: without it, a file that is not found is not gone.
    `unopened` says what is written of a file that cannot be opened.

    Only our own observations are counted, by the monotonic clock: a file's times are the writer's word at best.
    """

    def __init__(
        self,
        root: bytes,
        policy: Policy,
        put: Callable[[Seen], None],
        *,
        is_there: Callable[[], bool],
        unopened: Callable[[bytes, SourceIdentity | None, OSError], Seen],
    ) -> None:
        self._root = root
        self._policy = policy
        self._put = put
        self._is_there = is_there
        self._unopened = unopened
        self._tracks: dict[bytes, Track] = {}
        self._due: list[tuple[float, bytes]] = []
        self._final_since: float | None = None
        self.changed_at = float("-inf")
        """When a file was last seen to have changed (monotonic)."""

    def __len__(self) -> int:
        return len(self._tracks)

    def __contains__(self, path: bytes) -> bool:
        return path in self._tracks

    @property
    def next_due(self) -> float:
        """When to decide next (monotonic); far away where nothing waits."""
        return self._due[0][0] if self._due else float("inf")

    def begin_final(self) -> None:
        """No snapshot is waited for any more: what there is when quiet returns is the last."""
        now = self._final_since = time.monotonic()
        for path, track in self._tracks.items():
            self._look_at(path, track, now + self._policy.quiet_s)

    def track(self, path: bytes, identity: SourceIdentity, known: Known | None, hints: Hints | None) -> None:
        """Take in that a file is there in this state; `hints` is None where a scan found it."""
        now = time.monotonic()
        track = self._tracks.get(path)
        if track is None or track.identity != identity:
            if track is None:
                hold_until = _hold_until(identity, known, now)
                track = self._tracks[path] = Track(identity, now, datetime.now(UTC), hold_until=hold_until)
            self._changed(track, identity, now)
            track.hints = hints or Hints()
            # Of a file that grows the journal is told now and then how far, not of each change.
            if not track.is_growing and (known is None or known.state is not J.CANDIDATE or known.identity != identity):
                self._put(Seen(path, J.CANDIDATE, identity=identity, finished_at=track.changed_wall))
        elif hints is None:
            return
        else:
            track.hints = replace(hints, is_announced=hints.is_announced or track.hints.is_announced)
        is_early = hints is not None and (hints.is_closed or hints.is_renamed_in or hints.is_announced)
        is_at_once = is_early or self._policy.kind is Kind.UPLOAD
        self._look_at(path, track, now if is_at_once else now + self._policy.quiet_s)

    def announce(self, is_meant: Callable[[bytes], bool]) -> None:
        """Take in the writer's word that some of the files are finished; they are decided at once."""
        now = time.monotonic()
        for path, track in self._tracks.items():
            if is_meant(path):
                track.hints = replace(track.hints, is_announced=True)
                self._look_at(path, track, now)

    def forget(self, path: bytes) -> None:
        """Track a file no more."""
        self._tracks.pop(path, None)

    def decide_due(self) -> None:
        """Look at every file whose time has come."""
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            due, path = heapq.heappop(self._due)
            track = self._tracks.get(path)
            if track is not None and track.due_at == due:
                track.due_at = float("inf")
                self._decide(path, track, now)

    def _changed(self, track: Track, identity: SourceIdentity, now: float) -> None:
        before = track.identity
        track.has_grown |= identity.ino == before.ino and identity.size > max(before.size, CHUNK_BYTES)
        if identity.ino != before.ino or identity.size < before.size:
            track.hold_until = 0.0  # it is written anew
        track.identity, track.changed_at, track.changed_wall = identity, now, datetime.now(UTC)
        self.changed_at = now

    def _look_at(self, path: bytes, track: Track, when: float) -> None:
        """Look at a file then, unless it is to be looked at earlier anyway: each has one place in the queue."""
        if when < track.due_at:
            track.due_at = when
            heapq.heappush(self._due, (when, path))

    def _decide(self, path: bytes, track: Track, now: float) -> None:
        try:
            descriptor = os.open(os.path.join(self._root, path), READ_FLAGS)
        except OSError as error:
            if not self._is_there():
                self._look_at(path, track, now + 1.0)
                return
            self._tracks.pop(path)
            self._put(self._unopened(path, track.identity, error))
            return
        try:
            identity = identity_of(os.fstat(descriptor))
            if identity != track.identity:
                self._changed(track, identity, now)
                track.hints = Hints()
            writer = writer_of(descriptor)
            if writer is Writer.NONE and self._policy.is_remote:
                writer = Writer.UNKNOWN  # the kernel knows of this machine's writers only
            form = format_of(descriptor, track.identity.size)
        finally:
            os.close(descriptor)
        quiet_for_s = now - track.changed_at
        verdict = weigh(self._policy, track.hints, quiet_for_s=quiet_for_s, writer=writer, form=form)
        self._follow(path, track, verdict, writer, now)

    def _follow(self, path: bytes, track: Track, verdict: Verdict, writer: Writer, now: float) -> None:
        is_final = self._final_since is not None
        if verdict.is_finished and (verdict.is_strong or is_final or now >= track.hold_until):
            self._ready(path, track, unfinished=verdict.why if verdict.is_unclean else "")
            return
        patience = max(LAST_PATIENCE_S, 3 * self._policy.quiet_s)
        if self._final_since is not None and now - self._final_since > patience:
            is_unfinished = writer is Writer.OPEN or verdict.is_growing
            self._ready(path, track, unfinished=verdict.why if is_unfinished else "")
            return
        is_growing = verdict.is_growing or verdict.is_finished or track.has_grown
        is_old = now > track.told_at + TELL_GROWTH_S and track.changed_at > track.told_at
        if is_growing and (is_old or not track.is_growing):
            track.is_growing, track.told_at = True, now
            self._put(_growing(path, track, verdict))
        pause = max(0.05, verdict.look_again_s)
        if verdict.is_finished:
            pause = min(LONGEST_PAUSE_S, max(0.2, track.hold_until - now))
        self._look_at(path, track, now + (min(pause, 1.0) if is_final else pause))

    def _ready(self, path: bytes, track: Track, *, unfinished: str) -> None:
        """Have a file taken; `unfinished` says why it is only a snapshot of what its writer meant, if it is."""
        self._tracks.pop(path, None)
        self._put(
            Seen(
                path,
                J.READY,
                identity=track.identity,
                reason=unfinished,
                finished_at=track.changed_wall,
                is_snapshot=bool(unfinished),
            )
        )


def vanished(path: bytes, identity: SourceIdentity | None, *, is_replaced: bool = False) -> Seen:
    """Return what is written of a file that went before it was delivered."""
    why = "it was removed before it was delivered"
    if is_replaced:
        why = "another directory was put in the place of the one that it was in, before it was delivered"
    return Seen(path, J.VANISHED, identity=identity, reason_code="vanished", reason=why)


def unopened(path: bytes, identity: SourceIdentity | None, error: OSError) -> Seen:
    """Return what is written of a file that is not there, or that we may not read."""
    if isinstance(error, FileNotFoundError):
        return vanished(path, identity)
    code, why = choose.unreadable(error)
    return Seen(path, J.QUARANTINED, identity=identity, reason_code=code, reason=why)


def _growing(path: bytes, track: Track, verdict: Verdict) -> Seen:
    why = verdict.why if not verdict.is_finished else "it grows now and then: the next snapshot follows later"
    return Seen(
        path, J.GROWING, identity=track.identity, reason_code="growing", reason=why, finished_at=track.changed_wall
    )


def _hold_until(identity: SourceIdentity, known: Known | None, now: float) -> float:
    """A file that only grows, and is stored already, waits for its next snapshot.

    To be asked when it is met first: later the journal knows it as it was on the way, which may be emptied.
    """
    if known is None or known.available_at is None or known.identity is None:
        return 0.0
    if known.identity.ino != identity.ino or identity.size <= known.identity.size:
        return 0.0
    return now + SNAPSHOT_INTERVAL_S - (datetime.now(UTC) - known.available_at).total_seconds()
