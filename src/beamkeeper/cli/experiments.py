"""`dm experiment`: experiments and their people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from beamkeeper.cli import common, output
from beamkeeper.client import Client
from beamkeeper.client.logins import Profile
from beamkeeper.domain.errors import ConflictError, DmError, InvalidError
from beamkeeper.domain.experiments import Experiment, ExperimentChange, ExperimentQuery, Member, NewExperiment
from beamkeeper.domain.users import EXPERIMENT_ROLES, Publicity, Role

COLUMNS = {
    "name": "name",
    "station": "station",
    "title": "title",
    "pi": "pi",
    "proposal": "proposal",
    "type": "type",
    "starts": "starts_at",
    "ends": "ends_at",
    "state": lambda experiment: "deleted" if experiment.deleted_at else "",
}
FIELDS = {
    **COLUMNS,
    "description": "description",
    "esaf": "esaf",
    "cycle": "cycle",
    "publicity": "publicity",
    "embargo until": "embargo_until",
    "licence": "licence",
    "metadata": lambda experiment: experiment.metadata or "",
    "directory": "directory",
    "made": "created_at",
    "uid": "uid",
}
STATION = click.option("--station", metavar="NAME", help="Of which station, where there are several.")
YES = click.option("--yes", is_flag=True, help="Do not ask.")


def _options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that creating and changing share."""
    for decorate in (
        STATION,
        click.option("--licence", help="Under which the data may be used once they are public."),
        click.option("--embargo-until", type=common.Moment(), metavar="DATE", help="Not public before."),
        click.option(
            "--publicity", type=click.Choice(common.values(Publicity)), help="Who may read besides its people."
        ),
        click.option("--ends", "ends_at", type=common.Moment(is_end=True), metavar="DATE"),
        click.option("--starts", "starts_at", type=common.Moment(), metavar="DATE"),
        click.option("--esaf", help="Number of the safety form."),
        click.option("--proposal", help="Number of the proposal."),
        click.option("--description"),
        click.option("--title"),
        click.option("--type", metavar="NAME", help="One of `dm type list`."),
        click.argument("metadata", nargs=-1, metavar="[KEY:VALUE]..."),
    ):
        function = decorate(function)
    return function


@click.command()
@click.argument("name")
@_options
@click.option("--pi", metavar="USERNAME", help="Its principal investigator, who manages its people.")
@click.option("--cycle", help="The run period, such as 2026-1; the station's by default.")
@click.option("--root-path", metavar="PATH", help="Its directory below the storage area, in place of the layout's.")
@click.option("--storage-area", metavar="NAME", help="The station's by default.")
def create(name: str, metadata: tuple[str, ...], station: str | None, storage_area: str | None, **given: Any) -> None:
    """Make an experiment and its directories."""
    client = common.client(station=station)
    if storage_area is not None:
        given["storage_area_uid"] = common.storage_area(client, storage_area).uid
    new = common.build(
        NewExperiment,
        name=name,
        station=client.station_name or client.station().name,
        metadata=common.key_values(metadata),
        **_typed(given),
    )
    made = client.experiments.create(new)
    if not made.directory:
        output.note("the site cannot be reached: the experiment waits at the station, and its files with it")
    output.record(made, FIELDS)


@click.command("list")
@click.argument("text", required=False)
@STATION
@click.option("--deleted", is_flag=True, help="Deleted ones too, for managers of the station.")
def list_(text: str | None, station: str | None, deleted: bool) -> None:
    """List the experiments that you may see, newest first; with TEXT those with it in name, title, proposal or PI."""
    client = common.client(station=station)
    query = common.build(ExperimentQuery, text=text, station=client.station_name, with_deleted=deleted, limit=1000)
    output.rows(client.experiments.list(query), COLUMNS)


@click.command()
@click.argument("name", required=False)
@STATION
def show(name: str | None, station: str | None) -> None:
    """Show an experiment, its people and files in numbers."""
    client = common.client(station=station)
    found = common.experiment(client, name)
    people = client.experiments.people(found.uid)
    files, fault = _files(client, found)
    if output.is_json():
        shown = [member.model_dump(mode="json") for member in people]
        age = {} if client.away.as_of is None else {"as_of": client.away.as_of}
        output.data({**found.model_dump(mode="json"), "people": shown, "files": files, **age})
        return
    output.record(found, FIELDS)
    output.pairs([*_by_role(people), *files.items()])
    if fault:
        output.note(fault)


