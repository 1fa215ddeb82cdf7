"""Datasets over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Query

from beamkeeper.core import datasets as core
from beamkeeper.domain.datasets import (
    BelongingFiles,
    Changed,
    Dataset,
    DatasetPage,
    DatasetQuery,
    FilesAsked,
    FileUids,
    MemberPage,
    MemberQuery,
    NewDataset,
)
from beamkeeper.domain.files import FileCount, MetadataPatch
from beamkeeper.domain.metadata import MetadataHistory
from beamkeeper.domain.names import Uid
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import CatalogTx, CatalogWriteTx, Who

router = APIRouter(route_class=StrictRoute, tags=["datasets"])

NEW_EXAMPLE = {
    "experiment_uid": "01900000-0000-7000-8000-000000000001",
    "name": "silver-series",
    "title": "All scans of silver",
    "metadata": {"sample": {"name": "Ag"}},
}


@router.post("/datasets", status_code=201, summary="Make a dataset")
def create(new: Annotated[NewDataset, Body(examples=[NEW_EXAMPLE])], tx: CatalogWriteTx, who: Who) -> Dataset:
    """A list to which files are added, or a saved query; asking again for the same one gives it."""
    return core.create(tx, who, new)


@router.get("/datasets", summary="Datasets, newest first")
def page(query: Annotated[DatasetQuery, Query()], tx: CatalogTx, who: Who) -> DatasetPage:
    """Those of the experiments that the caller may read."""
    return core.page(tx, who, query)


@router.post("/datasets:of-files", summary="Which dataset each of some files belongs to")
def of_files(asked: FilesAsked, tx: CatalogTx, who: Who) -> BelongingFiles:
    """Of several the newest; files that belong to none are left out."""
    return core.of_files(tx, who, asked)


@router.get("/datasets/{uid}", summary="A dataset")
def show(uid: Uid, tx: CatalogTx, who: Who) -> Dataset:
    """A dataset, without its files."""
    return core.show(tx, who, uid)


@router.get("/datasets/{uid}/summary", summary="A dataset's files in numbers")
def count(uid: Uid, tx: CatalogTx, who: Who) -> FileCount:
    """How many files it has, and how large they are together."""
    return core.count(tx, who, uid)


@router.get("/datasets/{uid}/files", summary="The files of a dataset")
def files(uid: Uid, query: Annotated[MemberQuery, Query()], tx: CatalogTx, who: Who) -> MemberPage:
    """Each with the version that belongs to the dataset: the newest, or the one that is frozen."""
    return core.files(tx, who, uid, query=query)


@router.post("/datasets/{uid}/files:add", summary="Add files to a dataset")
def add_files(uid: Uid, files: FileUids, tx: CatalogWriteTx, who: Who) -> Changed:
    """Files of its experiment; those that are in it already stay."""
    return core.add_files(tx, who, uid, file_uids=files.file_uids)


@router.post("/datasets/{uid}/files:remove", summary="Take files out of a dataset")
def remove_files(uid: Uid, files: FileUids, tx: CatalogWriteTx, who: Who) -> Changed:
    """The files themselves stay."""
    return core.remove_files(tx, who, uid, file_uids=files.file_uids)


@router.post("/datasets/{uid}/freeze", summary="Freeze a dataset")
def freeze(uid: Uid, tx: CatalogWriteTx, who: Who) -> Dataset:
    """Its files are fixed for ever, each in the version that it has now."""
    return core.freeze(tx, who, uid)


@router.patch("/datasets/{uid}/metadata", summary="Change a dataset's metadata")
def set_metadata(uid: Uid, patch: MetadataPatch, tx: CatalogWriteTx, who: Who) -> Dataset:
    """By a merge patch (RFC 7396)."""
    return core.set_metadata(tx, who, uid, patch=patch.root)


@router.get("/datasets/{uid}/metadata/history", summary="How a dataset's metadata came about")
def metadata_history(
    uid: Uid, tx: CatalogTx, who: Who, after: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> MetadataHistory:
    """Who changed what when, and what stood there before; newest first."""
    return core.metadata_history(tx, who, uid, after=after, limit=limit)
