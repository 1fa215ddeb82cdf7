"""The plugin Protocols for people: who checks passwords, and where a facility's people and proposals are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Protocol, runtime_checkable

from pydantic import SecretStr

from beamkeeper.domain.groups import DirectoryLook, GroupAnswer, GroupChange
from beamkeeper.domain.identities import Begun, CreatedAs, IdentityAnswer, LoginKind, NewIdentityLogin, Proven, Waiting
from beamkeeper.domain.people import AccountsKept, DirectoryAccount, Finding, Person, Proposal, Refused
from beamkeeper.plugins.api import Options

AUTHENTICATORS = "beamkeeper.authenticators"
DIRECTORIES = "beamkeeper.directories"
PROPOSALS = "beamkeeper.proposals"
ACCOUNTS = "beamkeeper.accounts"
GROUP_KEEPERS = "beamkeeper.group_keepers"
IDENTITY_PROVIDERS = "beamkeeper.identity_providers"
PEOPLE_GROUPS = (AUTHENTICATORS, DIRECTORIES, PROPOSALS, ACCOUNTS, GROUP_KEEPERS, IDENTITY_PROVIDERS)


@runtime_checkable
class Authenticator(Protocol):
    """Checks passwords that are kept elsewhere.

    Called from several threads at once, in the middle of a login: it must answer within seconds. Where it cannot
    tell, it raises UnavailableError, and never answers that a password is wrong. It keeps no password.
    """

    def is_right(self, username: str | None, password: SecretStr) -> bool:
        """Whether this is the password of somebody.

        None is nobody: as much work is done as for anybody, and the answer is no. So is it for an empty password,
        and for a name that cannot be one.
        """
        ...

    def findings(self, username: str | None) -> Iterator[Finding]:
        """Try the connection step by step and say in words how each went; with a name, whether that is known."""
        ...


class AuthenticatorFactory(Protocol):
    """What the entry point of an authenticator names: a class with an options model, built once a process."""

    options: ClassVar[type[Options]]
    summary: ClassVar[str]

    def __call__(self, options: Options) -> Authenticator:
        """Build the authenticator from its validated options."""
        ...


@runtime_checkable
class UserDirectory(Protocol):
    """Where a facility keeps its people.

    Called by one thread at a time, and again for each sync. Everybody whom it does not give is taken to have left:
    what cannot be read to its end must raise UnavailableError, not end early.
    """

    def people(self) -> Iterator[Person | Refused]:
        """Yield everybody; an entry that is no person is given as Refused, and hinders no other.

        Where such an entry says who it is, it is a RefusedPerson, who is not taken to have left.
        """
        ...


class DirectoryFactory(Protocol):
    """What the entry point of a directory names: a class with an options model."""

    options: ClassVar[type[Options]]
    summary: ClassVar[str]

    def __call__(self, options: Options) -> UserDirectory:
        """Build the directory from its validated options."""
        ...


@runtime_checkable
class ProposalSource(Protocol):
    """Where a facility keeps its proposals (GUPs) and safety forms (ESAFs), with their people.

    Called as a UserDirectory is, and held to the same: all of them, or UnavailableError.
    """

    def proposals(self) -> Iterator[Proposal | Refused]:
        """Yield every proposal and every form; an entry that is none is given as Refused."""
        ...


class ProposalFactory(Protocol):
    """What the entry point of a source of proposals names: a class with an options model."""

    options: ClassVar[type[Options]]
    summary: ClassVar[str]

    def __call__(self, options: Options) -> ProposalSource:
        """Build the source from its validated options."""
        ...


@runtime_checkable
class AccountKeeper(Protocol):
    """A directory server whose accounts we maintain, at a site that has none of its own."""

    def keep(self, accounts: Iterable[DirectoryAccount]) -> AccountsKept:
        """Add and update these accounts, and close those that are not enabled; remove none.

        Doing it twice changes nothing. Raises UnavailableError where the server does not answer.
        """
        ...


class AccountKeeperFactory(Protocol):
    """What the entry point of an account keeper names: a class with an options model."""

    options: ClassVar[type[Options]]
    summary: ClassVar[str]

    def __call__(self, options: Options) -> AccountKeeper:
        """Build the keeper from its validated options."""
        ...


@runtime_checkable
class GroupKeeper(Protocol):
    """A directory server that has a group for each experiment, from which hosts take who may read its files.

    Called by one thread. Raises UnavailableError where the server does not answer; what is then half done is done
    again, which must change nothing that is right already. No group is ever removed.
    """

    has_gids: bool
    """Whether its groups have numbers of their own; else hosts number them."""

    def look(self, names: Collection[str], usernames: Collection[str]) -> DirectoryLook:
        """Return the groups of these names, and what stands for these usernames, as far as they are there."""
        ...

    def bring(self, changes: Sequence[GroupChange]) -> Sequence[GroupAnswer]:
        """Make and change groups, and say of each what came of it; one that cannot be changed hinders no other.

        A new group whose number belongs to something else is not made, and answered as taken.
        """
        ...


class GroupKeeperFactory(Protocol):
    """What the entry point of a group keeper names: a class with an options model."""

    options: ClassVar[type[Options]]
    summary: ClassVar[str]

    def __call__(self, options: Options) -> GroupKeeper:
        """Build the keeper from its validated options."""
        ...


@runtime_checkable
class IdentityProvider(Protocol):
    """Vouches for who somebody is; we see no password.

    Called from several threads at once, with no transaction open: it must answer within seconds. Where it cannot
    tell, it raises UnavailableError; where the proof does not hold, NotAuthenticatedError.
    """

    title: str
    issuer: str
    creates: bool
    """Whether somebody whom we do not know gets an account."""
    created_as: CreatedAs

    def begin(self, wanted: NewIdentityLogin) -> Begun:
        """Begin a login, and say where the person goes."""
        ...

    def finish(self, kind: LoginKind, secrets: Mapping[str, str], answer: IdentityAnswer) -> Proven | Waiting:
        """Say who proved to be whom, by the secrets of the beginning."""
        ...

    def findings(self) -> Iterator[Finding]:
        """Try the provider step by step, and say in words how each went."""
        ...


class IdentityProviderFactory(Protocol):
    """What the entry point of an identity provider names: a class with an options model, built once a process."""

    options: ClassVar[type[Options]]
    summary: ClassVar[str]

    def __call__(self, options: Options) -> IdentityProvider:
        """Build the provider from its validated options."""
        ...
