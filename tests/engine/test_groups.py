"""Groups of experiments in a real directory server, which follow who belongs to an experiment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamkeeper.db.groups import Settled
from beamkeeper.domain.audit_log import AuditEntry, AuditQuery
from beamkeeper.domain.errors import InvalidError, NotFoundError
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.groups import ExperimentGroup, GroupState, check_group_name, group_name
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewUser, Role, UserChange
from beamkeeper.engine.groups import OURSELVES, GroupLoop, Keeping
from beamkeeper.plugins import load
from beamkeeper.plugins.people import GROUP_KEEPERS
from beamkeeper.testing.services import Running, running
from beamkeeper.testing.slapd import Slapd
from beamkeeper.testing.station import until

FIRST = 70000
PEOPLE = ("ada", "bob", "eve")
KINDS = ("posixGroup", "groupOfNames")


def keeping(server: Slapd, kind: str = "posixGroup") -> Keeping:
    for number, username in enumerate(PEOPLE):
        server.add_person(username, "correct horse", number=50001 + number)
    keeper = load.build(GROUP_KEEPERS, "ldap", server.options(group_class=kind))
    return Keeping(keeper, "bk-{experiment}", first_gid=FIRST, last_gid=FIRST + 5)


@contextmanager
def site_of(kept: Keeping, place: Path, url: str | None = None) -> Iterator[Running]:
    """A site with some people, whose storage service keeps groups."""
    with running(directory=place, url=url) as site:
        for username in PEOPLE:
            site.client.users.create(NewUser(username=username))
        loop = GroupLoop(site.database, kept, report=lambda _: None)
        loop.start()
        try:
            yield site
        finally:
            loop.stop()
            loop.join()


def make(site: Running, name: str, *members: str) -> Experiment:
    made = site.client.experiments.create(NewExperiment(name=name, station=site.settings.station.name))
    for username in members:
        site.client.experiments.add_user(made.uid, username)
    return made


def kept_group(site: Running, experiment: Experiment) -> ExperimentGroup | None:
    try:
        return site.client.groups.get(experiment.uid, wait_s=5)
    except NotFoundError:
        return None


def members(server: Slapd, name: str) -> set[str]:
    """Return who is in a group, by the server's own word, however it names them."""
    import ldap

    try:
        found = server.read(f"cn={name},{server.groups_dn}")
    except ldap.NO_SUCH_OBJECT:
        return {"no such group"}
    values = found.get("memberUid", []) + found.get("member", [])
    return {value.split(",")[0].removeprefix("uid=") for value in values} - {f"cn={name}"}


def noted(site: Running) -> list[AuditEntry]:
    """Return what was changed in the directory, newest first, by the audit log."""
    rows = site.client.audit_log(Service.STORAGE).find(AuditQuery(action="KEEP GROUPS"), most=100)
    return list(rows)


def holds(server: Slapd, name: str, *usernames: str) -> None:
    until(lambda: members(server, name) == set(usernames), f"{usernames} in {name}", 15)


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_follows_who_belongs_to_its_experiment(directory_server: Slapd, tmp_path: Path, kind: str) -> None:
    with site_of(keeping(directory_server, kind), tmp_path) as site:
        coffee, tea = make(site, "coffee", "ada", "bob"), make(site, "tea", "eve")
        holds(directory_server, "bk-coffee", "ada", "bob")
        holds(directory_server, "bk-tea", "eve")
        site.client.experiments.remove_user(coffee.uid, "bob")
        holds(directory_server, "bk-coffee", "ada")
        site.client.experiments.add_user(coffee.uid, "eve", Role.PI)
        holds(directory_server, "bk-coffee", "ada", "eve")
        site.client.users.change("ada", UserChange(is_enabled=False))
        holds(directory_server, "bk-coffee", "eve")
        site.client.experiments.delete(tea.uid)
        holds(directory_server, "bk-tea")
        found = until(lambda: kept_group(site, coffee), "a group")
        assert (found.name, found.state) == ("bk-coffee", GroupState.SAME)
        assert found.gid == (FIRST if kind == "posixGroup" else None)


