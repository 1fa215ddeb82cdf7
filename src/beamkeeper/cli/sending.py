"""Which files `dm put` sends and under which names, and the bar while it sends them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

from beamkeeper.cli import output
from beamkeeper.cli.app import EXIT_WANTING
from beamkeeper.client import Client
from beamkeeper.domain.acquisition import Acquisition, NewPut
from beamkeeper.domain.errors import FileError, InvalidError, SourceError, UnavailableError
from beamkeeper.domain.names import RelPath, show_path

NAMED = 5


@dataclass(frozen=True, slots=True)
class Chosen:
    """The files to be sent, each with its name at the station; and what cannot be sent."""

    files: Sequence[tuple[RelPath, Path]]
    left_out: Sequence[bytes]


def choose(words: Sequence[str], *, recursive: bool) -> Chosen:
    """Return the files that are meant; a directory keeps its name, as with `cp -r`."""
    files: dict[RelPath, Path] = {}
    left_out: list[bytes] = []
    for word in words:
        for source, name in _meant(os.fsencode(word), recursive=recursive):
            if not stat.S_ISREG(_mode(source, is_named=source == os.fsencode(word))):
                left_out.append(source)
                continue
            path = RelPath(name)
            if path in files:
                both = f'"{show_path(os.fsencode(files[path]))}" and "{show_path(source)}"'
                raise InvalidError(f'{both} would both be "{show_path(path)}": send them to a --destination each')
            files[path] = Path(os.fsdecode(source))
    if not files:
        raise InvalidError("there are no files to send: name some")
    return Chosen(list(files.items()), left_out)


def _meant(word: bytes, *, recursive: bool) -> Iterator[tuple[bytes, bytes]]:
    """Yield each file below a word of the command line with its name; unreadable directories are errors."""
    top = os.path.abspath(word)
    name = os.path.basename(top)
    if not os.path.isdir(word):
        yield word, name
        return
    if not recursive:
        raise InvalidError(f'"{show_path(word)}" is a directory: send it with --recursive')
    for directory, below, names in os.walk(top, onerror=_refuse):
        links = [entry for entry in below if os.path.islink(os.path.join(directory, entry))]
        for entry in sorted([*names, *links]):
            source = os.path.join(directory, entry)
            yield source, os.path.join(name, os.path.relpath(source, top))


def _refuse(error: OSError) -> None:
    raise _unreadable(os.fsencode(error.filename), error) from error


def _mode(source: bytes, *, is_named: bool) -> int:
    """Return what a file is; a link counts as what it leads to only where it was named itself."""
    try:
        return (os.stat if is_named else os.lstat)(source).st_mode
    except OSError as error:
        raise _unreadable(source, error) from error


def _unreadable(source: bytes, error: OSError) -> SourceError:
    return SourceError(f'"{show_path(source)}" cannot be read: {(error.strerror or type(error).__name__).lower()}')


def send(client: Client, new: NewPut, files: Sequence[tuple[RelPath, Path]]) -> Acquisition:
    """Send files with a bar on standard error; where that breaks off, say how to go on."""
    try:
        total = sum(path.stat().st_size for _, path in files)
    except OSError as error:
        raise _unreadable(os.fsencode(error.filename), error) from error
    try:
        with _bar(total) as advance:
            return client.uploads.put(new, files, on_bytes=advance)
    except (UnavailableError, FileError, KeyboardInterrupt):
        output.note(f"what was sent is kept: the same command with --resume {new.uid} sends the rest.")
        raise


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    console = output.console(stderr=True)
    is_shown = console.is_terminal and not output.is_json()
    with Progress(BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=console, disable=not is_shown) as bar:
        task = bar.add_task("sending", total=total)
        yield lambda size: bar.advance(task, size)


def tell_left_out(chosen: Chosen) -> int:
    """Say what was not sent; return the exit status that this makes."""
    if not chosen.left_out:
        return 0
    names = ", ".join(f'"{show_path(path)}"' for path in chosen.left_out[:NAMED])
    more = f" and {len(chosen.left_out) - NAMED} more" if len(chosen.left_out) > NAMED else ""
    output.note(f"links and special files are not sent: {names}{more}.")
    return EXIT_WANTING
