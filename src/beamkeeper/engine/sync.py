"""Takes over the facility's people and proposals: reads all of them first, then writes in parts."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

from beamkeeper.core import syncs
from beamkeeper.db import Database, StorageTransaction
from beamkeeper.db.base import new_uid
from beamkeeper.db.news import Topic
from beamkeeper.domain.errors import DmError, SettingsError
from beamkeeper.domain.people import (
    SHOWN_REFUSALS,
    AccountsKept,
    DirectoryAccount,
    NewSync,
    Person,
    Refused,
    RefusedPerson,
    SyncKind,
    SyncReport,
    SyncState,
    cap_on_leaving,
)
from beamkeeper.engine.worker import Loop, Report
from beamkeeper.plugins.people import AccountKeeper, ProposalSource, UserDirectory

logger = logging.getLogger(__name__)

AT_ONCE = 5000
"""So many are written in one transaction: others who change identities wait for a second at most."""

OURSELVES = "the storage service"

FoundT = TypeVar("FoundT")


@dataclass(frozen=True, slots=True)
class Facility:
    """What the settings say of the facility's databases."""

    source: str = ""
    directory: UserDirectory | None = None
    proposals: ProposalSource | None = None
    accounts: AccountKeeper | None = None
    every: timedelta = timedelta(0)
    may_leave_percent: float = 5.0
    may_leave: int = 20


@dataclass(slots=True)
class _Counted:
    """What a sync has done so far."""

    seen: int = 0
    added: int = 0
    updated: int = 0
    reactivated: int = 0
    refused: list[Refused] = field(default_factory=list)


class SyncLoop(Loop):
    """Does the syncs that are asked for, and those that are due."""

    rest_s = 0.2

    def __init__(self, database: Database[StorageTransaction], facility: Facility, *, report: Report) -> None:
        super().__init__("sync", report=report, idle_s=5.0)
        self._database = database
        self._facility = facility
        self._unlisten = database.listen(self.wake, Topic.SYNCS)

    def step(self) -> bool:
        """Do the sync that waits longest."""
        with self._database.read() as tx:
            found = tx.syncs.pending()
            due = [] if found else self._due(tx)
        if found is None:
            with self._database.write() as tx:
                for kind in due:
                    tx.syncs.add(NewSync(uid=new_uid(), kind=kind), asked_by=OURSELVES)
            return bool(due)
        new, by = found
        state, message, done = self._outcome(new)
        with self._database.write() as tx:
            syncs.end(tx, new, state, by=by, message=message, report=done)
        self._database.tell(Topic.SYNCS)
        if message:
            self.warn(f"the sync of {new.kind} failed: {message}")
        elif done.held_back:
            self.warn(f"{done.held_back} people left the directory at once, more than the cap: none was deactivated")
        return True

    def _outcome(self, new: NewSync) -> tuple[SyncState, str, SyncReport]:
        """Do a sync; whatever it comes to is its end, since the next one waits for it."""
        try:
            done = self._users(new) if new.kind is SyncKind.USERS else self._proposals()
        except DmError as error:
            return SyncState.FAILED, error.message, SyncReport()
        except Exception as error:
            logger.exception("a sync failed", extra={"kind": new.kind})
            why = f"{type(error).__name__}: what the facility gave is not as expected, see the log of the service"
            return SyncState.FAILED, why, SyncReport()
        return SyncState.DONE, "", done

    def ended(self) -> None:
        """Listen no more."""
        self._unlisten()

    def _due(self, tx: StorageTransaction) -> list[SyncKind]:
        """Return which syncs are to be done by themselves."""
        every = self._facility.every
        if not every:
            return []
        kinds = {SyncKind.USERS: self._facility.directory, SyncKind.PROPOSALS: self._facility.proposals}
        last = {kind: tx.syncs.last(kind) for kind, plugin in kinds.items() if plugin is not None}
        return [kind for kind, at in last.items() if at is None or at + every <= tx.now]

    def _users(self, new: NewSync) -> SyncReport:
        facility = self._facility
        if facility.directory is None:
            raise SettingsError("people.directory names no plugin: nobody can be taken over")
        counted = _Counted()
        people = list(_kept(facility.directory.people(), counted))
        staying = {person.username for person in people if person.is_active}
        staying |= {one.username for one in counted.refused if isinstance(one, RefusedPerson)}
        for some in _parts(people):
            with self._database.write() as tx:
                taken = tx.people.take(some, source=facility.source)
            counted.added += taken.added
            counted.updated += taken.updated
            counted.reactivated += taken.reactivated
            counted.refused += taken.refused
        cap = new.may_leave
        with self._database.write() as tx:
            if cap is None:
                managed = len(tx.people.active(facility.source))
                cap = cap_on_leaving(managed, percent=facility.may_leave_percent, at_least=facility.may_leave)
            deactivated, held_back = syncs.part_with(tx, staying, source=facility.source, cap=cap)
            given, taken_away = tx.proposals.follow()
        kept = self._keep_accounts(people) if new.to_ldap else None
        return SyncReport(
            **_report(counted),
            deactivated=deactivated,
            held_back=held_back,
            members_added=given,
            members_removed=taken_away,
            accounts=kept,
        )

    def _keep_accounts(self, people: Sequence[Person]) -> AccountsKept:
        keeper = self._facility.accounts
        if keeper is None:
            raise SettingsError("people.accounts names no plugin: there is no directory server to maintain")
        given = {person.username: person for person in people}
        with self._database.read() as tx:
            accounts = list(tx.people.accounts(self._facility.source))
        return keeper.keep(_account(account, given.get(account.username)) for account in accounts)

    def _proposals(self) -> SyncReport:
        source = self._facility.proposals
        if source is None:
            raise SettingsError("people.proposals names no plugin: no proposals can be taken over")
        counted = _Counted()
        papers = list(_kept(source.proposals(), counted))
        for some in _parts(papers):
            with self._database.write() as tx:
                added, updated = tx.proposals.take(some)
            counted.added += added
            counted.updated += updated
        with self._database.write() as tx:
            given, taken_away = tx.proposals.follow()
        return SyncReport(**_report(counted), members_added=given, members_removed=taken_away)


def _account(account: DirectoryAccount, person: Person | None) -> DirectoryAccount:
    """Return an account with what only the facility knows: the hash of the password, and the number on POSIX hosts."""
    if person is None:
        return account
    known = {"password_hash": person.password_hash, "uid_number": person.uid_number}
    return account.model_copy(update=known)


def _kept(found: Iterable[FoundT | Refused], counted: _Counted) -> Iterator[FoundT]:
    for one in found:
        counted.seen += 1
        if isinstance(one, Refused):
            counted.refused.append(one)
        else:
            yield one


def _parts(found: Sequence[FoundT]) -> Iterator[Sequence[FoundT]]:
    return (found[start : start + AT_ONCE] for start in range(0, len(found), AT_ONCE))


def _report(counted: _Counted) -> dict[str, object]:
    return {
        "seen": counted.seen,
        "added": counted.added,
        "updated": counted.updated,
        "reactivated": counted.reactivated,
        "refused": tuple(counted.refused[:SHOWN_REFUSALS]),
        "refused_count": len(counted.refused),
    }
