"""The promises of the catalogue, each measured in this run against what is asked: `make bench-catalog`.

Generates files with realistic metadata, loads them, asks 20 typical queries, facets, registers in bulk over HTTP, and
compares with Tiled. It says what it will do and about how long that takes; whole about half an hour on two calm cores,
with 56 GB of disk, and where the disk is short it loads fewer files and says so. Each row is printed as soon as it is
known. With `--results FILE` rows are kept: what ended there is not measured again, so that a run can be resumed, or
split by `--parts`. At the end one line a row, with tabs between: bench, name, figure, what is asked, ok or short.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import catalog_data as data
from catalog_load import load
from catalog_plans import plans
from catalog_plot import draw
from catalog_site import Site, batches, p95, site, timed
from catalog_tiled import TILED_ENTRIES, tiled
from report import Row, machine, pace, status, table, write_part

from beamkeeper.client import Client
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.stats import StatsBy, StatsQuery
from beamkeeper.domain.status import Service

ROOT = Path(__file__).resolve().parents[1]
GROWTH = (100_000, 1_000_000, 10_000_000)
BYTES = {"SQLite": 4_500, "PostgreSQL": 5_000}
"""What a file takes on disk, with its part of every index."""
SPARE_BYTES = 6_000_000_000
"""For sorting when indexes are made, and for others."""
SECONDS = {"SQLite": 200e-6, "PostgreSQL": 100e-6}
"""What loading a file takes, measured on two cores."""
MEASURING_S = {"SQLite": 90, "PostgreSQL": 90, "Tiled": 240}
REPEATS = 5
BATCHES = 20
ALIKE = f"one metadata search for one of {TILED_ENTRIES} entries"
TEXT = """\
## The catalogue

