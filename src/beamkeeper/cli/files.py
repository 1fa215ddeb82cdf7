"""`dm file`: what is catalogued, and its metadata."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, NoReturn, TypeVar
from uuid import UUID

import click

from beamkeeper.cli import common, meta, output
from beamkeeper.client import Client
from beamkeeper.domain.errors import DmError, InvalidError, NotFoundError
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import REGISTER_LIMIT, File, FileHistory, FileQuery, Verification, Version
from beamkeeper.domain.names import Metadata, from_b64, show_path

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

LISTED_FIRST = 100
_UNITS = {
    **{f"{prefix}b": 1000**power for power, prefix in enumerate(("", "k", "m", "g", "t", "p"))},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate(("k", "m", "g", "t", "p"), start=1)},
    "": 1,
}


class Size(click.ParamType[int]):
    """A size such as 500, 10kB, 1.5GB or 4GiB; in bytes."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(value).strip().lower())
        unit = _UNITS.get(match[2], _UNITS.get(f"{match[2]}b")) if match else None
        if match is None or unit is None:
            self.fail(f"{value!r} is no size: write it like 500, 10kB, 1.5GB or 4GiB", param, ctx)
        return int(float(match[1]) * unit)


EXPERIMENT = click.option("--experiment", metavar="NAME", help="Which experiment; else that of `dm experiment use`.")
LIMIT = click.option(
    "--limit", type=click.IntRange(min=0), default=LISTED_FIRST, show_default=True, help="At most so many; 0 is all."
)
YES = click.option("--yes", is_flag=True, help="Do not ask.")
WHICH = click.argument("which", metavar="PATH|UID")
_CONDITIONS = (
    click.option("--min-size", type=Size(), help="At least this large: 500, 10kB, 1.5GB, 4GiB."),
    click.option("--max-size", type=Size(), help="At most this large."),
    click.option("--newer", "modified_after", type=common.Moment(), metavar="DATE", help="Changed at or after this."),
    click.option("--older", "modified_before", type=common.Moment(), metavar="DATE", help="Changed before this."),
    click.option(
        "--where",
        multiple=True,
        metavar="TEST",
        help="A condition as in `dm file find`: 'sample.name=Ag', 'energy>7keV'. May be repeated.",
    ),
)


STALE = click.option("--stale", is_flag=True, help="Made from a version of a file that has a newer one by now.")


def _conditions(command: CommandT) -> CommandT:
    """Give a command the options that say which files are meant."""
    for option in reversed(_CONDITIONS):
        command = option(command)
    return command


@click.command("list")
@click.argument("glob", required=False)
@EXPERIMENT
@LIMIT
@click.option("--deleted", is_flag=True, help="Hidden ones too, for managers.")
@STALE
def list_(glob: str | None, experiment: str | None, limit: int, *, deleted: bool, stale: bool) -> None:
    """List the files of an experiment; with GLOB those whose path matches (* any characters, ? one)."""
    client = common.client()
    uid = common.experiment(client, experiment).uid
    _list(client, _query(glob=glob, experiment_uid=uid, with_deleted=deleted, stale=stale), limit)


@click.command()
@click.argument("query", required=False)
@click.option("--glob", metavar="GLOB", help="Whose path matches (* any characters, ? one).")
@_conditions
@click.option("--filter", "document", metavar="JSON", help="Conditions in MongoDB's notation.")
@click.option("--order", type=click.Choice(["path", "newest"]), help="The order; without it the newest come first.")
@EXPERIMENT
@click.option("--everywhere", is_flag=True, help="In every experiment that you may read.")
@STALE
@LIMIT
def find(
    query: str | None, experiment: str | None, *, document: str | None, everywhere: bool, limit: int, **given: Any
) -> None:
    """Find files by QUERY, such as 'size > 1GB and sample.name ~ "Ag*" and energy >= 12keV and modified > -7d'.

    A word alone is looked for in paths and metadata, and one with * or / is a path. Every condition must be met.
    Without --experiment this looks in the one of `dm experiment use`, or everywhere where there is none.
    """
    client = common.client()
    is_one = not everywhere and (experiment or client.profile.experiment)
    uid = common.experiment(client, experiment).uid if is_one else None
    wanted = _query(query=query, filter=_document(document), experiment_uid=uid, **given)
    _list(client, wanted, limit)


