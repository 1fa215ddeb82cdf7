"""`dm up`, `down`, `status`, `serve` and what else is done to a beamline of this machine, with real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from beamkeeper.client.logins import Logins, Profile
from beamkeeper.domain.status import PORTAL, SERVED, Service
from beamkeeper.engine.processes import Process
from beamkeeper.engine.supervise import Running, find_running, stop_running
from beamkeeper.testing.servers import free_ports
from beamkeeper.testing.station import until

DM = (sys.executable, "-c", "from beamkeeper.cli.app import main; main()")


class Beamline:
    """A data directory with settings of its own, and a home for who works with it."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.home = directory / "home"
        self.data.mkdir()
        self.home.mkdir(mode=0o700)
        self.ports = dict(zip(SERVED, free_ports(len(SERVED)), strict=True))
        lines = [f'{service}.listen = "127.0.0.1:{port}"' for service, port in self.ports.items()]
        self.settings = self.data / "beamkeeper.toml"
        self.settings.write_text("\n".join([*lines, 'station.name = "TEST"', ""]))

    def environ(self, home: Path | None = None) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("BEAMKEEPER_", "XDG_"))}
        return {**kept, "HOME": str(home or self.home), "BEAMKEEPER_DATA_DIR": str(self.data)}

    def dm(self, *words: str, home: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        environ = {**self.environ(home), **more}
        return subprocess.run([*DM, *words], env=environ, capture_output=True, text=True, check=False, timeout=90)

    def logins(self, home: Path | None = None) -> Mapping[str, Profile]:
        return Logins((home or self.home) / ".config/beamkeeper/logins.json").all()

    @property
    def running(self) -> Running | None:
        return find_running(self.data)


@pytest.fixture
def beamline(tmp_path: Path) -> Iterator[Beamline]:
    """A beamline that has never been up."""
    beamline = Beamline(tmp_path)
    yield beamline
    stop_running(beamline.data, 0)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beamline]:
    """A beamline that is up, for tests that leave it so."""
    beamline = Beamline(tmp_path_factory.mktemp("shared"))
    done = beamline.dm("up")
    assert done.returncode == 0, done.stderr
    yield beamline
    stop_running(beamline.data, 0)


