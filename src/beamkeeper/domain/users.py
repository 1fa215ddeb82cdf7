"""Users, roles and sessions, and the one function that decides who may do what."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from pydantic import Field, SecretStr, StringConstraints

from beamkeeper.domain.errors import NotPermittedError
from beamkeeper.domain.names import Input, Model, Title, Uid, Username, UtcTime


class Role(StrEnum):
    """What somebody is: of the site, of a station, or of an experiment."""

    ADMINISTRATOR = "administrator"
    STATION_MANAGER = "station-manager"
    STATION_VIEWER = "station-viewer"
    PI = "pi"
    MANAGER = "manager"
    USER = "user"


STATION_ROLES = frozenset({Role.STATION_MANAGER, Role.STATION_VIEWER})
EXPERIMENT_ROLES = frozenset({Role.PI, Role.MANAGER, Role.USER})


class User(Model):
    """A person, or an account that a beamline's people share."""

    uid: Uid
    number: int = Field(description="Site-wide integer, for old clients.")
    username: Username
    full_name: Title = ""
    email: Title = ""
    badge: Title = Field(default="", description="The facility's number of the person.")
    is_shared: bool = Field(default=False, description="Shared by several people: a login is bound to one experiment.")
    is_enabled: bool = True
    created_at: UtcTime


Password = Annotated[SecretStr, Field(min_length=8, max_length=1024)]


class NewUser(Input):
    """An account to be made."""

    username: Username
    password: Password | None = None
    full_name: Title = ""
    email: Title = ""
    badge: Title = ""
    is_shared: bool = False
    is_administrator: bool = False


class UserChange(Input):
    """What may be changed of an account; what is left out stays."""

    full_name: Title | None = None
    email: Title | None = None
    badge: Title | None = None
    is_enabled: bool | None = None


class PasswordChange(Input):
    """A new password, with the present one where it is one's own."""

    new: Password
    present: SecretStr | None = None


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
    password: SecretStr
    experiment_uid: Uid | None = None
    experiment: Annotated[str, StringConstraints(max_length=128)] | None = None


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


