"""`dm file`, in this process, on real services."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from beamkeeper.cli.app import run
from beamkeeper.domain.experiments import NewExperiment
from beamkeeper.domain.files import FileKind
from beamkeeper.domain.names import to_b64
from beamkeeper.domain.status import Service
from beamkeeper.testing.catalogue import new_file
from beamkeeper.testing.services import Running, running

HOSTILE = b"data/a\n\x1b[31m\xff.tif"
NUMBERS = count(1)
SHOWN = r"data/a\x0a\x1b[31m\xff.tif"
METADATA: dict[str, Any] = {"sample": {"name": "Ag", "mass": 2.5}, "energy": {"value": 7.1, "unit": "keV"}, "ok": True}


@pytest.fixture(scope="module")
def beamline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(Service.CATALOG, directory=tmp_path_factory.mktemp("site")) as made:
        yield made


class Dm:
    """Runs commands as somebody who is logged in, for an experiment of its own."""

    def __init__(self, beamline: Running, capsys: pytest.CaptureFixture[str], name: str) -> None:
        station = beamline.settings.station.name
        self._beamline = beamline
        self._capsys = capsys
        self.experiment = beamline.client.experiments.create(NewExperiment(name=name, station=station))

    def fill(self, *paths: str | bytes, **changes: Any) -> None:
        service = self._beamline.as_service()
        service.credentials.mirror = self._beamline.client.credentials.mirror
        service.files.register([new_file(path, experiment_uid=self.experiment.uid, **changes) for path in paths])

    def __call__(self, *words: str, status: int = 0) -> str:
        """Run `dm file ...` and return all that it printed."""
        assert run(["file", *words, "--experiment", self.experiment.name]) == status
        printed = self._capsys.readouterr()
        return printed.out + printed.err

    def json(self, *words: str) -> Any:
        return json.loads(self("--json", *words))


@pytest.fixture
def dm(
    beamline: Running,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Dm:
    monkeypatch.setenv("BEAMKEEPER_URL", beamline.urls[Service.STORAGE])
    monkeypatch.setenv("BEAMKEEPER_TOKEN", beamline.bootstrap.operator.token)
    return Dm(beamline, capsys, f"e{next(NUMBERS)}")


def test_a_list_shows_hostile_names_safely(dm: Dm) -> None:
    dm.fill(HOSTILE, "data/plain.tif")
    printed = dm("list")
    assert SHOWN in printed
    assert "\x1b" not in printed
    assert "5 B" in printed
    assert [file["path_b64"] for file in dm.json("list", "*plain*")] == [to_b64(b"data/plain.tif")]


def test_a_list_says_that_there_is_more(dm: Dm) -> None:
    dm.fill(*(f"data/{i}" for i in range(5)))
    assert "more than these 2" in dm("list", "--limit", "2")
    assert "more than" not in dm("list", "--limit", "5")
    assert len(dm.json("list", "--limit", "0")) == 5


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        (["data/?.tif"], ["data/a.tif", "data/b.tif"]),
        (["energy >= 7000eV"], ["data/a.tif"]),
        (['sample.name ~ "A*" or size > 500'], ["data/a.tif", "data/c.txt"]),
        (["--filter", '{"sample.name": {"$in": ["2", "Ag"]}}'], ["data/a.tif", "data/b.tif"]),
        (["c.txt"], ["data/c.txt"]),
        (["--glob", "*.txt"], ["data/c.txt"]),
        (["--min-size", "1kB"], ["data/c.txt"]),
        (["--max-size", "0.5KiB"], ["data/a.tif", "data/b.tif"]),
        (["--newer", "2026-03-02T00:00Z"], ["data/c.txt"]),
        (["--older", "2026-03-02T00:00Z"], ["data/a.tif", "data/b.tif"]),
        (["--where", "sample.name=Ag"], ["data/a.tif"]),
        (["--where", "sample.mass>=2.5", "--where", "energy<8"], ["data/a.tif"]),
        (["--where", "ok=true"], ["data/a.tif"]),
        (["--where", "sample.mass exists"], ["data/a.tif"]),
        (["--where", 'sample.name="2"'], ["data/b.tif"]),
        (["--where", "sample.name=2"], []),
        (["--where", "sample.name!=Ag"], ["data/b.tif", "data/c.txt"]),
    ],
)
def test_a_search_means_what_it_says(dm: Dm, words: list[str], paths: list[str]) -> None:
    dm.fill("data/a.tif", metadata=METADATA)
    dm.fill("data/b.tif", metadata={"sample": {"name": "2"}})
    dm.fill("data/c.txt", content=b"x" * 1000, modified_at="2026-03-02T00:00Z")
    assert [file["path"] for file in dm.json("find", "--order", "path", *words)] == paths


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["find", "--where", "=3"], "character 1"),
        (["find", "a..b=3"], "empty part"),
        (["find", "a<true"], "numbers, texts and times only"),
        (["find", "--filter", "{"], "cannot be taken at character 1"),
        (["find", "--filter", "[]"], "is no JSON object"),
        (["find", "--filter", '{"$where": "1"}'], "no code is run here"),
        (["find", "--min-size", "big"], "is no size"),
        (["find", "--newer", "soon"], "is no date"),
        (["meta", "set", "data/a", "novalue"], "KEY=VALUE"),
        (["meta", "set", "data/a", "a=null"], "--remove a"),
        (["meta", "set", "data/a", "a=x", "--unit", "keV"], "is no number"),
        (["meta", "set", "data/a", 'a:={"b": 1, "b": 2}'], "stands twice"),
        (["meta", "set", "data/a", "a:=NaN"], "knows no NaN"),
    ],
)
def test_what_cannot_be_meant_is_refused(dm: Dm, words: list[str], sentence: str) -> None:
    dm.fill("data/a")
    assert sentence in dm(*words, status=2)


def test_a_file_is_shown_by_path_as_shown_and_by_uid(dm: Dm) -> None:
    dm.fill(HOSTILE, metadata=METADATA)
    uid = dm.json("list")[0]["uid"]
    for which in (SHOWN, uid, HOSTILE.decode("utf-8", "surrogateescape")):
        printed = dm("show", which)
        for text in (SHOWN, "sha256:", "device", "match", "sample.name", "7.1 keV", "verified", "det1:/disk/data/a"):
            assert text in printed, (which, text)
        assert "\x1b" not in printed
    assert dm.json("show", uid)["versions"][0]["number"] == 1


def test_a_link_is_shown_with_its_target(dm: Dm) -> None:
    dm.fill("data/l", kind=FileKind.LINK, checksums=[], link_target_b64=to_b64(b"../\x1bx"))
    assert r"link to ../\x1bx" in dm("show", "data/l")


def test_a_path_that_is_not_there_is_not_found(dm: Dm) -> None:
    assert "dm file list" in dm("show", "data/none", status=6)
    assert "dm file list" in dm("delete", "data/none", "--yes", status=6)


def test_metadata_is_set_and_removed(dm: Dm) -> None:
    dm.fill("data/a", metadata=METADATA)
    changed = dm.json(
        "meta", "set", "data/a", "sample.name=Au", "n=3", "text=3 mm", "--remove", "sample.mass", "--remove", "ok"
    )
    assert changed == {"sample": {"name": "Au"}, "energy": METADATA["energy"], "n": 3, "text": "3 mm"}
    assert "sample.name" in dm("meta", "get", "data/a")
    assert dm.json("meta", "get", "data/a", "sample") == {"name": "Au"}
    assert "there is no metadata" in dm("meta", "get", "data/a", "sample.mass", status=6)


def test_metadata_has_units_and_a_history(dm: Dm) -> None:
    dm.fill("data/a", metadata=METADATA)
    dm("meta", "set", "data/a", "energy=12.4", "--unit", "keV")
    dm("meta", "set", "data/a", 'tags:=["a", "b"]', "--remove", "ok")
    assert dm.json("meta", "get", "data/a", "energy") == {"value": 12.4, "unit": "keV"}
    printed = dm("meta", "history", "data/a")
    for text in ("energy", "7.1 keV", "12.4 keV", "removed", '["a", "b"]'):
        assert text in printed
    changes = dm.json("meta", "history", "data/a")
    assert [change["before"] for change in changes] == [{"ok": True}, {"energy": METADATA["energy"]}]
    assert "more than these 1" in dm("meta", "history", "data/a", "--limit", "1")


def test_a_deletion_asks_and_is_undone(dm: Dm, monkeypatch: pytest.MonkeyPatch) -> None:
    dm.fill("data/a", "data/b")
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert "Hide 2 files, 10 B" in dm("delete", "data/*", status=1)
    assert len(dm.json("list")) == 2
    assert "2 files, 10 B" in dm("delete", "data/*", "--yes")
    assert dm.json("list") == []
    assert len(dm.json("list", "--deleted")) == 2
    assert "1 file, 5 B" in dm("restore", "*/b")
    assert [file["path"] for file in dm.json("list")] == ["data/b"]


def test_a_search_everywhere_names_the_experiments(dm: Dm) -> None:
    dm.fill("data/everywhere.h5")
    assert dm.experiment.name in dm("find", "*everywhere.h5", "--everywhere")
