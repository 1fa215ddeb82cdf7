"""Connections to an LDAP server: verified TLS or none at all, time limits, and its errors in words."""

from __future__ import annotations

import os
import re
import socket
import ssl
import stat
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from beamkeeper.domain.errors import SettingsError, UnavailableError
from beamkeeper.plugins.api import Options

if TYPE_CHECKING:
    from ldap.ldapobject import SimpleLDAPObject

USERNAME = re.compile(r"[a-z_][a-z0-9_.-]{0,63}")
"""What a username may be: asked before it comes near a filter, where it is escaped all the same."""

PORTS = {"ldap": 389, "ldaps": 636}


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in PORTS or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError("it should be ldap://HOST, which is asked for StartTLS, or ldaps://HOST")
    return value.rstrip("/")


class LdapOptions(Options):
    """Where the directory server is and how its entries look; the same for all that talks to it."""

    urls: Annotated[tuple[Annotated[str, AfterValidator(_url)], ...], Field(min_length=1)]
    """Servers, asked in this order until one answers. There is no way without TLS."""
    ca_file: Path | None = None
    """Certificates that the server's is checked against; the system's where not given."""
    bind_dn: str = ""
    """Whom we look for entries as; anonymous where empty."""
    bind_password_file: Path | None = None
    """A private file with that account's password."""
    people_dn: str
    """Below which people are."""
    groups_dn: str = ""
    """Below which groups are."""
    group_class: Literal["posixGroup", "groupOfNames"] = "posixGroup"
    """What groups are: with members by username and a number, or with members by entry."""
    people_filter: str = "(objectClass=posixAccount)"
    """Which entries are people."""
    username_attribute: str = "uid"
    name_attribute: str = "cn"
    email_attribute: str = "mail"
    badge_attribute: str = "employeeNumber"
    institution_attribute: str = "o"
    first_uid_number: int = Field(default=100_000, ge=1)
    """An account that we add, and for which the facility gives no number, gets this plus our own number."""
    gid_number: int = 100
    """Of accounts that we add."""
    home: str = "/home/{username}"
    """Of accounts that we add."""
    timeout_s: float = Field(default=4.0, gt=0, le=60)
    """How long one answer may take."""


@dataclass(frozen=True, slots=True)
class Server:
    """One of the servers, as its URL names it."""

    url: str
    host: str
    port: int
    is_tls: bool

    @classmethod
    def of(cls, url: str) -> Server:
        """Return the server that a URL names."""
        parts = urlsplit(url)
        return cls(url, parts.hostname or "", parts.port or PORTS[parts.scheme], parts.scheme == "ldaps")


def library() -> Any:
    """Return python-ldap, which is an extra."""
    try:
        import ldap
    except ImportError as error:
        raise SettingsError("LDAP needs python-ldap, which is not installed: pip install 'beamkeeper[ldap]'") from error
    return ldap


@contextmanager
def connected(options: LdapOptions) -> Iterator[SimpleLDAPObject]:
    """Open a connection to the first server that answers, bound as `bind_dn`; raises UnavailableError.

    Errors of the library that come out of the block and mean that the server does not answer are translated as well.
    """
    ldap = library()
    connection = _first(options)
    try:
        with translated(options):
            yield connection
    finally:
        with suppress(ldap.LDAPError):  # it is gone, which is all that was wanted
            connection.unbind_s()


@contextmanager
def translated(options: LdapOptions) -> Iterator[None]:
    """Turn the library's errors, those of somebody's password apart, into UnavailableError or SettingsError."""
    ldap = library()
    try:
        yield
    except ldap.INVALID_CREDENTIALS as error:
        raise SettingsError(
            f'the directory server does not take the password of "{options.bind_dn}": '
            f"see {options.bind_password_file or 'bind_password_file'}"
        ) from error
    except ldap.LDAPError as error:
        raise UnavailableError(
            f"the directory server {', '.join(options.urls)} does not do its part ({words(error)}): try again later, "
            f"`dm auth check` tells more"
        ) from error


def words(error: Exception) -> str:
    """Return an error of the library as words, without what it was asked."""
    said = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    parts = [str(said[key]) for key in ("desc", "info") if said.get(key)]
    return ": ".join(parts) or type(error).__name__


def _first(options: LdapOptions) -> SimpleLDAPObject:
    faults = []
    for url in options.urls:
        try:
            return opened(Server.of(url), options)
        except UnavailableError as error:
            faults.append(error.message)
    raise UnavailableError("; ".join(faults))


STEPS = 4
"""What opening a connection asks of a server, each with its own time limit: TCP, StartTLS, its handshake, a bind."""
MOST_LATE = 8
"""Attempts that a server may hold beyond their time before no more are made: each is a thread."""
_late: Counter[str] = Counter()
_counting = threading.Lock()


