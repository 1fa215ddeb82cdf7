"""Small pictures of files that are available: made one by one behind everything else, in the order of arrival.

What is to be done is in the database, so nothing is lost with this process. Files that are on their way come first:
while a worker has some in hand, a small share of the time is left for pictures.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import ClassVar
from uuid import UUID

from beamkeeper.client import Client
from beamkeeper.config.failpoints import PicturePoint, hit
from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.db.news import Topic
from beamkeeper.db.pictures import WantedPicture
from beamkeeper.domain.errors import DmError, NotAuthenticatedError, UnavailableError
from beamkeeper.domain.frames import NewFrame
from beamkeeper.domain.thumbnails import PICTURE_BYTES, SIGNATURE
from beamkeeper.engine.process import state_of
from beamkeeper.engine.worker import Loop, Report
from beamkeeper.plugins.api import FileProcessor, Picture, PictureError, Picturing

BATCH = 32
"""So many are kept by one request, and in one transaction."""

IDLE_S = 5.0
SHARE = 0.1
"""The share of the time for pictures while files are on their way."""

MOST_REST_S = 5.0
SLICE_S = 0.05
FIRST_S = 0.2
"""As if a batch had taken so long before its first picture: what is over soon is not disturbed at all."""

MOST_ATTEMPTS = 6
LATER = timedelta(seconds=15)
"""What cannot be read, or is refused, is tried again after this time, then after four times as much, and so on."""

KNOWN_WITHIN_S = 60.0
"""By then services that have just started know the station's key."""

MOST_REASON = 1000
NO_FRAME = "the first frame cannot be read"


@dataclass
class _Made:
    """What came of the pictures of one experiment."""

    pictures: dict[UUID, bytes] = field(default_factory=dict)
    frames: list[NewFrame] = field(default_factory=list)


class PicturesLoop(Loop):
    """Makes the pictures that processors want, a few at a time."""

    rest_s: ClassVar[float] = 0.5

    def __init__(
        self,
        database: Database[AcquisitionTransaction],
        client: Client,
        processor: Callable[[str], FileProcessor],
        *,
        is_busy: Callable[[], bool],
        report: Report,
    ) -> None:
        super().__init__("pictures", report=report, idle_s=IDLE_S)
        self._database = database
        self._client = client
        self._processor = processor
        self._is_busy = is_busy
        self._known_by = time.monotonic() + KNOWN_WITHIN_S
        self._began = 0.0
        self._unlisten = database.listen(self.wake, Topic.PICTURES)

    def step(self) -> bool:
        """Make some pictures and have them kept; tell whether there may be more."""
        with self._database.read() as tx:
            due = tx.pictures.due(BATCH)
        if not due:
            return False
        hit(PicturePoint.PICTURES_MAKING)
        made: defaultdict[UUID, _Made] = defaultdict(_Made)
        again: list[WantedPicture] = []
        self._began = time.monotonic() - FIRST_S
        for wanted in due:
            self._give_way()
            if self.is_stopping:
                return False
            try:
                self._make(wanted, made[wanted.experiment_uid])
            except (OSError, DmError) as error:
                self._fail(wanted, error, made[wanted.experiment_uid], again)
        for experiment_uid, found in made.items():
            again += self._keep(experiment_uid, found, due)
        hit(PicturePoint.PICTURES_KEPT)
        self._settle(due, again)
        return len(due) == BATCH

    def ended(self) -> None:
        """Hear of no more files."""
        self._unlisten()

    def failed(self, error: Exception) -> None:
        """Report; that a service is away is told by others as well."""
        is_new = isinstance(error, NotAuthenticatedError) and time.monotonic() < self._known_by
        if not isinstance(error, UnavailableError) and not is_new:
            super().failed(error)

    def _give_way(self) -> None:
        """While files are on their way, rest so long that only a share of the time goes into pictures."""
        rested, began = 0.0, time.monotonic()
        rest = min(MOST_REST_S, (began - self._began) * (1 / SHARE - 1))
        while self._is_busy() and rested < rest and not self.is_stopping:
            self._stopping.wait(SLICE_S)
            rested = time.monotonic() - began
        self._began = time.monotonic()

    def _make(self, wanted: WantedPicture, made: _Made) -> None:
        """Make one picture; of a file that is not as it was when it was stored, none: another version is there."""
        processor = self._processor(wanted.processor)
        if not isinstance(processor, Picturing) or state_of(wanted.path) != wanted.state:
            return
        try:
            frame = _checked(processor.picture(Path(os.fsdecode(wanted.path)), wanted.told))
            told = NewFrame(version_uid=wanted.version_uid, numbers=dict(frame.numbers)) if frame else None
        except (OSError, DmError):
            raise
        except Exception as error:  # whatever a plugin trips over is this file's fault, and is told
            why = str(error) if isinstance(error, PictureError) else f"{NO_FRAME}: {type(error).__name__}: {error}"
            made.frames.append(NewFrame(version_uid=wanted.version_uid, error=why[:MOST_REASON] or NO_FRAME))
            return
        if frame is not None and told is not None and state_of(wanted.path) == wanted.state:
            made.pictures[wanted.version_uid] = frame.png
            made.frames.append(told)

    def _fail(self, wanted: WantedPicture, error: Exception, made: _Made, again: list[WantedPicture]) -> None:
        """Try a file again later that cannot be read now; in the end its metadata say why it has no picture."""
        if wanted.attempts + 1 < MOST_ATTEMPTS:
            again.append(wanted)
            return
        why = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
        made.frames.append(NewFrame(version_uid=wanted.version_uid, error=f"{NO_FRAME}: {why}"[:MOST_REASON]))

    def _keep(self, experiment_uid: UUID, made: _Made, due: Sequence[WantedPicture]) -> Sequence[WantedPicture]:
        """Have pictures and numbers kept; return what is to be tried again, where that is refused."""
        try:
            if made.pictures:
                self._client.thumbnails.keep(experiment_uid, made.pictures)
            if made.frames:
                self._client.files.note_frames(experiment_uid, made.frames)
        except (UnavailableError, NotAuthenticatedError):
            raise  # the service is away, or has not heard of the station's key: all wait
        except DmError as error:
            self.warn(f"small pictures of experiment {experiment_uid} are not kept: {error.message}")
            return [one for one in due if one.experiment_uid == experiment_uid and one.attempts + 1 < MOST_ATTEMPTS]
        return ()

    def _settle(self, due: Sequence[WantedPicture], again: Sequence[WantedPicture]) -> None:
        later: defaultdict[int, set[UUID]] = defaultdict(set)
        for one in again:
            later[one.attempts].add(one.version_uid)
        done = {one.version_uid for one in due}.difference(*later.values())
        with self._database.write() as tx:
            tx.pictures.settle(done)
            for attempts, uids in later.items():
                tx.pictures.put_off(uids, tx.now + LATER * 4**attempts)


def _checked(picture: Picture | None) -> Picture | None:
    """Return a picture that the storage keeps; one that it would refuse is the fault of this file alone."""
    if picture is not None and not (picture.png.startswith(SIGNATURE) and len(picture.png) <= PICTURE_BYTES):
        raise PictureError(f"the picture is no PNG of {PICTURE_BYTES} bytes at most")
    return picture
