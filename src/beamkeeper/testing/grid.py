"""Real GridFTP servers, a certificate authority made for the test, and a MyProxy that hands out credentials."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from beamkeeper.testing.daemons import START_S, daemon, listens, program, servant
from beamkeeper.testing.servers import ServerNotAvailableError, free_port
from beamkeeper.testing.slapd import Slapd

SERVER = "globus-gridftp-server-progs"
ORGANISATION = "/O=Grid/OU=Beamkeeper"
USER = "d12345"
"""The name of the badge that tests show."""


@dataclass(frozen=True, slots=True)
class GridFTP:
    """A running GridFTP server."""

    port: int
    scheme: str

    def url(self, path: Path) -> str:
        """Return the address of a directory, without the last slash."""
        host = "localhost" if self.scheme == "gsiftp" else "127.0.0.1"  # a certificate is made out to a name
        return f"{self.scheme}://{host}:{self.port}{quote(str(path))}"


@contextmanager
def anonymous_gridftp() -> Iterator[GridFTP]:
    """Run a GridFTP server that lets everybody in, while the block lasts."""
    whom = ["-anonymous-user", "nobody", "-anonymous-group", "nogroup"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="beamkeeper-gridftp-") as made:
        port = free_port()
        argv = [*_server(port), "-aa", *whom]
        with daemon(argv, Path(made) / "log", lambda: listens(port)):
            yield GridFTP(port, "ftp")


def _server(port: int) -> list[str]:
    here = "127.0.0.1"
    program_ = program("globus-gridftp-server", SERVER)
    return [program_, "-p", str(port), "-control-interface", here, "-data-interface", here, "-c", os.devnull]


class Authority:
    """A certificate authority of the test's own, with its directory of trusted certificates."""

    def __init__(self, place: Path, name: str = "Test CA") -> None:
        self.place = place
        self.subject = f"{ORGANISATION}/CN={name}"
        self.trusted = place / "certificates"
        self.trusted.mkdir()
        self.key, self.certificate = place / "ca.key", place / "ca.pem"
        is_ca = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        self._openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(self.key), "-out", str(self.certificate)),
            *("-days", "2", "-subj", self.subject, *is_ca),
        )
        policy = (
            f"access_id_CA  X509  '{self.subject}'\npos_rights  globus  CA:sign\n"
            f"cond_subjects  globus  '\"{ORGANISATION}/*\"'\n"
        )
        for kind in ("-subject_hash", "-subject_hash_old"):
            name = self._openssl("x509", "-in", str(self.certificate), "-noout", kind).strip()
            (self.trusted / f"{name}.0").write_bytes(self.certificate.read_bytes())
            (self.trusted / f"{name}.signing_policy").write_text(policy)

    def issue(self, name: str, *, common_name: str, more: str = "", days: int = 2) -> tuple[Path, Path]:
        """Return a new certificate and its private key."""
        certificate, key, request = (self.place / f"{name}.{end}" for end in ("pem", "key", "csr"))
        subject = f"{ORGANISATION}/CN={common_name}"
        self._openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(request), "-subj", subject)
        )
        (self.place / "extensions").write_text("keyUsage=digitalSignature,keyEncipherment\n" + more)
        self._openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self.key)),
            *(
                "-CAcreateserial",
                "-days",
                str(days),
                "-out",
                str(certificate),
                "-extfile",
                str(self.place / "extensions"),
            ),
        )
        key.chmod(0o600)
        return certificate, key

    def host(self, name: str) -> dict[str, str]:
        """Return the environment of a server on a host of this name."""
        certificate, key = self.issue(f"host-{name}", common_name=name, more=f"subjectAltName=DNS:{name}\n")
        paths = {"X509_CERT_DIR": self.trusted, "X509_USER_CERT": certificate, "X509_USER_KEY": key}
        return {name: str(path) for name, path in paths.items()}

    def proxy(self, common_name: str) -> Path:
        """Return a short-lived credential of somebody."""
        certificate, key = self.issue(f"user-{common_name}", common_name=common_name)
        made = self.place / f"proxy-{common_name}"
        argv = [program("grid-proxy-init", "globus-proxy-utils"), "-q", "-valid", "1:00"]
        argv += ["-cert", str(certificate), "-key", str(key), "-out", str(made)]
        subprocess.run(argv, check=True, env={**os.environ, "X509_CERT_DIR": str(self.trusted)}, capture_output=True)
        return made

    def expired(self, common_name: str) -> Path:
        """Return a credential of somebody that was good until yesterday."""
        certificate, key = self.issue(f"expired-{common_name}", common_name=common_name, days=-1)
        made = self.place / f"expired-{common_name}"
        made.touch(mode=0o600)
        made.write_bytes(certificate.read_bytes() + key.read_bytes())
        return made

    def _openssl(self, *words: str) -> str:
        done = subprocess.run([program("openssl", "openssl"), *words], check=True, capture_output=True, text=True)
        return done.stdout


