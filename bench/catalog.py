"""The promises of the catalogue, each measured in this run against what is asked: `make bench-catalog`.

Generates files with realistic metadata, loads them, asks 20 typical queries, facets, registers in bulk over HTTP, and
compares with Tiled. Whole it takes some 25 minutes on two calm cores and 45 GB of disk; `--files 1000000` takes six.
One line a row, with tabs between: bench, name, figure, what is asked, ok or short.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import catalog_data as data
from catalog_load import load
from catalog_plans import plans
from catalog_plot import draw
from catalog_site import Site, batches, p95, site, timed
from catalog_tiled import TILED_ENTRIES, tiled

from beamkeeper.client import Client
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.stats import StatsBy, StatsQuery
from beamkeeper.domain.status import Service

ROOT = Path(__file__).resolve().parents[1]
GROWTH = (100_000, 1_000_000, 10_000_000)
REPEATS = 5
BATCHES = 20


@dataclass(frozen=True)
class Row:
    """One figure, with what is asked of it."""

    name: str
    figure: float
    unit: str
    asked: str = "-"
    is_met: bool = True

    def line(self) -> str:
        """Return the row as every bench prints it."""
        return "\t".join(("bench", self.name, f"{self.figure:.4g} {self.unit}", self.asked, self.verdict))

    @property
    def verdict(self) -> str:
        """Whether it is as asked."""
        return "ok" if self.is_met else "short"


def at_most(name: str, figure: float, unit: str, most: float) -> Row:
    return Row(name, figure, unit, f"<= {most:g} {unit}", figure <= most)


def at_least(name: str, figure: float, unit: str, least: float) -> Row:
    return Row(name, figure, unit, f">= {least:g} {unit}", figure >= least)


@contextmanager
def told(what: str) -> Iterator[None]:
    """Say what is done and how long it took."""
    began = time.perf_counter()
    yield
    print(f"# {what}: {time.perf_counter() - began:.1f} s", flush=True)


def asked(client: Client, query: str) -> list[float]:
    """Return how long the first page of a query takes, each time."""
    return [timed(lambda: client.files.page(FileQuery(query=query, limit=100))) for _ in range(REPEATS)]


def queries(of: Site, name: str, most: float | None) -> Iterator[Row]:
    """Ask every query as administrator and as a member of three experiments, by turns."""
    slowest, whole, own = [], [], []
    for title, query in data.QUERIES:
        mine, theirs = asked(of.member, query), asked(of.client, query)
        slowest.append((median(theirs), title))
        whole.append(theirs)
        own.append(mine)
        print(f"# {name}: {title}: {1000 * median(theirs):.1f} ms, member {1000 * median(mine):.1f} ms", flush=True)
    # The first of each finds cold caches: it counts as any other.
    figure = 1000 * p95([t for times in whole for t in times])
    title = f"20 queries, first page, p95: {name}"
    yield Row(title, figure, "ms") if most is None else at_most(title, figure, "ms", most)
    ratio = p95([median(times) for times in own]) / p95([median(times) for times in whole])
    if most is not None:
        yield at_most(f"member of 3 experiments / administrator: {name}", ratio, "x", 1.2)
        yield Row(f"slowest query, median: {name} ({max(slowest)[1]})", 1000 * max(slowest)[0], "ms")


def facets(of: Site, name: str, most: float | None) -> Iterator[Row]:
    for who, client in (("administrator", of.client), ("member", of.member)):
        times = [timed(lambda c=client: c.files.facets(data.FACETS)) for _ in range(REPEATS)]  # type: ignore[misc]
        title = f"facets of 5 keys, {who}: {name}"
        yield (
            Row(title, 1000 * median(times), "ms") if most is None else at_most(title, 1000 * median(times), "ms", most)
        )
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
    prepared = list(batches(of.experiments[5], count))
    of.service.files.register(next(batches(of.experiments[5], 1, first=9_000)))
    began = time.perf_counter()
    for batch in prepared:
        of.service.files.register(batch)
    took = time.perf_counter() - began
    while behind(of):
        time.sleep(0.05)
    until = time.perf_counter() - began
    files = sum(map(len, prepared))
    yield at_least(f"register over HTTP, one client, 25 keys: {name}", files / took, "files/s", 5000)
    yield Row(f"until the last of {files} is found: {name}", until - took, "s")
    yield Row(f"registered and indexed: {name}", files / until, "files/s")


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
    yield at_most(f"lag of the index at 1000 files/s: {name}", worst, "s", 5)


def loaded(kind: str, files: int, place: Path, *, is_main: bool) -> Iterator[Row]:
    """Load a catalogue and measure it; one that only shows the growth is not written to."""
    name = f"{kind}, {files:g} files"
    with told(f"{name}, everything"), site(kind, place) as of:
        with told(f"{name}, loading"):
            load(of.url, files, of.experiments, lambda done: print(f"# {name}: {done}", flush=True))
        most = {"PostgreSQL": 100.0, "SQLite": 100.0}[kind] if is_main else None
        yield from queries(of, name, most)
        yield from facets(of, name, 200.0 if files == 1_000_000 else None)
        if files == 1_000_000 or (is_main and files < 1_000_000):
            yield from registering(of, name)
            yield from lagging(of, name)
        if is_main:
            plans(of.url, name)


def machine() -> dict[str, str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?")
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "CPU": f"{os.cpu_count()} cores, {cpu.partition(':')[2].strip()}",
        "memory": f"{memory / 1e9:.0f} GB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "load average before": f"{os.getloadavg()[0]:.2f} in the last minute",
        "command": f"`make bench-catalog BENCH='{' '.join(sys.argv[1:])}'`",
    }


def main() -> int:
    """Measure what is asked for and print one line a row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=GROWTH[-1], help="in PostgreSQL at the most; 0: none")
    parser.add_argument("--sqlite-files", type=int, default=1_000_000, help="in SQLite; 0: none")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on the disk to be used")  # noqa: S108
    parser.add_argument("--without-tiled", action="store_true", help="leave the comparison out: it needs the network")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the results into this page")
    options = parser.parse_args()
    os.environ["TMPDIR"] = str(options.directory)
    facts, rows = machine(), list[Row]()
    for fact in facts.items():
        print("# {}: {}".format(*fact), flush=True)
    sizes = sorted({*(size for size in GROWTH if size < options.files), options.files})
    place, most = options.directory, options.sqlite_files
    parts = [loaded("SQLite", most, place, is_main=True)] if most else []
    parts += [loaded("PostgreSQL", size, place, is_main=size == sizes[-1]) for size in sizes if size]
    if not options.without_tiled:
        parts.append(against_tiled(rows))
    for part in parts:
        for row in part:
            rows.append(row)
            print(f"# {row.name}: {row.figure:.4g} {row.unit}", flush=True)
    if options.write:
        is_drawn = draw(((row.name, row.figure) for row in rows), ROOT)
        write(options.write, facts, rows, is_drawn=is_drawn)
    print("\n".join(row.line() for row in rows))
    return 1 if any(not row.is_met for row in rows) else 0


