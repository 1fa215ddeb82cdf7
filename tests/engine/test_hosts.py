"""Executors that refuse, fail or lose much: their host is heard and started again, and attempts begin once more."""

from __future__ import annotations

import os
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from beamkeeper.db.processing.engine import HeldFile, HeldJob
from beamkeeper.domain.processing import AttemptState, JobStatus
from beamkeeper.engine.jobs import remote, runner, word
from beamkeeper.engine.jobs.local import Over
from beamkeeper.engine.jobs.places import LOCAL, Places, Rooms
from beamkeeper.engine.jobs.plan import JobRun
from beamkeeper.engine.jobs.stages import LONGEST_PAUSE_S, Ended
from beamkeeper.testing.station import until

ATTEMPTS = 300
MANY = 1200
PATIENCE_S = 60.0
HOST = "beamkeeper.engine.jobs.host"

PLUGIN = """
from beamkeeper.plugins.api import Options

class Refusing:
    options, summary = Options, "Refuses all tasks at once, with many words."

    def __init__(self, options, directory):
        pass

    def start(self, task, told):
        told("there is no room for it. " * 40)

    def fault(self):
        return ""

    def close(self):
        pass
"""


SILENT = """
import json, pathlib
from beamkeeper.plugins.api import Options

class Refusing:
    options, summary = Options, "Runs all tasks, and tells of none."

    def __init__(self, options, directory):
        pass

    def start(self, task, told):
        directory = pathlib.Path(task.order["directory"])
        directory.mkdir()
        (directory / "result.json").write_text(json.dumps({"exit_status": 0, "fault": None, "why": ""}))

    def fault(self):
        return ""

    def close(self):
        pass
"""


