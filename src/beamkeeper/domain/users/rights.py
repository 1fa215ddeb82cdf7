"""The one function that decides who may do what: callers, objects, actions, and the rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from beamkeeper.domain.errors import NotPermittedError
from beamkeeper.domain.names import Uid
from beamkeeper.domain.users.people import EXPERIMENT_ROLES, STATION_ROLES, Grant, OfflineSession, Role, Scope


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
    scopes: frozenset[Scope] | None = None
    """What an API key is for; None is a session, which has no such limit."""
    job_uid: Uid | None = None
    """The job whose command asks, under its own session."""
    offline: OfflineSession | None = None
    """A login at a station that was cut off, which no table has."""

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
    FILE_SHARE = "file:share"
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
    REPLICA_MANAGE = "replica:manage"
    MIRROR_READ = "mirror:read"
    REPLICATE = "replicate"
    COMMAND_COLLECT = "command:collect"
    CATALOG_IMPORT = "catalog:import"
    CATALOG_CHECK = "catalog:check"
    AUDIT_LOG_READ = "audit-log:read"
    WORKFLOW_READ = "workflow:read"
    WORKFLOW_MANAGE = "workflow:manage"
    JOB_READ = "job:read"
    JOB_RUN = "job:run"
    JOB_ANYWHERE = "job:anywhere"
    JOB_SESSION = "job:session"


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
    Action.FILE_SHARE: _LEADERS,
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
    Action.REPLICA_MANAGE: _STATION,
    Action.MIRROR_READ: frozenset(),
    Action.REPLICATE: frozenset(),
    Action.COMMAND_COLLECT: frozenset(),
    Action.CATALOG_IMPORT: _ADMIN,
    Action.CATALOG_CHECK: _STATION,
    Action.AUDIT_LOG_READ: _ADMIN,
    Action.WORKFLOW_READ: _MEMBERS | _STAFF,
    Action.WORKFLOW_MANAGE: _STATION,
    Action.JOB_READ: _MEMBERS | _STAFF,
    Action.JOB_RUN: _MEMBERS,
    Action.JOB_ANYWHERE: _STATION,
    Action.JOB_SESSION: frozenset(),
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
        Action.COMMAND_COLLECT,
        Action.STATION_READ,
        Action.STATION_ANNOUNCE,
        Action.JOB_READ,
        Action.JOB_RUN,
        Action.JOB_SESSION,
    }
)
"""What a service key may do, at its own station only."""

ALLOWED_BY: dict[Scope, frozenset[Action]] = {
    Scope.READ: frozenset(
        {Action.FILE_READ, Action.ACQUISITION_READ, Action.STATION_READ, Action.WORKFLOW_READ, Action.JOB_READ}
    ),
    Scope.ANNOTATE: frozenset({Action.FILE_ANNOTATE}),
    Scope.ACQUIRE: frozenset(
        {
            Action.ACQUISITION_READ,
            Action.ACQUISITION_RUN,
            Action.ACQUISITION_ANYWHERE,
            Action.FILE_PUT,
            Action.HOLD,
        }
    ),
    Scope.PROCESS: frozenset({Action.WORKFLOW_READ, Action.JOB_READ, Action.JOB_RUN, Action.JOB_ANYWHERE}),
    Scope.MANAGE: frozenset(
        {
            Action.EXPERIMENT_CREATE,
            Action.EXPERIMENT_UPDATE,
            Action.EXPERIMENT_DELETE,
            Action.EXPERIMENT_PEOPLE,
            Action.FILE_DELETE,
            Action.FILE_SHARE,
            Action.WORKFLOW_MANAGE,
            Action.STATION_READ,
            Action.STATION_MANAGE,
            Action.STATION_ANNOUNCE,
            Action.USER_READ,
            Action.WIPE,
            Action.SCRUB,
            Action.AUDIT,
            Action.REPLICA_MANAGE,
            Action.CATALOG_CHECK,
        }
    ),
    Scope.ADMINISTER: frozenset(Action) - {Action.USER_CHANGE_OWN},
}
"""What an API key of a scope may be used for, besides seeing experiments; no key changes passwords or makes keys."""

_EVERYBODY_MAY_READ = frozenset({Action.EXPERIMENT_READ, Action.FILE_READ})
_OF_ONESELF = frozenset({Action.USER_READ, Action.USER_CHANGE_OWN})


class Reason(StrEnum):
    """Why something is allowed or refused."""

    OWN = "own"
    ROLE = "role"
    OPEN = "open"
    SERVICE = "service"
    NO_ROLE = "no-role"
    OUT_OF_SCOPE = "out-of-scope"
    BOUND_ELSEWHERE = "bound-elsewhere"
    NOT_OF_SERVICES = "not-of-services"
    OTHER_STATION = "other-station"


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether something is allowed, and why: `roles` are those that allow it, or of which one is wanting."""

    is_allowed: bool
    reason: Reason
    roles: frozenset[Role] = frozenset()


