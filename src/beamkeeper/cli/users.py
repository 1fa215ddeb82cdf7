"""`dm user`: accounts, their passwords and their roles."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic import SecretStr

from beamkeeper.cli import common, output
from beamkeeper.client import Client
from beamkeeper.domain.users import STATION_ROLES, NewGrant, NewUser, Role, UserChange

COLUMNS = {
    "username": "username",
    "name": "full_name",
    "email": "email",
    "badge": "badge",
    "from": "source",
    "shared": lambda user: "shared" if user.is_shared else "",
    "state": lambda user: "" if user.is_enabled else "disabled",
    "since": "created_at",
}
FILE = click.Path(path_type=Path)
PASSWORD_OTHERWISE = "name a private file with --password-file"  # noqa: S105 - a sentence


@click.command()
@click.argument("username")
@click.option("--name", "full_name", default="", help="The person's full name.")
@click.option("--email", default="")
@click.option("--badge", default="", help="The facility's number of the person.")
@click.option("--shared", is_flag=True, help="Several people use it: a login is for one experiment, and ends with it.")
@click.option("--administrator", is_flag=True, help="May administer the site.")
@click.option("--directory", default="", metavar="NAME", help="Of which directory it is: that checks its password.")
@click.option("--password-file", type=FILE, metavar="FILE", help="A file (mode 0600) with the password.")
@click.option("--no-password", is_flag=True, help="Nobody can log in, until a password is set.")
def create(
    *,
    username: str,
    full_name: str,
    email: str,
    badge: str,
    shared: bool,
    administrator: bool,
    directory: str,
    password_file: Path | None,
    no_password: bool,
) -> None:
    """Make an account. Its password is asked for, or taken from a private file."""
    client = common.client()
    password = None if no_password or directory else SecretStr(_new_password(username, password_file))
    new = common.build(
        NewUser,
        username=username,
        password=password,
        full_name=full_name,
        email=email,
        badge=badge,
        source=directory,
        is_shared=shared,
        is_administrator=administrator,
    )
    output.record(client.users.create(new), COLUMNS)


@click.command("list")
def list_() -> None:
    """List accounts, by name."""
    output.rows(common.client().users.list(), COLUMNS)


@click.command()
@click.argument("username")
def show(username: str) -> None:
    """Show an account and its roles."""
    client = common.client()
    user, grants = client.users.get(username), client.users.grants(username)
    if output.is_json():
        output.data({**user.model_dump(mode="json"), "grants": [grant.model_dump(mode="json") for grant in grants]})
        return
    output.record(user, COLUMNS)
    for grant in grants:
        output.say(common.role(client, grant))


@click.command()
@click.argument("username")
@click.option("--yes", is_flag=True, help="Do not ask.")
def disable(username: str, yes: bool) -> None:
    """Disable an account; its sessions end at once."""
    client = common.client()
    client.users.get(username)
    output.confirm(f'Disable the account "{username}" and end its sessions?', yes=yes)
    output.record(client.users.change(username, UserChange(is_enabled=False)), COLUMNS)


@click.command()
@click.argument("username")
def enable(username: str) -> None:
    """Enable an account again."""
    output.record(common.client().users.change(username, UserChange(is_enabled=True)), COLUMNS)


@click.command()
@click.argument("username", required=False)
@click.option("--password-file", type=FILE, metavar="FILE", help="A file (mode 0600) with the new password.")
@click.option("--present-file", type=FILE, metavar="FILE", help="A file (mode 0600) with one's present password.")
def password(username: str | None, password_file: Path | None, present_file: Path | None) -> None:
    """Set a password: one's own, with the present one, or as administrator another's. Other sessions end at once."""
    client = common.client()
    who = client.sessions.whoami()
    own = who.user.username if who.user else ""
    present = _present(present_file) if username in (None, own) else None
    name = username or own
    client.users.set_password(name, _new_password(name, password_file), present=present)
    output.say(f'the password of "{name}" is set; its other sessions have ended.')


def _role_options(function: Callable[..., None]) -> Callable[..., None]:
    for decorate in (
        click.option("--station", metavar="NAME", help="Of which station."),
        click.argument("role", type=click.Choice(common.values({Role.ADMINISTRATOR, *STATION_ROLES}))),
        click.argument("username"),
    ):
        function = decorate(function)
    return function


@click.command()
@_role_options
def grant(username: str, role: str, station: str | None) -> None:
    """Give a role of the site or of a station. Roles in an experiment: `dm experiment add-user`."""
    client = common.client()
    client.users.grant(_grant(client, username, role, station))
    output.say(f'"{username}" is {role} of {station or "the site"}.')


@click.command()
@_role_options
def revoke(username: str, role: str, station: str | None) -> None:
    """Take a role of the site or of a station away."""
    client = common.client()
    client.users.revoke(_grant(client, username, role, station))
    output.say(f'"{username}" is no longer {role} of {station or "the site"}.')


def _grant(client: Client, username: str, role: str, station: str | None) -> NewGrant:
    options: dict[str, Any] = click.get_current_context().find_root().obj or {}
    name = None if role == Role.ADMINISTRATOR else station or options.get("station")
    uid = client.stations.get(name).uid if name else None
    return common.build(NewGrant, username=username, role=role, station_uid=uid)


def _new_password(username: str, file: Path | None) -> str:
    if file is not None:
        return common.read_secret(file)
    return common.ask_secret(f"New password of {username}", PASSWORD_OTHERWISE, confirm=True)


def _present(file: Path | None) -> str | None:
    if file is not None:
        return common.read_secret(file)
    given = os.environ.get("BEAMKEEPER_PASSWORD")
    if given is not None:
        return given
    return common.ask_secret(
        "Your present password (empty if you have none)", "name a private file with --present-file"
    )
