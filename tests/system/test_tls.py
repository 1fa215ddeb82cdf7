"""Services that speak TLS: with certificates of an authority that `dm tls` made, and with whom that does not know."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from beamkeeper.cli.app import run
from beamkeeper.client import Client
from beamkeeper.client.logins import Logins
from beamkeeper.domain.errors import SettingsError, UnavailableError
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewUser
from beamkeeper.engine.supervise import stop_running
from beamkeeper.serve.certificates import server_context
from beamkeeper.testing.station import Station, experiment, station


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an authority and a certificate for loopback."""
    directory = tmp_path_factory.mktemp("ca") / "site"
    assert run(["tls", "make-ca", str(directory)]) == 0
    assert run(["tls", "issue", str(directory), "localhost", "127.0.0.1"]) == 0
    return directory


@pytest.fixture(scope="module")
def beamline(authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    """A beamline of which every service speaks TLS."""
    tls = {"certificate_file": "localhost.pem", "key_file": "localhost.key", "ca_file": "ca.pem"}
    lines = ["[tls]", *(f'{key} = "{authority / name}"' for key, name in tls.items()), ""]
    with station(tmp_path_factory.mktemp("tls"), settings="\n".join(lines)) as made:
        done = dm(made, "up")
        assert done.returncode == 0, done.stderr
        yield made
        stop_running(made.data, 10)


def dm(beamline: Station, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as the beamline's operator, who has a home of their own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("BEAMKEEPER_", "XDG_"))}
    environ = {**kept, "HOME": str(beamline.directory), "BEAMKEEPER_DATA_DIR": str(beamline.data)}
    words = (sys.executable, "-c", "from beamkeeper.cli.app import main; main()", *words)
    return subprocess.run(words, env=environ, capture_output=True, text=True, check=False, timeout=90)


@pytest.fixture
def client(beamline: Station) -> Iterator[Client]:
    """The operator, whose login knows the authority since `dm up`."""
    with Client(logins=Logins(beamline.directory / ".config/beamkeeper/logins.json")) as opened:
        yield opened


def test_services_speak_tls_to_one_another_and_to_people(client: Client) -> None:
    assert client.url.startswith("https://")
    made = experiment(client)  # the mirrors must hear of it, over TLS
    assert not list(client.files.find(FileQuery(experiment_uid=made.uid)))
    assert {client.status(service).service for service in Service} == set(Service)


def test_a_login_keeps_the_authority_for_the_commands_after_it(
    beamline: Station, client: Client, authority: Path
) -> None:
    client.users.create(NewUser(username="ada", password=SecretStr("correct horse")))
    secret = beamline.directory / "password"
    secret.write_text("correct horse")
    secret.chmod(0o600)
    ca = str(authority / "ca.pem")
    words = ("--profile", "ada", "login", "ada", "--url", client.url, "--password-file", str(secret))
    assert "not believed" in dm(beamline, *words).stderr
    done = dm(beamline, *words, "--ca", ca)
    assert done.returncode == 0, done.stderr
    assert "ada" in dm(beamline, "--profile", "ada", "whoami").stdout


def test_a_client_that_does_not_know_the_authority_tells_nothing_and_says_what_to_do(
    beamline: Station, tmp_path: Path
) -> None:
    with (
        Client(f"https://127.0.0.1:{beamline.port(Service.STORAGE)}", logins=Logins(tmp_path / "l"), tries=1) as client,
        pytest.raises(UnavailableError, match=r"not believed \(.+\).*dm login --ca"),
    ):
        client.health(Service.STORAGE)


def test_a_certificate_for_another_name_is_refused(beamline: Station, authority: Path) -> None:
    context = ssl.create_default_context(cafile=str(authority / "ca.pem"))
    with (
        socket.create_connection(("127.0.0.1", beamline.port(Service.CATALOG)), timeout=10) as plain,
        pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"),
    ):
        context.wrap_socket(plain, server_hostname="elsewhere.example")


def test_old_tls_and_plain_http_get_nothing(beamline: Station, authority: Path) -> None:
    port = beamline.port(Service.STORAGE)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"storage" not in plain.recv(4096)
    context = ssl.create_default_context(cafile=str(authority / "ca.pem"))
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="localhost")


def test_answers_over_tls_say_that_this_host_is_never_to_be_called_without(beamline: Station, authority: Path) -> None:
    context = ssl.create_default_context(cafile=str(authority / "ca.pem"))
    with (
        socket.create_connection(("127.0.0.1", beamline.port(Service.STORAGE)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        wrapped.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: wrapped.recv(65536), b"")).lower()
    assert b"strict-transport-security: max-age=" in answer
    assert b"x-content-type-options: nosniff" in answer


def test_keys_are_private_and_nothing_is_overwritten(authority: Path) -> None:
    for name in ("ca.key", "localhost.key"):
        assert stat.S_IMODE((authority / name).stat().st_mode) == 0o600
    before = (authority / "ca.key").read_bytes()
    assert run(["tls", "make-ca", str(authority)]) == 7
    assert run(["tls", "issue", str(authority), "localhost"]) == 7
    for host in ("a;b", "fe80::1%../../x", "fe80::1%x\nbasicConstraints = CA:TRUE"):
        assert run(["tls", "issue", str(authority), host]) == 2
    assert (authority / "ca.key").read_bytes() == before


def test_what_openssl_says_of_the_certificates_is_what_was_meant(authority: Path) -> None:
    words = ["openssl", "verify", "-CAfile", str(authority / "ca.pem"), "-purpose", "sslserver"]
    assert subprocess.run([*words, str(authority / "localhost.pem")], check=False, capture_output=True).returncode == 0
    issued = ["openssl", "verify", "-CAfile", str(authority / "localhost.pem"), str(authority / "localhost.pem")]
    assert subprocess.run(issued, check=False, capture_output=True).returncode != 0


def test_a_key_that_everybody_can_read_is_refused(authority: Path, tmp_path: Path) -> None:
    key = tmp_path / "host.key"
    key.write_bytes((authority / "localhost.key").read_bytes())
    key.chmod(0o644)
    with pytest.raises(SettingsError, match="can be read by everybody"):
        server_context(str(authority / "localhost.pem"), str(key))
    key.chmod(0o600)
    with pytest.raises(SettingsError, match="are no certificate with its key"):
        server_context(str(authority / "ca.pem"), str(key))