What `make bench-catalog` measured; how: see [how searches stay fast](../explanations/search.md). The loop of ten
million steps tells how fast the machine was beside each part: a virtual one may be twice as fast an hour later, and so
is all that it does.
"""


def asked(client: Client, query: str) -> list[float]:
    """Return how long the first page of a query takes, each time."""
    return [timed(lambda: client.files.page(FileQuery(query=query, limit=100))) for _ in range(REPEATS)]


def queries(of: Site, name: str, most: float | None) -> Iterator[Row]:
    """Ask every query as administrator and as a member of three experiments, by turns."""
    slowest, whole, own = [], [], []
    gc.collect()
    gc.freeze()  # what a bench has in memory is no part of a search, and to look through it took twice as long as one
    for title, query in data.QUERIES:
        mine, theirs = asked(of.member, query), asked(of.client, query)
        slowest.append((median(theirs), title))
        whole.append(theirs)
        own.append(mine)
        print(f"# {name}: {title}: {1000 * median(theirs):.1f} ms, member {1000 * median(mine):.1f} ms", flush=True)
    gc.unfreeze()
    # The first of each finds cold caches: it counts as any other.
    figure = 1000 * p95([t for times in whole for t in times])
    title = f"20 queries, first page, p95: {name}"
    yield Row(title, figure, "ms", most)
    ratio = p95([median(times) for times in own]) / p95([median(times) for times in whole])
    if most is not None:
        yield Row(f"member of 3 experiments / administrator: {name}", ratio, "x", 1.2)
        yield Row(f"slowest query, median: {name} ({max(slowest)[1]})", 1000 * max(slowest)[0], "ms")


def facets(of: Site, name: str, most: float | None) -> Iterator[Row]:
    for who, client in (("administrator", of.client), ("member", of.member)):
        times = [timed(lambda c=client: c.files.facets(data.FACETS)) for _ in range(REPEATS)]  # type: ignore[misc]
        title = f"facets of 5 keys, {who}: {name}"
        yield Row(title, 1000 * median(times), "ms", most)
    times = [timed(lambda: of.client.files.facets(data.FACETS, FileQuery(query="attenuation = 3"))) for _ in range(2)]
    yield Row(f"facets of 5 keys of the files that meet a query: {name}", 1000 * median(times), "ms")
    yield Row(
        f"stats by type: {name}", 1000 * timed(lambda: of.client.files.stat_page(StatsQuery(by=StatsBy.TYPE))), "ms"
    )


def behind(of: Site) -> int:
    found = of.client.files.stat_page(StatsQuery(limit=1))
    return found.index_behind


def registering(of: Site, name: str, count: int = BATCHES) -> Iterator[Row]:
    """Register in bulk by one client, and wait until all of it is found."""
    prepared = [file for batch in batches(of.experiments[5], count) for file in batch]
    of.service.files.register(next(batches(of.experiments[5], 1, first=9_000)))
    gc.collect()
    gc.freeze()  # what was prepared here would be looked through again and again: no client has all of it at once
    began = time.perf_counter()
    of.service.files.register(prepared)
    took = time.perf_counter() - began
    while behind(of):
        time.sleep(0.05)
    until = time.perf_counter() - began
    gc.unfreeze()
    files = len(prepared)
    yield Row(f"register over HTTP, one client, 25 keys: {name}", files / took, "files/s", least=5000)
    yield Row(f"until the last of {files} is found: {name}", until - took, "s")
    yield Row(f"registered and indexed: {name}", files / until, "files/s")


def alike(of: Site, name: str) -> Iterator[Row]:
    """Search as Tiled is searched: for one of so many entries that differ in one number, besides all that is there."""
    parts = batches(of.experiments[9], 1, first=30_000, size=TILED_ENTRIES)
    of.service.files.register([file for batch in parts for file in batch])
    while behind(of):
        time.sleep(0.05)
    began = time.perf_counter()
    found = of.client.files.page(FileQuery(query=f"frame = {TILED_ENTRIES // 2}", limit=100)).items
    took = time.perf_counter() - began
    if len(found) != 1:
        raise RuntimeError(f"the search has found {len(found)} entries, and one is there")
    yield Row(f"{ALIKE}: {name}", 1000 * took, "ms")


def lagging(of: Site, name: str, seconds: int = 10) -> Iterator[Row]:
    """Register a thousand files each second, and look how far the index falls behind."""
    worst, is_done = 0.0, threading.Event()

    def look() -> None:
        nonlocal worst
        while not is_done.wait(0.2):
            worst = max(worst, of.client.status(Service.CATALOG).oldest_unfinished_s or 0.0)

    watcher = threading.Thread(target=look)
    watcher.start()
    began = time.perf_counter()
    for number, batch in enumerate(batches(of.experiments[7], seconds * 10, first=20_000, size=100)):
        time.sleep(max(0.0, began + number / 10 - time.perf_counter()))
        of.service.files.register(batch)
    is_done.set()
    watcher.join()
    yield Row(f"lag of the index at 1000 files/s: {name}", worst, "s", 5)


def loaded(kind: str, files: int, options: argparse.Namespace, *, is_main: bool) -> Iterator[Row]:
    """Load a catalogue and measure it; one that only shows the growth is not written to."""
    name, began = f"{kind}, {files:g} files", time.perf_counter()

    def say(what: str) -> None:
        print(f"# {time.perf_counter() - began:6.0f} s  {name}: {what}", flush=True)

    with site(kind, options.directory) as of:
        say("loading")
        load(of.url, files, of.experiments, say)
        say("loaded")
        yield pace(name)
        most = {"PostgreSQL": 100.0, "SQLite": 100.0}[kind] if is_main else None
        yield from queries(of, name, most)
        yield from facets(of, name, 200.0 if files == 1_000_000 else None)
        if files == 1_000_000 or (is_main and files < 1_000_000):
            yield from registering(of, name)
            yield from lagging(of, name)
        if files == 1_000_000 or is_main:
            yield from alike(of, name)
        if is_main and options.write:
            plans(of.url, name)
        say("measured")


def main() -> int:
    """Measure what is asked for and print one line a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=GROWTH[-1], help="in PostgreSQL at the most; 0: none")
    parser.add_argument("--sqlite-files", type=int, default=1_000_000, help="in SQLite; 0: none")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on the disk to be used")  # noqa: S108
    parser.add_argument("--without-tiled", action="store_true", help="leave the comparison out: it needs the network")
    parser.add_argument("--parts", help="only these, such as `sqlite,tiled` or `postgresql-100000`; without: all")
    parser.add_argument("--results", type=Path, metavar="FILE", help="keep the rows here, and measure none of it again")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="put the results into this page, and write the plans"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was begun is cleared away
    os.environ["TMPDIR"] = str(options.directory)
    facts, kept = machine("bench-catalog"), Kept(options.results)
    for fact in facts.items():
        print("# {}: {}".format(*fact), flush=True)
    parts = [part for part in planned(options, kept.rows) if part.name not in kept.ended]
    minutes = sum(part.seconds for part in parts) / 60
    print(f"# about {minutes:.0f} minutes: {', '.join(part.name for part in parts)}", flush=True)
    for part in parts:
        kept.measure(part)
    if options.write:
        is_drawn = draw(((row.name, row.figure) for row in kept.rows), ROOT)
        picture = ["", "![How the answers grow with the files](catalogue-growth.svg)"] if is_drawn else []
        write_part(options.write, "catalogue", [TEXT, *table(kept.rows, facts), *picture])
    print("\n".join(row.line() for row in kept.rows))
    return status(kept.rows)


