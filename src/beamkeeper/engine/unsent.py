"""The loop that has the site make what experiments were made at the station while it was cut off."""

from __future__ import annotations

from beamkeeper.client import Client
from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.domain.errors import DmError, UnavailableError
from beamkeeper.domain.experiments import UnsentExperiment
from beamkeeper.domain.problems import ProblemKind
from beamkeeper.engine.problems import Tell, about
from beamkeeper.engine.worker import Loop, Report

IDLE_S = 5.0


class UnsentLoop(Loop):
    """Sends each until the site has made it; the mirror brings it back as the site has it.

    What the site refuses is told of, and tried again after a pause that grows to an hour: what stands in its way may
    have gone by then. `dm experiment unsent` shows it; somebody may change it, or drop it.
    """

    def __init__(
        self, database: Database[AcquisitionTransaction], client: Client, *, report: Report, tell: Tell
    ) -> None:
        super().__init__("unsent experiments", report=report, idle_s=IDLE_S)
        self._database = database
        self._client = client
        self._tell = tell

    def step(self) -> bool:
        """Send what there is."""
        with self._database.read() as tx:
            waiting = tx.unsent.due()
        for one in waiting:
            try:
                made = self._client.experiments.send(one.wanted)
            except UnavailableError:
                return False  # the mirror's loop tells of it
            except DmError as error:
                self._refused(one, error.message)
                continue
            with self._database.write() as tx:
                tx.unsent.forget(one.uid)
            if made.name != one.name:
                why = f'experiment "{one.name}", made here by {one.made_by}, is "{made.name}": that name was given'
                self.warn(why)
                self._tell(about(ProblemKind.EXPERIMENT_CHANGED, None, why))
        return False

    def _refused(self, one: UnsentExperiment, message: str) -> None:
        with self._database.write() as tx:
            tx.unsent.refuse(one.uid, message)
        if message != one.message:
            why = (
                f'experiment "{one.name}", made here by {one.made_by}, is refused by the site: {message}; '
                f"`dm experiment resend {one.name}` sends it with changes, `dm experiment drop {one.name}` gives it up"
            )
            self.warn(why)
            self._tell(about(ProblemKind.EXPERIMENT_CHANGED, None, why))