@click.command()
@click.argument("name")
@_options
@click.option("--forget", metavar="KEY", multiple=True, help="Remove this metadata.")
def update(name: str, metadata: tuple[str, ...], station: str | None, forget: tuple[str, ...], **given: Any) -> None:
    """Change an experiment; what is not given stays."""
    client = common.client(station=station)
    values = _typed(given)
    if metadata or forget:
        values["metadata"] = {**common.key_values(metadata), **dict.fromkeys(forget)}
    if not values:
        raise InvalidError("say what to change, such as --title TEXT or key:value")
    found = common.experiment(client, name)
    output.record(client.experiments.update(found.uid, common.build(ExperimentChange, **values)), FIELDS)


@click.command()
@click.argument("name")
@STATION
@YES
def delete(name: str, station: str | None, yes: bool) -> None:
    """Hide an experiment. Its files stay, and its name is not given again."""
    client = common.client(station=station)
    found = common.experiment(client, name)
    files, fault = _files(client, found)
    count = f"{files['files']} files, {files['size']}" if files else fault
    output.confirm(f'Hide experiment "{found.name}" of {found.station} ({count})?', yes=yes)
    output.record(client.experiments.delete(found.uid), COLUMNS)


@click.command()
@click.argument("name", required=False)
@STATION
@click.option("--none", "is_none", is_flag=True, help="Mean none any more.")
def use(name: str | None, station: str | None, is_none: bool) -> None:
    """Make an experiment the one that commands mean; without NAME, show which."""
    client = common.client(station=station)
    kept = client.logins.get(client.profile_name) or Profile(url=client.url)
    if common.is_bound(client) and (is_none or name not in (None, kept.experiment)):
        raise ConflictError(f'this login is for experiment "{kept.experiment}" only: log out first')
    if name is None and not is_none:
        output.say(kept.experiment or "commands mean no experiment: `dm experiment use NAME`")
        return
    found = None if name is None or is_none else client.experiments.get(name)
    change = {"experiment": found.name, "station": found.station} if found else {"experiment": ""}
    client.logins.put(client.profile_name, kept.model_copy(update=change))
    output.say(f"commands mean {found.name} of {found.station} now." if found else "commands mean no experiment now.")


@click.command("add-user")
@click.argument("name")
@click.argument("usernames", metavar="USERNAME...", nargs=-1, required=True)
@STATION
@click.option("--role", type=click.Choice(common.values(EXPERIMENT_ROLES)), default=Role.USER.value, show_default=True)
def add_user(name: str, usernames: tuple[str, ...], station: str | None, role: str) -> None:
    """Give people a role in an experiment, in place of the one they held."""
    client = common.client(station=station)
    found = common.experiment(client, name)
    for username in usernames:
        client.experiments.add_user(found.uid, username, Role(role))
    _show_people(client, found)


@click.command("remove-user")
@click.argument("name")
@click.argument("usernames", metavar="USERNAME...", nargs=-1, required=True)
@STATION
def remove_user(name: str, usernames: tuple[str, ...], station: str | None) -> None:
    """Take people's role in an experiment away."""
    client = common.client(station=station)
    found = common.experiment(client, name)
    for username in usernames:
        client.experiments.remove_user(found.uid, username)
    _show_people(client, found)


def _typed(given: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if value is not None}


def _files(client: Client, experiment: Experiment) -> tuple[dict[str, Any], str]:
    """Return an experiment's files in numbers, or why they cannot be told: the station may be switched off."""
    try:
        summary = client.files.summary(experiment.uid)
    except DmError as error:
        return {}, f"files are not counted: {error.message}"
    told = {"files": summary.files, "size": output.size(summary.bytes), "verified": summary.verified}
    return {**told, "deleted": summary.deleted}, ""


def _by_role(people: Sequence[Member]) -> list[tuple[str, object]]:
    found: dict[str, list[str]] = {}
    for member in people:
        found.setdefault(str(member.role), []).append(member.username)
    return [(role, ", ".join(found[role])) for role in (Role.PI, Role.MANAGER, Role.USER) if role in found]


def _show_people(client: Client, experiment: Experiment) -> None:
    people = client.experiments.people(experiment.uid)
    output.rows(people, {"username": "username", "name": "full_name", "role": "role"}, empty="nobody has a role")
