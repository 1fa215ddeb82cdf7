"""What the kernel's tables say of a directory."""

from __future__ import annotations

import os
from pathlib import Path

from beamkeeper.engine.mounts import Mount, exported, is_exported, mount_of


def mount_at(path: str) -> Mount:
    opened = os.open(path, os.O_RDONLY)
    try:
        return mount_of(opened)
    finally:
        os.close(opened)


def test_the_mount_of_a_directory_is_known() -> None:
    found = mount_at("/proc")
    assert (found.kind, found.point, found.root) == ("proc", "/proc", "/")
    assert mount_at("/proc/self") == found
    assert mount_at("/") != found


def test_exported_directories_are_read_from_every_form_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "exports").write_text(
        "# /commented  *(rw)\n"
        "/data   192.168.0.0/24(rw,sync)\\\n   other(ro)\n"
        '"/with space" *(ro)\n'
        "/octal\\040space\t*(rw)\n"
        "not/absolute *(rw)\n"
        "\n"
    )
    (tmp_path / "one.exports").write_text("/export/one\n")
    found = exported([str(tmp_path / "exports"), str(tmp_path / "*.exports"), str(tmp_path / "missing")])
    assert found == [b"/data", b"/with space", b"/octal space", b"/export/one"]


def test_a_directory_is_exported_with_what_is_above_it_and_with_a_part_of_it() -> None:
    assert is_exported(b"/data/det", [b"/data"])
    assert is_exported(b"/data", [b"/data/det"])
    assert is_exported(b"/data", [b"/data"])
    assert not is_exported(b"/data2", [b"/data"])
    assert not is_exported(b"/data", [])
