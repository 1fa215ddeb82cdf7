"""What a command needs of our storage where it runs on nodes that do not see it, and what it is called there."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from beamkeeper.domain.errors import SourceError
from beamkeeper.domain.experiments import Tree
from beamkeeper.domain.files import SourceIdentity
from beamkeeper.domain.names import RelPath
from beamkeeper.engine.jobs.far import INPUTS, WORK
from beamkeeper.engine.jobs.orders import FILES
from beamkeeper.plugins.api import TransferItem


@dataclass(frozen=True, slots=True)
class Wanted:
    """Files to be sent, their paths in the attempt's directory there, and which of our paths are which of theirs."""

    items: Sequence[TransferItem]
    paths: Sequence[str]
    directories: Sequence[str]
    names: Mapping[str, str]

    def there(self, text: str) -> str:
        """Return a text with every path of ours as it is there."""
        return renamed(text, self.names)


def renamed(text: str, names: Mapping[str, str]) -> str:
    """Return a text with paths replaced, the longest first; `/a/b` is not found in `/a/bc` or `/x/a/b`."""
    if not names:
        return text
    paths = "|".join(re.escape(path) for path in sorted(names, key=len, reverse=True))
    return re.sub(rf"(?<![\w.%-])(?:{paths})(?![\w.%-])", lambda found: names[found[0]], text)


def names_there(order: Mapping[str, Any], root: str) -> dict[str, str]:
    """Return which of our paths are called what there: the working directory, and what the command names."""
    found = {str(Path(order["directory"]).parent / FILES): f"{root}/{WORK}"}
    data, file = order["data"]["dataDir"], order["data"]["filePath"]
    if data:
        found[data] = f"{root}/{INPUTS}/data"
        found[str(_experiment(data) / Tree.ANALYSIS)] = f"{root}/{INPUTS}/{Tree.ANALYSIS}"
    if file and not any(Path(file).is_relative_to(path) for path in found):
        found[file] = f"{root}/{INPUTS}/file/{Path(file).name}"
    return found


def wanted(order: Mapping[str, Any], root: str) -> Wanted:
    """Return what is to be sent; SourceError where it cannot be read."""
    names = names_there(order, root)
    sources: dict[str, str] = {}
    for source in _sources(order):
        there = renamed(source, names) if source in names else _below(source, names)
        sources[source] = os.path.relpath(there, root)
    items = [_item(number, source) for number, source in enumerate(sources)]
    files = Path(order["directory"]).parent / FILES
    directories = [os.path.relpath(path, files) for path, _, _ in os.walk(files)]
    return Wanted(items, list(sources.values()), directories, names)


def _experiment(data: str) -> Path:
    """Return the directory of an experiment, of which the data are in one below."""
    return Path(data).parent


def _below(source: str, names: Mapping[str, str]) -> str:
    """Return what a file is called there that lies in a directory which has a name there."""
    above = max((path for path in names if Path(source).is_relative_to(path)), key=len)
    return os.path.join(names[above], os.path.relpath(source, above))


def _sources(order: Mapping[str, Any]) -> Iterator[str]:
    """Yield the files that a command names, those in the directories that it names, and those of its job."""
    told = order["data"]
    if told["filePath"]:
        yield told["filePath"]
    if told["dataDir"] and told["is_whole"]:
        yield from _files(told["dataDir"])
    for path in told["named"]:
        named = _experiment(told["dataDir"]) / path
        if told["dataDir"] and ".." not in named.parts and named.is_file():
            yield str(named)
    files = Path(order["directory"]).parent / FILES
    for path in _files(str(files)):
        if told["command"] is None or _is_named(os.path.relpath(path, files), told["command"]):
            yield path


def _is_named(path: str, command: str) -> bool:
    """Whether a command speaks of a file, by its path with or without suffix, or by its name."""
    return any(name in command for name in (os.path.splitext(path)[0], os.path.basename(path)))


def _files(top: str) -> Iterator[str]:
    for directory, names, files in os.walk(top):
        names.sort()
        for name in sorted(files):
            path = f"{directory}/{name}"
            try:
                if stat.S_ISREG(os.stat(path).st_mode):
                    yield path
            except OSError:
                continue  # a link to nothing, or gone meanwhile


def _item(number: int, source: str) -> TransferItem:
    path = os.path.realpath(source)
    try:
        found = os.stat(path)
    except OSError as error:
        raise SourceError(f'"{source}" cannot be read: {error.strerror}', code="vanished") from error
    identity = SourceIdentity(
        dev=found.st_dev,
        ino=found.st_ino,
        size=found.st_size,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
    )
    return TransferItem(uuid4(), os.fsencode(path), RelPath(str(number)), identity)
