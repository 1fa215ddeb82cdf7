"""Attempts on nodes that do not see our storage: what they need goes there before, what they leave comes here after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from beamkeeper.domain.errors import SourceError
from beamkeeper.engine.jobs import far
from beamkeeper.engine.jobs.carrying import Carrier, LostError
from beamkeeper.engine.jobs.local import Over, take_away
from beamkeeper.engine.jobs.remote import TRIES, ExecutorSpec, RemoteRuns, Sent
from beamkeeper.engine.jobs.wanted import names_there
from beamkeeper.engine.worker import Report


class StagedRuns(RemoteRuns):
    """Otherwise as `RemoteRuns`."""

    def __init__(self, name: str, spec: ExecutorSpec, news: Callable[[], None], report: Report) -> None:
        super().__init__(name, spec, news, report)
        if spec.staging is None:
            raise ValueError("an executor whose nodes see our storage stages nothing")
        self._staging = spec.staging
        self._carrier = Carrier(spec.staging, spec.directory, self.look_at, report)

    def stop(self, attempt: str) -> None:
        """Ask an attempt to end; nothing of it is carried any more."""
        self._carrier.forget(attempt)
        super().stop(attempt)

    def drop(self, attempt: str) -> None:
        """Forget an attempt that was never ordered."""
        self._carrier.forget(attempt)
        super().drop(attempt)

    def forget(self) -> None:
        """Forget every attempt, to be given them anew; what has begun goes on."""
        self._carrier.forget_all()
        super().forget()

    def close(self) -> None:
        """Let what has begun go on; what is carried is carried anew by who comes next."""
        super().close()
        self._carrier.close()

    def send(self, attempt: str, sent: Sent) -> None:
        """Order an attempt once all is there that it needs."""
        if sent.about["uid"] is not None or sent.about["door"]:
            # Links that another account leaves there would be followed with our rights as its files are fetched.
            why = "executors that are sent their data run commands under the service's own account only"
            self._fault(attempt, "account", why, has_begun=False)
            return
        try:
            order = self._carrier.sent(sent.about)
        except (SourceError, LostError) as error:
            if take_away(sent.directory) is None:
                self._fault(attempt, "input", getattr(error, "message", str(error)), has_begun=True)
            return
        if order is not None:
            self.give(sent, order)

    def was_lost(self, attempt: str) -> None:
        """Send everything again: it may be what was lost."""
        self._carrier.send_again(attempt)

    def returned(self, attempt: str, sent: Sent, found: Mapping[str, Any]) -> None:
        """Say that an attempt is over once what it left is here; of one that was ended nothing is fetched."""
        names = {there: here for here, there in names_there(sent.about, f"{self._staging.root}/{attempt}").items()}
        if found["fault"] or found["why"] or sent.is_to_stop:
            self._is_over(Over(attempt, found))
        elif (sent.directory / far.LEFT).exists():
            try:
                if self._carrier.is_back(sent.about):
                    self._is_over(Over(attempt, {**found, "names": names}))
            except LostError as error:
                self._fault(attempt, "fetch", str(error), has_begun=True)
        elif sent.tries >= TRIES:
            self._fault(attempt, "fetch", f"it is not told what it left: {sent.why}", has_begun=True)
        elif not sent.is_with_host:
            told = {key: sent.about[key] for key in ("attempt", "directory", "executor")}
            self.give(sent, {**told, "staged": {"root": f"{self._staging.root}/{attempt}"}})

    def _fault(self, attempt: str, what: str, why: str, *, has_begun: bool) -> None:
        fault = {"what": what, "error": why}
        result = {"fault": fault, "why": "", "exit_status": None, "signal": None}
        self._carrier.forget(attempt)
        self._is_over(Over(attempt, result, has_begun=has_begun))

    def _is_over(self, over: Over) -> None:
        self._carrier.forget(over.attempt)
        super()._is_over(over)
