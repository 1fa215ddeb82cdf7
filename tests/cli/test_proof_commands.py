"""`dm ledger`, `wipe`, `hold`, `scrub` and `audit`, on a real beamline: what is said, and the exit status."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from uuid6 import uuid7

from beamkeeper.cli.app import run
from beamkeeper.client import Client
from beamkeeper.domain.acquisition import JournalState, NewDaq, State
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.users import NewUser, Role
from beamkeeper.testing.station import Station, experiment, station, until

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Station, Client]]:
    with station(tmp_path_factory.mktemp("station")) as made:
        yield made, made.start()


@dataclass
class Dm:
    """The command line of a station's administrator, with an experiment and two files."""

    made: Station
    client: Client
    of: Experiment
    source: Path
    capsys: pytest.CaptureFixture[str]
    status: int = 0
    err: str = ""

    def __call__(self, *words: object) -> str:
        self.capsys.readouterr()
        self.status = run([str(word) for word in words])
        said = self.capsys.readouterr()
        self.err = said.err
        return said.out

    def json(self, *words: object) -> Any:
        return json.loads(self(*words, "--json"))

    def stored(self, name: str) -> Path:
        return self.made.storage / self.of.directory / "data" / name


@pytest.fixture
def bare(
    running: tuple[Station, Client],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Dm:
    made, client = running
    monkeypatch.setenv("BEAMKEEPER_URL", client.url)
    monkeypatch.setenv("BEAMKEEPER_TOKEN", client.credentials.token or "")
    monkeypatch.setenv("BEAMKEEPER_STATION", "TEST")
    (source := tmp_path / "detector").mkdir()
    of = experiment(client, f"e{uuid7().hex[-10:]}")
    monkeypatch.setenv("BEAMKEEPER_MIRROR", client.credentials.mirror)
    (source / "scan").mkdir()
    (source / "a.tif").write_bytes(b"frame one")
    (source / "scan" / "b\n.tif").write_bytes(b"frame two")
    return Dm(made, client, of, source, capsys)


@pytest.fixture
def dm(bare: Dm) -> Dm:
    """The same, with both files delivered."""
    new = NewDaq.model_validate({"experiment_uid": bare.of.uid, **path_fields(os.fsencode(bare.source)[1:])})
    daq = bare.client.daqs.start(new)
    bare.client.daqs.stop(daq.uid)
    assert bare.client.daqs.wait(daq.uid, timeout_s=60).state is State.DONE
    return bare


def test_the_ledger_says_what_is_stored_and_verified_by_directory(dm: Dm) -> None:
    said = dm("ledger", "show", dm.of.name)
    assert dm.status == 0
    assert "data/scan" in said
    assert "All 2 files are stored and verified (18 B)." in said
    shown = dm.json("ledger", "show", dm.of.name, "--directory", "data/scan")
    assert (shown["total"]["arrived"], shown["total"]["verified"]) == (1, 1)
    assert dm("ledger", "show", dm.of.name, "--directory", "data/none") == ""
    assert (dm.status, 'has no directory "data/none"' in dm.err) == (6, True)


def test_the_ledger_says_what_is_missing(dm: Dm) -> None:
    (dm.source / "later").mkdir()
    (dm.source / "later" / "new.tif").write_bytes(b"not taken")
    where = {"destination": "later", **path_fields(os.fsencode(dm.source / "later")[1:])}
    daq = dm.client.daqs.start(NewDaq.model_validate({"experiment_uid": dm.of.uid, "quiet_s": 600.0, **where}))
    until(lambda: dm.client.daqs.get(daq.uid).count(JournalState.CANDIDATE) == 1, "the candidate")
    said = dm("ledger", "show", dm.of.name)
    dm.client.daqs.stop(daq.uid, now=True)
    assert "2 of 3 files are stored and verified (18 B stored); 1 seen and not stored." in said


def test_a_plan_says_no_with_the_reason_and_yes_where_age_is_waived(dm: Dm) -> None:
    said = dm("wipe", "plan", dm.source)
    assert dm.status == 10
    assert said.startswith("safe to wipe: NO\n")
    assert said.count("too-young") == 3  # how many, and each of the two
    assert "it is younger than 24 h" in said
    assert r"b\x0a.tif" in said
    said = dm("wipe", "plan", dm.source, "--min-age", "0")
    assert dm.status == 0
    assert said.startswith("safe to wipe: YES\n")
    assert "2 files (18 B): every one is catalogued as it is, unchanged, not open" in said
    (dm.source / "unseen").touch()
    answer = dm.json("wipe", "plan", dm.source, "--min-age", "0")
    assert (dm.status, answer["is_safe"], [e["reason"] for e in answer["entries"]]) == (10, False, ["never-seen"])


def test_a_run_asks_deletes_just_that_and_can_be_looked_up(dm: Dm, monkeypatch: pytest.MonkeyPatch) -> None:
    said = dm("wipe", "run", dm.source, "--yes")
    assert (dm.status, "safe to wipe: NO" in said) == (10, True)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    dm("wipe", "run", dm.source, "--min-age", "0")
    assert (dm.status, "Delete 2 files (18 B) below" in dm.err, "nothing was done" in dm.err) == (1, True, True)
    assert len(list(dm.source.rglob("*.tif"))) == 2
    said = dm("wipe", "run", dm.source, "--min-age", "0", "--remove-empty", "--yes")
    assert dm.status == 0
    assert "deleted: 2 files (18 B)." in said
    assert "removed: 1 empty directories." in said
    assert list(dm.source.iterdir()) == []
    assert dm.stored("a.tif").read_bytes() == b"frame one"
    (newest, *_) = dm.json("wipe", "list")
    assert (newest["deleted_files"], newest["state"]) == (2, "done")
    assert "deleted: 2 files (18 B)." in dm("wipe", "show", newest["uid"])
    assert dm.status == 0
    assert "done" in dm("wipe", "list")
    said = dm("wipe", "plan", dm.source)
    assert (dm.status, "there is no file in it" in said) == (10, True)


def test_a_hold_forbids_a_wipe_until_it_is_removed(dm: Dm) -> None:
    dm("hold", "add", dm.source / "scan", "--why", "we look at it")
    assert dm.status == 0
    said = dm("wipe", "plan", dm.source, "--min-age", "0")
    assert (dm.status, "held" in said, "detector/a.tif" in said) == (10, True, False)
    assert "we look at it" in dm("hold", "list")
    said = dm("hold", "remove", dm.source / "scan")
    assert (dm.status, "is held by" in said) == (0, True)
    assert [one for one in dm.json("hold", "list") if "we look" in one["why"]] == []
    dm("hold", "remove", dm.source / "scan")
    assert (dm.status, "there is no hold" in dm.err) == (6, True)
    dm("wipe", "plan", dm.source, "--min-age", "0")
    assert dm.status == 0


def test_a_scrub_reads_copies_again_and_tells_of_one_that_decayed(dm: Dm) -> None:
    said = dm("scrub", dm.of.name, "--older-than", "0")
    assert dm.status == 0
    assert "2 copies read, all as they should be" in said
    stored = dm.stored("a.tif")
    stored.chmod(0o600)
    stored.write_bytes(b"frame 0ne")
    said = dm("scrub", dm.of.name, "--older-than", "0", "--rate", "10MB/s")
    assert dm.status == 10
    assert "it has other bytes" in said
    assert "data/a.tif" in said
    found = dm.json("scrub", dm.of.name, "--older-than", "0")
    assert [(f["path"], f["kind"], f["is_confirmed"]) for f in found["findings"]] == [("data/a.tif", "different", True)]
    said = dm("wipe", "plan", dm.source, "--min-age", "0")
    assert (dm.status, "suspect" in said) == (10, True)
    said = dm("ledger", "show", dm.of.name)
    assert "1 of 2 files are stored and verified" in said


def test_a_scrub_can_be_asked_for_and_stopped(bare: Dm) -> None:
    bare("scrub", bare.of.name, "--older-than", "0", "--rate", "1", "--no-wait")
    assert bare.status == 0
    assert bare("scrub", "--stop").strip() in ("1 asked to stop.", "none runs.")


def test_an_audit_tells_what_is_dark_and_what_is_lost(dm: Dm) -> None:
    said = dm("audit", dm.of.name)
    assert (dm.status, "done" in said) == (0, True)
    dm.stored("dark.tif").write_bytes(b"nobody knows")
    dm.stored("a.tif").unlink()
    said = dm("audit", dm.of.name)
    assert dm.status == 10
    assert "data/dark.tif" in said
    assert "it is catalogued, and not in the storage" in said
    (second,) = dm.json("audit", dm.of.name)
    assert (second["dark"], second["lost"], second["confirmed"]) == (1, 1, 2)
    assert dm.stored("dark.tif").exists()


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["wipe", "plan", "missing"], 9, "does not exist"),
        (["wipe", "plan", "a.tif"], 9, "is no directory"),
        (["wipe", "plan", "/"], 2, "root directory"),
        (["wipe", "plan", ".", "--min-age", "soon"], 2, "is no time"),
        (["wipe", "run", "missing", "--yes"], 9, "does not exist"),
        (["wipe", "show", "seven"], 2, "UUID"),
        (["wipe", "show", str(uuid7())], 6, "there is no"),
        (["hold", "add", "/"], 2, "root directory"),
        (["hold", "remove", str(uuid7())], 6, "there is no hold"),
        (["scrub", "nonesuch"], 6, "nonesuch"),
        (["scrub", "--rate", "fast"], 2, "fast"),
        (["audit", "nonesuch"], 6, "nonesuch"),
        (["ledger", "show", "nonesuch"], 6, "nonesuch"),
    ],
)
def test_bad_input_is_one_sentence_and_a_status(
    bare: Dm, monkeypatch: pytest.MonkeyPatch, words: list[str], status: int, sentence: str
) -> None:
    monkeypatch.chdir(bare.source)
    assert bare(*words) == ""
    assert (bare.status, sentence in bare.err) == (status, True), bare.err
    assert len(list(bare.source.rglob("*.tif"))) == 2


