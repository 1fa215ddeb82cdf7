"""`dm dataset`: named sets of files."""

from __future__ import annotations

from itertools import islice
from typing import Any
from uuid import UUID

import click

from beamkeeper.cli import common, meta, output
from beamkeeper.cli.files import EXPERIMENT, LIMIT, YES, count_of, files_meant, member_columns
from beamkeeper.client import Client
from beamkeeper.domain.datasets import Dataset, DatasetQuery, NewDataset
from beamkeeper.domain.errors import InvalidError, NotFoundError
from beamkeeper.domain.files import REGISTER_LIMIT, FileQuery

NAME = click.argument("name", metavar="DATASET")
FILES = click.argument("which", metavar="PATH|GLOB|UID...", nargs=-1, required=True)


@click.command()
@click.argument("name")
@click.argument("changes", metavar="[KEY=VALUE]...", nargs=-1)
@EXPERIMENT
@click.option("--title", default="", help="One line about it.")
@click.option("--query", metavar="QUERY", help="Its files are what this finds; without it, those that you add.")
def create(name: str, changes: tuple[str, ...], experiment: str | None, title: str, query: str | None) -> None:
    """Make a dataset, as a list to which files are added or as a saved query; KEY=VALUE is its metadata."""
    client = common.client()
    new = common.build(
        NewDataset,
        experiment_uid=common.experiment(client, experiment).uid,
        name=name,
        title=title,
        query=query,
        metadata=meta.patch_of(changes),
    )
    output.record(client.datasets.create(new), _fields(client))


@click.command("list")
@EXPERIMENT
@LIMIT
def list_(experiment: str | None, limit: int) -> None:
    """List the datasets of an experiment, newest first."""
    client = common.client()
    query = DatasetQuery(experiment_uid=common.experiment(client, experiment).uid, limit=1000)
    found = list(islice(client.datasets.list(query), limit + 1 if limit else None))
    shown = found[:limit] if limit else found
    output.rows(
        shown,
        {"name": "name", "state": "state", "owner": "owner", "made": "created_at", "title": "title", "query": _query},
        empty="no dataset yet: `dm dataset create` makes one",
    )
    if len(found) > len(shown):
        output.note(f"there are more than these {limit}: --limit 0 lists all")


@click.command()
@NAME
@EXPERIMENT
@LIMIT
def show(name: str, experiment: str | None, limit: int) -> None:
    """Show a dataset: its metadata, how many files it has, and the first of them."""
    client = common.client()
    dataset = dataset_meant(client, name, experiment)
    count = client.datasets.count(dataset.uid)
    members = list(islice(client.datasets.files(dataset.uid), limit or None))
    if output.is_json():
        output.data({"dataset": dataset, "files": count.files, "bytes": count.bytes, "members": members})
        return
    output.record(dataset, _fields(client))
    output.pairs([("files", count_of(count.files, count.bytes))])
    if dataset.metadata:
        output.pairs(list(meta.flat(dataset.metadata)), title="metadata")
    output.rows(members, member_columns(), title="files", empty="it has no files")
    if count.files > len(members):
        output.note(f"{len(members)} of {count.files} files are listed: --limit 0 lists all")


@click.command()
@NAME
@click.argument("which", metavar="[PATH|GLOB|UID]...", nargs=-1)
@click.option("--query", metavar="QUERY", help="All files that this finds now.")
@EXPERIMENT
def add(name: str, which: tuple[str, ...], query: str | None, experiment: str | None) -> None:
    """Add files to a dataset: by path, by uid, all that a glob matches, or all that a query finds."""
    client = common.client()
    dataset = dataset_meant(client, name, experiment)
    if not which and query is None:
        raise InvalidError("say which files: paths, globs or uids, or --query")
    uids = files_meant(client, which, experiment)
    if query is not None:
        wanted = common.build(FileQuery, experiment_uid=dataset.experiment_uid, query=query, limit=REGISTER_LIMIT)
        uids += [file.uid for file in client.files.find(wanted)]
    added = client.datasets.add_files(dataset.uid, list(dict.fromkeys(uids)))
    _tell(client, dataset, f"added {added}")


@click.command()
@NAME
@FILES
@EXPERIMENT
def remove(name: str, which: tuple[str, ...], experiment: str | None) -> None:
    """Take files out of a dataset; the files themselves stay."""
    client = common.client()
    dataset = dataset_meant(client, name, experiment)
    removed = client.datasets.remove_files(dataset.uid, files_meant(client, which, experiment))
    _tell(client, dataset, f"removed {removed}")


@click.command()
@NAME
@EXPERIMENT
@YES
def freeze(name: str, experiment: str | None, yes: bool) -> None:
    """Fix the files of a dataset for ever, each in the version that it has now."""
    client = common.client()
    dataset = dataset_meant(client, name, experiment)
    count = client.datasets.count(dataset.uid)
    output.confirm(f'Freeze dataset "{dataset.name}" with {count_of(count.files, count.bytes)}, for ever?', yes=yes)
    frozen = client.datasets.freeze(dataset.uid)
    if output.is_json():
        output.data(frozen)
    else:
        count = client.datasets.count(dataset.uid)
        output.say(f'dataset "{frozen.name}" is frozen: {count_of(count.files, count.bytes)}.')


def dataset_meant(client: Client, name: str, experiment: str | None) -> Dataset:
    """Return the dataset that is meant by its uid or its name."""
    try:
        return client.datasets.get(UUID(name))
    except (ValueError, NotFoundError):
        return client.datasets.named(common.experiment(client, experiment).uid, name)


_META = meta.Commands(
    "a dataset's",
    "DATASET",
    meant=dataset_meant,
    changed=lambda client, dataset, patch: client.datasets.set_metadata(dataset.uid, patch),
    changes=lambda client, dataset: client.datasets.metadata_history(dataset.uid),
    note="; of a frozen one too.",
)
meta_set, meta_get, meta_history = _META.set(), _META.get(), _META.history()


def _tell(client: Client, dataset: Dataset, what: str) -> None:
    count = client.datasets.count(dataset.uid)
    if output.is_json():
        output.data(count)
    else:
        output.say(f'{what}; dataset "{dataset.name}" has {count_of(count.files, count.bytes)} now.')


def _query(dataset: Dataset) -> str:
    return dataset.query or ""


def _fields(client: Client) -> dict[str, Any]:
    return {
        "name": "name",
        "title": "title",
        "experiment": lambda dataset: client.experiments.by_uid(dataset.experiment_uid).name,
        "uid": "uid",
        "state": "state",
        "owner": "owner",
        "query": "query",
        "made": "created_at",
        "frozen": "frozen_at",
    }
