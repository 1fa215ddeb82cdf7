"""Groups of a directory server: one entry below groups_dn for each, with members by username or by entry."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from beamkeeper.builtin.ldap import LdapOptions, connected, first_text, library, words
from beamkeeper.domain.errors import SettingsError
from beamkeeper.domain.groups import DirectoryLook, FoundGroup, GroupAnswer, GroupChange
from beamkeeper.plugins.api import Options

if TYPE_CHECKING:
    from ldap.ldapobject import SimpleLDAPObject

AT_ONCE = 100
"""So many names are asked for by one filter."""

VALUES_AT_ONCE = 500
OURS = "Group of a Beamkeeper experiment"
"""The description of what we made; a group that happens to have the name is not taken over."""

POSIX, BY_NAME = "posixGroup", "groupOfNames"
MEMBER = {POSIX: "memberUid", BY_NAME: "member"}

Entry = dict[str, list[bytes]]


@dataclass(frozen=True, slots=True)
class _Search:
    """Entries below one that are of a kind and have one of some values."""

    base: str
    of: str
    attribute: str
    wanted: list[str]


class LdapGroups:
    """Keeps the members of groups, and makes groups that are not there; it removes none."""

    options: ClassVar[type[Options]] = LdapOptions
    summary: ClassVar[str] = "Groups of a directory server that we maintain."

    def __init__(self, options: LdapOptions) -> None:
        if not options.groups_dn:
            raise SettingsError("ldap.groups_dn is empty: say below which entry the groups of experiments are")
        self._options = options
        self._member = MEMBER[options.group_class]
        self.has_gids = options.group_class == POSIX

    def look(self, names: Collection[str], usernames: Collection[str]) -> DirectoryLook:
        """Return the groups of these names, and what stands for these usernames, as far as they are there."""
        groups: dict[str, FoundGroup] = {}
        faults: dict[str, str] = {}
        with connected(self._options) as connection:
            for _, entry in self._named(connection, names):
                # Directories do not tell A from a, and a group may have several names.
                called = {value.decode("utf-8", "replace").lower() for value in entry.get("cn", [])}
                name = min(called & set(names), default="")
                if name in groups:
                    faults[name] = f"there are two groups {name} below {self._options.groups_dn}"
                groups[name] = self._group(name, entry)
            accounts: dict[str, set[str]] = defaultdict(set)
            for username, dn in self._accounts(connection, usernames):
                accounts[username.lower()].add(self._value(dn, username))
        # Of two entries with one name nobody knows who is meant: no password is taken for them either.
        known = {username: values.pop() for username, values in accounts.items() if len(values) == 1}
        return DirectoryLook(groups=groups, accounts=known, faults=faults)

    def bring(self, changes: Sequence[GroupChange]) -> Sequence[GroupAnswer]:
        """Make and change groups; one that cannot be changed hinders no other."""
        ldap = library()
        answers = []
        with connected(self._options) as connection:
            for change in changes:
                try:
                    answers.append(self._bring(connection, change))
                except (ldap.SERVER_DOWN, ldap.TIMEOUT, ldap.CONNECT_ERROR):
                    raise
                except ldap.LDAPError as error:
                    answers.append(GroupAnswer(change.name, why=words(error)))
        return answers

    def _bring(self, connection: SimpleLDAPObject, change: GroupChange) -> GroupAnswer:
        ldap = library()
        dn = self._dn(connection, change.name)
        if change.is_new and dn is None:
            if change.gid is not None and self._is_taken(connection, change.gid):
                return GroupAnswer(change.name, is_taken=True, why=f"number {change.gid} is taken there")
            dn = self._make(connection, change)
        if dn is None:
            return GroupAnswer(change.name, why="it is gone from the directory")
        _in_parts(connection, dn, self._member, ldap.MOD_ADD, change.add)
        _in_parts(connection, dn, self._member, ldap.MOD_DELETE, change.remove)
        return GroupAnswer(change.name)

    def _make(self, connection: SimpleLDAPObject, change: GroupChange) -> str:
        import ldap.dn
        import ldap.modlist

        dn = f"cn={ldap.dn.escape_dn_chars(change.name)},{self._options.groups_dn}"
        entry: Entry = {"objectClass": [self._options.group_class.encode()], "cn": [change.name.encode()]}
        entry["description"] = [OURS.encode()]
        if self.has_gids:
            entry["gidNumber"] = [str(change.gid).encode()]
        else:  # it must never be empty, so it is a member of itself
            entry[self._member] = [dn.encode()]
        connection.add_s(dn, ldap.modlist.addModlist(entry))
        return dn

    def _dn(self, connection: SimpleLDAPObject, name: str) -> str | None:
        found = [dn for dn, _ in self._named(connection, [name])]
        return found[0] if found else None

    def _is_taken(self, connection: SimpleLDAPObject, gid: int) -> bool:
        """Whether a group or an account has this number."""
        for base in {self._options.groups_dn, self._options.people_dn}:
            found = connection.search_ext_s(
                base, library().SCOPE_SUBTREE, f"(gidNumber={gid})", ["1.1"], timeout=self._options.timeout_s
            )
            if any(dn for dn, _ in found):
                return True
        return False

    def _group(self, name: str, entry: Entry) -> FoundGroup:
        values = [value.decode("utf-8", "replace") for value in entry.get(self._member, [])]
        if self.has_gids:
            members, others = {value.lower(): value for value in values}, list[str]()
        else:
            members, others = self._by_entry(name, values)
        number = first_text(entry, "gidNumber")
        return FoundGroup(
            name=name,
            gid=int(number) if number.isdigit() else None,
            is_ours=first_text(entry, "description") == OURS,
            members=members,
            others=tuple(others),
        )

    def _by_entry(self, name: str, values: Sequence[str]) -> tuple[dict[str, str], list[str]]:
        """Return the members that are entries of people, by username, and the rest; itself is nobody."""
        import ldap.dn

        members, others = {}, []
        people, groups = (_plain(dn) for dn in (self._options.people_dn, self._options.groups_dn))
        for value in values:
            try:
                parts = ldap.dn.str2dn(value)
            except ldap.DECODING_ERROR:
                parts = []
            kind, first = (parts[0][0][0].lower(), parts[0][0][1]) if parts else ("", "")
            if kind == self._options.username_attribute.lower() and _plain(value)[-len(people) :] == people:
                members[first.lower()] = value
            elif not (kind == "cn" and first.lower() == name and _plain(value)[-len(groups) :] == groups):
                others.append(value)
        return members, others

    def _value(self, dn: str, username: str) -> str:
        return username if self.has_gids else dn

    def _named(self, connection: SimpleLDAPObject, names: Collection[str]) -> Iterator[tuple[str, Entry]]:
        wanted = ["cn", "gidNumber", "description", self._member]
        search = _Search(self._options.groups_dn, f"(objectClass={self._options.group_class})", "cn", wanted)
        yield from self._some(connection, search, names)

    def _accounts(self, connection: SimpleLDAPObject, usernames: Collection[str]) -> Iterator[tuple[str, str]]:
        attribute = self._options.username_attribute
        search = _Search(self._options.people_dn, self._options.people_filter, attribute, [attribute])
        for dn, entry in self._some(connection, search, usernames):
            yield first_text(entry, attribute), dn

    def _some(
        self, connection: SimpleLDAPObject, search: _Search, values: Collection[str]
    ) -> Iterator[tuple[str, Entry]]:
        """Yield the entries that have one of these values, some hundred at a time."""
        import ldap.filter

        rest = sorted(values)
        for start in range(0, len(rest), AT_ONCE):
            escaped = (ldap.filter.escape_filter_chars(value) for value in rest[start : start + AT_ONCE])
            either = "".join(f"({search.attribute}={value})" for value in escaped)
            asked = (search.base, ldap.SCOPE_SUBTREE, f"(&{search.of}(|{either}))", search.wanted)
            found = connection.search_ext_s(*asked, timeout=max(30.0, self._options.timeout_s))
            yield from ((dn, entry) for dn, entry in found if dn)


def _in_parts(connection: SimpleLDAPObject, dn: str, attribute: str, how: int, values: Sequence[str]) -> None:
    """Add or remove values; where one of many is there already, or gone, each goes by itself."""
    ldap = library()
    as_wanted = (ldap.TYPE_OR_VALUE_EXISTS, ldap.NO_SUCH_ATTRIBUTE)
    for start in range(0, len(values), VALUES_AT_ONCE):
        some = [value.encode() for value in values[start : start + VALUES_AT_ONCE]]
        try:
            connection.modify_s(dn, [(how, attribute, some)])
        except as_wanted:
            for value in some:
                with suppress(*as_wanted):
                    connection.modify_s(dn, [(how, attribute, [value])])


def _plain(dn: str) -> list[Any]:
    import ldap.dn

    return [[(kind.lower(), value.lower()) for kind, value, _ in part] for part in ldap.dn.str2dn(dn)]
