"""Keeps a group of a directory server for each experiment: who may read its files on the hosts that ask that server.

Whose people changed is noticed by the numbers of the changes, and compared at once; all are compared now and then, for
what others did there. Nobody waits for the directory server but this thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pydantic import JsonValue

from beamkeeper.core import audit_log, file_rights
from beamkeeper.db import Database, StorageTransaction
from beamkeeper.db.groups import KeptGroup, Settled
from beamkeeper.db.news import Topic
from beamkeeper.domain.audit_log import MOST_CHANGES, AuditedChange, NewAuditEntry
from beamkeeper.domain.errors import ConflictError, DmError
from beamkeeper.domain.groups import (
    DirectoryLook,
    FoundGroup,
    GroupAnswer,
    GroupChange,
    GroupDifference,
    GroupState,
    difference,
)
from beamkeeper.engine.worker import Loop, Report
from beamkeeper.plugins.people import GroupKeeper

AT_ONCE = 200
IDLE_S = 5.0
MOST_NAMES = 100
"""So many are named in a row of the audit log."""

OURSELVES = "the storage service"


@dataclass(frozen=True, slots=True)
class Keeping:
    """What the settings say of groups."""

    keeper: GroupKeeper
    template: str
    first_gid: int = 0
    last_gid: int = 2**31 - 1
    is_foreign_removed: bool = False
    every: timedelta = timedelta(0)

    @property
    def is_making(self) -> bool:
        """Whether we make groups, or others do."""
        return self.first_gid > 0 or not self.keeper.has_gids


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be done to one group, and what then still differs."""

    group: KeptGroup
    change: GroupChange
    left: GroupDifference
    gid: int | None
    before: tuple[str, ...] = ()


class GroupLoop(Loop):
    """Takes the groups that are to be compared, some at a time."""

    rest_s = 0.2

    def __init__(self, database: Database[StorageTransaction], keeping: Keeping, *, report: Report) -> None:
        every_s = keeping.every.total_seconds()
        super().__init__("groups", report=report, idle_s=min(IDLE_S, every_s) if every_s else IDLE_S)
        self._database = database
        self._keeping = keeping
        self._followed: int | None = None
        self._next_gid = keeping.first_gid
        self._unlisten = database.listen(self.wake, Topic.GROUPS)

    def step(self) -> bool:
        """Compare some groups, and bring them into line."""
        self._notice()
        with self._database.read() as tx:
            due, began = tx.groups.due(every=self._keeping.every, limit=AT_ONCE), tx.now
        if not due:
            return False
        wanted = frozenset[str]().union(*(group.wanted for group in due))
        try:
            look = self._keeping.keeper.look([group.name for group in due], wanted)
            self._keep(due, look, began)
        except DmError as error:
            with self._database.write() as tx:
                tx.groups.trouble(error.message, began=began)
            self._database.tell(Topic.GROUPS)
            raise
        return True

    def ended(self) -> None:
        """Listen no more."""
        self._unlisten()

    def _notice(self) -> None:
        """Have the groups compared whose people may have changed; of all, where we have just begun."""
        with self._database.read() as tx:
            latest = tx.mirror.latest()
            if latest == self._followed:
                return
            changed = None if self._followed is None else tx.groups.changed_since(self._followed)
        if changed is None or changed:
            with self._database.write() as tx:
                tx.groups.name_new(self._keeping.template)
                tx.groups.ask(changed)
        self._followed = latest

    def _keep(self, due: Sequence[KeptGroup], look: DirectoryLook, began: datetime) -> None:
        plans, settled = [], list[Settled]()
        names = {group.experiment_uid: group.name for group in due}
        for group in due:
            try:
                plans.append(self._plan(group, look))
            except ConflictError as error:
                settled.append(Settled(group.experiment_uid, GroupState.FAILED, group.gid, message=error.message))
        changes = [plan.change for plan in plans if _is_change(plan.change)]
        answers = {one.name: one for one in self._keeping.keeper.bring(changes)} if changes else {}
        settled += [one for plan in plans if (one := _settled(plan, answers.get(plan.group.name))) is not None]
        # Hosts ask the directory server as well: never while a transaction is open.
        settled = [self._as_known_here(one, names[one.experiment_uid]) for one in settled]
        with self._database.write() as tx:
            for place, one in enumerate(settled):
                settled[place] = _unless_held(tx, one, names[one.experiment_uid])
                tx.groups.settle(settled[place], began=began)
            self._note(tx, [plan for plan in plans if (a := answers.get(plan.group.name)) is not None and not a.why])
        self._database.tell(Topic.GROUPS)
        if failed := [one.message for one in settled if one.state is GroupState.FAILED]:
            self.warn(failed[0] if len(failed) == 1 else f"{len(failed)} groups cannot be kept: {failed[0]}")

    def _plan(self, group: KeptGroup, look: DirectoryLook) -> _Plan:
        if group.name in look.faults:
            raise ConflictError(look.faults[group.name])
        found = look.groups.get(group.name)
        if found is None:
            return self._plan_new(group, look)
        if self._keeping.is_making and group.gid is None and not found.is_ours:
            raise ConflictError(
                f'there is a group "{group.name}" already that is not of ours: remove it, or name groups otherwise '
                f"with people.group_name"
            )
        shown = difference(found, wanted=group.wanted, ours=group.ours, accounts=look.accounts)
        is_removing = group.is_repair or self._keeping.is_foreign_removed
        leaving = [*shown.surplus, *(shown.foreign if is_removing else ())]
        change = GroupChange(
            group.name,
            add=tuple(look.accounts[name] for name in shown.missing),
            remove=tuple(found.members.get(name, name) for name in leaving),
        )
        left = GroupDifference(foreign=() if is_removing else shown.foreign, unknown=shown.unknown)
        return _Plan(group, change, left, self._gid_of(found), tuple(sorted([*found.members, *found.others])))

    def _plan_new(self, group: KeptGroup, look: DirectoryLook) -> _Plan:
        keeping = self._keeping
        if not keeping.is_making:
            raise ConflictError(
                f'there is no group "{group.name}" in the directory: have it made, or give numbers for groups with '
                f"people.first_gid"
            )
        gid = (group.gid or self._allot()) if keeping.keeper.has_gids else None
        add = tuple(look.accounts[name] for name in sorted(group.wanted & look.accounts.keys()))
        unknown = tuple(sorted(group.wanted - look.accounts.keys()))
        return _Plan(
            group, GroupChange(group.name, is_new=True, gid=gid, add=add), GroupDifference(unknown=unknown), gid
        )

    def _allot(self) -> int:
        """Return a number that neither an experiment nor this host has; whether the directory has it, it will say."""
        with self._database.read() as tx:
            gid = max(self._next_gid, tx.groups.next_gid(self._keeping.first_gid, self._keeping.last_gid))
        while gid <= self._keeping.last_gid and file_rights.known_as(gid) is not None:
            gid += 1
        if gid > self._keeping.last_gid:
            raise ConflictError(
                f"the numbers up to {self._keeping.last_gid} are used up: raise people.last_gid, or free some"
            )
        self._next_gid = gid + 1
        return gid

    def _gid_of(self, found: FoundGroup) -> int | None:
        return found.gid if self._keeping.keeper.has_gids else file_rights.number_of(found.name)

    def _as_known_here(self, one: Settled, name: str) -> Settled:
        """Add whether this host knows the group; keep files from a number that stands for other people here."""
        if one.gid is None or one.state is GroupState.FAILED:
            return one
        known = file_rights.known_as(one.gid)
        if known is not None and known.lower() != name:
            return _held(one, name, known)
        return replace(one, is_known_to_host=known is not None)

    def _note(self, tx: StorageTransaction, done: Sequence[_Plan]) -> None:
        """Record what was changed in the directory server, for each who had it changed."""
        for username in sorted({_asked_by(plan) for plan in done}):
            theirs = [plan for plan in done if _asked_by(plan) == username]
            changes, more = [_audited(plan) for plan in theirs[:MOST_CHANGES]], max(0, len(theirs) - MOST_CHANGES)
            audit_log.note(tx, NewAuditEntry(username=username, action="KEEP GROUPS", changes=changes, more=more))


