"""Jobs that the files of DAQs ask for: written with the step that makes a file available, submitted behind it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, UniqueConstraint, func, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, new_uid
from beamkeeper.db.journal_rows import COLUMNS, Claimed, JournalRow, to_claimed
from beamkeeper.domain.acquisition import JournalState
from beamkeeper.domain.files import FileKind
from beamkeeper.domain.status import Service
from beamkeeper.domain.workflows.plans import MOST_PER_JOB

IN_CHUNK = 500
WAITING, SUBMITTED, ENDED, REFUSED = "waiting", "submitted", "ended", "refused"


class JobRequestRow(Base):
    """A file that a job is wanted for; the files of one job share its uid."""

    __tablename__ = "job_requests"
    __table_args__ = (
        UniqueConstraint("acquisition_uid", "version_uid"),
        Index(None, "state", "next_at"),
        Index(None, "job_uid"),
        Index(None, "source"),
    )
    services = frozenset({Service.ACQUISITION})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    acquisition_uid: Mapped[UUID]
    version_uid: Mapped[UUID]
    path: Mapped[bytes]
    source: Mapped[bytes]
    job_uid: Mapped[UUID | None]
    state: Mapped[str]
    next_at: Mapped[datetime]
    message: Mapped[str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that has become available: its path in the experiment, and where it was, without the leading slash."""

    version_uid: UUID
    path: bytes
    source: bytes


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job to be submitted, on these paths below the experiment."""

    job_uid: UUID
    acquisition_uid: UUID
    paths: Sequence[bytes]
    sources: Sequence[bytes]
    """Where they were, without the leading slash."""


class JobRequests:
    """Queries on jobs that files ask for."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def add(self, acquisition_uid: UUID, files: Iterable[Wanted]) -> None:
        """Note files, each version once; in the transaction that makes them available: neither is without the other."""
        asked = list(files)
        known: set[UUID] = set()
        for start in range(0, len(asked), IN_CHUNK):
            part = [file.version_uid for file in asked[start : start + IN_CHUNK]]
            is_mine = JobRequestRow.acquisition_uid == acquisition_uid
            known.update(
                self._session.scalars(
                    select(JobRequestRow.version_uid).where(is_mine, JobRequestRow.version_uid.in_(part))
                )
            )
        for file in asked:
            if file.version_uid in known:
                continue
            self._session.add(
                JobRequestRow(
                    acquisition_uid=acquisition_uid,
                    version_uid=file.version_uid,
                    path=file.path,
                    source=file.source,
                    state=WAITING,
                    next_at=self._now,
                    message="",
                )
            )
        self._session.flush()

    def unasked(self, acquisition_uid: UUID, limit: int) -> Sequence[Claimed]:
        """Return files that are finished and on their way, and that no job was asked for yet."""
        is_asked = (JobRequestRow.acquisition_uid == acquisition_uid) & (
            JobRequestRow.version_uid == JournalRow.version_uid
        )
        wanted = (
            select(*COLUMNS)
            .where(
                JournalRow.acquisition_uid == acquisition_uid,
                JournalRow.state.in_((JournalState.READY, JournalState.STAGED, JournalState.STORED)),
                JournalRow.version_uid.is_not(None),
                JournalRow.kind == FileKind.FILE,
                JournalRow.is_snapshot.is_(False),
                ~select(JobRequestRow.id).where(is_asked).exists(),
            )
            .order_by(JournalRow.id)
            .limit(limit)
        )
        return [to_claimed(row) for row in self._session.execute(wanted)]

    def ungrouped(self) -> dict[UUID, int]:
        """Return how many files of each DAQ and upload belong to no job yet."""
        wanted = (
            select(JobRequestRow.acquisition_uid, func.count())
            .where(JobRequestRow.state == WAITING, JobRequestRow.job_uid.is_(None))
            .group_by(JobRequestRow.acquisition_uid)
        )
        return {row[0]: row[1] for row in self._session.execute(wanted)}

    def group(self, acquisition_uid: UUID, count: int, *, with_rest: bool) -> None:
        """Give so many files each to a job, in the order in which they came; the rest too, where it is the end."""
        wanted = (
            select(JobRequestRow)
            .where(
                JobRequestRow.acquisition_uid == acquisition_uid,
                JobRequestRow.state == WAITING,
                JobRequestRow.job_uid.is_(None),
            )
            .order_by(JobRequestRow.id)
            .limit(10 * MOST_PER_JOB)
        )
        rows = self._session.scalars(wanted).all()
        for start in range(0, len(rows), count):
            part = rows[start : start + count]
            if len(part) == count or with_rest:
                uid = new_uid()
                for row in part:
                    row.job_uid = uid
        self._session.flush()

    def due(self, limit: int) -> Sequence[JobRequest]:
        """Return jobs that are to be submitted now, oldest first."""
        first = (
            select(JobRequestRow.job_uid)
            .where(
                JobRequestRow.state == WAITING, JobRequestRow.job_uid.is_not(None), JobRequestRow.next_at <= self._now
            )
            .group_by(JobRequestRow.job_uid)
            .order_by(func.min(JobRequestRow.id))
            .limit(limit)
        )
        uids = [uid for uid in self._session.scalars(first) if uid is not None]
        rows = self._session.scalars(
            select(JobRequestRow).where(JobRequestRow.job_uid.in_(uids)).order_by(JobRequestRow.id)
        ).all()
        return [
            JobRequest(
                uid,
                next(row.acquisition_uid for row in rows if row.job_uid == uid),
                [row.path for row in rows if row.job_uid == uid],
                [row.source for row in rows if row.job_uid == uid],
            )
            for uid in uids
        ]

    def unended(self, limit: int) -> Sequence[UUID]:
        """Return jobs that were submitted and of whose end we do not know, those looked at longest ago first."""
        wanted = (
            select(JobRequestRow.job_uid)
            .where(JobRequestRow.state == SUBMITTED)
            .group_by(JobRequestRow.job_uid)
            .order_by(func.min(JobRequestRow.next_at))
            .limit(limit)
        )
        return [uid for uid in self._session.scalars(wanted) if uid is not None]

    def mark(
        self, job_uids: Collection[UUID], state: str, *, next_at: datetime | None = None, message: str = ""
    ) -> None:
        """Write down where jobs stand."""
        values = {"state": state, "next_at": next_at or self._now, "message": message[:2000]}
        self._session.execute(update(JobRequestRow).where(JobRequestRow.job_uid.in_(job_uids)).values(**values))

    def holding(self, sources: Collection[bytes]) -> frozenset[bytes]:
        """Return which of these source files belong to jobs that have not ended."""
        found: set[bytes] = set()
        asked = list(sources)
        for start in range(0, len(asked), IN_CHUNK):
            part = asked[start : start + IN_CHUNK]
            wanted = select(JobRequestRow.source).where(
                JobRequestRow.source.in_(part), JobRequestRow.state.in_((WAITING, SUBMITTED))
            )
            found.update(self._session.scalars(wanted))
        return frozenset(found)

    def counts(self, acquisition_uid: UUID) -> dict[str, int]:
        """Return how many files of a DAQ stand where."""
        wanted = (
            select(JobRequestRow.state, func.count())
            .where(JobRequestRow.acquisition_uid == acquisition_uid)
            .group_by(JobRequestRow.state)
        )
        return {row[0]: row[1] for row in self._session.execute(wanted)}
