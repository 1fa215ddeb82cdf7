"""Carrying data to nodes that do not see our storage, and back, by a transfer; nothing counts before it was verified.

What an attempt needs goes into a directory of its own there, and the node reads it again before the command begins.
What the command has made or changed is brought into the attempt's directory here, compared, made durable and renamed to
its place; only then the attempt is over. Whatever dies, that is done again from its beginning, or seen to be done.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beamkeeper.config.failpoints import JobPoint, hit
from beamkeeper.domain.errors import DestinationError, DmError, SourceError
from beamkeeper.engine.beneath import Beneath
from beamkeeper.engine.jobs import far, runner
from beamkeeper.engine.jobs.orders import FILES
from beamkeeper.engine.jobs.wanted import Wanted, wanted
from beamkeeper.engine.worker import Report
from beamkeeper.plugins.load import transfer_of

BROUGHT = "brought"
"""A file of an attempt: all that it left is in its place."""

ARRIVING = "arriving"
"""Where what is brought back lies until all of it is verified: a directory of the attempt's own."""

MARKS = "staged"
"""The directory of an executor with a file for each attempt that something may lie there of: its content is the job."""

AT_ONCE, TRIES = 2, 5
PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class Staging:
    """Where nodes keep what they are sent: its address for us, its path for them, and the transfer by its tables."""

    url: str
    root: str
    transfer: str
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)

    def plugin(self) -> Any:
        """Build the transfer: one that can fetch."""
        return transfer_of(self.tables, self.transfer)


class LostError(Exception):
    """It was tried again and again, and does not come whole."""


@dataclass
class _Way:
    """One attempt on its way there or back."""

    work: Future[Any]
    ended: threading.Event
    not_before: float = 0.0


