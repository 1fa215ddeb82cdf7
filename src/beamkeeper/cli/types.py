"""`dm type`: kinds of experiments, such as techniques."""

from __future__ import annotations

import click

from beamkeeper.cli import common, output
from beamkeeper.domain.experiments import NewExperimentType

COLUMNS = {"name": "name", "description": "description", "indexed keys": "index_keys"}


@click.command()
@click.argument("name")
@click.option("--description", default="")
@click.option(
    "--index",
    "index_keys",
    multiple=True,
    metavar="KEY",
    help="Index only these metadata keys of its files, such as sample.name; without it, all up to 64 of a file.",
)
def create(name: str, description: str, index_keys: tuple[str, ...]) -> None:
    """Make an experiment type."""
    new = common.build(NewExperimentType, name=name, description=description, index_keys=index_keys or None)
    output.record(common.client().experiment_types.create(new), COLUMNS)


@click.command("list")
def list_() -> None:
    """List experiment types."""
    output.rows(common.client().experiment_types.list(), COLUMNS)
