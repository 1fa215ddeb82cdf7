"""`dm experiment groups`: the groups of experiments in a directory server."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import click

from beamkeeper.cli import common, output
from beamkeeper.cli.app import EXIT_WANTING
from beamkeeper.client import Client
from beamkeeper.domain.groups import ExperimentGroup, GroupState

LOOK_S = 0.5


@click.command()
@click.argument("experiment", required=False)
@click.option("--repair", is_flag=True, help="Also take out those who were never of the experiment.")
def check(experiment: str | None, repair: bool) -> int:
    """Compare groups with the directory server now, and say what differs: of EXPERIMENT, or of all that are yours.

    Who belongs to an experiment and is missing is put in, and who belongs to it no more is taken out, in any case.
    Ends with status 10 where something differs.
    """
    client = common.client()
    if experiment is not None:
        found: Sequence[ExperimentGroup] = [
            client.groups.compare(common.experiment(client, experiment).uid, is_repair=repair)
        ]
    else:
        asked = client.groups.compare_all(is_repair=repair)
        found = _all(client)
        if not output.is_json():
            output.say(f"{asked} groups compared.")
    output.rows(found, _COLUMNS, empty="nothing differs.")
    for group in found if not output.is_json() else ():
        for line in _lines(group):
            output.say(output.safe(line))
    return EXIT_WANTING if any(group.state is not GroupState.SAME for group in found) else 0


def _all(client: Client) -> Sequence[ExperimentGroup]:
    """Wait until every comparison was tried, and return the groups that are not as they should be."""
    while True:
        found = list(client.groups.list(is_differing=True))
        if not any(group.is_pending for group in found):
            return found
        time.sleep(LOOK_S)


def _lines(group: ExperimentGroup) -> Iterator[str]:
    if group.message:
        yield f"{group.name}: {group.message}"
    if group.is_known_to_host is False:
        yield (
            f"{group.name}: the storage host knows no group {group.gid}, so its name is not shown there: "
            f"is the directory in nsswitch.conf?"
        )


_COLUMNS = {
    "group": "name",
    "number": "gid",
    "experiment": "experiment",
    "station": "station",
    "state": "state",
    "missing": lambda group: " ".join(group.difference.missing),
    "foreign": lambda group: " ".join(group.difference.foreign),
    "without an account there": lambda group: " ".join(group.difference.unknown),
    "compared": "compared_at",
}
