"""`dm experiment unsent`, `resend`, `drop`: experiments of a cut-off station that its site does not have yet."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from beamkeeper.cli import common, output
from beamkeeper.cli.experiments import STATION, YES
from beamkeeper.client import Client
from beamkeeper.domain.errors import NotFoundError
from beamkeeper.domain.experiments import UnsentChange, UnsentExperiment

COLUMNS = {
    "name": "name",
    "made by": "made_by",
    "made": "made_at",
    "refused": "tries",
    "sent next": "next_at",
    "why": "message",
}


@click.command("unsent")
@STATION
def list_(station: str | None) -> None:
    """List experiments that were made here while the site was away, and that it does not have yet, with why."""
    client = common.client(station=station)
    output.rows(client.experiments.unsent(), COLUMNS, empty="none: the site has every experiment of this station")


@click.command()
@click.argument("name")
@STATION
@click.option("--as", "new_name", metavar="NAME", help="Under another name.")
@click.option("--root-path", metavar="PATH", help="In another directory below the storage area.")
@click.option("--pi", metavar="USERNAME", help="With another principal investigator.")
@click.option("--type", metavar="NAME", help="Of another type.")
@click.option("--proposal", help="Of another proposal.")
@click.option("--esaf", help="With another safety form.")
@click.option("--starts", "starts_at", type=common.Moment(), metavar="DATE")
@click.option("--ends", "ends_at", type=common.Moment(is_end=True), metavar="DATE")
def resend(name: str, station: str | None, new_name: str | None, **given: str | datetime | None) -> None:
    """Send an experiment to the site now that it refused, perhaps with changes; its files go after it."""
    client = common.client(station=station)
    found = _named(client, name)
    values: dict[str, Any] = {key: value for key, value in {"name": new_name, **given}.items() if value is not None}
    sent = client.experiments.resend(found.uid, common.build(UnsentChange, **values))
    output.record(sent, {key: COLUMNS[key] for key in ("name", "made by", "made", "sent next")})


@click.command()
@click.argument("name")
@STATION
@YES
def drop(name: str, station: str | None, yes: bool) -> None:
    """Give up an experiment that the site does not have. Its DAQs must have ended; its files stay at the source."""
    client = common.client(station=station)
    found = _named(client, name)
    why = f", which the site refuses ({found.message})" if found.message else ""
    output.confirm(f'Give up experiment "{found.name}"{why}? Nothing of it is stored.', yes=yes)
    client.experiments.drop(found.uid)
    if output.is_json():
        output.data({"dropped": str(found.uid)})
    else:
        output.say(f'experiment "{found.name}" is given up; its files are where they were.')


def _named(client: Client, name: str) -> UnsentExperiment:
    for found in client.experiments.unsent():
        if found.name == name:
            return found
    raise NotFoundError(f'no experiment "{name}" waits for the site: `dm experiment unsent` shows those that do')
