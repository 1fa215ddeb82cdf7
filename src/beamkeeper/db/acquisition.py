"""DAQs and uploads: the table, and the queries on it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from beamkeeper.db.acquisition_rows import AcquisitionRow, Control, Options, to_acquisition
from beamkeeper.db.base import EPOCH, MICROSECOND, new_uid
from beamkeeper.db.pages import from_cursor, to_cursor
from beamkeeper.db.scope import experiment_uids
from beamkeeper.domain.acquisition import (
    ACTIVE,
    Acquisition,
    AcquisitionPage,
    AcquisitionQuery,
    Kind,
    State,
    check_step,
)
from beamkeeper.domain.errors import InvalidError, NotFoundError
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.users import Reach

__all__ = ["AcquisitionRow", "Acquisitions", "Control", "Options"]

START_LOCK = 0x42_6B_44_41_51
"""The key of PostgreSQL's advisory lock under which directories are claimed; any number that nobody else uses."""

MESSAGE_LENGTH = 2000


class Acquisitions:
    """Queries on DAQs and uploads."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def lock_starts(self) -> None:
        """Let nobody else claim a directory until this transaction ends: to look for overlaps and add is one step."""
        if self._session.get_bind().dialect.name == "postgresql":
            self._session.execute(select(func.pg_advisory_xact_lock(START_LOCK)))

    def add(self, experiment: Experiment, options: Options) -> Acquisition:
        """Write a new one, pending."""
        row = AcquisitionRow(
            uid=options.uid or new_uid(),
            kind=options.kind,
            state=State.PENDING,
            experiment_uid=experiment.uid,
            experiment=experiment.name,
            agent=options.agent,
            path=bytes(options.path),
            destination=options.destination,
            tree=options.tree,
            include=list(options.include),
            exclude=list(options.exclude),
            with_hidden=options.with_hidden,
            with_existing=options.with_existing,
            resend=options.resend,
            finished=options.finished,
            quiet_s=options.quiet_s,
            meta=options.metadata,
            processors=None if options.processors is None else list(options.processors),
            skip_processors=list(options.skip_processors),
            max_run_time_s=options.max_run_time_s,
            is_put=options.is_put,
            policy="",
            message="",
            started_by=options.started_by,
            created_at=self._now,
            stop_now=False,
            existing_before=None if options.with_existing else self._now,
            poll=options.poll,
            sentinel=options.sentinel,
            verify=options.verify,
            retries=0,
            is_retry=False,
            workflow=options.workflow and options.workflow.model_dump(mode="json"),
            made_by=options.made_by and options.made_by.model_dump(mode="json"),
        )
        return self._added(row, options)

    def _added(self, row: AcquisitionRow, options: Options) -> Acquisition:
        row.also, row.first = list(options.also), list(options.first)
        self._session.add(row)
        self._session.flush()  # so that the uid's constraint speaks here, and later queries see the row
        return to_acquisition(row)

    def find(self, uid: UUID) -> Acquisition | None:
        """Return one, or None where there is none."""
        row = self._session.scalars(select(AcquisitionRow).where(AcquisitionRow.uid == uid)).one_or_none()
        return None if row is None else to_acquisition(row)

    def get(self, uid: UUID) -> Acquisition:
        """Return one; NotFoundError where there is none."""
        return to_acquisition(self._row(uid))

    def control(self, uid: UUID) -> Control:
        """Return what the engine has to obey."""
        row = self._row(uid)
        took_over = select(AcquisitionRow.uid).where(AcquisitionRow.taken_over_by == uid).order_by(AcquisitionRow.id)
        return Control(
            state=State(row.state),
            stop_requested=row.stop_requested_at is not None,
            stop_now=row.stop_now,
            taken_over_by=row.taken_over_by,
            taken_over_at=row.taken_over_at,
            took_over=self._session.scalars(took_over).all(),
            existing_before=row.existing_before,
            retries=row.retries,
            is_retry=row.is_retry,
            first=row.first,
        )

    def active(self) -> list[Acquisition]:
        """Return what the engine has to run, oldest first: all that has not ended, less puts that still receive."""
        wanted = select(AcquisitionRow).where(AcquisitionRow.state.in_(sorted(ACTIVE)), ~_IS_RECEIVING)
        return [to_acquisition(row) for row in self._session.scalars(wanted.order_by(AcquisitionRow.id))]

    def receiving(self, before: datetime) -> list[Acquisition]:
        """Return the puts that were begun before then and still receive, oldest first."""
        wanted = select(AcquisitionRow).where(_IS_RECEIVING, AcquisitionRow.created_at < before)
        return [to_acquisition(row) for row in self._session.scalars(wanted.order_by(AcquisitionRow.id))]

    def covering(self, agent: str, directory: bytes) -> list[Acquisition]:
        """Return those of an agent in whose directory this one lies, or is: active ones first, then the newest."""
        parts = bytes(directory).split(b"/")
        above = [b"/".join(parts[: n + 1]) for n in range(len(parts))]
        wanted = select(AcquisitionRow).where(
            AcquisitionRow.agent == agent, AcquisitionRow.path.in_(above), ~AcquisitionRow.is_put
        )
        is_active = AcquisitionRow.state.in_(sorted(ACTIVE))
        rows = self._session.scalars(wanted.order_by(is_active.desc(), AcquisitionRow.id.desc()))
        return [to_acquisition(row) for row in rows]

    def recent(self, agent: str, limit: int) -> list[Acquisition]:
        """Return what runs on an agent's directories, and so many of the newest that ran."""
        wanted = select(AcquisitionRow).where(AcquisitionRow.agent == agent, ~AcquisitionRow.is_put)
        newest = wanted.order_by(AcquisitionRow.created_at.desc(), AcquisitionRow.id.desc()).limit(limit)
        active = wanted.where(AcquisitionRow.state.in_(sorted(ACTIVE)))
        rows = {row.id: row for found in (newest, active) for row in self._session.scalars(found)}
        return [to_acquisition(row) for row in rows.values()]

    def holding(self, agent: str) -> list[Acquisition]:
        """Return the DAQs that hold directories of an agent; one that was taken over holds none any more."""
        wanted = select(AcquisitionRow).where(
            AcquisitionRow.state.in_(sorted(ACTIVE)),
            AcquisitionRow.kind == Kind.DAQ,
            AcquisitionRow.agent == agent,
            AcquisitionRow.taken_over_at.is_(None),
            ~AcquisitionRow.is_retry,  # it looks at a few files of its own, and at nothing else
        )
        return [to_acquisition(row) for row in self._session.scalars(wanted.order_by(AcquisitionRow.id))]

    def page(self, kind: Kind | None, query: AcquisitionQuery, within: Reach | None = None) -> AcquisitionPage:
        """Return some, newest first, of the experiments that a caller's rights reach (None: of all)."""
        wanted = select(AcquisitionRow).where(*_conditions(kind, query), *self._within(within))
        if query.after is not None:
            wanted = wanted.where(_older(query.after))
        newest_first = (AcquisitionRow.created_at.desc(), AcquisitionRow.uid.desc())
        rows = self._session.scalars(wanted.order_by(*newest_first).limit(query.limit + 1)).all()
        items = [to_acquisition(row) for row in rows[: query.limit]]
        return AcquisitionPage(items=items, next=_cursor(items[-1]) if len(rows) > query.limit else None)

    def set_state(self, uid: UUID, state: State, *, message: str | None = None) -> Acquisition:
        """Bring one to a state that STEPS allows, and stamp the time of it; what it is in already stays so."""
        row = self._row(uid, for_update=True)
        if row.state != state:
            row.state = check_step(f"{row.kind} {uid}", State(row.state), state)
            if state is State.RUNNING:
                row.started_at = self._now
            if state is State.STOPPING and row.stop_requested_at is None:
                row.stop_requested_at = self._now
            if state not in ACTIVE:
                row.ended_at = self._now
        if message is not None:
            row.message = message[:MESSAGE_LENGTH]
        self._session.flush()
        return to_acquisition(row)

    def mark_started(self, uid: UUID) -> Acquisition:
        """Say that it runs now; one whose end was asked for meanwhile stays as it is."""
        row = self._row(uid, for_update=True)
        return self.set_state(uid, State.RUNNING) if row.state == State.PENDING else to_acquisition(row)

    def request_stop(self, uid: UUID, *, now: bool = False) -> Acquisition:
        """Ask for the end; `now` can be added later, and is never taken back."""
        acquisition = self.set_state(uid, State.STOPPING)
        if not now:
            return acquisition
        row = self._row(uid)
        row.stop_now = True
        self._session.flush()
        return to_acquisition(row)

    def take_over(self, uid: UUID, *, by: UUID) -> Acquisition:
        """End one in favour of another, which begins at this very instant."""
        self.set_state(uid, State.STOPPING)
        row = self._row(uid)
        row.taken_over_by, row.taken_over_at = by, self._now
        self._session.flush()
        return to_acquisition(row)

    def run_again(self, uid: UUID) -> Acquisition:
        """Let one that failed run again for what was quarantined; nothing else of its directory is looked at."""
        self.set_state(uid, State.STOPPING, message="")
        row = self._row(uid)
        row.is_retry, row.stop_now, row.ended_at = True, False, None
        self._session.flush()
        return to_acquisition(row)

    def mark_retried(self, uid: UUID) -> None:
        """Let the engine know that there are files to be looked at again."""
        row = self._row(uid, for_update=True)
        row.retries += 1
        self._session.flush()

    def set_first(self, uid: UUID, patterns: Sequence[str]) -> Acquisition:
        """Say which files go before all others."""
        row = self._row(uid, for_update=True)
        row.first = list(patterns)
        self._session.flush()
        return to_acquisition(row)

    def mark_ended(self, uid: UUID, state: State, message: str = "") -> Acquisition:
        """Say how it ended."""
        return self.set_state(uid, state, message=message)

    def set_policy(self, uid: UUID, policy: str) -> None:
        """Say when a file counts as finished here, and why."""
        row = self._row(uid, for_update=True)
        row.policy = policy[:MESSAGE_LENGTH]
        self._session.flush()

    def lock(self, uid: UUID) -> None:
        """Let no other transaction change it, or add to it, before this one ends."""
        self._row(uid, for_update=True)

    def goes_on(self, uid: UUID) -> bool:
        """Whether it has not ended; nobody ends it before this transaction does."""
        state = self._session.scalar(
            select(AcquisitionRow.state).where(AcquisitionRow.uid == uid).with_for_update(read=True)
        )
        return state in ACTIVE

    def root(self, uid: UUID) -> Metadata | None:
        """Return what was written down of its directory, so that another one is not taken for it."""
        return self._row(uid).root

    def set_root(self, uid: UUID, root: Metadata) -> None:
        """Write down which directory it is."""
        row = self._row(uid, for_update=True)
        row.root = root
        self._session.flush()

    def set_message(self, uid: UUID, message: str) -> None:
        """Say what people should know of it now, such as that it waits for its directory."""
        row = self._row(uid, for_update=True)
        row.message = message[:MESSAGE_LENGTH]
        self._session.flush()

    def count_by_state(self, kind: Kind | None = None) -> dict[State, int]:
        """Return how many are in each state."""
        wanted = select(AcquisitionRow.state, func.count()).group_by(AcquisitionRow.state)
        if kind is not None:
            wanted = wanted.where(AcquisitionRow.kind == kind)
        return {State(state): count for state, count in self._session.execute(wanted)}

    def _within(self, reach: Reach | None) -> list[ColumnElement[bool]]:
        if reach is None or reach.is_all:
            return []
        return [AcquisitionRow.experiment_uid.in_(experiment_uids(reach, self._now))]

    def _row(self, uid: UUID, *, for_update: bool = False) -> AcquisitionRow:
        wanted = select(AcquisitionRow).where(AcquisitionRow.uid == uid)
        if for_update:
            wanted = wanted.with_for_update().execution_options(populate_existing=True)
        row = self._session.scalars(wanted).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no DAQ or upload {uid}", uid=str(uid))
        return row


_IS_RECEIVING = AcquisitionRow.is_put & (AcquisitionRow.state == State.PENDING)


def _conditions(kind: Kind | None, query: AcquisitionQuery) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if kind is not None:
        found.append(AcquisitionRow.kind == kind)
    if query.experiment_uid is not None:
        found.append(AcquisitionRow.experiment_uid == query.experiment_uid)
    if query.is_active:
        found.append(AcquisitionRow.state.in_(sorted(ACTIVE)))
    return found


def _cursor(last: Acquisition) -> str:
    return to_cursor((last.created_at - EPOCH) // MICROSECOND, last.uid.hex)


def _older(cursor: str) -> ColumnElement[bool]:
    microseconds, uid = from_cursor(cursor, int, str)
    try:
        at, last = EPOCH + int(microseconds) * MICROSECOND, UUID(hex=str(uid))
    except (ValueError, OverflowError) as error:
        raise InvalidError(f"{cursor[:80]!r} is no cursor of this list: take the `next` of the page before") from error
    return or_(AcquisitionRow.created_at < at, and_(AcquisitionRow.created_at == at, AcquisitionRow.uid < last))
