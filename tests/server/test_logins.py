"""Logging in by a directory, and failing to: real services, a real OpenLDAP, and limits that a restart keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from pydantic import SecretStr

from beamkeeper.client import Client
from beamkeeper.core.authenticators import Authenticators
from beamkeeper.core.passwords import Passwords
from beamkeeper.domain.errors import (
    ConflictError,
    DmError,
    InvalidError,
    NotAuthenticatedError,
    NotPermittedError,
    SettingsError,
    TooManyAttemptsError,
    UnavailableError,
)
from beamkeeper.domain.people import Finding
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewUser, UserChange
from beamkeeper.plugins import load
from beamkeeper.plugins.people import AUTHENTICATORS
from beamkeeper.testing.beamline import Clock
from beamkeeper.testing.services import Running, running
from beamkeeper.testing.slapd import Slapd

PASSWORD = "correct horse"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def site(tmp_path: Path, clock: Clock) -> Iterator[Running]:
    with running(directory=tmp_path, clock=clock) as services:
        yield services


def use(site: Running, authenticators: Authenticators) -> None:
    """Let others check passwords, too."""
    site.contexts[Service.STORAGE].authenticators = authenticators


def by_ldap(site: Running, server: Slapd, **options: object) -> None:
    """Let a directory server check passwords."""
    use(site, Authenticators({"ldap": load.build(AUTHENTICATORS, "ldap", server.options(**options))}))


def refused(client: Client, name: str, password: str) -> DmError:
    with pytest.raises(DmError) as caught:
        client.sessions.login(name, password)
    return caught.value


def test_somebody_of_the_directory_logs_in_with_its_password(site: Running, directory_server: Slapd) -> None:
    directory_server.add_person("ada", PASSWORD, number=1)
    by_ldap(site, directory_server)
    assert isinstance(refused(site.as_(), "ada", PASSWORD), NotAuthenticatedError), "not one of ours"
    site.client.users.create(NewUser(username="ada", source="ldap"))
    ada = site.as_()
    assert ada.sessions.login("ada", PASSWORD).session.username == "ada"
    directory_server.change(directory_server.dn_of("ada"), userPassword="another horse")
    assert isinstance(refused(site.as_(), "ada", PASSWORD), NotAuthenticatedError)
    assert ada.sessions.login("ada", "another horse").session.username == "ada"
    with pytest.raises(ConflictError, match="directory"):
        site.client.users.set_password("ada", PASSWORD)


def test_nobody_gets_into_an_account_that_is_kept_here_by_the_directory(site: Running, directory_server: Slapd) -> None:
    operator = site.bootstrap.operator.session.username
    site.client.users.create(NewUser(username="bob", password=SecretStr("his own password")))
    for name in (operator, "bob"):
        directory_server.add_person(name, PASSWORD, number=1)
    by_ldap(site, directory_server)
    for name in (operator, "bob"):
        assert isinstance(refused(site.as_(), name, PASSWORD), NotAuthenticatedError)
    assert site.as_().sessions.login("bob", "his own password").session.username == "bob"


def test_while_the_directory_is_down_nobody_logs_in_and_sessions_go_on(site: Running, directory_server: Slapd) -> None:
    directory_server.add_person("ada", PASSWORD, number=1)
    by_ldap(site, directory_server, timeout_s=0.3)
    site.client.users.create(NewUser(username="ada", source="ldap"))
    site.client.users.create(NewUser(username="bob", password=SecretStr(PASSWORD)))
    ada = site.as_()
    ada.sessions.login("ada", PASSWORD)
    directory_server.stop()
    stranger = site.as_(tries=1)
    told = {refused(stranger, name, "wrong").message for name in ("ada", "bob", "nobody")}
    assert len(told) == 1, "it is not told who is whose"
    assert isinstance(refused(stranger, "ada", PASSWORD), UnavailableError)
    assert ada.sessions.whoami().user is not None
    assert site.as_().sessions.login("bob", PASSWORD).session.username == "bob", "kept here, so checked here"
    directory_server.start()
    assert site.as_().sessions.login("ada", PASSWORD).session.username == "ada"


class Counting:
    """Counts how often it was asked; knows nobody."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []

    def is_right(self, username: str | None, password: SecretStr) -> bool:
        self.asked.append(username)
        return False

    def findings(self, username: str | None) -> Iterator[Finding]:
        yield Finding(step="ask", is_good=True, words="it answers")


class Unset(Counting):
    """Cannot ask: a setting of its own is wrong."""

    def is_right(self, username: str | None, password: SecretStr) -> bool:
        raise SettingsError("/etc/ldap.password is empty")


