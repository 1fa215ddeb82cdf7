"""Jobs in hand as what a process holds: when it is no more, this one goes on with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from beamkeeper.db import ProcessingTransaction


class JobsHeld:
    """The jobs that processes of the engine have in hand."""

    def __init__(self, owner: UUID, take_up: Callable[[Sequence[int]], None]) -> None:
        self._owner = owner
        self._take_up = take_up
        self._freed: list[int] = []

    def owners(self, tx: ProcessingTransaction) -> Sequence[UUID]:
        """Return every process that has jobs in hand."""
        return tx.engine_jobs.owners()

    def free(self, tx: ProcessingTransaction, owner: UUID) -> None:
        """Take over what a process had in hand that is no more."""
        self._freed += tx.engine_jobs.adopt(owner, self._owner)

    def freed(self) -> None:
        """Go on with them; not before they are ours for everybody, else they would count as somebody else's."""
        freed, self._freed = self._freed, []
        self._take_up(freed)

    def leave(self, tx: ProcessingTransaction, owner: UUID) -> bool:
        """Stay written down as this process ends: commands go on, and the next one finds at once that we are gone."""
        return False
