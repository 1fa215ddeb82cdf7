"""What the process of an executor gets of our environment: what it needs to find programs and its scheduler."""

from __future__ import annotations

import os

from beamkeeper.engine.jobs.points import VARIABLE

_NAMES = (
    "PATH",
    "LANG",
    "LC_ALL",
    "HOME",
    "USER",
    "LOGNAME",
    "TZ",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    VARIABLE,
)
_SCHEDULERS = ("SLURM_CONF", "SGE_", "PBS_", "LSF_", "CONDOR_", "_CONDOR_", "KUBE")
"""What schedulers' commands need of our environment; the rest of it stays here, since they pass it on to nodes."""


def passed_on() -> dict[str, str]:
    """Return the environment of an executor's process."""
    return {name: value for name, value in os.environ.items() if name in _NAMES or name.startswith(_SCHEDULERS)}
