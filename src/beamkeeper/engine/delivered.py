"""What the journal says of source files: where each was delivered to, or why it was not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from beamkeeper.db import AcquisitionTransaction
from beamkeeper.db.journal import Known
from beamkeeper.domain.acquisition import ACTIVE, UNCHANGED, UNDELIVERED, Acquisition, JournalState
from beamkeeper.domain.wipes import Reason

J = JournalState

Place = tuple[UUID, bytes]
"""An experiment, and a path in it."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """Where a source file was delivered to; with a reason, it counts as not delivered all the same."""

    places: Sequence[Place] = ()
    reason: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Row:
    """What one DAQ or upload knows of a source file."""

    acquisition: Acquisition
    relative: bytes
    known: Known

    @property
    def is_active(self) -> bool:
        return self.acquisition.state in ACTIVE

    @property
    def is_delivered(self) -> bool:
        """Whether a state of it was stored: what the file is now is for the catalogue to say."""
        known = self.known
        is_unchanged = known.state is J.SKIPPED and known.reason_code == UNCHANGED
        return known.state is J.AVAILABLE or is_unchanged or known.available_at is not None

    @property
    def place(self) -> Place:
        parts = (str(self.acquisition.tree).encode(), self.acquisition.destination.encode(), self.relative)
        return self.acquisition.experiment_uid, b"/".join(part for part in parts if part)


def delivered(tx: AcquisitionTransaction, agent: str, paths: Sequence[bytes]) -> dict[bytes, Delivered]:
    """Return what DAQs and uploads know of files of one directory (absolute, without the leading slash).

    Those that run are all asked: a file that one of them still has on its way is needed. Of the others, the newest
    says what holds, and any may have delivered it; older ones are asked only of what newer ones have not delivered.
    """
    rows: defaultdict[bytes, list[_Row]] = defaultdict(list)
    directory = paths[0].rpartition(b"/")[0] if paths else b""
    waiting = set(paths)
    for acquisition in tx.acquisitions.covering(agent, directory):
        wanted = set(paths) if acquisition.state in ACTIVE else waiting
        top = bytes(acquisition.relpath) + b"/"
        below = {path[len(top) :]: path for path in wanted}
        for relative, known in tx.journal.known(acquisition.uid, list(below)).items():
            row = _Row(acquisition, relative, known)
            rows[below[relative]].append(row)
            if row.is_delivered:
                waiting.discard(below[relative])
    return {path: _judge(rows[path]) for path in paths}


def _judge(rows: Sequence[_Row]) -> Delivered:
    """Decide from what is known of one file."""
    rows = sorted(rows, key=lambda row: row.acquisition.created_at, reverse=True)
    if not rows:
        return Delivered(reason=Reason.NEVER_SEEN, why="no DAQ and no upload has seen it")
    for row in rows:
        if row.is_active and (row.known.state in UNDELIVERED or row.known.is_leased):
            is_growing = row.known.state is J.GROWING
            reason = Reason.GROWING if is_growing else Reason.ON_ITS_WAY
            why = "it is growing" if is_growing else "it is on its way, and not delivered yet"
            return Delivered(reason=reason, why=f"{why}: {row.acquisition.kind} {row.acquisition.uid}")
    newest = rows[0]
    if newest.known.state is J.QUARANTINED:
        why = f"it could not be delivered ({newest.known.reason_code or 'quarantined'})"
        return Delivered(reason=Reason.QUARANTINED, why=f"{why}: {newest.acquisition.kind} {newest.acquisition.uid}")
    places = tuple(dict.fromkeys(row.place for row in rows if row.is_delivered))
    if places:
        return Delivered(places)
    if newest.known.state is J.SKIPPED:
        code = newest.known.reason_code or "skipped"
        return Delivered(
            reason=code, why=f"it was not taken ({code}): {newest.acquisition.kind} {newest.acquisition.uid}"
        )
    why = f"it was seen, and not delivered before {newest.acquisition.kind} {newest.acquisition.uid} ended"
    return Delivered(reason=Reason.ON_ITS_WAY, why=why)
