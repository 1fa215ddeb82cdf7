"""`dm catalog`: exporting it, importing it, and checking that it fits together."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import click

from beamkeeper.cli import common, formats, output
from beamkeeper.cli.app import EXIT_WANTING
from beamkeeper.client import Client
from beamkeeper.domain.catalogues import Finding, Imported
from beamkeeper.domain.errors import ConflictError, InvalidError, NotFoundError, NotPermittedError
from beamkeeper.domain.files import FileOrder, FileQuery
from beamkeeper.domain.names import show_path

ItemT = TypeVar("ItemT")
PATH = click.Path(path_type=Path)
FORMAT = click.option(
    "--format", "named", type=click.Choice(formats.FORMATS), help="Else by the file's name; jsonl otherwise."
)
EXPERIMENT = click.option("--experiment", metavar="NAME", help="Which experiment; else that of `dm experiment use`.")
TOLD_EVERY_S = 5.0
SHOWN = 100
"""So many of what is wrong is shown; all of it with --json."""


@click.command()
@click.argument("query", metavar="[QUERY]", required=False)
@click.option("--glob", metavar="GLOB", help="Only paths that match: * any characters, ? one.")
@click.option("--out", type=PATH, metavar="FILE", help="Where to; else to standard output.")
@FORMAT
@EXPERIMENT
@click.option("--everywhere", is_flag=True, help="Every experiment that you may read.")
@click.option("--deleted", is_flag=True, help="Hidden files too, of one experiment, for managers.")
def export(
    query: str | None,
    glob: str | None,
    out: Path | None,
    named: str | None,
    *,
    experiment: str | None,
    everywhere: bool,
    deleted: bool,
) -> None:
    """Export files with all their versions, replicas, ledger and metadata; only those that QUERY means.

    QUERY is as for `dm file find`: size > 1GB and sample.name ~ "Ag*".

    JSON Lines and Parquet hold everything and can be imported again. CSV holds a line for each file, for people.
    Without --experiment it is the one of `dm experiment use`, or every one where there is none.
    """
    client = common.client()
    is_one = not everywhere and (experiment or client.profile.experiment)
    uid = common.experiment(client, experiment).uid if is_one else None
    wanted = common.build(
        FileQuery, query=query, glob=glob, experiment_uid=uid, with_deleted=deleted, order=FileOrder.PATH
    )
    counted = _Told(client.catalogue.documents(wanted), "exported")
    formats.write(counted, out, formats.kind_of(out, named))
    if out is not None:
        output.say(f"{counted.count} files are in {out}.")


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
def reindex(*, yes: bool) -> None:
    """Make the search index anew, for administrators. Until it is, searches find only what is indexed already.

    It is needed where somebody has changed the database by hand; restoring and copying do it by themselves.
    """
    output.confirm("Empty the search index and make it anew?", yes=yes)
    begun = common.client().catalogue.reindex()
    output.say(f"about {begun.files} files are being indexed: `dm status` shows how many still wait.")


@click.command("import")
@click.argument("file", metavar="FILE", type=PATH)
@FORMAT
@click.option("--metadata", "is_metadata", is_flag=True, help="Change the metadata of files that there are, by a CSV.")
def import_(file: Path, named: str | None, is_metadata: bool) -> int:
    """Import what `dm catalog export` wrote; for administrators. The same again adds nothing.

    Files that the catalogue has stay as they are; those that differ are told. With --metadata, for everybody who may
    change it: each line's `metadata` is laid over that of the file with its `uid`.
    """
    client = common.client()
    kind = formats.kind_of(file, named)
    if is_metadata:
        return _annotate(client, file)
    done: Counter[str] = Counter()
    wrong: list[str] = []
    for part in client.catalogue.import_(_Told(formats.read(file, kind), "read")):
        done.update(created=len(part.created), existing=len(part.existing))
        done.update(differing=len(part.differing), refused=len(part.refused))
        wrong += _wrong(part)
    return _conclude(done, wrong)


def _wrong(part: Imported) -> list[str]:
    differing = [f"file {uid} is in the catalogue and differs: it stays as it is" for uid in part.differing]
    return [*differing, *(refusal.message for refusal in part.refused)]


def _annotate(client: Client, file: Path) -> int:
    done: Counter[str] = Counter()
    wrong: list[str] = []
    for number, row in enumerate(_Told(formats.read_csv(file), "read"), start=2):
        where = f"line {number} of {file}"
        try:
            done[_set(client, where, row.get("uid") or "", row.get("metadata") or "{}")] += 1
        except (InvalidError, ConflictError, NotFoundError, NotPermittedError) as error:
            done["refused"] += 1
            wrong.append(f"{where}: {error.message}")
    return _conclude(done, wrong)


def _set(client: Client, where: str, uid: str, text: str) -> str:
    metadata = formats.plain(text, f"the metadata in {where}")
    if not isinstance(metadata, dict):
        raise InvalidError("the metadata is no JSON object")
    try:
        held = client.files.get(UUID(uid)).metadata
    except ValueError as error:
        raise InvalidError(f'"{uid[:80]}" is no uid') from error
    if all(key in held and held[key] == value for key, value in metadata.items()):
        return "existing"
    client.files.set_metadata(UUID(uid), metadata)
    return "changed"


def _conclude(done: Counter[str], wrong: list[str]) -> int:
    if output.is_json():
        output.data({**done, "messages": wrong})
    else:
        output.say(", ".join(f"{count} {name}" for name, count in done.items() if count) or "nothing was in it")
        for line in wrong[:SHOWN]:
            output.note(line)
        if len(wrong) > SHOWN:
            output.note(f"and {len(wrong) - SHOWN} more: --json tells all")
    return EXIT_WANTING if wrong else 0


@click.command()
@EXPERIMENT
@click.option("--everywhere", is_flag=True, help="Every experiment that you look after.")
def check(experiment: str | None, everywhere: bool) -> int:
    """Say what does not fit together in the catalogue; ends with status 10 where anything is wrong. Repairs nothing."""
    client = common.client()
    is_one = not everywhere and (experiment or client.profile.experiment)
    uid = common.experiment(client, experiment).uid if is_one else None
    found: list[Finding] = []
    checked, index = 0, ""
    for page in _Told(client.catalogue.check(uid), "pages checked"):
        checked += page.checked
        found += page.findings
        index = index or page.index
    status = EXIT_WANTING if found or index else 0
    if output.is_json():
        output.data({"checked": checked, "findings": found, "index": index})
        return status
    if found:
        columns = {
            "fault": "fault",
            "path": lambda each: show_path(each.relpath),
            "message": "message",
            "file": "file_uid",
        }
        output.rows(found[:SHOWN], columns)
    output.say(f"{checked} files were checked, {len(found)} faults found.")
    if len(found) > SHOWN:
        output.note(f"these are the first {SHOWN}: --json tells all")
    if index:
        output.say(index)
    return status


class _Told(Iterator[ItemT]):
    """Passes items on, counts them, and says now and then how many there were."""

    def __init__(self, items: Iterable[ItemT], verb: str) -> None:
        self._items = iter(items)
        self._verb = verb
        self._said_at = time.monotonic()
        self.count = 0

    def __next__(self) -> ItemT:
        item = next(self._items)
        self.count += 1
        if time.monotonic() - self._said_at > TOLD_EVERY_S:
            self._said_at = time.monotonic()
            output.note(f"{self.count} {self._verb} ...")
        return item
