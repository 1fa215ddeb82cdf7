"""What people get back: frozen sets of files, links to them, whether links are allowed, and what was delivered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Index, Select, Table, UniqueConstraint, delete, insert, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, upsert
from beamkeeper.db.many import execute_many
from beamkeeper.db.pages import to_cursor, uid_of
from beamkeeper.domain.downloads import Delivery, DeliveryPage, FileSet, NewFileSet, NewLink, Sharing
from beamkeeper.domain.errors import NotFoundError
from beamkeeper.domain.names import RelPath, from_b64, to_b64
from beamkeeper.domain.status import Service

KEPT = timedelta(days=30)
"""A set that no valid link leads to can be used for so long."""

SWEPT = 5000
"""So many files of an old set are forgotten at a time."""


class FileSetRow(Base):
    """A set of files."""

    __tablename__ = "file_sets"
    services = frozenset({Service.STORAGE})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    experiment_uid: Mapped[UUID]
    name: Mapped[str]
    files: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigId)
    size: Mapped[int] = mapped_column(BigId)
    is_frozen: Mapped[bool]
    etag: Mapped[str]
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(index=True)


class FileSetItemRow(Base):
    """A file of a set, and where it is in the archive."""

    __tablename__ = "file_set_items"
    services = frozenset({Service.STORAGE})

    set_id: Mapped[int] = mapped_column(BigId, primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[bytes]
    version: Mapped[int]
    size: Mapped[int] = mapped_column(BigId)
    modified_s: Mapped[int] = mapped_column(BigId)
    state: Mapped[str]
    checksum: Mapped[str]
    link_target: Mapped[bytes | None]
    begin: Mapped[int] = mapped_column(BigId)

    __table_args__ = (Index(None, "set_id", "begin"),)


class LinkRow(Base):
    """A link, by the hash of its secret."""

    __tablename__ = "links"
    services = frozenset({Service.STORAGE})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    token_sha256: Mapped[str] = mapped_column(unique=True)
    set_uid: Mapped[UUID]
    experiment_uid: Mapped[UUID] = mapped_column(index=True)
    name: Mapped[str]
    files: Mapped[int]
    size: Mapped[int] = mapped_column(BigId)
    note: Mapped[str]
    user_uid: Mapped[UUID]
    created_by: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    downloads: Mapped[int]
    last_used_at: Mapped[datetime | None]


class SharingRow(Base):
    """Whether links into an experiment were allowed, and by whom."""

    __tablename__ = "sharing"
    services = frozenset({Service.STORAGE})

    experiment_uid: Mapped[UUID] = mapped_column(primary_key=True)
    is_allowed: Mapped[bool]
    decided_by: Mapped[str]
    decided_at: Mapped[datetime]


class DeliveryRow(Base):
    """What somebody was sent by one request."""

    __tablename__ = "deliveries"
    services = frozenset({Service.STORAGE})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID]
    experiment_uid: Mapped[UUID]
    username: Mapped[str]
    link_uid: Mapped[UUID | None]
    set_uid: Mapped[UUID | None]
    path: Mapped[bytes | None]
    size: Mapped[int] = mapped_column(BigId)
    first_byte: Mapped[int] = mapped_column(BigId)
    end_byte: Mapped[int] = mapped_column(BigId)
    is_whole: Mapped[bool]
    message: Mapped[str]
    begun_at: Mapped[datetime]
    heard_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("uid"), Index(None, "experiment_uid", "id"))


_ITEMS = cast(Table, FileSetItemRow.__table__)


@dataclass(frozen=True, slots=True)
class SetItem:
    """A file of a set: which it is, in which state it was frozen, and where it begins in the archive."""

    path: RelPath
    version: int
    size: int
    modified_s: int
    state: str
    checksum: str
    link_target: bytes | None
    begin: int


@dataclass(frozen=True, slots=True)
class HeldLink:
    """A link as it is kept; whether it leads anywhere is for the verbs to say."""

    uid: UUID
    set_uid: UUID
    experiment_uid: UUID
    name: str
    files: int
    size: int
    note: str
    user_uid: UUID
    created_by: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    downloads: int
    last_used_at: datetime | None


class Downloads:
    """Queries on sets, links and deliveries."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def add_set(self, new: NewFileSet, *, by: str) -> FileSet:
        """Keep a new set, which is empty."""
        values = new.model_dump()
        empty = {"files": 0, "bytes": 0, "size": 0, "is_frozen": False, "etag": ""}
        row = FileSetRow(**values, **empty, created_by=by, created_at=self._now)
        self._session.add(row)
        self._session.flush()  # so that the uid's constraint speaks here
        return _to_set(row)

    def find_set(self, uid: UUID) -> FileSet | None:
        """Return a set, None where there is none."""
        row = self._row(uid)
        return None if row is None else _to_set(row)

    def get_set(self, uid: UUID) -> FileSet:
        """Return a set."""
        found = self.find_set(uid)
        is_old = found is not None and found.created_at < self._now - KEPT
        if found is None or (is_old and self._session.scalar(self._linked.where(LinkRow.set_uid == uid)) is None):
            raise NotFoundError(f"there is no set of files {uid}: it was never made, or is {KEPT.days} days old")
        return found

    def change_set(self, uid: UUID, **values: object) -> FileSet:
        """Change a set that is not frozen."""
        self._session.execute(update(FileSetRow).where(FileSetRow.uid == uid).values(**values))
        self._session.expire_all()
        return self.get_set(uid)

    def add_items(self, uid: UUID, start: int, items: Sequence[SetItem]) -> None:
        """Add files to a set from a position on."""
        row = self._row(uid)
        if row is None or not items:
            return
        rows: list[dict[str, Any]] = [
            {
                "set_id": row.id,
                "position": start + number,
                "path": bytes(item.path),
                "version": item.version,
                "size": item.size,
                "modified_s": item.modified_s,
                "state": item.state,
                "checksum": item.checksum,
                "link_target": item.link_target,
                "begin": item.begin,
            }
            for number, item in enumerate(items)
        ]
        execute_many(self._session, insert(_ITEMS), rows)

    def items(self, uid: UUID, begin: int, *, limit: int) -> Sequence[SetItem]:
        """Return some files of a set from the one on that has the byte `begin` of the archive."""
        set_id = select(FileSetRow.id).where(FileSetRow.uid == uid).scalar_subquery()
        ours = _ITEMS.c.set_id == set_id
        first = select(_ITEMS.c.begin).where(ours, _ITEMS.c.begin <= begin).order_by(_ITEMS.c.begin.desc()).limit(1)
        wanted = select(_ITEMS).where(ours, _ITEMS.c.begin >= first.scalar_subquery()).order_by(_ITEMS.c.begin)
        return [_to_item(row) for row in self._session.execute(wanted.limit(limit))]

    def sweep(self) -> None:
        """Forget some of what nobody can use any more: no request may take long for the sets of others."""
        old = select(FileSetRow.id).where(FileSetRow.created_at < self._now - KEPT, FileSetRow.uid.not_in(self._linked))
        set_id = self._session.scalar(old.order_by(FileSetRow.created_at).limit(1))
        if set_id is None:
            return
        ours = FileSetItemRow.set_id == set_id
        positions = select(FileSetItemRow.position).where(ours).order_by(FileSetItemRow.position)
        kept_from = self._session.scalar(positions.offset(SWEPT).limit(1))
        if kept_from is None:
            self._session.execute(delete(FileSetItemRow).where(ours))
            self._session.execute(delete(FileSetRow).where(FileSetRow.id == set_id))
        else:
            self._session.execute(delete(FileSetItemRow).where(ours, FileSetItemRow.position < kept_from))

    @property
    def _linked(self) -> Select[UUID]:
        return select(LinkRow.set_uid).where(LinkRow.expires_at > self._now, LinkRow.revoked_at.is_(None))

    def add_link(self, new: NewLink, of: FileSet, *, token_sha256: str, user_uid: UUID, by: str) -> HeldLink:
        """Keep a new link."""
        row = LinkRow(
            uid=new.uid,
            token_sha256=token_sha256,
            set_uid=of.uid,
            experiment_uid=of.experiment_uid,
            name=of.name,
            files=of.files,
            size=of.size,
            note=new.note,
            user_uid=user_uid,
            created_by=by,
            created_at=self._now,
            expires_at=new.expires_at,
            revoked_at=None,
            downloads=0,
            last_used_at=None,
        )
        self._session.add(row)
        self._session.flush()  # so that the uid's constraint speaks here
        return _to_link(row)

    def link(self, uid: UUID) -> HeldLink:
        """Return a link."""
        row = self._session.scalars(select(LinkRow).where(LinkRow.uid == uid)).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no link {uid}", uid=str(uid))
        return _to_link(row)

    def link_of(self, token_sha256: str) -> HeldLink | None:
        """Return the link whose secret has this hash."""
        row = self._session.scalars(select(LinkRow).where(LinkRow.token_sha256 == token_sha256)).one_or_none()
        return None if row is None else _to_link(row)

    def links(self, experiment_uid: UUID) -> Sequence[HeldLink]:
        """Return the links into an experiment, newest first."""
        wanted = select(LinkRow).where(LinkRow.experiment_uid == experiment_uid).order_by(LinkRow.id.desc())
        return [_to_link(row) for row in self._session.scalars(wanted)]

    def revoke_link(self, uid: UUID) -> None:
        """Let a link lead nowhere; the first time counts."""
        is_it = (LinkRow.uid == uid) & LinkRow.revoked_at.is_(None)
        self._session.execute(update(LinkRow).where(is_it).values(revoked_at=self._now))
        self._session.expire_all()

    def sharing(self, experiment_uid: UUID) -> Sharing | None:
        """Return what was decided on links into an experiment; None where nothing was."""
        row = self._session.get(SharingRow, experiment_uid)
        return None if row is None else Sharing.model_validate(row, from_attributes=True)

    def decide_sharing(self, experiment_uid: UUID, is_allowed: bool, *, by: str) -> None:
        """Keep what was decided on links into an experiment."""
        row = {"experiment_uid": experiment_uid, "is_allowed": is_allowed, "decided_by": by, "decided_at": self._now}
        upsert(self._session, SharingRow, [row], key=["experiment_uid"])
        self._session.expire_all()

    def record(self, deliveries: Sequence[Delivery]) -> None:
        """Keep how far deliveries have come."""
        rows = [
            {
                **each.model_dump(exclude={"path_b64"}),
                "path": None if each.path_b64 is None else from_b64(each.path_b64),
            }
            for each in deliveries
        ]
        upsert(self._session, DeliveryRow, rows, key=["uid"])
        used = [each for each in deliveries if each.link_uid is not None]
        for each in used:
            ours = update(LinkRow).where(LinkRow.uid == each.link_uid)
            self._session.execute(ours.values(last_used_at=each.heard_at))

    def count_use(self, link_uid: UUID) -> None:
        """Count that a link is used once more."""
        ours = update(LinkRow).where(LinkRow.uid == link_uid)
        self._session.execute(ours.values(downloads=LinkRow.downloads + 1, last_used_at=self._now))

    def deliveries(self, experiment_uid: UUID, *, after: str | None, limit: int) -> DeliveryPage:
        """Return what was delivered of an experiment, newest first."""
        wanted = select(DeliveryRow).where(DeliveryRow.experiment_uid == experiment_uid)
        if after is not None:
            known = select(DeliveryRow.id).where(DeliveryRow.uid == uid_of(after)).scalar_subquery()
            wanted = wanted.where(DeliveryRow.id < known)
        rows = self._session.scalars(wanted.order_by(DeliveryRow.id.desc()).limit(limit + 1)).all()
        items = tuple(_to_delivery(row) for row in rows[:limit])
        return DeliveryPage(items=items, next=to_cursor(items[-1].uid.hex) if len(rows) > limit else None)

    def _row(self, uid: UUID) -> FileSetRow | None:
        return self._session.scalars(select(FileSetRow).where(FileSetRow.uid == uid)).one_or_none()


def _to_set(row: FileSetRow) -> FileSet:
    return FileSet.model_validate(row, from_attributes=True)


def _to_link(row: LinkRow) -> HeldLink:
    return HeldLink(**{field.name: getattr(row, field.name) for field in fields(HeldLink)})


def _to_item(row: Any) -> SetItem:
    values = {field.name: getattr(row, field.name) for field in fields(SetItem) if field.name != "path"}
    return SetItem(path=RelPath(row.path), **values)


def _to_delivery(row: DeliveryRow) -> Delivery:
    path = None if row.path is None else to_b64(row.path)
    values = {name: getattr(row, name) for name in Delivery.model_fields if name != "path_b64"}
    return Delivery(**values, path_b64=path)
