"""A real OpenLDAP server that a test starts, fills, stops, starts again and throws away."""

from __future__ import annotations

import base64
import hashlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beamkeeper.testing.servers import ServerNotAvailableError, free_ports

BASE = "dc=dm,dc=test"
ADMIN_DN = f"cn=admin,{BASE}"
ADMIN_PASSWORD = "secret of the directory"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0

_CONFIGURATION = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload back_monitor
pidfile {directory}/slapd.pid
TLSCertificateFile {directory}/server.crt
TLSCertificateKeyFile {directory}/server.key
# As careless as servers are met: a name with an empty password binds as nobody, and that "succeeds".
allow bind_anon_cred
sizelimit unlimited
database mdb
suffix "{base}"
rootdn "{admin}"
rootpw "{password}"
directory {directory}/db
maxsize 1073741824
dbnosync
index objectClass,uid,memberUid,gidNumber eq
access to attrs=userPassword by self write by anonymous auth by * none
access to * by * read
database monitor
access to * by * read
"""


@dataclass
class Slapd:
    """A directory server on loopback; `url` speaks plain LDAP and StartTLS, `ldaps_url` TLS from the start."""

    directory: Path
    port: int
    ldaps_port: int
    base: str = BASE
    admin_dn: str = ADMIN_DN
    admin_password: str = field(default=ADMIN_PASSWORD, repr=False)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it speaks LDAP, and TLS where that is asked for."""
        return f"ldap://127.0.0.1:{self.port}"

    @property
    def ldaps_url(self) -> str:
        """Where it speaks TLS from the start."""
        return f"ldaps://127.0.0.1:{self.ldaps_port}"

    @property
    def ca_file(self) -> Path:
        """The certificate that its own is checked against."""
        return self.directory / "server.crt"

    @property
    def people_dn(self) -> str:
        """Below which people are."""
        return f"ou=people,{self.base}"

    @property
    def groups_dn(self) -> str:
        """Below which groups are."""
        return f"ou=groups,{self.base}"

    def password_file(self) -> Path:
        """Return a private file with the administrator's password, as settings name it."""
        path = self.directory / "admin.password"
        path.touch(mode=0o600)
        path.write_text(self.admin_password)
        return path

    def dn_of(self, username: str) -> str:
        """Return the name of a person's entry."""
        return f"uid={username},{self.people_dn}"

    def connect(self) -> Any:
        """Return a connection of python-ldap as the directory's administrator."""
        import ldap

        connection = ldap.initialize(f"ldap://127.0.0.1:{self.port}")
        connection.simple_bind_s(self.admin_dn, self.admin_password)
        return connection

    def add(self, dn: str, **attributes: str | list[str]) -> None:
        """Add an entry."""
        self.connect().add_s(dn, [(key, _values(value)) for key, value in attributes.items()])

    def add_person(self, username: str, password: str, *, number: int, **attributes: str | list[str]) -> str:
        """Add somebody who can log in; return the name of the entry."""
        fields: dict[str, str | list[str]] = {
            "objectClass": ["inetOrgPerson", "posixAccount"],
            "uid": username,
            "cn": username,
            "sn": username,
            "uidNumber": str(number),
            "gidNumber": "100",
            "homeDirectory": f"/home/{username}",
            "userPassword": password,
        }
        self.add(self.dn_of(username), **{**fields, **attributes})
        return self.dn_of(username)

    def change(self, dn: str, **attributes: str | list[str]) -> None:
        """Replace attributes of an entry; an empty list removes one."""
        import ldap

        self.connect().modify_s(dn, [(ldap.MOD_REPLACE, key, _values(v) or None) for key, v in attributes.items()])

    def remove(self, dn: str) -> None:
        """Remove an entry."""
        self.connect().delete_s(dn)

    def read(self, dn: str) -> dict[str, list[str]]:
        """Return an entry's attributes; raises ldap.NO_SUCH_OBJECT where there is none."""
        import ldap

        [(_, found)] = self.connect().search_s(dn, ldap.SCOPE_BASE)
        return {key: [value.decode() for value in values] for key, values in found.items()}

    def operations(self) -> Counter[str]:
        """Return how many operations of each kind it has done, by its own count."""
        import ldap

        connection = self.connect()
        found = connection.search_s(
            "cn=Operations,cn=Monitor", ldap.SCOPE_ONELEVEL, attrlist=["cn", "monitorOpCompleted"]
        )
        counted = {entry["cn"][0].decode(): int(entry["monitorOpCompleted"][0]) for _, entry in found}
        counted.pop("Unbind")  # comes when the server has the time
        return Counter(counted)

    def empty(self) -> None:
        """Have it answer, and hold nothing but empty `ou=people` and `ou=groups`."""
        import ldap

        if self.process is None or self.process.poll() is not None:
            self.start()
        self.thaw()
        connection = self.connect()
        found = connection.search_s(self.base, ldap.SCOPE_SUBTREE, attrlist=["1.1"])
        kept = {self.base, self.people_dn, self.groups_dn}
        for dn in sorted((dn for dn, _ in found if dn not in kept), key=len, reverse=True):
            connection.delete_s(dn)

    def options(self, **others: object) -> dict[str, object]:
        """Return the options of the plugins named ldap for this server, as settings have them."""
        return {
            "urls": [self.url],
            "ca_file": str(self.ca_file),
            "people_dn": self.people_dn,
            "groups_dn": self.groups_dn,
            "bind_dn": self.admin_dn,
            "bind_password_file": str(self.password_file()),
            **others,
        }

    def start(self) -> None:
        """Start it, and wait until it answers."""
        uri = f"ldap://127.0.0.1:{self.port} ldaps://127.0.0.1:{self.ldaps_port}"
        with (self.directory / "log").open("ab") as output:
            self.process = subprocess.Popen(
                [*_dies_with_us(), _program(), "-d", "0", "-f", str(self.directory / "slapd.conf"), "-h", uri],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.process.poll() is None and time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.ldaps_port), timeout=1):
                return
            time.sleep(0.01)
        raise ServerNotAvailableError(f"slapd did not start: {(self.directory / 'log').read_text()[-2000:]}")

    def freeze(self) -> None:
        """Let it answer nothing, with its connections open."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it; what it holds stays, and `start` brings it back."""
        if self.process is None or self.process.poll() is not None:
            return
        self.thaw()
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(STOP_TIMEOUT_S)


