"""`dm access explain`: why somebody may do something, or may not."""

from __future__ import annotations

import click

from beamkeeper.cli import common, output
from beamkeeper.domain.access import AccessRule


@click.command()
@click.argument("username")
@click.argument("name", metavar="OBJECT")
@click.option("--of-station", is_flag=True, help="The object is a station; else it is an experiment.")
def explain(username: str, name: str, of_station: bool) -> None:
    """Say what somebody may do on an experiment or at a station, and by which role, or which role is wanting.

    For who decides on the experiment's people, or manages the station.
    """
    client = common.client()
    if of_station:
        found = client.access.on_station(name, username)
    else:
        found = client.access.on_experiment(common.experiment(client, name).uid, username)
    if output.is_json():
        output.data(found)
        return
    output.rows(found.rules, {"action": "action", "may": _may, "why": "why"}, title=f"{username} on {found.object}")


def _may(rule: AccessRule) -> str:
    return "yes" if rule.is_allowed else "no"
