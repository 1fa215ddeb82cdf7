"""People of a directory server, and the accounts of one that we maintain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from beamkeeper.builtin import people_rows
from beamkeeper.builtin.ldap import LdapOptions, connected, first_text, library, words
from beamkeeper.builtin.people_rows import ColumnOptions
from beamkeeper.domain.people import AccountsKept, DirectoryAccount, Person, Refused
from beamkeeper.plugins.api import Options

if TYPE_CHECKING:
    from ldap.ldapobject import SimpleLDAPObject

AT_ONCE = 500
CLOSED = "{CRYPT}*"
"""A hash that no password has."""

Entry = dict[str, list[bytes]]


class LdapDirectory:
    """People of a directory server; their passwords stay there."""

    options: ClassVar[type[Options]] = LdapOptions
    summary: ClassVar[str] = "People of a directory server."

    def __init__(self, options: LdapOptions) -> None:
        self._options = options

    def people(self) -> Iterator[Person | Refused]:
        """Yield everybody below people_dn, page by page."""
        options = self._options
        wanted = {
            "username": options.username_attribute,
            "full_name": options.name_attribute,
            "email": options.email_attribute,
            "badge": options.badge_attribute,
            "institution": options.institution_attribute,
            "uid_number": "uidNumber",
        }
        with connected(options) as connection:
            rows = (
                {name: first_text(entry, attribute) for name, attribute in wanted.items()}
                for _, entry in entries(connection, options, [*wanted.values()])
            )
            yield from people_rows.people(rows, ColumnOptions())


class LdapAccounts:
    """Keeps the accounts of a directory server: one entry below people_dn for each."""

    options: ClassVar[type[Options]] = LdapOptions
    summary: ClassVar[str] = "Accounts of a directory server that we maintain."

    def __init__(self, options: LdapOptions) -> None:
        self._options = options

    def keep(self, accounts: Iterable[DirectoryAccount]) -> AccountsKept:
        """Bring the entries into line, writing only what differs."""
        counts = {"added": 0, "updated": 0, "closed": 0}
        refused: list[Refused] = []
        ldap = library()
        with connected(self._options) as connection:
            there = {
                first_text(entry, self._options.username_attribute): (dn, entry)
                for dn, entry in entries(connection, self._options, ["*"])
            }
            for account in accounts:
                try:
                    done = self._bring(connection, account, there.get(account.username))
                except (ldap.SERVER_DOWN, ldap.TIMEOUT, ldap.CONNECT_ERROR):
                    raise
                except ldap.LDAPError as error:
                    refused.append(Refused(what=account.username, why=words(error)))
                else:
                    if done:
                        counts[done] += 1
        return AccountsKept(**counts, refused=tuple(refused[:100]))

    def _bring(self, connection: SimpleLDAPObject, account: DirectoryAccount, there: tuple[str, Entry] | None) -> str:
        import ldap.dn
        import ldap.modlist

        fields = self._fields(account)
        if there is None:
            if not account.is_enabled:
                return ""
            name = ldap.dn.escape_dn_chars(account.username)
            dn = f"{self._options.username_attribute}={name},{self._options.people_dn}"
            classes = {"objectClass": [b"inetOrgPerson", b"posixAccount"]}
            home = {"homeDirectory": [self._options.home.format(username=account.username).encode()]}
            connection.add_s(dn, ldap.modlist.addModlist({**classes, **home, **{k: v for k, v in fields.items() if v}}))
            return "added"
        dn, entry = there
        changes = [
            (ldap.MOD_REPLACE, key, value or None)
            for key, value in fields.items()
            if sorted(entry.get(key, [])) != sorted(value)
        ]
        if not changes:
            return ""
        connection.modify_s(dn, changes)
        return "updated" if account.is_enabled else "closed"

    def _fields(self, account: DirectoryAccount) -> Mapping[str, list[bytes]]:
        options = self._options
        texts: dict[str, str] = {
            options.username_attribute: account.username,
            "cn": account.full_name.strip() or account.username,
            "sn": (account.full_name.split() or [account.username])[-1],
            options.email_attribute: account.email,
            options.badge_attribute: account.badge,
            options.institution_attribute: account.institution,
            "uidNumber": str(account.uid_number or options.first_uid_number + account.number),
            "gidNumber": str(options.gid_number),
        }
        found = {key: [value.encode()] if value else [] for key, value in texts.items()}
        if not account.is_enabled:
            found["userPassword"] = [CLOSED.encode()]
        elif account.password_hash is not None:
            found["userPassword"] = [account.password_hash.get_secret_value().encode()]
        return found


def entries(connection: SimpleLDAPObject, options: LdapOptions, attributes: list[str]) -> Iterator[tuple[str, Entry]]:
    """Yield the entries of people, page by page: servers give only so many at a time."""
    ldap = library()
    from ldap.controls import SimplePagedResultsControl

    control: Any = SimplePagedResultsControl(True, size=AT_ONCE, cookie="")
    while True:
        asked = connection.search_ext(
            options.people_dn, ldap.SCOPE_SUBTREE, options.people_filter, attributes, serverctrls=[control]
        )
        _, found, _, answered = connection.result3(asked, timeout=max(30.0, options.timeout_s))
        yield from ((dn, entry) for dn, entry in found if dn)
        cookies = [one.cookie for one in answered if one.controlType == SimplePagedResultsControl.controlType]
        if not cookies or not cookies[0]:
            return
        control.cookie = cookies[0]
