"""The rules by which files come to runs: kept, applied to new files at once, and to old ones in batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Index, Uuid, delete, exists, insert, literal, or_, select, tuple_, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from beamkeeper.db.base import Base, BigId, new_uid, upsert
from beamkeeper.db.changes import changed
from beamkeeper.db.experiments import ExperimentRow
from beamkeeper.db.files.tables import FileRow
from beamkeeper.db.finding.builtins import glob_matches, path_range
from beamkeeper.db.linked import RunFileRow, RunRow
from beamkeeper.db.metadata import MetadataChangeRow
from beamkeeper.db.pages import parts
from beamkeeper.db.scope import lock_experiments, lock_runs
from beamkeeper.domain.errors import ConflictError, NotFoundError
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.patterns import Pattern
from beamkeeper.domain.query.ast import Builtin, Glob
from beamkeeper.domain.replication import Kind
from beamkeeper.domain.runs import RULES_LIMIT, RUN_GROUP, Belonging, NewRunRule, RunRule, RunState, belonging
from beamkeeper.domain.status import Service

BY_RULE = "rule"
"""Who made a run that is known from its files only."""

_UNSYNCED = {"synchronize_session": False}


class RunRuleRow(Base):
    """A rule; `reached` is how far the files that were there before it have been looked at."""

    __tablename__ = "run_rules"
    __table_args__ = (Index(None, "experiment_uid"),)
    services = frozenset({Service.CATALOG})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    experiment_uid: Mapped[UUID | None]
    type: Mapped[str | None]
    path: Mapped[str | None]
    field: Mapped[str | None]
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    removed_at: Mapped[datetime | None]
    applied_at: Mapped[datetime | None]
    reached_experiment_uid: Mapped[UUID | None]
    reached_path: Mapped[bytes | None]


class _File(NamedTuple):
    id: int
    experiment_uid: UUID
    path: bytes
    path_shown: str
    metadata: Metadata


class RunRules:
    """Queries on rules."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session = session
        self._now = now

    def of(self, experiment_uid: UUID, kind: str | None) -> Sequence[RunRule]:
        """Return the rules of an experiment, its own and those of its type, oldest first."""
        is_meant = RunRuleRow.experiment_uid == experiment_uid
        if kind is not None:
            is_meant = or_(is_meant, RunRuleRow.type == kind)
        wanted = select(RunRuleRow).where(is_meant, RunRuleRow.removed_at.is_(None)).order_by(RunRuleRow.id)
        return [to_rule(row) for row in self._session.scalars(wanted)]

    def get(self, uid: UUID) -> RunRule:
        """Return a rule."""
        return to_rule(self._row(uid))

    def add(self, new: NewRunRule, *, by: str) -> RunRule:
        """Keep a rule: for files that are registered from now on, and by and by for those that are there."""
        same = RunRuleRow.type == new.type if new.type else RunRuleRow.experiment_uid == new.experiment_uid
        # Whoever registers files now has them counted as there already; who comes later sees the rule.
        lock_experiments(self._session, self._experiments(new.experiment_uid, new.type))
        held = self._session.scalars(select(RunRuleRow).where(same, RunRuleRow.removed_at.is_(None))).all()
        for row in held:
            if (row.path, row.field) == (new.path, new.field):
                return to_rule(row)
        if len(held) >= RULES_LIMIT:
            raise ConflictError(f"there are {RULES_LIMIT} rules already: remove one that is not needed")
        row = RunRuleRow(uid=new_uid(), created_at=self._now, created_by=by, **new.model_dump())
        self._session.add(row)
        self._session.flush()
        return to_rule(row)

    def remove(self, uid: UUID) -> None:
        """Let a rule count no more; what it did is undone by and by."""
        row = self._row(uid)
        lock_experiments(self._session, self._experiments(row.experiment_uid, row.type))
        row.removed_at = self._now
        self._session.flush()

    def apply(self, file_uids: Iterable[UUID | str]) -> None:
        """Let files belong to the runs that the rules say, and to no others by rule; of a uid its digits will do."""
        rules = self._session.scalars(select(RunRuleRow).where(RunRuleRow.removed_at.is_(None))).all()
        uids = [uid if isinstance(uid, UUID) else UUID(uid) for uid in file_uids] if rules else ()
        if not uids:
            return
        files = [_File(*row) for row in self._session.execute(_files(FileRow.uid.in_(uids)))]
        of = self._rules_of(rules, {file.experiment_uid for file in files})
        touched = [file for file in files if of[file.experiment_uid]]
        # Files come in beside one another; whether a run of theirs has to be made is decided by turns. To let nobody
        # else into these experiments would be to wait for those who have let us in, and they for us.
        lock_runs(self._session, {file.experiment_uid for file in touched})
        own = RunFileRow.file_id.in_([file.id for file in touched]) & RunFileRow.rule_id.is_not(None)
        self._session.execute(delete(RunFileRow).where(own), execution_options=_UNSYNCED)
        for rule in rules:
            self._belong(rule, [file for file in touched if rule in of[file.experiment_uid]])

    def is_waiting(self) -> bool:
        """Whether some rule is new or removed."""
        unfinished = or_(RunRuleRow.removed_at.is_not(None), RunRuleRow.applied_at.is_(None))
        return self._session.execute(select(RunRuleRow.id).where(unfinished).limit(1)).first() is not None

    def step(self, limit: int) -> bool:
        """Go on with one rule that is new or removed, for so many files; tell whether there may be more to do."""
        removed = select(RunRuleRow).where(RunRuleRow.removed_at.is_not(None))
        fresh = select(RunRuleRow).where(RunRuleRow.removed_at.is_(None), RunRuleRow.applied_at.is_(None))
        if row := self._session.scalars(removed.order_by(RunRuleRow.id).limit(1)).one_or_none():
            self._undo(row, limit)
            return True
        if row := self._session.scalars(fresh.order_by(RunRuleRow.id).limit(1)).one_or_none():
            self._go_on(row, limit)
            return True
        return False

    def _go_on(self, rule: RunRuleRow, limit: int) -> None:
        experiments = self._experiments(rule.experiment_uid, rule.type)
        lock_experiments(self._session, experiments)
        wanted = _files(FileRow.experiment_uid.in_(experiments), *self._narrowed(rule))
        if rule.reached_experiment_uid is not None and rule.reached_path is not None:
            reached = tuple_(literal(rule.reached_experiment_uid, Uuid()), literal(rule.reached_path))
            wanted = wanted.where(tuple_(FileRow.experiment_uid, FileRow.path) > reached)
        rows = self._session.execute(wanted.order_by(FileRow.experiment_uid, FileRow.path).limit(limit))
        files = [_File(*row) for row in rows]
        self._belong(rule, files)
        if len(files) < limit:
            rule.applied_at = self._now
        else:
            rule.reached_experiment_uid, rule.reached_path = files[-1].experiment_uid, files[-1].path
        self._session.flush()

    def _narrowed(self, rule: RunRuleRow) -> Sequence[ColumnElement[bool]]:
        """Return what the database can say of the files that a rule may mean."""
        if rule.path is None:
            return ()
        glob = Pattern.parse(rule.path, RUN_GROUP).glob
        dialect = self._session.get_bind().dialect.name
        return [glob_matches(FileRow.path_shown, glob, dialect), path_range(Glob(Builtin("path"), glob))]

    def _undo(self, rule: RunRuleRow, limit: int) -> None:
        own = select(RunFileRow.file_id).where(RunFileRow.rule_id == rule.id).order_by(RunFileRow.file_id).limit(limit)
        ids = self._session.scalars(own).all()
        if ids:
            meant = (RunFileRow.rule_id == rule.id) & RunFileRow.file_id.in_(ids)
            self._session.execute(delete(RunFileRow).where(meant), execution_options=_UNSYNCED)
            changed(self._session, Kind.FILES, ids)
            return
        experiments = self._experiments(rule.experiment_uid, rule.type)
        lock_experiments(self._session, experiments)  # who registers now may be giving files to a run that seems empty
        self._forget_empty(experiments)
        # A file that two rules gave to one run was listed for one of them: the others look again.
        others = or_(RunRuleRow.experiment_uid.in_(experiments), RunRuleRow.type.is_not(None))
        self._session.execute(
            update(RunRuleRow)
            .where(others, RunRuleRow.id != rule.id)
            .values(applied_at=None, reached_experiment_uid=None, reached_path=None),
            execution_options=_UNSYNCED,
        )
        self._session.delete(rule)
        self._session.flush()

    def _forget_empty(self, experiments: Sequence[UUID]) -> None:
        """Hide runs that were known from their files only and have none now, unless somebody wrote about them."""
        empty = select(RunRow.id).where(
            RunRow.experiment_uid.in_(experiments),
            RunRow.state == RunState.INFERRED,
            RunRow.deleted_at.is_(None),
            ~exists().where(RunFileRow.run_id == RunRow.id),
            ~exists().where(MetadataChangeRow.subject_uid == RunRow.uid),
        )
        ids = self._session.scalars(empty).all()
        for some in parts(ids):
            hiding = update(RunRow).where(RunRow.id.in_(some)).values(deleted_at=self._now)
            self._session.execute(hiding, execution_options=_UNSYNCED)
        changed(self._session, Kind.RUNS, ids)

    def _bring_back(self, runs: Mapping[int, Belonging]) -> None:
        """Show those of these runs again that are hidden, as if they were made now."""
        for some in parts(runs):
            hidden = select(RunRow).where(RunRow.id.in_(some), RunRow.deleted_at.is_not(None))
            for row in self._session.scalars(hidden):
                row.deleted_at, row.free = None, {"path": runs[row.id].path} if runs[row.id].path else {}
                changed(self._session, Kind.RUNS, [row.id])
        self._session.flush()

    def _belong(self, rule: RunRuleRow, files: Iterable[_File]) -> None:
        said = to_rule(rule)
        found = [(file, belonging(said, file.path_shown, file.metadata)) for file in files]
        meant = [(file, told) for file, told in found if told is not None]
        runs = self._runs({(file.experiment_uid, told.run): told for file, told in reversed(meant)})
        rows = [
            {"run_id": runs[file.experiment_uid, told.run], "file_id": file.id, "rule_id": rule.id}
            for file, told in meant
        ]
        upsert(self._session, RunFileRow, rows, key=("run_id", "file_id"), keep=("rule_id",))
        changed(self._session, Kind.FILES, [file.id for file, _ in meant])

    def _runs(self, wanted: Mapping[tuple[UUID, str], Belonging]) -> Mapping[tuple[UUID, str], int]:
        """Return the local keys of runs, making those that are not known; nobody else may be doing so."""
        held = self._held(wanted)
        self._bring_back({id_: wanted[key] for key, id_ in held.items()})
        missing: list[dict[str, Any]] = [
            {
                "uid": new_uid(),
                "experiment_uid": experiment,
                "name": name,
                "state": RunState.INFERRED,
                "metadata": {"path": told.path} if told.path else {},
                "created_at": self._now,
                "created_by": BY_RULE,
            }
            for (experiment, name), told in wanted.items()
            if (experiment, name) not in held
        ]
        if not missing:
            return held
        self._session.connection().execute(insert(RunRow.__table__), missing)  # type: ignore[arg-type]
        made = self._held(wanted)
        changed(self._session, Kind.RUNS, [id_ for key, id_ in made.items() if key not in held])
        return made

    def _held(self, wanted: Iterable[tuple[UUID, str]]) -> dict[tuple[UUID, str], int]:
        found: dict[tuple[UUID, str], int] = {}
        names: dict[UUID, list[str]] = {}
        for experiment, name in wanted:
            names.setdefault(experiment, []).append(name)
        for experiment, some in names.items():
            rows = select(RunRow.name, RunRow.id).where(RunRow.experiment_uid == experiment, RunRow.name.in_(some))
            found |= {(experiment, name): run_id for name, run_id in self._session.execute(rows)}
        return found

    def _rules_of(
        self, rules: Sequence[RunRuleRow], experiments: Iterable[UUID]
    ) -> Mapping[UUID, Sequence[RunRuleRow]]:
        types = select(ExperimentRow.uid, ExperimentRow.type).where(ExperimentRow.uid.in_(set(experiments)))
        return {
            uid: [rule for rule in rules if rule.experiment_uid == uid or (kind is not None and rule.type == kind)]
            for uid, kind in self._session.execute(types)
        }

    def _experiments(self, experiment_uid: UUID | None, kind: str | None) -> Sequence[UUID]:
        if experiment_uid is not None:
            return [experiment_uid]
        return self._session.scalars(select(ExperimentRow.uid).where(ExperimentRow.type == kind)).all()

    def _row(self, uid: UUID) -> RunRuleRow:
        wanted = select(RunRuleRow).where(RunRuleRow.uid == uid, RunRuleRow.removed_at.is_(None))
        row = self._session.scalars(wanted).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no rule {uid}", uid=str(uid))
        return row


def _files(*met: ColumnElement[bool]) -> Any:
    columns = (FileRow.id, FileRow.experiment_uid, FileRow.path, FileRow.path_shown, FileRow.metadata_)
    return select(*columns).where(*met)


def to_rule(row: RunRuleRow) -> RunRule:
    """Return the rule that a row holds."""
    plain = {key: getattr(row, key) for key in RunRule.model_fields if key != "is_applied"}
    return RunRule.model_validate({**plain, "is_applied": row.applied_at is not None})