def test_who_is_not_logged_in_learns_nothing_of_the_settings(site: Running) -> None:
    use(site, Authenticators({"unset": Unset()}))
    error = refused(site.as_(tries=1), "ada", PASSWORD)
    assert (isinstance(error, UnavailableError), "/etc" in error.message) == (True, False)


def test_the_same_is_done_for_unknown_wrong_and_disabled(site: Running) -> None:
    counting = Counting()
    use(site, Authenticators({"counting": counting}))
    site.client.users.create(NewUser(username="ada", source="ldap"))
    site.client.users.create(NewUser(username="eve", source="ldap"))
    site.client.users.create(NewUser(username="bob", password=SecretStr(PASSWORD)))
    site.client.users.change("eve", UserChange(is_enabled=False))
    names = ("ada", "eve", "bob", "nobody")
    told = {refused(site.as_(), name, "wrong").message.replace(name, "NAME") for name in names}
    assert len(told) == 1
    assert counting.asked == ["ada", None, None, None], "each is asked about; only somebody who may, by name"


def test_too_many_slow_logins_are_refused_and_the_rest_goes_on(site: Running) -> None:
    use(site, Authenticators({"counting": Counting()}, at_once=1))
    with ExitStack() as stack:
        stack.enter_context(site.contexts[Service.STORAGE].authenticators._slot())
        assert isinstance(refused(site.as_(tries=1), "ada", "wrong"), UnavailableError)
        assert site.client.sessions.whoami().user is not None


def test_who_keeps_failing_waits_and_a_restart_forgives_nothing(
    tmp_path: Path, database_url: str, clock: Clock
) -> None:
    with running(directory=tmp_path, url=database_url, clock=clock) as site:
        site.client.users.create(NewUser(username="ada", password=SecretStr(PASSWORD)))
        for name in ("ada", "nobody"):
            errors = [refused(site.as_(), name, "wrong") for _ in range(7)]
            assert [type(error) for error in errors] == [NotAuthenticatedError] * 6 + [TooManyAttemptsError]
        assert errors[-1].details["retry_after_s"] == 1
        assert isinstance(refused(site.as_(), "ada", PASSWORD), TooManyAttemptsError), "even the right one has to wait"
        with site.database.read() as tx:
            kept = tx.session.connection().exec_driver_sql("select count(*) from login_attempts").scalar_one()
        assert kept == 5, "in the database: two names, each from here, and this place"
        clock.tick(1.1)
        assert site.as_().sessions.login("ada", PASSWORD).session.username == "ada"
        assert isinstance(refused(site.as_(), "ada", "wrong"), NotAuthenticatedError), "a success begins anew"


def test_a_hash_of_another_cost_is_replaced_when_its_owner_logs_in(site: Running) -> None:
    site.client.users.create(NewUser(username="ada", password=SecretStr(PASSWORD)))
    dear = Passwords(PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))
    site.contexts[Service.STORAGE].passwords = dear

    def cost() -> str:
        with site.database.read() as tx:
            return str(tx.users.password_hash(tx.users.named("ada").uid)).split("$")[3]

    before = cost()
    assert isinstance(refused(site.as_(), "ada", "wrong"), NotAuthenticatedError)
    assert cost() == before
    site.as_().sessions.login("ada", PASSWORD)
    assert cost() == "m=16,t=2,p=1" != before
    assert site.as_().sessions.login("ada", PASSWORD).session.username == "ada"


def test_a_password_of_megabytes_is_refused_before_anything_is_hashed(site: Running) -> None:
    counting = Counting()
    use(site, Authenticators({"counting": counting}))
    assert isinstance(refused(site.as_(), "ada", "x" * 2_000_000), InvalidError)
    assert counting.asked == []


def test_one_source_that_tries_many_names_waits_and_pauses_are_never_for_good(site: Running, clock: Clock) -> None:
    seen: list[type[DmError]] = [type(refused(site.as_(), f"name{n}", "wrong")) for n in range(55)]
    assert TooManyAttemptsError in seen
    clock.tick(16 * 60)
    assert isinstance(refused(site.as_(), "name0", "wrong"), NotAuthenticatedError), "forgotten after a quiet while"


def test_only_administrators_try_the_connection(site: Running, directory_server: Slapd) -> None:
    by_ldap(site, directory_server)
    site.client.users.create(NewUser(username="ada", password=SecretStr(PASSWORD)))
    ada = site.as_()
    ada.sessions.login("ada", PASSWORD)
    with pytest.raises(NotPermittedError):
        ada.sessions.try_authenticators()
    found = site.client.sessions.try_authenticators()
    assert found
    assert not all(one.is_good for one in found), "there is nobody in that directory"
    assert directory_server.admin_password not in str(found)
