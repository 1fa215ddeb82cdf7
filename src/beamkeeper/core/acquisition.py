"""DAQs, uploads and puts: what one can do with them, and who may."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from beamkeeper.config import Settings
from beamkeeper.core import destinations, rights, sources, spool
from beamkeeper.core.job_sessions import made_by
from beamkeeper.core.pauses import with_pause
from beamkeeper.core.sources import Place, Rules
from beamkeeper.core.spool import Chunk
from beamkeeper.db import AcquisitionTransaction
from beamkeeper.db.acquisition import Options
from beamkeeper.db.base import new_uid
from beamkeeper.db.news import Topic
from beamkeeper.domain.acquisition import (
    ACTIVE,
    Acquisition,
    AcquisitionPage,
    AcquisitionQuery,
    Announced,
    Announcement,
    Finished,
    JournalPage,
    JournalQuery,
    Kind,
    NewDaq,
    NewPut,
    NewUpload,
    PluginInfo,
    PutChunk,
    State,
    StopRequest,
    overlaps,
)
from beamkeeper.domain.errors import ConflictError, InvalidError, NotFoundError, OverlapError
from beamkeeper.domain.events import NewEvent
from beamkeeper.domain.experiments import Tree
from beamkeeper.domain.masters import MasterPage, MasterQuery
from beamkeeper.domain.metadata import check_metadata
from beamkeeper.domain.names import RelPath, show_path
from beamkeeper.domain.users import Action, Caller, may, reach, require
from beamkeeper.plugins import load
from beamkeeper.plugins.api import PROCESSORS, TRANSFERS
from beamkeeper.plugins.extractors import EXTRACTORS

ANNOUNCED = "acquisition.announced"
CHANGED = "acquisition.changed"
"""The kind of event that tells of a DAQ or upload that began, was asked to stop, or ended."""


def changed(acquisition: Acquisition) -> NewEvent:
    """Return the event that tells where a DAQ or upload stands now."""
    data = {"uid": str(acquisition.uid), "kind": acquisition.kind.value, "state": acquisition.state.value}
    return NewEvent(kind=CHANGED, experiment_uid=acquisition.experiment_uid, data=dict(data))


def look(tx: AcquisitionTransaction, caller: Caller, new: NewDaq | NewUpload, *, rules: Rules) -> Place:
    """Check what is asked, and look at the directory; to be called before the transaction that starts."""
    experiment = rights.experiment(tx, caller, Action.ACQUISITION_RUN, new.experiment_uid)
    kind = Kind.DAQ if isinstance(new, NewDaq) else Kind.UPLOAD
    if (same := _asked_before(tx, new, kind)) is not None:
        return Place(same.agent, same.relpath)
    _check_options(new)
    return sources.look(tx, caller, new, target=experiment.target(tx.now), rules=rules)


def start_daq(tx: AcquisitionTransaction, caller: Caller, new: NewDaq, *, place: Place) -> Acquisition:
    """Start to watch a directory that `look` found good."""
    experiment = rights.experiment(tx, caller, Action.ACQUISITION_RUN, new.experiment_uid)
    tx.acquisitions.lock_starts()
    if (same := _asked_before(tx, new, Kind.DAQ)) is not None:
        return same
    held = _holders(tx, place)
    if held and not new.take_over:
        raise _overlap(tx, caller, held[0], place=place, way_out=", or start with --take-over")
    for daq in held:
        _check_take_over(tx, caller, daq, place=place)
    options = _options(caller, new, place, kind=Kind.DAQ, with_existing=new.with_existing, finished=new.finished)
    options = replace(options, quiet_s=new.quiet_s, poll=new.poll, sentinel=new.sentinel)
    started = tx.acquisitions.add(experiment, options)
    for daq in held:
        tx.events.add(changed(tx.acquisitions.take_over(daq.uid, by=started.uid)))
    tx.events.add(changed(started))
    return started


def start_upload(tx: AcquisitionTransaction, caller: Caller, new: NewUpload, *, place: Place) -> Acquisition:
    """Start one pass over a directory or file that `look` found good."""
    experiment = rights.experiment(tx, caller, Action.ACQUISITION_RUN, new.experiment_uid)
    tx.acquisitions.lock_starts()
    if (same := _asked_before(tx, new, Kind.UPLOAD)) is not None:
        return same
    if held := _holders(tx, place):
        raise _overlap(tx, caller, held[0], place=place)
    started = tx.acquisitions.add(experiment, _options(caller, new, place, kind=Kind.UPLOAD))
    tx.events.add(changed(started))
    return started


def start_put(tx: AcquisitionTransaction, caller: Caller, new: NewPut, *, rules: Rules) -> Acquisition:
    """Make ready to receive files; they become an upload when the put is closed."""
    experiment = rights.experiment(tx, caller, Action.FILE_PUT, new.experiment_uid)
    _check_options(new)
    tx.acquisitions.lock_starts()
    if (same := _asked_before(tx, new, Kind.UPLOAD)) is not None:
        return same
    uid = new.uid or new_uid()
    also = destinations.chosen(tx, caller, new, default=rules.also)
    place = Place(sources.agent_of(new, rules), spool.files_of(rules.spool, uid), rules.verify, also=also)
    # Files of a put are whole when they are there: nobody writes to the spool but us.
    options = _options(
        caller, new, place, uid=uid, kind=Kind.UPLOAD, finished=Finished.CLOSED, quiet_s=0.0, is_put=True
    )
    started = tx.acquisitions.add(experiment, options)
    tx.events.add(changed(started))
    return started


def put_chunk(tx: AcquisitionTransaction, caller: Caller, uid: UUID, *, chunk: Chunk, rules: Rules) -> PutChunk:
    """Write some bytes of a file into the spool; tells how much of it is there."""
    _receiving(tx, caller, uid)
    return PutChunk(size=spool.write(rules.spool, uid, chunk))


def seal_put(tx: AcquisitionTransaction, caller: Caller, uid: UUID, *, rules: Rules) -> UUID:
    """Check that a put is whole and make it durable; to be called before the transaction that closes it."""
    if _own_put(tx, caller, uid).state is State.PENDING:
        spool.seal(rules.spool, uid)
    return uid


def close_put(tx: AcquisitionTransaction, caller: Caller, uid: UUID) -> Acquisition:
    """Turn a put that is sealed into a running upload of its files; one that is so already stays as it is."""
    put = _own_put(tx, caller, uid)
    if put.state is State.PENDING:
        put = tx.acquisitions.mark_started(uid)
        tx.events.add(changed(put))
    if put.started_at is None:
        raise ConflictError(f"put {uid} was stopped before all was sent: begin another", state=str(put.state))
    return with_tallies(tx, put)


def stop(
    tx: AcquisitionTransaction, caller: Caller, uid: UUID, *, request: StopRequest, kind: Kind | None = None
) -> Acquisition:
    """Ask a DAQ or upload to end: after what is there has been delivered, or now; asking again changes nothing."""
    found = readable(tx, caller, uid, kind=kind)
    require_run(tx, caller, found)  # even of an experiment that is deleted: its DAQs must be able to end
    if found.state not in ACTIVE:
        if found.stop_requested_at is not None:
            return found
        raise ConflictError(f"{found.kind} {uid} has ended already: it is {found.state}", state=str(found.state))
    if found.is_put and found.state is State.PENDING:
        tx.acquisitions.request_stop(uid, now=True)
        stopped = tx.acquisitions.mark_ended(uid, State.ABORTED, "stopped before all was sent")
    else:
        stopped = tx.acquisitions.request_stop(uid, now=request.now)
    tx.events.add(changed(stopped))
    return with_tallies(tx, stopped)


def show(tx: AcquisitionTransaction, caller: Caller, uid: UUID, *, kind: Kind | None = None) -> Acquisition:
    """Return a DAQ or upload with where its files stand; NotFoundError also where the caller may not know of it."""
    return with_tallies(tx, readable(tx, caller, uid, kind=kind))


def list_(
    tx: AcquisitionTransaction, caller: Caller, query: AcquisitionQuery, *, kind: Kind | None = None
) -> AcquisitionPage:
    """Return DAQs or uploads that the caller may see, newest first; with tallies where they are active."""
    page = tx.acquisitions.page(kind, query, reach(caller, Action.ACQUISITION_READ))
    # Counting a journal of a million files takes long: of those that have ended, `show` does it.
    items = [with_tallies(tx, item) if item.state in ACTIVE else item for item in page.items]
    return AcquisitionPage(items=items, next=page.next)


def entries(
    tx: AcquisitionTransaction, caller: Caller, uid: UUID, *, query: JournalQuery, kind: Kind | None = None
) -> JournalPage:
    """Return files of a DAQ or upload in the order of their paths, with where they stand and why."""
    readable(tx, caller, uid, kind=kind)
    return tx.journal.page(uid, query.state, query.after, query.limit)


def masters(
    tx: AcquisitionTransaction, caller: Caller, uid: UUID, *, query: MasterQuery, kind: Kind | None = None
) -> MasterPage:
    """Return files of a DAQ or upload that link to others, and which of those are missing."""
    readable(tx, caller, uid, kind=kind)
    return tx.masters.page(uid, query.is_complete, query.after, query.limit)


def announce(tx: AcquisitionTransaction, caller: Caller, uid: UUID, *, announcement: Announcement) -> Announced:
    """Take the writer's word that files of a DAQ are finished; saying it again changes nothing."""
    daq = readable(tx, caller, uid, kind=Kind.DAQ)
    target = tx.experiments.get(daq.experiment_uid).target(tx.now)
    if not may(caller, Action.ACQUISITION_RUN, target):
        require(caller, Action.FILE_PUT, target, f'experiment "{daq.experiment}"')
    if daq.state not in ACTIVE:
        raise ConflictError(f"DAQ {uid} has ended, and takes no more files: start another", state=str(daq.state))
    tx.acquisitions.lock(uid)
    tx.about = Topic.ORDERS
    count = tx.announcements.add(uid, [path.relpath for path in announcement.paths])
    tx.events.add(NewEvent(kind=ANNOUNCED, experiment_uid=daq.experiment_uid, data={"uid": str(uid), "paths": count}))
    return Announced(paths=count)


