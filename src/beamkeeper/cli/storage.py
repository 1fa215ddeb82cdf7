"""`dm storage`: the places that hold files."""

from __future__ import annotations

from pathlib import Path

import click

from beamkeeper.cli import common, output
from beamkeeper.cli.app import EXIT_WANTING
from beamkeeper.client import Client
from beamkeeper.domain.errors import NotFoundError, UnavailableError
from beamkeeper.domain.status import Service
from beamkeeper.domain.storage import AreaKind, NewStorageArea, is_object_path

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
@click.argument("path")
@click.option("--station-url", metavar="URL", help="Where a station puts bytes; file://PATH by default.")
@click.option("--kind", type=click.Choice(common.values(AreaKind)), default=AreaKind.HOT.value, show_default=True)
@click.option("--transfer", default="", help="The transfer plugin, or its table of settings; by the address otherwise.")
def add(name: str, path: str, station_url: str | None, kind: str, transfer: str) -> int:
    """Add a storage area: PATH is an absolute path where the storage service runs, or rclone://REMOTE/BUCKET/PREFIX."""
    client = common.client()
    where = path if is_object_path(path) else Path(path).as_uri() if Path(path).is_absolute() else ""
    url = station_url or where
    new = common.build(NewStorageArea, name=name, kind=kind, station_url=url, path=path, transfer=transfer)
    output.record(client.storage_areas.add(new), COLUMNS)
    shown = client.storage_areas.check(name)
    if not shown.is_ok:
        output.note(f"{shown.message}; `dm storage check {name}` looks again")
    return 0 if shown.is_ok else EXIT_WANTING


@click.command()
@click.argument("name")
def show(name: str) -> None:
    """Show a storage area: its addresses, and whether files wait for it."""
    client = common.client()
    area = next((area for area in client.storage_areas.list() if area.name == name), None)
    if area is None:
        raise NotFoundError(f'there is no storage area "{name}": `dm storage list` shows all', name=name)
    output.record(area, {**COLUMNS, "uid": "uid"})
    try:
        paused = client.status(Service.ACQUISITION).paused
    except UnavailableError:
        return  # the site knows storage areas, and stations know what waits for them
    for pause in paused:
        if pause.name == name:
            output.note(pause.sentence)


@click.command()
@click.argument("name")
def check(name: str) -> int:
    """Write, read back and remove a probe file: at the storage, and from the station by the real transport.

    Ends with status 10 where one of them fails; where no station answers, the storage alone is checked.
    """
    client = common.client()
    shown = client.storage_areas.check(name)
    is_ok, from_station = _from_station(client, name) if shown.is_ok else (True, "")
    output.record(
        shown,
        {
            "name": "name",
            "works": lambda area: area.is_ok and is_ok,
            "": "message",
            "from the station": lambda _: from_station,
            "rights": lambda area: area.rights.sentence if area.rights else "",
            "free": lambda area: "" if area.free_bytes is None else output.size(area.free_bytes),
            "in all": lambda area: "" if area.total_bytes is None else output.size(area.total_bytes),
        },
    )
    return 0 if shown.is_ok and is_ok else EXIT_WANTING


def _from_station(client: Client, name: str) -> tuple[bool, str]:
    """Send a probe by the real transport, and have it read back; whether that works, and a sentence."""
    try:
        sent = client.probes.send(name)
    except (UnavailableError, NotFoundError) as error:
        return True, f"not tried: {error.message}"
    if sent.probe is None:
        return False, sent.message
    read = client.storage_areas.read_probe(name, sent.probe)
    return read.is_ok, read.message
