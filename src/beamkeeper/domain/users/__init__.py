"""Users, roles and sessions, and the one function that decides who may do what."""

from beamkeeper.domain.users.jobs import EndedJobs as EndedJobs
from beamkeeper.domain.users.jobs import JobSession as JobSession
from beamkeeper.domain.users.jobs import JobSessions as JobSessions
from beamkeeper.domain.users.jobs import NewJobSession as NewJobSession
from beamkeeper.domain.users.jobs import NewJobSessions as NewJobSessions
from beamkeeper.domain.users.keys import ApiKey as ApiKey
from beamkeeper.domain.users.keys import MadeKey as MadeKey
from beamkeeper.domain.users.keys import NewKey as NewKey
from beamkeeper.domain.users.people import EXPERIMENT_ROLES as EXPERIMENT_ROLES
from beamkeeper.domain.users.people import OFFLINE_PREFIX as OFFLINE_PREFIX
from beamkeeper.domain.users.people import SESSIONS_KEPT as SESSIONS_KEPT
from beamkeeper.domain.users.people import STATION_ROLES as STATION_ROLES
from beamkeeper.domain.users.people import Grant as Grant
from beamkeeper.domain.users.people import Login as Login
from beamkeeper.domain.users.people import NewGrant as NewGrant
from beamkeeper.domain.users.people import NewSession as NewSession
from beamkeeper.domain.users.people import NewUser as NewUser
from beamkeeper.domain.users.people import OfflineLogin as OfflineLogin
from beamkeeper.domain.users.people import OfflineSession as OfflineSession
from beamkeeper.domain.users.people import Password as Password
from beamkeeper.domain.users.people import PasswordChange as PasswordChange
from beamkeeper.domain.users.people import Role as Role
from beamkeeper.domain.users.people import Scope as Scope
from beamkeeper.domain.users.people import Session as Session
from beamkeeper.domain.users.people import SessionRecord as SessionRecord
from beamkeeper.domain.users.people import User as User
from beamkeeper.domain.users.people import UserChange as UserChange
from beamkeeper.domain.users.people import UserPage as UserPage
from beamkeeper.domain.users.people import Whoami as Whoami
from beamkeeper.domain.users.rights import ALLOWED_BY as ALLOWED_BY
from beamkeeper.domain.users.rights import ROLES_FOR as ROLES_FOR
from beamkeeper.domain.users.rights import SERVICE_MAY as SERVICE_MAY
from beamkeeper.domain.users.rights import SITE as SITE
from beamkeeper.domain.users.rights import Action as Action
from beamkeeper.domain.users.rights import Caller as Caller
from beamkeeper.domain.users.rights import Decision as Decision
from beamkeeper.domain.users.rights import Publicity as Publicity
from beamkeeper.domain.users.rights import Reach as Reach
from beamkeeper.domain.users.rights import Reason as Reason
from beamkeeper.domain.users.rights import Target as Target
from beamkeeper.domain.users.rights import decide as decide
from beamkeeper.domain.users.rights import may as may
from beamkeeper.domain.users.rights import reach as reach
from beamkeeper.domain.users.rights import require as require

__all__ = [
    "ALLOWED_BY",
    "EXPERIMENT_ROLES",
    "OFFLINE_PREFIX",
    "ROLES_FOR",
    "SERVICE_MAY",
    "SESSIONS_KEPT",
    "SITE",
    "STATION_ROLES",
    "Action",
    "ApiKey",
    "Caller",
    "Decision",
    "EndedJobs",
    "Grant",
    "JobSession",
    "JobSessions",
    "Login",
    "MadeKey",
    "NewGrant",
    "NewJobSession",
    "NewJobSessions",
    "NewKey",
    "NewSession",
    "NewUser",
    "OfflineLogin",
    "OfflineSession",
    "Password",
    "PasswordChange",
    "Publicity",
    "Reach",
    "Reason",
    "Role",
    "Scope",
    "Session",
    "SessionRecord",
    "Target",
    "User",
    "UserChange",
    "UserPage",
    "Whoami",
    "decide",
    "may",
    "reach",
    "require",
]
