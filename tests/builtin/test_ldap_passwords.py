"""Passwords of a directory server: a real OpenLDAP, slow and dead as well, and never anything without TLS."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from beamkeeper.builtin.ldap import MOST_LATE, LdapOptions
from beamkeeper.builtin.ldap_passwords import LdapAuthenticator
from beamkeeper.domain.errors import SettingsError, UnavailableError
from beamkeeper.plugins import load
from beamkeeper.plugins.people import AUTHENTICATORS, Authenticator
from beamkeeper.testing.conformance_people import ADA, PASSWORD, AuthenticatorConformance
from beamkeeper.testing.servers import free_port
from beamkeeper.testing.slapd import Slapd
from beamkeeper.testing.station import until


def built(server: Slapd, **options: object) -> LdapAuthenticator:
    """Return the plugin as settings would have it; ada is known."""
    return LdapAuthenticator(LdapOptions.model_validate(server.options(**options)))


@pytest.fixture
def server(directory_server: Slapd) -> Slapd:
    directory_server.add_person(ADA, PASSWORD, number=12345)
    return directory_server


class TestStartTls(AuthenticatorConformance):
    @pytest.fixture
    def authenticator(self, server: Slapd) -> Authenticator:
        return built(server)


class TestLdaps(AuthenticatorConformance):
    @pytest.fixture
    def authenticator(self, server: Slapd) -> Authenticator:
        return built(server, urls=[server.ldaps_url])


def test_the_server_itself_takes_an_empty_password_for_a_bind_as_nobody(server: Slapd) -> None:
    """So the tests above try what they say: this server does what careless servers do."""
    import ldap

    plain = ldap.initialize(server.url)
    plain.simple_bind_s("", "ignored")
    assert plain.whoami_s() == ""


def test_a_password_changed_meanwhile_counts_at_once(server: Slapd) -> None:
    checked = built(server)
    assert checked.is_right(ADA, SecretStr(PASSWORD))
    server.change(server.dn_of(ADA), userPassword="another horse")
    assert not checked.is_right(ADA, SecretStr(PASSWORD))
    assert checked.is_right(ADA, SecretStr("another horse"))


def test_a_name_that_two_entries_have_is_nobodys(server: Slapd) -> None:
    server.add(f"ou=guests,{server.people_dn}", objectClass="organizationalUnit", ou="guests")
    fields: dict[str, str | list[str]] = {
        "objectClass": ["inetOrgPerson", "posixAccount"],
        "cn": ADA,
        "sn": ADA,
        "uid": ADA,
        "gidNumber": "1",
    }
    server.add(
        f"uid={ADA},ou=guests,{server.people_dn}",
        **fields,
        uidNumber="99",
        homeDirectory="/",
        userPassword=PASSWORD,
    )
    assert not built(server).is_right(ADA, SecretStr(PASSWORD))


def test_an_account_without_a_password_lets_nobody_in(server: Slapd) -> None:
    server.change(server.dn_of(ADA), userPassword=[])
    assert not built(server).is_right(ADA, SecretStr(PASSWORD))
    assert not built(server).is_right(ADA, SecretStr(""))


def test_the_same_is_asked_of_the_server_for_everybody(server: Slapd) -> None:
    """An unknown name, a wrong password, an empty one, nobody: each is a search and a bind that fails."""
    asked = []
    for name, password in ((ADA, "wrong"), ("unknown", "wrong"), (ADA, ""), (None, "wrong"), ("*", "wrong")):
        before = server.operations()
        assert not built(server).is_right(name, SecretStr(password))
        asked.append(server.operations() - before)
    assert all(one == asked[0] for one in asked), asked
    assert asked[0]["Bind"] == 3  # we, the person, and this test that counts


@pytest.mark.parametrize("secured", ["url", "ldaps_url"])
def test_a_server_that_hangs_is_given_up_and_no_password_is_called_wrong(server: Slapd, secured: str) -> None:
    checked = built(server, urls=[getattr(server, secured)], timeout_s=0.3)
    server.freeze()
    with pytest.raises(UnavailableError, match="try again"):
        checked.is_right(ADA, SecretStr(PASSWORD))
    server.thaw()
    assert checked.is_right(ADA, SecretStr(PASSWORD))


def test_a_server_that_stops_in_the_handshake_holds_nobody(server: Slapd) -> None:
    agreed = bytes.fromhex("300c02010178070a010004000400")  # StartTLS: yes; and never a word again
    asked: list[bytes] = []
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        hangs = f"ldap://127.0.0.1:{listening.getsockname()[1]}"

        def answer() -> None:
            with suppress(OSError):
                while True:
                    connection = stack.enter_context(listening.accept()[0])
                    if said := connection.recv(4096):  # the first one only looks whether somebody is there
                        connection.sendall(agreed)
                        asked.append(said)

        threading.Thread(target=answer, daemon=True).start()
        checked = built(server, urls=[hangs], timeout_s=0.2)
        for _ in range(MOST_LATE + 2):
            with pytest.raises(UnavailableError, match="stopped answering"):
                checked.is_right(ADA, SecretStr(PASSWORD))
        assert len(asked) == MOST_LATE, "no more threads than that may be held"
        both = built(server, urls=[hangs, server.url], timeout_s=5)
        assert both.is_right(ADA, SecretStr(PASSWORD)), "the next one is asked"
        listening.shutdown(socket.SHUT_RDWR)
    until(lambda: not held(), "the threads that waited for it end")


def held() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "ldap-open"]


def test_a_server_that_is_dead_is_told_of_in_words_and_the_next_is_asked(server: Slapd) -> None:
    dead = f"ldaps://127.0.0.1:{free_port()}"
    with pytest.raises(UnavailableError, match=r"does not answer.*refused"):
        built(server, urls=[dead]).is_right(ADA, SecretStr(PASSWORD))
    both = built(server, urls=[dead, server.url])
    assert both.is_right(ADA, SecretStr(PASSWORD))
    told = [finding for finding in both.findings(None) if not finding.is_good]
    assert [finding.step for finding in told] == [f"reach {dead}"]


@pytest.mark.parametrize("secured", ["url", "ldaps_url"])
def test_a_certificate_of_another_is_not_trusted_with_a_password(server: Slapd, secured: str, tmp_path: Path) -> None:
    for wrong in ({"ca_file": None}, {"urls": [getattr(server, secured).replace("127.0.0.1", "127.0.0.2")]}):
        with pytest.raises(UnavailableError):
            built(server, **{"urls": [getattr(server, secured)], **wrong}).is_right(ADA, SecretStr(PASSWORD))
    missing = built(server, urls=[server.ldaps_url], ca_file=str(tmp_path / "none.pem"))
    with pytest.raises(SettingsError, match="ca_file"):
        missing.is_right(ADA, SecretStr(PASSWORD))


def test_settings_that_cannot_be_are_refused_by_name(server: Slapd, tmp_path: Path) -> None:
    for url in ("http://h", "ldap://", "ldapi:///x", "h:389", "ldap://h/ou=people"):
        with pytest.raises(ValidationError):
            LdapOptions.model_validate(server.options(urls=[url]))
    with pytest.raises(SettingsError, match="starttls"):
        load.build(AUTHENTICATORS, "ldap", server.options(starttls=False))
    password = tmp_path / "password"
    password.touch(mode=0o644)
    password.write_text(server.admin_password)
    for text, mode, said in ((server.admin_password, 0o644, "private"), ("", 0o600, "empty"), ("x", 0o600, "password")):
        password.write_text(text)
        password.chmod(mode)
        with pytest.raises(SettingsError, match=said):
            built(server, bind_password_file=str(password)).is_right(ADA, SecretStr(PASSWORD))
