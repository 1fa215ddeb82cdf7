"""`dm run`: scans and measurements, and the rules by which files belong to them."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

import click

from beamkeeper.cli import common, meta, output
from beamkeeper.cli.files import EXPERIMENT, LIMIT, count_of, files_meant, member_columns
from beamkeeper.client import Client
from beamkeeper.domain.errors import InvalidError, NotFoundError
from beamkeeper.domain.runs import NewRun, NewRunRule, Run, RunQuery, RunRule, RunStop

NAME = click.argument("name", metavar="RUN")
FILES = click.argument("which", metavar="PATH|GLOB|UID...", nargs=-1, required=True)


@click.command()
@NAME
@click.argument("changes", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--at", "started_at", type=common.Moment(), metavar="DATE", help="When it began; else now.")
@EXPERIMENT
def create(name: str, changes: tuple[str, ...], started_at: datetime | None, experiment: str | None) -> None:
    """Say that a run has begun, named by the control system's uid or number; KEY=VALUE is said of its start."""
    client = common.client()
    new = common.build(
        NewRun,
        experiment_uid=common.experiment(client, experiment).uid,
        name=name,
        started_at=started_at,
        start=meta.patch_of(changes),
    )
    output.record(client.runs.create(new), _FIELDS)


@click.command()
@NAME
@click.argument("changes", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--at", "stopped_at", type=common.Moment(), metavar="DATE", help="When it ended; else now.")
@EXPERIMENT
def stop(name: str, changes: tuple[str, ...], stopped_at: datetime | None, experiment: str | None) -> None:
    """Say that a run has ended; KEY=VALUE is said of its end."""
    client = common.client()
    run = run_meant(client, name, experiment)
    end = common.build(RunStop, stopped_at=stopped_at, stop=meta.patch_of(changes))
    output.record(client.runs.stop(run.uid, end), _FIELDS)


@click.command("list")
@EXPERIMENT
@LIMIT
def list_(experiment: str | None, limit: int) -> None:
    """List the runs of an experiment, newest first."""
    client = common.client()
    query = RunQuery(experiment_uid=common.experiment(client, experiment).uid, limit=1000)
    found = list(islice(client.runs.list(query), limit + 1 if limit else None))
    shown = found[:limit] if limit else found
    output.rows(
        shown,
        {"run": "name", "state": "state", "started": "started_at", "stopped": "stopped_at", "by": "created_by"},
        empty="no run yet: a control system makes them, or rules find them in the files (`dm run rules`)",
    )
    if len(found) > len(shown):
        output.note(f"there are more than these {limit}: --limit 0 lists all")


@click.command()
@NAME
@EXPERIMENT
@LIMIT
def show(name: str, experiment: str | None, limit: int) -> None:
    """Show a run: what was said of it, how many files it has, and the first of them."""
    client = common.client()
    run = run_meant(client, name, experiment)
    count = client.runs.count(run.uid)
    members = list(islice(client.runs.files(run.uid), limit or None))
    if output.is_json():
        output.data({"run": run, "files": count.files, "bytes": count.bytes, "members": members})
        return
    output.record(run, _FIELDS)
    output.pairs([("files", count_of(count.files, count.bytes))])
    if run.metadata:
        output.pairs(list(meta.flat(run.metadata)), title="metadata")
    output.rows(members, member_columns(), title="files", empty="it has no files")
    if count.files > len(members):
        output.note(f"{len(members)} of {count.files} files are listed: --limit 0 lists all")


@click.command()
@NAME
@FILES
@EXPERIMENT
def add(name: str, which: tuple[str, ...], experiment: str | None) -> None:
    """Add files to a run, whatever the rules say: by path, by uid, or all that a glob matches."""
    client = common.client()
    run = run_meant(client, name, experiment)
    _tell(client, run, f"added {client.runs.add_files(run.uid, files_meant(client, which, experiment))}")


@click.command()
@NAME
@FILES
@EXPERIMENT
def remove(name: str, which: tuple[str, ...], experiment: str | None) -> None:
    """Take files out of a run that were added to it; what rules say stays."""
    client = common.client()
    run = run_meant(client, name, experiment)
    _tell(client, run, f"removed {client.runs.remove_files(run.uid, files_meant(client, which, experiment))}")


@click.command()
@EXPERIMENT
@click.option("--type", "kind", metavar="TYPE", help="A rule for all experiments of a type; for administrators.")
@click.option("--add-path", metavar="PATTERN", help="The path tells the run: data/{sample}/scan{run}_*.tif")
@click.option("--add-field", metavar="KEY", help="This key of the files' metadata tells the run: entry.scan_number")
@click.option("--remove", "removed", metavar="UID", type=click.UUID, help="Remove this rule.")
def rules(
    experiment: str | None, kind: str | None, add_path: str | None, add_field: str | None, removed: UUID | None
) -> None:
    """Show by which rules files come to runs; add one, or remove one.

    In a pattern * is any characters, ? one, {run} the run's name, and other names in braces are kept with the run.
    """
    client = common.client()
    of = {"type": kind} if kind else {"experiment_uid": common.experiment(client, experiment).uid}
    if add_path is not None:
        _made(client.runs.add_rule(common.build(NewRunRule, path=add_path, **of)))
    if add_field is not None:
        _made(client.runs.add_rule(common.build(NewRunRule, field=add_field, **of)))
    if removed is not None:
        client.runs.remove_rule(removed)
    if kind is not None and removed is None and add_path is None and add_field is None:
        raise InvalidError(
            "with --type, say which rule to add or to remove: `dm run rules` shows those of an experiment"
        )
    if kind is None:
        within = common.experiment(client, experiment)
        output.rows(client.runs.rules(within.uid), _RULE_COLUMNS, empty="no rule yet: --add-path or --add-field")


def _made(rule: RunRule) -> None:
    if not output.is_json():
        output.note(f"rule {rule.uid}: new files follow it at once, those that are there by and by")


def run_meant(client: Client, name: str, experiment: str | None) -> Run:
    """Return the run that is meant by our uid, or by the control system's name of it."""
    try:
        return client.runs.get(UUID(name))
    except (ValueError, NotFoundError):
        return client.runs.named(common.experiment(client, experiment).uid, name)


_META = meta.Commands(
    "a run's",
    "RUN",
    meant=run_meant,
    changed=lambda client, run, patch: client.runs.set_metadata(run.uid, patch),
    changes=lambda client, run: client.runs.metadata_history(run.uid),
)
meta_set, meta_get, meta_history = _META.set(), _META.get(), _META.history()


def _tell(client: Client, run: Run, what: str) -> None:
    count = client.runs.count(run.uid)
    if output.is_json():
        output.data(count)
    else:
        output.say(f'{what}; run "{run.name}" has {count_of(count.files, count.bytes)} now.')


_FIELDS: dict[str, Any] = {
    "run": "name",
    "uid": "uid",
    "state": "state",
    "started": "started_at",
    "stopped": "stopped_at",
    "made": "created_at",
    "by": "created_by",
}

_RULE_COLUMNS: dict[str, Any] = {
    "rule": "uid",
    "of": lambda rule: f"type {rule.type}" if rule.type else "experiment",
    "path": "path",
    "field": "field",
    "applied": lambda rule: "yes" if rule.is_applied else "under way",
    "by": "created_by",
}