def _asked_by(plan: _Plan) -> str:
    return plan.group.asked_by if plan.group.is_repair else OURSELVES


def _audited(plan: _Plan) -> AuditedChange:
    name = plan.group.name
    return AuditedChange(
        table="directory group",
        uid=str(plan.group.experiment_uid),
        before={"name": name, "members": _some(plan.before)} if plan.before else None,
        after={"name": name, "add": _some(plan.change.add), "remove": _some(plan.change.remove)},
    )


def _some(names: Sequence[str]) -> list[JsonValue]:
    """Return the first of many names, and how many more there are."""
    more = [f"and {len(names) - MOST_NAMES} more"] if len(names) > MOST_NAMES else []
    return [*names[:MOST_NAMES], *more]


def _is_change(change: GroupChange) -> bool:
    return change.is_new or bool(change.add) or bool(change.remove)


def _settled(plan: _Plan, answer: GroupAnswer | None) -> Settled | None:
    """Return what came of a plan; None where another number has to be tried."""
    uid, gid = plan.group.experiment_uid, plan.gid
    if answer is not None and answer.is_taken and plan.group.gid is None:
        return None
    if answer is not None and answer.why:
        why = f'group "{plan.group.name}" cannot be kept: {answer.why}'
        return Settled(uid, GroupState.FAILED, plan.group.gid, message=why)
    state = GroupState.SAME if plan.left.is_none else GroupState.DIFFERENT
    return Settled(uid, state, gid, plan.left)


def _unless_held(tx: StorageTransaction, one: Settled, name: str) -> Settled:
    """Keep files from a number that another experiment's group has."""
    holder = None if one.gid is None or one.state is GroupState.FAILED else tx.groups.holder_of(one.gid)
    return one if holder in (None, name) else _held(one, name, str(holder))


def _held(one: Settled, name: str, other: str) -> Settled:
    why = f'group "{name}" has number {one.gid} in the directory, which is that of group "{other}" here'
    return Settled(one.experiment_uid, GroupState.FAILED, None, message=why)
