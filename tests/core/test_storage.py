"""The check of a storage area: what it proves, and what it says where something is wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from threading import enumerate as enumerate_threads

from beamkeeper.core.storage import Probes, check
from beamkeeper.db.base import new_uid
from beamkeeper.domain.storage import AreaCheck, StorageArea
from beamkeeper.testing.accounts import unprivileged


def area(path: Path) -> StorageArea:
    return StorageArea(
        uid=new_uid(), name="hot", station_url=path.as_uri(), path=str(path), created_at=datetime.now(UTC)
    )


def test_a_good_area_is_proven_and_left_as_it_was(tmp_path: Path) -> None:
    shown = check(area(tmp_path))
    assert shown.is_ok
    assert shown.free_bytes is not None
    assert shown.total_bytes is not None
    assert 0 < shown.free_bytes <= shown.total_bytes
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_is_said_in_words(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    for path, words in ((tmp_path / "gone", "mounted"), (file, "is no directory")):
        shown = check(area(path))
        assert not shown.is_ok
        assert words in shown.message
        assert str(path) in shown.message


def test_one_that_hangs_is_waited_for_no_longer_than_said(tmp_path: Path) -> None:
    probes, ends, meant = Probes(timeout_s=0.05), Event(), area(tmp_path)

    def hang() -> AreaCheck:
        ends.wait(20)
        return AreaCheck(name="hot", is_ok=True, message="late")

    for _ in range(3):
        assert "does not answer" in probes.run(meant, hang).message
    assert sum(thread.name == "check" for thread in enumerate_threads()) == 1
    ends.set()


def test_a_directory_that_may_not_be_written_is_said_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with unprivileged():
        shown = check(area(tmp_path))
    tmp_path.chmod(0o700)
    assert not shown.is_ok
    assert "may not be written" in shown.message
