"""What commands share: the client that the options name, and which experiment is meant."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import BaseModel, ValidationError

from beamkeeper.cli import output
from beamkeeper.client import Client
from beamkeeper.domain.errors import DmError, InvalidError, NotFoundError, SettingsError
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.storage import StorageArea
from beamkeeper.domain.users import Grant

ModelT = TypeVar("ModelT", bound=BaseModel)


def client(*, station: str | None = None, ca: str | None = None) -> Client:
    """Return the client that the options for all commands name; `station` is a command's own option."""
    options: dict[str, Any] = click.get_current_context().find_root().obj or {}
    opened = Client(
        options.get("url"), profile=options.get("profile"), station=station or options.get("station"), ca=ca
    )
    if is_bound(opened):
        output.note(f"{opened.profile.username}, for experiment {opened.profile.experiment} only")
    click.get_current_context().find_root().call_on_close(lambda: _close(opened))
    return opened


def is_bound(opened: Client) -> bool:
    """Whether the login is one of a shared account, which is for one experiment only."""
    kept = opened.profile.token
    return bool(opened.profile.experiment_uid and kept and opened.credentials.token == kept.get_secret_value())


def _close(opened: Client) -> None:
    """Close a client; the next command is told of the changes that this one made."""
    opened.close()
    if (heard_at := opened.away.as_of) is not None:
        output.note(f"the site cannot be reached: this is as the station heard of it last, {output.safe(heard_at)}")
    kept = opened.logins.get(opened.profile_name)
    if kept is not None and kept.url.rstrip("/") == opened.url and opened.credentials.mirror != kept.mirror:
        with suppress(SettingsError):  # where it cannot be kept, the next command may have to be given twice
            opened.logins.put(opened.profile_name, kept.model_copy(update={"mirror": opened.credentials.mirror}))


def experiment(of: Client, name: str | None) -> Experiment:
    """Return the experiment that is meant: by name, or the one of `dm experiment use`."""
    meant = name or os.environ.get("BEAMKEEPER_EXPERIMENT") or of.profile.experiment
    if not meant:
        raise InvalidError("say which experiment: --experiment NAME, or once `dm experiment use NAME`")
    return of.experiments.get(meant)


def storage_area(of: Client, name: str) -> StorageArea:
    """Return a storage area by its name."""
    areas = of.storage_areas.list()
    for area in areas:
        if area.name == name:
            return area
    raise NotFoundError(f'there is no storage area "{name}": there are {", ".join(a.name for a in areas) or "none"}')


def role(of: Client, grant: Grant) -> str:
    """Return a role with what it is of, by name where one may see it."""
    try:
        if grant.experiment_uid is not None:
            return f"{grant.role} of experiment {of.experiments.by_uid(grant.experiment_uid).name}"
        if grant.station_uid is not None:
            names = {station.uid: station.name for station in of.stations.list()}
            return f"{grant.role} of station {names.get(grant.station_uid, grant.station_uid)}"
    except DmError:
        return f"{grant.role} of {grant.experiment_uid or grant.station_uid}"
    return str(grant.role)


def build(model: type[ModelT], **values: Any) -> ModelT:
    """Return a model of what was typed; what it refuses becomes one sentence."""
    try:
        return model(**values)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in fault["loc"]).replace("_", "-")
        reason = fault["msg"].removeprefix("Value error, ")
        given = "" if fault["type"] == "missing" else f" {str(fault['input'])[:80]!r}"
        raise InvalidError(f"{where}{given}: {reason}") from error


def read_secret(file: Path) -> str:
    """Return a secret from the first line of a file that nobody else may read."""
    try:
        with file.open() as opened:
            if stat.S_IMODE(os.fstat(opened.fileno()).st_mode) & 0o077:
                raise SettingsError(f"{file} can be read by others: make it private with `chmod 600`")
            return opened.readline().rstrip("\r\n")
    except OSError as error:
        raise InvalidError(
            f"cannot read {file} ({error.strerror}): name a file with the secret in its first line"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidError(f"{file} is no text: name a file with the secret in its first line") from error


def ask_secret(question: str, otherwise: str, *, confirm: bool = False) -> str:
    """Ask for a secret without showing it; `otherwise` says how to give it where nobody can be asked."""
    if not sys.stdin.isatty():
        raise InvalidError(f"there is no terminal to ask for the {question.lower()} at: {otherwise}")
    return str(click.prompt(question, hide_input=True, confirmation_prompt=confirm, err=True))


def values(of: Iterable[StrEnum]) -> list[str]:
    """Return the words that one may choose from: click would take the names of an enumeration instead."""
    return sorted(member.value for member in of)


class Moment(click.ParamType[datetime]):
    """A date or a time on this machine's clock, such as 2026-11-30 or 2026-11-30T12:00, or with a zone of its own."""

    name = "date"

    def __init__(self, *, is_end: bool = False) -> None:
        self.is_end = is_end

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time; a date alone is its beginning, or its end where `is_end`."""
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no date: write it like 2026-11-30 or 2026-11-30T12:00", param, ctx)
        if self.is_end and len(value) <= len("2026-11-30"):
            moment += timedelta(days=1)
        return moment.astimezone()


def key_values(words: tuple[str, ...]) -> dict[str, Any]:
    """Return trailing key:value words as metadata, split at the first colon."""
    found: dict[str, Any] = {}
    for word in words:
        key, colon, value = word.partition(":")
        if not key or not colon:
            raise InvalidError(f'"{word}" is not key:value')
        found[key] = value
    return found
