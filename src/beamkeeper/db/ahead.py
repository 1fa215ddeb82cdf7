"""Files that are staged while they are still written: how far each has come, and who is bringing more of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Select, UniqueConstraint, and_, delete, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.acquisition import AcquisitionRow
from beamkeeper.db.base import Base, BigId, JsonDocument, new_uid
from beamkeeper.db.journal_rows import JournalRow, signed
from beamkeeper.domain.acquisition import ACTIVE, JournalState
from beamkeeper.domain.files import FileKind
from beamkeeper.domain.status import Service


class AheadRow(Base):
    """A file of which a part is staged. Its uid names its staging directory, and will name its batch and version."""

    __tablename__ = "ahead"
    services = frozenset({Service.ACQUISITION})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    acquisition_uid: Mapped[UUID]
    path: Mapped[bytes]
    ino: Mapped[int] = mapped_column(BigInteger)
    size: Mapped[int] = mapped_column(BigInteger, default=0)
    chunks: Mapped[list[str]] = mapped_column(JsonDocument, default=list)
    owner: Mapped[UUID | None]
    """The process that is bringing more. While there is one, no worker takes the file."""

    __table_args__ = (UniqueConstraint("acquisition_uid", "path"),)


@dataclass(frozen=True, slots=True)
class StagedPart:
    """What is staged of a file."""

    uid: UUID
    ino: int
    size: int
    chunks: Sequence[str]


@dataclass(frozen=True, slots=True)
class GrowingFile:
    """A file that is still written."""

    acquisition_uid: UUID
    path: bytes
    staged: StagedPart | None


class AheadOfTheEnd:
    """Queries on files that are staged while they are written."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def growing(self, agent: str, *, limit: int = 32) -> list[GrowingFile]:
        """Return files that are still written, the largest first, as far as was told how large they are."""
        r, a = JournalRow, AheadRow
        is_same = and_(a.acquisition_uid == r.acquisition_uid, a.path == r.path)
        wanted = (
            select(r.acquisition_uid, r.path, a.uid, a.ino, a.size, a.chunks)
            .join(AcquisitionRow, AcquisitionRow.uid == r.acquisition_uid)
            .join(a, is_same, isouter=True)
            .where(r.state == JournalState.GROWING, r.kind == FileKind.FILE, a.owner.is_(None))
            .where(AcquisitionRow.agent == agent, AcquisitionRow.state.in_(sorted(ACTIVE)))
        )
        return [
            GrowingFile(
                row.acquisition_uid, row.path, StagedPart(row.uid, row.ino, row.size, row.chunks) if row.uid else None
            )
            for row in self._session.execute(wanted.order_by(r.size.desc(), r.id).limit(limit))
        ]

    def is_growing(self, file: GrowingFile) -> bool:
        """Whether a file is still written."""
        r = JournalRow
        wanted = select(r.state).where(r.acquisition_uid == file.acquisition_uid, r.path == file.path)
        return self._session.scalar(wanted) == JournalState.GROWING

    def begin(self, acquisition_uid: UUID, path: bytes, ino: int, owner: UUID) -> StagedPart:
        """Begin to stage a file, of which nothing is staged yet."""
        uid, ino = new_uid(), signed(ino)
        row = AheadRow(uid=uid, acquisition_uid=acquisition_uid, path=path, ino=ino, size=0, chunks=[], owner=owner)
        self._session.add(row)
        return StagedPart(uid, ino, 0, ())

    def hold(self, uid: UUID, owner: UUID) -> bool:
        """Keep workers from a file, to bring more of it; False where one has taken it already."""
        free = update(AheadRow).where(AheadRow.uid == uid, AheadRow.owner.is_(None)).values(owner=owner)
        return bool(self._session.execute(free).rowcount)  # type: ignore[attr-defined]

    def keep(self, uid: UUID, owner: UUID, *, size: int, chunks: Sequence[str]) -> None:
        """Write down how far a file has come, and let workers take it; nothing where it is ours no more."""
        ours = update(AheadRow).where(AheadRow.uid == uid, AheadRow.owner == owner)
        self._session.execute(ours.values(size=size, chunks=list(chunks), owner=None))

    def drop(self, uid: UUID) -> None:
        """Forget what was staged of a file: it is discarded, and the file sent whole when it is finished."""
        self._session.execute(delete(AheadRow).where(AheadRow.uid == uid))

    def stale(self) -> list[UUID]:
        """Return what is staged of files that will not be sent: they went, or their acquisition has ended."""
        r, a = JournalRow, AheadRow
        on_its_way = [JournalState.CANDIDATE, JournalState.GROWING, JournalState.READY]
        is_wanted = select(r.id).join(AcquisitionRow, AcquisitionRow.uid == r.acquisition_uid)
        is_wanted = is_wanted.where(r.acquisition_uid == a.acquisition_uid, r.path == a.path, r.state.in_(on_its_way))
        is_wanted = is_wanted.where(AcquisitionRow.state.in_(sorted(ACTIVE)))
        return list(self._session.scalars(select(a.uid).where(a.owner.is_(None), ~is_wanted.exists())))

    def owners(self) -> list[UUID]:
        """Return the processes that are bringing something."""
        wanted = select(AheadRow.owner).where(AheadRow.owner.is_not(None)).distinct()
        return [owner for owner in self._session.scalars(wanted) if owner is not None]

    def release(self, owner: UUID, *, is_dead: bool) -> None:
        """Free what a process held. One that may go on writing has its parts to itself: they are forgotten."""
        if is_dead:
            self._session.execute(update(AheadRow).where(AheadRow.owner == owner).values(owner=None))
        else:
            self._session.execute(delete(AheadRow).where(AheadRow.owner == owner))


def staged_ahead(acquisition_uid: UUID) -> Select[UUID, UUID, bytes, int, list[str]]:
    """Ask for what is staged of an acquisition's files that are, or were, still written; mostly there is nothing."""
    a = AheadRow
    return select(a.uid, a.acquisition_uid, a.path, a.size, a.chunks).where(a.acquisition_uid == acquisition_uid)


def take(session: Session, uid: UUID) -> bool:
    """Give what is staged of a file to the worker that has taken it; False where more is being brought just now."""
    free = delete(AheadRow).where(AheadRow.uid == uid, AheadRow.owner.is_(None))
    return bool(session.execute(free).rowcount)  # type: ignore[attr-defined]
