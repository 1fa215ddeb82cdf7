"""Where attempts run: here, or by an executor that the settings map the role of their stage to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from beamkeeper.domain.workflows import StageDefinition
from beamkeeper.engine.jobs import orders
from beamkeeper.engine.jobs.ahead import Ahead
from beamkeeper.engine.jobs.local import TORN, LocalRuns, Over, read_claim
from beamkeeper.engine.jobs.remote import ExecutorSpec, RemoteRuns
from beamkeeper.engine.worker import Report

LOCAL, DEFAULT = orders.LOCAL, "default"
"""The executor of this machine; the role of stages that name none."""


class Places:
    """All attempts of a process, wherever they run; otherwise as `LocalRuns`."""

    def __init__(
        self,
        executors: Mapping[str, ExecutorSpec],
        roles: Mapping[str, str],
        news: Callable[[], None],
        report: Report,
        *,
        slots: int,
    ) -> None:
        self._roles, self._news, self._report = roles, news, report
        self._local = LocalRuns(news, report, slots=slots)
        self._named = frozenset(executors)
        self._remotes = {name: _remote(name, spec, news, report) for name, spec in executors.items()}
        self.groups = self._local.groups

    def executor_of(self, stage: StageDefinition) -> str:
        """Return which executor a stage runs on; what no setting speaks of runs here."""
        name = self._roles.get(stage.executor or DEFAULT, stage.executor)
        return name if name in self._named else LOCAL

    def _of(self, name: str) -> LocalRuns | RemoteRuns:
        if name == LOCAL:
            return self._local
        if name not in self._remotes:  # gone from the settings while attempts of it were under way
            self._remotes[name] = RemoteRuns(name, None, self._news, self._report)
        return self._remotes[name]

    def expect(self, order: Mapping[str, Any]) -> None:
        """Take note of an attempt that is ordered by and by, unless it is stopped or forgotten before."""
        self._of(order["executor"]).expect(order)

    def start(self, order: Mapping[str, Any]) -> None:
        """Order an attempt that is expected; its directory is there."""
        self._of(order["executor"]).start(order)

    def warm(self) -> None:
        """Get ready for orders that will come; executors have nothing to get ready."""
        self._local.warm()

    def attach(self, order: Mapping[str, Any], *, is_here: bool, boot_id: str) -> None:
        """Find an attempt again; who took it is known better by what it wrote than by today's settings."""
        claim = read_claim(Path(order["directory"]))
        place = (claim or {}).get("place") or {}
        name = place.get("executor") or (order["executor"] if claim is None or claim is TORN else LOCAL)
        if name == LOCAL and not is_here:  # it cannot be asked what became of it
            self._local.refuse(order["attempt"], None)
        elif isinstance(runs := self._of(name), LocalRuns):
            runs.attach(order, boot_id=boot_id)
        else:
            runs.attach(order)

    def stop(self, attempt: str) -> None:
        """Ask an attempt to end, with everything that it started."""
        for each in self._all():
            each.stop(attempt)

    def refuse(self, attempt: str, result: Mapping[str, Any] | None) -> None:
        """Say that an attempt is over that was never ordered."""
        for remote in self._remotes.values():
            remote.drop(attempt)
        self._local.refuse(attempt, result)

    def take_over(self) -> list[Over]:
        """Return the attempts that are over since the last time."""
        return [over for each in self._all() for over in each.take_over()]

    @property
    def has_news(self) -> bool:
        """Whether an attempt is over that nobody has taken."""
        return any(each.has_news for each in self._all())

    def forget(self) -> None:
        """Forget every attempt, to be given them anew; what runs goes on."""
        for each in self._all():
            each.forget()

    def rest(self) -> None:
        """End what has had nothing to do for a while."""
        for each in self._all():
            each.rest()

    def close(self) -> None:
        """Let what runs go on, and watch it no more."""
        for each in self._all():
            each.close()

    def _all(self) -> list[LocalRuns | RemoteRuns]:
        return [self._local, *self._remotes.values()]


def _remote(name: str, spec: ExecutorSpec, news: Callable[[], None], report: Report) -> RemoteRuns:
    if spec.staging is None:
        return RemoteRuns(name, spec, news, report)
    from beamkeeper.engine.jobs.staged import StagedRuns

    return StagedRuns(name, spec, news, report)


class Rooms:
    """How many more commands may begin at each place."""

    def __init__(
        self, free: Mapping[str, int], executor_of: Callable[[StageDefinition], str], ahead: Ahead | None = None
    ) -> None:
        self._free = dict(free)
        self._executor_of = executor_of
        self._ahead = ahead or Ahead(0)

    def at(self, stage: StageDefinition) -> int:
        """Return how many commands of a stage may begin, or be ordered ahead of their turn."""
        place = self._executor_of(stage)
        is_ahead = place == LOCAL and self._ahead.is_short(stage.command)
        return max(0, self._free[place] + (self._ahead.most if is_ahead else 0))

    @property
    def here(self) -> int:
        """How many more commands may run on this machine; less than none where some are ordered ahead."""
        return self._free[LOCAL]

    def take(self, stage: StageDefinition, count: int) -> None:
        """Take note that so many begin."""
        self._free[self._executor_of(stage)] -= count

    def __bool__(self) -> bool:
        return any(free > 0 for free in self._free.values()) or self._free[LOCAL] > -self._ahead.most

    @property
    def total(self) -> int:
        """How many commands may begin, whatever their stages."""
        return sum(free for free in self._free.values() if free > 0)
