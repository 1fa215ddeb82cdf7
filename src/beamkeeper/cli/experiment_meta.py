"""`dm experiment meta`: the metadata of an experiment, and how it came about."""

from __future__ import annotations

from beamkeeper.cli import meta
from beamkeeper.domain.experiments import ExperimentChange

_META = meta.Commands(
    "an experiment's",
    "EXPERIMENT",
    meant=lambda client, name, _: client.experiments.get(name),
    changed=lambda client, experiment, patch: client.experiments.update(
        experiment.uid, ExperimentChange(metadata=patch)
    ),
    changes=lambda client, experiment: client.experiments.metadata_history(experiment.uid),
    note="; for its PI and managers.",
    is_in_experiment=False,
)
set_, get, history = _META.set(), _META.get(), _META.history()