def test_a_membership_is_in_the_audit_log_as_it_came_to_the_directory(
    postgres_url: str, directory_server: Slapd, tmp_path: Path
) -> None:
    with site_of(keeping(directory_server), tmp_path, postgres_url) as site:
        make(site, "coffee", "ada")
        holds(directory_server, "bk-coffee", "ada")
        until(lambda: any("ada" in str(change.after) for one in noted(site) for change in one.changes), "a row")
        assert not site.client.audit_log(Service.STORAGE).check().faults


def test_who_was_never_of_the_experiment_is_told_of_and_taken_out_only_by_policy(
    directory_server: Slapd, tmp_path: Path
) -> None:
    kept = keeping(directory_server)
    with site_of(kept, tmp_path) as site:
        coffee = make(site, "coffee", "ada")
        holds(directory_server, "bk-coffee", "ada")
        directory_server.change(f"cn=bk-coffee,{directory_server.groups_dn}", memberUid=["globus", "ada", "bob"])
        found = site.client.groups.compare(coffee.uid)
        assert found.state is GroupState.DIFFERENT
        assert found.difference.foreign == ("bob", "globus")
        assert members(directory_server, "bk-coffee") == {"ada", "bob", "globus"}
        assert [one.name for one in site.client.groups.list(is_differing=True)] == ["bk-coffee"]
        repaired = site.client.groups.compare(coffee.uid, is_repair=True)
        assert repaired.state is GroupState.SAME
        assert members(directory_server, "bk-coffee") == {"ada"}
        assert noted(site)[0].username != OURSELVES, "who asked for it is named"
        assert noted(site)[-1].username == OURSELVES


def test_a_repair_that_is_asked_for_during_a_comparison_is_done_by_the_next(tmp_path: Path) -> None:
    with running(directory=tmp_path) as site:
        uid, groups = make(site, "coffee").uid, site.database
        with groups.write() as tx:
            tx.groups.name_new("bk-{experiment}")
            began = tx.now
        with groups.write() as tx:
            tx.groups.ask([uid], by="ada", is_repair=True)
        with groups.write() as tx:
            tx.groups.ask([uid], by="bob")
        for is_left in (True, False):
            with groups.write() as tx:
                tx.groups.settle(Settled(uid, GroupState.SAME, FIRST), began=began)
                due = tx.groups.due(every=timedelta(0), limit=1)
                began = tx.now
            assert [(one.is_repair, one.asked_by) for one in due] == [(True, "ada")] * is_left


def test_a_policy_takes_out_whoever_was_put_in_there(directory_server: Slapd, tmp_path: Path) -> None:
    with site_of(replace(keeping(directory_server), is_foreign_removed=True), tmp_path) as site:
        coffee = make(site, "coffee", "ada")
        holds(directory_server, "bk-coffee", "ada")
        directory_server.change(f"cn=bk-coffee,{directory_server.groups_dn}", memberUid=["ada", "bob"])
        assert site.client.groups.compare(coffee.uid).state is GroupState.SAME
        assert members(directory_server, "bk-coffee") == {"ada"}


def test_what_others_changed_there_is_put_right_by_the_next_comparison(directory_server: Slapd, tmp_path: Path) -> None:
    with site_of(replace(keeping(directory_server), every=timedelta(seconds=0.3)), tmp_path) as site:
        make(site, "coffee", "ada", "bob")
        holds(directory_server, "bk-coffee", "ada", "bob")
        directory_server.change(f"cn=bk-coffee,{directory_server.groups_dn}", memberUid=["bob"])
        holds(directory_server, "bk-coffee", "ada", "bob")
        directory_server.remove(f"cn=bk-coffee,{directory_server.groups_dn}")
        holds(directory_server, "bk-coffee", "ada", "bob")


def test_a_directory_that_is_down_holds_nobody_up_and_is_caught_up_with(
    directory_server: Slapd, tmp_path: Path
) -> None:
    with site_of(keeping(directory_server), tmp_path) as site:
        coffee = make(site, "coffee", "ada")
        holds(directory_server, "bk-coffee", "ada")
        directory_server.stop()
        site.client.experiments.add_user(coffee.uid, "bob")
        found = site.client.groups.compare(coffee.uid)
        assert found.state is GroupState.FAILED
        assert "does not answer" in found.message
        directory_server.start()
        holds(directory_server, "bk-coffee", "ada", "bob")


