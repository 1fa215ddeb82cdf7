"""XPCS at a cluster, as the founding paper's beamline 8-ID does it: what is sent there, and what comes back."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from beamkeeper.domain.errors import InvalidError
from beamkeeper.library import results

SCHEMES = ("gsiftp://", "ftp://", "sshftp://")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the batch script and the XPCS metadata of a file, and tell the stages what lies where."""
    parser = argparse.ArgumentParser(prog="dm-library xpcs_8id", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--cluster", required=True, help="the address of its GridFTP server, such as gsiftp://hpc.example.org"
    )
    parser.add_argument("--directory", required=True, help="a directory there, which begins with /")
    parser.add_argument("--job", required=True, help="the name of this job's own directory in it")
    parser.add_argument("--options", default="", help="options of `dm-library xpcs`, as one writes them in a shell")
    results.add_options(parser, "xpcs")
    options = parser.parse_args(argv)
    if not options.cluster.startswith(SCHEMES) or not options.directory.startswith("/"):
        raise InvalidError(
            "say --cluster SCHEME://HOST:PORT, with gsiftp, sshftp or ftp, and a --directory that begins with /"
        )
    result = results.place(options, options.file)
    there = PurePosixPath(options.directory, options.job, result)
    settings = _words(options.options)
    Path(f"{result}.json").write_text(json.dumps({"xpcs": {"of": options.in_experiment, "options": settings}}))
    Path(f"{result}.sh").write_text(script(there, options.file.suffix, settings))
    address = f"{options.cluster.rstrip('/')}{quote(str(there))}"
    sys.stdout.write(f"here: {_url(Path(f'{result}').absolute())}\nthere: {there}\naddress: {address}\n")
    sys.stdout.write(f"raw: {_url(options.file.absolute())}\nsuffix: {options.file.suffix}\n")
    return 0


def _words(text: str) -> list[str]:
    """Return options as a shell reads them."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidError(f"--options cannot be read ({str(error).lower()}): {text!r}") from error


def _url(path: Path) -> str:
    return f"file://{quote(str(path))}"


def script(there: PurePosixPath, suffix: str, settings: Sequence[str]) -> str:
    """Return what the scheduler runs: the correlation of the file that lies there, its result beside it."""
    ours = ["--in-experiment", "result", "--keep-in", "out"]  # at last: what a job says cannot lead elsewhere
    words = ["dm-library", "xpcs", f"{there}/raw{suffix}", *settings, *ours]
    return f"#!/bin/sh\nset -e\ncd {shlex.quote(str(there))}\n{shlex.join(words)}\n"
