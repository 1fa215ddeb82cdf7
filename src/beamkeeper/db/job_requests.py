"""Jobs that the files of DAQs ask for: written with the step that makes a file available, submitted behind it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Index, UniqueConstraint, func, select, update
from sqlalchemy.orm import InstrumentedAttribute, Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, new_uid
from beamkeeper.db.journal_rows import COLUMNS, Claimed, JournalRow, to_claimed
from beamkeeper.domain.acquisition import JournalState
from beamkeeper.domain.files import FileKind
from beamkeeper.domain.status import Service

T = TypeVar("T", UUID, bytes)
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
        Index(None, "acquisition_uid", "path"),
    )
    services = frozenset({Service.ACQUISITION})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    acquisition_uid: Mapped[UUID]
    version_uid: Mapped[UUID]
    path: Mapped[bytes]
    source: Mapped[bytes]
    job_uid: Mapped[UUID | None]
    run_uid: Mapped[UUID | None]
    state: Mapped[str]
    next_at: Mapped[datetime]
    message: Mapped[str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that has become available: its path in the experiment, and where it was, without the leading slash."""

    version_uid: UUID
    path: bytes
    source: bytes
    is_first: bool = True
    """Whether it is the first version of its path, or counts as one."""
    job_uid: UUID | None = None
    """The job that it is to have alone; None where it shares one, which is found out later."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job to be submitted, on these paths below the experiment."""

    job_uid: UUID
    acquisition_uid: UUID
    paths: Sequence[bytes]
    sources: Sequence[bytes]
    """Where they were, without the leading slash."""
    run_uid: UUID | None = None


def _mine(acquisition_uid: UUID) -> ColumnElement[bool]:
    return JobRequestRow.acquisition_uid == acquisition_uid


class JobRequests:
    """Queries on jobs that files ask for."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def add(self, acquisition_uid: UUID, files: Iterable[Wanted]) -> None:
        """Note files, each version once; in the transaction that makes them available: neither is without the other.

        A new version of a file that was noted before is left out, unless it counts as a first one.
        """
        asked = list(files)
        known = self._known(acquisition_uid, JobRequestRow.version_uid, [file.version_uid for file in asked])
        later = [file.path for file in asked if not file.is_first]
        had = self._known(acquisition_uid, JobRequestRow.path, later)
        for file in asked:
            if file.version_uid in known or (not file.is_first and file.path in had):
                continue
            self._session.add(
                JobRequestRow(
                    acquisition_uid=acquisition_uid,
                    version_uid=file.version_uid,
                    path=file.path,
                    source=file.source,
                    job_uid=file.job_uid,
                    state=WAITING,
                    next_at=self._now,
                    message="",
                )
            )
        self._session.flush()

    def _known(self, acquisition_uid: UUID, column: InstrumentedAttribute[T], values: Sequence[T]) -> set[T]:
        """Return which of these values files of an acquisition have that were noted."""
        known: set[T] = set()
        for start in range(0, len(values), IN_CHUNK):
            part = column.in_(values[start : start + IN_CHUNK])
            known.update(self._session.scalars(select(column).where(_mine(acquisition_uid), part)))
        return known

    def unasked(self, acquisition_uid: UUID, limit: int, *, again: bool) -> Sequence[Claimed]:
        """Return files that are finished and on their way, and that no job was asked for yet.

        Those of which a version was stored before are left out, unless `again`.
        """
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
                *(() if again else (JournalRow.available_at.is_(None),)),
            )
            .order_by(JournalRow.id)
            .limit(limit)
        )
        return [to_claimed(row) for row in self._session.execute(wanted)]

    def on_its_way_since(self, acquisition_uid: UUID) -> datetime | None:
        """Return since when the file is seen that is on its way longest, those apart that go on growing."""
        states = (JournalState.CANDIDATE, JournalState.READY, JournalState.STAGED, JournalState.STORED)
        mine = (JournalRow.acquisition_uid == acquisition_uid) & JournalRow.state.in_(states)
        return self._session.execute(select(func.min(JournalRow.first_seen_at)).where(mine)).scalar_one()

    def ungrouped(self) -> dict[UUID, int]:
        """Return how many files of each DAQ and upload belong to no job yet."""
        wanted = (
            select(JobRequestRow.acquisition_uid, func.count())
            .where(JobRequestRow.state == WAITING, JobRequestRow.job_uid.is_(None))
            .group_by(JobRequestRow.acquisition_uid)
        )
        return {row[0]: row[1] for row in self._session.execute(wanted)}

    def alone(self, acquisition_uid: UUID, limit: int) -> dict[int, bytes]:
        """Return files that belong to no job yet, in the order in which they came, by their rows: their paths."""
        wanted = select(JobRequestRow.id, JobRequestRow.path).where(
            _mine(acquisition_uid), JobRequestRow.state == WAITING, JobRequestRow.job_uid.is_(None)
        )
        rows = self._session.execute(wanted.order_by(JobRequestRow.id).limit(limit))
        return {row.id: row.path for row in rows}

    def give(self, ids: Sequence[int], *, run_uid: UUID | None = None) -> None:
        """Let files be those of one job, of this run where it is one's."""
        values = {"job_uid": new_uid(), "run_uid": run_uid}
        for start in range(0, len(ids), IN_CHUNK):
            some = JobRequestRow.id.in_(ids[start : start + IN_CHUNK])
            self._session.execute(update(JobRequestRow).where(some).values(**values))

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
        by_job: dict[UUID | None, list[JobRequestRow]] = {}
        wanted = select(JobRequestRow).where(JobRequestRow.job_uid.in_(uids)).order_by(JobRequestRow.id)
        for row in self._session.scalars(wanted):
            by_job.setdefault(row.job_uid, []).append(row)
        return [
            JobRequest(
                uid,
                by_job[uid][0].acquisition_uid,
                [row.path for row in by_job[uid]],
                [row.source for row in by_job[uid]],
                by_job[uid][0].run_uid,
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
