"""Logging in at a station that is cut off: who may, with which password, where it counts, and what ends it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from beamkeeper.client import Client
from beamkeeper.client.logins import Logins, Profile
from beamkeeper.core.offline_tokens import key_of, opened, sealed
from beamkeeper.domain.audit_log import AuditQuery
from beamkeeper.domain.errors import (
    ConflictError,
    NotAuthenticatedError,
    NotPermittedError,
    TooManyAttemptsError,
    UnavailableError,
)
from beamkeeper.domain.experiments import NewExperiment
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.status import Service, StationServices
from beamkeeper.domain.users import NewUser, Role, UserChange
from beamkeeper.testing.beamline import Clock
from beamkeeper.testing.services import Running, running

STATION, NOWHERE, HOUR = "8ID", "http://127.0.0.1:1", 3600.0
PASSWORD = "a long enough password"
SERVICES = (Service.ACQUISITION, Service.CATALOG, Service.PROCESSING)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def settings(*, offline_login: bool = True) -> dict[str, object]:
    return {"station": {"name": STATION, "offline_login": offline_login}, "storage": {"session_hours": 240.0}}


@pytest.fixture
def site(tmp_path: Path, clock: Clock) -> Iterator[Running]:
    with running(*SERVICES, directory=tmp_path, clock=clock, settings=settings()) as services:
        yield services


def person(site: Running, name: str, *, is_shared: bool = False) -> Client:
    """Return somebody who has just logged in at the site."""
    site.client.users.create(NewUser(username=name, password=SecretStr(PASSWORD), is_shared=is_shared))
    client = site.as_()
    if not is_shared:
        client.sessions.login(name, PASSWORD)
    return client


def cut_off(site: Running) -> Client:
    """Return the client of somebody who is at the station, and cannot reach the site."""
    logins = Logins(site.directory / "cut.json")
    urls = {"catalog": site.urls[Service.CATALOG], "acquisition": site.urls[Service.ACQUISITION]}
    services = StationServices(name=STATION, processing=site.urls[Service.PROCESSING], **urls)
    logins.put("default", Profile(url=NOWHERE, stations=(services,)))
    return site.stack.enter_context(Client(NOWHERE, logins=logins, station=STATION, tries=1))


def test_who_logged_in_here_before_does_so_while_the_site_is_away(site: Running, clock: Clock) -> None:
    made = site.client.experiments.create(NewExperiment(name="coffee", station=STATION))
    ada = person(site, "ada")
    site.client.experiments.add_user(made.uid, "ada", Role.PI)
    assert ada.sessions.prepare_offline(PASSWORD)
    with pytest.raises(UnavailableError, match="not cut off"):
        cut_off(site).sessions.login("ada", PASSWORD)
    clock.tick(60)
    client = cut_off(site)
    new = client.sessions.login("ada", PASSWORD)
    assert new.session.expires_at == clock() + timedelta(hours=12)
    who = client.sessions.whoami()
    assert (who.user and who.user.username, [grant.role for grant in who.grants]) == ("ada", [Role.PI])
    assert client.experiments.get("coffee").uid == made.uid
    for ask in (lambda: list(client.files.find(FileQuery())), client.daqs.list, client.jobs.list):
        assert list(ask()) == []  # each service of the station knows the login
    with pytest.raises(NotAuthenticatedError, match="of a station that was cut off"):
        site.as_(new.token).sessions.whoami()  # and the site does not


def test_nobody_logs_in_with_another_password_or_without_having_been_here(site: Running, clock: Clock) -> None:
    assert person(site, "ada").sessions.prepare_offline(PASSWORD)
    person(site, "bea")
    clock.tick(60)
    client = cut_off(site)
    told = set()
    for name, password in (("ada", "another password"), ("bea", PASSWORD), ("nobody", PASSWORD)):
        with pytest.raises(NotAuthenticatedError) as refused:
            client.sessions.login(name, password)
        told.add(refused.value.message.replace(name, "X"))
    assert len(told) == 1
    for _ in range(4):
        with pytest.raises(NotAuthenticatedError):
            client.sessions.login("ada", "another password")
    with pytest.raises(NotAuthenticatedError):
        client.sessions.login("ada", "another password")
    with pytest.raises(TooManyAttemptsError):
        client.sessions.login("ada", "another password")
    assert client.credentials.token is None


def test_what_is_heard_of_the_site_counts_for_who_logged_in_without_it(site: Running, clock: Clock) -> None:
    names = ("ada", "bea", "cia")
    for name in names:
        assert person(site, name).sessions.prepare_offline(PASSWORD)
    clock.tick(60)
    clients = {name: cut_off(site) for name in names}
    for name, client in clients.items():
        client.sessions.login(name, PASSWORD)
    site.client.users.set_password("ada", "another long password")  # the link is back: the station hears of these
    site.client.users.change("bea", UserChange(is_enabled=False))
    refused = []
    for name, client in clients.items():
        try:
            client.sessions.whoami()
        except NotAuthenticatedError:
            refused.append(name)
    assert refused == ["ada", "bea"]
    clock.tick(60)  # cut off again
    for name in ("ada", "bea"):
        with pytest.raises(NotAuthenticatedError):
            cut_off(site).sessions.login(name, PASSWORD)
    cut_off(site).sessions.login("cia", PASSWORD)


def test_a_login_without_the_site_ends_and_none_begins_after_the_grace(site: Running, clock: Clock) -> None:
    assert person(site, "ada").sessions.prepare_offline(PASSWORD)
    clock.tick(13 * HOUR)
    client = cut_off(site)
    client.sessions.login("ada", PASSWORD)
    clock.tick(10 * HOUR)
    assert client.sessions.whoami().user
    clock.tick(1.5 * HOUR)
    with pytest.raises(NotAuthenticatedError, match="cut off from the site since"):
        client.sessions.whoami()
    with pytest.raises(NotAuthenticatedError, match="cut off from the site since"):
        cut_off(site).sessions.login("ada", PASSWORD)
    site.client.users.create(NewUser(username="bea"))  # of which the station hears
    clock.tick(HOUR)
    with pytest.raises(NotAuthenticatedError, match="expired"):
        client.sessions.whoami()


def test_a_login_is_prepared_by_people_who_have_just_logged_in_and_by_nobody_else(site: Running, clock: Clock) -> None:
    ada, shared = person(site, "ada"), person(site, "hutch", is_shared=True)
    made = site.client.experiments.create(NewExperiment(name="coffee", station=STATION))
    site.client.experiments.add_user(made.uid, "hutch", Role.USER)
    shared.sessions.login("hutch", PASSWORD, experiment="coffee")
    for client in (shared, site.as_service()):
        with pytest.raises(NotPermittedError):
            client.sessions.prepare_offline(PASSWORD)
    assert ada.sessions.prepare_offline(PASSWORD)
    clock.tick(660)
    with pytest.raises(NotPermittedError, match="when you log in"):
        ada.sessions.prepare_offline("what a thief of the session would like")
    stolen = cut_off(site)
    stolen.sessions.login("ada", PASSWORD)
    with pytest.raises(NotPermittedError):
        stolen.sessions.prepare_offline("what a thief of the session would like")


def test_a_verifier_is_made_of_the_password_that_the_site_has_accepted_and_for_who_gave_it(
    site: Running, clock: Clock
) -> None:
    ada = person(site, "ada")
    for thief in (ada, site.as_(ada.credentials.token)):  # with the login alone, or with all that its owner was told
        with pytest.raises(NotPermittedError, match="accepted no such password"):
            thief.sessions.prepare_offline("what a thief of the session would like")
    with pytest.raises(NotPermittedError, match="accepted no such password"):
        site.as_(ada.credentials.token).sessions.prepare_offline(PASSWORD)
    clock.tick(60)
    with pytest.raises(NotAuthenticatedError):
        cut_off(site).sessions.login("ada", "what a thief of the session would like")
    assert ada.sessions.prepare_offline(PASSWORD)
    clock.tick(60)
    cut_off(site).sessions.login("ada", PASSWORD)


def test_a_station_lets_nobody_in_without_the_site_unless_its_settings_say_so(tmp_path: Path, clock: Clock) -> None:
    with running(*SERVICES, directory=tmp_path, clock=clock, settings=settings(offline_login=False)) as site:
        assert not person(site, "ada").sessions.prepare_offline(PASSWORD)
        clock.tick(60)
        with pytest.raises(UnavailableError, match=r"station\.offline_login turns that on"):
            cut_off(site).sessions.login("ada", PASSWORD)


def test_a_token_that_others_sealed_or_changed_opens_nothing(site: Running, clock: Clock) -> None:
    assert person(site, "ada").sessions.prepare_offline(PASSWORD)
    clock.tick(60)
    token = cut_off(site).sessions.login("ada", PASSWORD).token
    key = key_of(site.bootstrap.service_key)
    login = opened(token, key)
    later = login.model_copy(update={"expires_at": login.expires_at + timedelta(days=9)})
    forged = sealed(later, key).rpartition(".")[0] + "." + token.rpartition(".")[2]
    for bad in (forged, sealed(login, key_of("another key")), token[:-1], "bk_offline.", "bk_offline.e30.00"):
        with pytest.raises(NotAuthenticatedError):
            opened(bad, key)
        client = cut_off(site)
        client.credentials.token = bad
        with pytest.raises(NotAuthenticatedError):
            client.sessions.whoami()


def test_preparing_a_login_keeps_the_password_from_the_audit_log(site: Running) -> None:
    assert person(site, "ada").sessions.prepare_offline(PASSWORD)
    entries = list(site.client.audit_log(Service.ACQUISITION).find(AuditQuery(), most=10))
    assert [entry.action for entry in entries] == ["PUT /offline-login"]
    assert "argon2" not in str(entries)
    with pytest.raises(ConflictError):
        site.as_().http(Service.ACQUISITION).call(
            "POST", "/api/v1/offline-sessions", body={"username": "ada", "password": PASSWORD}
        )
