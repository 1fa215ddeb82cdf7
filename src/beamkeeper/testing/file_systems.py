"""A directory on a real ext4 with access control lists: where temporary files are, or in an image that is mounted."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from beamkeeper.core.file_rights import has_acls
from beamkeeper.testing.servers import ServerNotAvailableError

IMAGE_BYTES = 64 * 1024 * 1024


@contextmanager
def ext4() -> Iterator[Path]:
    """Give a directory that everybody may enter; its files have real access control lists."""
    with tempfile.TemporaryDirectory(prefix="beamkeeper-ext4-") as made:
        place = Path(made)
        place.chmod(0o755)
        if _type_of(place) == "ext4" and has_acls(made):
            yield place
        else:
            with _mounted(place) as mounted:
                yield mounted


def _type_of(place: Path) -> str:
    """Return the type of the file system that a directory is on: of its mount point, the longest that leads there."""
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    found = [(point, kind) for point, kind in mounts if place.is_relative_to(point)]
    return max(found, key=lambda one: len(one[0]))[1] if found else ""


@contextmanager
def _mounted(place: Path) -> Iterator[Path]:
    image, point = place / "image", place / "mounted"
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        raise ServerNotAvailableError("temporary files are on no ext4, and only root with mkfs.ext4 can mount one")
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    point.mkdir()
    for argv in (["mkfs.ext4", "-q", "-F", str(image)], ["mount", "-o", "loop,acl", str(image), str(point)]):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServerNotAvailableError(f"{argv[0]}: {done.stderr.strip()}")
    try:
        point.chmod(0o755)
        yield point
    finally:
        subprocess.run(["umount", "--lazy", point], check=False)
