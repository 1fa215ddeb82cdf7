"""What `dm daq`, `dm upload` and `dm put` share: their options, which one is meant, and how it is shown."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

import click
from pydantic import BaseModel, ValidationError

from beamkeeper.cli import common, output
from beamkeeper.client import Client
from beamkeeper.client.acquisition import Daqs, Uploads
from beamkeeper.domain.acquisition import (
    LISTED,
    UNCHANGED,
    UNDELIVERED,
    Acquisition,
    JournalEntry,
    JournalState,
    Kind,
    State,
    Tally,
)
from beamkeeper.domain.errors import InvalidError, NotFoundError
from beamkeeper.domain.experiments import Tree
from beamkeeper.domain.files import Verify
from beamkeeper.domain.masters import MasterFile
from beamkeeper.domain.names import path_fields, show_path

FIRST = 20
"""So many files that are not delivered are listed without --all."""

MISSING_FIRST = 3
"""So many of the files that a master file misses are named."""

LISTED_FIRST = 50
"""So many DAQs are listed without --all."""

SEARCHED = 2000
"""Among so many of the newest, the end of a uid is looked for."""

J = JournalState
_ORDER = (J.QUARANTINED, J.VANISHED, J.GROWING, J.CANDIDATE, J.READY, J.STAGED, J.STORED, J.SKIPPED)
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

ModelT = TypeVar("ModelT", bound=BaseModel)
CommandT = TypeVar("CommandT", bound=Callable[..., Any])


class Duration(click.ParamType[float]):
    """A time such as 90, 90s, 30m, 12h or 2d; in seconds."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        if isinstance(value, int | float):
            return float(value)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", str(value).strip().lower())
        if match is None:
            self.fail(f"{value!r} is no time: write it like 90s, 30m, 12h or 2d", param, ctx)
        return float(match[1]) * _UNITS[match[2]]


EXPERIMENT = click.option("--experiment", metavar="NAME", help="Which experiment; else that of `dm experiment use`.")
WORDS = click.argument("words", nargs=-1, metavar="[KEY:VALUE]...")
ONE = click.argument("uid", required=False)
ALL = click.option("--all", "is_all", is_flag=True, help="List everything, not the first only.")

_KEPT = (
    EXPERIMENT,
    click.option("--destination", default="", metavar="DIR", help="Directory below the tree."),
    click.option("--analysis", is_flag=True, help="Put the files into analysis/ in place of data/."),
    click.option("--processor", "processors", multiple=True, metavar="NAME", help="In place of the station's chain."),
    click.option("--skip-plugin", "skip_processors", multiple=True, metavar="NAME", help="Leave out of the chain."),
    click.option(
        "--verify",
        type=click.Choice([str(choice) for choice in Verify]),
        help="When copies are read back; as the station's settings say by default.",
    ),
)
_ALSO = (
    click.option("--also", multiple=True, metavar="AREA", help="A storage area that is to have a copy too."),
    click.option("--no-also", is_flag=True, help="No further copies, whatever the settings say."),
)
_WORKFLOW = (
    click.option("--workflow", metavar="NAME", help="Run this workflow on the files as they arrive."),
    click.option("--workflow-owner", metavar="NAME", help="Whose it is, where several have one of this name."),
    click.option("--workflow-arg", "workflow_args", multiple=True, metavar="KEY:VALUE", help="An argument of it."),
    click.option("--workflow-only", multiple=True, metavar="GLOB", help="Only on these files."),
    click.option(
        "--workflow-per",
        default="file",
        show_default=True,
        metavar="file|N|dataset|run|end",
        help="A job for each file, for so many files, for each dataset that is frozen, for each run that has stopped, "
        "or for all at the end.",
    ),
    click.option(
        "--workflow-at",
        type=click.Choice(["available", "ready"]),
        default="available",
        show_default=True,
        help="On stored files; or at ready on those at the source, as soon as they are finished.",
    ),
    click.option("--workflow-again", is_flag=True, help="Once more on each new version of a file."),
)
_TAKEN = (
    click.option("--no-hidden", is_flag=True, help="Leave out names that begin with a dot."),
    click.option("--include", multiple=True, metavar="GLOB", help="Only these files."),
    click.option("--exclude", multiple=True, metavar="GLOB", help="Not these files."),
    click.option("--first", multiple=True, metavar="GLOB", help="These files go before all others."),
    click.option("--max-run-time", "max_run_time_s", type=Duration(), help="End by itself: 30m, 12h."),
    click.option("--resend", is_flag=True, help="Send files again that are stored and unchanged."),
)


