"""Workflows: what may be run, how its stages hang together, what changed between versions, and running one."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from itertools import islice
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from starlette.responses import Response

from beamkeeper.client import Client
from beamkeeper.domain.errors import DmError, InvalidError
from beamkeeper.domain.files import FileOrder
from beamkeeper.domain.names import show_path
from beamkeeper.domain.processing import MOST_FILES, NewJob
from beamkeeper.domain.workflows.graph import graph
from beamkeeper.domain.workflows.model import Definition
from beamkeeper.domain.workflows.stored import Workflow, WorkflowPage, WorkflowQuery
from beamkeeper.portal import drawing
from beamkeeper.portal.files import meaning
from beamkeeper.portal.routes import get, listing, post
from beamkeeper.portal.tables import Column, Rows, Table
from beamkeeper.portal.visits import Visit, address, sentence

PAGE = 100
_GIVEN = ("on", "experiment", "q")
"""What an address has of the files that a workflow is to be run on."""

_FIELD = "argument:"
"""Before the names of a workflow's own arguments in its form."""

COLUMNS: Sequence[Column[Workflow]] = (
    Column("name", "Workflow", lambda one: one.name, href=lambda one: f"/workflows/{one.uid}"),
    Column("owner", "Owner", lambda one: one.owner),
    Column("number", "Version", lambda one: one.number, "count"),
    Column("stages", "Stages", lambda one: len(one.definition.stages), "count"),
    Column("description", "Description", lambda one: one.definition.description),
    Column("added_at", "Since", lambda one: one.added_at, "time"),
)


def list_(visit: Visit) -> Response:
    """List the workflows of the station; `on` names files that one of them is to work on, `q` finds some."""
    given = {key: visit.query[key] for key in _GIVEN if visit.query.get(key)}

    def read(after: str | None) -> Rows[Workflow]:
        page: WorkflowPage = visit.client.workflows.page(WorkflowQuery(after=after, limit=PAGE))
        return Rows(page.items, page.next)

    empty = "There is no workflow yet: a manager of the station adds one with `dm workflow add FILE`."
    columns = COLUMNS
    if given:
        first = Column[Workflow](
            "name", "Workflow", lambda one: one.name, href=lambda one: address(f"/workflows/{one.uid}", given)
        )
        columns = (first, *COLUMNS[1:])
    return Table("workflows", columns, read, empty).answer(visit, "workflows/list.html", given=given)


def show(visit: Visit) -> Response:
    """Show a workflow with a form to run it."""
    values = {key: visit.query[key] for key in ("experiment", "q") if visit.query.get(key)}
    if on := visit.query.get("on"):
        values.update(_on_files(visit, on.split(",")))
    return _show(visit, {**values, **visit.form})


def _on_files(visit: Visit, uids: Sequence[str]) -> dict[str, str]:
    """Return what the form has where files were chosen."""
    try:
        files = [visit.client.files.get(UUID(uid)) for uid in uids]
    except ValueError as error:
        raise InvalidError("the address names no file") from error
    experiment = visit.client.experiments.by_uid(files[0].experiment_uid)
    return {"experiment": experiment.name, "paths": "\n".join(show_path(file.relpath) for file in files)}


def _show(visit: Visit, values: dict[str, str], message: str = "", status: int = 200) -> Response:
    client, uid = visit.client, visit.uid()
    history = client.workflows.history(uid)
    number = visit.number("number", history[0].number, 10**9)
    one = next((one for one in history if one.number == number), None) or client.workflows.get(uid, number)
    before = next((each for each in history if each.number == number - 1), None)
    return visit.page(
        "workflows/show.html",
        status,
        one=one,
        history=history,
        picture=drawing.stages(graph(one.definition), {name: it.command for name, it in one.definition.stages.items()}),
        text=_text(one.definition),
        changes=_changes(before, one) if before else [],
        arguments=one.definition.arguments or {},
        field=_FIELD,
        values=values,
        message=message,
    )


def _text(definition: Definition) -> str:
    return json.dumps(definition.model_dump(mode="json", exclude_defaults=True), indent=2, ensure_ascii=False)


def _changes(before: Workflow, after: Workflow) -> list[str]:
    """Return what changed from one version to the next, line by line."""
    lines = (_text(before.definition).splitlines(), _text(after.definition).splitlines())
    return list(islice(difflib.unified_diff(*lines, str(before.number), str(after.number), lineterm="", n=2), 500))


def run(visit: Visit) -> Response:
    """Submit a job, and go to it."""
    client, form = visit.client, visit.form
    try:
        one = client.workflows.get(visit.uid())
        experiment = client.experiments.get(form["experiment"]) if "experiment" in form else None
        new = NewJob(
            workflow=one.name,
            workflow_owner=one.owner,
            version=one.number,
            experiment_uid=experiment.uid if experiment else None,
            arguments=_arguments(visit, one.definition),
            paths=_paths(visit, client, experiment.uid if experiment else None),
        )
        job = client.jobs.submit(new)
    except ValidationError as error:
        return _show(visit, dict(form), sentence(error), 422)
    except DmError as error:
        return _show(visit, dict(form), error.message, 422)
    return visit.go(f"/jobs/{job.uid}")


def _arguments(visit: Visit, definition: Definition) -> dict[str, Any]:
    """Return the arguments that were filled in; whether they are of their types says the station."""
    found: dict[str, Any] = {}
    for name, argument in (definition.arguments or {}).items():
        given = visit.form.all(_FIELD + name)
        if argument.type == "bool":
            found[name] = bool(given)
        elif given:
            found[name] = ",".join(given)
    for line in visit.form.get("more", "").splitlines():
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise InvalidError(f'"{line[:80]}" is no argument: write NAME:VALUE, one a line')
        found[name.strip()] = value.strip()
    return found


def _paths(visit: Visit, client: Client, experiment_uid: UUID | None) -> tuple[str, ...]:
    """Return the files to work on: those that are named, and those that a query finds."""
    paths = [line.strip() for line in visit.form.get("paths", "").splitlines() if line.strip()]
    query = visit.form.get("q", "")
    if (paths or query) and experiment_uid is None:
        raise InvalidError("say of which experiment the files are")
    if query:
        wanted = meaning(query, experiment_uid, order=FileOrder.PATH)
        found = [show_path(file.relpath) for file in islice(client.files.find(wanted), MOST_FILES + 1)]
        if not found:
            raise InvalidError("the query finds no file: try it on the experiment's page")
        paths += found
    if len(paths) > MOST_FILES:
        raise InvalidError(f"these are more than {MOST_FILES} files, which is the most for one job")
    return tuple(dict.fromkeys(paths))


ROUTES = (
    *listing("/workflows", list_),
    get("/workflows/{uid}", show),
    post("/workflows/{uid}", run),
)
