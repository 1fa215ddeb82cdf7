"""A detector that tells the truth: a process of its own that writes files and says what it wrote, and when.

`python -m beamkeeper.testing.truth` writes by one of the modes below and keeps a log outside of what is tested: one
JSON line when a file is opened, one when it is closed with the digest of the state it leaves, one when it is removed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from blake3 import blake3

from beamkeeper.domain.names import from_b64, to_b64

HOSTILE = (
    b"a space.tif",
    b"line\nbreak",
    b"tab\tand\x1b[31mescape",
    b"\xff\xfe latin",
    b"-rf",
    b"$(touch x)",
    b"`id`;|&",
    b"\"quotes'",
    b"*?[a]{b}",
    b"x" * 255,
    "r\u202egnp.tif".encode(),
    b"<img src=x onerror=alert(1)>",
    b".hidden",
    b"percent%2f%00",
    b"back\\slash",
    unicodedata.normalize("NFC", "\u00e9toile").encode(),
    unicodedata.normalize("NFD", "\u00e9toile").encode(),
    b"Case",
    b"case",
)
"""Names that have broken somebody's system."""


@dataclass(frozen=True, slots=True)
class State:
    """One state of a file that a writer left behind."""

    digest: str
    size: int
    closed_at: float


@dataclass(slots=True)
class Truth:
    """What the writers say; paths are relative to the directory that is watched."""

    states: dict[bytes, list[State]] = field(default_factory=dict)
    opened: set[bytes] = field(default_factory=set)
    """Paths that were opened and never closed: their writers died, or write still."""
    removed: set[bytes] = field(default_factory=set)

    @classmethod
    def read(cls, *logs: Path) -> Truth:
        """Return what is in some writers' logs."""
        truth = cls()
        for log in logs:
            for line in log.read_bytes().splitlines():
                truth._take(json.loads(line))
        return truth

    def _take(self, line: Mapping[str, str | int | float]) -> None:
        path = from_b64(str(line["path"]))
        if line["what"] == "opened":
            self.opened.add(path)
        elif line["what"] == "removed":
            self.removed.add(path)
        else:
            self.opened.discard(path)
            self.removed.discard(path)
            state = State(str(line["digest"]), int(line["size"]), float(line["at"]))
            self.states.setdefault(path, []).append(state)


