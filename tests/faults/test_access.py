"""F59, F60, F62, F63 and F70: directories, settings, bodies, connections and logins as enemies and accidents have them.

F64 is server/test_fuzzing, F65 test_model, F66 server/test_matrix, F67 core/test_below, F69 builtin/test_outgoing.
"""

from __future__ import annotations

import gzip
import json
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from beamkeeper.client import Client
from beamkeeper.core.authenticators import Authenticators
from beamkeeper.domain.errors import DmError, NotAuthenticatedError, NotFoundError, UnavailableError
from beamkeeper.domain.experiments import NewExperiment
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewUser
from beamkeeper.plugins import load
from beamkeeper.plugins.people import AUTHENTICATORS
from beamkeeper.testing.services import Running, running
from beamkeeper.testing.slapd import Slapd
from beamkeeper.testing.station import station

PASSWORD = "correct horse"
PATIENCE_S = 10.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A site in which everything of this page goes wrong, and which answers all the same."""
    with running(directory=tmp_path_factory.mktemp("access")) as services:
        services.client.experiments.create(NewExperiment(name="coffee", station="station"))
        yield services


def refused(client: Client, name: str, password: str) -> DmError:
    with pytest.raises(DmError) as caught:
        client.sessions.login(name, password)
    return caught.value


def test_f59_a_directory_that_is_slow_empty_or_fooled_lets_nobody_in(site: Running, directory_server: Slapd) -> None:
    import ldap.controls.simple

    directory_server.add_person("ada", PASSWORD, number=1)
    elsewhere = f"ldap://192.0.2.1/uid=ada,{directory_server.people_dn}"
    directory_server.add(
        directory_server.dn_of("far"), objectClass=["referral", "extensibleObject"], uid="far", ref=elsewhere
    )
    options = directory_server.options(timeout_s=0.5)
    authenticators = Authenticators({"ldap": load.build(AUTHENTICATORS, "ldap", options)})
    site.contexts[Service.STORAGE].authenticators = authenticators
    for name in ("ada", "far"):
        site.client.users.create(NewUser(username=name, source="ldap"))
    ada = site.as_()
    ada.sessions.login("ada", PASSWORD)
    for name in ("far", "*", "ada)(uid=*", "*)(uid=*", "\0", "ada\0", "admin)(&)", "ada,ou=people", ""):
        assert not isinstance(refused(site.as_(tries=1), name, PASSWORD), UnavailableError), name
    for password in ("", " ", "\0"):
        refused(site.as_(tries=1), "ada", password)
    far = [ldap.controls.simple.ManageDSAITControl()]
    directory_server.connect().delete_ext_s(directory_server.dn_of("far"), serverctrls=far)
    directory_server.freeze()
    try:
        assert isinstance(refused(site.as_(tries=1), "ada", PASSWORD), UnavailableError)
        assert ada.sessions.whoami().user is not None
    finally:
        directory_server.thaw()


@pytest.mark.long
def test_f60_settings_that_break_while_a_service_runs_break_only_its_next_start(tmp_path: Path) -> None:
    with station(tmp_path) as place:
        client = place.start()
        good = place.settings.read_bytes()
        place.settings.write_bytes(good[: len(good) // 2] + b"\xff\n")
        assert client.sessions.whoami().user is not None
        place.kill(signal.SIGTERM)
        assert place.launch().wait(60) != 0
        assert f"{place.settings.name}" in place.log.read_text(errors="replace").splitlines()[-1]
        place.processes.clear()


HOSTILE: dict[str, bytes] = {
    "ten megabytes": json.dumps({"metadata": {"x": "y" * 10_000_000}}).encode(),
    "a thousand levels": b'{"metadata": ' + b'{"x":' * 1000 + b"1" + b"}" * 1001,
    "a hundred thousand keys": json.dumps({"metadata": {f"k{n}": n for n in range(100_000)}}).encode(),
    "no number": b'{"metadata": {"x": NaN}}',
    "infinite": b'{"metadata": {"x": -Infinity}}',
    "overflowing": b'{"metadata": {"x": 1e999}}',
    "NUL": b'{"metadata": {"x": "a\\u0000b"}}',
    "NUL in a key": b'{"metadata": {"a\\u0000b": 1}}',
    "the same key twice": b'{"metadata": {"x": 1, "x": 2}}',
    "half a character": b'{"metadata": {"x": "\\ud800"}}',
    "cut off": b'{"metadata": {"x": ',
    "of another encoding": '{"metadata": {"x": "é"}}'.encode("utf-16"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_f62_hostile_metadata_are_refused_with_a_reason_and_change_nothing(site: Running, what: str) -> None:
    experiment = site.client.experiments.get("coffee")
    answer = raw(site, f"/api/v1/experiments/{experiment.uid}", HOSTILE[what])
    status, body = int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2]
    assert status in (413, 422), answer[:300]
    assert json.loads(body)["message"]
    assert site.client.experiments.get("coffee") == experiment


def test_f62_a_number_beyond_all_registers_is_kept_or_refused(site: Running) -> None:
    experiment = site.client.experiments.get("coffee")
    for number in (2**53 + 1, 2**70):
        body = json.dumps({"metadata": {"x": number}}).encode()
        answer = raw(site, f"/api/v1/experiments/{experiment.uid}", body)
        if b" 200 " in answer[:16]:
            assert str(site.client.experiments.get("coffee").metadata["x"]) == str(number)
        else:
            assert b" 422 " in answer[:16]


def head(site: Running, path: str, length: int | str, verb: str = "PATCH", **headers: str) -> bytes:
    """Return the head of a request as the administrator."""
    own = {"Host": "x", "Connection": "close", "Content-Type": "application/json"}
    own["Authorization"] = f"Bearer {site.bootstrap.operator.token}"
    lines = [f"{verb} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in {**own, **headers}.items())]
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


def send(site: Running, content: bytes, *, is_cut: bool = False) -> bytes:
    """Send bytes, and return what comes until the service hangs up; `is_cut` hangs up first."""
    host, port = site.urls[Service.STORAGE].removeprefix("http://").split(":")
    with closing(socket.create_connection((host, int(port)), timeout=PATIENCE_S)) as connection:
        got = b""
        try:
            connection.sendall(content)
            if is_cut:
                connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                got += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
        return got


def raw(site: Running, path: str, body: bytes) -> bytes:
    """Send a body as it is."""
    return send(site, head(site, path, len(body)) + body)


CUT = ("cut off", "chunks that lie")
"""What goes on for ever: the service may wait, until its client hangs up."""


def malformed(site: Running) -> dict[str, bytes]:
    """Return requests that no client makes."""
    path, zipped = "/api/v1/users", gzip.compress(bytes(1_000_000))
    chunked = head(site, path, 5, "POST", **{"Transfer-Encoding": "chunked"}).replace(b"Content-Length: 5\r\n", b"")
    return {
        "cut off": head(site, path, 100, "POST") + b"{",
        "zipped": head(site, path, len(zipped), "POST", **{"Content-Encoding": "gzip"}) + zipped,
        "chunks that lie": chunked + b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "a chunk that is no number": chunked + b"zz\r\n{}\r\n0\r\n\r\n",
        "two lengths": head(site, path, 2, "POST", **{"content-length": "7"}) + b"{}",
        "a length below nothing": head(site, path, -1, "POST"),
        "a length of five thousand digits": head(site, path, "9" * 5000, "POST"),
        "a megabyte of head": head(site, path, 2, "POST", **{"X": "y" * 1_000_000}) + b"{}",
        "another kind": head(site, path, 2, "POST", **{"Content-Type": "text/xml"}) + b"{}",
        "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        "a name that is no text": b"GET /api/v1/users/\xff\xfe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    }


def statuses(answer: bytes) -> list[int]:
    """Return the statuses of all the answers."""
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def test_f63_what_is_no_request_is_refused_or_hung_up_on_and_hinders_nobody(site: Running) -> None:
    host, port = site.urls[Service.STORAGE].removeprefix("http://").split(":")
    slow = [socket.create_connection((host, int(port)), timeout=PATIENCE_S) for _ in range(60)]
    for connection in slow:
        connection.sendall(head(site, "/api/v1/users", 1000, "POST") + b"{")
    try:
        answers = {what: statuses(send(site, content, is_cut=what in CUT)) for what, content in malformed(site).items()}
        assert {what: found for what, found in answers.items() if any(not 400 <= one < 500 for one in found)} == {}
        assert site.client.sessions.whoami().user is not None
    finally:
        for connection in slow:
            connection.close()


def test_f63_requests_that_come_at_once_are_answered_in_their_order(site: Running) -> None:
    gets = [b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n"] * 20
    last = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert statuses(send(site, b"".join(gets) + last)) == [200, 404] * 20 + [200]


def test_f70_no_session_is_fixed_from_outside_or_holds_after_its_end(site: Running) -> None:
    site.client.users.create(NewUser(username="eve", password=SecretStr(PASSWORD)))
    chosen = "A" * 43
    with pytest.raises(NotAuthenticatedError):
        site.as_(chosen).sessions.whoami()
    first, second = site.as_(chosen).sessions.login("eve", PASSWORD), site.as_().sessions.login("eve", PASSWORD)
    assert len({chosen, first.token, second.token}) == 3, "each login has a token of its own, which we choose"
    assert min(len(first.token), len(second.token)) >= 43, "256 bits"
    site.as_(first.token).sessions.logout()
    third = site.as_().sessions.login("eve", PASSWORD)
    site.as_(third.token).users.set_password("eve", "another horse", present=PASSWORD)
    for token in (first.token, second.token):
        with pytest.raises(NotAuthenticatedError):
            site.as_(token).sessions.whoami()
    with pytest.raises((NotAuthenticatedError, NotFoundError)):
        site.as_().sessions.login("eve", PASSWORD)


def test_f70_what_a_session_is_kept_as_lets_nobody_in(site: Running) -> None:
    kept: Any = site.database
    with kept.read() as tx:
        hashes = list(tx.session.connection().exec_driver_sql("select token_sha256 from sessions").scalars())
    assert hashes
    for found in hashes:
        with pytest.raises(NotAuthenticatedError):
            site.as_(str(found)).sessions.whoami()
