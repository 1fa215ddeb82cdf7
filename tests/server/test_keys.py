"""API keys: what they are for, whose they are, and that they are refused elsewhere, too."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import SecretStr

from beamkeeper.client import Client
from beamkeeper.client.http import Credentials
from beamkeeper.domain.errors import (
    AlreadyExistsError,
    InvalidError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
)
from beamkeeper.domain.experiments import ExperimentChange, NewExperiment
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewKey, NewUser, Role, Scope, UserChange
from beamkeeper.testing.beamline import Clock
from beamkeeper.testing.services import Running, running

PASSWORD = "correct horse"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def site(tmp_path: Path, clock: Clock) -> Iterator[Running]:
    with running(Service.STORAGE, Service.CATALOG, directory=tmp_path, clock=clock) as services:
        yield services


def key(site: Running, clock: Clock, *scopes: Scope, name: str = "robot", **fields: object) -> Client:
    """Make a key of the administrator and return a client that uses it."""
    ends = clock() + timedelta(days=1)
    made = site.client.keys.create(
        NewKey.model_validate({"name": name, "scopes": scopes, "expires_at": ends, **fields})
    )
    return site.as_(made.token)


def experiment(site: Running, name: str = "coffee") -> UUID:
    return site.client.experiments.create(NewExperiment(name=name, station=site.settings.station.name)).uid


def test_a_key_may_what_its_owner_may_of_its_scopes_at_every_service(site: Running, clock: Clock) -> None:
    uid = experiment(site)
    reader, annotator = key(site, clock, Scope.READ), key(site, clock, Scope.ANNOTATE, name="notes")
    for client in (reader, annotator):
        assert client.experiments.get("coffee").name == "coffee"
        with pytest.raises(NotPermittedError):
            client.experiments.update(uid, ExperimentChange(title="tea"))
        with pytest.raises(NotPermittedError):
            client.users.create(NewUser(username="eve"))
    assert reader.files.page(FileQuery(experiment_uid=uid)).items == ()
    with pytest.raises(NotPermittedError):
        annotator.files.page(FileQuery(experiment_uid=uid))
    manager = key(site, clock, Scope.MANAGE, Scope.READ, name="manager")
    assert manager.experiments.update(uid, ExperimentChange(title="tea")).title == "tea"


def test_a_key_is_the_owners_no_more_than_the_owner(site: Running, clock: Clock) -> None:
    uid = experiment(site)
    site.client.users.create(NewUser(username="ada", password=SecretStr(PASSWORD)))
    hers = key(site, clock, *Scope, name="all", username="ada")
    with pytest.raises(NotFoundError):
        hers.experiments.get("coffee")
    site.client.experiments.add_user(uid, "ada", Role.USER)
    assert hers.experiments.get("coffee").name == "coffee"
    site.client.users.change("ada", UserChange(is_enabled=False))
    with pytest.raises(NotAuthenticatedError):
        hers.experiments.get("coffee")


def test_a_key_for_one_experiment_sees_no_other(site: Running, clock: Clock) -> None:
    uid = experiment(site)
    experiment(site, "tea")
    bound = key(site, clock, *Scope, experiment_uid=uid)
    site.client.experiments.add_user(uid, site.bootstrap.operator.session.username, Role.USER)
    assert [one.name for one in bound.experiments.list()] == ["coffee"]


def test_no_key_makes_keys_changes_passwords_or_sees_logins(site: Running, clock: Clock) -> None:
    able = key(site, clock, *(scope for scope in Scope if scope is not Scope.ADMINISTER))
    own = site.bootstrap.operator.session.username
    new = NewKey(name="more", scopes=(Scope.READ,), expires_at=clock() + timedelta(days=1))
    for refused in (
        lambda: able.keys.create(new),
        able.keys.list,
        able.sessions.list,
        able.sessions.logout,
        lambda: able.users.set_password(own, "another one"),
    ):
        with pytest.raises(NotPermittedError):
            refused()
    with pytest.raises(NotFoundError):
        able.keys.revoke(site.client.keys.list()[0].uid)
    with pytest.raises(NotFoundError):
        able.sessions.revoke(site.bootstrap.operator.session.uid)


def test_a_key_ends_by_its_time_and_when_it_is_taken_back_everywhere(site: Running, clock: Clock) -> None:
    experiment(site)
    first, second = key(site, clock, Scope.READ), key(site, clock, Scope.READ, name="other")
    assert {one.name for one in site.client.keys.list()} == {"robot", "other"}
    site.client.keys.revoke(next(one.uid for one in site.client.keys.list() if one.name == "robot"))
    elsewhere = first.http(Service.CATALOG)
    elsewhere.credentials = Credentials(first.credentials.token)
    for ended in (first.sessions.whoami, lambda: elsewhere.get("/api/v1/status", dict)):
        with pytest.raises(NotAuthenticatedError):
            ended()
    assert second.sessions.whoami().user is not None
    clock.tick(24 * 3600)
    with pytest.raises(NotAuthenticatedError):
        second.sessions.whoami()


def test_a_key_is_kept_as_a_hash_and_named_once(site: Running, clock: Clock) -> None:
    used = key(site, clock, Scope.READ)
    token = str(used.credentials.token)
    with site.database.read() as tx:
        rows = tx.session.connection().exec_driver_sql("select * from sessions").all()
    assert not any(token in str(row) for row in rows)
    with pytest.raises(AlreadyExistsError):
        key(site, clock, Scope.READ)
    for days in (-1, 4000):
        wrong = NewKey(name="x", scopes=(Scope.READ,), expires_at=clock() + timedelta(days=days))
        with pytest.raises(InvalidError, match="ends within"):
            site.client.keys.create(wrong)


def test_another_s_key_is_made_by_an_administrator_alone(site: Running, clock: Clock) -> None:
    for name in ("ada", "bob"):
        site.client.users.create(NewUser(username=name, password=SecretStr(PASSWORD)))
    ada = site.as_()
    ada.sessions.login("ada", PASSWORD)
    new = {"name": "x", "scopes": ["read"], "expires_at": clock() + timedelta(days=1)}
    assert ada.keys.create(NewKey.model_validate(new)).key.username == "ada"
    for name in ("bob", "nobody"):
        with pytest.raises(NotPermittedError):
            ada.keys.create(NewKey.model_validate({**new, "username": name}))


def test_a_login_file_of_the_original_logs_in(site: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.client.users.create(NewUser(username="ada", password=SecretStr("a|b correct")))
    file = tmp_path / "login"
    file.touch(mode=0o600)
    file.write_text("ada|a|b correct\n")
    monkeypatch.setenv("DM_LOGIN_FILE", str(file))
    who = site.as_().sessions.whoami().user
    assert who is not None
    assert who.username == "ada"
    assert site.client.sessions.whoami().user != who, "a token that is given goes before it"
    file.chmod(0o640)
    with pytest.raises(InvalidError, match="private"):
        site.as_()
    file.chmod(0o600)
    file.write_text("ada\n")
    with pytest.raises(InvalidError, match=r"user\|password"):
        site.as_()
