"""Following: what a station's catalogue sends next to the site's, and how that takes it.

What is carried is a kind of document. A kind is a line in KINDS and an object that reads and takes its documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from pydantic import BaseModel, ValidationError

from beamkeeper.config.failpoints import CopyPoint, hit
from beamkeeper.db import CatalogTransaction
from beamkeeper.domain.errors import ConflictError, DmError, NotFoundError
from beamkeeper.domain.events import NewEvent
from beamkeeper.domain.experiments import Station
from beamkeeper.domain.metadata import checked_text
from beamkeeper.domain.replication import (
    MANY,
    UNLISTED_LIMIT,
    DatasetDocument,
    DerivationDocument,
    FileDocument,
    Follower,
    Kind,
    NewChanges,
    Position,
    Positions,
    Refusal,
    RunDocument,
    SiteLink,
    Taken,
)
from beamkeeper.domain.users import Action, Caller, Target, may, require

BATCH = 500
"""The most documents of one call; fewer where they are large."""

RANGES = 500
"""So many ranges of changes are looked at for one call."""

KEPT = 100_000
"""Changes stay for so many numbers after the site has them, for a site that is restored from a backup."""


class Read(Protocol):
    """Some documents, the number and uid of the last row that was read for them, and whether all were read."""

    @property
    def documents(self) -> Sequence[Any]:
        """The documents, each with `uid` and `experiment_uid`."""
        ...

    @property
    def last(self) -> tuple[int, UUID] | None:
        """None where nothing was there to be read."""
        ...

    @property
    def is_all(self) -> bool:
        """Whether nothing is left of what was asked for."""
        ...


class Copies(Protocol):
    """Reads the documents of one kind at a station, and takes them over at the site."""

    def listed(self, station_uid: UUID, *, after: UUID | None, limit: int) -> Read:
        """Return documents of a station in the order of uids."""
        ...

    def changed(self, changes: Any, *, limit: int) -> Read:
        """Return the documents of rows that changed, each once."""
        ...

    def id_of(self, uid: UUID) -> int | None:
        """Return the local key of a row."""
        ...

    def take(self, documents: Any) -> tuple[Sequence[int], Sequence[Refusal]]:
        """Take documents over; what cannot be taken is refused one by one. Doing it twice changes nothing."""
        ...

    def hide_unlisted(
        self, station_uid: UUID, span: tuple[UUID | None, UUID | None], *, known: Collection[UUID], limit: int, by: str
    ) -> int:
        """Hide what a listing of the station did not have, and return how many there are."""
        ...


@dataclass(frozen=True, slots=True)
class Carried:
    """How one kind is carried, and which kind of event tells of what has come, new or changed."""

    document: type[BaseModel]
    copies: Callable[[CatalogTransaction], Copies]
    event: str


KINDS: Mapping[Kind, Carried] = {
    Kind.DATASETS: Carried(DatasetDocument, lambda tx: tx.dataset_documents, "datasets.copied"),
    Kind.RUNS: Carried(RunDocument, lambda tx: tx.run_documents, "runs.copied"),
    Kind.FILES: Carried(FileDocument, lambda tx: tx.documents, "files.copied"),
    Kind.DERIVATIONS: Carried(DerivationDocument, lambda tx: tx.derivation_documents, "derivations.copied"),
}
"""In the order in which they are sent: a kind only goes when those before it, which it may refer to, have gone."""


def home(tx: CatalogTransaction) -> Station | None:
    """Return the station that this catalogue is of, where it is known yet."""
    return None if tx.database.home is None else tx.experiments.find_station(tx.database.home)


def next_changes(
    tx: CatalogTransaction, kind: Kind, since: Position | None, *, limit: int = BATCH
) -> NewChanges | None:
    """Return what the site is to be told next, after the position that it has; None before the mirror is filled."""
    station = home(tx)
    if station is None:
        return None
    position = _begin(tx, since)
    if position.is_listing:
        return _listing(tx, kind, (since, position), station=station, limit=limit)
    read, is_end = _changed(tx, kind, position, limit=limit)
    if read.last is None:
        # As far as the whole catalogue is: else the changes of other kinds could never be forgotten.
        end = position if not is_end else Position(epoch=position.epoch, number=tx.events.cursor().number)
        return NewChanges(kind=kind, since=since, upto=end)
    number, uid = read.last
    waiting = 0 if is_end else tx.changes.waiting(kind, number, limit=MANY)
    return NewChanges(
        kind=kind,
        since=since,
        upto=Position(epoch=position.epoch, number=number, after=uid),
        waiting=waiting,
        documents=_own(tx, station, read.documents),
    )


def _changed(tx: CatalogTransaction, kind: Kind, position: Position, *, limit: int) -> tuple[Read, bool]:
    """Return what changed after a position, and whether nothing is behind it."""
    copies = KINDS[kind].copies(tx)
    after_id = None if position.after is None else copies.id_of(position.after)
    changes = tx.changes.after(kind, position.number, after_id, limit=RANGES)
    read = copies.changed(changes, limit=limit)
    return read, read.is_all and len(changes) < RANGES


def is_preceded(tx: CatalogTransaction, kind: Kind, positions: Mapping[Kind, Position]) -> bool:
    """Whether kinds that this one may refer to have still something to be sent before it."""
    earlier = list(KINDS)[: list(KINDS).index(kind)]
    begun = {each: _begin(tx, positions.get(each)) for each in earlier}
    return any(
        position.is_listing or _changed(tx, each, position, limit=1)[0].last is not None
        for each, position in begun.items()
    )


def _begin(tx: CatalogTransaction, since: Position | None) -> Position:
    """Return where to go on: at the site's position, or at the beginning of a listing where that leads nowhere."""
    end = tx.events.cursor()
    link = tx.replication.link()
    oldest = 0 if link is None else link.forgotten
    if since is not None and since.epoch == end.epoch and since.number <= end.number:
        needed = since.number + (since.after is None or since.is_listing)
        if needed >= oldest:
            return since
    return Position(epoch=end.epoch, number=end.number, is_listing=True)


