"""Where a task leaves its results, and where they are kept: beside one another as their inputs were."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path, PurePosixPath

from beamkeeper.domain.errors import InvalidError

OF_FRAMES = (".tif", ".tiff", ".h5", ".hdf5", ".nxs", ".cbf", ".edf", ".img", ".imm", ".bin", ".npy")
"""How the names end of what tasks read."""


def add_options(parser: ArgumentParser, keep_in: str) -> None:
    """Give a task the options by which its stage says what its file is called in the experiment."""
    parser.add_argument("--in-experiment", default="", metavar="PATH", help="the file's path below the experiment")
    parser.add_argument("--keep-in", default=keep_in, metavar="DIRECTORY", help="of the experiment's analysis/")


def place(options: Namespace, file: Path) -> Path:
    """Return the result's path here without a suffix, and tell it to the stage that keeps it.

    The result of `data/scan_1/frame_7.tif` is `curves/scan_1/frame_7`, so that no two files of a job have the same; a
    number at the end of a name is no suffix, but what tells `scan.0001` from the next frame. Where another file of
    frames has the same name but for its suffix, as `frame_7.h5`, both keep theirs.
    """
    parts = PurePosixPath(options.in_experiment or file.name).parts
    below = parts[1:] if len(parts) > 1 and parts[0] in ("data", "analysis") else parts
    result = Path(options.keep_in, *below)
    result = result if _has_namesake(file) else _without_suffix(result)
    if result.is_absolute() or ".." in result.parts:
        raise InvalidError(f"{result} is no path below the experiment's analysis/")
    if len(str(result).splitlines()) > 1:  # what stands behind it would be told to the stage as our word
        raise InvalidError(f"{str(result)!r} has a line break, which no result may have in its name: rename the file")
    if result.absolute() in (file.absolute(), _without_suffix(file.absolute())):
        raise InvalidError(f"the result would stand beside {file} under its name: give --keep-in a directory")
    result.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.write(f"result: {result}\nkept in: {result.parent}\n")
    return result


def _has_namesake(file: Path) -> bool:
    """Whether another file of frames stands beside this one, under its name but for the suffix."""
    stem = _without_suffix(file)
    if stem == file:
        return False
    return any(stem.with_name(stem.name + ending).exists() for ending in OF_FRAMES if ending != file.suffix.lower())


def _without_suffix(path: Path) -> Path:
    return path if path.suffix[1:].isdigit() else path.with_suffix("")


def beside(options: Namespace, file: Path, wanted: str) -> Path:
    """Return a file that a task needs, as its path below the experiment of the job's file; by hand any path.

    A job runs under an account that may read more than who submits it: nothing outside of the experiment is opened.
    """
    if not options.in_experiment:
        return Path(wanted)
    whole, below = str(file), options.in_experiment
    if not wanted.startswith(("data/", "analysis/")):
        raise InvalidError(f'"{wanted}" is no path in the experiment: give data/... or analysis/...')
    if not whole.endswith(f"/{below}"):
        raise InvalidError(f"{file} does not lie in its experiment's directory, and so {wanted} cannot be found")
    top = Path(whole.removesuffix(below)).resolve()
    found = (top / wanted).resolve()
    if not found.is_relative_to(top):
        raise InvalidError(f'"{wanted}" leads out of the experiment')
    return found