class Writer:
    """Writes below a directory, and logs; used by this module's process, and by tests that play the detector."""

    def __init__(self, into: Path, log: Path) -> None:
        self._into = os.fsencode(into)
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def say(self, what: str, path: bytes, content: bytes | None = None) -> None:
        """Write one line of the log."""
        line: dict[str, str | int | float] = {"what": what, "path": to_b64(path), "at": time.time()}
        if content is not None:
            line |= {"digest": blake3(content).hexdigest(), "size": len(content)}
        os.write(self._log, json.dumps(line).encode() + b"\n")

    def at(self, path: bytes) -> bytes:
        """Return where a path is, making its directories."""
        absolute = os.path.join(self._into, path)
        os.makedirs(os.path.dirname(absolute), exist_ok=True)
        return absolute

    def plain(self, path: bytes, content: bytes, *, pieces: int = 2, pause_s: float = 0.0) -> None:
        """Write a file under its own name, in pieces."""
        self.say("opened", path)
        with open(self.at(path), "wb", buffering=0) as file:
            step = max(1, -(-len(content) // pieces))
            for start in range(0, len(content), step):
                file.write(content[start : start + step])
                time.sleep(pause_s)
        self.say("closed", path, content)

    def renamed(self, path: bytes, content: bytes) -> None:
        """Write a file under a temporary name, and rename it."""
        parent, _, name = path.rpartition(b"/")
        temporary = self.at((parent + b"/" if parent else b"") + name[:200] + b".part")
        with open(temporary, "wb", buffering=0) as file:
            file.write(content)
        self.say("closed", path, content)
        os.rename(temporary, self.at(path))

    def appended(self, path: bytes, more: bytes) -> None:
        """Open a file, append to it, and close it."""
        self.say("opened", path)
        with open(self.at(path), "ab", buffering=0) as file:
            file.write(more)
        self.say("closed", path, Path(os.fsdecode(self.at(path))).read_bytes())

    def hdf5(self, path: bytes, content: bytes, *, libver: str = "latest", hold_s: float = 0.0) -> None:
        """Write an HDF5 file with one dataset, and hold it open for a while."""
        import h5py

        self.say("opened", path)
        with h5py.File(self.at(path), "w", libver=libver) as file:
            file["entry/data"] = memoryview(content)
            if hold_s:
                file.flush()
                time.sleep(hold_s)
        self.say("closed", path, Path(os.fsdecode(self.at(path))).read_bytes())

    def removed(self, path: bytes) -> None:
        """Remove a file."""
        self.say("removed", path)
        os.unlink(self.at(path))

    def close(self) -> None:
        """Make the log durable, and close it."""
        os.fsync(self._log)
        os.close(self._log)


def _many(write: Callable[[bytes, bytes], None], options: argparse.Namespace, rng: random.Random) -> Iterator[None]:
    for i in range(options.count):
        path = f"{options.prefix}scan_{i % 5}/{options.mode}_{i:05d}.dat".encode()
        write(path, rng.randbytes(rng.choice((0, 1, options.size, rng.randrange(options.size + 1)))))
        yield


def _slow(writer: Writer, options: argparse.Namespace, rng: random.Random) -> Iterator[None]:
    for i in range(options.count):
        path = f"{options.prefix}slow_{i}.dat".encode()
        writer.plain(path, rng.randbytes(options.size), pause_s=options.hold / 2)
        yield


def _hostile(writer: Writer, options: argparse.Namespace, rng: random.Random) -> Iterator[None]:
    free = bytes(sorted(set(range(256)) - {0, ord("/")}))
    names = [*HOSTILE, *(bytes(rng.choices(free, k=rng.randrange(1, 256))) for _ in range(options.count))]
    for i, name in enumerate(names):
        if name not in (b".", b".."):
            writer.plain(b"%shostile_%d/" % (options.prefix.encode(), i // 40) + name, rng.randbytes(options.size))
            yield


def _growing(writer: Writer, options: argparse.Namespace, rng: random.Random) -> Iterator[None]:
    for i in range(options.count):
        path = f"{options.prefix}grown_{i % 3}.log".encode()
        writer.appended(path, rng.randbytes(1 + rng.randrange(options.size)))
        yield


def _rewritten(writer: Writer, options: argparse.Namespace, rng: random.Random) -> Iterator[None]:
    for i in range(options.count):
        writer.plain(f"{options.prefix}again_{i % 3}.dat".encode(), rng.randbytes(options.size))
        yield


def write(options: argparse.Namespace) -> None:
    """Write as the options say."""
    writer, rng = Writer(options.into, options.log), random.Random(options.seed)
    modes: Mapping[str, Callable[[], Iterator[None]]] = {
        "plain": partial(_many, writer.plain, options, rng),
        "slow": partial(_slow, writer, options, rng),
        "rename": partial(_many, writer.renamed, options, rng),
        "hdf5": partial(_many, partial(writer.hdf5, hold_s=options.hold), options, rng),
        "hdf5-earliest": partial(_many, partial(writer.hdf5, libver="earliest"), options, rng),
        "append": partial(_growing, writer, options, rng),
        "rewrite": partial(_rewritten, writer, options, rng),
        "hostile": partial(_hostile, writer, options, rng),
    }
    for _ in modes[options.mode]():
        time.sleep(options.pause)
    writer.close()


def start_writer(into: Path, log: Path, mode: str, **options: int | float | str) -> subprocess.Popen[bytes]:
    """Start a writer's process; the options are those of the command."""
    words = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "beamkeeper.testing.truth", f"--into={into}", f"--log={log}", f"--mode={mode}"]
    return subprocess.Popen([*command, *words], stdin=subprocess.DEVNULL)


def parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    made = argparse.ArgumentParser(prog="python -m beamkeeper.testing.truth", description=__doc__)
    made.add_argument("--into", type=Path, required=True, help="the directory that is watched")
    made.add_argument("--log", type=Path, required=True, help="where the truth is told")
    made.add_argument("--mode", required=True)
    made.add_argument("--count", type=int, default=10, help="so many files, or changes")
    made.add_argument("--size", type=int, default=20_000, help="the most bytes of a file, or of a change")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--pause", type=float, default=0.0, help="seconds between files")
    made.add_argument("--hold", type=float, default=0.0, help="seconds that a file stays open (slow, hdf5)")
    made.add_argument("--prefix", default="", help="begins every path")
    return made


def main(words: Sequence[str]) -> int:
    """Write, and return the exit status."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    write(parser().parse_args(words))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