def _listing(
    tx: CatalogTransaction, kind: Kind, at: tuple[Position | None, Position], *, station: Station, limit: int
) -> NewChanges:
    """Return the next batch of a listing: from the site's position, and from where the listing is."""
    since, position = at
    read = KINDS[kind].copies(tx).listed(station.uid, after=position.after, limit=limit)
    last = None if read.last is None else read.last[1]
    done = Position(epoch=position.epoch, number=position.number)
    return NewChanges(
        kind=kind,
        since=since,
        upto=done if read.is_all else done.model_copy(update={"after": last, "is_listing": True}),
        is_listed_to_end=read.is_all,
        waiting=tx.changes.waiting(kind, position.number, limit=MANY),
        documents=_plain(read.documents),
    )


def _own(tx: CatalogTransaction, station: Station, documents: Sequence[Any]) -> tuple[dict[str, Any], ...]:
    """Return the documents of a station's own experiments, as they are sent."""
    stations = {uid: _station_of(tx, uid) for uid in {document.experiment_uid for document in documents}}
    return _plain([document for document in documents if stations[document.experiment_uid] == station.uid])


def _plain(documents: Sequence[BaseModel]) -> tuple[dict[str, Any], ...]:
    return tuple(document.model_dump(mode="json") for document in documents)


def _station_of(tx: CatalogTransaction, experiment_uid: UUID) -> UUID | None:
    try:
        return tx.experiments.get(experiment_uid).station_uid
    except NotFoundError:
        return None


def positions(tx: CatalogTransaction, caller: Caller) -> Positions:
    """Return how far the documents of the caller's station have come."""
    return Positions(positions=dict(tx.replication.positions(_station(tx, caller).uid)))


def take(tx: CatalogTransaction, caller: Caller, new: NewChanges) -> Taken:
    """Take the documents of the caller's station over, where its position is still what the station thinks."""
    station = _station(tx, caller)
    row = tx.replication.followed(station.uid, new.kind)
    held = tx.replication.positions(station.uid).get(new.kind)
    if held != new.since:
        raise ConflictError(f"the {new.kind} of station {station.name} have come to another position: ask for it again")
    documents, refused = _acceptable(tx, caller, new)
    copies = KINDS[new.kind].copies(tx)
    _, more = copies.take(documents)
    refused = [*refused, *more]
    is_begin = held is None or not held.is_listing or (held.epoch, held.number) != (new.upto.epoch, new.upto.number)
    is_listed = new.upto.is_listing or new.is_listed_to_end
    missing = 0 if row is None or (is_listed and is_begin) else row.unlisted
    failed = 0 if row is None or (is_listed and is_begin) else row.refused
    if is_listed:
        missing += copies.hide_unlisted(
            station.uid,
            (None if held is None or is_begin else held.after, new.upto.after),
            known={_uid(document) for document in new.documents},
            limit=max(0, UNLISTED_LIMIT - missing),
            by=f"the catalogue of {station.name} does not have it",
        )
    hit(CopyPoint.COPY_TAKING)
    kept = {"waiting": new.waiting, "refused": failed + len(refused), "unlisted": missing}
    message = refused[-1].message if refused else "" if row is None or not failed else row.message
    tx.replication.move(station.uid, new.kind, new.upto, message=message, **kept)
    _tell(tx, station, KINDS[new.kind].event, documents)
    return Taken(position=new.upto, refused=tuple(refused))


