"""Bringing a beamline up and down on this machine, and seeing how its services are doing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import BaseModel

from beamkeeper import config
from beamkeeper.cli import output, services
from beamkeeper.cli.app import EXIT_CODES
from beamkeeper.config import Loaded
from beamkeeper.domain.errors import (
    DmError,
    NotAuthenticatedError,
    NotPermittedError,
    SettingsError,
    UnavailableError,
)
from beamkeeper.domain.status import SERVED, Service, Status

if TYPE_CHECKING:
    from beamkeeper.client import Client

START_TIMEOUT_S = 30.0
CUT_OFF_S = 20.0
"""A service that hears of changes asks every five seconds; this long without an answer is worth a word."""

PATH = click.Path(path_type=Path)
DATA = click.option("--data", type=PATH, metavar="DIR", help="The data directory.")
CONFIG = click.option("--config", "file", type=PATH, metavar="FILE", help="The file of settings.")
YES = click.option("--yes", is_flag=True, help="Do not ask.")


def load(file: Path | None, data: Path | None) -> Loaded:
    """Return the settings that the options name."""
    return config.load(file, overrides={"data_dir": data})


class Row(BaseModel):
    """How one service is doing, or why that cannot be told."""

    service: Service
    is_up: bool
    url: str
    status: Status | None = None
    message: str = ""


@click.command()
@DATA
@CONFIG
@click.option("--foreground", is_flag=True, help="Do not return; write to the terminal. For systemd and containers.")
def up(data: Path | None, file: Path | None, foreground: bool) -> None:
    """Bring a beamline up on this machine, and return when its services answer.

    On an empty data directory this makes the databases, a storage area and an administrator, who is logged in.
    """
    loaded = load(file, data)
    was_running = services.running(loaded) is not None
    if not was_running:
        services.refuse_taken_ports(loaded)
    if foreground and not was_running:
        services.become("up", loaded)
    begin = services.log_size(loaded.settings.data_dir)
    if not was_running:
        services.ask("up", loaded, "--detach")
    # Large, so it is read while the services start, and not before.
    from beamkeeper.cli.operator_login import log_in

    if fault := _wait_until_up(loaded, has_begun_now=not was_running):
        why = services.last_words(loaded.settings.data_dir, begin)
        if not was_running:
            services.stop(loaded)  # a beamline that is half up helps nobody
        raise UnavailableError(
            f"{fault}{': ' if why else ''}{why} (log: {services.log_file(loaded.settings.data_dir)})"
        )
    username, waiting = log_in(loaded)
    _say_where(loaded, was_running=was_running, username=username)
    if waiting:
        output.note(waiting)


@click.command()
@DATA
@CONFIG
def down(data: Path | None, file: Path | None) -> None:
    """Stop the beamline that runs on this machine. What is on its way goes on at the next start."""
    loaded = load(file, data)
    was_running = services.stop(loaded)
    if output.is_json():
        output.data({"was_running": was_running})
    elif was_running:
        output.say("stopped.")
    else:
        output.say(f"nothing runs on {loaded.settings.data_dir}.")


@click.command()
@DATA
@CONFIG
def status(data: Path | None, file: Path | None) -> int:
    """Show how the services are doing; ends with status 8 when one does not answer."""
    options = click.get_current_context().find_root().obj or {}
    with _client(load(file, data), options) as client, ThreadPoolExecutor(len(Service)) as pool:
        rows = list(pool.map(lambda service: _row(client, service), Service))
    output.rows(
        rows,
        {
            "service": "service",
            "state": lambda row: "up" if row.is_up else "down",
            "url": "url",
            "version": _of("version"),
            "uptime": lambda row: _duration(row.status.uptime_s) if row.status else "",
            "database": _of("database"),
            "unfinished": lambda row: _queues(row.status.queues) if row.status else "",
            "oldest": lambda row: _duration(row.status.oldest_unfinished_s) if row.status else "",
            "message": _message,
        },
    )
    return 0 if all(row.is_up for row in rows) else EXIT_CODES["unavailable"]


@click.command()
@click.argument(
    "names", metavar="SERVICE...", nargs=-1, required=True, type=click.Choice([str(name) for name in SERVED])
)
@DATA
@CONFIG
def serve(names: tuple[str, ...], data: Path | None, file: Path | None) -> None:
    """Run some services in the foreground, as systemd and containers want it; apart, on several machines."""
    services.become("run", load(file, data), *names)


@click.command()
@DATA
@CONFIG
def db_upgrade(data: Path | None, file: Path | None) -> None:
    """Bring the databases to this version's schema; makes the tables where there are none."""
    _tell(services.call("db-upgrade", load(file, data)))


@click.command()
@click.option("--to", "target", required=True, type=PATH, metavar="FILE", help="Settings that name the new databases.")
@DATA
@CONFIG
def db_copy(target: Path, data: Path | None, file: Path | None) -> None:
    """Copy each database to the empty one that another file of settings names, such as SQLite to PostgreSQL."""
    config.load(target)
    _tell(services.call("db-copy", load(file, data), "--to", str(target.absolute())))


@click.command()
@click.argument("directory", metavar="DIR", type=PATH)
@DATA
@CONFIG
def backup(directory: Path, data: Path | None, file: Path | None) -> None:
    """Save the databases and the settings into DIR, which must be new or empty. The beamline may run."""
    _tell(services.call("backup", load(file, data), str(directory.absolute())))