def expired_puts(tx: AcquisitionTransaction, rules: Rules) -> list[Acquisition]:
    """Return the open puts whose clients have sent nothing for too long. For the engine."""
    before = tx.now - timedelta(hours=rules.put_hours)
    return [
        put
        for put in tx.acquisitions.receiving(before)
        if (touched := spool.touched_at(rules.spool, put.uid)) is None or touched < before
    ]


def expire_put(tx: AcquisitionTransaction, uid: UUID, rules: Rules) -> Acquisition | None:
    """Give up a put that is still open; None where it was closed meanwhile. What it sent goes with the next sweep."""
    tx.acquisitions.lock(uid)
    if tx.acquisitions.get(uid).state is not State.PENDING:
        return None
    tx.acquisitions.request_stop(uid, now=True)
    why = f"nothing was sent for {rules.put_hours:g} hours: what had arrived is removed, so send it with another put"
    ended = tx.acquisitions.mark_ended(uid, State.ABORTED, why)
    tx.events.add(changed(ended))
    return ended


def sweep_spool(tx: AcquisitionTransaction, rules: Rules) -> int:
    """Remove from the spool what puts sent that are done or were given up; returns how many. For the engine."""
    over = [
        uid
        for uid in spool.puts_in(rules.spool)
        if (put := tx.acquisitions.find(uid)) is not None and put.is_put and put.state in (State.DONE, State.ABORTED)
    ]
    for uid in over:
        spool.discard(rules.spool, uid)
    return len(over)


