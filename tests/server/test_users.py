"""Logging in, accounts, passwords and roles: the real client against the real service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from beamkeeper.client import Client
from beamkeeper.domain.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
)
from beamkeeper.domain.experiments import ExperimentChange, NewExperiment
from beamkeeper.domain.users import NewGrant, NewUser, Role, UserChange
from beamkeeper.testing.beamline import Clock
from beamkeeper.testing.services import Running, running

PASSWORD = "correct horse"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def site(tmp_path: Path, clock: Clock) -> Iterator[Running]:
    with running(directory=tmp_path, clock=clock) as services:
        yield services


def user(site: Running, name: str = "ada", **fields: object) -> Client:
    """Make an account and return a client that is logged in with it."""
    site.client.users.create(NewUser.model_validate({"username": name, "password": PASSWORD, **fields}))
    client = site.as_()
    client.sessions.login(name, PASSWORD)
    return client


def experiment(site: Running, name: str = "coffee", **fields: object) -> NewExperiment:
    new = NewExperiment.model_validate({"name": name, "station": site.settings.station.name, **fields})
    site.client.experiments.create(new)
    return new


def test_accounts_work_on_both_databases(tmp_path: Path, database_url: str) -> None:
    with running(directory=tmp_path, url=database_url) as site:
        ada = user(site, full_name="Ada")
        assert ada.sessions.whoami().user == site.client.users.get("ada")
        assert [one.username for one in site.client.users.list()] == sorted(
            ["ada", site.bootstrap.operator.session.username]
        )
        assert site.client.users.change("ada", UserChange(email="a@b")).email == "a@b"
        for text, count in (("AD", 1), ("a@B", 1), ("%", 0), ("", 2)):
            found = [one for one in site.client.users.page(text=text).items if one.username == "ada" or not text]
            assert len(found) == count, text
        with pytest.raises(AlreadyExistsError):
            user(site)
        with pytest.raises((InvalidError, NotFoundError)):
            site.client.users.get("a\0b")
        ada.sessions.logout()
        with pytest.raises(NotAuthenticatedError, match="dm login"):
            ada.sessions.whoami()


def test_the_first_administrator_is_logged_in_and_has_no_password(site: Running) -> None:
    who = site.client.sessions.whoami()
    assert who.user is not None
    assert [grant.role for grant in who.grants] == [Role.ADMINISTRATOR]
    with pytest.raises(NotAuthenticatedError):
        site.as_().sessions.login(who.user.username, "")
    site.client.users.set_password(who.user.username, PASSWORD)
    assert site.as_().sessions.login(who.user.username, PASSWORD).session.username == who.user.username


def test_a_refused_login_does_not_tell_why(site: Running) -> None:
    user(site)
    user(site, "eve")
    site.client.users.create(NewUser(username="bob"))
    site.client.users.change("eve", UserChange(is_enabled=False))
    told = set()
    for name, password in (("ada", "wrong"), ("bob", "x"), ("eve", PASSWORD), ("nobody", PASSWORD), ("a\0b", PASSWORD)):
        with pytest.raises(NotAuthenticatedError) as caught:
            site.as_().sessions.login(name, password)
        told.add(caught.value.message.replace(f'"{name}"', "NAME"))
    assert len(told) == 1


def test_a_session_ends_when_its_time_is_over(site: Running, clock: Clock) -> None:
    ada = user(site)
    clock.tick(site.settings.storage.session_hours * 3600 - 1)
    assert ada.sessions.whoami().user is not None
    clock.tick(1)
    with pytest.raises(NotAuthenticatedError, match="expired"):
        ada.sessions.whoami()


def test_a_client_with_a_password_logs_in_again_by_itself(site: Running, clock: Clock) -> None:
    user(site)
    ada = site.as_(username="ada", password=PASSWORD)
    assert ada.sessions.whoami().user is not None
    first = ada.credentials.token
    clock.tick(site.settings.storage.session_hours * 3600)
    assert ada.sessions.whoami().user is not None
    assert ada.credentials.token != first
    wrong = site.as_(username="ada", password="wrong")
    with pytest.raises(NotAuthenticatedError, match="do not fit"):
        wrong.sessions.whoami()


@pytest.mark.parametrize("token", ["", "nonsense", "bk_" + "A" * 43, "ö", "x" * 5000])
def test_nobody_is_recognised_by_a_token_that_was_never_given(site: Running, token: str) -> None:
    stranger = site.as_(token)
    with pytest.raises((NotAuthenticatedError, UnicodeEncodeError)):
        stranger.sessions.whoami()


def test_disabling_an_account_ends_its_sessions_and_logins_at_once(site: Running) -> None:
    ada = user(site)
    site.client.users.change("ada", UserChange(is_enabled=False))
    with pytest.raises(NotAuthenticatedError):
        ada.sessions.whoami()
    site.client.users.change("ada", UserChange(is_enabled=True))
    with pytest.raises(NotAuthenticatedError):
        ada.sessions.whoami()
    assert ada.sessions.login("ada", PASSWORD).session.username == "ada"


def test_ones_own_password_needs_the_present_one_and_ends_the_other_sessions(site: Running) -> None:
    ada, elsewhere = user(site), site.as_()
    elsewhere.sessions.login("ada", PASSWORD)
    with pytest.raises(InvalidError, match="present"):
        ada.users.set_password("ada", "another one")
    with pytest.raises(NotPermittedError, match="present password"):
        ada.users.set_password("ada", "another one", present="wrong")
    assert elsewhere.sessions.whoami().user is not None
    ada.users.set_password("ada", "another one", present=PASSWORD)
    assert ada.sessions.whoami().user is not None
    with pytest.raises(NotAuthenticatedError):
        elsewhere.sessions.whoami()
    with pytest.raises(NotAuthenticatedError):
        elsewhere.sessions.login("ada", PASSWORD)
    elsewhere.sessions.login("ada", "another one")


def test_an_administrator_sets_anothers_password_and_nobody_else_does(site: Running) -> None:
    ada, bob = user(site), user(site, "bob")
    with pytest.raises(NotPermittedError):
        bob.users.set_password("ada", "another one")
    site.client.users.set_password("ada", "another one")
    with pytest.raises(NotAuthenticatedError):
        ada.sessions.whoami()
    ada.sessions.login("ada", "another one")
    with pytest.raises(InvalidError, match="8"):
        site.client.users.set_password("ada", "short")


def test_who_is_no_administrator_sees_and_changes_ones_own_account_only(site: Running) -> None:
    ada = user(site)
    user(site, "bob")
    assert ada.users.get("ada").username == "ada"
    assert ada.users.change("ada", UserChange(full_name="Ada")).full_name == "Ada"
    refused: list[Callable[[], object]] = [
        lambda: ada.users.get("bob"),
        lambda: ada.users.get("nobody"),
        lambda: list(ada.users.list()),
        lambda: ada.users.create(NewUser(username="eve")),
        lambda: ada.users.change("bob", UserChange(full_name="x")),
        lambda: ada.users.change("ada", UserChange(badge="1")),
        lambda: ada.users.change("ada", UserChange(is_enabled=False)),
        lambda: ada.users.grant(NewGrant(username="ada", role=Role.ADMINISTRATOR)),
        lambda: ada.users.revoke(NewGrant(username="bob", role=Role.ADMINISTRATOR)),
        lambda: ada.users.grants("bob"),
        lambda: ada.sessions.list("bob"),
    ]
    for act in refused:
        with pytest.raises(NotPermittedError):
            act()


def test_every_route_but_those_that_are_public_refuses_who_is_not_logged_in(site: Running) -> None:
    import httpx2

    opened = set()
    with httpx2.Client(base_url=site.client.url, trust_env=False, timeout=60) as nobody:
        for path, methods in nobody.get("/api/v1/openapi.json").json()["paths"].items():
            filled = path.replace("{", "").replace("}", "").replace("uid", "00000000-0000-7000-8000-000000000000")
            for method in methods:
                if nobody.request(method, filled, json={}).status_code != 401:
                    opened.add((method, path))
    assert opened == {
        ("get", "/health"),
        ("get", "/api/v1/site"),
        ("post", "/api/v1/sessions"),
        ("post", "/api/v1/stations/join"),
        ("get", "/api/v1/shared/{token}/{name}"),
        ("get", "/api/v1/identity-providers"),
        ("post", "/api/v1/identity-providers/{name}/logins"),
        ("post", "/api/v1/identity-providers/{name}/sessions"),
    }


def test_the_site_keeps_an_administrator(site: Running) -> None:
    own = site.bootstrap.operator.session.username
    admin = NewGrant(username=own, role=Role.ADMINISTRATOR)
    with pytest.raises(ConflictError, match="another one first"):
        site.client.users.change(own, UserChange(is_enabled=False))
    with pytest.raises(ConflictError, match="another one first"):
        site.client.users.revoke(admin)
    assert site.client.sessions.whoami().user is not None
    user(site, "eve", is_administrator=True)
    site.client.users.revoke(admin)
    with pytest.raises(NotPermittedError):
        list(site.client.users.list())


def test_roles_of_stations_are_given_where_they_mean_something(site: Running) -> None:
    user(site)
    ada = site.as_()
    ada.sessions.login("ada", PASSWORD)
    station = site.bootstrap.station
    assert ada.stations.list() == []
    viewer = NewGrant(username="ada", role=Role.STATION_VIEWER, station_uid=station.uid)
    site.client.users.grant(viewer)
    assert [one.name for one in ada.stations.list()] == [station.name]
    assert [grant.role for grant in site.client.users.grants("ada")] == [Role.STATION_VIEWER]
    site.client.users.revoke(viewer)
    with pytest.raises(NotFoundError, match="does not hold"):
        site.client.users.revoke(viewer)
    wrong = [
        NewGrant(username="ada", role=Role.STATION_VIEWER),
        NewGrant(username="ada", role=Role.ADMINISTRATOR, station_uid=station.uid),
        NewGrant(username="ada", role=Role.PI, experiment_uid=station.uid),
    ]
    for grant in wrong:
        with pytest.raises(InvalidError):
            site.client.users.grant(grant)
    with pytest.raises(NotFoundError):
        site.client.users.grant(NewGrant(username="nobody", role=Role.ADMINISTRATOR))


def test_a_station_manager_gives_the_viewers_role_and_no_more(site: Running) -> None:
    station = site.bootstrap.station
    manager = user(site)
    user(site, "bob")
    site.client.users.grant(NewGrant(username="ada", role=Role.STATION_MANAGER, station_uid=station.uid))
    manager.users.grant(NewGrant(username="bob", role=Role.STATION_VIEWER, station_uid=station.uid))
    for role in (Role.STATION_MANAGER, Role.ADMINISTRATOR):
        uid = station.uid if role is Role.STATION_MANAGER else None
        with pytest.raises(NotPermittedError):
            manager.users.grant(NewGrant(username="bob", role=role, station_uid=uid))


def test_one_lists_and_ends_ones_own_sessions(site: Running) -> None:
    ada, elsewhere, bob = user(site), site.as_(), user(site, "bob")
    other = elsewhere.sessions.login("ada", PASSWORD).session
    assert {session.uid for session in ada.sessions.list()} > {other.uid}
    with pytest.raises(NotFoundError):
        bob.sessions.revoke(other.uid)
    ada.sessions.revoke(other.uid)
    with pytest.raises(NotAuthenticatedError):
        elsewhere.sessions.whoami()
    assert other.uid not in {session.uid for session in site.client.sessions.list("ada")}


class TestSharedAccounts:
    """Accounts that several people use: a login is for one experiment, and ends with it."""

    @pytest.fixture
    def hutch(self, site: Running) -> Client:
        """Nobody yet, with a shared account, two experiments that it belongs to, and one that it does not."""
        site.client.users.create(NewUser(username="hutch", password=PASSWORD, is_shared=True))
        for name in ("coffee", "tea"):
            made = experiment(site, name)
            site.client.experiments.add_user(site.client.experiments.get(made.name).uid, "hutch")
        experiment(site, "secret")
        return site.as_()

    def test_a_login_is_for_one_experiment_and_sees_nothing_else(self, site: Running, hutch: Client) -> None:
        new = hutch.sessions.login("hutch", PASSWORD, experiment="coffee")
        assert new.session.experiment == "coffee"
        assert [one.name for one in hutch.experiments.list()] == ["coffee"]
        with pytest.raises(NotFoundError):
            hutch.experiments.by_uid(site.client.experiments.get("tea").uid)
        tea = site.client.experiments.get("tea")
        assert hutch.sessions.login("hutch", PASSWORD, experiment_uid=tea.uid).session.experiment_uid == tea.uid

    def test_a_login_must_say_what_for(self, hutch: Client) -> None:
        with pytest.raises(InvalidError, match="--experiment"):
            hutch.sessions.login("hutch", PASSWORD)
        for name in ("secret", "nothing"):
            with pytest.raises(NotFoundError, match="ask its PI"):
                hutch.sessions.login("hutch", PASSWORD, experiment=name)
        with pytest.raises(NotAuthenticatedError):
            hutch.sessions.login("hutch", "wrong", experiment="nothing")

    def test_it_ends_after_twelve_hours_or_with_the_experiment(
        self, site: Running, hutch: Client, clock: Clock
    ) -> None:
        coffee = site.client.experiments.get("coffee")
        expires = hutch.sessions.login("hutch", PASSWORD, experiment="coffee").session.expires_at
        assert expires == clock.now + timedelta(hours=12)
        soon = clock.now + timedelta(hours=1)
        site.client.experiments.update(coffee.uid, ExperimentChange(ends_at=soon))
        assert hutch.sessions.login("hutch", PASSWORD, experiment="coffee").session.expires_at == soon
        site.client.experiments.update(coffee.uid, ExperimentChange(ends_at=clock.now))
        with pytest.raises(NotAuthenticatedError, match="has ended"):
            hutch.sessions.whoami()
        with pytest.raises(NotAuthenticatedError, match="has ended"):
            hutch.sessions.login("hutch", PASSWORD, experiment="coffee")

    def test_it_ends_when_the_experiment_is_deleted(self, site: Running, hutch: Client) -> None:
        hutch.sessions.login("hutch", PASSWORD, experiment="coffee")
        site.client.experiments.delete(site.client.experiments.get("coffee").uid)
        with pytest.raises(NotAuthenticatedError, match="has ended"):
            hutch.sessions.whoami()

    def test_who_uses_it_cannot_lock_the_others_out(self, site: Running, hutch: Client) -> None:
        hutch.sessions.login("hutch", PASSWORD, experiment="coffee")
        with pytest.raises(NotPermittedError, match="administrator"):
            hutch.users.set_password("hutch", "another one", present=PASSWORD)
        other = site.as_()
        session = other.sessions.login("hutch", PASSWORD, experiment="tea").session
        with pytest.raises(NotFoundError):
            hutch.sessions.revoke(session.uid)

    def test_it_holds_roles_in_experiments_only(self, site: Running, hutch: Client) -> None:
        station = site.bootstrap.station
        for role, uid in ((Role.ADMINISTRATOR, None), (Role.STATION_MANAGER, station.uid)):
            with pytest.raises(InvalidError, match="shared"):
                site.client.users.grant(NewGrant(username="hutch", role=role, station_uid=uid))
        with pytest.raises(InvalidError, match="shared"):
            site.client.experiments.add_user(site.client.experiments.get("coffee").uid, "hutch", Role.PI)
        with pytest.raises(InvalidError, match="shared"):
            site.client.users.create(NewUser(username="both", is_shared=True, is_administrator=True))
