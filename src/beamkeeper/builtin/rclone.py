"""Transfer by rclone: S3 and everything else that it speaks, at `rclone://REMOTE/BUCKET/PREFIX`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, ClassVar
from uuid import UUID, uuid4

from beamkeeper.builtin.outside import OutsideOptions, OutsideTransfer, Refused
from beamkeeper.domain.errors import DestinationError
from beamkeeper.domain.names import show_path
from beamkeeper.plugins import rclone
from beamkeeper.plugins.api import Options, Stop, TransferItem
from beamkeeper.plugins.programs import ProgramStoppedError

LOOK_S = 0.2


class RcloneTransferOptions(OutsideOptions, rclone.RcloneOptions):
    """How rclone is run, on the station."""


class RcloneTransfer(OutsideTransfer):
    """Sends each file of a batch as an object. rclone answers for every one of them."""

    options: ClassVar[type[Options]] = RcloneTransferOptions
    summary: ClassVar[str] = "Sends to S3 and to everything else that rclone speaks."

    def __init__(self, options: RcloneTransferOptions) -> None:
        super().__init__(options.checksums)
        self._options = options
        self._rclone = rclone.Rclone(options)

    def close(self) -> None:
        """End what runs; the next batch starts it again."""
        self._rclone.close()

    def move(self, farm: str, items: Sequence[TransferItem], staging: str, stop: Stop) -> Refused:
        """Copy the files of a batch, some at once."""
        place, group = rclone.place_of(staging), f"batch-{uuid4().hex}"

        def copy(item: TransferItem) -> None:
            source = {"srcFs": f":local,copy_links:{farm}", "srcRemote": item.target.decode("utf-8", "surrogateescape")}
            target = {"dstFs": place, "dstRemote": rclone.key_of(item.target)}
            self._rclone.call("operations/copyfile", **source, **target, _group=group)

        with ThreadPoolExecutor(self._options.transfers, "rclone") as pool:
            futures = {pool.submit(copy, item): item for item in items}
            try:
                self._await(set(futures), group, stop)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self._end(group)
                raise
        return self._refused({item.version_uid: (item, future) for future, item in futures.items()}, place)

    def _await(self, going: set[Future[None]], group: str, stop: Stop) -> None:
        """Wait for all; bytes that move and files that end are signs of life."""
        moved, moved_at = -1, time.monotonic()
        while going:
            ended, going = wait(going, LOOK_S, FIRST_COMPLETED)
            if ended and any(self._is_of_all(future) for future in ended):
                return
            now = moved if ended else int(self._rclone.call("core/stats", group=group).get("bytes", 0))
            if ended or now != moved:
                moved, moved_at = now, time.monotonic()
                if stop():
                    raise ProgramStoppedError
            elif time.monotonic() - moved_at > self._options.stall_s:
                raise DestinationError(
                    f"rclone has moved nothing for {self._options.stall_s:g} s: the far side does not answer",
                    code="hanging",
                )

    def _is_of_all(self, future: Future[None]) -> bool:
        error = future.exception()
        return isinstance(error, rclone.Refused) and error.fault("").details["code"] != "failed"

    def _end(self, group: str) -> None:
        try:
            self._rclone.call("job/stopgroup", group=group)
        except (rclone.Refused, DestinationError):
            return  # nothing of it runs

    def _refused(self, futures: dict[UUID, tuple[TransferItem, Future[Any]]], place: str) -> Refused:
        """Return what single files were refused for; what is the fault of the place is raised."""
        found: Refused = {}
        for uid, (item, future) in futures.items():
            try:
                future.result()
            except rclone.Refused as refused:
                error = refused.fault(f'"{show_path(item.path)}" to {place}')
                if error.details["code"] != "failed":
                    raise error from refused
                found[uid] = error
        return found
