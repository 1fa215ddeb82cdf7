"""The numbers that the project promises of its own weight, each against its limit: `make bench`."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from beamkeeper.testing.servers import free_port

ROOT = Path(__file__).parents[1]
REPEATS = 11
DM = [sys.executable, "-c", "from beamkeeper.cli.app import main; main()"]
SERVICES = ("storage", "catalog", "acquisition")
SETTLE_S = 10.0
"""A beamline that has just started still has memory to give back."""


def row(name: str, value: float, unit: str, limit: float) -> bool:
    """Print one line, and return whether the limit is kept."""
    is_kept = value <= limit
    print(f"{name:<44} {value:>8.2f} {unit:<3} limit {limit:g} {'' if is_kept else 'MISSED'}".rstrip(), flush=True)
    return is_kept


def seconds(argv: list[str]) -> float:
    """Return the median time of a command."""
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


@contextmanager
def home() -> Iterator[Mapping[str, str]]:
    """Give the environment of a user who has nothing yet; what was started in it is stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="beamkeeper-bench-") as directory:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("BEAMKEEPER_", "XDG_"))}
        ports = {f"BEAMKEEPER_{service.upper()}__LISTEN": f"127.0.0.1:{free_port()}" for service in SERVICES}
        environment = {**kept, **ports, "HOME": directory}
        try:
            yield environment
        finally:
            subprocess.run([*DM, "down"], env=environment, stdout=subprocess.DEVNULL, check=True)


def until_answers(url: str, begin: float, limit_s: float) -> float:
    """Return how long after `begin` a service answered."""
    while time.perf_counter() - begin < limit_s:
        with suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(url, timeout=1):  # noqa: S310
            return time.perf_counter() - begin
        time.sleep(0.01)
    raise TimeoutError(f"{url} did not answer within {limit_s:g} s")


def pss_mb(data_dir: str) -> float:
    """Return the memory of every process that was started for a data directory, shared pages counted by share."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if data_dir.encode() in (process / "cmdline").read_bytes().split(b"\0"):
                rollup = (process / "smaps_rollup").read_text()
                total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 1000


def beamline() -> Iterator[bool]:
    """Measure the start and the idle memory of a beamline."""
    with home() as environment:
        url = f"http://{environment['BEAMKEEPER_STORAGE__LISTEN']}/health"
        begin = time.perf_counter()
        with subprocess.Popen([*DM, "up"], env=environment, stdout=subprocess.DEVNULL) as up:
            yield row("dm up to the first answer", until_answers(url, begin, 60), "s", 3)
        if up.returncode != 0:
            raise RuntimeError(f"`dm up` ended with status {up.returncode}")
        time.sleep(SETTLE_S)
        data_dir = str(Path(environment["HOME"]) / ".local" / "share" / "beamkeeper")
        yield row("idle memory of all processes (PSS)", pss_mb(data_dir), "MB", 150)


def installation() -> Iterator[bool]:
    """Measure how long an installation takes, and its room on disk without pip."""
    with tempfile.TemporaryDirectory(prefix="beamkeeper-bench-") as directory:
        venv.create(directory, with_pip=True)
        before = size_mb(Path(directory))
        begin = time.perf_counter()
        pip = [f"{directory}/bin/python", "-m", "pip", "install", "--quiet", f"{ROOT}[server]"]
        subprocess.run(pip, check=True, stderr=subprocess.DEVNULL)
        yield row("pip install '.[server]'", time.perf_counter() - begin, "s", 60)
        yield row("its room on disk", size_mb(Path(directory)) - before, "MB", 200)


def size_mb(directory: Path) -> float:
    """Return the room that a tree takes on disk."""
    return sum(path.lstat().st_blocks * 512 for path in directory.rglob("*")) / 1e6


def main() -> int:
    """Measure; the exit status is 1 where a limit is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--no-install", action="store_true", help="leave out the installation, which needs an index")
    options = parser.parse_args()
    nothing = seconds([sys.executable, "-c", "pass"])
    kept = [row("dm --help, in times of `python -c pass`", seconds([*DM, "--help"]) / nothing, "x", 8), *beamline()]
    if not options.no_install:
        kept += installation()
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
