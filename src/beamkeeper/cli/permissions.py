"""`dm experiment permissions`: the rights of an experiment's files."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import click

from beamkeeper.cli import common, output
from beamkeeper.cli.app import EXIT_WANTING
from beamkeeper.domain.permissions import RATE, WALK_WORDS, PermissionWalk, WalkMode, WalkState

SHOWN = 50
"""So many are listed without --all."""


ALL = click.option("--all", "is_all", is_flag=True, help="List all that is kept, not the first only.")


def _options(function: Callable[..., int]) -> Callable[..., int]:
    for decorate in (
        ALL,
        click.option("--no-wait", is_flag=True, help="Only ask for it."),
        click.option(
            "--rate",
            type=click.IntRange(1, 1_000_000),
            default=RATE,
            show_default=True,
            help="At most so many files and directories a second.",
        ),
        click.argument("experiment"),
    ):
        function = decorate(function)
    return function


@click.command()
@_options
def check(experiment: str, rate: int, *, no_wait: bool, is_all: bool) -> int:
    """Say which files and directories have other rights than they should; nothing is changed.

    Ends with status 10 where something differs. Leaving with Ctrl-C does not stop it.
    """
    return _walk(experiment, WalkMode.CHECK, rate, no_wait=no_wait, is_all=is_all)


@click.command()
@_options
def repair(experiment: str, rate: int, *, no_wait: bool, is_all: bool) -> int:
    """Put the rights of files and directories right, as far as the storage service may.

    Ends with status 10 where something could not be put right. Leaving with Ctrl-C does not stop it.
    """
    return _walk(experiment, WalkMode.REPAIR, rate, no_wait=no_wait, is_all=is_all)


@click.command()
@click.argument("uid", type=click.UUID)
@ALL
def show(uid: UUID, *, is_all: bool) -> None:
    """Show how far a check or a repair is, and what it found so far."""
    found = common.client().permissions.get(uid)
    output.record(found, _FIELDS)
    if not output.is_json():
        _list(found, is_all=is_all)


@click.command()
@click.argument("uid", type=click.UUID)
def stop(uid: UUID) -> None:
    """Stop a check or a repair; what it put right stays so."""
    output.record(common.client().permissions.stop(uid), _FIELDS)


def _walk(experiment: str, mode: WalkMode, rate: int, *, no_wait: bool, is_all: bool) -> int:
    client = common.client()
    started = client.permissions.start(common.experiment(client, experiment).uid, mode, rate=rate)
    found = started if no_wait else client.permissions.wait(started.uid)
    output.record(found, _FIELDS)
    if not output.is_json():
        _list(found, is_all=is_all)
    is_good = found.state is WalkState.DONE and found.differing == found.repaired
    return 0 if is_good or no_wait else EXIT_WANTING


def _list(found: PermissionWalk, *, is_all: bool) -> None:
    shown = found.faults if is_all else found.faults[:SHOWN]
    if shown:
        output.say("")
        output.rows(shown, _FAULTS)
    if found.differing > len(shown):
        more = found.differing - len(shown)
        output.note(f"{more} more differ" + ("" if is_all else ": --all lists those that are kept"))


_FIELDS = {
    "uid": "uid",
    "state": "state",
    "message": "message",
    "how": lambda walk: "" if walk.way is None else WALK_WORDS[walk.way],
    "group": lambda walk: walk.gid or "",
    "looked at": "entries",
    "differing": "differing",
    "repaired": "repaired",
    "ended": "ended_at",
}
_FAULTS = {
    "path": "path",
    "what": "kind",
    "why": "message",
    "repaired": lambda fault: "yes" if fault.is_repaired else fault.why_not,
}
