"""`dm station`: the stations of the site, and how their services get a key."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from beamkeeper import config
from beamkeeper.cli import common, output
from beamkeeper.client import Client
from beamkeeper.domain.errors import ConflictError, SettingsError
from beamkeeper.domain.experiments import NewStation, StationChange

COLUMNS = {
    "name": "name",
    "title": "title",
    "cycle": "cycle",
    "layout": "layout",
    "time zone": "timezone",
    "catalog": "catalog_url",
    "acquisition": "acquisition_url",
    "processing": "processing_url",
}
PATH = click.Path(path_type=Path)


def _options(function: Callable[..., None]) -> Callable[..., None]:
    for decorate in (
        click.option("--processing-url", metavar="URL", help="Where its processing service is."),
        click.option("--acquisition-url", metavar="URL", help="Where its acquisition service is."),
        click.option("--catalog-url", metavar="URL", help="Where its catalog service is."),
        click.option("--storage-area", metavar="NAME", help="Where new experiments are stored."),
        click.option("--cycle", help="The facility's run period now, such as 2026-1."),
        click.option(
            "--layout",
            metavar="TEMPLATE",
            help="Where new experiments lie, such as {cycle}/{experiment}; also {year} {month} {proposal} {pi} {type} "
            "{station}.",
        ),
        click.option("--timezone", metavar="ZONE", help="IANA time zone, such as America/Chicago."),
        click.option("--title", help="Its full name, for people."),
    ):
        function = decorate(function)
    return function


@click.command()
@click.argument("name")
@_options
def create(name: str, **given: str | None) -> None:
    """Make a station."""
    client = common.client()
    output.record(client.stations.create(common.build(NewStation, name=name, **_given(client, given))), COLUMNS)
    output.say(f"`dm station token {name}` makes the one-time token with which its services join.")


@click.command("list")
def list_() -> None:
    """List the stations that you are staff of."""
    output.rows(common.client().stations.list(), COLUMNS)


@click.command()
@click.argument("name")
def show(name: str) -> None:
    """Show a station."""
    client = common.client()
    station = client.stations.get(name)
    areas = {area.uid: area.name for area in client.storage_areas.list()}
    output.record(station, {**COLUMNS, "storage area": lambda s: areas.get(s.storage_area_uid, ""), "uid": "uid"})


@click.command()
@click.argument("name")
@_options
def update(name: str, **given: str | None) -> None:
    """Change a station. A new layout or cycle is for new experiments; those that are there stay where they are."""
    client = common.client()
    output.record(client.stations.update(name, common.build(StationChange, **_given(client, given))), COLUMNS)


@click.command()
@click.argument("name")
def token(name: str) -> None:
    """Make a one-time token for `dm station join`; whoever has it can act as the station's services."""
    made = common.client().stations.make_token(name)
    if output.is_json():
        output.data(made)
        return
    output.say(made.token)
    output.note(f"good for one `dm station join`, until {output.safe(made.expires_at)}")


@click.command()
@click.option(
    "--token-file", type=PATH, metavar="FILE", help="A file (mode 0600) with the token; else it is asked for."
)
@click.option("--data", type=PATH, metavar="DIR", help="The data directory of the station's services.")
@click.option("--config", "file", type=PATH, metavar="FILE", help="Their file of settings.")
@click.option("--replace", is_flag=True, help="Replace a key that is there already.")
def join(token_file: Path | None, data: Path | None, file: Path | None, replace: bool) -> None:
    """Get the service key of a station, with its one-time token, and keep it where the station's services find it."""
    settings = config.load(file, overrides={"data_dir": data}).settings
    target = settings.service_key_file
    if target.exists() and not replace:
        raise ConflictError(f"there is a key in {target} already: give --replace to put another in its place")
    asked = "name a private file with --token-file"
    one_time = common.read_secret(token_file) if token_file else common.ask_secret("Token", asked)
    new = _private(target)
    try:
        given = common.client().stations.join(one_time)
        with os.fdopen(new, "w") as opened:
            opened.write(given.key + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        _beside(target).replace(target)
    finally:
        _beside(target).unlink(missing_ok=True)
    output.record(given.station, COLUMNS)
    output.say(f"the key is in {target}: the services of {given.station.name} use it when they start.")


def _given(client: Client, given: dict[str, str | None]) -> dict[str, Any]:
    values: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if (name := values.pop("storage_area", None)) is not None:
        values["storage_area_uid"] = common.storage_area(client, name).uid
    return values


def _beside(target: Path) -> Path:
    return target.with_name(target.name + ".new")


def _private(target: Path) -> int:
    """Open the file for the key before the token is used up, so that a full disk costs no token."""
    try:
        target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        return os.open(_beside(target), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise SettingsError(
            f"cannot write {target} ({error.strerror}): name another place with service_key_file in the settings"
        ) from error