def opened(server: Server, options: LdapOptions) -> SimpleLDAPObject:
    """Open a connection to one server, with verified TLS, bound as `bind_dn`; raises UnavailableError in time.

    The handshake of the LDAP library knows no time limit, and nothing interrupts it: a server that stops answering
    in the middle of it holds a thread of ours until it goes on, closes or vanishes, but not who waits for it.
    """
    shake_hands(server, options)
    attempt: Future[SimpleLDAPObject] = Future()
    if _late[server.url] < MOST_LATE:
        threading.Thread(target=_attempt, args=(attempt, server, options), name="ldap-open", daemon=True).start()
        with suppress(TimeoutError):
            return attempt.result(STEPS * options.timeout_s)
        with _counting:
            _late[server.url] += 1
        attempt.add_done_callback(partial(_dropped, server))
    raise UnavailableError(
        f"the directory server {server.host}:{server.port} stopped answering while a connection was opened: "
        f"try again later"
    )


def _attempt(attempt: Future[SimpleLDAPObject], server: Server, options: LdapOptions) -> None:
    try:
        attempt.set_result(_open(server, options))
    except BaseException as error:
        attempt.set_exception(error)


def _dropped(server: Server, attempt: Future[SimpleLDAPObject]) -> None:
    """Close a connection that came too late."""
    with _counting:
        _late[server.url] -= 1
    if attempt.exception() is None:
        with suppress(library().LDAPError):
            attempt.result().unbind_s()


def _open(server: Server, options: LdapOptions) -> SimpleLDAPObject:
    ldap = library()
    with translated(options):
        connection = ldap.initialize(server.url)
        _set(connection, options)
        if not server.is_tls:
            connection.start_tls_s()
        connection.simple_bind_s(options.bind_dn, _password(options) if options.bind_dn else "")
    return connection


def _set(connection: Any, options: LdapOptions) -> None:
    ldap = library()
    for option, value in (
        (ldap.OPT_PROTOCOL_VERSION, 3),
        (ldap.OPT_REFERRALS, 0),
        (ldap.OPT_NETWORK_TIMEOUT, options.timeout_s),
        (ldap.OPT_TIMEOUT, options.timeout_s),
        # A host that vanished is noticed within half a minute, whatever we wait for.
        (ldap.OPT_X_KEEPALIVE_IDLE, 10),
        (ldap.OPT_X_KEEPALIVE_PROBES, 4),
        (ldap.OPT_X_KEEPALIVE_INTERVAL, 5),
        (ldap.OPT_X_TLS_REQUIRE_CERT, ldap.OPT_X_TLS_DEMAND),
        (ldap.OPT_X_TLS_PROTOCOL_MIN, 0x303),  # TLS 1.2
    ):
        connection.set_option(option, value)
    if options.ca_file is not None:
        connection.set_option(ldap.OPT_X_TLS_CACERTFILE, str(options.ca_file))
    connection.set_option(ldap.OPT_X_TLS_NEWCTX, 0)  # last: it takes over what was set


def shake_hands(server: Server, options: LdapOptions) -> str:
    """Reach a server within the time limit, with its certificate checked where TLS begins at once; say what it speaks.

    The handshake of the LDAP library has no words for its errors: so it is tried here first.
    """
    where = f"{server.host}:{server.port}"
    try:
        with socket.create_connection((server.host, server.port), timeout=options.timeout_s) as plain:
            if not server.is_tls:
                return "LDAP, to be followed by StartTLS"
            with _tls(options).wrap_socket(plain, server_hostname=server.host) as secured:
                return str(secured.version())
    except ssl.SSLCertVerificationError as error:
        raise UnavailableError(
            f"the certificate of the directory server {where} is not to be trusted ({error.verify_message}): "
            f"name its CA with ldap.ca_file"
        ) from error
    except OSError as error:
        reason = error.strerror or str(error) or "no answer in time"
        raise UnavailableError(f"the directory server {where} does not answer ({reason}): try again later") from error


def _tls(options: LdapOptions) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if options.ca_file is None else str(options.ca_file))
    except OSError as error:
        raise SettingsError(f"ldap.ca_file: cannot read {options.ca_file} ({error.strerror or error})") from error


def _password(options: LdapOptions) -> str:
    path = options.bind_password_file
    if path is None:
        raise SettingsError("ldap.bind_dn has no ldap.bind_password_file: name a private file with its password")
    try:
        with path.open() as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise SettingsError(f"{path} can be read by others: make it private with `chmod 600`")
            found = file.readline().rstrip("\r\n")
    except OSError as error:
        raise SettingsError(f"ldap.bind_password_file: cannot read {path} ({error.strerror})") from error
    if not found:  # it would bind as nobody, and look as if it had succeeded
        raise SettingsError(f"{path} is empty: its first line is the password of {options.bind_dn}")
    return found


def first_text(attributes: dict[str, list[bytes]], name: str) -> str:
    """Return an attribute's first value as text; empty where there is none."""
    values = attributes.get(name) or next((v for k, v in attributes.items() if k.lower() == name.lower()), [])
    return values[0].decode("utf-8", "replace") if values else ""
