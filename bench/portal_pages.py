"""What looking at a beamline costs: `make bench-portal`.

A beamline with its portal on SQLite, with 1,000 experiments and a million files, which are loaded in bulk (some
minutes, 5 GB of disk; `--files 20000` is shorter). Every page is asked for again and again, a browser's first view is
weighed, and 100 live pages are left open while files arrive. At the end one line a row, with tabs between: bench, name,
figure, what is asked, ok or short.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import catalog_data as data
import httpx2
from portal_scene import Scene, browser, say, scene
from portal_sheet import sheet_rows
from report import Row, write_part
from report import machine as bench_machine

from beamkeeper.domain.acquisition import NewDaq
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.status import PORTAL
from beamkeeper.domain.users import NewGrant, Role
from beamkeeper.portal.live import MOST_S
from beamkeeper.testing.portal import PASSWORD, chromium

ROOT = Path(__file__).resolve().parents[1]
KEYS = "format+title+start_time+end_time+user.name+proposal"
PAGE_MS, FIRST_KB, LIVE_PERCENT = 150.0, 500.0, 20.0
LIVE_PAGES, LIVE_S = 100, 30.0
PICTURES = 10_000
PATIENCE_S = 60.0
"""By then all live pages are drawn once."""
WATCHERS = LIVE_PAGES
"""Each live page is of somebody else."""


def pages(of: Scene) -> Mapping[str, str]:
    """Return every page, by what it is."""
    files = list(of.client.files.page(FileQuery(experiment_uid=of.large.uid, limit=5)).items)
    directory = os.path.dirname(files[0].path or "data")
    top, q = f"/experiments/{of.large.uid}", quote("energy >= 12 keV and energy < 13 keV")
    workflow = next(iter(of.client.workflows.list()))
    stored = next(iter(of.client.files.find(FileQuery(experiment_uid=of.experiments[-1].uid))))
    return {
        "login": "/login",
        "experiments": "/experiments",
        "experiments by a part of the title": "/experiments?text=measurement+7",
        "new experiment": "/experiments/new",
        "experiment": top,
        "ledger": f"{top}/ledger",
        "people": f"{top}/people",
        "DAQs": f"{top}/daqs",
        "uploads": f"/experiments/{of.experiments[-1].uid}/uploads",
        "top directory": f"{top}/files",
        "directory of trees": f"{top}/files?dir=data",
        "directory of files": f"{top}/files?dir={quote(directory)}",
        "find in an experiment": f"{top}/find?q={q}",
        "contact sheet": f"{top}/sheet",
        "all files": "/files",
        "find among all files": f"/files?q={q}&columns=energy",
        "values beside what is found": f"/files/values?q={q}&keys={KEYS}",
        "file": f"/files/{files[0].uid}",
        "file that is stored": f"/files/{stored.uid}",
        "workflows": "/workflows",
        "workflow": f"/workflows/{workflow.uid}?on={stored.uid}",
        "jobs": "/jobs",
        "station": "/station",
        "stored by experiment": "/station/use",
        "accounts": "/administration/users",
        "stations": "/administration/stations",
        "storage areas": "/administration/areas",
        "syncs": "/administration/sync",
        "audit log": "/administration/audit",
        "API keys": "/keys",
        "experiments as JSON": "/experiments.json",
        "files as JSON": f"/files.json?q={q}",
    }


def page_rows(of: Scene, repeats: int) -> Iterator[Row]:
    """Ask for every page by turns, so that none has the caches to itself."""
    of.site.person("bench-admin", role=Role.ADMINISTRATOR)
    asked = pages(of)
    times: dict[str, list[float]] = {}
    with browser(of, "bench-admin") as opened, httpx2.Client(base_url=of.site.url, trust_env=False) as nobody:
        for name, path in asked.items():  # once for what is imported at the first look
            answer = (nobody if name == "login" else opened).get(path)
            if answer.status_code != 200:
                raise RuntimeError(f"{name}, {path}: {answer.status_code}: {answer.text[-800:]}")
        for _ in range(repeats):
            for name, path in asked.items():
                began = time.perf_counter()
                (nobody if name == "login" else opened).get(path)
                times.setdefault(name, []).append(1000 * (time.perf_counter() - began))
    for name, found in times.items():
        yield Row(f"page: {name}, p95", p95(found), "ms", PAGE_MS)


def p95(values: Sequence[float]) -> float:
    """Return the value that at most one in twenty exceeds."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]