@click.command()
@click.argument("directory", metavar="DIR", type=PATH)
@DATA
@CONFIG
@YES
def restore(directory: Path, data: Path | None, file: Path | None, yes: bool) -> None:
    """Bring back the databases that `dm backup` saved into DIR, in place of what there is.

    What there is in them is saved first, into a directory before-restore-TIME in the data directory, from which it can
    be restored in turn. The databases change together, or not at all. Files of experiments are not touched.
    """
    loaded = load(file, data)
    question = f"Restore the databases of {loaded.settings.data_dir} from {directory}, in place of what there is now?"
    output.confirm(question, yes=yes)
    _tell(services.call("restore", loaded, str(directory.absolute())))


def _tell(text: str) -> None:
    lines = text.splitlines()
    if output.is_json():
        output.data({"told": lines})
    for line in lines:
        output.say(line)


def _wait_until_up(loaded: Loaded, *, has_begun_now: bool) -> str:
    """Wait until all services answer; return why they do not, or nothing."""
    waiting, deadline = services.served(loaded), time.monotonic() + START_TIMEOUT_S
    while waiting := [service for service in waiting if not services.answers(loaded, service)]:
        starts = services.restarts(loaded.settings.data_dir)
        if starts is None or (has_begun_now and starts > 0):
            return "the beamline did not start"
        if time.monotonic() > deadline:
            return f"no answer within {START_TIMEOUT_S:g} s from {', '.join(waiting)}"
        time.sleep(0.05)
    return ""


def _say_where(loaded: Loaded, *, was_running: bool, username: str) -> None:
    settings = loaded.settings
    urls = {str(name): settings.url(name) for name in services.served(loaded)}
    if output.is_json():
        facts = {"was_running": was_running, "data_dir": settings.data_dir, "urls": urls, "logged_in": username or None}
        output.data(facts)
        return
    output.say(f'The beamline "{settings.station.name}" {"is up already" if was_running else "is up"}.')
    output.pairs(
        [
            *urls.items(),
            ("data", settings.data_dir),
            ("settings", loaded.file or "defaults"),
            ("log", services.log_file(settings.data_dir)),
        ]
    )
    if username:
        output.say(f"You are logged in as {username}.")
    output.say("`dm status` tells how it is doing, `dm down` stops it.")


def _client(loaded: Loaded, options: Mapping[str, Any]) -> Client:
    """Return a client of the beamline that the options or the profile name, or else of this machine's.

    It asks once: that a service does not answer is an answer here.
    """
    from beamkeeper.client import Client

    local = {service: loaded.settings.url(service) for service in Service}
    ca = loaded.settings.tls.ca_file or None
    named: dict[str, Any] = {"profile": options.get("profile"), "station": options.get("station"), "tries": 1}
    try:
        client = Client(options.get("url"), **named)
    except SettingsError:
        return Client(local[Service.STORAGE], urls=local, ca=ca, station=loaded.settings.station.name, tries=1)
    if client.url != local[Service.STORAGE]:
        return client
    client.close()
    # Of this machine the addresses are known, also while storage, which would tell them, is down.
    return Client(client.url, urls=local, ca=ca, **named)


def _row(client: Client, service: Service) -> Row:
    url = ""
    try:
        url = client.http(service).url
        return Row(service=service, is_up=True, url=url, status=client.status(service))
    except (NotAuthenticatedError, NotPermittedError) as error:
        return Row(service=service, is_up=True, url=url, message=error.message)
    except DmError as error:
        return Row(service=service, is_up=False, url=url, message=error.message)


def _of(field: str) -> Any:
    return lambda row: getattr(row.status, field) if row.status else ""


def _message(row: Row) -> str:
    if row.status and row.status.unsent:
        return _unsent(row.status)
    if row.status and row.status.paused:
        return "; ".join(pause.sentence for pause in row.status.paused)
    if row.status and (lines := _following(row.status)):
        return "; ".join(lines)
    if row.status and row.status.last_error:
        return f"{output.safe(row.status.last_error.at)}: {row.status.last_error.message}"
    return row.message


def _unsent(status: Status) -> str:
    """Say what was made here and waits for the site, before what else there is to say."""
    lines = [f"{status.unsent} experiments that were made here wait for the site"]
    if status.unsent_refused:
        lines = [f"the site refuses {status.unsent_refused} experiments that were made here: `dm experiment unsent`"]
    return "; ".join([*lines, *(pause.sentence for pause in status.paused), *_following(status)])


def _following(status: Status) -> list[str]:
    """Return how the site's catalogue follows this one, or this one those of stations, where it is worth a word."""
    lines = []
    if status.mirror_behind_s is not None and status.mirror_behind_s > CUT_OFF_S:
        lines.append(f"cut off from the site's storage: not heard for {_duration(status.mirror_behind_s)}")
    if (site := status.site) is not None and site.cut_off_since is not None:
        lines.append(f"cut off from the site's catalogue since {output.safe(site.cut_off_since)}: {site.message}")
    elif site is not None and site.is_listing:
        lines.append("the whole catalogue is being sent to the site's")
    elif site is not None and site.message:
        lines.append(site.message)
    for station in dict.fromkeys(each.station for each in status.followers):
        mine = [each for each in status.followers if each.station == station]
        is_listing = any(each.is_listing for each in mine)
        state = "is being taken as a whole" if is_listing else f"{sum(each.waiting for each in mine)} changes wait"
        lines.append(f"{station}: heard {output.safe(min(each.heard_at for each in mine))}, {state}")
        lines += [
            f"{each.unlisted} {each.kind} of {station} are not in its own catalogue" for each in mine if each.unlisted
        ]
        lines += [
            f"{each.refused} {each.kind} of {station} were refused: {each.message}" for each in mine if each.refused
        ]
    return lines


def _queues(queues: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in queues.items() if count)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [
        f"{days} d" if days else "",
        f"{hours} h" if hours else "",
        f"{minutes} min" if minutes and not days else "",
    ]
    return " ".join(part for part in parts if part) or f"{rest} s"
