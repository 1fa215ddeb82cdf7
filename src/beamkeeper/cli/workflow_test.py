"""`dm workflow test`: a definition on the last files of an experiment, beside the version that is live."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from uuid import UUID

import click

from beamkeeper.cli import common, output, trial_runs
from beamkeeper.cli.files import EXPERIMENT
from beamkeeper.cli.trial_runs import Trial
from beamkeeper.cli.workflows import FILE, read
from beamkeeper.client import Client
from beamkeeper.domain.acquisition import JournalState
from beamkeeper.domain.errors import InvalidError, NotFoundError
from beamkeeper.domain.files import FileOrder, FileQuery
from beamkeeper.domain.names import from_b64, show_path
from beamkeeper.domain.workflows import Definition, InputFile, check, checked_arguments


@click.command("test")
@FILE
@click.argument("arguments", metavar="[KEY:VALUE]...", nargs=-1)
@click.option("--last", type=click.IntRange(1, 1000), default=20, show_default=True, help="On so many files.")
@click.option("--daq", metavar="UID", help="On the last files of this DAQ, where it finds them.")
@click.option("--query", metavar="QUERY", help="On the newest files that this finds, where they are stored.")
@click.option("--on", "paths", metavar="PATH", multiple=True, help="On this file; no service is needed then.")
@click.option("--timeout", "timeout_s", type=float, default=600.0, show_default=True, help="Seconds for one command.")
@EXPERIMENT
def test(
    file: Path,
    arguments: tuple[str, ...],
    *,
    last: int,
    daq: str | None,
    query: str | None,
    paths: tuple[str, ...],
    timeout_s: float,
    experiment: str | None,
) -> None:
    """Try a workflow out on this machine, on the last files: how long it takes, what fails, what is another result.

    Each runs in a private directory that is removed, under your own account, and `dm` does nothing in it. Where the
    station has the workflow already, its present version runs too, and what differs is told.
    """
    definition = read(file)
    check(definition)
    client = None if paths else common.client()
    files = [InputFile(str(Path(path).resolve()), path) for path in paths]
    if client is not None:
        files = list(islice(_files(client, daq, query, experiment), last))
    if not files:
        raise InvalidError("there is no file to try it out on: say --daq, --query or --on")
    live = None if client is None else _live(client, definition)
    values = checked_arguments(definition, common.key_values(arguments)).values
    trials = [trial_runs.try_out(definition, values, one, timeout_s) for one in files]
    before = [] if live is None else [trial_runs.try_out(live, values, one, timeout_s) for one in files]
    _tell(trials, before)
    if any(trial.failure for trial in trials):
        raise click.exceptions.Exit(10)


def _files(client: Client, daq: str | None, query: str | None, experiment: str | None) -> Iterator[InputFile]:
    if daq is not None:
        held = client.daqs.get(UUID(daq))
        entries = client.daqs.entries(held.uid, JournalState.AVAILABLE)
        newest = sorted(entries, key=lambda entry: entry.available_at or entry.first_seen_at, reverse=True)
        top = Path("/") / from_b64(held.path_b64).decode("utf-8", "surrogateescape")
        for entry in newest:
            below = bytes(entry.relpath).decode("utf-8", "surrogateescape")
            yield InputFile(str(top / below), below)
        return
    meant = common.experiment(client, experiment)
    area = next(area for area in client.storage_areas.list() if area.uid == meant.storage_area_uid)
    wanted = FileQuery(experiment_uid=meant.uid, query=query, order=FileOrder.NEWEST)
    for found in client.files.find(wanted):
        below = bytes(found.relpath).decode("utf-8", "surrogateescape")
        yield InputFile(str(Path(area.station_url.removeprefix("file://")) / meant.directory / below), below)


def _live(client: Client, definition: Definition) -> Definition | None:
    try:
        return client.workflows.named(definition.name, definition.owner).definition
    except NotFoundError:
        return None


def _tell(trials: Sequence[Trial], before: Sequence[Trial]) -> None:
    differences = [trial.differences(other) for trial, other in zip(trials, before, strict=bool(before))]
    if output.is_json():
        output.data({"trials": trials, "before": before, "differences": differences})
        return
    lines = []
    for place, trial in enumerate(trials):
        differs = "; ".join(differences[place]) if before else ""
        name = show_path(trial.file.encode("utf-8", "surrogateescape"))
        lines.append((name, f"{trial.seconds:.2f} s", trial.failure or "done", differs))
    output.table(["file", "time", "end", "other results than now"], lines)
    output.say(trial_runs.summary(trials))
    if before:
        output.say(f"the version that is live: {trial_runs.summary(before)}")
