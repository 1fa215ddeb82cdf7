"""`dm replica`: copies of files in several storage areas."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import Any
from uuid import UUID

import click

from beamkeeper.cli import common, output
from beamkeeper.cli.app import EXIT_WANTING
from beamkeeper.client import Client
from beamkeeper.domain.errors import UnavailableError
from beamkeeper.domain.files import ReplicaState
from beamkeeper.domain.names import show_path
from beamkeeper.domain.replicas import AreaReplicas, ReplicaAction, ReplicaRequest, RequestState
from beamkeeper.domain.status import Service

FIRST = 100
"""So many copies are listed without --all."""

EXPERIMENT = click.argument("experiment", required=False)
PATTERN = click.argument("pattern", required=False)
AREA = click.option("--area", metavar="NAME", help="Only in this storage area.")
INTO = click.option("--area", metavar="NAME", required=True, help="The storage area.")
VERSIONS = click.option("--all-versions", is_flag=True, help="Older versions of files too.")
NO_WAIT = click.option("--no-wait", is_flag=True, help="Only ask for it.")

COLUMNS: dict[str, Any] = {
    "file": lambda one: show_path(one.relpath),
    "version": "number",
    "storage area": lambda one: f"{one.storage_area} (own)" if one.is_first else one.storage_area,
    "state": "state",
    "last verified": "verified_at",
    "last looked at": "checked_at",
    "size": lambda one: output.size(one.size),
    "why": "message",
}
AREAS: dict[str, Any] = {
    "storage area": lambda one: f"{one.storage_area} (own)" if one.is_first else one.storage_area,
    "copies": lambda one: ", ".join(f"{count} {state}" for state, count in one.states.items()),
    "waiting": lambda one: one.waiting or "",
    "why": "message",
}
FIELDS: dict[str, Any] = {
    "uid": "uid",
    "what": "action",
    "experiment": "experiment",
    "storage area": lambda one: one.storage_area or "every one",
    "files": lambda one: one.glob or "all",
    "state": "state",
    "message": "message",
    "copies": "chosen",
    "done": lambda one: f"{one.done} ({output.size(one.bytes)})",
    "nothing to do for": lambda one: one.there or "",
    "left as they are": lambda one: one.refused or "",
    "failed": lambda one: one.failed or "",
    "asked for by": "asked_by",
    "ended": "ended_at",
}


@click.command("list")
@EXPERIMENT
@PATTERN
@AREA
@click.option("--state", type=click.Choice([str(state) for state in ReplicaState]), help="Only those in this state.")
@VERSIONS
@click.option("--all", "is_all", is_flag=True, help="List every copy, not the first only.")
def list_(
    experiment: str | None,
    pattern: str | None,
    area: str | None,
    *,
    state: str | None,
    all_versions: bool,
    is_all: bool,
) -> None:
    """List the copies of files with their state, and when each was last verified.

    PATTERN is held against paths, such as 'data/scan1/*'; without it all files of EXPERIMENT are meant.
    """
    client = common.client()
    of = common.experiment(client, experiment)
    found = client.replicas.list(of.uid, glob=pattern, storage_area=area, state=state, all_versions=all_versions)
    listed = list(islice(found, None if is_all else FIRST + 1))
    output.rows(listed if is_all else listed[:FIRST], COLUMNS, empty="there are no such copies")
    if not is_all and len(listed) > FIRST:
        output.note("there are more: --all lists them")
    if not output.is_json():
        output.say("")
        output.rows(client.replicas.by_area(of.uid), AREAS, title="in numbers, newest versions alone")


@click.command
@EXPERIMENT
@PATTERN
@INTO
@VERSIONS
@NO_WAIT
def add(experiment: str | None, pattern: str | None, area: str, all_versions: bool, no_wait: bool) -> int:
    """Copy stored files to a further storage area: all of EXPERIMENT, or those whose path PATTERN matches.

    What is there already is passed over, so that the same may be asked for again. Every copy is read back. Leaving
    with Ctrl-C does not end it; the exit status is 10 where a copy could not be made.
    """
    return _ask(ReplicaAction.ADD, experiment, pattern, area, all_versions=all_versions, no_wait=no_wait)


@click.command
@EXPERIMENT
@PATTERN
@AREA
@VERSIONS
@NO_WAIT
def verify(experiment: str | None, pattern: str | None, area: str | None, all_versions: bool, no_wait: bool) -> int:
    """Read copies in the storage again: all of EXPERIMENT, or those whose path PATTERN matches.

    A copy with other bytes is read a second time, and marked suspect; nothing is mended or deleted. The exit status is
    10 where a copy is not as it should be.
    """
    return _ask(ReplicaAction.VERIFY, experiment, pattern, area, all_versions=all_versions, no_wait=no_wait)


@click.command
@EXPERIMENT
@PATTERN
@INTO
@VERSIONS
@NO_WAIT
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(
    experiment: str | None, pattern: str | None, area: str, all_versions: bool, no_wait: bool, *, yes: bool
) -> int:
    """Remove copies from a storage area, where another verified one remains: it is looked at before.

    The last verified copy of a file is never dropped, nor a good one in the experiment's own area. The exit status is
    10 where copies were left as they are.
    """
    meant = pattern or "every file"
    output.confirm(f"Remove the copies of {meant} from storage area {area}?", yes=yes)
    return _ask(ReplicaAction.DROP, experiment, pattern, area, all_versions=all_versions, no_wait=no_wait)


@click.command
@click.option("--stop", type=click.UUID, metavar="UID", help="Stop this one: what is under way is finished.")
def requests(stop: UUID | None) -> None:
    """List what was asked for copies, newest first."""
    client = common.client()
    if stop is not None:
        output.record(client.replicas.stop(stop), FIELDS)
        return
    columns = {name: FIELDS[name] for name in ("uid", "what", "experiment", "storage area", "files", "state")}
    columns |= {"left": "left", "done": "done", "failed": "failed", "by": "asked_by"}
    output.rows(client.replicas.requests(), columns, empty="nothing was asked for: `dm replica add` copies files")


def _ask(
    action: ReplicaAction,
    experiment: str | None,
    pattern: str | None,
    area: str | None,
    *,
    all_versions: bool,
    no_wait: bool,
) -> int:
    client = common.client()
    uid = common.experiment(client, experiment).uid
    asked = client.replicas.ask(action, uid, storage_area=area, glob=pattern, all_versions=all_versions)
    if not no_wait:
        asked = client.replicas.wait(asked.uid, _Teller().tell)
    output.record(asked, FIELDS)
    is_well = asked.state is RequestState.DONE and not asked.failed and not asked.refused
    return 0 if is_well or no_wait else EXIT_WANTING


class _Teller:
    """Says how far a request is, where somebody watches; the end is told by others."""

    def __init__(self) -> None:
        self._said = ""

    def tell(self, request: ReplicaRequest) -> None:
        """Say it, where that is news."""
        if output.is_json() or request.state is not RequestState.RUNNING:
            return
        more = "" if request.is_chosen else " so far"
        said = f"{request.done} of {request.chosen}{more} {request.action.past}"
        if said != self._said:
            output.note(said)
        self._said = said


def show_waiting(client: Client, experiment_uid: UUID, also: Sequence[str]) -> None:
    """Print how many copies of an experiment's files wait in the areas that are to have them too."""
    if not also or output.is_json():
        return
    found: dict[str, AreaReplicas] = {}
    pauses: dict[str, str] = {}
    with suppress(UnavailableError):  # the DAQ itself is shown all the same
        found = {one.storage_area: one for one in client.replicas.by_area(experiment_uid, waiting_only=True)}
        pauses = {pause.name: pause.sentence for pause in client.status(Service.STORAGE).paused}
    output.say("")
    for name in also:
        one = found.get(name)
        count = one.waiting if one else 0
        text = f"{count or 'no'} copies wait for storage area {name}"
        why = pauses.get(name) or (one.message if one else "")
        output.say(f"{text}: {why}" if count and why else f"{text}.")