@contextmanager
def slapd() -> Iterator[Slapd]:
    """Run a directory server while the block lasts, with `ou=people` and `ou=groups`; enter it in the main thread."""
    directory = Path(tempfile.mkdtemp(prefix="beamkeeper-slapd-"))
    port, ldaps_port = free_ports(2)
    server = Slapd(directory, port, ldaps_port)
    try:
        _prepare(directory)
        server.start()
        server.add(BASE, objectClass=["dcObject", "organization"], o="dm", dc="dm")
        for unit in ("people", "groups"):
            server.add(f"ou={unit},{BASE}", objectClass="organizationalUnit", ou=unit)
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def ssha(password: str) -> str:
    """Return the hash of a password as facilities give it."""
    salt = b"8 bytes!"
    return "{SSHA}" + base64.b64encode(hashlib.sha1(password.encode() + salt).digest() + salt).decode()  # noqa: S324


def _prepare(directory: Path) -> None:
    (directory / "db").mkdir()
    text = _CONFIGURATION.format(directory=directory, base=BASE, admin=ADMIN_DN, password=ADMIN_PASSWORD)
    (directory / "slapd.conf").write_text(text)
    (directory / "slapd.conf").chmod(0o600)
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    made = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "2", "-keyout", "server.key", "-out", "server.crt", "-subj", "/CN=localhost", "-addext", names),
        ],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise ServerNotAvailableError(f"openssl made no certificate: {made.stderr.strip()}")


def _program() -> str:
    found = shutil.which("slapd", path="/usr/sbin:/usr/local/sbin:/usr/local/libexec:/usr/lib/openldap:/usr/bin")
    if found is None:
        raise ServerNotAvailableError("no OpenLDAP server here: apt-get install slapd")
    return found


def _values(value: str | list[str]) -> list[bytes]:
    return [one.encode() for one in ([value] if isinstance(value, str) else value)]


def _dies_with_us() -> list[str]:
    return ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
