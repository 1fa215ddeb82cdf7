"""Which storage areas take nothing at present, and what that means for a DAQ or upload."""

from __future__ import annotations

from beamkeeper.db import AcquisitionTransaction
from beamkeeper.domain.acquisition import ACTIVE, Acquisition, JournalState
from beamkeeper.domain.storage import AreaPause


def paused(tx: AcquisitionTransaction) -> tuple[AreaPause, ...]:
    """Return every storage area that files wait for."""
    return tuple(
        AreaPause(
            name=tx.storage.get(pause.storage_area_uid).name,
            trouble=pause.trouble,
            message=pause.message,
            since=pause.since,
            files=tx.pauses.waiting(pause.storage_area_uid),
        )
        for pause in tx.pauses.all()
    )


def with_pause(tx: AcquisitionTransaction, acquisition: Acquisition) -> Acquisition:
    """Return a DAQ or upload whose message says so, where its files wait for a storage area; it needs its tallies."""
    pauses = {pause.storage_area_uid: pause for pause in tx.pauses.all()}
    if not pauses or acquisition.state not in ACTIVE:
        return acquisition
    area_uid = tx.experiments.get(acquisition.experiment_uid).storage_area_uid
    if area_uid not in pauses:
        return acquisition
    pause = AreaPause(
        name=tx.storage.get(area_uid).name,
        trouble=pauses[area_uid].trouble,
        message=pauses[area_uid].message,
        since=pauses[area_uid].since,
        files=acquisition.count(JournalState.READY, JournalState.STAGED),
    )
    message = "; ".join(part for part in (pause.sentence, acquisition.message) if part)
    return acquisition.model_copy(update={"message": message[:2000]})