@contextmanager
def gsi_gridftp(
    authority: Authority, *, common_name: str, host: str = "localhost", acts_as: str = ""
) -> Iterator[GridFTP]:
    """Run a GridFTP server that lets in whoever has a credential of this name, while the block lasts.

    It acts as an account that it does not refuse, or as the one named.
    """
    with tempfile.TemporaryDirectory(prefix="beamkeeper-gsiftp-") as made:
        place, port = Path(made), free_port()
        (place / "gridmap").write_text(f'"{ORGANISATION}/CN={common_name}" {acts_as or servant().pw_name}\n')
        place.chmod(0o755)
        env = {**authority.host(host), "GRIDMAP": str(place / "gridmap")}
        argv = [*_server(port), "-allow-disabled-login", *(["-allow-root"] if acts_as == "root" else [])]
        with daemon(argv, place / "log", lambda: listens(port), env=env):
            yield GridFTP(port, "gsiftp")


@dataclass(frozen=True, slots=True)
class MyProxy:
    """A running MyProxy that is an authority itself: a name and a password give a credential for some hours."""

    port: int
    authority: Authority

    def logon(self, name: str, password: str, into: Path) -> subprocess.CompletedProcess[bytes]:
        """Ask for a credential, as people and timers do."""
        argv = [program("myproxy-logon", "myproxy"), "-s", "localhost", "-p", str(self.port), "-l", name, "-S"]
        env = {**os.environ, "X509_CERT_DIR": str(self.authority.trusted)}
        for variable in ("X509_USER_PROXY", "X509_USER_CERT", "X509_USER_KEY"):
            env.pop(variable, None)
        given = (password + "\n").encode()
        return subprocess.run(
            [*argv, "-t", "2", "-o", str(into)], input=given, env=env, capture_output=True, check=False
        )


@contextmanager
def myproxy(authority: Authority, people: Slapd) -> Iterator[MyProxy]:
    """Run a MyProxy while the block lasts, whose passwords are asked of PAM, as at sites; only root can.

    PAM asks the directory server by logging in there with the name and the password.
    """
    if os.geteuid():
        raise ServerNotAvailableError("only root can say in /etc/pam.d who checks passwords")
    server, service = program("myproxy-server", "myproxy-server"), f"beamkeeper-test-{os.getpid()}"
    asks = program("ldapwhoami", "ldap-utils")
    pam = Path("/etc/pam.d") / service
    with tempfile.TemporaryDirectory(prefix="beamkeeper-myproxy-") as made:
        place, port = Path(made), free_port()
        _write_myproxy(place, authority, service, f"{asks} -x -H {people.url} -D 'uid='$PAM_USER',{people.people_dn}'")
        pam.write_text(
            f"auth required pam_exec.so expose_authtok quiet {place / 'check'}\naccount required pam_permit.so\n"
        )
        argv = [server, "-v", "-l", "127.0.0.1", "-p", str(port), "-c", str(place / "conf"), "-s", str(place / "store")]
        env = {**os.environ, **authority.host("localhost"), "X509_USER_PROXY": ""}
        try:
            # It goes into the background by itself: a server in the foreground answers once and ends.
            pid_file = place / "pid"
            subprocess.run([*argv, "--pidfile", str(pid_file)], env=env, check=True, capture_output=True)
            deadline = time.monotonic() + START_S
            while not (pid_file.exists() and listens(port)):
                if time.monotonic() > deadline:
                    raise ServerNotAvailableError("myproxy-server did not start")
                time.sleep(0.02)
            try:
                yield MyProxy(port, authority)
            finally:
                os.kill(int(pid_file.read_text()), signal.SIGTERM)
        finally:
            pam.unlink()


def _write_myproxy(place: Path, authority: Authority, service: str, login: str) -> None:
    for name in ("store", "out"):
        (place / name).mkdir(mode=0o700)
    # A name becomes part of a DN here, and a password goes where no other account reads it.
    sound = 'case "$PAM_USER" in *[!a-z0-9-]*) exit 1;; esac'
    given = 'given=$(tr -d "\\000"); [ -n "$given" ] || exit 1'  # with none, LDAP lets anybody in, as nobody
    scripts = {
        "check": f'#!/bin/sh\n{sound}\n{given}\nprintf %s "$given" | {login} -y /dev/stdin >/dev/null 2>&1\n',
        "name": f'#!/bin/sh\necho "{ORGANISATION}/CN=$1"\n',
    }
    for name, text in scripts.items():
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    (place / "extensions").write_text("keyUsage=digitalSignature,keyEncipherment\n")
    anybody = ("accepted_credentials", "authorized_retrievers", "default_retrievers", "authorized_renewers")
    lines = [
        *(f'{who} "*"' for who in (*anybody, "authorized_key_retrievers", "trusted_retrievers")),
        *(f'{who} "none"' for who in ("default_renewers", "default_key_retrievers", "default_trusted_retrievers")),
        f"certificate_issuer_cert {authority.certificate}",
        f"certificate_issuer_key {authority.key}",
        'certificate_issuer_key_passphrase ""',
        f"certificate_serialfile {place / 'serial'}",
        f"certificate_out_dir {place / 'out'}",
        f"certificate_mapapp {place / 'name'}",
        f"certificate_extfile {place / 'extensions'}",
        *("max_cert_lifetime 24", 'pam "required"', f'pam_id "{service}"'),
    ]
    (place / "conf").touch(mode=0o600)
    (place / "conf").write_text("\n".join(lines) + "\n")