class Carrier:
    """Carries for the attempts of one executor; `wake` is called, in another thread, when one has arrived."""

    def __init__(self, staging: Staging, directory: Path, wake: Callable[[str], None], report: Report) -> None:
        self._staging, self._marks, self._wake, self._report = staging, directory / MARKS, wake, report
        self._plugin = staging.plugin()
        self._pool = ThreadPoolExecutor(AT_ONCE, "carrying")
        self._ways: dict[tuple[str, str], _Way] = {}
        self._failures: dict[tuple[str, str], int] = {}

    def sent(self, order: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the order of an attempt as nodes get it, once all is there that it needs; None before.

        SourceError where something that it needs cannot be read.
        """
        found: Mapping[str, Any] | None = self._way("there", order, self._send)
        return found

    def is_back(self, order: Mapping[str, Any]) -> bool:
        """Whether all that an attempt has left is in its place; LostError where it cannot be had."""
        directory = Path(order["directory"])
        return (directory / BROUGHT).exists() or self._way("back", order, self._bring) is not None

    def send_again(self, attempt: str) -> None:
        """Trust nothing of what was sent."""
        self._ways.pop(("there", attempt), None)

    def forget(self, attempt: str) -> None:
        """Carry nothing more of an attempt."""
        for where in ("there", "back"):
            way = self._ways.pop((where, attempt), None)
            self._failures.pop((where, attempt), None)
            if way is not None:
                way.ended.set()

    def forget_all(self) -> None:
        """Carry nothing more of any."""
        for _, attempt in list(self._ways):
            self.forget(attempt)

    def close(self) -> None:
        """End what is under way."""
        self.forget_all()
        self._pool.shutdown(cancel_futures=True)

    def _way(self, where: str, order: Mapping[str, Any], carry: Callable[[Mapping[str, Any], _Stop], Any]) -> Any:
        """Return what carrying has come to; None while it is under way, begun anew where it failed."""
        key = where, order["attempt"]
        way = self._ways.get(key)
        if way is None:
            ended = threading.Event()
            way = self._ways[key] = _Way(self._pool.submit(carry, order, _Stop(ended)), ended)
            way.work.add_done_callback(lambda _: self._wake(key[1]))
        if not way.work.done():
            return None
        error = way.work.exception()
        if error is None:
            return way.work.result()
        if isinstance(error, SourceError):
            raise error
        if time.monotonic() >= way.not_before:
            self._failed(key, way, error)
        return None

    def _failed(self, key: tuple[str, str], way: _Way, error: BaseException) -> None:
        """Wait a while after a failure, and then begin anew."""
        if way.not_before:
            del self._ways[key]
            return
        count = self._failures[key] = self._failures.get(key, 0) + 1
        way.not_before = time.monotonic() + min(PAUSE_S * 2 ** min(count - 1, 10), LONGEST_PAUSE_S)
        said = error.message if isinstance(error, DmError) else f"{type(error).__name__}: {error}"
        if isinstance(error, far.DamagedError) and count >= TRIES:
            raise LostError(said)
        self._report(f"what attempt {key[1]} needs or has left is not carried yet: {said}")

    def _send(self, order: Mapping[str, Any], stop: _Stop) -> Mapping[str, Any]:
        attempt, root = order["attempt"], f"{self._staging.root}/{order['attempt']}"
        self._marks.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._marks / attempt).write_text(Path(order["directory"]).parent.name)
        hit(JobPoint.INPUTS_SENDING)
        needed = wanted(order, root)
        digests = {}
        for result in self._plugin.send(needed.items, f"{self._staging.url}/{attempt}", stop) if needed.items else ():
            if result.error is not None:
                raise result.error
            digests[result.version_uid] = next(one.value for one in result.checksums if str(one.algorithm) == "blake3")
        if len(digests) < len(needed.items):
            raise DestinationError("it was not all sent", code="failed")
        hit(JobPoint.INPUTS_SENT)
        return _there(order, root, needed, [digests[item.version_uid] for item in needed.items])

    def _bring(self, order: Mapping[str, Any], stop: _Stop) -> bool:
        attempt, directory = order["attempt"], Path(order["directory"])
        left = json.loads((directory / far.LEFT).read_bytes())
        arriving = directory / ARRIVING
        arriving.mkdir(mode=0o700, exist_ok=True)
        place = f"{self._staging.url}/{attempt}"
        if left:
            self._plugin.fetch(f"{place}/{far.BACK}", arriving, stop)
        for row in left:
            _check(arriving / row[0], row)
        hit(JobPoint.OUTPUTS_FETCHED)
        _name_all(order, left)
        hit(JobPoint.OUTPUTS_NAMED)
        runner.write_durably(str(directory), BROUGHT, b"")
        shutil.rmtree(arriving, ignore_errors=True)
        hit(JobPoint.OUTPUTS_BROUGHT)
        with suppress(DmError):  # who looks after what is left there does it later
            self._plugin.remove(place)
            (self._marks / attempt).unlink(missing_ok=True)
        return True


class _Stop:
    """Tells a transfer to end when nobody wants any more what it carries."""

    def __init__(self, ended: threading.Event) -> None:
        self._ended = ended

    def __call__(self, moved: int = 0, /) -> bool:
        """Take a sign of life; True: end."""
        return self._ended.is_set()


def _there(order: Mapping[str, Any], root: str, needed: Wanted, digests: Sequence[str]) -> dict[str, Any]:
    """Return an order as nodes get it: every path of ours in it is theirs."""
    inputs = [
        (item.target.decode(), path, item.identity.size, digest)
        for item, path, digest in zip(needed.items, needed.paths, digests, strict=True)
    ]
    environment = {name: needed.there(value) for name, value in order["environment"].items()}
    return {
        **order,
        "cwd": needed.there(order["cwd"]),
        "environment": {**environment, "TMPDIR": f"{root}/{far.TEMPORARY}"},
        "staged": {"root": root, "inputs": inputs, "directories": needed.directories},
    }


def _check(path: Path, row: Sequence[Any]) -> None:
    """See that a file has arrived whole, and make it durable."""
    if not path.exists() or far.digest_of(str(path)) != (row[2], row[3]):
        path.unlink(missing_ok=True)
        raise far.DamagedError(f'"{row[1]}" did not come back whole')
    os.chmod(path, row[4] | 0o600)
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _name_all(order: Mapping[str, Any], left: Sequence[Sequence[Any]]) -> None:
    """Rename everything to its place, through no link, and make the names durable."""
    directory = Path(order["directory"])
    with Beneath(directory.parent) as job:
        directories = set()
        for name, path, *_ in left:
            old, new = (os.fsencode(f"{one}") for one in (f"{directory.name}/{ARRIVING}/{name}", f"{FILES}/{path}"))
            job.directory(os.path.dirname(new), mode=0o700)
            job.replace(old, new)
            directories.add(os.path.dirname(new))
        for each in directories:
            job.sync(each)
