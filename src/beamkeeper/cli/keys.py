"""`dm key`: API keys for instruments and scripts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from beamkeeper.cli import common, output
from beamkeeper.domain.errors import InvalidError, NotFoundError
from beamkeeper.domain.users import ApiKey, NewKey, Scope

COLUMNS = {
    "name": "name",
    "of": "username",
    "scopes": lambda key: " ".join(sorted(key.scopes)),
    "experiment": lambda key: key.experiment or "",
    "until": "expires_at",
    "uid": "uid",
}
USER = click.option("--user", "username", metavar="NAME", help="Whose key; another's is for administrators.")
DAYS = 90


@click.command()
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, required=True, type=click.Choice(common.values(Scope)), help="What it is for."
)
@click.option("--expires", type=common.Moment(is_end=True), help=f"When it ends; in {DAYS} days unless given.")
@click.option("--experiment", metavar="NAME", help="The only experiment that it may touch.")
@click.option("--file", type=click.Path(path_type=Path), help="Write the key to a new file that only you can read.")
@USER
def create(
    *,
    name: str,
    scopes: tuple[str, ...],
    expires: datetime | None,
    experiment: str | None,
    file: Path | None,
    username: str | None,
) -> None:
    """Make a key for an instrument or a script. It is shown this once: set BEAMKEEPER_TOKEN to it.

    The key may do what its owner may, of what its scopes name.
    """
    client = common.client()
    new = common.build(
        NewKey,
        name=name,
        scopes=scopes,
        expires_at=expires or datetime.now(UTC) + timedelta(days=DAYS),
        experiment_uid=common.experiment(client, experiment).uid if experiment else None,
        username=username,
    )
    kept = None if file is None else _opened(file)  # first: what is shown once must not be lost
    made = client.keys.create(new)
    if kept is not None:
        with os.fdopen(kept, "w") as opened:
            opened.write(f"{made.token}\n")
        output.record(made.key, COLUMNS)
    elif output.is_json():
        output.data(made)
    else:
        output.record(made.key, COLUMNS)
        output.say(f"key: {made.token}")


@click.command("list")
@USER
def list_(username: str | None) -> None:
    """List the keys that hold."""
    output.rows(common.client().keys.list(username), COLUMNS, empty="no keys")


@click.command()
@click.argument("name")
@USER
def revoke(name: str, username: str | None) -> None:
    """Take a key back, by its name or uid; whoever uses it is refused from now on."""
    client = common.client()
    key = _named(client.keys.list(username), name)
    client.keys.revoke(key.uid)
    output.say(f'the key "{key.name}" of {key.username} ends now.')


def _named(keys: Sequence[ApiKey], name: str) -> ApiKey:
    for key in keys:
        if name in (key.name, str(key.uid)):
            return key
    raise NotFoundError(f'there is no key "{name}": `dm key list` shows those that hold')


def _opened(file: Path) -> int:
    try:
        return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise InvalidError(f"cannot make {file} ({error.strerror}): name a file that is not there yet") from error
