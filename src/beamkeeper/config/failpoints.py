"""Fail points: named places in the way of a file where a test may kill, stop or delay the process.

They do nothing unless the environment variable BEAMKEEPER_FAILPOINT is set, such as `publish-renamed:kill`,
`publish-renamed:3:kill` (the third time) or several with commas between. The actions: `kill` (SIGKILL), `stop`
(SIGSTOP, until somebody sends SIGCONT), `raise` (a FailPointError) and `sleep=SECONDS`. What is not `kill` or
`stop` happens each time from the named one on.
"""

from __future__ import annotations

import os
import signal
import time
from enum import StrEnum

VARIABLE = "BEAMKEEPER_FAILPOINT"


class FailPoint(StrEnum):
    """Every place, in the order in which a file passes them, with what lies on either side of it."""

    WATCH_READING = "watch-reading"
    """Changes are in the kernel's queue; the watch has not read them."""
    SEEN_WRITING = "seen-writing"
    """Files were seen; the journal does not know them yet."""
    SEEN_WRITTEN = "seen-written"
    """Files are in the journal; no worker was woken."""
    CLAIMED = "claimed"
    """A batch is leased to a worker; nothing of it is copied."""
    COPYING = "copying"
    """A piece of a file is read and not written yet."""
    COPIED = "copied"
    """All bytes of a file are in staging; that the source held still is not checked yet."""
    STAGED_WRITING = "staged-writing"
    """A batch is in staging; the journal does not know it yet."""
    STAGED_WRITTEN = "staged-written"
    """The journal knows that a batch is in staging; its publish is not asked for."""
    PUBLISH_ASKING = "publish-asking"
    """The request to publish is about to be sent."""
    PUBLISH_ASKED = "publish-asked"
    """The storage has taken the request; its answer is not used yet."""
    PUBLISH_TAKEN = "publish-taken"
    """The storage begins with a batch."""
    PUBLISH_SYNCED = "publish-synced"
    """The staged bytes are durable; none was read back."""
    PUBLISH_READ = "publish-read"
    """The staged bytes were read back; no name was given."""
    PUBLISH_RENAMING = "publish-renaming"
    """A file has its rights and its directory; its plain name is next."""
    PUBLISH_EXCHANGED = "publish-exchanged"
    """A new version has the plain name; the one before is still in staging."""
    PUBLISH_RENAMED = "publish-renamed"
    """All files of a batch have their plain names, which are not durable yet."""
    PUBLISH_DURABLE = "publish-durable"
    """The names are durable; the staging directory is still there."""
    PUBLISH_SETTLING = "publish-settling"
    """The files are published; the storage's database does not say so yet."""
    PUBLISH_SETTLED = "publish-settled"
    """The outcomes are written within a transaction that is not finished."""
    STORED_WRITING = "stored-writing"
    """The storage's answer has arrived; the journal does not have it yet."""
    STORED_WRITTEN = "stored-written"
    """The journal knows that files are stored; no processor has run."""
    PROCESSING = "processing"
    """A processor is about to run."""
    REGISTERED = "registered"
    """The catalogue has taken files; its answer is not used yet."""
    PROCESSED = "processed"
    """A processor has run; its answers are not used yet."""
    AVAILABLE_WRITING = "available-writing"
    """All processors have run; the journal does not know it yet."""
    AVAILABLE_WRITTEN = "available-written"
    """The journal says that files are available; nobody was told."""
    REAPING = "reaping"
    """What a dead worker held is free; that worker is still written down."""


class TroublePoint(StrEnum):
    """Places that are passed only where something else has gone wrong before: a fault within a fault."""

    AREA_FAILED = "area-failed"
    """A storage area failed as a whole; it is not paused yet, and the batch is still leased."""
    AREA_PAUSED = "area-paused"
    """It is paused; the batch is still leased."""
    AREA_WORKS = "area-works"
    """A batch that was let through is stored; the area is still paused for the others."""
    PUBLISH_LOST = "publish-lost"
    """Staged bytes that could not be made durable are thrown away; the storage's database does not say so yet."""
    STAGING_DISCARDED = "staging-discarded"
    """What a dead worker left in staging is removed; the journal still lists it."""


class WipePoint(StrEnum):
    """Every place in the way of a wipe's run."""

    WIPE_PROVEN = "wipe-proven"
    """Everything was proven anew; nothing is deleted."""
    WIPE_MARKED = "wipe-marked"
    """It is written down which files are deleted next; none of them is."""
    WIPE_DELETED = "wipe-deleted"
    """They are deleted; it is not written down."""


class CopyPoint(StrEnum):
    """Every place on the way of a batch from a station's catalogue to the site's."""

    COPY_SENDING = "copy-sending"
    """The station has read a batch; it is not sent."""
    COPY_TAKING = "copy-taking"
    """The site has written a batch within a transaction that is not finished."""
    COPY_TAKEN = "copy-taken"
    """The site's answer has arrived; the station has not used it yet."""