def kept_options(command: CommandT) -> CommandT:
    """Give a command the options that say where files go and what becomes of them."""
    return _with(command, (*_KEPT, *_ALSO, *_WORKFLOW))


def taken_options(command: CommandT) -> CommandT:
    """Give a command the options that say which files of a directory are taken."""
    return _with(command, _TAKEN)


def _with(command: CommandT, options: Sequence[Callable[[Any], Any]]) -> CommandT:
    for option in reversed(options):
        command = option(command)
    return command


def asked(model: type[ModelT], options: Mapping[str, Any]) -> ModelT:
    """Return the request that options make; a value that it refuses is named in a sentence."""
    fields = dict(options)
    if "no_hidden" in fields:
        fields["with_hidden"] = not fields.pop("no_hidden")
    fields["tree"] = Tree.ANALYSIS if fields.pop("analysis") else Tree.DATA
    fields["also"] = None if not (fields.pop("no_also") or fields["also"]) else fields["also"]
    fields["processors"] = fields["processors"] or None
    fields["workflow"] = _plan(fields)
    for name, value in fields.items():
        _check_text(name, value)
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidError(f"{where}: {str(first['msg']).removeprefix('Value error, ')}") from error


def _plan(fields: dict[str, Any]) -> dict[str, Any] | None:
    """Take the options of a workflow out of those that were given, and return them as the request has them."""
    name, owner, words, only, per, at, again = (
        fields.pop(f"workflow{end}") for end in ("", "_owner", "_args", "_only", "_per", "_at", "_again")
    )
    if name is None:
        if owner or words or only or per != "file" or at != "available" or again:
            raise InvalidError("which workflow? say --workflow NAME")
        return None
    per = int(per) if str(per).isdigit() else per
    plan = {"workflow": name, "owner": owner, "arguments": common.key_values(words)}
    return {**plan, "only": only, "per": per, "at": at, "again": again}


