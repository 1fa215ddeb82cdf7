"""Commands for stations: given at the site, and collected by the station."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from uuid import UUID

from beamkeeper.client.http import Http
from beamkeeper.domain.commands import Command, CommandAnswer, CommandState, NewCommand, WaitingCommand

WAIT_S = 10.0


class Commands:
    """Commands for stations that nobody can connect to."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def give(self, station: str, new: NewCommand) -> Command:
        """Let a command wait for a station."""
        given: Command = self._http().call("POST", f"/api/v1/stations/{station}/commands", Command, body=new)
        return given

    def get(self, uid: UUID, *, wait_s: float = 0.0) -> Command:
        """Return a command, once something became of it or the time is over."""
        path = f"/api/v1/commands/{uid}"
        found: Command = self._http().get(path, Command, query={"wait": wait_s}, timeout_s=wait_s + 20)
        return found

    def wait(self, uid: UUID, timeout_s: float) -> Command:
        """Return a command once something became of it, or as it is after `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = self.get(uid, wait_s=min(WAIT_S, max(0.0, deadline - time.monotonic())))
            if found.state is not CommandState.WAITING or time.monotonic() >= deadline:
                return found

    def list(self, station: str) -> Sequence[Command]:
        """Return the commands of a station that one may see, newest first."""
        found: Sequence[Command] = self._http().get(f"/api/v1/stations/{station}/commands", Sequence[Command])
        return found

    def waiting(self, *, wait_s: float = 0.0) -> Sequence[WaitingCommand]:
        """For a station's services: return what they should do now, waiting for it."""
        path = "/api/v1/commands/waiting"
        found: Sequence[WaitingCommand] = self._http().get(
            path, Sequence[WaitingCommand], query={"wait": wait_s}, timeout_s=wait_s + 20
        )
        return found

    def answer(self, uid: UUID, answer: CommandAnswer) -> Command:
        """For a station's services: tell what became of a command."""
        told: Command = self._http().call("POST", f"/api/v1/commands/{uid}/answer", Command, body=answer)
        return told
