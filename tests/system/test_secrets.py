"""No secret is where others may read it: a whole system runs with planted ones, and then everything is searched."""

from __future__ import annotations

import json
import secrets
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from beamkeeper.client import Client
from beamkeeper.domain.acquisition import NewUpload, State
from beamkeeper.domain.errors import DmError
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.people import SyncKind
from beamkeeper.domain.storage import NewStorageArea
from beamkeeper.domain.users import NewKey, NewUser, Scope
from beamkeeper.testing.objects import S3, SECRET
from beamkeeper.testing.slapd import Slapd
from beamkeeper.testing.station import Station, popen, station


class Planted(dict[str, str]):
    """The secrets by what they are."""

    def new(self, what: str) -> str:
        """Plant one more."""
        self[what] = secrets.token_hex(16)
        return self[what]

    def within(self, text: bytes, *, but: frozenset[str] = frozenset()) -> set[str]:
        """Return what of the secrets is in a text."""
        return {what for what, secret in self.items() if what not in but and secret.encode() in text}


class Commands:
    """Reads the command lines of all processes, again and again."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._is_over.wait(0.005):
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    self.seen.add(process.read_bytes())

    @contextmanager
    def read(self) -> Iterator[None]:
        """Read them while the block lasts."""
        self._thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            self._thread.join()


def in_vain(client: Client, username: str, password: str) -> None:
    with pytest.raises(DmError):
        client.sessions.login(username, password)


def people(place: Station, admin: Client, planted: Planted, server: Slapd) -> None:
    """Log in and fail to, change a password, be somebody of the directory."""
    server.add_person("ada", planted.new("password in the directory"), number=4711)
    admin.syncs.run(SyncKind.USERS)
    new = NewUser(username="maria", password=SecretStr(planted.new("password")))
    admin.users.create(new)
    with Client(admin.url, logins=place.logins, station="TEST") as client:
        in_vain(client, "maria", planted.new("wrong password"))
        in_vain(client, planted.new("password typed as a name"), "x")
        in_vain(client, "ada", planted.new("wrong password in the directory"))
        planted["token of the directory's"] = client.sessions.login("ada", planted["password in the directory"]).token
        planted["token"] = client.sessions.login("maria", planted["password"]).token
        client.users.set_password("maria", planted.new("new password"), present=planted["password"])
        in_vain(client, "maria", planted["password"])
        soon = datetime.now(UTC) + timedelta(hours=1)
        planted["API key"] = client.keys.create(NewKey(name="k", scopes=[Scope.READ], expires_at=soon)).token
    with Client(admin.url, token=planted["API key"], logins=place.logins, station="TEST") as machine:
        machine.sessions.whoami()
    nobody = Client(admin.url, token=planted.new("token of nobody"), logins=place.logins, station="TEST")
    with nobody, pytest.raises(DmError):
        nobody.sessions.whoami()
    planted["token of a station"] = admin.stations.make_token("TEST").token


def files(admin: Client, planted: Planted, directory: Path, s3: S3) -> Experiment:
    """Deliver to an object store, and to a directory; give a link to what is there."""
    url = s3.url(directory.name)
    area = admin.storage_areas.add(NewStorageArea(name="objects", station_url=url, path=url))
    source = directory / "detector"
    source.mkdir()
    (source / "frame.tif").write_bytes(b"photons")
    at = path_fields(bytes(source)[1:])["path_b64"]
    for name, area_uid in (("far", area.uid), ("near", None)):
        made = admin.experiments.create(NewExperiment(name=name, station="TEST", storage_area_uid=area_uid))
        upload = admin.uploads.start(NewUpload(experiment_uid=made.uid, path_b64=at))
        assert admin.uploads.wait(upload.uid, timeout_s=60).state is State.DONE
    frozen = admin.downloads.freeze(made.uid, "mine", admin.files.find(FileQuery(experiment_uid=made.uid)))
    admin.links.allow(made.uid, True)
    _, link = admin.links.create(frozen, datetime.now(UTC) + timedelta(hours=1))
    planted["link"] = link.split("/shared/")[1].split("/")[0]
    return made


def commands(place: Station, admin: Client, planted: Planted) -> None:
    """Use the program as people do: a login with a file, and a command after it."""
    file = place.directory / "maria.password"
    file.touch(mode=0o600)
    file.write_text(planted["new password"])
    environ = {"HOME": str(place.directory), "PATH": "/usr/bin:/bin", "BEAMKEEPER_URL": admin.url}
    dm = [sys.executable, "-c", "from beamkeeper.cli.app import main; main()"]
    for words in (["login", "maria", "--password-file", str(file)], ["whoami"]):
        done = subprocess.run([*dm, *words], env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert not planted.within((done.stdout + done.stderr).encode())


def texts(databases: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every value of every table, by its column."""
    for path in sorted(databases.glob("*.db")):
        with closing(sqlite3.connect(path)) as connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                found = connection.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - the names are of the database
                for row in found:
                    for column, value in zip(found.description, row, strict=True):
                        text = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
                        yield f"{path.name} {table}.{column[0]}", text


def test_no_secret_is_in_a_log_a_command_line_or_a_database(
    tmp_path: Path, directory_server: Slapd, s3_server: S3
) -> None:
    planted = Planted({"keys of the object store": SECRET, "password of the binding": directory_server.admin_password})
    database = f"postgresql://facility:{planted.new('password of the facility')}@127.0.0.1:1/people"
    tables: dict[str, dict[str, object]] = {
        "log": {"level": "debug"},
        "people": {"directory": "ldap", "proposals": "sql", "authenticators": ["ldap"]},
        "facility.ldap": directory_server.options(),
        "proposals.sql": {"url": database, "query": "SELECT 1"},
        "transfer.rclone": {"config": str(s3_server.config)},
    }
    settings = "".join(
        f"[{table}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in options.items())
        for table, options in tables.items()
    )
    seen = Commands()
    with station(tmp_path, settings=settings, spawn=popen) as place, seen.read():
        admin = place.start()
        planted["first token"] = json.loads((place.data / "first-session.json").read_text())["token"]
        planted["service key"] = (place.data / "service.key").read_text().strip()
        people(place, admin, planted, directory_server)
        assert planted["password of the facility"] not in admin.syncs.run(SyncKind.PROPOSALS).message
        files(admin, planted, tmp_path, s3_server)
        commands(place, admin, planted)
    log = place.log.read_bytes()
    assert b"rclone" in b"".join(seen.seen)
    assert b"login" in log or b"sessions" in log
    assert not planted.within(log)
    lines = {line for line in seen.seen if b"--auth-key" not in line}  # of the store that the test itself runs
    assert {line for line in lines if planted.within(line)} == set()
    assert {column for column, text in texts(place.data) if planted.within(text)} == set()