@click.command()
@WHICH
@EXPERIMENT
def show(which: str, experiment: str | None) -> None:
    """Show a file: its versions, replicas, and the ledger of every verification."""
    client = common.client()
    history = client.files.history(file_meant(client, which, experiment).uid)
    if output.is_json():
        output.data(history)
        return
    output.record(history.file, _fields(client))
    _show_history(client, history)


@click.command()
@click.argument("glob")
@_conditions
@EXPERIMENT
@YES
def delete(glob: str, experiment: str | None, *, yes: bool, **given: Any) -> None:
    """Hide the files whose path matches GLOB; says how many and how large first. `dm file restore` undoes it."""
    client = common.client()
    within = common.experiment(client, experiment)
    query = _query(glob=glob, experiment_uid=within.uid, **given)
    counted = client.files.delete(query)
    if not counted.files:
        _nothing(glob, within)
    output.confirm(f'Hide {count_of(counted.files, counted.bytes)} of experiment "{within.name}"?', yes=yes)
    done = client.files.delete(query, counted.files)
    if output.is_json():
        output.data(done)
    else:
        output.say(f"hidden: {count_of(done.files, done.bytes)}; `dm file restore` brings them back for 30 days.")


@click.command()
@click.argument("glob")
@_conditions
@EXPERIMENT
def restore(glob: str, experiment: str | None, **given: Any) -> None:
    """Bring the hidden files back whose path matches GLOB."""
    client = common.client()
    within = common.experiment(client, experiment)
    done = client.files.restore(_query(glob=glob, experiment_uid=within.uid, **given))
    if not done.files:
        _nothing(glob, within)
    if output.is_json():
        output.data(done)
    else:
        output.say(f"brought back: {count_of(done.files, done.bytes)}.")


def _nothing(glob: str, within: Experiment) -> NoReturn:
    raise NotFoundError(
        f'no file of experiment "{within.name}" is meant by {glob!r}: `dm file list` shows what there is'
    )


def count_of(files: int, size: int) -> str:
    """Return a number of files and bytes for people."""
    return f"{files} {'file' if files == 1 else 'files'}, {output.size(size)}"


def _query(*, query: str | None = None, where: Sequence[str] = (), **given: Any) -> FileQuery:
    parts = [part for part in (query, *where) if part]
    joined = " and ".join(f"({part})" for part in parts) if len(parts) > 1 else "".join(parts)
    return common.build(FileQuery, query=joined or None, limit=REGISTER_LIMIT, **given)


def _document(text: str | None) -> Metadata | None:
    from beamkeeper.domain.json_text import parse_json

    if text is None:
        return None
    try:
        found = parse_json(os.fsencode(text))
    except InvalidError as error:
        raise InvalidError(f"--filter: {error.message}", **error.details) from error
    if not isinstance(found, dict):
        raise InvalidError('--filter is no JSON object: write it like \'{"size": {"$gt": 1000}}\'')
    return found


def file_meant(client: Client, which: str, experiment: str | None) -> File:
    """Return the file that is meant by its uid, by its path, or by its path as it is shown."""
    try:
        return client.files.get(UUID(which))
    except ValueError:
        raw = os.fsencode(which)
    within = common.experiment(client, experiment)
    found = client.files.lookup(within.uid, {raw, _unshown(which)})
    exact = [file for file in found if file.relpath == raw] or list(found)
    if not exact:
        raise NotFoundError(
            f'experiment "{within.name}" has no file "{show_path(raw)}": paths begin with data/ or analysis/, '
            f"and `dm file list` shows them"
        )
    return exact[0]


def files_meant(client: Client, which: Sequence[str], experiment: str | None) -> list[UUID]:
    """Return the uids of the files that are meant: each by its uid or path, or all that a glob matches."""
    uids: list[UUID] = []
    for word in which:
        try:
            uids.append(file_meant(client, word, experiment).uid)
        except NotFoundError:
            if not set("*?") & set(word):
                raise
            query = _query(glob=word, experiment_uid=common.experiment(client, experiment).uid)
            found = [file.uid for file in client.files.find(query)]
            if not found:
                raise
            uids += found
    return list(dict.fromkeys(uids))