def _check_text(name: str, value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        raise InvalidError(
            f"{name}: there are bytes that are not UTF-8: only the names of files may have such"
        ) from error


def directory_fields(directory: str) -> dict[str, Any]:
    """Return the wire fields of a directory on the station; one that is not absolute counts from here."""
    path = os.path.abspath(os.fsencode(directory)).lstrip(b"/")
    if not path:
        raise InvalidError("the root directory cannot be taken as a whole: name a directory in it")
    return {"path_b64": path_fields(path)["path_b64"]}


def meant(
    client: Client, of: Daqs | Uploads, word: str | None, *, experiment: str | None = None, even_ended: bool = False
) -> Acquisition:
    """Return the one that is meant: by its uid, by the end of it, or the only one that runs."""
    if word is None:
        return _only(client, of, experiment, even_ended)
    try:
        return of.get(UUID(word))
    except ValueError:
        pass
    found = [item for item in islice(of.list(), SEARCHED) if len(word) >= 4 and str(item.uid).endswith(word.lower())]
    if len(found) == 1:
        return of.get(found[0].uid)
    listing = f"`dm {_noun(of)} list` shows them"
    if found:
        raise InvalidError(f'several end in "{word}": give more of the uid; {listing}')
    raise NotFoundError(f'there is no {NOUNS[Kind(_noun(of))]} "{word}": {listing}')


def _only(client: Client, of: Daqs | Uploads, experiment: str | None, even_ended: bool) -> Acquisition:
    uid = common.experiment(client, experiment).uid if experiment or client.profile.experiment else None
    active = list(islice(of.list(experiment_uid=uid, active=True), SEARCHED))
    if not active and even_ended:
        active = [of.get(item.uid) for item in islice(of.list(experiment_uid=uid), 1)]
    if len(active) == 1:
        return active[0]
    noun = _noun(of)
    if not active:
        raise NotFoundError(f"no {NOUNS[Kind(noun)]} is running: `dm {noun} list` shows those that have ended")
    which = ", ".join(f"{item.uid} ({directory(item)})" for item in active[:5])
    raise InvalidError(f"{len(active)} run, so say which: {which}")


NOUNS: Mapping[Kind, str] = {Kind.DAQ: "DAQ", Kind.UPLOAD: "upload"}


def files(number: int) -> str:
    """Return a number of files as one says it."""
    return "1 file" if number == 1 else f"{number} files"


def _noun(of: Daqs | Uploads) -> str:
    return "daq" if isinstance(of, Daqs) else "upload"


def directory(item: Acquisition) -> str:
    """Return the directory as text, or that files were sent."""
    return "(sent by dm put)" if item.is_put else "/" + show_path(item.relpath)


def count(item: Acquisition, *states: JournalState) -> object:
    """Return how many files are in these states; nothing where that was not counted."""
    return item.count(*states) if item.tallies else None


def datasets(item: Acquisition) -> str:
    """Return how many master files have all that they link to."""
    found = item.masters
    return f"{found.complete} complete, {found.incomplete} incomplete" if found.complete or found.incomplete else ""


COLUMNS: Mapping[str, Any] = {
    "uid": "uid",
    "experiment": "experiment",
    "directory": directory,
    "state": "state",
    "on the way": lambda item: count(item, *UNDELIVERED),
    "available": lambda item: count(item, J.AVAILABLE),
    "quarantined": lambda item: count(item, J.QUARANTINED),
    "created": "created_at",
    "by": "started_by",
}


def _workflow(item: Acquisition) -> str:
    """Return what runs on the files, and how far that is."""
    if item.workflow is None:
        return ""
    stands = ", ".join(f"{count} {state}" for state, count in sorted(item.jobs.items()))
    return f"{item.workflow.workflow} per {item.workflow.per}" + (f" ({stands})" if stands else "")


FIELDS: Mapping[str, Any] = {
    "uid": "uid",
    "state": "state",
    "message": "message",
    "experiment": "experiment",
    "agent": "agent",
    "directory": directory,
    "destination": lambda item: "/".join(part for part in (item.tree, item.destination) if part),
    "finished when": "policy",
    "first": lambda item: " ".join(item.first),
    "each copy is": lambda item: item.verify.sentence,
    "copies also in": lambda item: ", ".join(item.also),
    "existing files": lambda item: "" if item.with_existing else "ignored",
    "hidden files": lambda item: "" if item.with_hidden else "left out",
    "include": lambda item: " ".join(item.include),
    "exclude": lambda item: " ".join(item.exclude),
    "found by": lambda item: "scans only, as asked for" if item.poll else "",
    "sentinel": "sentinel",
    "datasets": datasets,
    "resend": lambda item: "yes" if item.resend else "",
    "plugins": lambda item: "" if item.processors is None else ", ".join(item.processors) or "none",
    "without plugins": lambda item: ", ".join(item.skip_processors),
    "metadata": lambda item: item.metadata or "",
    "workflow": _workflow,
    "at most": lambda item: "" if item.max_run_time_s is None else f"{item.max_run_time_s:g} s",
    "started by": "started_by",
    "created": "created_at",
    "started": "started_at",
    "stop asked for": "stop_requested_at",
    "ended": "ended_at",
}


class Shown(Acquisition):
    """A DAQ or upload with the files that are not delivered, and the master files that miss some of theirs."""

    undelivered: Sequence[JournalEntry]
    incomplete: Sequence[MasterFile]


def show(of: Daqs | Uploads, item: Acquisition, *, is_all: bool) -> None:
    """Print a DAQ or upload: its options, its tallies, and what is not delivered and why."""
    listed = list(islice(undelivered(of, item), None if is_all else FIRST))
    wanting: list[MasterFile] = []
    if item.masters.incomplete:
        wanting = list(islice(of.masters(item.uid, is_complete=False), None if is_all else FIRST))
    if output.is_json():
        output.data(Shown(**item.model_dump(), undelivered=listed, incomplete=wanting))
        return
    output.record(item, FIELDS)
    output.say("")
    show_tallies(item)
    show_undelivered(item, listed)
    show_masters(item, wanting)


def show_tallies(item: Acquisition) -> None:
    """Print how many files are in each state."""
    columns = {"state": "state", "reason": "reason_code", "files": "files", "bytes": lambda t: output.size(t.bytes)}
    ranked: list[Tally] = sorted(item.tallies, key=_rank)
    output.rows(ranked, columns, empty="no files yet.")


def _rank(tally: Tally) -> tuple[int, str]:
    return (_ORDER.index(tally.state) if tally.state in _ORDER else -1), tally.reason_code


def show_undelivered(item: Acquisition, listed: Sequence[JournalEntry]) -> None:
    """Print files that are not delivered, and how many more there are."""
    if not listed:
        return
    output.say("")
    columns = {"not delivered": lambda e: show_path(e.relpath), "state": "state", "why": _why, "tries": "attempts"}
    output.rows(listed, columns)
    if (more := undelivered_count(item) - len(listed)) > 0:
        output.say(f"and {more} more: --all lists them.")
    if item.count(J.QUARANTINED) and item.state is not State.ABORTED:
        output.say(f"`dm {item.kind} retry {item.uid}` tries again what is quarantined.")


def show_masters(item: Acquisition, wanting: Sequence[MasterFile]) -> None:
    """Print master files that link to files which are not in the catalogue, and the first of those."""
    if not wanting:
        return
    output.say("")
    columns = {
        "incomplete dataset": lambda m: show_path(m.relpath),
        "missing": lambda m: f"{m.missing} of {m.linked}",
        "the first of them": lambda m: ", ".join(m.first_missing[:MISSING_FIRST]),
    }
    output.rows(wanting, columns)
    if (more := item.masters.incomplete - len(wanting)) > 0:
        output.say(f"and {more} more: --all lists them.")


def _why(entry: JournalEntry) -> str:
    why = entry.reason or entry.reason_code
    return f"{why}, {age(entry.first_seen_at)} old" if entry.state is J.GROWING else why


def age(since: datetime) -> str:
    """Return how long ago something was, as one says it."""
    seconds = max(0.0, (datetime.now(UTC) - since).total_seconds())
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _is_delivered(state: JournalState, reason_code: str) -> bool:
    return state is J.AVAILABLE or (state is J.SKIPPED and reason_code == UNCHANGED)


def undelivered_count(item: Acquisition) -> int:
    """Return how many files are on their way, or listed with a reason."""
    return sum(tally.files for tally in item.tallies if not _is_delivered(tally.state, tally.reason_code))


def undelivered(of: Daqs | Uploads, item: Acquisition) -> Iterator[JournalEntry]:
    """Yield the files that are not delivered, those that need somebody first."""
    there = {tally.state for tally in item.tallies if not _is_delivered(tally.state, tally.reason_code)}
    for state in _ORDER:
        if state in there & (LISTED | UNDELIVERED):
            yield from (e for e in of.entries(item.uid, state) if not _is_delivered(e.state, e.reason_code))
