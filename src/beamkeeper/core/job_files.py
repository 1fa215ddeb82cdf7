"""Input files of jobs: which they are, and that who submits may have jobs work on them."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from pydantic import JsonValue, ValidationError

from beamkeeper.domain.errors import InvalidError, NotPermittedError, TooLargeError
from beamkeeper.domain.processing import MOST_FILES, InputFileName, NewJob


def files_of(new: NewJob, root: Path | None, *, is_anywhere: bool) -> list[InputFileName]:
    """Return the input files: given one by one, or by the arguments that name them.

    `root` is the directory of the experiment; outside of it only those may work who may anywhere.
    """
    named = [*new.files, *(_named(word, root) for word in (*new.paths, *_paths(new.arguments)))]
    if not is_anywhere:
        _require_inside([file.path for file in named], root)
    if pattern := new.arguments.get("filePathPattern"):
        found = _matching(str(pattern), root, is_anywhere=is_anywhere)
        if len(named) + len(found) > MOST_FILES:
            raise TooLargeError(f"there are more than {MOST_FILES} files, which are too many for one job: name fewer")
        named += found
    return named


def _require_inside(paths: Sequence[str], root: Path | None) -> None:
    for path in paths:
        if root is None or not _is_below(path, root):
            raise NotPermittedError(
                f'"{path}" is not in the experiment: jobs of its people work on its own files', path=path
            )


def _paths(arguments: Mapping[str, JsonValue]) -> list[str]:
    """Return the paths that arguments name, as they are given."""
    words: list[str] = []
    for key in ("filePath", "filePathList"):
        value = arguments.get(key)
        if isinstance(value, list):
            words += [str(word) for word in value]
        elif value not in (None, ""):
            words += str(value).split(",") if key == "filePathList" else [str(value)]
    return words


def _named(word: str, root: Path | None) -> InputFileName:
    path = Path(word) if root is None else root / word
    if not path.is_absolute():
        raise InvalidError(f'"{word}" is no absolute path, and no experiment is named: give one of both', path=word)
    plain = os.path.normpath(path)
    below = os.path.relpath(plain, root) if root is not None and _is_below(plain, root) else ""
    try:
        return InputFileName(path=plain, experiment_path=below)
    except (ValidationError, UnicodeError) as error:
        raise InvalidError(f"{word[:200]!r} cannot be the name of an input file") from error


def _matching(pattern: str, root: Path | None, *, is_anywhere: bool) -> list[InputFileName]:
    """Return the files that match; who may not work anywhere learns nothing of what there is elsewhere."""
    where = pattern if root is None else str(root / pattern)
    matches = (path for path in glob.iglob(where, recursive=True) if os.path.isfile(path))
    if not is_anywhere:
        if root is None or not Path(os.path.normpath(where)).is_relative_to(root):
            raise NotPermittedError(
                f'"{pattern}" leads out of the experiment: jobs of its people work on its own files', path=pattern
            )
        real = os.path.realpath(root)
        matches = (path for path in matches if Path(os.path.realpath(path)).is_relative_to(real))
    found = sorted(islice(matches, MOST_FILES + 1))
    if not found:
        raise InvalidError(f'no file matches "{pattern}"', pattern=pattern)
    return [_named(path, root) for path in found]


def _is_below(path: str, root: Path) -> bool:
    real = os.path.realpath(path)  # a link in the experiment must not lead out of it
    return Path(real).is_relative_to(os.path.realpath(root))