def plugins(tx: AcquisitionTransaction, settings: Settings) -> list[PluginInfo]:
    """Return the plugins that are installed, and whether the station's settings and storage areas use them."""
    chain = {(PROCESSORS, name) for name in settings.acquisition.processors}
    transfers = {(TRANSFERS, area.transfer) for area in tx.storage.list()}
    without = settings.processor.get("metadata", {}).get("without")
    left_out = without if isinstance(without, list | tuple) else ()
    named = load.names(EXTRACTORS) if (PROCESSORS, "metadata") in chain else ()
    extractors = {(EXTRACTORS, name) for name in named if name not in left_out}
    return load.installed(frozenset(chain | transfers | extractors))


def readable(tx: AcquisitionTransaction, caller: Caller, uid: UUID, *, kind: Kind | None) -> Acquisition:
    """Return a DAQ or upload; NotFoundError also where the caller may not know of it."""
    found = tx.acquisitions.find(uid)
    if found is None or (kind is not None and found.kind is not kind) or not _may_read(tx, caller, found):
        what = "DAQ or upload" if kind is None else "DAQ" if kind is Kind.DAQ else "upload"
        raise NotFoundError(f"there is no {what} {uid}", uid=str(uid))
    return found


def _may_read(tx: AcquisitionTransaction, caller: Caller, acquisition: Acquisition) -> bool:
    try:
        target = tx.experiments.get(acquisition.experiment_uid).target(tx.now)
    except NotFoundError:
        return False
    return may(caller, Action.ACQUISITION_READ, target)


def with_tallies(tx: AcquisitionTransaction, acquisition: Acquisition) -> Acquisition:
    """Return it with where its files stand."""
    jobs = tx.job_requests.counts(acquisition.uid) if acquisition.workflow else {}
    tallies = tuple(tx.journal.tallies(acquisition.uid))
    found = {"tallies": tallies, "masters": tx.masters.count(acquisition.uid), "jobs": jobs}
    return with_pause(tx, acquisition.model_copy(update=found))


