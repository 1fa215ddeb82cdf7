"""`dm dataset`, `dm run`, `dm why` and `dm experiment meta`, in this process, on real services."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from beamkeeper.cli.app import run
from beamkeeper.domain.experiments import NewExperiment
from beamkeeper.domain.status import Service
from beamkeeper.testing.catalogue import new_file
from beamkeeper.testing.services import Running, running

NUMBERS = count(1)


@pytest.fixture(scope="module")
def beamline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(Service.CATALOG, directory=tmp_path_factory.mktemp("site")) as made:
        yield made


class Dm:
    """Runs commands as the operator, for an experiment of its own."""

    def __init__(self, beamline: Running, capsys: pytest.CaptureFixture[str], name: str) -> None:
        self._beamline = beamline
        self._capsys = capsys
        self.name = name
        station = beamline.settings.station.name
        self.uid = beamline.client.experiments.create(NewExperiment(name=name, station=station)).uid

    def fill(self, *paths: str | bytes, **changes: Any) -> None:
        service = self._beamline.as_service()
        service.credentials.mirror = self._beamline.client.credentials.mirror
        service.files.register([new_file(path, experiment_uid=self.uid, **changes) for path in paths])

    def __call__(self, *words: str, status: int = 0) -> str:
        of = [] if words[:1] == ("experiment",) else ["--experiment", self.name]
        assert run([*words, *of]) == status
        printed = self._capsys.readouterr()
        return printed.out + printed.err

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json"))


@pytest.fixture
def dm(beamline: Running, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Dm:
    monkeypatch.setenv("BEAMKEEPER_URL", beamline.urls[Service.STORAGE])
    monkeypatch.setenv("BEAMKEEPER_TOKEN", beamline.bootstrap.operator.token)
    return Dm(beamline, capsys, f"e{next(NUMBERS)}")


def test_a_dataset_from_its_making_to_its_freezing(dm: Dm) -> None:
    dm.fill("data/a.tif", "data/b.tif", b"data/\x1b[31m.tif", "data/c.h5")
    assert "no dataset yet" in dm("dataset", "list")
    assert "silver" in dm("dataset", "create", "silver", "sample=Ag", "--title", "All of silver")
    assert "added 3" in dm("dataset", "add", "silver", "data/*.tif", "data/a.tif")
    assert "has 4 files, 20 B now" in dm("dataset", "add", "silver", "data/c.h5")
    assert "removed 1" in dm("dataset", "remove", "silver", "data/c.h5")
    assert "no file" in dm("dataset", "add", "silver", "data/none", status=6)
    assert "say which files" in dm("dataset", "add", "silver", status=2)
    assert "added 1" in dm("dataset", "add", "silver", "--query", 'path ~ "*.h5"')
    assert "removed 1" in dm("dataset", "remove", "silver", "*.h5")
    shown = dm("dataset", "show", "silver")
    for text in ("All of silver", "open", "3 files, 15 B", "data/a.tif", r"\x1b[31m", "sample", "Ag"):
        assert text in shown
    assert "1 of 3 files" in dm("dataset", "show", "silver", "--limit", "1")
    assert "frozen: 3 files" in dm("dataset", "freeze", "silver", "--yes")
    assert "frozen" in dm("dataset", "add", "silver", "data/c.h5", status=7)
    dm("dataset", "meta", "set", "silver", "energy=12.4", "--unit", "keV", "--remove", "sample")
    assert dm.json("dataset", "meta", "get", "silver") == {"energy": {"value": 12.4, "unit": "keV"}}
    assert "12.4 keV" in dm("dataset", "meta", "history", "silver")
    assert [row["state"] for row in dm.json("dataset", "list")] == ["frozen"]
    uid = dm.json("dataset", "list")[0]["uid"]
    assert dm.json("dataset", "show", uid)["files"] == 3


def test_a_dataset_of_a_saved_query_is_what_the_query_finds(dm: Dm) -> None:
    dm.fill("data/a.h5", metadata={"energy": {"value": 12400, "unit": "eV"}})
    dm.fill("data/b.h5", metadata={"energy": {"value": 7.1, "unit": "keV"}})
    dm("dataset", "create", "hard", "--query", "energy > 12 keV")
    shown = dm.json("dataset", "show", "hard")
    assert [member["file"]["path"] for member in shown["members"]] == ["data/a.h5"]
    assert "are what its query finds" in dm("dataset", "add", "hard", "data/b.h5", status=7)
    assert "expected a value" in dm("dataset", "create", "bad", "--query", "energy >", status=2)


def test_a_run_and_the_rules_by_which_files_come_to_it(dm: Dm) -> None:
    assert "under way" in dm(
        "run", "rules", "--add-path", "data/{sample}/scan{run}_*.tif", "--add-field", "scan.number"
    )
    dm.fill("data/Ag/scan142_0.tif", "data/Ag/scan142_1.tif", "data/notes.txt")
    dm.fill("data/x.h5", metadata={"scan": {"number": 143}})
    assert {row["name"]: row["state"] for row in dm.json("run", "list")} == {"142": "inferred", "143": "inferred"}
    assert "running" in dm("run", "create", "142", "plan=scan", "--at", "2026-03-01T12:00Z")
    assert "added 1" in dm("run", "add", "142", "data/notes.txt")
    assert "removed 1" in dm("run", "remove", "142", "data/*")
    assert "stopped" in dm("run", "stop", "142", "points=2")
    shown = dm("run", "show", "142")
    for text in ("start.plan", "scan", "stop.points", "path.sample", "Ag", "2 files, 10 B", "scan142_0.tif"):
        assert text in shown
    assert dm.json("run", "meta", "set", "142", "note=good")["note"] == "good"
    assert "good" in dm("run", "meta", "get", "142", "note")
    assert "note" in dm("run", "meta", "history", "142")
    first = dm.json("run", "rules")[0]["uid"]
    assert first not in dm("run", "rules", "--remove", first)
    assert "has no {run}" in dm("run", "rules", "--add-path", "data/*", status=2)
    assert "no run" in dm("run", "show", "none", status=6)
    assert "has begun already" in dm("run", "create", "142", "plan=count", status=7)


def test_why_shows_the_chain_down_to_the_raw_frames(dm: Dm) -> None:
    dm.fill("data/r1.tif", "data/r2.tif", "analysis/mean.h5", "analysis/plot.png")
    assert "raw, as far as is known" in dm("why", "data/r1.tif")
    dm("why", "analysis/mean.h5", "--from", "data/*.tif", "--job", "reduce-142", "--stage", "average")
    printed = dm("why", "analysis/plot.png", "--from", "analysis/mean.h5", "--from", "data/r1.tif", "--job", "plot")
    assert [line.rstrip() for line in printed.splitlines()] == [
        "analysis/plot.png version 1",
        "├─ data/r1.tif version 1, made by plot",
        "└─ analysis/mean.h5 version 1, made by plot",
        "   ├─ data/r1.tif version 1, made by reduce-142 (average)",
        "   └─ data/r2.tif version 1, made by reduce-142 (average)",
    ]
    assert "analysis/plot.png" in dm("why", "data/r2.tif", "--results")
    assert "was made from it" in dm("why", "data/r1.tif", "--from", "analysis/plot.png", status=7)
    assert len(dm.json("why", "analysis/plot.png")["links"]) == 4


def test_an_experiments_metadata_is_set_and_its_history_told(dm: Dm) -> None:
    assert dm.json("experiment", "meta", "set", dm.name, "ring.current=102", "--unit", "mA") == {
        "ring": {"current": {"value": 102, "unit": "mA"}}
    }
    dm("experiment", "meta", "set", dm.name, "--remove", "ring.current")
    assert "102 mA" in dm("experiment", "meta", "history", dm.name)
    assert dm.json("experiment", "meta", "get", dm.name) == {"ring": {}}