class Whoami(Model):
    """Who a session belongs to and what it may do."""

    user: User | None
    session: Session | None
    grants: tuple[Grant, ...] = ()
    is_service: bool = False
    station_uid: Uid | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a person with grants, or a service limited to its station."""

    username: str
    user_uid: Uid | None = None
    is_service: bool = False
    station_uid: Uid | None = None
    session_uid: Uid | None = None
    bound_experiment_uid: Uid | None = None
    grants: tuple[Grant, ...] = field(default=())

    @property
    def is_administrator(self) -> bool:
        """Whether the caller administers the site (a session bound to an experiment never does)."""
        return self.bound_experiment_uid is None and any(g.role is Role.ADMINISTRATOR for g in self.grants)

    def roles_on(self, target: Target) -> frozenset[Role]:
        """Return the roles that count for an object."""
        if self.bound_experiment_uid is not None and target.experiment_uid != self.bound_experiment_uid:
            return frozenset()
        bound = self.bound_experiment_uid is not None
        return frozenset(
            g.role
            for g in self.grants
            if (g.role is Role.ADMINISTRATOR and not bound)
            or (
                g.role in STATION_ROLES
                and not bound
                and g.station_uid is not None
                and g.station_uid == target.station_uid
            )
            or (
                g.role in EXPERIMENT_ROLES
                and g.experiment_uid is not None
                and g.experiment_uid == target.experiment_uid
            )
        )


class Publicity(StrEnum):
    """Who may know of an experiment."""

    PROPRIETARY = "proprietary"
    FACILITY = "facility"
    PUBLIC = "public"


@dataclass(frozen=True, slots=True)
class Target:
    """The object of an action, as far as rights depend on it."""

    station_uid: Uid | None = None
    experiment_uid: Uid | None = None
    user_uid: Uid | None = None
    publicity: Publicity = Publicity.PROPRIETARY
    is_embargoed: bool = False


SITE = Target()
"""The site itself."""


class Action(StrEnum):
    """Everything that may be allowed or refused."""

    SITE_ADMINISTER = "site:administer"
    USER_READ = "user:read"
    USER_CHANGE_OWN = "user:change-own"
    STATION_READ = "station:read"
    STATION_MANAGE = "station:manage"
    STATION_ANNOUNCE = "station:announce"
    EXPERIMENT_CREATE = "experiment:create"
    EXPERIMENT_READ = "experiment:read"
    EXPERIMENT_UPDATE = "experiment:update"
    EXPERIMENT_DELETE = "experiment:delete"
    EXPERIMENT_PEOPLE = "experiment:people"
    FILE_READ = "file:read"
    FILE_ANNOTATE = "file:annotate"
    FILE_DELETE = "file:delete"
    FILE_REGISTER = "file:register"
    ACQUISITION_READ = "acquisition:read"
    ACQUISITION_RUN = "acquisition:run"
    ACQUISITION_ANYWHERE = "acquisition:anywhere"
    FILE_PUT = "file:put"
    FILE_VERIFY = "file:verify"
    PUBLISH = "publish"
    STORAGE_CHECK = "storage:check"
    WIPE = "wipe"
    HOLD = "hold"
    SCRUB = "scrub"
    AUDIT = "audit"
    MIRROR_READ = "mirror:read"
    REPLICATE = "replicate"
    CATALOG_IMPORT = "catalog:import"
    CATALOG_CHECK = "catalog:check"


_ADMIN = frozenset({Role.ADMINISTRATOR})
_STATION = _ADMIN | {Role.STATION_MANAGER}
_STAFF = _STATION | {Role.STATION_VIEWER}
_LEADERS = _STATION | {Role.PI, Role.MANAGER}
_MEMBERS = _LEADERS | {Role.USER}

ROLES_FOR: dict[Action, frozenset[Role]] = {
    Action.SITE_ADMINISTER: _ADMIN,
    Action.USER_READ: _ADMIN,
    Action.USER_CHANGE_OWN: _ADMIN,
    Action.STATION_READ: _STAFF,
    Action.STATION_MANAGE: _STATION,
    Action.STATION_ANNOUNCE: _STATION,
    Action.EXPERIMENT_CREATE: _STATION,
    Action.EXPERIMENT_READ: _MEMBERS | _STAFF,
    Action.EXPERIMENT_UPDATE: _LEADERS,
    Action.EXPERIMENT_DELETE: _STATION,
    Action.EXPERIMENT_PEOPLE: _STATION | {Role.PI},
    Action.FILE_READ: _MEMBERS,
    Action.FILE_ANNOTATE: _MEMBERS,
    Action.FILE_DELETE: _LEADERS,
    Action.FILE_REGISTER: frozenset(),
    Action.FILE_VERIFY: frozenset(),
    Action.FILE_PUT: _MEMBERS,
    Action.ACQUISITION_READ: _MEMBERS | _STAFF,
    Action.ACQUISITION_RUN: _MEMBERS,
    Action.ACQUISITION_ANYWHERE: _STATION,
    Action.PUBLISH: frozenset(),
    Action.STORAGE_CHECK: frozenset(),
    Action.WIPE: _STATION,
    Action.HOLD: _MEMBERS,
    Action.SCRUB: _STATION,
    Action.AUDIT: _STATION,
    Action.MIRROR_READ: frozenset(),
    Action.REPLICATE: frozenset(),
    Action.CATALOG_IMPORT: _ADMIN,
    Action.CATALOG_CHECK: _STATION,
}
"""Which roles allow an action; who holds none of them is refused."""

SERVICE_MAY = frozenset(
    {
        Action.EXPERIMENT_READ,
        Action.FILE_READ,
        Action.FILE_REGISTER,
        Action.FILE_VERIFY,
        Action.FILE_ANNOTATE,
        Action.ACQUISITION_READ,
        Action.PUBLISH,
        Action.STORAGE_CHECK,
        Action.MIRROR_READ,
        Action.REPLICATE,
        Action.STATION_READ,
        Action.STATION_ANNOUNCE,
    }
)
"""What a service key may do, at its own station only."""

_EVERYBODY_MAY_READ = frozenset({Action.EXPERIMENT_READ, Action.FILE_READ})


def may(caller: Caller, action: Action, target: Target) -> bool:
    """Decide whether the caller may do it; what no rule allows is refused."""
    if caller.is_service:
        own = caller.station_uid is not None and target.station_uid == caller.station_uid
        return action in SERVICE_MAY and (own or action is Action.MIRROR_READ)
    if action is Action.USER_CHANGE_OWN and caller.user_uid is not None and caller.user_uid == target.user_uid:
        return True
    if action is Action.USER_READ and caller.user_uid is not None and caller.user_uid == target.user_uid:
        return True
    if ROLES_FOR[action] & caller.roles_on(target):
        return True
    is_open = target.publicity is not Publicity.PROPRIETARY and not target.is_embargoed
    unbound = caller.bound_experiment_uid is None
    return unbound and is_open and action in _EVERYBODY_MAY_READ and caller.user_uid is not None


@dataclass(frozen=True, slots=True)
class Reach:
    """The experiments on which `may` allows an action: all, those of some stations, some, and those open to readers."""

    is_all: bool = False
    stations: frozenset[Uid] = frozenset()
    experiments: frozenset[Uid] = frozenset()
    is_open_included: bool = False


def reach(caller: Caller, action: Action) -> Reach:
    """Return on which experiments the caller may do it: `may` for all of them at once, for queries."""
    if caller.is_service:
        allowed = action in SERVICE_MAY and caller.station_uid is not None
        return Reach(stations=frozenset({caller.station_uid}) if allowed and caller.station_uid else frozenset())
    roles, bound = ROLES_FOR[action], caller.bound_experiment_uid
    counting = [grant for grant in caller.grants if grant.role in roles]
    experiments = {g.experiment_uid for g in counting if g.role in EXPERIMENT_ROLES and g.experiment_uid}
    if bound is not None:
        return Reach(experiments=frozenset(experiments & {bound}))
    return Reach(
        is_all=any(grant.role is Role.ADMINISTRATOR for grant in counting),
        stations=frozenset(g.station_uid for g in counting if g.role in STATION_ROLES and g.station_uid),
        experiments=frozenset(experiments),
        is_open_included=action in _EVERYBODY_MAY_READ and caller.user_uid is not None,
    )


def require(caller: Caller, action: Action, target: Target, what: str) -> None:
    """Raise unless the caller may do it; `what` names the object in the sentence."""
    if not may(caller, action, target):
        raise NotPermittedError(
            f'{caller.username} may not do "{action}" on {what}: ask a manager of the station for the role',
            action=str(action),
        )
