"""Accounts, the roles that they hold, and their sessions."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field, SecretStr, StringConstraints

from beamkeeper.domain.names import Input, Model, Title, Uid, Username, UtcTime


class Role(StrEnum):
    """What somebody is: of the site, of a station, or of an experiment."""

    ADMINISTRATOR = "administrator"
    STATION_MANAGER = "station-manager"
    STATION_VIEWER = "station-viewer"
    PI = "pi"
    MANAGER = "manager"
    USER = "user"


SESSIONS_KEPT = timedelta(days=7)
"""Sessions that expired so long ago are removed: nobody can tell them from tokens that never were."""

STATION_ROLES = frozenset({Role.STATION_MANAGER, Role.STATION_VIEWER})
EXPERIMENT_ROLES = frozenset({Role.PI, Role.MANAGER, Role.USER})


class Scope(StrEnum):
    """What an API key may be used for, of what its owner may."""

    READ = "read"
    ANNOTATE = "annotate"
    ACQUIRE = "acquire"
    PROCESS = "process"
    MANAGE = "manage"
    ADMINISTER = "administer"


class User(Model):
    """A person, or an account that a beamline's people share."""

    uid: Uid
    number: int = Field(description="Site-wide integer, for old clients.")
    username: Username
    full_name: Title = ""
    email: Title = ""
    badge: Title = Field(default="", description="The facility's number of the person.")
    institution: Title = ""
    source: str = Field(default="", description="The directory that the account comes from; empty if it is kept here.")
    is_shared: bool = Field(default=False, description="Shared by several people: a login is bound to one experiment.")
    is_enabled: bool = True
    created_at: UtcTime
    password_changed_at: UtcTime | None = Field(
        default=None, description="When its password here was set last; null where it has none here."
    )


Password = Annotated[SecretStr, Field(min_length=8, max_length=1024)]


class NewUser(Input):
    """An account to be made."""

    username: Username
    password: Password | None = None
    full_name: Title = ""
    email: Title = ""
    badge: Title = ""
    institution: Title = ""
    source: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = Field(
        default="", description="The directory that it is of, where its password is checked; empty if it is kept here."
    )
    is_shared: bool = False
    is_administrator: bool = False


class UserChange(Input):
    """What may be changed of an account; what is left out stays."""

    full_name: Title | None = None
    email: Title | None = None
    badge: Title | None = None
    institution: Title | None = None
    is_enabled: bool | None = None


class PasswordChange(Input):
    """A new password, with the present one where it is one's own."""

    new: Password
    present: Annotated[SecretStr, Field(max_length=1024)] | None = None


class UserPage(Model):
    """Some accounts by name, and the cursor that continues the list."""

    items: tuple[User, ...]
    next: str | None = None


class Grant(Model):
    """A role that a user holds: of the site, or of the station or experiment named."""

    user_uid: Uid
    role: Role
    station_uid: Uid | None = None
    experiment_uid: Uid | None = None


class NewGrant(Input):
    """A role to be given or taken away: of the site, of a station, or of an experiment."""

    username: Username
    role: Role
    station_uid: Uid | None = None
    experiment_uid: Uid | None = None


class Login(Input):
    """A login; on an account that is shared, `experiment_uid` or the experiment's name says what for."""

    username: Annotated[str, StringConstraints(max_length=256)]
    password: Annotated[SecretStr, Field(max_length=1024)]
    experiment_uid: Uid | None = None
    experiment: Annotated[str, StringConstraints(max_length=128)] | None = None


OFFLINE_PREFIX = "bk_offline."
"""How the token of a login at a station that was cut off begins; secret scanners can look for it."""


class OfflineLogin(Input):
    """The password that was just logged in with: a station makes a verifier of it, for when it is cut off."""

    password: Annotated[SecretStr, Field(max_length=1024)]
    proof: Annotated[SecretStr, Field(max_length=256)] = Field(
        description="The `password_proof` of the login: of no other password, and by nobody else, a verifier is made."
    )


class Session(Model):
    """A login that holds until it expires or is revoked."""

    uid: Uid
    user_uid: Uid
    username: Username
    experiment_uid: Uid | None = Field(default=None, description="The only experiment that it may touch, if bound.")
    experiment: str | None = Field(default=None, description="The name of that experiment.")
    created_at: UtcTime
    expires_at: UtcTime


class NewSession(Model):
    """The answer to a login; the token is shown once and kept by us only as a hash."""

    session: Session
    token: str = Field(repr=False)
    password_proof: str = Field(
        default="", repr=False, description="Shows a station which password was right; told this once, of a password."
    )


class SessionRecord(Model):
    """A session as the mirror carries it: by the hash of its token."""

    uid: Uid
    token_sha256: str
    user_uid: Uid | None = None
    station_uid: Uid | None = Field(default=None, description="Set on a service key: the station that it acts for.")
    experiment_uid: Uid | None = None
    created_at: UtcTime
    expires_at: UtcTime | None = None
    revoked_at: UtcTime | None = None
    name: str = Field(default="", description="What an API key is called.")
    scopes: tuple[Scope, ...] | None = Field(default=None, description="What an API key is for; None is a session.")
    password_mark: str | None = Field(
        default=None, repr=False, description="What the password and the proof of a login make; nothing without both."
    )


class OfflineSession(Model):
    """A login at a station that is cut off, as its token carries it under the seal of the station."""

    uid: Uid
    user_uid: Uid
    password_changed_at: UtcTime | None
    created_at: UtcTime
    expires_at: UtcTime


class Whoami(Model):
    """Who a session belongs to and what it may do."""

    user: User | None
    session: Session | None
    grants: tuple[Grant, ...] = ()
    is_service: bool = False
    station_uid: Uid | None = None