def test_a_group_of_somebody_else_and_a_number_in_use_are_left_alone(directory_server: Slapd, tmp_path: Path) -> None:
    kept = keeping(directory_server)
    for name, gid in (("bk-coffee", FIRST + 99), ("staff", FIRST)):
        directory_server.add(
            f"cn={name},{directory_server.groups_dn}", objectClass="posixGroup", cn=name, gidNumber=str(gid)
        )
    with site_of(kept, tmp_path) as site:
        coffee, tea = make(site, "coffee", "ada"), make(site, "tea", "bob")
        holds(directory_server, "bk-tea", "bob")
        found = until(lambda: kept_group(site, tea), "a group")
        assert found.gid == FIRST + 1
        refused = until(lambda: kept_group(site, coffee), "a group")
        assert refused.state is GroupState.FAILED
        assert "not of ours" in refused.message
        assert members(directory_server, "bk-coffee") == set()


def test_groups_that_others_make_are_filled_and_their_numbers_taken_over(
    directory_server: Slapd, tmp_path: Path
) -> None:
    directory_server.add(
        f"cn=bk-coffee,{directory_server.groups_dn}",
        objectClass="posixGroup",
        cn=["BK-Coffee", "a-name-of-old"],
        gidNumber="81234",
    )
    with site_of(replace(keeping(directory_server), first_gid=0), tmp_path) as site:
        coffee, tea = make(site, "coffee", "ada"), make(site, "tea", "ada")
        holds(directory_server, "bk-coffee", "ada")
        assert site.client.groups.compare(coffee.uid).gid == 81234
        assert "have it made" in site.client.groups.compare(tea.uid).message


def test_people_without_an_account_there_and_shared_accounts_are_in_no_group(
    directory_server: Slapd, tmp_path: Path
) -> None:
    kept = keeping(directory_server)
    directory_server.add_person("hutch", "correct horse", number=50009)
    with site_of(kept, tmp_path) as site:
        site.client.users.create(NewUser(username="ghost"))
        site.client.users.create(NewUser(username="hutch", is_shared=True))
        coffee = make(site, "coffee", "ada", "ghost", "hutch")
        holds(directory_server, "bk-coffee", "ada")
        found = site.client.groups.compare(coffee.uid)
        assert found.difference.unknown == ("ghost",)


def test_of_two_entries_with_one_username_neither_is_put_into_a_group(directory_server: Slapd, tmp_path: Path) -> None:
    kept = keeping(directory_server, "groupOfNames")
    below = f"ou=left,{directory_server.people_dn}"
    directory_server.add(below, objectClass="organizationalUnit", ou="left")
    other = {"cn": "another bob", "sn": "bob", "uidNumber": "50010", "gidNumber": "100", "homeDirectory": "/home/other"}
    directory_server.add(f"uid=bob,{below}", objectClass=["inetOrgPerson", "posixAccount"], uid="bob", **other)
    with site_of(kept, tmp_path) as site:
        coffee = make(site, "coffee", "ada", "bob")
        holds(directory_server, "bk-coffee", "ada")
        assert site.client.groups.compare(coffee.uid).difference.unknown == ("bob",)


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True)


@given(st.lists(NAMES, min_size=1, max_size=20, unique=True))
def test_every_experiment_has_a_name_that_hosts_take_and_that_is_its_own(experiments: list[str]) -> None:
    taken: list[str] = []
    for number, name in enumerate(experiments, start=1):
        made = group_name("bk-{experiment}", experiment=name, station="7-BM", number=number, taken=taken)
        assert len(made) <= 32
        assert made.replace("-", "").replace("_", "").isalnum()
        assert made == made.lower()
        taken.append(made)
    assert len(set(taken)) == len(experiments)


def test_a_number_at_the_end_of_a_name_may_be_taken_as_well() -> None:
    taken = ["bk-x", "bk-x-12"]
    assert group_name("bk-{experiment}", experiment="X", station="S", number=12, taken=taken) == "bk-x-12-2"


@pytest.mark.parametrize("template", ["bk", "bk-{station}", "{person}-{experiment}", "bk-{experiment", "-{experiment}"])
def test_a_template_that_cannot_name_groups_is_refused(template: str) -> None:
    with pytest.raises(InvalidError):
        check_group_name(template)
