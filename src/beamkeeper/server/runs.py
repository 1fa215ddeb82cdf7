"""Runs and their rules over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Query

from beamkeeper.core import runs as core
from beamkeeper.domain.datasets import BelongingFiles, Changed, FilesAsked, FileUids, MemberPage, MemberQuery
from beamkeeper.domain.files import FileCount, MetadataPatch
from beamkeeper.domain.metadata import MetadataHistory
from beamkeeper.domain.names import Uid
from beamkeeper.domain.runs import NewRun, NewRunRule, Run, RunPage, RunQuery, RunRule, RunRules, RunStop
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import CatalogTx, CatalogWriteTx, Who

router = APIRouter(route_class=StrictRoute, tags=["runs"])

EXPERIMENT = "01900000-0000-7000-8000-000000000001"
NEW_EXAMPLE = {"experiment_uid": EXPERIMENT, "name": "142", "start": {"plan_name": "scan", "motors": ["th"]}}
STOP_EXAMPLE = {"stop": {"exit_status": "success", "num_events": 51}}
RULE_EXAMPLE = {"experiment_uid": EXPERIMENT, "path": "data/{sample}/scan{run}_*.tif"}


@router.post("/runs", status_code=201, summary="Say that a run has begun")
def create(new: Annotated[NewRun, Body(examples=[NEW_EXAMPLE])], tx: CatalogWriteTx, who: Who) -> Run:
    """By the control system's uid or number; asking again for the same one gives it."""
    return core.create(tx, who, new)


@router.get("/runs", summary="Runs, newest first")
def page(query: Annotated[RunQuery, Query()], tx: CatalogTx, who: Who) -> RunPage:
    """Those of the experiments that the caller may read."""
    return core.page(tx, who, query)


@router.post("/runs:of-files", summary="Which run each of some files belongs to")
def of_files(asked: FilesAsked, tx: CatalogTx, who: Who) -> BelongingFiles:
    """Of several the newest; files that belong to none are left out."""
    return core.of_files(tx, who, asked)


@router.get("/runs/{uid}", summary="A run")
def show(uid: Uid, tx: CatalogTx, who: Who) -> Run:
    """A run, without its files."""
    return core.show(tx, who, uid)


@router.post("/runs/{uid}/stop", summary="Say that a run has ended")
def stop(uid: Uid, end: Annotated[RunStop, Body(examples=[STOP_EXAMPLE])], tx: CatalogWriteTx, who: Who) -> Run:
    """Saying the same again changes nothing."""
    return core.stop(tx, who, uid, end=end)


@router.get("/runs/{uid}/summary", summary="A run's files in numbers")
def count(uid: Uid, tx: CatalogTx, who: Who) -> FileCount:
    """How many files it has, and how large they are together."""
    return core.count(tx, who, uid)


@router.get("/runs/{uid}/files", summary="The files of a run")
def files(uid: Uid, query: Annotated[MemberQuery, Query()], tx: CatalogTx, who: Who) -> MemberPage:
    """Those that rules give it, and those that were added by call."""
    return core.files(tx, who, uid, query=query)


@router.post("/runs/{uid}/files:add", summary="Add files to a run")
def add_files(uid: Uid, files: FileUids, tx: CatalogWriteTx, who: Who) -> Changed:
    """Whatever the rules say of them."""
    return core.add_files(tx, who, uid, file_uids=files.file_uids)


@router.post("/runs/{uid}/files:remove", summary="Take files out of a run")
def remove_files(uid: Uid, files: FileUids, tx: CatalogWriteTx, who: Who) -> Changed:
    """Those that were added by call; what rules say stays."""
    return core.remove_files(tx, who, uid, file_uids=files.file_uids)


@router.patch("/runs/{uid}/metadata", summary="Change a run's metadata")
def set_metadata(uid: Uid, patch: MetadataPatch, tx: CatalogWriteTx, who: Who) -> Run:
    """By a merge patch (RFC 7396)."""
    return core.set_metadata(tx, who, uid, patch=patch.root)


@router.get("/runs/{uid}/metadata/history", summary="How a run's metadata came about")
def metadata_history(
    uid: Uid, tx: CatalogTx, who: Who, after: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> MetadataHistory:
    """Who changed what when, and what stood there before; newest first."""
    return core.metadata_history(tx, who, uid, after=after, limit=limit)


@router.get("/run-rules", summary="The rules of an experiment")
def rules(experiment_uid: Uid, tx: CatalogTx, who: Who) -> RunRules:
    """By which its files come to runs: its own, and those of its type."""
    return core.rules(tx, who, experiment_uid)


@router.post("/run-rules", status_code=201, summary="Make a rule")
def add_rule(new: Annotated[NewRunRule, Body(examples=[RULE_EXAMPLE])], tx: CatalogWriteTx, who: Who) -> RunRule:
    """For new files at once, for those that are there by and by; asking again for the same one gives it."""
    return core.add_rule(tx, who, new)


@router.delete("/run-rules/{uid}", status_code=204, summary="Remove a rule")
def remove_rule(uid: Uid, tx: CatalogWriteTx, who: Who) -> None:
    """What it did is undone by and by."""
    core.remove_rule(tx, who, uid)
