"""A site's own command is told of problems, and whatever it does holds nobody up."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from beamkeeper.domain.problems import Problem, ProblemKind
from beamkeeper.engine.problems import Problems, about
from beamkeeper.testing.beamline import Beamline, options
from beamkeeper.testing.station import until

SCRIPT = """
import json, os, sys
told = json.load(sys.stdin)
line = json.dumps({"facts": told, "environ": dict(os.environ), "argv": sys.argv[2:]}) + "\\n"
descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.write(descriptor, line.encode())
"""
Start = Callable[..., Problems]


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
def start(reports: list[str]) -> Iterator[Start]:
    made: list[Problems] = []

    def begin(*command: str, **more: Any) -> Problems:
        problems = Problems(command, station="8ID", report=reports.append, **more)
        problems.start()
        made.append(problems)
        return problems

    yield begin
    for problems in made:
        problems.stop()
        problems.join(timeout=10)
        assert not problems.is_alive()


@pytest.fixture
def told(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    def read() -> list[dict[str, Any]]:
        path = tmp_path / "told"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    return read


def command(tmp_path: Path) -> list[str]:
    return [sys.executable, "-c", SCRIPT, str(tmp_path / "told"), "$(touch x)", "; false"]


def of_kind(kind: ProblemKind = ProblemKind.FILES_QUARANTINED, *paths: bytes) -> Problem:
    return about(kind, None, f"{kind} it is", paths)


def test_the_command_gets_the_facts_and_nothing_of_the_services_own(
    tmp_path: Path, start: Start, told: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEAMKEEPER_STORAGE__DATABASE", "postgresql://u:secret@h/d")
    beamline = Beamline(f"sqlite:///{tmp_path / 'journal.db'}", tmp_path / "storage")
    with beamline.database.write() as tx:
        daq = tx.acquisitions.add(beamline.experiment(), options(b"det/line\nbreak"))
    beamline.close()
    start(*command(tmp_path)).tell(about(ProblemKind.FILES_QUARANTINED, daq, "they are", [b"a\xff.tif", b"b.tif"]))
    (found,) = until(told, "the command", 20)
    assert found["argv"] == ["$(touch x)", "; false"]
    assert {key: found["facts"][key] for key in ("kind", "message", "station", "experiment", "directory", "count")} == {
        "kind": "files-quarantined",
        "message": "they are",
        "station": "8ID",
        "experiment": "coffee",
        "directory": "/det/line\\x0abreak",
        "count": 2,
    }
    assert found["facts"]["paths"] == ["a\\xff.tif", "b.tif"]
    assert found["facts"]["acquisition_uid"] == found["environ"]["DM_PROBLEM_ACQUISITION_UID"] == str(daq.uid)
    assert found["environ"]["DM_PROBLEM_KIND"] == "files-quarantined"
    assert not [name for name in found["environ"] if name.startswith("BEAMKEEPER")]


def test_the_first_is_told_at_once_and_what_follows_closely_as_one(
    tmp_path: Path, start: Start, told: Callable[[], list[dict[str, Any]]], reports: list[str]
) -> None:
    problems = start(*command(tmp_path), gather_s=1.5)
    problems.tell(of_kind(ProblemKind.FILES_QUARANTINED, b"0"))
    until(told, "the first", 10)
    for number in range(1, 50):
        problems.tell(of_kind(ProblemKind.FILES_QUARANTINED, b"%d" % number))
    problems.tell(of_kind(ProblemKind.QUEUE_OVERFLOW))
    until(lambda: len(told()) == 3, "all three", 20)
    kinds = [(line["facts"]["kind"], line["facts"]["count"]) for line in told()]
    assert kinds == [("files-quarantined", 1), ("queue-overflow", 1), ("files-quarantined", 49)]
    assert len(reports) == 2


def test_problems_of_different_daqs_are_told_apart(
    tmp_path: Path, start: Start, told: Callable[[], list[dict[str, Any]]]
) -> None:
    problems = start(*command(tmp_path), gather_s=60.0)
    for _ in range(2):
        problems.tell(of_kind().model_copy(update={"acquisition_uid": uuid4()}))
    until(lambda: len(told()) == 2, "both", 20)


def test_telling_never_waits_and_a_command_that_hangs_is_ended_with_what_it_started(
    tmp_path: Path, start: Start, reports: list[str]
) -> None:
    script = f"sleep 600 & echo $! > {tmp_path}/child; exec sleep 600"
    problems = start("/bin/sh", "-c", script, timeout_s=1.0)
    began = time.monotonic()
    problems.tell(of_kind(ProblemKind.DAQ_FAILED))
    assert time.monotonic() - began < 0.5
    until(lambda: any("took longer than 1 s" in report for report in reports), "its end", 20)
    child = int((tmp_path / "child").read_text())
    until(lambda: is_over(child), "the end of its child", 10)


def is_over(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as facts:
            return facts.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_command_that_reads_nothing_or_fails_is_reported(start: Start, reports: list[str]) -> None:
    start("/bin/sh", "-c", "exit 3").tell(of_kind(ProblemKind.WATCH_RESTARTED, *[b"\xff" * 250] * 30))
    until(lambda: any("status 3" in report for report in reports), "the report", 20)


def test_a_command_that_is_not_there_is_reported(start: Start, reports: list[str]) -> None:
    start("/is/not/there").tell(of_kind())
    until(lambda: any("/is/not/there cannot be run" in report for report in reports), "the report", 20)


def test_without_a_command_problems_are_reported_all_the_same(start: Start, reports: list[str]) -> None:
    start().tell(of_kind(ProblemKind.DAQ_FAILED))
    assert reports == ["daq-failed it is"]


def test_a_running_command_does_not_keep_the_service_from_ending(start: Start) -> None:
    problems = start("/bin/sleep", "600")
    problems.tell(of_kind())
    until(lambda: any(os.path.basename(c) == "sleep" for c in children()), "the command", 10)
    began = time.monotonic()
    problems.stop()
    problems.join(timeout=10)
    assert time.monotonic() - began < 5
    assert not problems.is_alive()


def children() -> list[str]:
    found = []
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                with open(f"/proc/{pid}/stat") as facts, open(f"/proc/{pid}/cmdline", "rb") as words:
                    if facts.read().rpartition(")")[2].split()[1] == str(os.getpid()):
                        found.append(words.read().split(b"\0")[0].decode())
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found
