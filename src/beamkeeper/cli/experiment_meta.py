"""`dm experiment meta`: the metadata of an experiment, and how it came about."""

from __future__ import annotations

import click

from beamkeeper.cli import common, meta
from beamkeeper.domain.experiments import ExperimentChange

NAME = click.argument("name", metavar="EXPERIMENT")


@click.command("set")
@NAME
@click.argument("changes", metavar="[KEY=VALUE]...", nargs=-1)
@meta.UNIT
@meta.REMOVE
def set_(name: str, changes: tuple[str, ...], unit: str | None, remove: tuple[str, ...]) -> None:
    """Change an experiment's metadata; for its PI and managers."""
    client = common.client()
    experiment = client.experiments.get(name)
    patch = meta.whole_patch(experiment.metadata, changes, unit, remove)
    meta.show(client.experiments.update(experiment.uid, ExperimentChange(metadata=patch)).metadata)


@click.command()
@NAME
@click.argument("key", required=False)
def get(name: str, key: str | None) -> None:
    """Show an experiment's metadata, or what stands at KEY."""
    meta.show(common.client().experiments.get(name).metadata, key)


@click.command()
@NAME
@meta.HISTORY_LIMIT
def history(name: str, limit: int) -> None:
    """Show who changed an experiment's metadata when, and what stood there before; newest first."""
    client = common.client()
    meta.show_history(client.experiments.metadata_history(client.experiments.get(name).uid), limit)
