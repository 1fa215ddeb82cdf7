"""Logging in by an identity provider: a real one, in the way that portals and devices take."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import SecretStr

from beamkeeper.client import Client
from beamkeeper.core.identity_providers import IdentityProviders
from beamkeeper.domain.audit_log import AuditQuery
from beamkeeper.domain.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
    SettingsError,
    UnavailableError,
)
from beamkeeper.domain.identities import IdentityAnswer, IdentityLogin, LoginKind, NewIdentity, NewIdentityLogin
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewKey, NewSession, NewUser, Role, Scope, UserChange
from beamkeeper.plugins import load
from beamkeeper.plugins.people import IDENTITY_PROVIDERS
from beamkeeper.testing.beamline import Clock
from beamkeeper.testing.oidc import CALLBACK, OidcServer, visit
from beamkeeper.testing.services import Running, running

PASSWORD = SecretStr("correct horse")
CODE = NewIdentityLogin(kind=LoginKind.CODE, redirect_uri=CALLBACK)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def site(tmp_path: Path, clock: Clock, oidc_server: OidcServer) -> Iterator[Running]:
    with running(directory=tmp_path, clock=clock) as services:
        by_oidc(services, oidc_server)
        yield services


@pytest.fixture
def database_site(database_url: str, tmp_path: Path, oidc_server: OidcServer) -> Iterator[Running]:
    with running(directory=tmp_path, url=database_url) as services:
        by_oidc(services, oidc_server)
        yield services


def by_oidc(site: Running, server: OidcServer, **options: object) -> None:
    """Let people log in by a provider."""
    provider = load.build(IDENTITY_PROVIDERS, "oidc", server.options(**options))
    site.contexts[Service.STORAGE].identity_providers = IdentityProviders({"facility": provider})


def answer_of(begun: IdentityLogin, back: dict[str, str] | None = None) -> IdentityAnswer:
    return IdentityAnswer.model_validate({"secret": begun.secret, **(back or {})})


def log_in(client: Client, name: str) -> NewSession:
    """Log in as a portal lets somebody do it."""
    begun = client.identities.begin_login("facility", CODE)
    back = dict(visit(begun.url, login=name))
    session = client.identities.end_login("facility", answer_of(begun, back)).session
    assert session is not None
    return session


def link(site: Running, username: str, name: str) -> None:
    site.client.identities.link(username, NewIdentity(provider="facility", subject=OidcServer.subject(name)))


def test_somebody_whom_an_administrator_linked_logs_in_once_by_each_code(database_site: Running) -> None:
    site = database_site
    site.client.users.create(NewUser(username="lovelace", password=PASSWORD))
    with pytest.raises(NotAuthenticatedError, match="ada-of-the-facility"):
        log_in(site.as_(), "ada")
    link(site, "lovelace", "ada")
    client = site.as_()
    begun = client.identities.begin_login("facility", CODE)
    back = dict(visit(begun.url, login="ada"))
    ended = client.identities.end_login("facility", answer_of(begun, back))
    assert ended.session is not None
    assert ended.session.session.username == "lovelace"
    assert client.sessions.whoami().user is not None
    with pytest.raises(NotAuthenticatedError, match="begin another"):
        site.as_().identities.end_login("facility", answer_of(begun, back))
    query = parse_qs(urlsplit(begun.url).query)
    assert query["code_challenge_method"] == ["S256"]
    with pytest.raises(AlreadyExistsError):
        link(site, site.bootstrap.operator.session.username, "ada")


def test_an_account_of_the_same_name_and_address_is_not_that_person(site: Running, oidc_server: OidcServer) -> None:
    by_oidc(site, oidc_server, create=True)
    for taken in (NewUser(username="ada", password=PASSWORD), NewUser(username="x", email="eve@example.org")):
        site.client.users.create(taken)
    with pytest.raises(ConflictError, match="nothing says that it is"):
        log_in(site.as_(), "ada")
    assert log_in(site.as_(), "eve").session.username == "eve", "and not x, who has this address"


def test_somebody_new_gets_an_account_that_may_nothing_unless_the_settings_say_more(
    site: Running, oidc_server: OidcServer
) -> None:
    by_oidc(site, oidc_server, create=True)
    first = site.as_()
    made = log_in(first, "grace")
    who = first.sessions.whoami()
    assert who.user is not None
    assert (who.user.full_name, who.user.email, who.grants) == ("grace herself", "grace@example.org", ())
    assert log_in(site.as_(), "grace").session.user_uid == made.session.user_uid
    log = [
        entry
        for entry in site.client.audit_log(Service.STORAGE).page(AuditQuery()).items
        if "/sessions" in entry.action
    ]
    assert [(entry.username, entry.result) for entry in log] == [("grace", "done")] * 2
    with pytest.raises(NotAuthenticatedError):
        site.as_().sessions.login("grace", "")
    by_oidc(site, oidc_server, create=True, created_as="station-viewer")
    viewer = site.as_()
    log_in(viewer, "joan")
    assert [grant.role for grant in viewer.sessions.whoami().grants] == [Role.STATION_VIEWER]


def test_what_came_back_counts_for_the_login_that_it_is_of_and_for_a_time(site: Running, clock: Clock) -> None:
    link(site, site.bootstrap.operator.session.username, "eve")
    client = site.as_()
    mine, hers = (client.identities.begin_login("facility", CODE) for _ in range(2))
    back = dict(visit(hers.url, login="eve"))
    for wrong in (back, {**back, "state": "other"}, {"code": back["code"]}, {**back, "iss": "https://other"}):
        with pytest.raises(NotAuthenticatedError):
            client.identities.end_login("facility", answer_of(mine, wrong))
        mine = client.identities.begin_login("facility", CODE)
    clock.tick(660)
    with pytest.raises(NotAuthenticatedError, match="begin another"):
        client.identities.end_login("facility", answer_of(hers, back))
    with pytest.raises(InvalidError, match="redirect_uri"):
        client.identities.begin_login("facility", CODE.model_copy(update={"redirect_uri": "https://evil.example"}))
    with pytest.raises(NotFoundError, match="facility"):
        client.identities.begin_login("nowhere", CODE)


def test_a_device_is_let_in_when_its_person_is_done(site: Running, clock: Clock) -> None:
    link(site, site.bootstrap.operator.session.username, "ada")
    client = site.as_()
    begun = client.identities.begin_login("facility", NewIdentityLogin())
    assert begun.user_code
    assert client.identities.end_login("facility", answer_of(begun)).session is None
    assert visit(begun.url, login="ada") == {}
    assert client.identities.end_login("facility", answer_of(begun)).session is None, "asked again too soon"
    clock.tick(1)
    session = client.identities.end_login("facility", answer_of(begun)).session
    assert session is not None
    assert session.session.username == site.bootstrap.operator.session.username
    with pytest.raises(NotAuthenticatedError, match="begin another"):
        client.identities.end_login("facility", answer_of(begun))


def test_one_links_ones_own_account_and_nobody_elses(database_site: Running) -> None:
    site = database_site
    site.client.users.create(NewUser(username="ada", password=PASSWORD))
    ada, eve = site.as_(), site.as_()
    ada.sessions.login("ada", PASSWORD.get_secret_value())
    begun = ada.identities.begin_link("facility", CODE)
    back = dict(visit(begun.url, login="countess"))
    with pytest.raises(NotAuthenticatedError):
        eve.identities.end_login("facility", answer_of(begun, back))
    with pytest.raises(NotAuthenticatedError):
        site.client.identities.end_link("facility", answer_of(begun, back))
    linked = ada.identities.end_link("facility", answer_of(begun, back)).identity
    assert linked is not None
    assert (linked.username, linked.linked_by) == ("ada", "ada")
    assert log_in(site.as_(), "countess").session.username == "ada"
    assert ada.identities.list("ada") == [linked]
    operator = site.bootstrap.operator.session.username
    with pytest.raises(NotPermittedError):
        ada.identities.list(operator)
    with pytest.raises(NotPermittedError):
        ada.identities.link(operator, NewIdentity(provider="facility", subject="countess"))
    with pytest.raises(NotPermittedError):
        ada.identities.link("ada", NewIdentity(provider="facility", subject="nobody has proved this"))
    ada.identities.unlink("ada", linked.uid)
    with pytest.raises(NotAuthenticatedError, match="nobody here yet"):
        log_in(site.as_(), "countess")


def test_neither_a_key_nor_a_shared_account_is_linked(site: Running, clock: Clock) -> None:
    new = NewKey(name="robot", scopes=(Scope.ADMINISTER,), expires_at=clock() + timedelta(days=1))
    robot = site.as_(site.client.keys.create(new).token)
    operator = site.bootstrap.operator.session.username
    with pytest.raises(NotPermittedError):
        robot.identities.begin_link("facility", CODE)
    with pytest.raises(NotPermittedError):
        robot.identities.link(operator, NewIdentity(provider="facility", subject="eve"))
    site.client.users.create(NewUser(username="hutch", password=PASSWORD, is_shared=True))
    with pytest.raises(InvalidError, match="share"):
        link(site, "hutch", "eve")


def test_a_disabled_account_stays_closed(site: Running) -> None:
    site.client.users.create(NewUser(username="ada"))
    link(site, "ada", "ada")
    site.client.users.change("ada", UserChange(is_enabled=False))
    with pytest.raises(NotAuthenticatedError, match="disabled"):
        log_in(site.as_(), "ada")


def test_while_the_provider_is_down_nobody_logs_in_by_it_and_sessions_go_on(
    site: Running, oidc_server: OidcServer
) -> None:
    site.client.users.create(NewUser(username="ada"))
    link(site, "ada", "ada")
    ada = site.as_()
    log_in(ada, "ada")
    stranger = site.as_(tries=1)
    begun = stranger.identities.begin_login("facility", CODE)
    back = dict(visit(begun.url, login="ada"))
    oidc_server.stop()
    try:
        with pytest.raises(UnavailableError):
            stranger.identities.end_login("facility", answer_of(begun, back))
        with pytest.raises(UnavailableError):
            stranger.identities.begin_login("facility", NewIdentityLogin())
        by_oidc(site, oidc_server)  # as after a start of the service: it knows nothing of the provider
        with pytest.raises(UnavailableError):
            stranger.identities.begin_login("facility", CODE)
        assert not any(finding.is_good for finding in site.client.sessions.try_authenticators())
        assert ada.sessions.whoami().user is not None
    finally:
        oidc_server.start()
    assert log_in(site.as_(), "ada").session.username == "ada"
    assert all(finding.is_good for finding in site.client.sessions.try_authenticators())


def test_the_secret_of_the_client_is_a_private_file(oidc_server: OidcServer, tmp_path: Path) -> None:
    secret = tmp_path / "client.secret"
    secret.write_text("secret")
    secret.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        load.build(IDENTITY_PROVIDERS, "oidc", oidc_server.options(client_secret_file=str(secret)))


@pytest.mark.parametrize(
    "wrong", [{"issuer": "http://idp.example.org"}, {"algorithms": ["none"]}, {"algorithms": ["HS256"]}]
)
def test_settings_that_anybody_could_forge_a_login_with_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        load.build(IDENTITY_PROVIDERS, "oidc", {"issuer": "https://idp.example.org", "client_id": "x", **wrong})
