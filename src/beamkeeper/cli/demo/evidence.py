"""Where the check gets each side of its comparison: the truth file, two directories, the catalogue, the journal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from beamkeeper.cli.demo.check import Evidence, Type, scan
from beamkeeper.cli.demo.truth import read_truth
from beamkeeper.client import Client
from beamkeeper.domain.acquisition import Acquisition, JournalState
from beamkeeper.domain.errors import NotFoundError
from beamkeeper.domain.experiments import Experiment, Tree
from beamkeeper.domain.files import REGISTER_LIMIT, File, FileQuery


def gather(client: Client, experiment: Experiment, daq: Acquisition, *, source: Path, truth: Path) -> Evidence:
    """Read everything anew: every byte of the source and of the storage area, and every row."""
    written = list(read_truth(truth))
    found = scan(os.fsencode(source))
    special = {path for path, one in found.items() if one.type is Type.SPECIAL}
    return Evidence(
        written={one.path: one for one in written},
        began_ns=min((one.written_at_ns for one in written), default=0),
        source=found,
        stored=scan(os.fsencode(stored_at(client, experiment))),
        catalogued=list(_catalogued(client, experiment)),
        skipped={path: reason for path, reason in _skipped(client, daq) if path in special},
    )


def stored_at(client: Client, experiment: Experiment) -> Path:
    """Return the directory in which the storage area has the experiment's data."""
    for area in client.storage_areas.list():
        if area.uid == experiment.storage_area_uid:
            return Path(area.path) / experiment.directory / Tree.DATA
    raise NotFoundError(f'the storage area of experiment "{experiment.name}" is not among those that the demo may see')


def _catalogued(client: Client, experiment: Experiment) -> Iterator[tuple[bytes, File]]:
    """Yield the experiment's files by their path below the detector's directory."""
    top = f"{Tree.DATA}/".encode()
    for file in client.files.find(FileQuery(experiment_uid=experiment.uid, limit=REGISTER_LIMIT)):
        if file.relpath.startswith(top):  # not what jobs have made of them
            yield file.relpath.removeprefix(top), file


def _skipped(client: Client, daq: Acquisition) -> Iterator[tuple[bytes, str]]:
    for entry in client.daqs.entries(daq.uid, state=JournalState.SKIPPED):
        yield bytes(entry.relpath), entry.reason