@pytest.fixture(params=[PLUGIN])
def refusing(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> remote.ExecutorSpec:
    """An executor of an installed package."""
    place = tmp_path / "installed"
    (place / "refusing-1.dist-info").mkdir(parents=True)
    (place / "refusing.py").write_text(request.param)
    (place / "refusing-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: refusing\nVersion: 1\n")
    entry = "[beamkeeper.executors]\nrefusing = refusing:Refusing\n"
    (place / "refusing-1.dist-info/entry_points.txt").write_text(entry)
    monkeypatch.setenv("PYTHONPATH", str(place))
    return remote.ExecutorSpec("refusing", {}, tmp_path / "executor", ATTEMPTS)


def test_many_orders_and_as_many_answers_do_not_block_one_another(
    refusing: remote.ExecutorSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are more than pipes hold."""
    monkeypatch.setattr(remote, "TRIES", 1)
    said: list[str] = []
    with closing(remote.RemoteRuns("refusing", refusing, lambda: None, said.append)) as runs:
        for number in range(ATTEMPTS):
            order = {"attempt": f"a{number}", "directory": str(tmp_path / f"a{number}"), "argv": ["x" * 1000]}
            runs.expect(order)
            runs.start(order)
        over: list[Over] = []
        deadline = time.monotonic() + PATIENCE_S
        while len(over) < ATTEMPTS and time.monotonic() < deadline:
            over += runs.take_over()
            time.sleep(0.05)
    assert len(over) == ATTEMPTS, said
    assert all(one.result is not None and "no room" in one.result["fault"]["error"] for one in over)


def is_our_host(process: Path) -> bool:
    """Whether this is a host of ours that has not ended."""
    try:
        parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
        return parent == str(os.getpid()) and HOST.encode() in (process / "cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.parametrize("refusing", [SILENT], indirect=True)
def test_what_has_a_result_is_over_though_its_executor_never_tells(
    refusing: remote.ExecutorSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "LOOK_S", 0.1)
    monkeypatch.setattr(remote, "UNHEARD_S", 0.1)
    order = {"attempt": "a", "directory": str(tmp_path / "a")}
    with closing(remote.RemoteRuns("silent", refusing, lambda: None, lambda _: None)) as runs:
        runs.expect(order)
        runs.start(order)
        (over,) = until(runs.take_over, "its end", PATIENCE_S)
        (host,) = (one for one in Path("/proc").glob("[0-9]*") if is_our_host(one))
    assert over.result is not None
    assert over.result["exit_status"] == 0
    until(lambda: not is_our_host(host), "the end of the host, when nothing goes on", PATIENCE_S)


def test_one_that_cannot_be_looked_at_keeps_no_other_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "LOOK_S", 0.1)
    said: list[str] = []
    (tmp_path / "a" / runner.RESULT).mkdir(parents=True)
    with closing(remote.RemoteRuns("gone", None, lambda: None, said.append)) as runs:
        for name in ("a", "b"):
            runs.attach({"attempt": name, "directory": str(tmp_path / name)})
        assert until(runs.take_over, "its end", PATIENCE_S) == [Over("b", None, has_begun=False)]
        assert "executor gone: IsADirectoryError" in said[0]
        (tmp_path / "a" / runner.RESULT).rmdir()
        assert until(runs.take_over, "the other's end", PATIENCE_S) == [Over("a", None, has_begun=False)]


def test_what_was_taken_by_nobody_knows_whom_is_not_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "LOOK_S", 0.1)
    monkeypatch.setattr(word, "LONGEST_S", 3600.0)
    (tmp_path / "a").mkdir()
    claim = tmp_path / "a" / runner.CLAIM
    claim.touch()
    (tmp_path / "a" / runner.STARTED).touch()
    with closing(Places({}, {}, lambda: None, lambda _: None, slots=1)) as places:
        order = {"attempt": "a", "directory": str(tmp_path / "a"), "executor": "gone"}
        places.attach(order, is_here=False, boot_id="")
        (tmp_path / "b").mkdir()
        places.attach({**order, "attempt": "b", "directory": str(tmp_path / "b")}, is_here=False, boot_id="")
        # The other one, that nobody took, is decided after it.
        assert until(places.take_over, "the other's end", PATIENCE_S) == [Over("b", None, has_begun=False)]
        os.utime(claim, (0, 0))
        assert until(places.take_over, "its end", PATIENCE_S) == [Over("a", None, has_begun=True)]


def test_a_host_that_has_failed_for_days_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    spec = remote.ExecutorSpec("of no package", {}, tmp_path / "executor", 1)
    with closing(remote.RemoteRuns("gone", spec, lambda: None, said.append)) as runs:
        monkeypatch.setattr(runs, "_failures", 5000)
        order = {"attempt": "a", "directory": str(tmp_path / "a")}
        runs.expect(order)
        runs.start(order)
        deadline = time.monotonic() + PATIENCE_S
        while not said and time.monotonic() < deadline:
            time.sleep(0.05)
    assert "started again in 60 s" in said[0]


def test_however_many_attempts_never_begin_they_are_begun_again_after_a_pause() -> None:
    now = datetime.now(UTC)
    stages: dict[str, Any] = {"1": {"command": "cat $filePath", "parallelExec": True}}
    run = JobRun(
        HeldJob(
            id=1,
            uid=uuid4(),
            owner="ada",
            status=JobStatus.RUNNING,
            workflow_name="many",
            workflow_owner="ada",
            definition={"name": "many", "stages": stages},
            experiment_uid=None,
            arguments={},
            variables={},
            warnings=[],
            submitted_at=now,
            started_at=now,
            completed=0,
            failed=0,
            files=[HeldFile(f"/data/{number}", f"data/{number}", {}) for number in range(MANY)],
            stages=[],
            attempts=[],
        ),
        {},
        now=now,
    )
    numbers = [run.launched(launch) for launch in run.launches(Rooms({LOCAL: MANY}, lambda _: LOCAL))]
    assert len(numbers) == MANY
    for number in numbers:
        run.ended("1", number, Ended(AttemptState.ABORTED, has_begun=False), now)
    assert 0 < (run.due_in() or 0) <= LONGEST_PAUSE_S