@dataclass(frozen=True)
class Part:
    """Something that is measured as a whole, and about how long it takes."""

    name: str
    seconds: float
    measure: Callable[[], Iterator[Row]]


def planned(options: argparse.Namespace, known: list[Row]) -> Iterator[Part]:
    """Yield what is to be measured; `known` is what has been when a part begins."""
    wanted = options.parts.split(",") if options.parts else []

    def part(name: str, kind: str, files: int, *, is_main: bool) -> Part:
        seconds = files * SECONDS[kind] + MEASURING_S[kind]
        return Part(name, seconds, lambda: loaded(kind, files, options, is_main=is_main))

    most = fitting("PostgreSQL", options.files, options.directory)
    sizes = sorted({*(size for size in GROWTH if size < most), most})
    found = []
    if options.sqlite_files:
        files = fitting("SQLite", options.sqlite_files, options.directory)
        found.append(part("sqlite", "SQLite", files, is_main=True))
    found += [part(f"postgresql-{size}", "PostgreSQL", size, is_main=size == most) for size in sizes if size]
    if not options.without_tiled:
        found.append(Part("tiled", MEASURING_S["Tiled"], lambda: against_tiled(known)))
    for each in found:
        if not wanted or each.name in wanted or each.name.partition("-")[0] in wanted:
            yield each


def fitting(kind: str, files: int, place: Path) -> int:
    """Return how many files the disk has room for, and say so where they are fewer."""
    free = shutil.disk_usage(place).free
    most = max(0, (free - SPARE_BYTES) // BYTES[kind])
    if files <= most:
        return files
    fewer = int(most // 100_000 * 100_000)
    print(f"# {kind}: {fewer:,} files in place of {files:,}, since {place} has {free / 1e9:.0f} GB free", flush=True)
    return fewer


class Kept:
    """The rows of this run and, where there is a file of them, of those before."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.rows: list[Row] = []
        self.ended: set[str] = set()
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        for line in map(json.loads, lines):
            self.ended.add(line["part"])
            self.rows += [Row(**row) for row in line["rows"]]

    def measure(self, part: Part) -> None:
        """Measure a part, printing each row as it is known, and keep them when it has ended."""
        rows = []
        for row in part.measure():
            rows.append(row)
            self.rows.append(row)
            print(f"# {row.line()}", flush=True)
        self.ended.add(part.name)
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps({"part": part.name, "rows": [asdict(row) for row in rows]}) + "\n")


def against_tiled(known: list[Row]) -> Iterator[Row]:
    """Create entries in Tiled and search them, against what was measured of ours in the largest catalogues."""
    rate, search = tiled()
    yield Row(f"Tiled: create {TILED_ENTRIES} entries over HTTP", rate, "entries/s")
    yield Row(f"Tiled: one metadata search over {TILED_ENTRIES} entries", 1000 * search, "ms")
    rates = [row.figure for row in known if row.name.startswith("register over HTTP")]
    same = [row.figure for row in known if row.name.startswith(ALIKE)]
    slowest = [row.figure for row in known if row.name.startswith("slowest query")]
    if rates and same:
        yield Row("registering / Tiled creating", min(rates) / rate, "x", least=50)
        yield Row("the same search of ours, among millions / Tiled's", max(same) / (1000 * search), "x", 1)
    if slowest:
        yield Row("our slowest query of millions / Tiled's search of thousands", max(slowest) / (1000 * search), "x")


if __name__ == "__main__":
    sys.exit(main())
