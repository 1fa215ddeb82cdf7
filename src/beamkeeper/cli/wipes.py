"""`dm wipe`: whether a directory at the source may be wiped, and wiping it; `dm hold`: what may not be."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol
from uuid import UUID

import click

from beamkeeper.cli import acquiring, common, output
from beamkeeper.cli.app import EXIT_WANTING
from beamkeeper.client import Client
from beamkeeper.domain.errors import NotFoundError
from beamkeeper.domain.names import show_path
from beamkeeper.domain.wipes import EntryState, Hold, NewHold, NewWipe, Wipe, WipeEntry, WipeState, WipeTally

FIRST = 20
"""So many entries that are not proven are listed without --all."""

LISTED_FIRST = 50

DIRECTORY = click.argument("directory", metavar="DIR")
MIN_AGE = click.option(
    "--min-age", "min_age_s", type=acquiring.Duration(), help="Files must be older than this: 24h, 30m, 0 for any age."
)
ALL = click.option("--all", "is_all", is_flag=True, help="List every entry that is not proven, not the first only.")


class Shown(Wipe):
    """A wipe with the entries that are not proven, or were not deleted after all."""

    entries: tuple[WipeEntry, ...]


class _Progress(Protocol):
    def __call__(self, wipe: Wipe) -> None: ...


@click.command
@DIRECTORY
@MIN_AGE
@ALL
def plan(directory: str, min_age_s: float | None, is_all: bool) -> int:
    """Say whether DIR of the station is safe to wipe: YES, or NO with what is not proven and why.

    The directory is listed afresh. Every file must be catalogued as it is now, old enough, and not open; a copy of it
    must have been read back from its device within the last days, and the storage must have it now. The exit status
    is 10 where the answer is not YES.
    """
    client = common.client()
    found = _plan(client, directory, min_age_s)
    show_plan(client, found, is_all=is_all)
    return 0 if found.is_safe else EXIT_WANTING


@click.command
@DIRECTORY
@MIN_AGE
@click.option("--remove-empty", is_flag=True, help="Remove directories that are left empty; DIR itself stays.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def run(directory: str, min_age_s: float | None, remove_empty: bool, yes: bool) -> int:
    """Wipe DIR: make a plan, ask, prove everything once more, and delete just that, file by file.

    Where anything is not proven nothing is deleted. What we may not delete is written to a list for its owner. The
    exit status is 10 where not everything was deleted.
    """
    client = common.client()
    planned = _plan(client, directory, min_age_s)
    if not planned.is_safe:
        show_plan(client, planned, is_all=False)
        return EXIT_WANTING
    where = f"/{show_path(planned.relpath)}"
    output.confirm(f"Delete {_count(planned.proven_files, planned.proven_bytes)} below {where}?", yes=yes)
    asked = client.wipes.run(planned, remove_directories=remove_empty)
    with progress() as tell:
        ended = client.wipes.wait(asked.uid, on_change=tell)
    return _report(client, ended)


@click.command
@click.argument("uid", type=click.UUID)
@ALL
def show(uid: UUID, is_all: bool) -> int:
    """Show a plan, and what became of it."""
    client = common.client()
    found = client.wipes.get(uid)
    if found.run_at is None:
        show_plan(client, found, is_all=is_all)
        return 0 if found.is_safe else EXIT_WANTING
    return _report(client, found, is_all=is_all)


@click.command("list")
@click.option("--all", "is_all", is_flag=True, help="List everything, not the first only.")
def list_(is_all: bool) -> None:
    """List plans and runs, newest first; plans that were never carried out are forgotten after a week."""
    found = islice(common.client().wipes.list(), None if is_all else LISTED_FIRST)
    columns: dict[str, Any] = {
        "uid": "uid",
        "directory": lambda wipe: "/" + show_path(wipe.relpath),
        "state": "state",
        "safe": lambda wipe: "" if wipe.is_safe is None else "YES" if wipe.is_safe else "NO",
        "proven": "proven_files",
        "not proven": "not_proven_files",
        "deleted": "deleted_files",
        "planned": "created_at",
        "by": lambda wipe: wipe.run_by or wipe.planned_by,
    }
    output.rows(found, columns, empty="no plans: `dm wipe plan DIR` makes one.")


def _plan(client: Client, directory: str, min_age_s: float | None) -> Wipe:
    hours = None if min_age_s is None else min_age_s / 3600
    new = common.build(NewWipe, **acquiring.directory_fields(directory), min_age_hours=hours)
    asked = client.wipes.plan(new)
    with progress() as tell:
        return client.wipes.wait(asked.uid, on_change=tell)


@contextmanager
def progress() -> Iterator[_Progress]:
    """Give what shows how far it is, on a terminal; elsewhere nothing is shown."""
    console = output.console(stderr=True)
    if not console.is_terminal or output.is_json():
        yield lambda wipe: None
        return
    with console.status("listing") as status:
        yield lambda wipe: status.update(output.safe(_standing(wipe)))


def _standing(wipe: Wipe) -> str:
    if wipe.deleted_files:
        return f"{wipe.deleted_files} of {wipe.proven_files} files deleted"
    return f"{wipe.state}: {wipe.proven_files} files proven, {wipe.not_proven_files} entries not"


def show_plan(client: Client, found: Wipe, *, is_all: bool) -> None:
    """Print the answer: YES, or NO with what is not proven and why."""
    listed: Sequence[WipeEntry] = ()
    if not found.is_safe:
        listed = list(islice(client.wipes.entries(found.uid, EntryState.NOT_PROVEN), None if is_all else FIRST))
    if output.is_json():
        output.data(Shown(**found.model_dump(), entries=tuple(listed)))
        return
    output.say(f"safe to wipe: {'YES' if found.is_safe else 'NO'}")
    output.say(f"directory: /{show_path(found.relpath)} (plan {found.uid})")
    if found.message:
        output.say(f"{found.message}.")
    if found.is_safe:
        _say_yes(found)
    elif found.not_proven:
        _say_no(found, listed)


def _say_yes(found: Wipe) -> None:
    age = f"older than {found.min_age_hours:g} h, " if found.min_age_hours else ""
    output.say(
        f"{_count(found.proven_files, found.proven_bytes)}: every one is catalogued as it is, unchanged, "
        f"not open, {age}has a copy that was read back from its device within "
        f"{found.within_days:g} days, and the storage has that copy now."
    )
    if found.not_seen_open:
        output.say(
            f"Of {found.not_seen_open} files it cannot be seen from here whether somebody has them open: "
            f"they belong to another account, or lie on the network."
        )
    if found.proven_files > found.max_files:
        output.say(f"One run deletes at most {found.max_files} files: wipe the directories in it one by one.")


def _say_no(found: Wipe, listed: Sequence[WipeEntry]) -> None:
    output.say(f"{_count(found.proven_files, found.proven_bytes)} proven; not proven:")
    show_tallies(found.not_proven)
    output.say("")
    columns: dict[str, Any] = {"not proven": lambda e: "/" + show_path(e.relpath), "reason": "reason", "why": "why"}
    output.rows(listed, columns)
    if (more := found.not_proven_files - len(listed)) > 0:
        output.say(f"and {more} more: `dm wipe show {found.uid} --all` lists them.")


def show_tallies(tallies: Sequence[WipeTally]) -> None:
    """Print how many entries there are for each reason."""
    output.rows(tallies, {"reason": "reason", "files": "files", "size": lambda t: output.size(t.bytes)})


def _report(client: Client, ended: Wipe, *, is_all: bool = False) -> int:
    is_whole = ended.state is WipeState.DONE and not ended.kept
    state = EntryState.NOT_PROVEN if ended.state is WipeState.REFUSED else EntryState.KEPT
    entries = () if is_whole else islice(client.wipes.entries(ended.uid, state), None if is_all else FIRST)
    listed = list(entries)
    if output.is_json():
        output.data(Shown(**ended.model_dump(), entries=tuple(listed)))
        return 0 if is_whole else EXIT_WANTING
    output.say(f"wipe {ended.uid} of /{show_path(ended.relpath)} is {ended.state}: {ended.message}.")
    output.say(f"deleted: {_count(ended.deleted_files, ended.deleted_bytes)}.")
    if ended.removed_directories:
        output.say(f"removed: {ended.removed_directories} empty directories.")
    if listed:
        output.say("")
        columns: dict[str, Any] = {"not deleted": lambda e: "/" + show_path(e.relpath), "why": "why"}
        output.rows(listed, columns)
    if ended.list_file:
        output.say("")
        output.say(f"What only its owner may delete is listed in {ended.list_file}. As the owner, and soon:")
        output.say(f"    xargs -0 rm -- < {ended.list_file}")
    return 0 if is_whole else EXIT_WANTING


def _count(files: int, size: int) -> str:
    return f"{files} {'file' if files == 1 else 'files'} ({output.size(size)})"


_HELD: dict[str, Any] = {
    "uid": "uid",
    "path": lambda hold: "/" + show_path(hold.relpath),
    "why": "why",
    "by": "by",
    "since": "created_at",
}


@click.command
@click.argument("path")
@click.option("--why", default="", metavar="TEXT", help="What for, so that others know.")
def hold(path: str, why: str) -> None:
    """Hold PATH of the station: nothing at or below it is wiped until the hold is removed."""
    new = common.build(NewHold, **acquiring.directory_fields(path), why=why)
    output.record(common.client().holds.add(new), _HELD)


@click.command
@click.argument("path", metavar="PATH|UID")
def release(path: str) -> None:
    """Remove the holds of PATH, or the one with this UID: one's own, or as a manager of the station anybody's."""
    client = common.client()
    for one in _meant(client.holds.list(), path):
        client.holds.remove(one.uid)
        output.say(f"/{show_path(one.relpath)} is held by {one.by} no more.")


def _meant(holds: Sequence[Hold], word: str) -> Sequence[Hold]:
    try:
        uid: UUID | None = UUID(word)
        path = b""
    except ValueError:
        uid, path = None, os.path.abspath(os.fsencode(word)).lstrip(b"/")
    found = [one for one in holds if one.uid == uid or (uid is None and one.relpath == path)]
    if not found:
        raise NotFoundError(f'there is no hold of "{word}": `dm hold list` shows them')
    return found


@click.command("list")
def holds() -> None:
    """List what is held: by oneself, or as a manager of the station by anybody."""
    output.rows(common.client().holds.list(), _HELD, empty="nothing is held.")