def first_view_rows(of: Scene) -> Iterator[Row]:
    """Weigh what comes over the wire when a browser that knows nothing looks at a page."""
    paths = {"login": "/login", "experiments": "/experiments", "station": "/station"}
    stored = next(iter(of.client.files.find(FileQuery(experiment_uid=of.experiments[-1].uid))))
    paths["file"] = f"/files/{stored.uid}"
    with chromium() as opened:
        for name, path in paths.items():
            context = opened.new_context(base_url=of.site.url)
            page = context.new_page()
            if name != "login":
                page.goto("/login")
                page.get_by_label("Name", exact=True).fill("bench-admin")
                page.get_by_label("Password").fill(PASSWORD)
                page.keyboard.press("Enter")
                page.wait_for_url("**/experiments")
                known = context.storage_state()
                context.close()
                context = opened.new_context(base_url=of.site.url, storage_state=known)
                page = context.new_page()
            weight: list[int] = []
            session = context.new_cdp_session(page)
            session.send("Network.enable")
            session.on("Network.loadingFinished", lambda event, to=weight: to.append(event["encodedDataLength"]))
            page.goto(path)
            page.wait_for_timeout(1500)
            context.close()
            yield Row(f"first view: {name}", sum(weight) / 1000, "KB", FIRST_KB)


def live_rows(of: Scene) -> Iterator[Row]:
    """Leave live pages open while a file arrives every second, and see what they cost above that."""
    people = [f"watcher{number:03}" for number in range(WATCHERS)]
    uid = of.client.stations.get("TEST").uid
    for name in people:
        of.site.person(name)
        of.client.users.grant(NewGrant(username=name, role=Role.STATION_VIEWER, station_uid=uid))
    cookies = []
    for name in people:
        with browser(of, name) as opened:
            cookies.append("; ".join(f"{key}={value}" for key, value in opened.cookies.items()))
    source = of.site.source("live")
    daq = of.client.daqs.start(
        NewDaq.model_validate({"experiment_uid": of.large.uid, **path_fields(os.fsencode(source)[1:])})
    )
    alone, _ = asyncio.run(watched(of, source, []))
    looked_at, drawn = asyncio.run(watched(of, source, cookies))
    of.client.daqs.stop(daq.uid)
    yield Row("one file a second, nobody looks", alone, "% of a core")
    yield Row(f"the same, {LIVE_PAGES} live pages of {WATCHERS} people", looked_at, "% of a core")
    yield Row(f"{LIVE_PAGES} live pages", looked_at - alone, "% of a core", LIVE_PERCENT)
    yield Row(
        "live pages: times drawn anew on the page where it was fewest", min(drawn), "x", least=LIVE_S / MOST_S - 1
    )


async def watched(of: Scene, source: Path, cookies: Sequence[str]) -> tuple[float, Sequence[int]]:
    """Keep a live page open for each cookie, let files arrive, and count the services' time and what each page gets."""
    drawn = [0] * len(cookies)
    pages = [asyncio.create_task(looks(of, cookie, drawn, place)) for place, cookie in enumerate(cookies)]
    patience = time.perf_counter() + PATIENCE_S
    while 0 in drawn and time.perf_counter() < patience:
        await asyncio.sleep(0.1)
    if 0 in drawn:
        raise RuntimeError(f"{drawn.count(0)} live pages do not live: {[page for page in pages if page.done()][:1]}")
    drawn[:] = [0] * len(cookies)
    begin, began = cpu_s(of.site.station.pid), time.perf_counter()
    for number in range(int(LIVE_S)):
        (source / f"{len(cookies)}_{number}.dat").write_bytes(b"x" * 1000)
        await asyncio.sleep(1)
    took, used = time.perf_counter() - began, cpu_s(of.site.station.pid) - begin
    if gone := [page for page in pages if page.done()]:
        raise RuntimeError(f"{len(gone)} live pages were closed: {gone[0]}")
    for page in pages:
        page.cancel()
    await asyncio.gather(*pages, return_exceptions=True)
    return 100 * used / took, drawn


