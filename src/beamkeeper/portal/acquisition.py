"""DAQs and uploads: what runs for an experiment, starting and stopping, and where each file stands."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from starlette.responses import Response
from uuid6 import uuid7

from beamkeeper.client.acquisition import Daqs, Uploads
from beamkeeper.domain.acquisition import (
    ACTIVE,
    UNDELIVERED,
    Acquisition,
    AcquisitionQuery,
    JournalEntry,
    JournalQuery,
    JournalState,
    Kind,
    NewDaq,
    NewUpload,
)
from beamkeeper.domain.commands import CommandKind, CommandState, NewCommand
from beamkeeper.domain.errors import DmError, InvalidError
from beamkeeper.domain.experiments import Tree
from beamkeeper.domain.names import path_fields, show_path
from beamkeeper.portal.experiments import Shown, shown
from beamkeeper.portal.routes import PageRoute, listing, post
from beamkeeper.portal.tables import Column, Rows, Table
from beamkeeper.portal.visits import Visit, choice, sentence

PAGE = 100
PATIENCE_S = 10.0
"""So long a station that collects what it is asked for has to answer, before the page goes on without."""

NOUNS = {Kind.DAQ: "DAQ", Kind.UPLOAD: "upload"}


def directory(one: Acquisition) -> str:
    """Return the directory that is watched, as it is shown."""
    return "files sent by dm put" if one.is_put else "/" + show_path(one.relpath)


def columns(of: Shown, kind: Kind) -> Sequence[Column[Acquisition]]:
    """Return the columns of a list of DAQs or uploads of an experiment."""
    return (
        Column("uid", NOUNS[kind], lambda one: str(one.uid), "uid", lambda one: f"{_path(of, kind)}/{one.uid}"),
        Column("state", "State", lambda one: one.state, "state"),
        Column("directory", "Directory", directory, "code"),
        Column("started_by", "Started by", lambda one: one.started_by),
        Column("created_at", "Started", lambda one: one.created_at, "time"),
        Column("ended_at", "Ended", lambda one: one.ended_at, "time"),
        Column("message", "Message", lambda one: one.message),
    )


def _path(of: Shown, kind: Kind) -> str:
    return f"{of.path}/{kind}s"


def _noun(visit: Visit, of: Shown, kind: Kind) -> Daqs | Uploads:
    client = visit.at(of.experiment.station)
    return client.daqs if kind is Kind.DAQ else client.uploads


def list_(kind: Kind, visit: Visit) -> Response:
    """List the DAQs or the uploads of an experiment, newest first."""
    return _list(kind, visit)


def _list(kind: Kind, visit: Visit, message: str = "", status: int = 200) -> Response:
    of = shown(visit)

    def read(after: str | None) -> Rows[Acquisition]:
        query = AcquisitionQuery(experiment_uid=of.experiment.uid, after=after, limit=PAGE)
        page = _noun(visit, of, kind).page(query)
        return Rows(page.items, page.next)

    empty = f"There was no {NOUNS[kind]} yet: start one here, or with `dm {kind} start DIRECTORY`."
    table = Table(f"{of.experiment.name}-{kind}s", columns(of, kind), read, empty)
    values = {"of": of, "kind": kind, "noun": NOUNS[kind], "message": message, "trees": [Tree.DATA, Tree.ANALYSIS]}
    answer = table.answer(visit, "acquisition/list.html", **values)
    answer.status_code = status
    return answer


def start(kind: Kind, visit: Visit) -> Response:
    """Start a DAQ or an upload of what the form says."""
    of = shown(visit)
    form = visit.form
    try:
        given: dict[str, Any] = {
            "experiment_uid": of.experiment.uid,
            **_directory(form.get("directory", "")),
            **form.some("destination", "tree"),
            "include": form.get("include", "").split(),
            "exclude": form.get("exclude", "").split(),
        }
        if kind is Kind.DAQ:
            daq = NewDaq.model_validate({**given, "with_existing": "ignore_existing" not in form})
            uid = _begin(visit, of, daq)
        else:
            uid = _begin(visit, of, NewUpload.model_validate(given))
    except ValidationError as error:
        return _list(kind, visit, sentence(error), 422)
    except DmError as error:
        return _list(kind, visit, error.message, 422)
    return visit.go(f"{_path(of, kind)}/{uid}" if uid else _path(of, kind))


def _directory(text: str) -> dict[str, str]:
    path = os.fsencode(text.strip()).rstrip(b"/")
    if not path.startswith(b"/") or path == b"":
        raise InvalidError("name a directory of the station by its whole path, such as /detector/scan_1")
    return {"path_b64": path_fields(path.lstrip(b"/"))["path_b64"] or ""}


def _begin(visit: Visit, of: Shown, new: NewDaq | NewUpload) -> UUID | None:
    """Start it directly, or by way of the queue that a station of another place collects; None: it waits there."""
    client = visit.at(of.experiment.station)
    if of.experiment.station == visit.portal.settings.station.name:
        return client.daqs.start(new).uid if isinstance(new, NewDaq) else client.uploads.start(new).uid
    kind = CommandKind.START_DAQ if isinstance(new, NewDaq) else CommandKind.START_UPLOAD
    given: dict[str, Any] = {"daq" if isinstance(new, NewDaq) else "upload": new}
    return _ask(visit, of, kind=kind, **given)


def _ask(visit: Visit, of: Shown, **given: Any) -> UUID | None:
    new = NewCommand(uid=UUID(bytes=uuid7().bytes), experiment_uid=of.experiment.uid, **given)
    visit.client.commands.give(of.experiment.station, new)
    told = visit.client.commands.wait(new.uid, PATIENCE_S)
    if told.state in (CommandState.REFUSED, CommandState.EXPIRED):
        raise InvalidError(f"station {of.experiment.station} refused: {told.message or 'it was not collected in time'}")
    return told.uid if told.state is CommandState.DONE else None


def stop(kind: Kind, visit: Visit) -> Response:
    """Stop one: after a last scan, or at once."""
    of = shown(visit)
    uid, now = visit.uid("which"), visit.form.get("now") == "yes"
    if of.experiment.station == visit.portal.settings.station.name:
        _noun(visit, of, kind).stop(uid, now)
    else:
        _ask(visit, of, kind=CommandKind.STOP, acquisition_uid=uid, now=now)
    return visit.go(f"{_path(of, kind)}/{uid}")


def retry(kind: Kind, visit: Visit) -> Response:
    """Try quarantined files again."""
    of = shown(visit)
    _noun(visit, of, kind).retry(visit.uid("which"))
    return visit.go(f"{_path(of, kind)}/{visit.uid('which')}")


def _entry_columns() -> Sequence[Column[JournalEntry]]:
    """Return the columns of the files of a DAQ or upload."""
    return (
        Column("path", "File", lambda one: show_path(one.relpath), "code"),
        Column("state", "State", lambda one: one.state, "state"),
        Column("size", "Size", lambda one: one.size, "size"),
        Column("reason", "Why", lambda one: one.reason),
        Column("attempts", "Attempts", lambda one: one.attempts, "count"),
        Column("first_seen_at", "Seen", lambda one: one.first_seen_at, "time"),
        Column("available_at", "Available", lambda one: one.available_at, "time"),
    )


def show(kind: Kind, visit: Visit) -> Response:
    """Show one with where its files stand."""
    of = shown(visit)
    noun, uid = _noun(visit, of, kind), visit.uid("which")
    state = choice(visit.query["state"], JournalState, "state of a file") if visit.query.get("state") else None

    def read(after: str | None) -> Rows[JournalEntry]:
        page = noun.entry_page(uid, JournalQuery(state=state, after=after, limit=PAGE))
        return Rows(page.items, page.next)

    empty = "No file is in this state." if state else "No file was seen yet."
    one = noun.get(uid)
    values = {"of": of, "kind": kind, "noun": NOUNS[kind], "one": one, "directory": directory(one)}
    counts = {state: one.count(state) for state in JournalState}
    return Table(f"{kind}-{uid}", _entry_columns(), read, empty).answer(
        visit,
        "acquisition/show.html",
        counts=counts,
        is_active=one.state in ACTIVE,
        on_the_way=one.count(*UNDELIVERED),
        **values,
    )


def _routes(kind: Kind) -> tuple[PageRoute, ...]:
    top = f"/experiments/{{uid}}/{kind}s"
    return (
        *listing(top, partial(list_, kind)),
        post(top, partial(start, kind)),
        *listing(f"{top}/{{which}}", partial(show, kind)),
        post(f"{top}/{{which}}/stop", partial(stop, kind)),
        post(f"{top}/{{which}}/retry", partial(retry, kind)),
    )


ROUTES = (*_routes(Kind.DAQ), *_routes(Kind.UPLOAD))
