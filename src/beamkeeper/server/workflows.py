"""Workflows over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Query

from beamkeeper.core import workflows as core
from beamkeeper.domain.names import Uid
from beamkeeper.domain.workflows.stored import (
    Findings,
    NewWorkflow,
    Workflow,
    WorkflowHistory,
    WorkflowPage,
    WorkflowQuery,
)
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import ProcessingTx, ProcessingWriteTx, Who

router = APIRouter(route_class=StrictRoute, tags=["workflows"])

EXAMPLE = {
    "definition": {
        "name": "average",
        "stages": {
            "1": {
                "command": 'average "$filePath" --into average.h5',
                "outputVariableRegexList": ["frames: (?P<frames>.*)"],
                "outputs": ["average.h5"],
            }
        },
    }
}

New = Annotated[NewWorkflow, Body(examples=[EXAMPLE])]


@router.post("/workflows", status_code=201, summary="Add a workflow")
def add(new: New, tx: ProcessingWriteTx, who: Who) -> Workflow:
    """For managers of the station. Asking again for the same one gives it."""
    return core.add(tx, who, new)


@router.post("/workflows:upsert", summary="Add a workflow, or a new version of it")
def upsert(new: New, tx: ProcessingWriteTx, who: Who) -> Workflow:
    """For managers of the station; the version that is there already is not kept again."""
    return core.upsert(tx, who, new)


@router.post("/workflows:lint", summary="What is wrong or dangerous in a definition")
def lint(new: New, tx: ProcessingTx, who: Who) -> Findings:
    """The definition is not kept."""
    return core.findings(tx, who, new)


@router.get("/workflows", summary="Workflows by name")
def page(query: Annotated[WorkflowQuery, Query()], tx: ProcessingTx, who: Who) -> WorkflowPage:
    """Those of the station, each in its newest version."""
    return core.page(tx, who, query)


@router.get("/workflows/{uid}", summary="A workflow")
def show(
    uid: Uid, tx: ProcessingTx, who: Who, number: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None
) -> Workflow:
    """In its newest version, or another."""
    return core.show(tx, who, uid, number=number)


@router.get("/workflows/{uid}/history", summary="The versions of a workflow")
def history(uid: Uid, tx: ProcessingTx, who: Who) -> WorkflowHistory:
    """Every version that there was, newest first."""
    return core.history(tx, who, uid)


@router.put("/workflows/{uid}", summary="Change a workflow")
def update(uid: Uid, new: New, tx: ProcessingWriteTx, who: Who) -> Workflow:
    """For managers of the station: a new version, and jobs from now on run it."""
    return core.update(tx, who, uid, new=new)


@router.delete("/workflows/{uid}", status_code=204, summary="Delete a workflow")
def delete(uid: Uid, tx: ProcessingWriteTx, who: Who) -> None:
    """For managers of the station: it is hidden, and its history stays."""
    core.delete(tx, who, uid)
