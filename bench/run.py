"""The numbers that the project promises, each measured in this run against what is asked: `make bench`.

One line a row, with tabs between: bench, name, figure, what is asked, ok or short. A row with `-` for what is asked
informs, and promises nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from report import Row, machine, status, table

ROOT = Path(__file__).resolve().parents[1]
PYTHON = sys.executable
DM = (PYTHON, "-c", "from beamkeeper.cli.app import main; main()")
SERVICES = ("STORAGE", "CATALOG", "ACQUISITION", "PROCESSING", "PORTAL")
HELP_RUNS = 15
START_RUNS = 5
IDLE_S = 10.0
PATIENCE_S = 60.0


@contextmanager
def home() -> Iterator[dict[str, str]]:
    """Give the environment of a user who has nothing yet, with ports that are free."""
    from beamkeeper.testing.servers import free_port

    with tempfile.TemporaryDirectory(prefix="beamkeeper-bench-") as directory:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("BEAMKEEPER_", "XDG_", "PIP_"))}
        ports = {f"BEAMKEEPER_{service}__LISTEN": f"127.0.0.1:{free_port()}" for service in SERVICES}
        yield {**kept, **ports, "HOME": directory, "BEAMKEEPER_DATA_DIR": f"{directory}/beamline"}


def call(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> float:
    """Run a command and return how many seconds it took."""
    began = time.perf_counter()
    subprocess.run(argv, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def help_rows() -> Iterator[Row]:
    """Compare `dm --help` with a Python that does nothing, by turns, so that both meet the same machine."""
    nothing, helping = [], []
    with home() as environ:
        for _ in range(HELP_RUNS):
            nothing.append(call((PYTHON, "-c", "pass"), environ))
            helping.append(call((*DM, "--help"), environ))
    ratio = statistics.median(helping) / statistics.median(nothing)
    yield Row("dm --help / python -c pass", ratio, "x", 8)
    yield Row("dm --help", 1000 * statistics.median(helping), "ms")


def beamline_rows() -> Iterator[Row]:
    """Measure how soon a beamline answers, the first time and again, and what it holds when it has nothing to do."""
    first, again, idle = [], [], []
    for number in range(START_RUNS):
        with home() as environ:
            first.append(seconds_until_up(environ))
            if number == 0:
                time.sleep(IDLE_S)
                idle.append(pss_mb(supervisor_pid(environ)))
            call((*DM, "down"), environ)
            again.append(seconds_until_up(environ))
            call((*DM, "down"), environ)
    yield Row("dm up to first answer of every service", statistics.median(first), "s", 3)
    yield Row("dm up to first answer, started before", statistics.median(again), "s", 3)
    yield Row("idle memory of all processes (PSS)", idle[0], "MB", 150)


def seconds_until_up(environ: Mapping[str, str]) -> float:
    """Start `dm up` and return when the last service answered; `dm up` has ended then, too."""
    began = time.perf_counter()
    with subprocess.Popen((*DM, "up"), env=environ, stdout=subprocess.DEVNULL) as up:
        for service in SERVICES:
            until_answers(f"http://{environ[f'BEAMKEEPER_{service}__LISTEN']}/health", began + PATIENCE_S)
        took = time.perf_counter() - began
    if up.returncode != 0:
        raise RuntimeError(f"`dm up` ended with status {up.returncode}")
    return took


def until_answers(url: str, deadline: float) -> None:
    while time.perf_counter() < deadline:
        with suppress(OSError), urllib.request.urlopen(url, timeout=1):  # noqa: S310
            return
        time.sleep(0.01)
    raise TimeoutError(f"{url} did not answer")


def supervisor_pid(environ: Mapping[str, str]) -> int:
    found = json.loads((Path(environ["BEAMKEEPER_DATA_DIR"]) / "run" / "supervisor.json").read_text())
    return int(found["pid"])


def pss_mb(top: int) -> float:
    """Return the memory of a process and of all below it; what several share counts by share."""
    children: dict[int, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((process / "stat").read_bytes().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(int(process.name))
    total, waiting = 0, [top]
    while waiting:
        pid = waiting.pop()
        waiting += children.get(pid, [])
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total * 1024 / 1e6


def installation_rows() -> Iterator[Row]:
    """Measure a fresh installation; the first fills pip's cache and is not counted."""
    with tempfile.TemporaryDirectory(prefix="beamkeeper-bench-") as directory:
        for name in ("cold", "warm"):
            venv.create(f"{directory}/{name}", with_pip=True)
            (site,) = Path(directory, name).glob("lib/python3*/site-packages")
            before = disk_mb(site)
            pip = (f"{directory}/{name}/bin/python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
            took = call((*pip, f"{ROOT}[server]"))
        yield Row("pip install '.[server]', warm cache", took, "s", 60)
        yield Row("pip install '.[server]', on disk", disk_mb(site) - before, "MB", 200)
        yield Row("site-packages then, with the pip of the environment", disk_mb(site), "MB")


def disk_mb(directory: Path) -> float:
    return sum(path.lstat().st_blocks * 512 for path in directory.rglob("*")) / 1e6


def demo_rows() -> Iterator[Row]:
    """Let the demo's detector write 300 TIFF frames at 100 a second beside its other files, and see how they fare."""
    with home() as environ:
        try:
            words = (*DM, "--json", "demo")
            done = subprocess.run(words, env=environ, capture_output=True, text=True, check=True)
        finally:
            subprocess.run((*DM, "demo", "--stop"), env=environ, stdout=subprocess.DEVNULL, check=False)
    verdict = json.loads(done.stdout)["verdict"]
    catalogued = next(row for row in verdict["rows"] if row["what"] == "catalogued")
    yield Row("dm demo: files written to all catalogued", float(catalogued["files"]) / catalogued["seconds"], "/s")
    yield Row("dm demo: last byte to catalogued, median", verdict["median_s"], "s")
    yield Row("dm demo: last byte to catalogued, p99", verdict["p99_s"], "s")


def upload_rows() -> Iterator[Row]:
    """Upload 300 TIFF frames that are there already: the pace of ingest by itself."""
    from beamkeeper.cli.demo.rings import Rings, tiff_bytes
    from beamkeeper.domain.acquisition import JournalState, NewUpload
    from beamkeeper.domain.names import path_fields
    from beamkeeper.testing.station import experiment, station

    with tempfile.TemporaryDirectory(prefix="beamkeeper-bench-") as directory:
        source, rings, size = Path(directory, "frames"), Rings(1), 0
        source.mkdir()
        for number in range(300):
            content = tiff_bytes(rings.frame(number), number=number, taken_at=datetime(2026, 1, 1, tzinfo=UTC))
            size += (source / f"frame_{number:04}.tif").write_bytes(content)
        with station(Path(directory, "station")) as made:
            client = made.start()
            fields = {"experiment_uid": experiment(client).uid, **path_fields(os.fsencode(source)[1:])}
            began = time.perf_counter()
            ended = client.uploads.wait(client.uploads.start(NewUpload.model_validate(fields)).uid, timeout_s=300)
            took = time.perf_counter() - began
        if ended.count(JournalState.AVAILABLE) != 300:
            raise RuntimeError(f"the upload ended {ended.state}: {ended.message}")
    yield Row("upload of 300 TIFF frames, verified and catalogued", 300 / took, "/s")
    yield Row("upload of 300 TIFF frames, bytes", size / took / 1e6, "MB/s")


PARTS: Mapping[str, Callable[[], Iterator[Row]]] = {
    "help": help_rows,
    "beamline": beamline_rows,
    "installation": installation_rows,
    "demo": demo_rows,
    "upload": upload_rows,
}


def main() -> int:
    """Measure; the exit status is 1 where a figure is short of what is asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; none is all")
    parser.add_argument("--write", type=Path, metavar="FILE", help="keep the results as a page")
    options = parser.parse_args()
    if unknown := sorted(set(options.parts) - set(PARTS)):
        parser.error(f"there is no part {unknown[0]}: the parts are {', '.join(PARTS)}")
    facts = machine("bench")
    for name, fact in facts.items():
        print(f"# {name}: {fact}", flush=True)
    rows = []
    for part in options.parts or PARTS:
        for row in PARTS[part]():
            rows.append(row)
            print(f"# {row.name}: {row.shown}", flush=True)
    if options.write:
        _, mark, rest = (options.write.read_text() if options.write.exists() else "").partition("<!-- ")
        options.write.write_text(page(facts, rows) + (f"\n{mark}{rest}" if mark else ""))
    print("\n".join(row.line() for row in rows))
    return status(rows)


def page(facts: Mapping[str, str], rows: Sequence[Row]) -> str:
    """Return the reference page of the results, up to the parts of other benches."""
    lines = [
        "# Benchmarks",
        "",
        "What `make bench` measured here. Run it on your own machine: it takes some minutes, and the network for the",
        "installation. A figure of another machine tells little; a ratio, and what is asked of it, tells more.",
        "",
        *table(rows, facts),
        "",
        *NOTES,
    ]
    return "\n".join(lines) + "\n"


NOTES = (
    "## How it is measured",
    "",
    f"- `dm --help` and `python -c pass` by turns, {HELP_RUNS} times each; the medians are compared.",
    f"- `dm up` until each of the three services has answered `/health`; the median of {START_RUNS}. First on an empty",
    "  data directory, which makes the databases, then on the same one after `dm down`.",
    "- Memory: the sum of `Pss` in `/proc/PID/smaps_rollup` of the supervisor and everything below it,",
    f"  {IDLE_S:g} s after the first answer.",
    "- The installation goes into a new virtual environment, after another one has filled pip's cache. Its size is by",
    "  how much `site-packages` grows, in blocks on disk; before it, pip and, with Python 3.11, setuptools are there.",
    "- `dm demo` writes 300 TIFF frames of 512×512 at 100 a second, and NeXus files beside them; a file counts as",
    "  finished only after it has rested for 2 s, which is in the times. The upload is of 300 such frames that are",
    "  there already.",
)


if __name__ == "__main__":
    sys.exit(main())
