"""What goes wrong, by side: which fault is the place's, which the file's, and what follows from it. Pure decisions."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from beamkeeper.db.journal import Claimed, backoff
from beamkeeper.domain.acquisition import JournalState
from beamkeeper.domain.errors import DestinationError, DmError, SourceError
from beamkeeper.domain.files import File
from beamkeeper.domain.storage import Outcome, PublishItem

J = JournalState
_TROUBLES = {errno.ENOSPC: "full", errno.EDQUOT: "full", errno.EROFS: "read_only"}

AT_ONCE = frozenset({"conflict", "unreadable", "special", "failed"})
"""Faults of a file that trying again soon cannot cure: it is quarantined at once."""

NOBODYS = frozenset({"lost"})
"""Faults that are the place's: the file is sent again as if nothing had been tried."""


def trouble_of(number: int | None) -> str:
    """Return what a storage area as a whole fails with, by the error of a call to the kernel."""
    return _TROUBLES.get(number or 0, "failed")


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a file goes after a fault, and what the journal keeps of it."""

    state: JournalState
    values: dict[str, Any]


def after_fault(file: Claimed, error: Exception, now: datetime, *, most_attempts: int) -> Decision:
    """Decide where a file goes after a fault of its own."""
    code = str(error.details.get("code", "")) if isinstance(error, DmError) else ""
    why = error.message if isinstance(error, DmError) else str(error)
    values: dict[str, Any] = {"reason_code": code or "failed", "reason": why[:2000], "attempts": file.attempts}
    if code in NOBODYS:
        return Decision(J.READY, {**values, "next_at": now})
    values |= {"attempts": file.attempts + 1, "next_at": now + backoff(file.attempts + 1)}
    if isinstance(error, SourceError) and code in ("changed", "vanished"):
        # Whether it is gone for good is the intake's to say: its whole directory may be away for a while.
        return Decision(J.CANDIDATE, values)
    if code in AT_ONCE or file.attempts + 1 >= most_attempts:
        return Decision(J.QUARANTINED, values)
    return Decision(J.READY, values)


def unsent() -> DmError:
    """Return the fault of a file of which a transfer or a publish said nothing."""
    return DestinationError("nothing was said of it: it is sent again", code="unsent")


def conflict(there: File) -> DmError:
    """Return the fault of a file whose path another source's bytes have."""
    return SourceError(
        f"the path holds other bytes, which came from another source (agent {there.source.agent}): rename one of them",
        code="conflict",
    )


def of_item(item: PublishItem) -> DmError:
    """Return the fault of a file that was not stored."""
    return DestinationError(item.message or f"publishing answered {item.outcome}", code=str(item.outcome))


def is_lost(item: PublishItem) -> bool:
    """Whether a file was lost to its storage area."""
    return item.outcome is Outcome.LOST
