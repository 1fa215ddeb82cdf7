"""`dm storage`: the places that hold files."""

from __future__ import annotations

from pathlib import Path

import click

from beamkeeper.cli import common, output
from beamkeeper.cli.app import EXIT_WANTING
from beamkeeper.domain.storage import AreaKind, NewStorageArea

COLUMNS = {
    "name": "name",
    "kind": "kind",
    "path": "path",
    "station's address": "station_url",
    "transfer": "transfer",
    "since": "created_at",
}


@click.command("list")
def list_() -> None:
    """List storage areas."""
    output.rows(common.client().storage_areas.list(), COLUMNS)


@click.command()
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--station-url", metavar="URL", help="Where a station puts bytes; file://PATH by default.")
@click.option("--kind", type=click.Choice(common.values(AreaKind)), default=AreaKind.HOT.value, show_default=True)
@click.option("--transfer", default="", help="The transfer plugin, or its table of settings; by the address otherwise.")
def add(name: str, path: Path, station_url: str | None, kind: str, transfer: str) -> int:
    """Add a storage area: PATH is an absolute path of the machine where the storage service runs."""
    client = common.client()
    url = station_url or (path.as_uri() if path.is_absolute() else "")
    new = common.build(NewStorageArea, name=name, kind=kind, station_url=url, path=str(path), transfer=transfer)
    output.record(client.storage_areas.add(new), COLUMNS)
    shown = client.storage_areas.check(name)
    if not shown.is_ok:
        output.note(f"{shown.message}; `dm storage check {name}` looks again")
    return 0 if shown.is_ok else EXIT_WANTING


@click.command()
@click.argument("name")
def check(name: str) -> int:
    """Write, make durable, read back and remove a probe file; ends with status 10 where that fails."""
    shown = common.client().storage_areas.check(name)
    output.record(
        shown,
        {
            "name": "name",
            "works": "is_ok",
            "": "message",
            "free": lambda area: "" if area.free_bytes is None else output.size(area.free_bytes),
            "in all": lambda area: "" if area.total_bytes is None else output.size(area.total_bytes),
        },
    )
    return 0 if shown.is_ok else EXIT_WANTING
