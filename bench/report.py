"""What benches share: the rows of a result, what they were measured on, and its part of the page of benchmarks."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One figure, and between what it is asked to be; without either it informs, and promises nothing."""

    name: str
    figure: float
    unit: str = ""
    most: float | None = None
    least: float | None = None
    note: str = ""
    """How it came about."""

    @property
    def shown(self) -> str:
        """The figure with its unit."""
        is_whole = abs(self.figure) >= 1000 or self.figure == int(self.figure)
        return _with(f"{self.figure:,.0f}" if is_whole else f"{self.figure:,.2f}", self.unit)

    @property
    def asked(self) -> str:
        """What is asked, in words."""
        if self.most is None and self.least is None:
            return "-"
        if self.least is None:
            return _with(f"<= {self.most:g}", self.unit)
        return _with(f">= {self.least:g}" if self.most is None else f"{self.least:g} to {self.most:g}", self.unit)

    @property
    def is_ok(self) -> bool:
        """Whether it is as asked."""
        return (self.most is None or self.figure <= self.most) and (self.least is None or self.figure >= self.least)

    @property
    def verdict(self) -> str:
        """Whether it is as asked, in a word."""
        return "ok" if self.is_ok else "short"

    def line(self) -> str:
        """Return the row as every bench prints it."""
        return "\t".join(("bench", self.name, self.shown, self.asked, self.verdict))


def _with(figure: str, unit: str) -> str:
    return f"{figure} {unit}" if unit else figure


def status(rows: Iterable[Row]) -> int:
    """Return the exit status of a bench: 1 where a figure is short of what is asked."""
    return 0 if all(row.is_ok for row in rows) else 1


def pace(beside: str) -> Row:
    """Measure how fast the machine is at the moment: virtual ones change, and with them every time beside it."""
    began, total = time.perf_counter(), 0
    for number in range(10_000_000):
        total += number & 7
    return Row(f"a loop of ten million steps in Python, beside: {beside}", time.perf_counter() - began, "s")


def machine(command: str = "") -> dict[str, str]:
    """Say on what is measured, how busy it is, and by which target of the Makefile."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = int(Path("/proc/meminfo").read_text().split()[1]) * 1024 / 1e9
    facts = {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "CPU": f"{os.cpu_count()} cores, {cpu[0].partition(':')[2].strip() if cpu else platform.machine()}",
        "memory": f"{memory:.0f} GB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "load average before": f"{os.getloadavg()[0]:.2f} in the last minute",
    }
    return facts | ({"command": f"`make {command} BENCH='{shlex.join(sys.argv[1:])}'`"} if command else {})


def table(rows: Sequence[Row], facts: Mapping[str, str]) -> list[str]:
    """Return the lines of a table of results, and of what they were measured on."""
    has_notes = any(row.note for row in rows)
    return [
        f"| what | figure | asked | |{' how it came about |' if has_notes else ''}",
        f"| --- | ---: | ---: | --- |{' --- |' if has_notes else ''}",
        *(
            f"| {row.name} | {row.shown} | {row.asked} | {row.verdict} |{f' {row.note} |' if has_notes else ''}"
            for row in rows
        ),
        "",
        "| measured on | |",
        "| --- | --- |",
        *(f"| {name} | {fact} |" for name, fact in facts.items()),
    ]


def begin(part: str) -> str:
    """Return the mark before a part of the page; what stands before the first such is of `make bench`."""
    return f"<!-- {part}: begin -->"


def write_part(page: Path, part: str, lines: Sequence[str]) -> None:
    """Put a part into the page, in the place of what was there of it, or at the end."""
    end = f"<!-- {part}: end -->"
    text = page.read_text() if page.exists() else "# Benchmarks\n"
    before, _, rest = text.partition(begin(part))
    after = rest.partition(end)[2].strip()
    whole = "\n".join([begin(part), *lines, end])
    page.write_text("\n\n".join(each for each in (before.rstrip(), whole, after) if each) + "\n")
