"""A second copy of a file at another place: a directory, a host that rsync reaches, or what rclone speaks."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from uuid import uuid4

from blake3 import blake3

from beamkeeper.domain.errors import DestinationError, InvalidError


def main(argv: Sequence[str] | None = None) -> int:
    """Copy a file, compare both, and write what is to be noted as JSON."""
    parser = argparse.ArgumentParser(prog="dm-library second_copy", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--in-experiment", required=True, metavar="PATH", help="the file's path below the experiment")
    parser.add_argument("--experiment", required=True, help="the directory at the other place")
    parser.add_argument("--to", required=True, help="DIRECTORY, HOST:DIRECTORY or rclone:REMOTE:PATH")
    parser.add_argument("--label", default="second")
    parser.add_argument("--output", type=Path, default=Path("copy.json"))
    options = parser.parse_args(argv)
    below = PurePosixPath(options.experiment, options.in_experiment)
    if below.is_absolute() or ".." in below.parts:
        raise InvalidError(f'"{below}" is no path below another place')
    if options.to.startswith("rclone:"):
        where, how = _rclone(options.file, options.to.removeprefix("rclone:"), below)
    elif ":" in options.to.partition("/")[0]:
        where, how = _rsync(options.file, options.to, below)
    elif options.to.startswith("/"):
        where, how = _directory(options.file, Path(options.to), below)
    else:
        raise InvalidError(f'"{options.to}" is no place: give /DIRECTORY, HOST:DIRECTORY or rclone:REMOTE:PATH')
    noted = {"at": where, "verified": how, "when": datetime.now(UTC).isoformat(timespec="seconds")}
    options.output.write_text(json.dumps({"copies": {options.label: noted}}))
    sys.stdout.write(f"copy: {where}\n")
    return 0


def _directory(file: Path, to: Path, below: PurePosixPath) -> tuple[str, str]:
    """Copy beside the name, read that back, and only then rename: the name holds a whole copy or none."""
    if not to.is_dir():
        raise DestinationError(f"{to} is not there: is it mounted?")  # else the copy would fill the local disk
    target = to / below
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name[:200]}.{uuid4().hex[:8]}")
    try:
        shutil.copyfile(file, beside)
        shutil.copystat(file, beside)
        with beside.open("rb") as written:
            os.fsync(written.fileno())
            os.posix_fadvise(written.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # so that it is read from the disk
        if _digest(beside) != _digest(file):
            raise DestinationError(f"{target} is not read back as {file}: look at that disk")
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    return str(target), "read-back"


def _digest(path: Path) -> bytes:
    return blake3(max_threads=1).update_mmap(path).digest()


def _rsync(file: Path, to: str, below: PurePosixPath) -> tuple[str, str]:
    """Copy by rsync, and ask it once more, by checksums: it has nothing left to send where the copy is whole."""
    target = f"{to.rstrip('/')}/{below}"
    common = ["rsync", "--times", "--protect-args", "--mkpath"]
    _run([*common, "--", str(file), target])
    left = _run([*common, "--checksum", "--dry-run", "--itemize-changes", "--", str(file), target])
    if any(line.startswith(("<f", ">f")) for line in left.splitlines()):
        raise DestinationError(f"{target} has another checksum than {file}")
    return target, "checksum"


def _rclone(file: Path, to: str, below: PurePosixPath) -> tuple[str, str]:
    """Copy by rclone, which compares sizes and checksums itself, and have it read both once more."""
    target = f"{to.rstrip('/')}/{below}"
    _run(["rclone", "copyto", "--", str(file), target])
    directory, name = target.rpartition("/")[0], below.name
    escaped = "".join(f"\\{character}" if character in "*?[]{}\\" else character for character in name)
    _run(["rclone", "check", "--download", "--one-way", "--include", f"/{escaped}", "--", str(file.parent), directory])
    return target, "read-back"


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise DestinationError(f"{command[0]} is not installed here") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        raise DestinationError(f"{command[0]} ended with {done.returncode}: {last[:300]}")
    return done.stdout