def test_who_may_not_is_told_so(bare: Dm, monkeypatch: pytest.MonkeyPatch) -> None:
    username = f"u{bare.of.name}"
    bare.client.users.create(NewUser.model_validate({"username": username, "password": PASSWORD}))
    bare.client.experiments.add_user(bare.of.uid, username, Role.USER)
    with Client(bare.client.url, username=username, password=PASSWORD, logins=bare.made.logins) as user:
        user.experiments.get(bare.of.name)
        monkeypatch.setenv("BEAMKEEPER_TOKEN", user.credentials.token or "")
        monkeypatch.setenv("BEAMKEEPER_MIRROR", user.credentials.mirror)
        for words in (("wipe", "plan", bare.source), ("scrub", bare.of.name), ("audit", bare.of.name)):
            assert bare(*words) == ""
            assert bare.status == 5, (words, bare.err)
        bare("hold", "add", bare.source)
        assert bare.status == 0
        bare("hold", "remove", bare.source)


def test_copies_are_made_listed_read_and_dropped(dm: Dm, tmp_path: Path) -> None:
    (second := tmp_path / "second").mkdir()
    area = f"second{uuid7().hex[-6:]}"
    dm("storage", "add", area, second)
    asked = dm.json("replica", "add", dm.of.name, "data/*", "--area", area)
    assert (asked["state"], asked["done"], dm.status) == ("done", 2, 0)
    said = dm("replica", "list", dm.of.name, "data/a.tif")
    assert said.count("verified") >= 2
    assert "main (own)" in said
    assert f"{area}" in dm("ledger", "show", dm.of.name)
    assert [one["state"] for one in dm.json("replica", "list", dm.of.name, "--area", area)] == ["verified"] * 2
    assert "2" in dm("replica", "verify", dm.of.name, "--area", area)
    assert dm.status == 0
    dm("replica", "drop", dm.of.name, "--area", "main", "--yes")
    assert dm.status == 10
    assert dm.json("replica", "drop", dm.of.name, "data/a.tif", "--area", area, "--yes")["done"] == 1
    assert dm.status == 0
    assert sorted(one["action"] for one in dm.json("replica", "requests")[:4]) == ["add", "drop", "drop", "verify"]
    (dm.source / "c.tif").write_bytes(b"more")
    dm("upload", "start", dm.source, "--experiment", dm.of.name, "--also", area, "--follow")
    assert dm.status == 0
    until(lambda: "no copies wait" in dm("upload", "show", "--experiment", dm.of.name), "the copies")
    assert dm("upload", "start", dm.source, "--experiment", dm.of.name, "--also", "nowhere") == ""
    assert 'no storage area "nowhere"' in dm.err
