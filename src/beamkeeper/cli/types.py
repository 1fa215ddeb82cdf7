"""`dm type`: kinds of experiments, such as techniques."""

from __future__ import annotations

import click

from beamkeeper.cli import common, output
from beamkeeper.domain.experiments import NewExperimentType

COLUMNS = {"name": "name", "description": "description"}


@click.command()
@click.argument("name")
@click.option("--description", default="")
def create(name: str, description: str) -> None:
    """Make an experiment type."""
    new = common.build(NewExperimentType, name=name, description=description)
    output.record(common.client().experiment_types.create(new), COLUMNS)


@click.command("list")
def list_() -> None:
    """List experiment types."""
    output.rows(common.client().experiment_types.list(), COLUMNS)