def rows(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return {row["service"]: row for row in json.loads(done.stdout)}


def test_a_beamline_comes_up_goes_down_and_comes_up_again_as_it_was(beamline: Beamline) -> None:
    done = beamline.dm("up", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["was_running"] is False
    assert told["data_dir"] == str(beamline.data)
    assert told["logged_in"] == beamline.logins()["default"].username
    assert not (beamline.data / "first-session.json").exists()
    assert beamline.dm("status").returncode == 0
    assert beamline.dm("whoami").returncode == 0

    assert beamline.dm("down").stdout == "stopped.\n"
    assert beamline.running is None
    assert beamline.dm("down").stdout == f"nothing runs on {beamline.data}.\n"
    down = beamline.dm("status", "--json")
    assert down.returncode == 8
    assert [row["is_up"] for row in rows(down).values()] == [False] * len(Service)

    token = beamline.logins()["default"].token
    assert beamline.dm("up").returncode == 0
    assert beamline.logins()["default"].token == token
    assert beamline.dm("whoami").returncode == 0


def test_a_beamline_that_was_killed_comes_up_again(beamline: Beamline) -> None:
    assert beamline.dm("up").returncode == 0
    running = beamline.running
    assert running is not None
    assert running.child is not None
    os.kill(running.process.pid, signal.SIGKILL)
    os.kill(running.child.pid, signal.SIGKILL)
    until(lambda: not running.process.is_alive and not (running.child and running.child.is_alive), "both are gone")
    done = beamline.dm("up")
    assert done.returncode == 0, done.stderr
    assert "is up." in done.stdout
    assert beamline.dm("whoami").returncode == 0


def test_a_beamline_that_is_up_is_left_alone(shared: Beamline) -> None:
    before = shared.running
    done = shared.dm("up")
    assert done.returncode == 0
    assert "is up already." in done.stdout
    assert shared.running == before


def test_up_brings_a_portal_that_one_can_log_in_at(shared: Beamline) -> None:
    url = json.loads(shared.dm("up", "--json").stdout)["urls"]["portal"]
    assert url == f"http://127.0.0.1:{shared.ports[PORTAL]}"
    with urllib.request.urlopen(f"{url}/experiments") as answer:  # noqa: S310 - of our own beamline
        assert answer.url == f"{url}/login?next=%2Fexperiments"
        assert b"Log in" in answer.read()


def test_the_first_administrator_comes_into_the_portal_without_a_password(shared: Beamline) -> None:
    way = json.loads(shared.dm("portal", "--json").stdout)
    assert way["address"].startswith(f"{way['portal']}/enter/")
    assert shared.dm("portal").stdout.strip() not in ("", way["address"])
    with urllib.request.urlopen(way["address"]) as answer:  # noqa: S310 - of our own beamline
        assert f"Go in as {shared.logins()['default'].username}?" in answer.read().decode()


def test_a_beamline_without_a_portal_comes_up(beamline: Beamline) -> None:
    with beamline.settings.open("a") as settings:
        settings.write("portal.enabled = false\n")
    told = beamline.dm("up", "--json")
    assert told.returncode == 0, told.stderr
    assert list(json.loads(told.stdout)["urls"]) == [*Service]
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", beamline.ports[PORTAL])).close()


def test_status_tells_of_each_service(shared: Beamline) -> None:
    found = rows(shared.dm("status", "--json"))
    assert list(found) == [*Service]
    for service, row in found.items():
        assert row["is_up"]
        assert row["url"] == f"http://127.0.0.1:{shared.ports[Service(service)]}"
        assert row["status"]["database"] == "SQLite: answers"
    shown = shared.dm("status")
    assert shown.returncode == 0
    assert shown.stdout.count(" up ") == len(Service)


def test_status_without_a_login_tells_what_anybody_may_know(shared: Beamline, tmp_path: Path) -> None:
    done = shared.dm("status", "--json", home=tmp_path)
    assert done.returncode == 0
    for row in rows(done).values():
        assert row["is_up"]
        assert row["status"] is None
        assert "dm login" in row["message"]


def test_a_login_elsewhere_is_not_lost(shared: Beamline, tmp_path: Path) -> None:
    logins = Logins(tmp_path / ".config/beamkeeper/logins.json")
    elsewhere = Profile.model_validate({"url": "https://site.example.org", "username": "ada", "token": "secret"})
    logins.put("default", elsewhere)
    done = shared.dm("up", home=tmp_path)
    assert done.returncode == 0
    assert "https://site.example.org" in done.stderr
    assert shared.logins(tmp_path) == {"default": elsewhere}
    assert shared.dm("--profile", "here", "up", home=tmp_path).returncode == 0
    assert shared.logins(tmp_path)["default"] == elsewhere
    assert shared.logins(tmp_path)["here"].url == f"http://127.0.0.1:{shared.ports[Service.STORAGE]}"
    assert shared.dm("--profile", "here", "whoami", home=tmp_path).returncode == 0


def test_a_login_that_has_ended_is_renewed_and_keeps_its_experiment(shared: Beamline, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{shared.ports[Service.STORAGE]}"
    ended = {"url": url, "token": "old", "expires_at": "2026-01-01T00:00:00Z", "experiment": "lysozyme"}
    Logins(tmp_path / ".config/beamkeeper/logins.json").put("default", Profile.model_validate(ended))
    assert shared.dm("up", home=tmp_path).returncode == 0
    assert shared.logins(tmp_path)["default"].experiment == "lysozyme"
    assert shared.dm("whoami", home=tmp_path).returncode == 0


@pytest.mark.parametrize("words", [("db", "upgrade"), ("restore", "--yes", "nowhere")])
def test_what_needs_the_databases_alone_is_refused_while_the_beamline_runs(
    shared: Beamline, words: tuple[str, ...]
) -> None:
    done = shared.dm(*words)
    assert done.returncode == 7
    assert "dm down" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_port_that_another_program_has_is_named(beamline: Beamline) -> None:
    with socket.create_server(("127.0.0.1", beamline.ports[Service.CATALOG])):
        done = beamline.dm("up")
    assert done.returncode == 8
    assert f"127.0.0.1:{beamline.ports[Service.CATALOG]}" in done.stderr
    assert "catalog.listen" in done.stderr
    assert list(beamline.data.iterdir()) == [beamline.settings]


def test_wrong_settings_start_nothing(beamline: Beamline) -> None:
    with beamline.settings.open("a") as file:
        file.write("[storage.area]\n")
    done = beamline.dm("up")
    assert done.returncode == 3
    assert done.stderr.startswith(f"dm: {beamline.settings}:{len(SERVED) + 2}: ")
    assert list(beamline.data.iterdir()) == [beamline.settings]


def test_services_that_cannot_start_say_why_and_nothing_is_left_running(beamline: Beamline) -> None:
    (beamline.data / "service.key").mkdir()
    done = beamline.dm("up")
    assert done.returncode == 8
    assert done.stderr.startswith("dm: the beamline did not start: ")
    assert "service.key" in done.stderr
    assert str(beamline.data / "log" / "beamkeeper.log") in done.stderr
    assert beamline.running is None


def test_up_in_the_foreground_is_the_supervisor_itself(beamline: Beamline) -> None:
    words = [*DM, "up", "--foreground"]
    process = subprocess.Popen(words, env=beamline.environ(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        running = until(lambda: beamline.running, "the supervisor runs")
        assert running.process.pid == process.pid
        assert beamline.dm("up").returncode == 0
        child = until(lambda: beamline.running and beamline.running.child, "its child runs")
        assert isinstance(child, Process)
    finally:
        process.terminate()
        assert process.wait(60) == 0
    assert not child.is_alive


def test_serve_knows_its_services() -> None:
    done = subprocess.run([*DM, "serve", "kitchen"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'storage', 'catalog', 'acquisition', 'processing', 'portal'" in done.stderr


def test_serve_runs_services_in_the_foreground(beamline: Beamline) -> None:
    words = [*DM, "serve", "storage"]
    process = subprocess.Popen(words, env=beamline.environ(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: rows(beamline.dm("status", "--json"))["storage"]["is_up"], "storage answers")
        assert not rows(beamline.dm("status", "--json"))["catalog"]["is_up"]
    finally:
        process.terminate()
        assert process.wait(60) == 0


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Beamline, Path]]:
    """A beamline that is down, with an experiment "first", and a backup of before its experiment "second"."""
    beamline = Beamline(tmp_path_factory.mktemp("saved"))
    assert beamline.dm("up").returncode == 0
    assert beamline.dm("experiment", "create", "first").returncode == 0
    directory = beamline.home / "backup"
    done = beamline.dm("backup", str(directory), "--json")
    assert done.returncode == 0, done.stderr
    assert any(str(directory) in line for line in json.loads(done.stdout)["told"])
    assert beamline.dm("experiment", "create", "second").returncode == 0
    stop_running(beamline.data, 0)
    yield beamline, directory
    stop_running(beamline.data, 0)


def experiments(beamline: Beamline) -> set[str]:
    with closing(sqlite3.connect(beamline.data / "storage.db")) as connection:
        return {name for (name,) in connection.execute("select name from experiments")}


def test_a_backup_goes_into_a_new_directory_only(saved: tuple[Beamline, Path]) -> None:
    again = saved[0].dm("backup", str(saved[1]))
    assert again.returncode == 2
    assert "not empty" in again.stderr


def test_a_restore_goes_back_and_forward_again(saved: tuple[Beamline, Path]) -> None:
    beamline, directory = saved
    unanswered = beamline.dm("restore", str(directory))
    assert unanswered.returncode == 2
    assert "give --yes" in unanswered.stderr
    done = beamline.dm("restore", str(directory), "--yes")
    assert done.returncode == 0, done.stderr
    (kept,) = beamline.data.glob("before-restore-*")
    assert f"what was there is kept in {kept}" in done.stdout
    assert kept.stat().st_mode & 0o777 == 0o700
    assert experiments(beamline) == {"first"}
    assert beamline.dm("restore", str(kept), "--yes").returncode == 0
    assert experiments(beamline) == {"first", "second"}


def test_after_a_disaster_a_backup_brings_the_beamline_back(saved: tuple[Beamline, Path], beamline: Beamline) -> None:
    """In a data directory without settings, where a database is damaged, and for an account that is not logged in."""
    beamline.settings.unlink()
    (beamline.data / "catalog.db").write_bytes(b"no database at all" * 1000)
    done = beamline.dm("restore", str(saved[1]), "--yes")
    assert done.returncode == 0, done.stderr
    assert f"the one that was in use is {saved[1] / 'beamkeeper.toml'}" in done.stdout
    (kept,) = beamline.data.glob("before-restore-*")
    assert (kept / "catalog.db").read_bytes() == b"no database at all" * 1000
    beamline.settings.write_bytes((saved[1] / "beamkeeper.toml").read_bytes())
    assert beamline.dm("up").returncode == 0
    listed = beamline.dm("experiment", "list", "--json")
    assert {found["name"] for found in json.loads(listed.stdout)} == {"first"}


def test_nothing_starts_after_a_restore_that_was_interrupted(saved: tuple[Beamline, Path], beamline: Beamline) -> None:
    (beamline.data / "restore-unfinished").write_text(f"{saved[1]}\n")  # as a kill between two commits leaves it
    refused = beamline.dm("serve", "storage")
    assert refused.returncode != 0
    assert f"run `dm restore {saved[1]}` again" in refused.stderr
    assert beamline.dm("restore", str(saved[1]), "--yes").returncode == 0
    assert not (beamline.data / "restore-unfinished").exists()
    assert experiments(beamline) == {"first"}
