"""Jobs by ZeroMQ, over a real socket with real keys: taken, refused by rights, and answered whatever comes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from beamkeeper.cli.app import run
from beamkeeper.config import curve
from beamkeeper.db.base import new_uid
from beamkeeper.domain.audit_log import AuditQuery
from beamkeeper.domain.errors import SettingsError
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.processing import NewJob
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewGrant, NewKey, NewUser, Role, Scope, UserChange
from beamkeeper.domain.workflows import checked_definition
from beamkeeper.engine.jobs.messages import LARGEST
from beamkeeper.engine.jobs.socket import SocketLoop
from beamkeeper.serve.processing import socket_loops
from beamkeeper.testing.services import Running, running

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "submit-jobs-by-zeromq.md"
PASSWORD = "correct horse"
PATIENCE_MS = 30_000
NAMES = ("ada", "chief", "eve", "robot/detector", "robot/reader", "nobody", "shared")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the station's key and those of clients."""
    directory = tmp_path_factory.mktemp("keys")
    for name in ("station", "stranger", *NAMES):
        curve.make(directory / name.replace("/", "-"))
    return directory


@pytest.fixture(scope="module")
def site(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    clients = [f"{curve.read(keys / name.replace('/', '-'))[0]}={name}" for name in NAMES]
    processing = {"zmq_listen": "127.0.0.1:0", "zmq_key_file": str(keys / "station"), "zmq_clients": clients}
    settings: dict[str, Any] = {Service.PROCESSING: processing}
    with running(Service.PROCESSING, directory=tmp_path_factory.mktemp("site"), settings=settings) as made:
        plain = checked_definition({"name": "plain", "stages": {"1": {"command": "true"}}})
        with made.contexts[Service.PROCESSING].database.write() as tx:
            tx.workflows.add("ada", plain, note="", by="ada")
        for name in ("ada", "chief", "eve", "robot"):
            made.client.users.create(NewUser(username=name, password=PASSWORD))
        made.client.users.create(NewUser(username="shared", password=PASSWORD, is_shared=True))
        station = made.client.stations.get("station").uid
        made.client.users.grant(NewGrant(username="chief", role=Role.STATION_MANAGER, station_uid=station))
        ends = datetime.now(UTC) + timedelta(days=1)
        for name, scope in (("detector", Scope.PROCESS), ("reader", Scope.READ)):
            made.client.keys.create(NewKey(name=name, username="robot", scopes=(scope,), expires_at=ends))
        yield made


@pytest.fixture(scope="module")
def coffee(site: Running) -> Experiment:
    made = site.client.experiments.create(NewExperiment(name=f"e{new_uid().hex}", station="station"))
    (site.area / made.directory / "data").mkdir(parents=True, exist_ok=True)
    for name in ("ada", "robot"):
        site.client.experiments.add_user(made.uid, name, Role.USER)
    return made


@pytest.fixture(scope="module")
def loop(site: Running) -> Iterator[SocketLoop]:
    (made,) = socket_loops(site.contexts[Service.PROCESSING])
    made.start()
    assert made.listens.wait(30)
    yield made
    made.stop()
    made.join(30)
    assert not made.is_alive()
    assert site.contexts[Service.PROCESSING].last_error is None


@contextmanager
def connected(loop: SocketLoop, keys: Path, name: str, kind: int = zmq.REQ) -> Iterator[zmq.Socket[bytes]]:
    """Connect with somebody's key."""
    with zmq.Context() as context, context.socket(kind) as socket:
        socket.curve_serverkey = curve.read(keys / "station")[0].encode()
        socket.curve_publickey, socket.curve_secretkey = (word.encode() for word in curve.read(keys / name))
        socket.rcvtimeo = PATIENCE_MS
        socket.linger = 0
        socket.connect(loop.endpoint)
        yield socket


@contextmanager
def watched(socket: zmq.Socket[bytes], events: int) -> Iterator[Callable[[], int]]:
    """Give what waits for the next of these events of a socket."""
    monitor = socket.get_monitor_socket(events)

    def next_event() -> int:
        assert monitor.poll(PATIENCE_MS)
        return int(recv_monitor_message(monitor)["event"])

    try:
        yield next_event
    finally:
        socket.disable_monitor()
        monitor.close()


def ask(loop: SocketLoop, keys: Path, name: str, message: Any) -> dict[str, Any]:
    """Send one message with somebody's key, and return the answer."""
    with connected(loop, keys, name) as socket:
        socket.send(message if isinstance(message, bytes) else json.dumps(message).encode())
        answer: dict[str, Any] = json.loads(socket.recv())
        return answer


def job(experiment: Experiment, **values: Any) -> dict[str, Any]:
    return {"workflow": "plain", "experiment_uid": str(experiment.uid), **values}


@pytest.mark.parametrize("name", ["ada", "robot/detector"])
def test_a_job_is_submitted_once_as_whom_the_key_stands_for(
    site: Running, coffee: Experiment, loop: SocketLoop, keys: Path, name: str
) -> None:
    message = job(coffee, uid=str(new_uid()), arguments={"word": "hello"}, priority=3)
    answers = [ask(loop, keys, name.replace("/", "-"), message) for _ in range(2)]
    assert answers == [{"ok": True, "job": message["uid"], "status": "pending"}] * 2
    (made,) = [one for one in site.client.jobs.list(experiment_uid=coffee.uid) if str(one.uid) == message["uid"]]
    assert (made.owner, made.priority, made.arguments) == (name.partition("/")[0], 3, {"word": "hello"})
    with site.contexts[Service.PROCESSING].database.read() as tx:
        entry = tx.audit_log.page(AuditQuery(limit=1)).items[0]
    assert (entry.username, entry.action, entry.address) == (made.owner, "ZMQ /jobs", "127.0.0.1")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("eve", "not_found"),  # no member: not even that there is such an experiment
        ("robot-reader", "not_permitted"),
        ("nobody", "not_authenticated"),
        ("shared", "not_authenticated"),
    ],
)
def test_who_may_not_run_jobs_is_told_so(
    site: Running, coffee: Experiment, loop: SocketLoop, keys: Path, *, name: str, code: str
) -> None:
    before = len(list(site.client.jobs.list()))
    answer = ask(loop, keys, name, job(coffee))
    assert (answer["ok"], answer["code"]) == (False, code), answer
    assert len(list(site.client.jobs.list())) == before


