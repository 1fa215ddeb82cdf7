"""DAQs, uploads, puts and plugins over HTTP."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Query

from beamkeeper.core import acquisition as core
from beamkeeper.core import picking, probing
from beamkeeper.core.sources import Place, Rules
from beamkeeper.core.spool import Chunk
from beamkeeper.domain.acquisition import (
    Acquisition,
    AcquisitionPage,
    AcquisitionQuery,
    Announced,
    Announcement,
    ChunkQuery,
    JournalPage,
    JournalQuery,
    Kind,
    NewDaq,
    NewPut,
    NewUpload,
    Picked,
    PluginInfo,
    PriorityRequest,
    PutChunk,
    RetryRequest,
    StopRequest,
)
from beamkeeper.domain.masters import MasterPage, MasterQuery
from beamkeeper.domain.names import RelPath, from_b64
from beamkeeper.domain.storage import ProbeSent
from beamkeeper.domain.users import Caller
from beamkeeper.plugins.load import transfer_of
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import AcquisitionTx, AcquisitionWriteTx, Context, Ctx, Who

router = APIRouter(route_class=StrictRoute)

ANNOUNCE_EXAMPLE = {"paths": [{"path": "scan_0001/frame_0001.tif"}]}

Content = Annotated[bytes, Body(media_type="application/octet-stream", description="At most 8 MiB.")]


async def _rules(ctx: Ctx) -> Rules:
    return Rules.of(ctx.settings)


RulesHere = Annotated[Rules, Depends(_rules)]

# Directories are looked at, and the spool is made durable, before the writing transaction of the route begins
# (dependencies are solved in the order of the parameters): a file system that hangs must not hold the database.


def _look(ctx: Context, who: Caller, new: NewDaq | NewUpload, rules: Rules) -> Place:
    with ctx.database.read() as tx:
        return core.look(tx, who, new, rules=rules)


def _look_at_daq(ctx: Ctx, who: Who, new: NewDaq, rules: RulesHere) -> Place:
    return _look(ctx, who, new, rules)


def _look_at_upload(ctx: Ctx, who: Who, new: NewUpload, rules: RulesHere) -> Place:
    return _look(ctx, who, new, rules)


def _seal(ctx: Ctx, who: Who, uid: UUID, rules: RulesHere) -> UUID:
    with ctx.database.read() as tx:
        return core.seal_put(tx, who, uid, rules=rules)


def _chunk(path_b64: str, query: Annotated[ChunkQuery, Query()], content: Content = b"") -> Chunk:
    return Chunk(RelPath(from_b64(path_b64)), query.offset, query.size, content, query.modified_ns)


@router.post("/daqs", status_code=201, tags=["DAQs"], summary="Start to watch a directory")
def start_daq(
    new: NewDaq, place: Annotated[Place, Depends(_look_at_daq)], tx: AcquisitionWriteTx, who: Who
) -> Acquisition:
    """Watch a directory for an experiment; one that a running DAQ holds is refused, or taken over."""
    return core.start_daq(tx, who, new, place=place)


@router.get("/daqs", tags=["DAQs"], summary="List DAQs, newest first")
def list_daqs(query: Annotated[AcquisitionQuery, Query()], tx: AcquisitionTx, who: Who) -> AcquisitionPage:
    """DAQs of the experiments that the caller may see."""
    return core.list_(tx, who, query, kind=Kind.DAQ)


@router.get("/daqs/{uid}", tags=["DAQs"], summary="Show a DAQ")
def show_daq(uid: UUID, tx: AcquisitionTx, who: Who) -> Acquisition:
    """A DAQ with its options, and how many files are in each state."""
    return core.show(tx, who, uid, kind=Kind.DAQ)


@router.post("/daqs/{uid}:stop", tags=["DAQs"], summary="Stop a DAQ")
def stop_daq(uid: UUID, request: StopRequest, tx: AcquisitionWriteTx, who: Who) -> Acquisition:
    """Ask for a last scan and the delivery of the rest; or for the end now, leaving the rest to a later DAQ."""
    return core.stop(tx, who, uid, request=request, kind=Kind.DAQ)


@router.post("/daqs/{uid}:retry", tags=["DAQs"], summary="Try quarantined files again")
def retry_daq(uid: UUID, request: RetryRequest, tx: AcquisitionWriteTx, who: Who) -> Picked:
    """All of them, or those that a pattern matches; a DAQ that has failed runs again for them, and nothing else."""
    return picking.retry(tx, who, uid, request=request, kind=Kind.DAQ)


@router.post("/daqs/{uid}:prioritise", tags=["DAQs"], summary="Say which files go first")
def prioritise_daq(uid: UUID, request: PriorityRequest, tx: AcquisitionWriteTx, who: Who) -> Picked:
    """They go before all other files of the station, also those that are still to come."""
    return picking.prioritise(tx, who, uid, request=request, kind=Kind.DAQ)


@router.get("/daqs/{uid}/entries", tags=["DAQs"], summary="List the files of a DAQ")
def daq_entries(uid: UUID, query: Annotated[JournalQuery, Query()], tx: AcquisitionTx, who: Who) -> JournalPage:
    """Files in the order of their paths, with where they stand and why."""
    return core.entries(tx, who, uid, query=query, kind=Kind.DAQ)


@router.get("/daqs/{uid}/masters", tags=["DAQs"], summary="List the master files of a DAQ")
def daq_masters(uid: UUID, query: Annotated[MasterQuery, Query()], tx: AcquisitionTx, who: Who) -> MasterPage:
    """Files that link to others, in the order of their paths, with how many of those are missing and the first."""
    return core.masters(tx, who, uid, query=query, kind=Kind.DAQ)


@router.post("/daqs/{uid}/files:announce", tags=["DAQs"], summary="Say that files are finished")
def announce(
    uid: UUID,
    announcement: Annotated[Announcement, Body(examples=[ANNOUNCE_EXAMPLE])],
    tx: AcquisitionWriteTx,
    who: Who,
) -> Announced:
    """The writer's own word: these files, and all that is in these directories, are taken without a quiet period."""
    return core.announce(tx, who, uid, announcement=announcement)