def may(caller: Caller, action: Action, target: Target) -> bool:
    """Decide whether the caller may do it; what no rule allows is refused."""
    return decide(caller, action, target).is_allowed


def decide(caller: Caller, action: Action, target: Target) -> Decision:
    """Decide whether the caller may do it, and say why; what no rule allows is refused."""
    if caller.is_service:
        return _decide_service(caller, action, target)
    if not _is_in_scope(caller, action):
        return Decision(False, Reason.OUT_OF_SCOPE)
    if action in _OF_ONESELF and caller.user_uid is not None and caller.user_uid == target.user_uid:
        return Decision(True, Reason.OWN)
    if roles := ROLES_FOR[action] & caller.roles_on(target):
        return Decision(True, Reason.ROLE, roles)
    bound = caller.bound_experiment_uid
    is_open = target.publicity is not Publicity.PROPRIETARY and not target.is_embargoed
    if bound is None and is_open and action in _EVERYBODY_MAY_READ and caller.user_uid is not None:
        return Decision(True, Reason.OPEN)
    is_elsewhere = bound is not None and bound != target.experiment_uid
    return Decision(False, Reason.BOUND_ELSEWHERE if is_elsewhere else Reason.NO_ROLE, ROLES_FOR[action])


def _decide_service(caller: Caller, action: Action, target: Target) -> Decision:
    if action not in SERVICE_MAY:
        return Decision(False, Reason.NOT_OF_SERVICES)
    is_own = caller.station_uid is not None and target.station_uid == caller.station_uid
    if is_own or action is Action.MIRROR_READ:
        return Decision(True, Reason.SERVICE)
    return Decision(False, Reason.OTHER_STATION)


def _is_in_scope(caller: Caller, action: Action) -> bool:
    if caller.scopes is None:
        return True
    is_always = action is Action.EXPERIMENT_READ and bool(caller.scopes)
    return is_always or any(action in ALLOWED_BY[scope] for scope in caller.scopes)


@dataclass(frozen=True, slots=True)
class Reach:
    """The experiments on which `may` allows an action: all, those of some stations, some, and those open to readers."""

    is_all: bool = False
    stations: frozenset[Uid] = frozenset()
    experiments: frozenset[Uid] = frozenset()
    is_open_included: bool = False
    holder: Uid | None = None
    """Whose roles give `experiments`, so that a query may read them where they are kept; None: nobody's."""
    roles: frozenset[Role] = frozenset()
    """The roles of the holder that count."""


def reach(caller: Caller, action: Action) -> Reach:
    """Return on which experiments the caller may do it: `may` for all of them at once, for queries."""
    if caller.is_service:
        allowed = action in SERVICE_MAY and caller.station_uid is not None
        return Reach(stations=frozenset({caller.station_uid}) if allowed and caller.station_uid else frozenset())
    if not _is_in_scope(caller, action):
        return Reach()
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
        holder=caller.user_uid if experiments else None,
        roles=roles & EXPERIMENT_ROLES,
    )


def require(caller: Caller, action: Action, target: Target, what: str) -> None:
    """Raise unless the caller may do it; `what` names the object in the sentence."""
    if not may(caller, action, target):
        raise NotPermittedError(
            f'{caller.username} may not do "{action}" on {what}: ask a manager of the station for the role',
            action=str(action),
        )
