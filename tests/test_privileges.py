"""Rights as other people have them, for tests that root runs."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from beamkeeper.testing.privileges import ordinary_rights


def is_readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except PermissionError:
        return False
    return True


def test_a_closed_file_is_closed_to_root_too_and_opens_again_afterwards(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.touch(mode=0)
    before = is_readable(closed)
    seen: list[bool] = []
    with ordinary_rights():
        seen.append(is_readable(closed))
        thread = threading.Thread(target=lambda: seen.append(is_readable(closed)))
        thread.start()
        thread.join()
    assert seen == [False, False]
    assert is_readable(closed) == before


@pytest.mark.usefixtures("as_anybody")
def test_ones_own_files_stay_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    (tmp_path / "mine").chmod(0o600)
    assert is_readable(tmp_path / "mine")
