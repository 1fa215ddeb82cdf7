"""Giving a station commands by way of the site, for people whom its firewall does not let in."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import click
from uuid6 import uuid7

from beamkeeper.cli import acquiring, common, output
from beamkeeper.cli.app import EXIT_CODES, EXIT_WANTING
from beamkeeper.client import Client
from beamkeeper.domain.acquisition import Acquisition, NewDaq, NewUpload
from beamkeeper.domain.commands import Command, CommandKind, CommandState, NewCommand
from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.experiments import Experiment

PATIENCE_S = 60.0

VIA_SITE = click.option(
    "--via-site", is_flag=True, help="Let the command wait at the site until the station collects it."
)
COLUMNS = {
    "command": "uid",
    "what": "kind",
    "state": "state",
    "given by": "asked_by",
    "given": "created_at",
    "ended": "ended_at",
    "expires": "expires_at",
    "message": "message",
}


def start(client: Client, experiment: Experiment, new: NewDaq | NewUpload) -> int:
    """Start a DAQ or upload by way of the site."""
    kind = CommandKind.START_DAQ if isinstance(new, NewDaq) else CommandKind.START_UPLOAD
    given: dict[str, Any] = {"daq" if isinstance(new, NewDaq) else "upload": new.model_copy(update={"uid": None})}
    return _give(client, experiment, kind=kind, **given)


def stop(client: Client, experiment: str | None, uid: str | None, *, now: bool) -> int:
    """Stop a DAQ or upload by way of the site."""
    if uid is None:
        raise InvalidError("say which: by way of the site it is not known what runs; `dm station commands` lists uids")
    meant = common.experiment(client, experiment)
    return _give(client, meant, kind=CommandKind.STOP, acquisition_uid=_uid(uid), now=now)


def _uid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise InvalidError(f'"{text}" is no uid: `dm station commands` lists those of what was started') from error


def _give(client: Client, experiment: Experiment, **given: Any) -> int:
    new = NewCommand(uid=UUID(bytes=uuid7().bytes), experiment_uid=experiment.uid, **given)
    client.commands.give(experiment.station, new)
    return _tell(client.commands.wait(new.uid, PATIENCE_S))


def _tell(command: Command) -> int:
    if output.is_json():
        output.data(command)
    elif command.state is CommandState.DONE:
        done = Acquisition.model_validate(command.answer)
        output.say(f"{acquiring.NOUNS[done.kind]} {done.uid} of experiment {done.experiment} is {done.state}.")
    elif command.state is CommandState.WAITING:
        output.say(
            f"station {command.station} has not collected command {command.uid} yet: it waits until "
            f"{output.safe(command.expires_at)}; `dm station commands {command.station}` tells what becomes of it."
        )
    else:
        output.note(f"station {command.station} refused: {command.message}" if command.message else "it has expired.")
    if command.state is CommandState.REFUSED:
        return EXIT_CODES.get(command.code, EXIT_WANTING)
    return 0 if command.state is CommandState.DONE else EXIT_WANTING


@click.command()
@click.argument("name", metavar="STATION")
def commands(name: str) -> None:
    """List what a station was asked to do by way of the site, newest first; for its staff all, else one's own."""
    output.rows(common.client().commands.list(name), COLUMNS, empty="nothing was asked of it by way of the site")
