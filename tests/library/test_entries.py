"""The library as a whole: every workflow is sound and has its page, and what is missing is told in a sentence."""

from __future__ import annotations

import importlib.metadata
import json
import re
from argparse import Namespace
from pathlib import Path

import pytest

from beamkeeper.cli.app import run
from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.workflows import checked_arguments, lint
from beamkeeper.library.__main__ import TASKS, main
from beamkeeper.library.entries import ENTRIES, Needs, adapted, entry
from beamkeeper.library.results import beside
from library.beamline import Beamline

PAGES = Path(__file__).parents[2] / "docs" / "library"


@pytest.mark.parametrize("name", ENTRIES)
def test_a_workflow_is_sound_says_what_it_does_and_has_a_page_with_its_picture(name: str) -> None:
    found = entry(name)
    assert found.definition.name == name
    assert found.definition.description.endswith(".")
    assert lint(found.definition) == ()
    assert all(argument.help for argument in (found.definition.arguments or {}).values())
    (picture,) = re.findall(r"!\[.+\]\((.+)\)", (PAGES / f"{name}.md").read_text())
    assert (PAGES / picture).stat().st_size < 60_000
    tasks = re.findall(r"dm-library (\S+)", " ".join(stage.command for stage in found.definition.stages.values()))
    assert set(tasks) <= set(TASKS)


def test_every_extra_that_is_named_is_one() -> None:
    extras = set(importlib.metadata.metadata("beamkeeper").get_all("Provides-Extra") or ())
    named = {needs.extra for needs in ENTRIES.values()} | {extra for extra, _ in TASKS.values()}
    assert named - {""} <= extras


def test_a_beamlines_own_defaults_are_checked() -> None:
    changed = adapted(entry("quality"), "ours", {"maxDead": "12"})
    assert (changed.name, (changed.arguments or {})["maxDead"].default) == ("ours", "12")
    with pytest.raises(InvalidError, match="maxDead"):
        adapted(entry("quality"), None, {"maxDead": "some"})
    with pytest.raises(InvalidError, match='no argument "maxDaed"'):
        adapted(entry("quality"), None, {"maxDaed": "12"})


def test_only_who_installs_a_workflow_says_where_it_writes() -> None:
    with pytest.raises(InvalidError, match="say to:VALUE"):
        adapted(entry("second-copy"), None, {})
    copy = adapted(entry("second-copy"), None, {"to": "/mnt/tape"})
    assert checked_arguments(copy, {"label": "x"}).values["to"] == "/mnt/tape"
    for key, value in {"to": "/etc", "url": "http://10.0.0.1/", "mail": "all@example.org"}.items():
        with pytest.raises(InvalidError, match="takes one of"):
            checked_arguments(copy, {key: value})


def test_the_library_is_listed_and_printed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["--json", "workflow", "library"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == list(ENTRIES)
    assert run(["workflow", "library", "quality"]) == 0
    (tmp_path / "ours.toml").write_text(capsys.readouterr().out)
    assert run(["workflow", "lint", str(tmp_path / "ours.toml")]) == 0
    assert run(["workflow", "library", "qualitty"]) == 6


def test_what_is_not_installed_is_named_with_its_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Needs("xpcs", ("json", "no_such_module")).missing == ["no_such_module"]
    monkeypatch.setitem(TASKS, "no_such_task", ("formats", "Not there."))
    assert main(["no_such_task"]) == 1
    assert "pip install 'beamkeeper[formats]'" in capsys.readouterr().err


def test_a_program_says_in_a_sentence_what_is_wrong(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["quality", str(tmp_path / "none.h5")]) == 1
    assert capsys.readouterr().err.strip() == f"{tmp_path / 'none.h5'}: No such file or directory"
    assert main(["qualitty"]) == 2
    assert "quality" in capsys.readouterr().err


def test_metadata_comes_from_a_file(beamline: Beamline, tmp_path: Path) -> None:
    kept, given = tmp_path / "kept.txt", tmp_path / "given.json"
    kept.write_text("x")
    given.write_text('{"a": {"b": 1, "c": 2}}')
    beamline.keep(kept)
    beamline.dm("file", "meta", "set", "data/kept.txt", "a.c=3", "--from", str(given))
    assert beamline.file("data/kept.txt").metadata["a"] == {"b": 1, "c": 3}
    given.write_text("[1]")
    assert "no JSON object" in beamline.dm("file", "meta", "set", "data/kept.txt", "--from", str(given), status=2)


def test_a_file_that_a_job_names_lies_in_its_experiment(tmp_path: Path) -> None:
    data = tmp_path / "e" / "data"
    data.mkdir(parents=True)
    (data / "away.poni").symlink_to("/etc/hostname")
    options = Namespace(in_experiment="data/a.tif")
    assert beside(options, data / "a.tif", "analysis/c.poni") == tmp_path.resolve() / "e/analysis/c.poni"
    for wanted in ("/etc/hostname", "data/../../other/data/b", "data/away.poni"):
        with pytest.raises(InvalidError):
            beside(options, data / "a.tif", wanted)
