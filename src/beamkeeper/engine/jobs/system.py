"""The variables that the system gives to every job."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import unquote, urlsplit

from beamkeeper.db import ProcessingTransaction
from beamkeeper.db.processing.engine import HeldJob
from beamkeeper.domain.errors import NotFoundError
from beamkeeper.domain.experiments import Experiment, Tree


def variables_of(tx: ProcessingTransaction, held: HeldJob, station: str) -> dict[str, str]:
    """Return the system's variables of a job, as users of the original know them."""
    found = {
        "id": str(held.uid),
        "owner": held.owner,
        "username": held.owner,
        "workflowName": held.workflow_name,
        "workflowOwner": held.workflow_owner,
        "stationName": station,
        "execHost": socket.gethostname(),
        "submissionTime": str(held.submitted_at.timestamp()),
        "startTime": str((held.started_at or held.submitted_at).timestamp()),
        "endTime": "",  # a name of the original's; no command runs when a job has ended
        "countFiles": str(len(held.files)),
    }
    if held.experiment_uid is not None:
        try:
            experiment = tx.experiments.get(held.experiment_uid)
        except NotFoundError:
            return found
        found["experimentName"] = experiment.name
        if root := experiment_root(tx, experiment):
            found["dataDir"] = str(root / str(Tree.DATA))
    return found


def experiment_root(tx: ProcessingTransaction, experiment: Experiment) -> Path | None:
    """Return where an experiment's files can be opened here; None where its storage is not mounted."""
    area = tx.storage.get(experiment.storage_area_uid)
    url = urlsplit(area.station_url)
    return Path(unquote(url.path)) / experiment.directory if url.scheme == "file" else None