class ReplicaPoint(StrEnum):
    """Every place on the way of a copy to another storage area, and of one that is dropped."""

    REPLICA_HANDED_OUT = "replica-handed-out"
    """The catalogue has handed out a batch; the storage was not asked."""
    REPLICA_STAGED = "replica-staged"
    """The bytes are in the staging directory of the other area; nothing is verified."""
    REPLICA_NAMED = "replica-named"
    """The copies have their names, or are removed; the storage's database does not say so yet."""
    REPLICA_SETTLING = "replica-settling"
    """The storage has answered; the catalogue does not know it yet."""
    REPLICA_DROPPING = "replica-dropping"
    """The catalogue counts copies no more that are to be dropped; their bytes are still there."""


class PicturePoint(StrEnum):
    """Every place in the way of small pictures."""

    PICTURES_MAKING = "pictures-making"
    """Pictures are wanted; the first of a batch is about to be made."""
    PICTURES_KEPT = "pictures-kept"
    """The storage and the catalogue have what was made; the acquisition's database still wants it."""


class JobPoint(StrEnum):
    """Every place in the way of a job's attempt: in the service, in the spawner, and in the runner."""

    ATTEMPT_WRITTEN = "attempt-written"
    """The database has the attempt; the spawner was not asked."""
    ATTEMPT_ORDERED = "attempt-ordered"
    """The spawner was asked; its answer is not used."""
    ATTEMPT_FORKING = "attempt-forking"
    """The spawner has the order; there is no runner."""
    ATTEMPT_FORKED = "attempt-forked"
    """There is a runner; the attempt is not taken."""
    ATTEMPT_TAKEN = "attempt-taken"
    """The runner has taken the attempt; its command cannot have begun."""
    ATTEMPT_BEGINNING = "attempt-beginning"
    """It is written down that the command may have begun; it has not."""
    ATTEMPT_RUNNING = "attempt-running"
    """The command runs."""
    ATTEMPT_ENDED = "attempt-ended"
    """The command has ended; what it left behind lives, and there is no result."""
    RESULT_WRITING = "result-writing"
    """Nothing of the attempt lives; there is no result."""
    RESULT_WRITTEN = "result-written"
    """The result is durable; the runner has not ended."""
    RESULT_READ = "result-read"
    """The service has read results; the database does not know them."""
    RESULT_KEPT = "result-kept"
    """The database knows them; nothing followed from them."""
    INPUTS_SENDING = "inputs-sending"
    """It is written down that something may lie at an executor's nodes; nothing is sent."""
    INPUTS_SENT = "inputs-sent"
    """All is there that an attempt needs; its executor was not asked."""
    OUTPUTS_GATHERING = "outputs-gathering"
    """On the node: the command has its result; it is not told what it made."""
    OUTPUTS_FETCHED = "outputs-fetched"
    """All that it made is here and verified; nothing has its name."""
    OUTPUTS_NAMED = "outputs-named"
    """Everything has its name; that is not written down."""
    OUTPUTS_BROUGHT = "outputs-brought"
    """It is; what lies at the nodes is still there, and the attempt is not over."""


Point = FailPoint | TroublePoint | WipePoint | CopyPoint | ReplicaPoint | PicturePoint | JobPoint
_NAMES: dict[str, Point] = {
    str(point): point
    for kind in (FailPoint, TroublePoint, WipePoint, CopyPoint, ReplicaPoint, PicturePoint, JobPoint)
    for point in kind
}


class FailPointError(Exception):
    """What `raise` raises: no error that anything in Beamkeeper expects."""


class _Armed:
    """What is to happen at one fail point, and from which time on."""

    def __init__(self, text: str) -> None:
        name, _, rest = text.strip().partition(":")
        first, _, last = rest.rpartition(":")
        if name not in _NAMES:
            raise ValueError(f'{VARIABLE}: there is no point "{name}"')
        self.point = _NAMES[name]
        self.left = int(first or 1)
        self.action, _, argument = last.partition("=")
        self.seconds = float(argument or 0)
        if self.action not in ("kill", "stop", "raise", "sleep"):
            raise ValueError(f'{VARIABLE}: "{text}" is not POINT:[N:]ACTION with kill, stop, raise or sleep=SECONDS')

    def act(self) -> None:
        """Do it, if it is time."""
        self.left -= 1
        if self.left > 0:
            return
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.action == "stop" and self.left == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.action == "raise":
            raise FailPointError(f"the fail point {self.point} was set to raise")
        elif self.action == "sleep":
            time.sleep(self.seconds)


_armed: list[_Armed] = []


def arm(text: str) -> None:
    """Set the fail points of this process; an empty text sets none."""
    _armed[:] = [_Armed(part) for part in text.split(",") if part.strip()]


def is_armed() -> bool:
    """Whether any fail point of this process is set: work that could go elsewhere stays here then."""
    return bool(_armed)


def hit(point: Point) -> None:
    """Pass a fail point. Costs a look at an empty list where none is set."""
    if _armed:
        for armed in _armed:
            if armed.point is point:
                armed.act()


arm(os.environ.get(VARIABLE, ""))  # once: what the environment says later is for processes that are started later
