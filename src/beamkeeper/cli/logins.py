"""`dm login`, `dm logout` and `dm whoami`."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import click
from pydantic import SecretStr

from beamkeeper.cli import common, identities, output
from beamkeeper.client import Client
from beamkeeper.client.logins import Profile
from beamkeeper.client.places import known_stations
from beamkeeper.domain.errors import DmError, InvalidError, NotAuthenticatedError
from beamkeeper.domain.users import OFFLINE_PREFIX, NewSession

PASSWORD_OTHERWISE = "set BEAMKEEPER_PASSWORD, or name a private file with --password-file"  # noqa: S105 - a sentence


@click.command()
@click.argument("username", required=False)
@click.option(
    "--oidc",
    is_flag=False,
    flag_value="",
    metavar="[PROVIDER]",
    help="In a browser, by an identity provider; which one, where the site has several.",
)
@click.option("--experiment", metavar="NAME", help="What for, on an account that several people share.")
@click.option(
    "--password-file", type=click.Path(path_type=Path), metavar="FILE", help="A file (mode 0600) with the password."
)
@click.option(
    "--ca",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    metavar="FILE",
    help="The site's certificate authority (PEM); kept with the login.  [env: BEAMKEEPER_CA]",
)
def login(
    username: str | None, oidc: str | None, experiment: str | None, password_file: Path | None, ca: str | None
) -> None:
    """Log in; later commands go on with it, until it expires or `dm logout`.

    The password is asked for, or taken from BEAMKEEPER_PASSWORD or a private file; never from the command line.
    """
    if oidc is not None and (username or experiment or password_file):
        raise InvalidError("--oidc goes alone: the provider says who you are")
    client = common.client(ca=ca)
    if oidc is not None:
        _keep(client, identities.log_in(client, oidc))
        return
    name = username or client.profile.username or _ask_name()
    password = _password(name, password_file)
    _keep(client, client.sessions.login(name, password, experiment=experiment))
    if client.away.fault is None:
        with suppress(DmError):  # one is logged in: that the station is away, or wants none of it, is no error
            client.sessions.prepare_offline(password)


def _keep(client: Client, new: NewSession) -> None:
    """Keep a login, for the commands to come."""
    bound = new.session.experiment or ""
    client.logins.put(
        client.profile_name,
        Profile(
            url=client.url,
            username=new.session.username,
            token=SecretStr(new.token),
            expires_at=new.session.expires_at,
            experiment=bound or (client.profile.experiment if client.profile.username == new.session.username else ""),
            experiment_uid=str(new.session.experiment_uid or ""),
            station=client.profile.station,
            mirror=client.credentials.mirror,
            ca=client.ca or "",
            stations=client.profile.stations,
        ),
    )
    with suppress(DmError):  # who cannot hear it now asks when it is needed
        known_stations(client)
    _tell(client, new)


@click.command()
def logout() -> None:
    """End the session, here and at the services."""
    client = common.client()
    if client.credentials.token is None:
        output.say("nobody was logged in.")
        return
    try:
        if not client.credentials.token.startswith(OFFLINE_PREFIX):  # no service keeps such a login
            client.sessions.logout()
    except NotAuthenticatedError:
        client.credentials.token = None  # it had ended before
    if client.logins.get(client.profile_name) is not None:
        kept = client.profile.model_copy(update={"token": None, "expires_at": None, "experiment_uid": ""})
        client.logins.put(client.profile_name, kept)
    output.say(f"{client.profile.username or 'the session'} is logged out of {client.url}.")


@click.command()
def whoami() -> None:
    """Show who is logged in, where, and with which roles."""
    client = common.client()
    if client.credentials.token is None and client.credentials.renew is None:
        raise NotAuthenticatedError(f"nobody is logged in at {client.url}: log in with `dm login`")
    who = client.sessions.whoami()
    if output.is_json():
        output.data(who)
        return
    session = who.session
    output.pairs(
        [
            ("user", who.user.username if who.user else "the services of a station"),
            ("name", who.user.full_name if who.user else ""),
            ("at", client.url),
            ("profile", client.profile_name),
            ("experiment", f"{session.experiment} only" if session and session.experiment else ""),
            ("roles", ", ".join(common.role(client, grant) for grant in who.grants) or "none"),
            ("until", session.expires_at if session else ""),
        ]
    )


def _ask_name() -> str:
    return str(click.prompt("Username", default=os.environ.get("USER") or None, err=True))


def _password(username: str, file: Path | None) -> str:
    if file is not None:
        return common.read_secret(file)
    return os.environ.get("BEAMKEEPER_PASSWORD") or common.ask_secret(f"Password of {username}", PASSWORD_OTHERWISE)


def _tell(client: Client, new: NewSession) -> None:
    session = new.session
    if output.is_json():
        output.data(session)  # without the token, which is kept in the file of logins
        return
    if new.token.startswith(OFFLINE_PREFIX):
        output.note("the site cannot be reached: this login counts at the station alone, with the rights last heard of")
    bound = f", for experiment {session.experiment} only" if session.experiment else ""
    output.say(f"{session.username} is logged in at {client.url}{bound}, until {output.safe(session.expires_at)}.")