async def looks(of: Scene, cookie: str, drawn: list[int], place: int) -> None:
    """Be a live page: count how often it is drawn anew with the DAQ that runs, as somebody's browser has it."""
    port = of.site.station.port(PORTAL)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /station/live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\n\r\n".encode())
    try:
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"a live page was refused: {status!r}")
        is_sight = False
        while line := await reader.readline():
            is_sight = line.startswith(b"event: sight") or (is_sight and line.strip() != b"")
            if is_sight and of.large.name.encode() in line:
                drawn[place] += 1
                is_sight = False
    finally:
        writer.close()


def cpu_s(top: int) -> float:
    """Return how much time a process and all below it have used."""
    children: dict[int, list[tuple[int, float]]] = {}
    own = 0.0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
            used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            children.setdefault(int(fields[1]), []).append((int(process.name), used))
            if int(process.name) == top:
                own = used
    total, waiting = own, [top]
    while waiting:
        for pid, used in children.get(waiting.pop(), []):
            total += used
            waiting.append(pid)
    return total


def thumbnail_lines() -> Iterator[str]:
    """Yield the rows of the bench of thumbnails, where there is one."""
    bench = ROOT / "bench" / "thumbnails.py"
    if bench.exists():
        done = subprocess.run([sys.executable, str(bench)], capture_output=True, text=True, check=False)
        yield from (line for line in done.stdout.splitlines() if line.startswith("bench\t"))


def machine() -> dict[str, str]:
    """Say on what was measured, and how busy it was."""
    return {**bench_machine(), "command": f"`make bench-portal BENCH='{' '.join(sys.argv[1:])}'`"}


def rows(of: Scene, parts: Collection[str], repeats: int) -> Iterator[Row]:
    """Measure these parts."""
    if "pages" in parts:
        yield from page_rows(of, repeats)
    if "views" in parts:
        yield from first_view_rows(of)
    if "sheet" in parts:
        with chromium() as opened:
            yield from sheet_rows(of.site, opened, PICTURES)
    if "live" in parts:
        yield from live_rows(of)


def table(lines: Sequence[str], facts: Mapping[str, str], sizes: str) -> list[str]:
    """Return the results as a part of the page."""
    cells = [line.split("\t")[1:] for line in lines]
    return [
        "## The portal",
        "",
        f"What `make bench-portal` measured here, in one run, on SQLite with {sizes}.",
        "A page is asked for by a client that is logged in, whole, by turns with all others;",
        "a first view is what Chromium takes over the wire with an empty cache. Live pages stay open while a file",
        "arrives every second, each of somebody else; time is that of the services.",
        "",
        "| work | figure | asked | |",
        "| --- | ---: | ---: | --- |",
        *(f"| {' | '.join(row)} |" for row in cells),
        "",
        "| measured on | |",
        "| --- | --- |",
        *(f"| {name} | {fact} |" for name, fact in facts.items()),
    ]


def main() -> int:
    """Measure, print one line a row, and return 1 where a figure is short of what is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--experiments", type=int, default=1000, help=f"at least {data.EXPERIMENTS}")
    parser.add_argument("--repeats", type=int, default=40, help="how often each page is asked for")
    parser.add_argument("--parts", default="pages,views,sheet,live,thumbnails", help="which of these")
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="on the disk to be used")  # noqa: S108
    parser.add_argument("--write", type=Path, metavar="FILE", help="keep the results in a page")
    options = parser.parse_args()
    if options.experiments < data.EXPERIMENTS:
        parser.error(f"the files are of {data.EXPERIMENTS} experiments, so that there are at least as many")
    facts, lines, parts = machine(), [], set(options.parts.split(","))
    with (
        tempfile.TemporaryDirectory(prefix="beamkeeper-bench-", dir=options.directory) as directory,
        scene(Path(directory), options.files, options.experiments) as of,
    ):
        for row in rows(of, parts, options.repeats):
            lines.append(row.line())
            say(f"{row.name}: {row.shown}")
    lines += thumbnail_lines() if "thumbnails" in parts else ()
    if options.write:
        write_part(
            options.write,
            "portal",
            table(lines, facts, f"{options.experiments} experiments and {options.files:,} files"),
        )
    print("\n".join(lines))
    return 1 if any(line.endswith("\tshort") for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