def member_columns() -> dict[str, Any]:
    """Return the columns of a list of files that belong to something."""
    return {
        "path": lambda member: show_path(member.file.relpath),
        "size": lambda member: output.size(member.version.size),
        "changed": lambda member: member.version.modified_at,
        "version": lambda member: member.version.number,
        "state": lambda member: "hidden" if member.file.deleted_at else "",
    }


def _unshown(text: str) -> bytes:
    """Return the path that is shown as this text."""
    parts = re.split(rb"(\\x[0-9a-f]{2}|\\\\)", os.fsencode(text))
    return b"".join(
        b"\\" if part == b"\\\\" else bytes.fromhex(part[2:].decode()) if part.startswith(b"\\x") else part
        for part in parts
    )


def _names(client: Client) -> Callable[[File], str]:
    """Return what names the experiment of a file, asking once for each."""
    known: dict[UUID, str] = {}

    def name(file: File) -> str:
        if file.experiment_uid not in known:
            try:
                known[file.experiment_uid] = client.experiments.by_uid(file.experiment_uid).name
            except DmError:
                known[file.experiment_uid] = str(file.experiment_uid)
        return known[file.experiment_uid]

    return name


def _list(client: Client, query: FileQuery, limit: int) -> None:
    wanted = query.model_copy(update={"limit": min(limit + 1, REGISTER_LIMIT)}) if limit else query
    found = list(islice(client.files.find(wanted), limit + 1 if limit else None))
    shown = found[:limit] if limit else found
    columns: dict[str, Any] = {} if query.experiment_uid else {"experiment": _names(client)}
    columns |= {
        "path": lambda file: show_path(file.relpath),
        "size": lambda file: output.size(file.size),
        "changed": "modified_at",
        "version": "version",
        "verified": "is_verified",
    }
    if query.with_deleted:
        columns["deleted"] = "deleted_at"
    output.rows(shown, columns, empty="no file is meant by this")
    if len(found) > len(shown):
        output.note(f"there are more than these {limit}: --limit 0 lists all")


def _fields(client: Client) -> dict[str, Any]:
    return {
        "path": lambda file: show_path(file.relpath),
        "experiment": _names(client),
        "uid": "uid",
        "kind": lambda file: file.kind if file.link_target_b64 is None else f"link to {_link(file)}",
        "size": lambda file: f"{output.size(file.size)} ({file.size})",
        "version": lambda file: f"{file.version}{', unfinished when it was taken' if file.is_snapshot else ''}",
        "verified": "is_verified",
        "source": lambda file: f"{file.source.agent}:/{show_path(file.source.relpath)}",
        "deleted": "deleted_at",
    }


def _link(file: File) -> str:
    return show_path(from_b64(file.link_target_b64 or ""))


def _show_history(client: Client, history: FileHistory) -> None:
    if history.file.metadata:
        output.pairs(list(meta.flat(history.file.metadata)), title="metadata")
    numbers = {version.uid: version.number for version in history.versions}
    output.rows(history.versions, _version_columns(), title="versions")
    areas = _areas(client)
    output.rows(
        history.replicas,
        {
            "version": lambda replica: numbers.get(replica.version_uid, ""),
            "storage area": lambda replica: areas.get(replica.storage_area_uid, replica.storage_area_uid),
            "state": "state",
            "since": "created_at",
            "verified": "verified_at",
        },
        title="replicas",
    )
    output.rows(
        history.ledger,
        {
            "when": "verified_at",
            "version": lambda row: numbers.get(row.version_uid, ""),
            "result": lambda row: "match" if row.is_match else "OTHER BYTES",
            "read from": "read_from",
            "checksum": _checksum,
            "by": "by",
        },
        title="ledger",
        empty="never verified",
    )


def _version_columns() -> dict[str, Any]:
    return {
        "version": "number",
        "size": lambda version: output.size(version.size),
        "changed": "modified_at",
        "finished": "finished_at",
        "transferred": "transferred_at",
        "catalogued": "catalogued_at",
        "checksum": _checksums,
    }


def _checksums(version: Version) -> str:
    return " ".join(f"{checksum.algorithm}:{checksum.value}" for checksum in version.checksums)


def _checksum(row: Verification) -> str:
    return f"{row.checksum.algorithm}:{row.checksum.value}" if row.checksum else row.message


def _areas(client: Client) -> Mapping[UUID, str]:
    try:
        return {area.uid: area.name for area in client.storage_areas.list()}
    except DmError:  # without the right to see them, their uids must do
        return {}
