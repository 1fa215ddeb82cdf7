"""Why somebody may do something, or may not: the decision of the one function that decides, in words."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from beamkeeper.domain.names import Model, Username
from beamkeeper.domain.users import ROLES_FOR, Action, Caller, Decision, Reason, Role, Target, User, decide

OF_THE_SITE = frozenset(
    action for action, roles in ROLES_FOR.items() if roles <= {Role.ADMINISTRATOR} or action is Action.EXPERIMENT_CREATE
)
"""What is not done on an experiment or a station, and what no person may."""

_WORDS = {
    Reason.OWN: "it is their own account",
    Reason.OPEN: "the experiment is open to everybody who is logged in",
    Reason.BOUND_ELSEWHERE: "the login is for another experiment",
    Reason.OUT_OF_SCOPE: "the API key has no scope for it",
}


class AccessRule(Model):
    """Whether one action is allowed, and why."""

    action: Action
    is_allowed: bool
    why: str


class Access(Model):
    """What somebody may do on an object, and why."""

    username: Username
    object: str = Field(description="The experiment or the station, by its name.")
    rules: Sequence[AccessRule]


def explained(user: User, caller: Caller, target: Target, name: str) -> Access:
    """Return what a user may do on an object; `caller` is the user as a session of theirs would be."""
    rules = [_rule(user, caller, action, target) for action in Action if action not in OF_THE_SITE]
    return Access(username=user.username, object=name, rules=rules)


def _rule(user: User, caller: Caller, action: Action, target: Target) -> AccessRule:
    if not user.is_enabled:
        return AccessRule(action=action, is_allowed=False, why="the account is disabled")
    decision = decide(caller, action, target)
    return AccessRule(action=action, is_allowed=decision.is_allowed, why=_why(decision))


def _why(decision: Decision) -> str:
    roles = ", ".join(role for role in Role if role in decision.roles)
    if decision.reason is Reason.ROLE:
        return f"as {roles}"
    return _WORDS.get(decision.reason) or f"holds no role that may: {roles}"