def test_a_member_works_on_files_of_the_experiment_only_and_as_nobody_else(
    coffee: Experiment, loop: SocketLoop, keys: Path
) -> None:
    for message in (
        job(coffee, arguments={"filePath": "/etc/passwd"}),
        job(coffee, on_behalf_of="eve"),
        {"workflow": "plain"},
    ):
        assert ask(loop, keys, "ada", message)["code"] == "not_permitted"


def test_an_account_that_is_disabled_is_refused_from_the_next_message_on(
    site: Running, coffee: Experiment, loop: SocketLoop, keys: Path
) -> None:
    user = site.client.users.get("ada")
    site.client.users.change(user.username, UserChange(is_enabled=False))
    try:
        assert ask(loop, keys, "ada", job(coffee))["code"] == "not_authenticated"
    finally:
        site.client.users.change(user.username, UserChange(is_enabled=True))


def deep(levels: int) -> bytes:
    return b'{"workflow": "plain", "arguments": {"a": ' + b"[" * levels + b"]" * levels + b"}}"


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (b"", "invalid", "JSON"),
        (b"\xff\xfe\x00", "invalid", "UTF-8"),
        (b"null", "invalid", "the message"),
        (b"[]", "invalid", "the message"),
        (b"{}", "invalid", "workflow"),
        (b'{"workflow": "plain", "colour": 1}', "invalid", "colour"),
        (b'{"workflow": "plain", "workflow": "other"}', "invalid", "twice"),
        (b'{"workflow": "plain", "priority": 1e400}', "invalid", "priority"),
        (b'{"workflow": "plain", "priority": NaN}', "invalid", "NaN"),
        (b'{"workflow": "pl\\u0000ain"}', "not_found", "workflow"),
        (b'{"workflow": "\\ud800"}', "invalid", "workflow"),
        (b'{"workflow": "none"}', "not_found", '"none"'),
        (deep(5000), "invalid", "deeply"),
        (deep(200_000), "invalid", "deeply"),
        (b'{"workflow": "' + b"x" * LARGEST + b'"}', "too_large", str(LARGEST)),
        (b"1" * 500_000, "invalid", "digits"),
    ],
    ids=lambda value: None if isinstance(value, str) else f"{value[:24]!r}-{len(value)}",
)
def test_whatever_a_message_holds_it_is_answered(
    loop: SocketLoop, keys: Path, *, message: bytes, code: str, words: str
) -> None:
    answer = ask(loop, keys, "chief", message)
    assert (answer["ok"], answer["code"]) == (False, code), answer
    assert words in answer["message"]


