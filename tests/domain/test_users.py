"""Who may do what: the whole matrix of roles and actions, and its two forms held against each other."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamkeeper.domain.errors import NotPermittedError
from beamkeeper.domain.users import (
    ALLOWED_BY,
    EXPERIMENT_ROLES,
    SITE,
    STATION_ROLES,
    Action,
    Caller,
    Grant,
    Publicity,
    Reason,
    Role,
    Scope,
    Target,
    decide,
    may,
    reach,
    require,
)

ME, SOMEBODY = UUID(int=1), UUID(int=2)
OWN_STATION, OTHER_STATION = UUID(int=11), UUID(int=12)
OWN, OTHER = UUID(int=21), UUID(int=22)
OWN_TARGET = Target(station_uid=OWN_STATION, experiment_uid=OWN)
OTHER_TARGET = Target(station_uid=OTHER_STATION, experiment_uid=OTHER)

MATRIX = {
    #                                 admin  station-m  station-v  pi     manager  user
    Action.SITE_ADMINISTER:          "yes    no         no         no     no       no",
    Action.USER_READ:                "yes    no         no         no     no       no",
    Action.USER_CHANGE_OWN:          "yes    no         no         no     no       no",
    Action.STATION_READ:             "yes    yes        yes        no     no       no",
    Action.STATION_MANAGE:           "yes    yes        no         no     no       no",
    Action.STATION_ANNOUNCE:         "yes    yes        no         no     no       no",
    Action.EXPERIMENT_CREATE:        "yes    yes        no         no     no       no",
    Action.EXPERIMENT_READ:          "yes    yes        yes        yes    yes      yes",
    Action.EXPERIMENT_UPDATE:        "yes    yes        no         yes    yes      no",
    Action.EXPERIMENT_DELETE:        "yes    yes        no         no     no       no",
    Action.EXPERIMENT_PEOPLE:        "yes    yes        no         yes    no       no",
    Action.FILE_READ:                "yes    yes        no         yes    yes      yes",
    Action.FILE_ANNOTATE:            "yes    yes        no         yes    yes      yes",
    Action.FILE_DELETE:              "yes    yes        no         yes    yes      no",
    Action.FILE_SHARE:               "yes    yes        no         yes    yes      no",
    Action.FILE_REGISTER:            "no     no         no         no     no       no",
    Action.FILE_VERIFY:              "no     no         no         no     no       no",
    Action.FILE_PUT:                 "yes    yes        no         yes    yes      yes",
    Action.ACQUISITION_READ:         "yes    yes        yes        yes    yes      yes",
    Action.ACQUISITION_RUN:          "yes    yes        no         yes    yes      yes",
    Action.ACQUISITION_ANYWHERE:     "yes    yes        no         no     no       no",
    Action.PUBLISH:                  "no     no         no         no     no       no",
    Action.STORAGE_CHECK:            "no     no         no         no     no       no",
    Action.WIPE:                     "yes    yes        no         no     no       no",
    Action.HOLD:                     "yes    yes        no         yes    yes      yes",
    Action.AUDIT_LOG_READ:           "yes    no         no         no     no       no",
    Action.SCRUB:                    "yes    yes        no         no     no       no",
    Action.AUDIT:                    "yes    yes        no         no     no       no",
    Action.REPLICA_MANAGE:                    "yes    yes        no         no     no       no",
    Action.MIRROR_READ:              "no     no         no         no     no       no",
    Action.REPLICATE:                "no     no         no         no     no       no",
    Action.COMMAND_COLLECT:          "no     no         no         no     no       no",
    Action.CATALOG_IMPORT:           "yes    no         no         no     no       no",
    Action.CATALOG_CHECK:            "yes    yes        no         no     no       no",
    Action.AUDIT_LOG_READ:           "yes    no         no         no     no       no",
    Action.WORKFLOW_READ:            "yes    yes        yes        yes    yes      yes",
    Action.WORKFLOW_MANAGE:          "yes    yes        no         no     no       no",
    Action.JOB_READ:                 "yes    yes        yes        yes    yes      yes",
    Action.JOB_RUN:                  "yes    yes        no         yes    yes      yes",
    Action.JOB_ANYWHERE:             "yes    yes        no         no     no       no",
    Action.JOB_SESSION:              "no     no         no         no     no       no",
}  # fmt: skip
"""On an experiment of one's own station: what each role may do. On everything else only an administrator may."""

ROLES = (Role.ADMINISTRATOR, Role.STATION_MANAGER, Role.STATION_VIEWER, Role.PI, Role.MANAGER, Role.USER)
SERVICE_MAY = {
    Action.STATION_READ,
    Action.STATION_ANNOUNCE,
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
    Action.JOB_READ,
    Action.JOB_RUN,
    Action.COMMAND_COLLECT,
    Action.JOB_SESSION,
}


def grant(role: Role) -> Grant:
    return Grant(
        user_uid=ME,
        role=role,
        station_uid=OWN_STATION if role in STATION_ROLES else None,
        experiment_uid=OWN if role in EXPERIMENT_ROLES else None,
    )


def person(*roles: Role, bound: UUID | None = None) -> Caller:
    return Caller("me", user_uid=ME, grants=tuple(map(grant, roles)), bound_experiment_uid=bound)


def test_the_matrix_names_every_action() -> None:
    assert set(MATRIX) == set(Action)


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("role", ROLES)
def test_a_role_allows_what_the_matrix_says_where_it_is_held_and_nothing_elsewhere(role: Role, action: Action) -> None:
    allowed = MATRIX[action].split()[ROLES.index(role)] == "yes"
    assert may(person(role), action, OWN_TARGET) is allowed
    assert may(person(role), action, OTHER_TARGET) is (allowed and role is Role.ADMINISTRATOR)
    assert may(person(role), action, SITE) is (allowed and role is Role.ADMINISTRATOR)


