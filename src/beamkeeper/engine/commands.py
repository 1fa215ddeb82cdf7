"""The loop that collects what the site wants of this station, and does it: no connection comes in from the site."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from beamkeeper.client import Client
from beamkeeper.core import commands as core
from beamkeeper.core.sources import Rules
from beamkeeper.db import AcquisitionTransaction, Database
from beamkeeper.domain.commands import WaitingCommand
from beamkeeper.domain.errors import UnavailableError
from beamkeeper.engine.worker import Loop, Report

WAIT_S = 5.0
"""How long one question stays open: also how long a stop of this service may wait for it."""
MIRROR_S = 8.0
"""So long the mirror may take to hear of what a command is about; it asks every five seconds."""


class CommandLoop(Loop):
    """Asks for commands and waits for them at the site; each is done at most once, for its uid is what it starts."""

    def __init__(
        self, database: Database[AcquisitionTransaction], client: Client, rules: Rules, *, report: Report
    ) -> None:
        super().__init__("commands", report=report, idle_s=0.0)
        self._database = database
        self._client = client
        self._rules = rules
        self._is_cut_off = False

    def step(self) -> bool:
        """Do what waits; what cannot be done yet holds up the commands of its own experiment, and no others."""
        held: dict[UUID, Exception] = {}
        for waiting in self._client.commands.waiting(wait_s=WAIT_S):
            if self.is_stopping or not self._database.wait(self._is_known(waiting), MIRROR_S):
                break
            if waiting.command.experiment_uid in held:
                continue  # it may be about what is not done yet
            try:
                answer = core.carry_out(self._database, waiting, rules=self._rules)
            except Exception as error:
                held[waiting.command.experiment_uid] = error
                continue
            self._client.commands.answer(waiting.command.uid, answer)
        if held:
            raise next(iter(held.values()))
        self._is_cut_off = False
        return True

    def _is_known(self, waiting: WaitingCommand) -> Callable[[], bool]:
        def is_known() -> bool:
            with self._database.read() as tx:
                return core.knows(tx, waiting)

        return is_known

    def failed(self, error: Exception) -> None:
        """Report; that the site is away is told once, and by the mirror's loop again."""
        if isinstance(error, UnavailableError) and self._is_cut_off:
            return
        self._is_cut_off = isinstance(error, UnavailableError)
        super().failed(error)
