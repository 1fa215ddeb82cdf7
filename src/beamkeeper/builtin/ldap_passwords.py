"""Passwords that a directory server checks."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from pydantic import SecretStr

from beamkeeper.builtin.ldap import USERNAME, LdapOptions, Server, connected, library, opened, shake_hands, words
from beamkeeper.domain.errors import DmError
from beamkeeper.domain.people import Finding
from beamkeeper.plugins.api import Options

if TYPE_CHECKING:
    from ldap.ldapobject import SimpleLDAPObject

LONGEST = 1024
"""No password is longer; what is, is not sent."""


class LdapAuthenticator:
    """Looks for somebody's entry and binds as it; what the server then says of who that is counts, too."""

    options: ClassVar[type[Options]] = LdapOptions
    summary: ClassVar[str] = "Passwords of a directory server, by LDAP over verified TLS."

    def __init__(self, options: LdapOptions) -> None:
        self._options = options

    def is_right(self, username: str | None, password: SecretStr) -> bool:
        """Whether this is the password of somebody; a search and a bind are made for nobody, too."""
        secret = password.get_secret_value()
        is_possible = bool(secret) and "\0" not in secret and len(secret) <= LONGEST
        nobody = f"nobody-{secrets.token_hex(8)}"
        name = username if is_possible and username is not None and USERNAME.fullmatch(username) else nobody
        with connected(self._options) as connection:
            found = self._entry(connection, name)
            dn = found or f"{self._options.username_attribute}={nobody},{self._options.people_dn}"
            # A server takes an empty password for a bind as nobody, and calls it a success.
            is_bound = self._binds(connection, dn, secret if is_possible else nobody)
        return is_bound and found is not None

    def findings(self, username: str | None) -> Iterator[Finding]:
        """Try each server: is it reached, is its certificate trusted, may we look there, who is there."""
        for url in self._options.urls:
            yield from self._findings(Server.of(url), username)

    def _findings(self, server: Server, username: str | None) -> Iterator[Finding]:
        try:
            spoken = shake_hands(server, self._options)
            yield Finding(step=f"reach {server.url}", is_good=True, words=f"it answers and speaks {spoken}")
            connection = opened(server, self._options)
        except DmError as error:
            yield Finding(step=f"reach {server.url}", is_good=False, words=error.message)
            return
        ldap = library()
        try:
            who = connection.whoami_s() or "nobody (anonymous)"
            tls = connection.get_option(ldap.OPT_X_TLS_VERSION)
            yield Finding(step="log in there", is_good=True, words=f"we are {who}, by {tls}, its certificate verified")
            yield self._people(connection)
            if username is not None:
                yield self._person(connection, username)
        except ldap.LDAPError as error:
            yield Finding(step="look for people", is_good=False, words=words(error))
        finally:
            connection.unbind_s()

    def _people(self, connection: SimpleLDAPObject) -> Finding:
        ldap = library()
        wanted = (self._options.people_dn, ldap.SCOPE_SUBTREE, self._options.people_filter, ["1.1"])
        try:
            found = connection.search_ext_s(*wanted, timeout=self._options.timeout_s, sizelimit=1)
        except ldap.SIZELIMIT_EXCEEDED:
            found = [("somebody", {})]
        there = f"{self._options.people_filter} below {self._options.people_dn}"
        said = "there are people" if found else "there is nobody: see people_dn and people_filter, or who we log in as"
        return Finding(step="look for people", is_good=bool(found), words=f"{there}: {said}")

    def _person(self, connection: SimpleLDAPObject, username: str) -> Finding:
        entry = self._entry(connection, username) if USERNAME.fullmatch(username) else None
        said = f"{entry}; whether a password is right is told by `dm login`" if entry else "no entry, or more than one"
        return Finding(step=f"look for {username}", is_good=entry is not None, words=said)

    def _entry(self, connection: SimpleLDAPObject, username: str) -> str | None:
        """Return the name of somebody's only entry."""
        import ldap.filter

        own = f"({self._options.username_attribute}={ldap.filter.escape_filter_chars(username)})"
        found = connection.search_ext_s(
            self._options.people_dn,
            ldap.SCOPE_SUBTREE,
            f"(&{self._options.people_filter}{own})",
            ["1.1"],
            timeout=self._options.timeout_s,
        )
        entries = [dn for dn, _ in found if dn]  # a referral has none
        return entries[0] if len(entries) == 1 else None

    def _binds(self, connection: SimpleLDAPObject, dn: str, password: str) -> bool:
        """Whether the server takes this password for this entry, and then says that we are somebody."""
        ldap = library()
        try:
            connection.simple_bind_s(dn, password)
            return _is_same(str(connection.whoami_s() or ""), dn)
        except (
            ldap.INVALID_CREDENTIALS,
            ldap.INAPPROPRIATE_AUTH,
            ldap.NO_SUCH_OBJECT,
            ldap.INVALID_DN_SYNTAX,
            ldap.UNWILLING_TO_PERFORM,
            ldap.CONSTRAINT_VIOLATION,
            ldap.INSUFFICIENT_ACCESS,
        ):
            return False


def _is_same(who: str, dn: str) -> bool:
    """Whether the server's word for us is this entry; some give an account's name instead, which is somebody too."""
    kind, _, name = who.partition(":")
    if kind == "dn":
        return bool(name) and _plain(name) == _plain(dn)
    return kind == "u" and bool(name)


def _plain(dn: str) -> object:
    import ldap.dn

    return [[(kind.lower(), value.lower()) for kind, value, _ in part] for part in ldap.dn.str2dn(dn)]