def against_tiled(known: list[Row]) -> Iterator[Row]:
    """Create entries in Tiled and search them, against what was measured of ours at a million."""
    rate, search = tiled()
    ours = max((row.figure for row in known if row.name.startswith("register over HTTP")), default=0.0)
    slowest = max((row.figure for row in known if row.name.startswith("slowest query")), default=0.0)
    yield Row(f"Tiled: create {TILED_ENTRIES} entries over HTTP", rate, "entries/s")
    yield Row(f"Tiled: one metadata search over {TILED_ENTRIES} entries", 1000 * search, "ms")
    yield at_least("registering / Tiled creating", ours / rate, "x", 50)
    yield at_most("our slowest query of millions / Tiled's search of thousands", slowest / (1000 * search), "x", 1)


BEGIN, END = "<!-- catalogue: begin -->", "<!-- catalogue: end -->"


def write(page: Path, facts: dict[str, str], rows: list[Row], *, is_drawn: bool) -> None:
    """Put the table into its place on the page, at the end where it has none yet."""
    lines = [
        BEGIN,
        "## The catalogue",
        "",
        "What `make bench-catalog` measured; how: see [how searches stay fast](../explanations/search.md).",
        "",
        "| what | figure | asked | |",
        "| --- | ---: | ---: | --- |",
        *(f"| {row.name} | {row.figure:.4g} {row.unit} | {row.asked} | {row.verdict} |" for row in rows),
        "",
        "| measured on | |",
        "| --- | --- |",
        *(f"| {name} | {fact} |" for name, fact in facts.items()),
        *(["", "![How the answers grow with the files](catalogue-growth.svg)"] if is_drawn else []),
        END,
    ]
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2].strip()
    page.write_text("\n\n".join(part for part in (before.rstrip(), "\n".join(lines), after) if part) + "\n")


if __name__ == "__main__":
    sys.exit(main())