def _station(tx: CatalogTransaction, caller: Caller) -> Station:
    """Return the station whose services call; another catalogue than this is its own."""
    require(caller, Action.REPLICATE, Target(station_uid=caller.station_uid), "the site's catalogue")
    if caller.station_uid is None:
        raise NotFoundError("the caller is of no station")
    station = tx.experiments.get_station(caller.station_uid)
    if station.name == tx.database.home:
        raise ConflictError(
            f"this is the catalogue of station {station.name} itself: set catalog.site_url to the address of the site's"
        )
    return station


def _acceptable(tx: CatalogTransaction, caller: Caller, new: NewChanges) -> tuple[list[Any], list[Refusal]]:
    """Return the documents that may be taken, and why the others may not: they do not keep the rest out."""
    taken: dict[UUID, Any] = {}
    refused: list[Refusal] = []
    allowed: dict[UUID, bool] = {}
    for each in new.documents:
        try:
            document: Any = KINDS[new.kind].document.model_validate(each)
            for name in ("metadata", "annotations"):
                checked_text(getattr(document, name, {}))
        except (ValidationError, DmError) as error:
            refused.append(refusal(each, error))
            continue
        uid = document.experiment_uid
        if uid not in allowed:
            allowed[uid] = _may_write(tx, caller, uid)
        if allowed[uid]:
            taken[document.uid] = document
        else:
            refused.append(Refusal(uid=document.uid, message=f"experiment {uid} is none of station {caller.username}"))
    return list(taken.values()), refused


def _may_write(tx: CatalogTransaction, caller: Caller, experiment_uid: UUID) -> bool:
    try:
        target = tx.experiments.get(experiment_uid).target(tx.now)
    except NotFoundError:
        return False
    return may(caller, Action.REPLICATE, target)


def refusal(document: Mapping[str, Any], error: ValidationError | DmError) -> Refusal:
    """Return why a document is not what it should be."""
    if isinstance(error, DmError):
        why = error.message
    else:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        why = f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
    uid = _uid(document)
    return Refusal(uid=uid, message=f"document {uid}: {why}"[:2000])


def _uid(document: Mapping[str, Any]) -> UUID:
    try:
        return UUID(str(document.get("uid")))
    except ValueError:
        return UUID(int=0)


def _tell(tx: CatalogTransaction, station: Station, kind: str, documents: Sequence[Any]) -> None:
    for experiment_uid, count in Counter(document.experiment_uid for document in documents).items():
        news = NewEvent(kind=kind, station_uid=station.uid, experiment_uid=experiment_uid, data={"count": count})
        tx.events.add(news)


def note_taken(tx: CatalogTransaction, positions: Mapping[Kind, Position], message: str) -> None:
    """At the station: keep what the site has now, and forget changes that it has had for long."""
    numbers = [positions[kind].number for kind in KINDS if kind in positions]
    below = min(numbers, default=0) - KEPT
    link = tx.replication.link()
    kept: dict[str, Any] = {str(kind): position.model_dump(mode="json") for kind, position in positions.items()}
    if below > (0 if link is None else link.forgotten) + KEPT // 10:
        tx.changes.forget(below)
        tx.replication.keep_link(forgotten=below)
    tx.replication.keep_link(positions=kept, heard_at=tx.now, cut_off_since=None, message=message)


def note_cut_off(tx: CatalogTransaction, message: str) -> None:
    """At the station: keep since when the site takes nothing, and why."""
    link = tx.replication.link()
    since = tx.now if link is None or link.cut_off_since is None else link.cut_off_since
    tx.replication.keep_link(cut_off_since=since, message=message[:2000])


def forget(tx: CatalogTransaction) -> None:
    """At a catalogue that nobody follows: keep no changes; a site that is named later begins with a listing."""
    number = tx.events.cursor().number + 1
    if tx.changes.forget(number):
        tx.replication.keep_link(forgotten=number, positions={}, cut_off_since=None, message="")


def link(tx: CatalogTransaction, url: str) -> SiteLink | None:
    """Return how the changes of this catalogue get to the site's; None where it is followed by none."""
    if not url:
        return None
    row = tx.replication.link()
    held = {} if row is None else row.positions
    begun = {kind: _begin(tx, Position.model_validate(held[kind]) if kind in held else None) for kind in KINDS}
    waiting = sum(tx.changes.waiting(kind, position.number, limit=MANY) for kind, position in begun.items())
    return SiteLink(
        url=url,
        waiting=min(waiting, MANY),
        is_listing=any(position.is_listing for position in begun.values()),
        heard_at=None if row is None else row.heard_at,
        cut_off_since=None if row is None else row.cut_off_since,
        message="" if row is None else row.message,
    )


def followers(tx: CatalogTransaction) -> Sequence[Follower]:
    """Return how far the copies of stations' catalogues are here."""
    return tx.replication.followers()
