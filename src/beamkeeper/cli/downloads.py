"""`dm download` and `dm link`: getting files back, and letting people have them who have no account."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from uuid import UUID

import click
from pydantic import BaseModel
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from beamkeeper.cli import common, output
from beamkeeper.cli.app import EXIT_WANTING
from beamkeeper.cli.files import LIMIT, count_of
from beamkeeper.client.fetching import Fetched, Fetcher, Got
from beamkeeper.client.landing import Landing
from beamkeeper.domain.downloads import LONGEST_LINK_DAYS, Delivery
from beamkeeper.domain.errors import NotFoundError
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import REGISTER_LIMIT, FileQuery
from beamkeeper.domain.names import from_b64, show_path

EXPERIMENT = click.argument("experiment", metavar="EXPERIMENT")
PATTERN = click.argument("pattern", required=False)
LINK_COLUMNS = {
    "link": "uid",
    "state": "state",
    "files": "files",
    "size": lambda link: output.size(link.size),
    "made by": "created_by",
    "made": "created_at",
    "expires": "expires_at",
    "used": "downloads",
    "last": "last_used_at",
    "note": "note",
}
SHOWN_FAILURES = 20
KEPT_FAILURES = 1000


class Summary(BaseModel):
    """What a download brought."""

    files: int = 0
    bytes: int = 0
    same: int = 0
    failed: int = 0
    failures: dict[str, str] = {}


@click.command()
@EXPERIMENT
@PATTERN
@click.option("--to", "directory", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Where to.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there and different.")
@click.option("--jobs", type=click.IntRange(1, 32), default=4, show_default=True, help="Files at the same time.")
def download(experiment: str, pattern: str | None, *, directory: Path, overwrite: bool, jobs: int) -> int:
    """Bring the files of an experiment into DIR; with PATTERN those whose path matches (* any characters, ? one).

    Each file gets its name once its checksum is the catalogue's. What was interrupted goes on where it was when the
    command is given again; files that are there already are not sent again. Ends with status 10 when a file is missing.
    """
    client = common.client()
    within = client.experiments.get(experiment)
    query = FileQuery(experiment_uid=within.uid, glob=pattern, limit=REGISTER_LIMIT)
    total = client.files.summary(within.uid).bytes if pattern is None else None
    found = Summary()
    with Landing(directory) as landing, _bar(total) as progress:
        fetcher = Fetcher(
            client.downloads,
            landing,
            overwrite=overwrite,
            progress=progress,
            elsewhere=client.files.verified_elsewhere,
        )
        for each in fetcher.fetch_all(client.files.find(query), jobs):
            _count(found, each)
    return _report(found, within, directory)


@contextmanager
def _bar(total: int | None) -> Iterator[Callable[[int], None]]:
    """Give what is told of bytes as they arrive: a bar on a terminal, nothing elsewhere."""
    console = output.console(stderr=True)
    if output.is_json() or not console.is_terminal:
        yield lambda count: None
        return
    columns = (TextColumn("download"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("download", total=total)
        yield lambda count: progress.advance(task, count)


def _count(found: Summary, each: Fetched) -> None:
    if each.got is Got.FAILED:
        found.failed += 1
        if len(found.failures) < KEPT_FAILURES:
            found.failures[show_path(each.file.relpath)] = each.message
    elif each.got is Got.SAME:
        found.same += 1
    else:
        found.files += 1
        found.bytes += each.file.size


def _report(found: Summary, within: Experiment, directory: Path) -> int:
    if not (found.files or found.same or found.failed):
        raise NotFoundError(f'no file of experiment "{within.name}" is meant: `dm file list` shows what there is')
    if output.is_json():
        output.data(found)
    else:
        same = f", {found.same} were there already" if found.same else ""
        failed = f", {found.failed} FAILED" if found.failed else ""
        output.say(f"{directory}: {count_of(found.files, found.bytes)} downloaded and verified{same}{failed}.")
        for path, why in list(found.failures.items())[:SHOWN_FAILURES]:
            output.note(f"{path}: {why}")
        if found.failed > SHOWN_FAILURES:
            output.note(f"and {found.failed - SHOWN_FAILURES} more: --json lists the first {KEPT_FAILURES}")
    return EXIT_WANTING if found.failed else 0


@click.command()
@EXPERIMENT
@PATTERN
@click.option("--days", type=click.IntRange(1, LONGEST_LINK_DAYS), default=7, show_default=True, help="How long.")
@click.option("--note", default="", help="For whom it is, or why.")
def link(experiment: str, pattern: str | None, *, days: int, note: str) -> None:
    """Make a link to files of an experiment, for people without an account; its address is shown this once.

    Whoever has the address can get just these files, as one tar, in the versions that they have now. It ends after
    --days, when it is revoked, and with your own right to share the experiment.
    """
    client = common.client()
    within = client.experiments.get(experiment)
    query = FileQuery(experiment_uid=within.uid, glob=pattern, limit=REGISTER_LIMIT)
    made = client.downloads.freeze(within.uid, within.name, client.files.find(query))
    if not made.files:
        raise NotFoundError(f'no file of experiment "{within.name}" is meant: `dm file list` shows what there is')
    new, url = client.links.create(made, datetime.now(UTC) + timedelta(days=days), note)
    if output.is_json():
        output.data({"url": url, "link": new})
        return
    output.say(url)
    output.note(
        f"{count_of(made.files, made.bytes)}, until {output.safe(new.expires_at)}; whoever has this address can get "
        f"them: `curl -C - -O ADDRESS`; `dm link revoke {new.uid}` ends it"
    )


@click.command()
@EXPERIMENT
def links(experiment: str) -> None:
    """List the links into an experiment, newest first."""
    client = common.client()
    found = client.links.list(client.experiments.get(experiment).uid)
    output.rows(found, LINK_COLUMNS, empty="no link yet: `dm link create` makes one")


@click.command()
@click.argument("uid", type=click.UUID)
def revoke(uid: UUID) -> None:
    """Revoke a link; what is being sent by it stops within seconds."""
    output.record(common.client().links.revoke(uid), LINK_COLUMNS)


@click.command()
@EXPERIMENT
@click.option("--forbid", is_flag=True, help="Forbid them again; links that exist lead nowhere then.")
def allow(experiment: str, forbid: bool) -> None:
    """Allow links into a proprietary experiment, for its PI and managers of the station."""
    client = common.client()
    decided = client.links.allow(client.experiments.get(experiment).uid, not forbid)
    if output.is_json():
        output.data(decided)
    else:
        output.say(f"links into {experiment} are {'allowed' if decided.is_allowed else 'forbidden'}.")


@click.command()
@EXPERIMENT
@LIMIT
def deliveries(experiment: str, limit: int) -> None:
    """Show who got what of an experiment and how far it came, newest first; for those who lead it."""
    client = common.client()
    found = client.downloads.deliveries(client.experiments.get(experiment).uid)
    columns = {
        "when": "begun_at",
        "who": lambda each: f"{each.username}{' (link)' if each.link_uid else ''}",
        "what": _what,
        "from": "first_byte",
        "to": "end_byte",
        "of": "size",
        "whole": "is_whole",
        "message": "message",
    }
    output.rows(islice(found, limit or None), columns, empty="nothing was delivered yet")


def _what(each: Delivery) -> str:
    return f"archive of set {each.set_uid}" if each.path_b64 is None else show_path(from_b64(each.path_b64))
