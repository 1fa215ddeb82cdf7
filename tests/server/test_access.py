"""Explaining who may do what: it says what the deciding function decides, and only to those who decide on it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from beamkeeper.client import Client
from beamkeeper.core.sessions import begin_session
from beamkeeper.domain.access import Access, AccessRule
from beamkeeper.domain.errors import NotFoundError, NotPermittedError
from beamkeeper.domain.experiments import ExperimentChange, NewExperiment
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import Action, NewGrant, NewUser, Publicity, Role, UserChange
from beamkeeper.testing.services import Running, running


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Running]:
    with running(Service.STORAGE, directory=tmp_path) as services:
        for name in ("ada", "bob"):
            services.client.users.create(NewUser(username=name))
        yield services


@pytest.fixture
def uid(site: Running) -> UUID:
    return site.client.experiments.create(NewExperiment(name="coffee", station=site.settings.station.name)).uid


def session(site: Running, name: str) -> Client:
    user = site.client.users.get(name)
    with site.database.write() as tx:
        return site.as_(begin_session(tx, user, expires_at=tx.now + timedelta(days=1)).token)


def rule(found: Access, action: Action) -> AccessRule:
    return next(one for one in found.rules if one.action is action)


def test_the_role_that_allows_and_the_roles_that_would_are_named(site: Running, uid: UUID) -> None:
    site.client.experiments.add_user(uid, "ada", Role.USER)
    found = site.client.access.on_experiment(uid, "ada")
    assert found.object == 'experiment "coffee"'
    assert rule(found, Action.FILE_READ) == AccessRule(action=Action.FILE_READ, is_allowed=True, why="as user")
    refused = rule(found, Action.EXPERIMENT_UPDATE)
    assert not refused.is_allowed
    assert refused.why == "holds no role that may: administrator, station-manager, pi, manager"


def test_what_changes_the_decision_changes_what_is_said(site: Running, uid: UUID) -> None:
    assert not rule(site.client.access.on_experiment(uid, "bob"), Action.FILE_READ).is_allowed
    site.client.experiments.update(uid, ExperimentChange(publicity=Publicity.FACILITY))
    opened = rule(site.client.access.on_experiment(uid, "bob"), Action.FILE_READ)
    assert opened.is_allowed
    assert "open to everybody" in opened.why
    site.client.users.change("bob", UserChange(is_enabled=False))
    assert rule(site.client.access.on_experiment(uid, "bob"), Action.FILE_READ).why == "the account is disabled"


def test_at_a_station_only_its_own_roles_count(site: Running, uid: UUID) -> None:
    site.client.experiments.add_user(uid, "ada", Role.PI)
    station = site.settings.station.name
    assert not rule(site.client.access.on_station(station, "ada"), Action.SCRUB).is_allowed
    site.client.users.grant(NewGrant(username="ada", role=Role.STATION_MANAGER, station_uid=site.bootstrap.station.uid))
    assert rule(site.client.access.on_station(station, "ada"), Action.SCRUB).why == "as station-manager"


def test_only_who_decides_on_people_is_told_and_of_people_that_there_are(site: Running, uid: UUID) -> None:
    site.client.experiments.add_user(uid, "ada", Role.PI)
    site.client.experiments.add_user(uid, "bob", Role.MANAGER)
    ada, bob = (session(site, name) for name in ("ada", "bob"))
    assert rule(ada.access.on_experiment(uid, "bob"), Action.FILE_DELETE).is_allowed
    with pytest.raises(NotPermittedError):
        bob.access.on_experiment(uid, "ada")
    with pytest.raises(NotPermittedError):
        ada.access.on_station(site.settings.station.name, "bob")
    with pytest.raises(NotFoundError):
        ada.access.on_experiment(uid, "eve")
    with pytest.raises(NotFoundError):
        site.client.access.on_station("NOWHERE", "ada")
