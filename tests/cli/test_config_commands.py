"""`dm config`: what is shown, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from beamkeeper.cli.app import run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "beamkeeper.toml"


def test_show_says_where_each_value_comes_from_and_no_secret(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("site = 'APS'\nstorage.database = 'postgresql://dm:hunter2@db/dm'\n")
    monkeypatch.setenv("BEAMKEEPER_CONFIG", str(file))
    monkeypatch.setenv("BEAMKEEPER_ACQUISITION__THREADS", "3")
    assert run(["config", "show", "--json", "--data", "/data"]) == 0
    told = capsys.readouterr().out
    rows = {row["key"]: (row["value"], row["origin"]) for row in json.loads(told)}
    assert rows["site"] == ("APS", f"file {file}:1")
    assert rows["storage.database"] == ("postgresql://dm:***@db/dm", f"file {file}:2")
    assert rows["acquisition.threads"] == (3, "environment BEAMKEEPER_ACQUISITION__THREADS")
    assert rows["data_dir"] == ("/data", "flag")
    assert rows["log.level"] == ("info", "default")
    assert run(["config", "show"]) == 0
    shown = capsys.readouterr().out
    assert "hunter2" not in told + shown
    assert f"file {file}:1" in shown


def test_the_example_can_be_used_as_it_is(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show", "--example"]) == 0
    file.write_text(capsys.readouterr().out)
    assert "# threads = 2" in file.read_text()
    assert run(["config", "check", str(file)]) == 0
    assert capsys.readouterr().out == f"{file} can be used.\n"


def test_check_without_a_file_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "check"]) == 0
    assert "no file of settings" in capsys.readouterr().out
    assert run(["config", "check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": None, "is_ok": True}


@pytest.mark.parametrize(
    ("text", "place", "part"),
    [
        ("site = 'x'\nsize = 3", ":2: ", 'there is no setting "size"'),
        ("site = ", ":1: ", "Invalid value"),
        ("[acquisition]\nprocessors = ['metadata', 'thumbnails']", ":2: ", 'no plugin "thumbnails"'),
        ("[transfer.pigeon]\nspeed = 3", ":2: ", 'no plugin "pigeon"'),
        ("[transfer.copy]\nwings = 3", ":2: ", '"transfer.copy.wings" is wrong'),
    ],
)
def test_check_refuses_with_file_line_and_key(
    file: Path, capsys: pytest.CaptureFixture[str], text: str, place: str, part: str
) -> None:
    file.write_text(f"{text}\n")
    assert run(["config", "check", str(file)]) == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"dm: {file}{place}")
    assert part in told.err
    assert told.err.count("\n") == 1


def test_check_of_a_file_that_is_not_there_says_so(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "check", str(file)]) == 3
    assert capsys.readouterr().err == f"dm: there is no file {file}\n"
