"""The directories of an experiment: whole with their rights, or not there at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from beamkeeper.core.directories import made
from beamkeeper.domain.errors import AlreadyExistsError, DestinationError
from beamkeeper.domain.file_rights import PLACES
from beamkeeper.testing.accounts import unprivileged

EXPECTED = {
    "2026": 0o751,
    "2026/coffee": 0o2750,
    "2026/coffee/data": 0o2750,
    "2026/coffee/analysis": 0o2770,
    "2026/coffee/system": 0o2750,
    "2026/coffee/.dm": 0o700,
    "2026/coffee/.dm/staging": 0o2700,
    "2026/coffee/.dm/versions": 0o700,
}


def found(area: Path) -> dict[str, int]:
    """Return everything below a directory with its mode."""
    return {str(path.relative_to(area)): stat.S_IMODE(path.lstat().st_mode) for path in area.rglob("*")}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_the_directories_have_their_rights_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with made(str(tmp_path), "2026/coffee"):
            pass
    finally:
        os.umask(before)
    assert found(tmp_path) == EXPECTED


def test_what_was_made_is_removed_where_the_rest_fails(tmp_path: Path) -> None:
    (tmp_path / "2026").mkdir(mode=0o700)
    with pytest.raises(ZeroDivisionError), made(str(tmp_path), "2026/x/coffee"):
        raise ZeroDivisionError
    assert found(tmp_path) == {"2026": 0o700}


def test_what_somebody_put_there_meanwhile_is_not_removed(tmp_path: Path) -> None:

    def act() -> None:
        with made(str(tmp_path), "coffee"):
            (tmp_path / "coffee" / "data" / "frame").write_bytes(b"precious")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        act()
    assert set(found(tmp_path)) == {"coffee", "coffee/data", "coffee/data/frame"}


def test_what_a_killed_creation_left_is_taken_over(tmp_path: Path) -> None:
    for left in (("2026/coffee",), ("2026/coffee/.dm/staging", "2026/coffee/data")):
        for directory in left:
            (tmp_path / directory).mkdir(parents=True, exist_ok=True)
        with made(str(tmp_path), "2026/coffee"):
            pass
    assert set(found(tmp_path)) == set(EXPECTED)
    assert found(tmp_path)["2026/coffee/data"] == EXPECTED["2026/coffee/data"]


@pytest.mark.parametrize("name", ["frame", "data/frame", ".dm/other", ".dm/staging/b", "data/analysis", "staging"])
@pytest.mark.parametrize("is_directory", [False, True])
def test_a_directory_with_anything_else_in_it_is_refused_and_left_as_it_is(
    tmp_path: Path, name: str, is_directory: bool
) -> None:
    thing = tmp_path / "coffee" / name
    thing.parent.mkdir(parents=True)
    _ = thing.mkdir() if is_directory else thing.write_bytes(b"precious")  # type: ignore[func-returns-value]
    before = set(found(tmp_path))
    with pytest.raises(AlreadyExistsError, match="not empty"), made(str(tmp_path), "coffee"):
        pytest.fail("the block was entered")
    assert set(found(tmp_path)) == before


@pytest.mark.parametrize("name", [*PLACES])
def test_a_file_or_a_link_in_place_of_a_tree_is_refused(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for number, directory in enumerate(("a", "b")):
        place = tmp_path / directory / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(outside) if number else place.write_bytes(b"")
        with pytest.raises(AlreadyExistsError), made(str(tmp_path), directory):
            pytest.fail("the block was entered")
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("directory", ["link/coffee", "coffee/link", "file/coffee"])
def test_no_link_leads_out_of_the_storage_area(tmp_path: Path, directory: str) -> None:
    area, outside = tmp_path / "area", tmp_path / "outside"
    (area / "coffee").mkdir(parents=True)
    outside.mkdir()
    for link in ("link", "coffee/link"):
        (area / link).symlink_to(outside)
    (area / "file").write_bytes(b"")
    with pytest.raises(DestinationError, match="cannot make"), made(str(area), directory):
        pytest.fail("the block was entered")
    assert list(outside.iterdir()) == []


def test_a_storage_area_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="mounted"), made(str(tmp_path / "gone"), "coffee"):
        pytest.fail("the block was entered")


def test_an_area_that_may_not_be_written_is_said_so_and_nothing_is_left(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    refused = pytest.raises(DestinationError, match="may be written by this account")
    with unprivileged(), refused, made(str(tmp_path), "2026/coffee"):
        pytest.fail("the block was entered")
    tmp_path.chmod(0o700)
    assert found(tmp_path) == {}


def test_a_name_with_spaces_and_accents_is_made_as_it_is(tmp_path: Path) -> None:
    with made(str(tmp_path), "année 1/café"):
        pass
    assert (tmp_path / "année 1" / "café" / "data").is_dir()
