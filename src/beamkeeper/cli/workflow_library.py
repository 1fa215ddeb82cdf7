"""`dm workflow library` and `install`: workflows that come with Beamkeeper."""

from __future__ import annotations

import click

from beamkeeper.cli import common, output
from beamkeeper.cli.workflows import NOTE, kept
from beamkeeper.domain.names import Model
from beamkeeper.library.entries import Entry, adapted, entries, entry


class Offer(Model):
    """A workflow of the library, as it is listed."""

    name: str
    description: str
    extra: str
    missing: tuple[str, ...]
    arguments: tuple[str, ...]


@click.command()
@click.argument("name", required=False)
def library(name: str | None) -> None:
    """List the workflows that come with Beamkeeper; with NAME, print its definition, to be changed and added."""
    if name is not None:
        found = entry(name)
        if output.is_json():
            output.data(found.definition)
        else:
            output.raw(found.text)
        return
    output.rows(
        [_offer(one) for one in entries()],
        {
            "name": "name",
            "what it does": "description",
            "needs": lambda one: f"{one.extra}{' (not here)' if one.missing else ''}",
        },
    )


@click.command()
@click.argument("name")
@click.argument("defaults", metavar="[KEY:VALUE]...", nargs=-1)
@click.option("--as", "other", metavar="NAME", help="Give it another name, to have it more than once.")
@NOTE
def install(name: str, defaults: tuple[str, ...], other: str | None, note: str) -> None:
    """Add a workflow of the library to the station, or its present version. For managers of the station.

    KEY:VALUE words become the defaults of its arguments, such as the calibration that a beamline has. What a job says
    itself goes before, but where a workflow writes to and whom it tells is said here for ever.
    """
    found = entry(name)
    definition = adapted(found, other, common.key_values(defaults))
    kept(common.client().workflows.upsert(definition, note=note or f"{name} of the library"))
    if found.needs.missing:
        modules = ", ".join(found.needs.missing)
        output.note(
            f"it needs {modules}, and this machine has none: where its jobs run, "
            f"`pip install 'beamkeeper[{found.needs.extra}]'` brings it"
        )


def _offer(found: Entry) -> Offer:
    return Offer(
        name=found.name,
        description=found.definition.description,
        extra=found.needs.extra,
        missing=tuple(found.needs.missing),
        arguments=tuple(found.definition.arguments or ()),
    )
