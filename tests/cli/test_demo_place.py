"""The demo's directory: it keeps away from what it did not make, and remembers an interrupted run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from beamkeeper.cli.demo.place import MARK, Place, Run, default_directory
from beamkeeper.cli.demo.progress import Tail
from beamkeeper.cli.demo.truth import Kind, Written
from beamkeeper.domain.errors import ConflictError, SettingsError

START = datetime(2026, 3, 1, 8, tzinfo=UTC)


def test_a_directory_that_somebody_else_filled_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConflictError, match="was not made by `dm demo`"), Place(tmp_path).held():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_empty_or_new_directory_is_made_ours(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "new" / "one"):
        place = Place(directory)
        assert not place.is_ours
        with place.held():
            assert place.is_ours
        with place.held():
            pass


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="the demo cannot use"), Place(tmp_path / "file" / "demo").held():
        pass


def test_two_demos_do_not_run_in_one_directory(tmp_path: Path) -> None:
    with (
        Place(tmp_path).held(),
        pytest.raises(ConflictError, match="another `dm demo` is running"),
        Place(tmp_path).held(),
    ):
        pass


def test_an_unfinished_run_is_remembered_with_its_options(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with place.held():
        first = place.update(Run(experiment="demo-1", start=START, is_finished=True))
        second = place.update(Run(experiment="demo-2", start=START, torture=True, copies=[Path("/data")]))
        assert place.read().unfinished == second
        place.update(second.model_copy(update={"is_finished": True}))
        assert place.read().unfinished is None
        assert [run.experiment for run in place.read().runs] == [first.experiment, second.experiment]


def test_a_damaged_state_is_named_with_the_way_out(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with place.held():
        (tmp_path / "demo.json").write_text('{"runs": [{"experi')
        with pytest.raises(SettingsError, match=r"demo\.json is damaged.*--fresh"):
            place.read()


def test_clearing_leaves_the_mark_and_follows_no_link_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("stays")
    place = Place(tmp_path / "demo")
    with place.held():
        (place.directory / "link").symlink_to(outside)
        (place.beamline / "storage").mkdir(parents=True)
        (place.beamline / "link").symlink_to(outside)
        place.clear()
        assert {path.name for path in place.directory.iterdir()} == {MARK, ".lock"}
    assert (outside / "precious").read_text() == "stays"


def test_experiments_that_people_made_are_told_from_the_demos_own(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with place.held():
        place.update(Run(experiment="demo-1", start=START))
        for name in ("demo-1", "mine"):
            (place.beamline / "storage" / "2026" / name).mkdir(parents=True)
        assert place.foreign_experiments() == ["mine"]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"XDG_DATA_HOME": "/x", "HOME": "/h"}, "/x/beamkeeper-demo"),
        ({"XDG_DATA_HOME": "relative", "HOME": "/h"}, "/h/.local/share/beamkeeper-demo"),
        ({"HOME": "/h"}, "/h/.local/share/beamkeeper-demo"),
    ],
)
def test_the_demo_lives_below_the_xdg_data_directory(environ: Mapping[str, str], expected: str) -> None:
    assert str(default_directory(environ)) == expected


def test_a_tail_counts_paths_once_and_waits_for_whole_lines(tmp_path: Path) -> None:
    file = tmp_path / "truth.jsonl"
    tail = Tail(file)
    tail.read()
    assert (tail.files, tail.bytes) == (0, 0)
    lines = [Written(path, size, "ab", 1, Kind.LOG).to_line() for path, size in ((b"log", 5), (b"log", 9), (b"x", 1))]
    file.write_bytes(lines[0] + lines[1] + lines[2][:10])
    tail.read()
    assert (tail.files, tail.bytes) == (1, 9)
    with file.open("ab") as stream:
        stream.write(lines[2][10:])
    tail.read()
    assert (tail.files, tail.bytes) == (2, 10)


def test_the_size_on_disk_counts_blocks_not_holes(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with place.held():
        before = place.used_bytes()
        (tmp_path / "full").write_bytes(os.urandom(1_000_000))
        with (tmp_path / "hole").open("wb") as file:
            file.truncate(10**9)
        assert 900_000 < place.used_bytes() - before < 2_000_000