def _own_put(tx: AcquisitionTransaction, caller: Caller, uid: UUID) -> Acquisition:
    """Return a put, for a caller who may put files into its experiment."""
    put = readable(tx, caller, uid, kind=Kind.UPLOAD)
    rights.experiment(tx, caller, Action.FILE_PUT, put.experiment_uid)
    if not put.is_put:
        raise NotFoundError(f"upload {uid} is no put: it takes its files from a directory")
    return put


def _receiving(tx: AcquisitionTransaction, caller: Caller, uid: UUID) -> Acquisition:
    put = _own_put(tx, caller, uid)
    if put.state is not State.PENDING:
        raise ConflictError(f"put {uid} is closed, and takes no more files: begin another", state=str(put.state))
    return put


def _asked_before(tx: AcquisitionTransaction, new: NewDaq | NewUpload | NewPut, kind: Kind) -> Acquisition | None:
    """Return what the same request made, whose answer was lost; another's uid is refused."""
    found = None if new.uid is None else tx.acquisitions.find(new.uid)
    if found is None:
        return None
    is_same = found.kind is kind and found.experiment_uid == new.experiment_uid
    if not is_same or found.is_put != isinstance(new, NewPut):
        raise ConflictError(f"uid {new.uid} is taken by something else: make a new one")
    return found


def _options(
    caller: Caller,
    new: NewDaq | NewUpload | NewPut,
    place: Place,
    *,
    kind: Kind,
    uid: UUID | None = None,
    with_existing: bool = True,
    finished: Finished = Finished.EVIDENCE,
    quiet_s: float | None = None,
    is_put: bool = False,
) -> Options:
    return Options(
        uid=uid or new.uid,
        kind=kind,
        agent=place.agent,
        path=place.path,
        destination=new.destination.strip("/"),
        tree=new.tree,
        include=new.include,
        exclude=new.exclude,
        with_hidden=new.with_hidden,
        with_existing=with_existing,
        resend=new.resend,
        finished=finished,
        quiet_s=quiet_s,
        metadata=new.metadata,
        processors=new.processors,
        skip_processors=new.skip_processors,
        max_run_time_s=new.max_run_time_s,
        is_put=is_put,
        started_by=caller.username,
        verify=new.verify or place.verify,
        also=place.also,
        first=new.first,
        workflow=new.workflow,
        made_by=made_by(caller, new.attempt_uid),
    )


def _check_options(new: NewDaq | NewUpload | NewPut) -> None:
    if new.tree is Tree.SYSTEM:
        raise InvalidError("the system tree is Beamkeeper's own: use data or analysis")
    if isinstance(new, NewPut) and new.workflow and new.workflow.at == "ready":
        raise InvalidError("what is put has no source here that a job could read: use the workflow at available")
    if new.destination.strip("/"):
        RelPath(new.destination.strip("/"))
    check_metadata(new.metadata)
    for name in (*(new.processors or ()), *new.skip_processors):
        load.find(PROCESSORS, name)


def _holders(tx: AcquisitionTransaction, place: Place) -> list[Acquisition]:
    holding = tx.acquisitions.holding(place.agent)
    return [daq for daq in holding if overlaps(daq.relpath, place.path) or daq.uid in place.held_as]


def _overlap(
    tx: AcquisitionTransaction, caller: Caller, daq: Acquisition, *, place: Place, way_out: str = ""
) -> OverlapError:
    if not _may_read(tx, caller, daq):  # the name of an experiment is its people's alone
        return OverlapError(
            f'directory "/{show_path(place.path)}" overlaps one that a running DAQ of another experiment holds: '
            f"ask a manager of the station"
        )
    return OverlapError(
        f'directory "/{show_path(place.path)}" overlaps "/{show_path(daq.relpath)}", which DAQ {daq.uid} of experiment '
        f'"{daq.experiment}" holds ({daq.state}, started by {daq.started_by}): stop that one first{way_out}',
        experiment=daq.experiment,
        experiment_uid=str(daq.experiment_uid),
        daq_uid=str(daq.uid),
        path_b64=daq.path_b64,
        started_by=daq.started_by,
    )


def _check_take_over(tx: AcquisitionTransaction, caller: Caller, daq: Acquisition, *, place: Place) -> None:
    if not _may_read(tx, caller, daq):
        raise _overlap(tx, caller, daq, place=place)
    require_run(tx, caller, daq)


def require_run(tx: AcquisitionTransaction, caller: Caller, acquisition: Acquisition) -> None:
    """Refuse a caller who may not run DAQs and uploads of its experiment."""
    target = tx.experiments.get(acquisition.experiment_uid).target(tx.now)
    what = f'{acquisition.kind} {acquisition.uid} of experiment "{acquisition.experiment}"'
    require(caller, Action.ACQUISITION_RUN, target, what)
