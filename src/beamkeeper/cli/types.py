"""`dm type`: kinds of experiments, such as techniques."""

from __future__ import annotations

import click

from beamkeeper.cli import common, output
from beamkeeper.domain.experiments import ExperimentTypeChange, NewExperimentType

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


@click.command()
@click.argument("name")
@click.option("--description")
@click.option("--index", "index_keys", multiple=True, metavar="KEY", help="Index only these keys from now on.")
@click.option("--index-all", is_flag=True, help="Index every key again, up to 64 of a file.")
def change(name: str, description: str | None, index_keys: tuple[str, ...], *, index_all: bool) -> None:
    """Change an experiment type. Files that there are already are indexed anew by these keys: `dm status` shows it."""
    if index_all and index_keys:
        raise click.UsageError("--index names keys, and --index-all wants every one: give one of the two.")
    given: dict[str, object] = {} if description is None else {"description": description}
    if index_all or index_keys:
        given["index_keys"] = index_keys or None
    changed = common.client().experiment_types.change(name, common.build(ExperimentTypeChange, **given))
    output.record(changed, COLUMNS)


@click.command("list")
def list_() -> None:
    """List experiment types."""
    output.rows(common.client().experiment_types.list(), COLUMNS)