@pytest.mark.parametrize("parts", [[b"", b"{}", b"{}"], [b"x", b"y"], [b"", b""]])
def test_messages_of_other_shapes_are_answered_too(loop: SocketLoop, keys: Path, parts: Sequence[bytes]) -> None:
    with connected(loop, keys, "ada", zmq.DEALER) as socket:
        socket.send_multipart(parts)
        assert json.loads(socket.recv_multipart()[-1])["code"] == "invalid"


def test_a_frame_beyond_all_measure_ends_its_connection_and_no_other(loop: SocketLoop, keys: Path) -> None:
    with connected(loop, keys, "ada") as socket, connected(loop, keys, "ada") as other:
        with watched(socket, zmq.EVENT_DISCONNECTED) as next_event:
            socket.send(b"x" * (8 * LARGEST))
            next_event()
        other.send(b"{}")
        assert json.loads(other.recv())["code"] == "invalid"


def test_a_key_that_is_not_known_gets_no_answer(loop: SocketLoop, keys: Path) -> None:
    with (
        connected(loop, keys, "stranger") as socket,
        watched(socket, zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_SUCCEEDED) as next_event,
    ):
        assert next_event() == zmq.EVENT_HANDSHAKE_FAILED_AUTH


def test_who_has_no_key_gets_no_answer(loop: SocketLoop) -> None:
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.linger = 0
        with watched(socket, zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED) as next_event:
            socket.connect(loop.endpoint)
            socket.send(b"{}")
            assert next_event() == zmq.EVENT_DISCONNECTED


def test_the_client_of_the_documentation_submits_a_job(
    site: Running, loop: SocketLoop, keys: Path, tmp_path: Path
) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(program.splitlines()) <= 20
    (tmp_path / "submit.py").write_text(program)
    words = [loop.endpoint, curve.read(keys / "station")[0], str(keys / "chief"), "plain", "word:hello"]
    done = subprocess.run(
        [sys.executable, str(tmp_path / "submit.py"), *words], capture_output=True, text=True, check=True
    )
    assert site.client.jobs.get(json.loads(done.stdout)["job"]).arguments == {"word": "hello"}


def test_the_documentation_names_every_field_of_a_message() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), flags=re.MULTILINE)) == set(NewJob.model_fields)


def test_dm_makes_a_key_once_and_shows_its_public_half(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "client.key"
    assert run(["job", "make-key", str(file)]) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    public = capfd.readouterr().out.strip()
    assert (public, file.read_text().strip()) == curve.read(file)
    assert run(["job", "make-key", str(file)]) == 0
    assert capfd.readouterr().out.strip() == public


def test_keys_that_others_can_read_or_that_are_none_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "station.key"
    with pytest.raises(SettingsError, match="dm job make-key"):
        curve.read(file)
    curve.make(file)
    file.chmod(0o640)
    with pytest.raises(SettingsError, match="chmod 600"):
        curve.read(file)
    file.write_text("é" * 20)
    file.chmod(0o600)
    with pytest.raises(SettingsError, match="holds no key"):
        curve.read(file)


def test_the_socket_is_off_unless_it_is_set_up_and_set_up_whole(tmp_path: Path) -> None:
    with running(Service.PROCESSING, directory=tmp_path / "off") as made:
        assert socket_loops(made.contexts[Service.PROCESSING]) == []
    settings: dict[str, Any] = {Service.PROCESSING: {"zmq_listen": "127.0.0.1:0"}}
    with (
        running(Service.PROCESSING, directory=tmp_path / "half", settings=settings) as made,
        pytest.raises(SettingsError, match="zmq_key_file"),
    ):
        socket_loops(made.contexts[Service.PROCESSING])
