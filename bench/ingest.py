"""Ingest against the peers that people use today, everything in one run: `make bench-ingest`.

Ours finds, copies, hashes, makes durable, reads back from the device and catalogues. The peers copy, and a second
pass compares checksums: with the page cache cold and warm, both printed, the warm one counts. Everything by turns, so
that all meet the same machine; medians. Each row that counts ends up as a line `bench NAME FIGURE ASKED ok|short`,
with tabs between.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from peers import Peer, drop_caches, fresh, peer_times, rclone_peer, rsync_peer, run, say, timed
from report import Row, machine, status, table, write_part
from run import pss_mb

from beamkeeper.client import Client
from beamkeeper.domain.acquisition import Acquisition, JournalState, NewDaq, NewUpload, State
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.names import path_fields
from beamkeeper.testing.station import Station, experiment, station, until

SETTINGS = "quiet_s = 2.0\nscan_interval_s = 30.0\n"
"""As a beamline has them by default; the stations of tests are less patient."""

PATIENCE_S = 1800.0
FLAT_MB = 20
TEXT = """\
## Ingest

What `make bench-ingest` measured here, in one run. Ours is found, copied, hashed, durable, read back from
the device and catalogued; a peer copies and then compares checksums in a second pass, of which the one with
a warm cache counts. By turns; medians.
"""


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


def seconds(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} s (of {', '.join(f'{value:.2f}' for value in values)})"


# Uploads.


def our_time(source: Path, parent: Path, count: int) -> float:
    """Upload a directory and return how long it took until the upload was done, every file of it available."""
    with fresh(parent) as directory, station(directory, settings=SETTINGS) as made:
        client = made.start()
        of = experiment(client)
        wanted = NewUpload(experiment_uid=of.uid, **path_fields(os.fsencode(source)[1:]))
        began = time.perf_counter()
        upload = client.uploads.start(wanted)
        ended = client.uploads.wait(upload.uid, timeout_s=PATIENCE_S)
        took = time.perf_counter() - began
        if ended.state is not State.DONE or ended.count(JournalState.AVAILABLE) != count:
            raise SystemExit(f"the upload of {count} files ended {ended.state}: {ended.message}")
    return took


def against(name: str, source: Path, parent: Path, peers: Sequence[Peer], repeats: int) -> Iterator[Row]:
    """Compare one work with its peers, by turns, by medians."""
    count = sum(len(names) for _, _, names in os.walk(source))
    mine: list[float] = []
    theirs: dict[str, list[tuple[float, float, float]]] = {peer.name: [] for peer in peers}
    for number in range(repeats):
        for peer in peers:
            theirs[peer.name].append(peer_times(source, parent, peer))
        os.sync()
        mine.append(our_time(source, parent, count))
        say(
            f"{name}, turn {number + 1} of {repeats}: ours {mine[-1]:.2f} s, "
            + "; ".join(f"{peer.name} {' '.join(f'{part:.2f}' for part in theirs[peer.name][-1])} s" for peer in peers)
        )
    for peer in peers:
        copied, cold, warm = (statistics.median(part) for part in zip(*theirs[peer.name], strict=True))
        ratio = statistics.median(mine) / (copied + warm)
        note = (
            f"ours {seconds(mine)}; {peer.name} copies in {copied:.2f} s and checks in {warm:.2f} s warm, "
            f"{cold:.2f} s cold"
        )
        yield Row(f"{name} / {peer.name}", ratio, "x", peer.asked, note=note)


def small(parent: Path, scale: Scale) -> Iterator[Row]:
    """Upload many small files."""
    peers = [rsync_peer(parent, 1.0), rclone_peer(parent, 0.7)]
    source = parent / "small"
    noise = os.urandom(1_000_000 + scale.size)
    for number in range(scale.files):
        below = source / f"{number % scale.directories:02d}"
        below.mkdir(parents=True, exist_ok=True)
        start = number * 7919 % 1_000_000
        (below / f"{number:06d}.dat").write_bytes(noise[start : start + scale.size])
    os.sync()
    name = f"{scale.files:,} files of {scale.size // 1000} KB uploaded"
    yield from against(name, source, parent, peers, scale.repeats)


def large(parent: Path, scale: Scale) -> Iterator[Row]:
    """Upload two large files."""
    source = parent / "large"
    source.mkdir()
    noise = os.urandom(10_000_000)
    for number in range(2):
        with (source / f"{number}.dat").open("wb") as file:
            for part in range(scale.large // len(noise)):
                file.write(part.to_bytes(8, "big") + noise[8:])
    os.sync()
    name = f"2 files of {scale.large / 1e9:g} GB uploaded"
    yield from against(name, source, parent, [rsync_peer(parent, 0.6)], scale.repeats)


# A detector that is watched.


def detector(directory: Path, scale: Scale) -> dict[str, float]:
    """Write files at a rate, by rename, and return when each was finished."""
    content = os.urandom(scale.size)
    finished: dict[str, float] = {}
    began = time.perf_counter()
    for number in range(scale.rate * scale.seconds):
        below = directory / f"scan_{number // 1000:03d}"
        if number % 1000 == 0:
            below.mkdir()
        due = began + number / scale.rate
        if (pause := due - time.perf_counter()) > 0:
            time.sleep(pause)
        path = f"{below}/{number:06d}.dat"
        opened = os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(opened, content)
        os.close(opened)
        os.rename(path + ".tmp", path)
        finished[f"data/{below.name}/{number:06d}.dat"] = time.time()
    took = time.perf_counter() - began
    say(f"the detector wrote {len(finished)} files in {took:.1f} s, {len(finished) / took:.0f} a second")
    return finished


def watched(parent: Path, scale: Scale) -> Iterator[Row]:
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
        sampler = threading.Thread(target=_sample, args=(made, memory, over))
        sampler.start()
        try:
            finished = detector(source, scale)
            client.daqs.stop(daq.uid)
            ended = client.daqs.wait(daq.uid, timeout_s=PATIENCE_S)
        finally:
            over.set()
            sampler.join()
        yield from _verdicts(client, ended, finished, memory, f"{scale.rate:,} files/s for {scale.seconds} s")


def _sample(made: Station, memory: list[float], over: threading.Event) -> None:
    while not over.wait(1.0):
        with suppress(OSError):  # a helper that has ended meanwhile
            memory.append(pss_mb(made.pid))


def _verdicts(
    client: Client, ended: Acquisition, finished: Mapping[str, float], memory: Sequence[float], name: str
) -> Iterator[Row]:
    query = FileQuery(experiment_uid=ended.experiment_uid, limit=1000)
    files = {file.path: file.catalogued_at.timestamp() for file in client.files.find(query)}
    lost = len(set(finished) - set(files))
    latencies = sorted(files[path] - at for path, at in finished.items() if path in files) or [float("inf")]
    p99 = latencies[int(len(latencies) * 0.99)]
    note = f"{len(finished)} written; median {statistics.median(latencies):.2f} s, longest {latencies[-1]:.2f} s"
    yield Row(f"{name}, watched: lost", lost, "files", 0, note=note)
    yield Row(f"{name}: last byte to catalogued, p99", p99, "s", 1, note=note)
    first, second = memory[len(memory) // 4 : len(memory) // 2], memory[len(memory) // 2 :]
    growth = max(second, default=0) - max(first, default=0)
    shown = f"all processes (PSS): at most {max(memory, default=0):.0f} MB"
    yield Row(f"{name}: memory growth", growth, "MB", FLAT_MB, note=shown)


# Scans.

SCAN = """
import os, resource, sys
from beamkeeper.engine.scan import walk
count = sum(len(listing.entries) for listing in walk(os.fsencode(sys.argv[1]), b"", lambda directory: None))
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def scanned(parent: Path, scale: Scale) -> Iterator[Row]:
    """List many small files, against find."""
    with fresh(parent) as directory:
        for number in range(scale.scanned // 1000):
            below = directory / f"{number // 100:03d}" / f"{number:05d}"
            below.mkdir(parents=True)
            for i in range(1000):
                os.close(os.open(f"{below}/{i}", os.O_CREAT | os.O_WRONLY, 0o600))
        found, mine, resident = [], [], 0
        for _ in range(scale.repeats):
            found.append(timed(lambda: run("find", directory, "-printf", r"%p %s %T@ %C@ %i %D\n")))
            began = time.perf_counter()
            argv = [sys.executable, "-c", SCAN, str(directory)]
            done = subprocess.run(argv, check=True, capture_output=True, text=True)
            mine.append(time.perf_counter() - began)
            count, most = map(int, done.stdout.split())
            resident = max(resident, most)
            if count < scale.scanned:
                raise SystemExit(f"the scan met {count} of {scale.scanned} files")
    ratio = statistics.median(mine) / statistics.median(found)
    note = f"ours {seconds(mine)}; find {seconds(found)}"
    name = f"{scale.scanned:,} files scanned"
    yield Row(f"{name} / find -printf", ratio, "x", 3, note=note)
    megabytes = resident * 1024 / 1e6
    yield Row(f"{name}: resident memory", megabytes, "MB", 300, note=note)


PARTS: Mapping[str, Callable[[Path, Scale], Iterator[Row]]] = {
    "small": small,
    "large": large,
    "watched": watched,
    "scan": scanned,
}


def main() -> int:
    """Run the benches that were asked for; the exit status is 1 where a figure is short of what is asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work: to see that it runs")
    parser.add_argument(
        "--repeats", type=int, metavar="N", help="how many turns (5: about 15 minutes in all; with --quick 3)"
    )
    parser.add_argument("--directory", type=Path, default=Path.cwd(), help="on the disk to be measured")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table into the page of benchmarks")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; none is all")
    options = parser.parse_args()
    if unknown := sorted(set(options.parts) - set(PARTS)):
        parser.error(f"there is no part {unknown[0]}: the parts are {', '.join(PARTS)}")
    scale = QUICK if options.quick else WHOLE
    if options.repeats:
        scale = Scale(**{**vars(scale), "repeats": options.repeats})
    facts = machine("bench-ingest")
    for name, fact in facts.items():
        say(f"{name}: {fact}")
    rows: list[Row] = []
    for part in options.parts or PARTS:
        with fresh(options.directory.resolve()) as parent:
            if not drop_caches():
                say("not root: the cold passes are as warm as the others")
            for row in PARTS[part](parent, scale):
                rows.append(row)
                say(f"{row.name}: {row.shown}; {row.note}")
    if options.write:
        write_part(options.write, "ingest", [TEXT, *table(rows, facts)])
    print("\n".join(row.line() for row in rows))
    return status(rows)


if __name__ == "__main__":
    sys.exit(main())
