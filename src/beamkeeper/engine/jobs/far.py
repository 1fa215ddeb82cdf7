"""Attempts on nodes that do not see our storage: what they find there was verified, and what they leave is told of.

This runs on the node. What an attempt was sent lies in a directory of its own under plain numbers; it is read again
there, and only what is whole gets its name. What the command has made or changed is told of beside its result.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from typing import Any

from beamkeeper.engine.jobs import points, runner

ARRANGED, LEFT = "arranged.json", "left.json"
"""Files of an attempt: what it found in its working directory; what it left there that was made or changed."""

INPUTS, WORK, TEMPORARY, BACK = "in", "work", "tmp", "back"
"""In the directory of an attempt there: its inputs, the job's working directory, its own, and what is to be fetched."""

_PIECE = 1 << 20


class DamagedError(Exception):
    """What is there is not what was sent."""


def arrange(order: dict[str, Any]) -> None:
    """Give everything that was sent its name, once it is seen to be whole; again and again where need be."""
    root = order["staged"]["root"]
    os.makedirs(root, exist_ok=True)
    for name in (INPUTS, WORK, TEMPORARY):
        os.makedirs(f"{root}/{name}", exist_ok=True)
    for path in order["staged"]["directories"]:
        os.makedirs(f"{root}/{WORK}/{path}", exist_ok=True)
    known = {}
    for name, path, size, digest in order["staged"]["inputs"]:
        _name(f"{root}/{name}", f"{root}/{path}", size, digest)
        known[path.removeprefix(f"{WORK}/")] = digest
    runner.write_durably(order["directory"], ARRANGED, json.dumps(known).encode())


def _name(sent: str, path: str, size: int, digest: str) -> None:
    """Rename a file that has arrived whole; one that an earlier try has named is looked at where it is."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    for where in (sent, path):
        try:
            found = digest_of(where)
        except FileNotFoundError:
            continue
        if found != (size, digest):
            if where == sent:  # else it is not sent again where its time and its size are as they should be
                os.unlink(where)
            raise DamagedError(f"{path} is not what was sent")
        if where == sent:
            os.rename(sent, path)
        return
    raise DamagedError(f"{path} has not arrived")


def gather(order: dict[str, Any]) -> None:
    """Tell what an attempt has made or changed, and put it where it is fetched from; any number of times."""
    directory, root = order["directory"], order["staged"]["root"]
    if os.path.exists(f"{directory}/{LEFT}"):
        return
    points.hit("outputs-gathering")
    with open(f"{directory}/{ARRANGED}", "rb") as file:
        known = json.load(file)
    back = f"{root}/{BACK}"
    shutil.rmtree(back, ignore_errors=True)
    os.makedirs(back, exist_ok=True)
    left: list[Sequence[Any]] = []
    for path in _files(f"{root}/{WORK}"):
        source, kept = f"{root}/{WORK}/{path}", f"{back}/{len(left)}"
        size, digest = digest_of(source)
        if known.get(path) != digest:
            _give_name(source, kept)
            left.append((str(len(left)), path, size, digest, stat.S_IMODE(os.stat(source).st_mode) & 0o777))
    runner.write_durably(directory, LEFT, json.dumps(left).encode())


def _give_name(source: str, name: str) -> None:
    """Give a file a second name; a copy where a file system has no links, or where it is one itself."""
    try:
        if os.path.islink(source):
            raise OSError("its content is wanted")
        os.link(source, name)
    except OSError:
        shutil.copyfile(source, name)


def _files(top: str) -> Iterator[str]:
    """Yield the plain files below a directory, and links to such."""
    for directory, _, names in os.walk(top):
        for name in sorted(names):
            try:
                if stat.S_ISREG(os.stat(f"{directory}/{name}").st_mode):
                    yield os.path.relpath(f"{directory}/{name}", top)
            except OSError:
                continue  # a link to nothing


def digest_of(path: str) -> tuple[int, str]:
    """Read a file to its end, and return its size and BLAKE3 digest."""
    from blake3 import blake3

    found, size = blake3(), 0
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            found.update(piece)
            size += len(piece)
    return size, found.hexdigest()
