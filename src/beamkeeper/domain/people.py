"""A facility's people and proposals as its own databases have them, and what a sync made of them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

from pydantic import Field, SecretStr, StringConstraints

from beamkeeper.domain.names import Input, Model, Title, Uid, Username, UtcTime

Number = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$")]
"""A proposal's or form's own number, as people write it."""


class Finding(Model):
    """How one step of a test of a connection went."""

    step: str
    is_good: bool
    words: str


class AuthenticatorFinding(Finding):
    """A step of a test of one authenticator."""

    authenticator: str


class Refused(Model):
    """An entry of a facility's database that we cannot take over, and why."""

    what: str
    why: str


class RefusedPerson(Refused):
    """An entry of somebody who is there, with something in it that we cannot take over: they have not left."""

    username: Username


class Person(Model):
    """Somebody as the facility knows them."""

    username: Username
    full_name: Title = ""
    email: Title = ""
    badge: Title = ""
    institution: Title = ""
    is_active: bool = True
    password_hash: SecretStr | None = Field(
        default=None, description="As the facility gives it, such as {SSHA}...; kept in a directory server only."
    )
    uid_number: int | None = Field(default=None, ge=1, le=2**32 - 2, description="The person's number on POSIX hosts.")


class ProposalKind(StrEnum):
    """Which of a facility's papers it is."""

    GUP = "gup"
    ESAF = "esaf"


class Participant(Model):
    """Somebody on a proposal, by username or by badge."""

    username: Title = ""
    badge: Title = ""
    is_pi: bool = False


class Proposal(Model):
    """A general user proposal or a safety form, with its people and dates."""

    kind: ProposalKind
    number: Number
    title: Title = ""
    starts_at: UtcTime | None = None
    ends_at: UtcTime | None = None
    people: tuple[Participant, ...] = ()


class ProposalQuery(Input):
    """Which proposals and forms are wanted, by number."""

    text: Annotated[str, StringConstraints(max_length=200)] | None = Field(
        default=None, description="Part of the number or the title, in either case."
    )
    kind: ProposalKind | None = None
    number: Number | None = None
    after: str | None = Field(default=None, description="The `next` of the page before.")
    limit: int = Field(default=100, ge=1, le=1000)


class ProposalPage(Model):
    """Some proposals by number, and the cursor that continues the list."""

    items: tuple[Proposal, ...]
    next: str | None = None


class DirectoryAccount(Model):
    """An account as a directory server that we maintain is to have it."""

    username: Username
    number: int
    full_name: Title = ""
    email: Title = ""
    badge: Title = ""
    institution: Title = ""
    is_enabled: bool = True
    password_hash: SecretStr | None = None
    uid_number: int | None = None


class AccountsKept(Model):
    """What was changed in a directory server."""

    added: int = 0
    updated: int = 0
    closed: int = 0
    refused: tuple[Refused, ...] = ()


class SyncKind(StrEnum):
    """What is taken over."""

    USERS = "users"
    PROPOSALS = "proposals"


class SyncState(StrEnum):
    """Where a sync stands."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


class NewSync(Input):
    """A sync that is wanted; asked for again under the same uid it is the same one."""

    uid: Uid
    kind: SyncKind
    to_ldap: bool = Field(default=False, description="Maintain the accounts of the site's directory server as well.")
    may_leave: int | None = Field(
        default=None, ge=0, le=10**7, description="How many may be deactivated this once, whatever the settings say."
    )


class SyncReport(Model):
    """What a sync did."""

    seen: int = 0
    added: int = 0
    updated: int = 0
    deactivated: int = 0
    reactivated: int = 0
    held_back: int = Field(default=0, description="Gone there, and not deactivated here: more than the cap allows.")
    members_added: int = 0
    members_removed: int = 0
    accounts: AccountsKept | None = None
    refused: tuple[Refused, ...] = ()
    refused_count: int = 0


class Sync(Model):
    """A sync, and what it did."""

    uid: Uid
    kind: SyncKind
    state: SyncState
    to_ldap: bool = False
    message: str = ""
    report: SyncReport | None = None
    created_at: UtcTime
    ended_at: UtcTime | None = None


class SyncPage(Model):
    """Some syncs, newest first, and the cursor that continues the list."""

    items: tuple[Sync, ...]
    next: str | None = None


SHOWN_REFUSALS = 100
"""So many refused entries are named in a report; all are counted."""


def cap_on_leaving(managed: int, *, percent: float, at_least: int) -> int:
    """Return how many may be deactivated by one sync: a share of those that are managed, and some always."""
    return max(at_least, int(managed * percent / 100))


def union(proposals: Iterable[Proposal]) -> dict[tuple[str, str], bool]:
    """Return everybody of several papers, as (username, badge), and whether they are PI of one."""
    found: dict[tuple[str, str], bool] = {}
    for proposal in proposals:
        for person in proposal.people:
            key = (person.username, person.badge)
            found[key] = found.get(key, False) or person.is_pi
    return found