@pytest.mark.parametrize("action", Action)
def test_who_holds_no_role_may_do_nothing(action: Action) -> None:
    assert not may(person(), action, OWN_TARGET)
    assert not may(Caller("nobody"), action, OWN_TARGET)
    with pytest.raises(NotPermittedError, match="station X"):
        require(person(), action, OWN_TARGET, "station X")


@pytest.mark.parametrize("action", Action)
def test_a_service_acts_at_its_own_station_only(action: Action) -> None:
    service = Caller("station", is_service=True, station_uid=OWN_STATION)
    assert may(service, action, OWN_TARGET) is (action in SERVICE_MAY)
    assert may(service, action, OTHER_TARGET) is (action is Action.MIRROR_READ)


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("role", ROLES)
def test_a_session_bound_to_an_experiment_has_its_roles_there_and_no_others(role: Role, action: Action) -> None:
    is_of_experiment = role in EXPERIMENT_ROLES
    assert may(person(role, bound=OWN), action, OWN_TARGET) is (
        is_of_experiment and may(person(role), action, OWN_TARGET)
    )
    assert not may(person(role, bound=OTHER), action, OWN_TARGET)
    assert not may(person(role, bound=OWN), Action.SITE_ADMINISTER, SITE)


def test_one_reads_and_changes_ones_own_account_and_no_other() -> None:
    for action in (Action.USER_READ, Action.USER_CHANGE_OWN):
        assert may(person(), action, Target(user_uid=ME))
        assert not may(person(), action, Target(user_uid=SOMEBODY))
        assert not may(Caller("nobody"), action, Target())


@pytest.mark.parametrize("scope", Scope)
def test_a_key_does_what_its_scope_and_its_owner_allow_and_never_more(scope: Scope) -> None:
    keyed = replace(person(Role.ADMINISTRATOR), scopes=frozenset({scope}))
    within = ALLOWED_BY[scope] | {Action.EXPERIMENT_READ}
    for action in Action:
        assert may(keyed, action, OWN_TARGET) is (
            may(person(Role.ADMINISTRATOR), action, OWN_TARGET) and action in within
        )
        assert not may(replace(keyed, scopes=frozenset()), action, OWN_TARGET)
    assert not may(keyed, Action.USER_CHANGE_OWN, Target(user_uid=ME))
    assert may(replace(person(Role.USER), scopes=frozenset({scope})), Action.FILE_READ, OWN_TARGET) is (
        scope in (Scope.READ, Scope.ADMINISTER)
    )


def test_a_decision_says_which_role_allows_and_which_would_have() -> None:
    allowed = decide(person(Role.PI, Role.STATION_VIEWER), Action.FILE_READ, OWN_TARGET)
    assert (allowed.reason, allowed.roles) == (Reason.ROLE, frozenset({Role.PI}))
    refused = decide(person(Role.USER), Action.EXPERIMENT_PEOPLE, OWN_TARGET)
    assert (refused.reason, refused.roles) == (
        Reason.NO_ROLE,
        frozenset({Role.ADMINISTRATOR, Role.STATION_MANAGER, Role.PI}),
    )
    assert decide(person(Role.USER, bound=OTHER), Action.FILE_READ, OWN_TARGET).reason is Reason.BOUND_ELSEWHERE


@pytest.mark.parametrize("publicity", Publicity)
@pytest.mark.parametrize("is_embargoed", [False, True])
def test_what_is_open_may_be_read_by_everybody_who_is_logged_in_and_changed_by_none(
    publicity: Publicity, is_embargoed: bool
) -> None:
    target = Target(OTHER_STATION, OTHER, publicity=publicity, is_embargoed=is_embargoed)
    is_open = publicity is not Publicity.PROPRIETARY and not is_embargoed
    allowed = {action for action in Action if may(person(), action, target)}
    assert allowed == ({Action.EXPERIMENT_READ, Action.FILE_READ} if is_open else set())
    assert not may(person(bound=OWN), Action.FILE_READ, target)
    assert not may(Caller("nobody"), Action.FILE_READ, target)


callers = st.one_of(
    st.builds(
        lambda roles, bound: person(*roles, bound=bound),
        st.lists(st.sampled_from(ROLES), max_size=3),
        st.sampled_from([None, OWN, OTHER]),
    ),
    st.builds(
        lambda roles, scopes: replace(person(*roles), scopes=scopes),
        st.lists(st.sampled_from(ROLES), min_size=1, max_size=3),
        st.frozensets(st.sampled_from(Scope), max_size=2),
    ),
    st.builds(
        lambda station: Caller("station", is_service=True, station_uid=station),
        st.sampled_from([OWN_STATION, OTHER_STATION, None]),
    ),
    st.just(Caller("nobody")),
)
targets = st.builds(
    Target,
    station_uid=st.sampled_from([OWN_STATION, OTHER_STATION]),
    experiment_uid=st.sampled_from([OWN, OTHER]),
    publicity=st.sampled_from(Publicity),
    is_embargoed=st.booleans(),
)


@given(callers, st.sampled_from(sorted(set(Action) - {Action.MIRROR_READ})), targets)
def test_reach_holds_exactly_the_experiments_on_which_may_allows_the_action(
    caller: Caller, action: Action, target: Target
) -> None:
    reached = reach(caller, action)
    is_open = target.publicity is not Publicity.PROPRIETARY and not target.is_embargoed
    is_within = (
        reached.is_all
        or target.station_uid in reached.stations
        or target.experiment_uid in reached.experiments
        or (reached.is_open_included and is_open)
    )
    assert is_within is may(caller, action, target)
