"""Files over HTTP: registering in bulk, finding, metadata, hiding and bringing back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Query, Request, Response

from beamkeeper.core import files as core
from beamkeeper.domain.files import (
    Deleted,
    ExperimentSummary,
    File,
    FileCount,
    FileDeletion,
    FileHistory,
    FileLookup,
    FileOrder,
    FilePage,
    FileQuery,
    FileRecord,
    MetadataPatch,
    NewFiles,
    RegisteredFiles,
)
from beamkeeper.domain.frames import NewFrames
from beamkeeper.domain.metadata import MetadataHistory
from beamkeeper.domain.names import Uid
from beamkeeper.server.bodies import Registering, StrictRoute, described, large
from beamkeeper.server.deps import CatalogTx, CatalogWriteTx, Who, writing

router = APIRouter(route_class=StrictRoute, tags=["files"])

FIND_EXAMPLES = [
    {"query": 'size > 1GB and sample.name ~ "Ag*" and energy >= 12keV and modified > -7d'},
    {"filter": {"size": {"$gt": "1GB"}, "sample.name": {"$in": ["Ag", "Au"]}}, "order": "path"},
]
PATCH_EXAMPLE = {"sample": {"name": "Ag", "note": None}}


@router.post(
    "/files:register",
    summary="Register stored versions",
    response_model=RegisteredFiles,
    openapi_extra=described(NewFiles),
)
def register(who: Who, new: Registering, request: Request) -> Response:
    """Register stored versions in one transaction; the same `version_uid` again changes nothing."""
    with writing(request) as tx:
        answers = core.register_text(tx, who, new)
    return _json(answers)


@router.post("/files:lookup", summary="What some paths hold now", openapi_extra=described(FileLookup))
def lookup(who: Who, wanted: Annotated[FileLookup, large(FileLookup)], tx: CatalogTx) -> FilePage:
    """What these paths of an experiment hold now; paths that are not catalogued are left out."""
    return core.lookup(tx, who, wanted)


@router.post("/files:find", summary="Find files by path, size, time and metadata", response_model=FilePage)
def find(query: Annotated[FileQuery, Body(examples=FIND_EXAMPLES)], tx: CatalogTx, who: Who) -> Response:
    """One page of the files that meet every condition.

    Conditions are a `query` in the short notation, a `filter` in that of MongoDB, or both. A page comes in bounded
    time: where a search has looked at so many files and found less than a page, it says so in `is_partial`.
    """
    return _json(core.find_text(tx, who, query))


@router.get("/files", summary="List files", response_model=FilePage)
def list_files(
    tx: CatalogTx,
    who: Who,
    *,
    experiment_uid: Uid | None = None,
    glob: Annotated[str | None, Query(max_length=4096)] = None,
    query: Annotated[str | None, Query(max_length=8192, examples=["size > 1GB"])] = None,
    order: FileOrder | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """One page of files by experiment, path and query."""
    asked = FileQuery(experiment_uid=experiment_uid, glob=glob, query=query, order=order, after=after, limit=limit)
    return _json(core.find_text(tx, who, asked))


def _json(text: bytes) -> Response:
    return Response(text, media_type="application/json")


@router.get("/files/{uid}", summary="A file")
def get(uid: Uid, tx: CatalogTx, who: Who) -> File:
    """A file with its newest version."""
    return core.get(tx, who, uid)


@router.get("/files/{uid}/history", summary="Versions, replicas and ledger of a file")
def history(uid: Uid, tx: CatalogTx, who: Who) -> FileHistory:
    """Everything that is known of a file."""
    return core.history(tx, who, uid)


@router.get("/files/{uid}/record", summary="All of a file at once")
def record(uid: Uid, tx: CatalogTx, who: Who) -> FileRecord:
    """Its history, the newest changes of its metadata, and what it was made from and what from it."""
    return core.record(tx, who, uid)


@router.patch("/files/{uid}/metadata", summary="Change metadata")
def set_metadata(
    uid: Uid, patch: Annotated[MetadataPatch, Body(examples=[PATCH_EXAMPLE])], tx: CatalogWriteTx, who: Who
) -> File:
    """Change a file's metadata by a merge patch (RFC 7396)."""
    return core.set_metadata(tx, who, uid, patch=patch.root)


@router.post("/experiments/{uid}/frames", summary="Tell what first frames hold", status_code=204)
def note_frames(uid: Uid, new: NewFrames, tx: CatalogWriteTx, who: Who) -> None:
    """For services: added to the metadata of the newest versions, where it is not there already."""
    core.note_frames(tx, who, uid, new)


@router.get("/files/{uid}/metadata/history", summary="How a file's metadata came about")
def metadata_history(
    uid: Uid, tx: CatalogTx, who: Who, after: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> MetadataHistory:
    """Who changed what when, and what stood there before; newest first."""
    return core.metadata_history(tx, who, uid, after=after, limit=limit)


@router.delete("/files/{uid}/metadata/{key:path}", summary="Remove a metadata key")
def remove_metadata(uid: Uid, key: str, tx: CatalogWriteTx, who: Who) -> File:
    """Remove one key, which may be a dotted path such as `sample.name`."""
    return core.remove_metadata(tx, who, uid, key=key)


@router.post("/files:delete", summary="Hide files")
def delete(wanted: FileDeletion, tx: CatalogWriteTx, who: Who) -> Deleted:
    """Count what is meant; hide it where `expected_count` agrees. Undone by `files:restore` for 30 days."""
    return core.delete(tx, who, wanted)


@router.post("/files:restore", summary="Bring hidden files back")
def restore(query: FileQuery, tx: CatalogWriteTx, who: Who) -> FileCount:
    """Bring back the hidden files that a query means."""
    return core.restore(tx, who, query)


@router.get("/experiments/{uid}/summary", summary="An experiment's files in numbers")
def summary(uid: Uid, tx: CatalogTx, who: Who) -> ExperimentSummary:
    """The files of an experiment in numbers."""
    return core.summary(tx, who, uid)
