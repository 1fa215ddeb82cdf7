"""`dm file meta`: the metadata of a file, and how it came about."""

from __future__ import annotations

import click

from beamkeeper.cli import common, meta
from beamkeeper.cli.files import EXPERIMENT, WHICH, file_meant

CHANGES = click.argument("changes", metavar="[KEY=VALUE]...", nargs=-1)


@click.command("set")
@WHICH
@CHANGES
@meta.UNIT
@meta.REMOVE
@EXPERIMENT
def set_(
    which: str, changes: tuple[str, ...], unit: str | None, remove: tuple[str, ...], experiment: str | None
) -> None:
    """Change a file's metadata.

    KEY may be a path such as sample.name; VALUE is a number, true, false or text. KEY:=JSON sets any JSON. With --unit
    the values are numbers that have it: `dm file meta set scan.h5 energy=12.4 --unit keV`.
    """
    client = common.client()
    patch = meta.patch_of(changes, unit)
    file = file_meant(client, which, experiment)
    for key in remove:
        file = client.files.remove_metadata(file.uid, key)
    if patch:
        file = client.files.set_metadata(file.uid, patch)
    meta.show(file.metadata)


@click.command()
@WHICH
@click.argument("key", required=False)
@EXPERIMENT
def get(which: str, key: str | None, experiment: str | None) -> None:
    """Show a file's metadata, or what stands at KEY."""
    meta.show(file_meant(common.client(), which, experiment).metadata, key)


@click.command()
@WHICH
@meta.HISTORY_LIMIT
@EXPERIMENT
def history(which: str, limit: int, experiment: str | None) -> None:
    """Show who changed a file's metadata when, and what stood there before; newest first."""
    client = common.client()
    file = file_meant(client, which, experiment)
    meta.show_history(client.files.metadata_history(file.uid), limit)
