"""Results have names of their own, and nothing in a name passes for what a program tells its stage."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest

from beamkeeper.domain.errors import InvalidError
from beamkeeper.library import results


def _options(*words: str) -> Namespace:
    parser = ArgumentParser()
    results.add_options(parser, "curves")
    return parser.parse_args(words)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_numbered_frames_have_results_of_their_own(tmp_path: Path) -> None:
    names = ["data/scan/frame.0001", "data/scan/frame.0002", "data/scan/frame_3.tif"]
    places = [results.place(_options("--in-experiment", name), tmp_path / name) for name in names]
    assert places == [Path("curves/scan/frame.0001"), Path("curves/scan/frame.0002"), Path("curves/scan/frame_3")]


def test_files_that_differ_by_their_suffix_only_have_results_of_their_own(tmp_path: Path) -> None:
    for name in ("a.tif", "a.h5", "b.tif", "b.txt"):
        (tmp_path / name).touch()
    places = [results.place(_options(), tmp_path / name) for name in ("a.tif", "a.h5", "b.tif")]
    assert places == [Path("curves/a.tif"), Path("curves/a.h5"), Path("curves/b")]
    with pytest.raises(InvalidError, match="beside"):
        results.place(_options("--keep-in", "."), tmp_path / "a.tif")


@pytest.mark.parametrize(
    "words",
    [
        ("--in-experiment", "data/a\nraw: file:/etc/x.tif"),
        ("--in-experiment", "data/a.tif", "--keep-in", "b\nraw: file:/etc"),
        ("--in-experiment", "data/a\rresult: b.tif"),
    ],
)
def test_a_line_break_in_a_name_adds_no_line_to_what_is_told(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InvalidError, match="line break"):
        results.place(_options(*words), tmp_path / "a.tif")
    assert not capsys.readouterr().out
