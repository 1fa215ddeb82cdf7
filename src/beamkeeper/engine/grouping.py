"""Which files share a job: so many, those of a run that has stopped, of a dataset that is frozen, or all at the end.

Of runs and datasets the catalogue knows. A run that has stopped waits for what of the DAQ was on its way then; a file
that comes to it later makes another job of it when the DAQ ends, as do runs that nobody has said to have stopped.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from uuid import UUID

from beamkeeper.client import Client
from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.domain.acquisition import ACTIVE, Acquisition
from beamkeeper.domain.datasets import DatasetQuery, DatasetState, Member
from beamkeeper.domain.processing import MOST_FILES
from beamkeeper.domain.runs import RunQuery, RunState

PATIENCE_S = 600.0
"""So long at most a run that has stopped waits for what is on its way."""

MOST_LOOKED_AT = 200
"""So many runs of an experiment, the newest, are looked at while its DAQ is active."""

MOST_ALONE = 100_000
"""So many files that have no job are looked at in one go."""


@dataclass
class _Seen:
    """Groups of an experiment that are complete: when we heard of each, and which have their jobs."""

    heard: dict[UUID, tuple[float, datetime]] = field(default_factory=dict)
    settled: set[UUID] = field(default_factory=set)


class Grouping:
    """Gives files to jobs, as their plans say."""

    def __init__(self, database: Database[AcquisitionTransaction], client: Client, look_s: float) -> None:
        self._database = database
        self._client = client
        self._look_s = look_s
        self._seen: dict[UUID, _Seen] = {}
        self._look_at = 0.0

    def step(self) -> None:
        """Give files to jobs that may be given now."""
        with self._database.read() as tx:
            plans = [(tx.acquisitions.get(uid), files) for uid, files in tx.job_requests.ungrouped().items()]
        of_catalogue = []
        for acquisition, files in plans:
            if acquisition.workflow is not None and acquisition.workflow.per in ("run", "dataset"):
                of_catalogue.append(acquisition)
            else:
                self._count(acquisition, files)
        self._seen = {uid: seen for uid, seen in self._seen.items() if uid in {one.uid for one in of_catalogue}}
        if of_catalogue and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + self._look_s
            for acquisition in of_catalogue:
                self._by_catalogue(acquisition)

    def _count(self, acquisition: Acquisition, files: int) -> None:
        count = acquisition.workflow.count if acquisition.workflow else 1
        is_over = acquisition.state not in ACTIVE
        if not is_over and (count is None or files < count):
            return
        size = count or MOST_FILES
        with self._database.write() as tx:
            ids = list(tx.job_requests.alone(acquisition.uid, MOST_FILES))
            for start in range(0, len(ids), size):
                part = ids[start : start + size]
                if len(part) == size or is_over:
                    tx.job_requests.give(part)

    def _by_catalogue(self, acquisition: Acquisition) -> None:
        with self._database.read() as tx:
            alone = tx.job_requests.alone(acquisition.uid, MOST_ALONE)
        if acquisition.state in ACTIVE:
            left: Mapping[int, bytes] = alone
            for uid in self._settled(acquisition):
                left = self._give(acquisition, uid, left)
            return
        groups, nowhere = self._groups(acquisition, alone)
        for group, ids in groups.items():
            self._give_parts(ids, run_uid=group if _is_by_run(acquisition) else None)
        self._give_parts(nowhere)

    def _give(self, acquisition: Acquisition, group: UUID, alone: Mapping[int, bytes]) -> Mapping[int, bytes]:
        """Let the files of a run or dataset that have no job have one; return those that are left."""
        is_run = _is_by_run(acquisition)
        members: Iterable[Member] = (self._client.runs if is_run else self._client.datasets).files(group)
        paths = {bytes(member.file.relpath) for member in members} if alone else set()
        self._give_parts([id_ for id_, path in alone.items() if path in paths], run_uid=group if is_run else None)
        return {id_: path for id_, path in alone.items() if path not in paths}

    def _give_parts(self, ids: Sequence[int], *, run_uid: UUID | None = None) -> None:
        """Let files have one job, or as many as it takes for each to have no more than one may have."""
        for start in range(0, len(ids), MOST_FILES):
            with self._database.write() as tx:
                tx.job_requests.give(ids[start : start + MOST_FILES], run_uid=run_uid)

    def _settled(self, acquisition: Acquisition) -> list[UUID]:
        """Return the groups that are complete, and of which nothing is on its way any more."""
        seen = self._seen.setdefault(acquisition.uid, _Seen())
        with self._database.read() as tx:
            for uid in self._complete(acquisition):
                seen.heard.setdefault(uid, (time.monotonic(), tx.now))
            oldest = tx.job_requests.on_its_way_since(acquisition.uid)
        now = time.monotonic()
        found = [
            uid
            for uid, (heard, at) in seen.heard.items()
            if uid not in seen.settled
            and now - heard >= self._look_s
            and (oldest is None or oldest > at or now - heard >= PATIENCE_S)
        ]
        seen.settled.update(found)
        return found

    def _complete(self, acquisition: Acquisition) -> list[UUID]:
        uid = acquisition.experiment_uid
        if _is_by_run(acquisition):
            runs = self._client.runs.list(RunQuery(experiment_uid=uid, state=RunState.STOPPED, limit=MOST_LOOKED_AT))
            return [run.uid for run in islice(runs, MOST_LOOKED_AT)]
        datasets = islice(self._client.datasets.list(DatasetQuery(experiment_uid=uid)), 5 * MOST_LOOKED_AT)
        return [one.uid for one in datasets if one.state is DatasetState.FROZEN]

    def _groups(self, acquisition: Acquisition, alone: Mapping[int, bytes]) -> tuple[dict[UUID, list[int]], list[int]]:
        """Return files by their run or dataset, of several the newest, and those that belong to none."""
        experiment = acquisition.experiment_uid
        uids = {bytes(one.relpath): one.uid for one in self._client.files.lookup(experiment, alone.values())}
        holders = self._client.runs if _is_by_run(acquisition) else self._client.datasets
        known = holders.of_files(experiment, list(uids.values()))
        groups: dict[UUID, list[int]] = {}
        nowhere = []
        for id_, path in alone.items():
            uid = uids.get(path)
            if uid is not None and uid in known:
                groups.setdefault(known[uid], []).append(id_)
            else:
                nowhere.append(id_)
        return groups, nowhere


def _is_by_run(acquisition: Acquisition) -> bool:
    return acquisition.workflow is not None and acquisition.workflow.per == "run"
