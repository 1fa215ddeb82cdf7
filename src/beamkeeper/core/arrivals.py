"""What was seen for an experiment and is not delivered, by directory."""

from __future__ import annotations

from uuid import UUID

from beamkeeper.core import rights
from beamkeeper.db import AcquisitionTransaction
from beamkeeper.domain.ledger import DirectoryTallyPage
from beamkeeper.domain.users import Action, Caller


def directories(
    tx: AcquisitionTransaction, caller: Caller, experiment_uid: UUID, *, after: str | None = None
) -> DirectoryTallyPage:
    """Return counts of what DAQs and uploads of an experiment have seen and not delivered."""
    experiment = rights.experiment(tx, caller, Action.ACQUISITION_READ, experiment_uid)
    return tx.arrivals.directories(experiment.uid, after)