@router.post("/uploads", status_code=201, tags=["uploads"], summary="Start one pass over a directory")
def start_upload(
    new: NewUpload, place: Annotated[Place, Depends(_look_at_upload)], tx: AcquisitionWriteTx, who: Who
) -> Acquisition:
    """Take what is in a directory now; one that is missing or has no files is refused."""
    return core.start_upload(tx, who, new, place=place)


@router.get("/uploads", tags=["uploads"], summary="List uploads, newest first")
def list_uploads(query: Annotated[AcquisitionQuery, Query()], tx: AcquisitionTx, who: Who) -> AcquisitionPage:
    """Uploads of the experiments that the caller may see."""
    return core.list_(tx, who, query, kind=Kind.UPLOAD)


@router.get("/uploads/{uid}", tags=["uploads"], summary="Show an upload")
def show_upload(uid: UUID, tx: AcquisitionTx, who: Who) -> Acquisition:
    """An upload with its options, and how many files are in each state."""
    return core.show(tx, who, uid, kind=Kind.UPLOAD)


@router.post("/uploads/{uid}:stop", tags=["uploads"], summary="Stop an upload")
def stop_upload(uid: UUID, request: StopRequest, tx: AcquisitionWriteTx, who: Who) -> Acquisition:
    """Ask for the end: after what was found is delivered, or now. A put that still receives is given up."""
    return core.stop(tx, who, uid, request=request, kind=Kind.UPLOAD)


@router.post("/uploads/{uid}:retry", tags=["uploads"], summary="Try quarantined files again")
def retry_upload(uid: UUID, request: RetryRequest, tx: AcquisitionWriteTx, who: Who) -> Picked:
    """All of them, or those that a pattern matches; an upload that has failed runs again for them, and nothing else."""
    return picking.retry(tx, who, uid, request=request, kind=Kind.UPLOAD)


@router.post("/uploads/{uid}:prioritise", tags=["uploads"], summary="Say which files go first")
def prioritise_upload(uid: UUID, request: PriorityRequest, tx: AcquisitionWriteTx, who: Who) -> Picked:
    """They go before all other files of the station, also those that are still to come."""
    return picking.prioritise(tx, who, uid, request=request, kind=Kind.UPLOAD)


@router.get("/uploads/{uid}/entries", tags=["uploads"], summary="List the files of an upload")
def upload_entries(uid: UUID, query: Annotated[JournalQuery, Query()], tx: AcquisitionTx, who: Who) -> JournalPage:
    """Files in the order of their paths, with where they stand and why."""
    return core.entries(tx, who, uid, query=query, kind=Kind.UPLOAD)


@router.get("/uploads/{uid}/masters", tags=["uploads"], summary="List the master files of an upload")
def upload_masters(uid: UUID, query: Annotated[MasterQuery, Query()], tx: AcquisitionTx, who: Who) -> MasterPage:
    """Files that link to others, in the order of their paths, with how many of those are missing and the first."""
    return core.masters(tx, who, uid, query=query, kind=Kind.UPLOAD)


@router.post("/puts", status_code=201, tags=["puts"], summary="Begin to send files")
def start_put(new: NewPut, tx: AcquisitionWriteTx, who: Who, rules: RulesHere) -> Acquisition:
    """Make ready to receive files over HTTP; they become an upload when the put is closed."""
    return core.start_put(tx, who, new, rules=rules)


@router.put("/puts/{uid}/files/{path_b64}", tags=["puts"], summary="Send some bytes of a file")
def put_file(
    uid: UUID, chunk: Annotated[Chunk, Depends(_chunk)], tx: AcquisitionTx, who: Who, rules: RulesHere
) -> PutChunk:
    """Write bytes and tell how many are there; an empty body only asks. What was sent before can be sent again."""
    return core.put_chunk(tx, who, uid, chunk=chunk, rules=rules)


@router.post("/puts/{uid}:close", tags=["puts"], summary="Turn what was sent into an upload")
def close_put(uid: Annotated[UUID, Depends(_seal)], tx: AcquisitionWriteTx, who: Who) -> Acquisition:
    """Start the upload of what was sent; refused while files are not whole."""
    return core.close_put(tx, who, uid)


@router.get("/plugins", tags=["plugins"], summary="List plugins")
def plugins(tx: AcquisitionTx, who: Who, ctx: Ctx) -> list[PluginInfo]:
    """The plugins that are installed at the station, and whether its settings use them."""
    return core.plugins(tx, ctx.settings)


@router.post("/storage-areas/{name}/probe", summary="Send a probe to a storage area", tags=["acquisition"])
def send_probe(name: str, ctx: Ctx, who: Who) -> ProbeSent:
    """For managers of the station: a small file goes by the real transport, for the storage to read back."""
    with ctx.database.read() as tx:
        area = probing.area(tx, who, name)
    return probing.send(area, lambda plugin: transfer_of(ctx.settings.transfer, plugin))
