"""The demo's workflow: the first frame of each scan becomes a curve, which is kept and leads back to its frame."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from typing import Self

from pydantic import JsonValue

from beamkeeper.cli.why import tree
from beamkeeper.client import Client
from beamkeeper.domain.acquisition import Acquisition
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import FileOrder, FileQuery
from beamkeeper.domain.names import Model, Uid, show_path
from beamkeeper.domain.processing import JobStatus
from beamkeeper.domain.workflows import Definition, checked_definition
from beamkeeper.domain.workflows.plans import JobPlan

WORKFLOW = "integrate"
FRAMES = "scan_*/frame_0001.tif"
"""Of which files curves are made: enough to see it, and little enough for a small machine."""

_RING = r"first ring: (?P<ring>[0-9.]+) A"
_SCAN = r"frame: .*/(?P<scan>[^/]+)/[^/]+$"
_PATIENCE_S = 90.0
_POLL_S = 0.25
_OVER = {"ended", "refused"}


def plan(client: Client) -> JobPlan:
    """Keep the workflow, and return on which files of the DAQ it runs."""
    client.workflows.upsert(_definition())
    return JobPlan(workflow=WORKFLOW, only=(FRAMES,))


def _definition() -> Definition:
    python = shlex.quote(sys.executable)
    integrate = f'{python} -m beamkeeper.library.integrate "$filePath" curve.txt && echo "frame: $filePath"'
    keep = f"{python} -c 'from beamkeeper.cli.app import main; main()' put $scan.txt --analysis --destination curves"
    again: dict[str, JsonValue] = {
        "idempotent": True,
        "retries": {"max": 5, "delay": 1},
        "environment": {"OPENBLAS_NUM_THREADS": "1"},
    }
    return checked_definition(
        {
            "name": WORKFLOW,
            "description": "Integrates a frame azimuthally, and keeps the curve.",
            "stages": {
                "1-integrate": {
                    "command": integrate,
                    "outputVariableRegexList": [_RING, _SCAN],
                    "outputs": ["curve.txt"],
                    **again,
                },
                "2-keep": {"command": f"cp curve.txt $scan.txt && {keep}", **again},
            },
        }
    )


def wait(client: Client, uid: Uid) -> None:
    """Wait for the jobs of a DAQ, or until none has ended for so long that none will."""
    seen, patience_ends = -1, time.monotonic() + _PATIENCE_S
    while True:
        jobs = client.daqs.get(uid).jobs
        left = sum(count for state, count in jobs.items() if state not in _OVER)
        if not left or time.monotonic() > patience_ends:
            return
        if left != seen:
            seen, patience_ends = left, time.monotonic() + _PATIENCE_S
        time.sleep(_POLL_S)


class Curves(Model):
    """What came of the jobs: how many curves there are, and what one of them was made from."""

    jobs: int
    wanting: Sequence[str]
    """Why jobs have made no curve."""
    path: str
    ring: str
    why: Sequence[str]

    @classmethod
    def of(cls, client: Client, experiment: Experiment, daq: Acquisition) -> Self:
        """Return what is kept of the jobs of a run."""
        jobs = list(client.jobs.list(experiment_uid=experiment.uid, workflow=WORKFLOW))
        wanting = [f"job {job.uid} is {job.status}: {job.message}" for job in jobs if job.status is not JobStatus.DONE]
        query = FileQuery(experiment_uid=experiment.uid, glob="analysis/curves/*", order=FileOrder.PATH)
        found = list(client.files.find(query))
        if len(found) < len(jobs) - len(wanting):
            wanting.append(f"{len(jobs) - len(wanting)} jobs are done, and {len(found)} curves are kept")
        if refused := daq.jobs.get("refused", 0):
            wanting.append(f"{refused} jobs were refused: see the log of the services")
        rings = [ring for job in jobs if (ring := job.variables.get("ring"))]
        return cls(
            jobs=len(jobs),
            wanting=wanting,
            path=show_path(found[0].relpath) if found else "",
            ring=rings[0] if rings else "",
            why=list(tree(client.provenance.why(found[0].uid), experiment.uid)) if found else [],
        )
