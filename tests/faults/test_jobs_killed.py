"""F43 to F45 and F50: kills at any moment of service, spawner, runner and command; nothing lost, twice, or left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from beamkeeper.config import failpoints
from beamkeeper.config.failpoints import JobPoint
from beamkeeper.db import schema
from beamkeeper.domain.processing import AttemptState, Cause, JobStatus
from beamkeeper.domain.status import Service
from beamkeeper.engine.jobs.orders import attempt_directory
from beamkeeper.testing.jobs import Shop, alive, shop

IN_SERVICE = (
    JobPoint.ATTEMPT_WRITTEN,
    JobPoint.ATTEMPT_ORDERED,
    JobPoint.RESULT_READ,
    JobPoint.RESULT_KEPT,
)
IN_RUNNER = (
    JobPoint.ATTEMPT_FORKING,
    JobPoint.ATTEMPT_FORKED,
    JobPoint.ATTEMPT_TAKEN,
    JobPoint.ATTEMPT_BEGINNING,
    JobPoint.ATTEMPT_RUNNING,
    JobPoint.ATTEMPT_ENDED,
    JobPoint.RESULT_WRITING,
    JobPoint.RESULT_WRITTEN,
)
CERTAIN = frozenset(
    {JobPoint.ATTEMPT_FORKING, JobPoint.ATTEMPT_FORKED, JobPoint.ATTEMPT_TAKEN, JobPoint.RESULT_WRITTEN}
)
"""Where it is known what a killed runner has done: nothing, or all."""

SERVE = """
import sys, time
from pathlib import Path
from beamkeeper.testing.jobs import Shop
made = Shop(sys.argv[1], Path(sys.argv[2]))
made.start()
print("up", flush=True)
time.sleep(600)
"""


class Apart:
    """The engine of jobs in a process of its own, to be killed."""

    def __init__(self, directory: Path) -> None:
        self.url = f"sqlite:///{directory / 'processing.db'}"
        self.work = directory / "work"
        self.shop = Shop(self.url, self.work)
        schema.create(self.shop.database, Service.PROCESSING)
        self._process: subprocess.Popen[str] | None = None

    def start(self, points: str = "") -> None:
        environ = {**os.environ, failpoints.VARIABLE: points}
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE, self.url, str(self.work)], stdout=subprocess.PIPE, text=True, env=environ
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "up\n"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self.dead()

    def dead(self) -> None:
        assert self._process is not None
        self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Apart]:
    made = Apart(tmp_path)
    with closing(made.shop.database):
        yield made
        made.kill()
        made.shop.stop()


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Shop]:
    with shop(f"sqlite:///{tmp_path / 'processing.db'}", tmp_path / "work") as made:
        yield made


def runs(directory: Path) -> list[str]:
    """Return what commands have written down of themselves, one line for each time that one ran."""
    path = directory / "ran"
    return path.read_text().split() if path.exists() else []


@pytest.mark.parametrize("point", IN_SERVICE)
def test_f43_a_killed_service_loses_nothing_and_runs_nothing_twice(
    apart: Apart, tmp_path: Path, point: JobPoint
) -> None:
    stages = {str(n): f"echo $id-{n} >> {tmp_path}/ran" for n in (1, 2, 3)}
    uids = apart.shop.submit(stages, count=6)
    apart.start(f"{point}:2:kill")
    apart.dead()
    apart.shop.start()
    assert {job.status for job in apart.shop.ended(uids)} == {JobStatus.DONE}
    assert sorted(runs(tmp_path)) == sorted(f"{uid}-{n}" for uid in uids for n in (1, 2, 3))


def test_f43_commands_go_on_while_the_service_is_dead_and_are_found_again(apart: Apart, tmp_path: Path) -> None:
    apart.start()
    command = f"echo begun >> {tmp_path}/ran; while ! test -e {tmp_path}/go; do sleep 0.02; done; echo over"
    uid = apart.shop.submit({"1": command})[0]
    apart.shop.until(lambda: runs(tmp_path) == ["begun"], "the command")
    apart.kill()
    (tmp_path / "go").touch()
    result = attempt_directory(apart.work, uid, 1) / "result.json"
    apart.shop.until(result.exists, "the result, which nobody waits for")
    apart.shop.start()
    job = apart.shop.ended([uid])[0]
    assert (job.status, runs(tmp_path), len(job.child_processes)) == (JobStatus.DONE, ["begun"], 1)


@pytest.mark.parametrize("point", IN_RUNNER)
def test_f44_a_killed_runner_leaves_a_known_or_an_unknown_outcome_and_no_process(
    jobs: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: JobPoint
) -> None:
    mark = f"300{IN_RUNNER.index(point)}7"
    monkeypatch.setenv(failpoints.VARIABLE, f"{point}:kill")  # for the spawner and its runners: ours was read before
    uid = jobs.submit({"1": f"echo ran >> {tmp_path}/ran; (setsid sleep {mark} &) ; sleep 0.1"})[0]
    if point in CERTAIN and point is not JobPoint.RESULT_WRITTEN:
        # What certainly never began is begun anew; here it dies each time, until the point is gone.
        jobs.until(lambda: len(jobs.record(uid).child_processes) > 1, "another attempt")
        monkeypatch.delenv(failpoints.VARIABLE)
        jobs.stop()
        jobs.start()
    job = jobs.ended([uid])[0]
    assert not alive(f"sleep {mark}")
    if point in CERTAIN:
        assert (job.status, runs(tmp_path)) == (JobStatus.DONE, ["ran"])
        assert {child.state for child in job.child_processes[:-1]} <= {AttemptState.ABORTED}
    else:
        assert (job.status, job.cause) == (JobStatus.FAILED, Cause.UNKNOWN)
        assert [child.state for child in job.child_processes] == [AttemptState.UNKNOWN]
        assert len(runs(tmp_path)) <= 1


def test_what_may_be_run_again_is_where_its_outcome_is_unknown(jobs: Shop, tmp_path: Path) -> None:
    command = f"echo ran >> {tmp_path}/ran; test $(wc -l < {tmp_path}/ran) -gt 1 || sleep 30017"
    uid = jobs.submit({"1": {"command": command, "idempotent": True}})[0]
    jobs.until(lambda: runs(tmp_path) == ["ran"], "the command")
    os.kill(runner_of(jobs, uid), signal.SIGKILL)
    job = jobs.ended([uid])[0]
    assert (job.status, runs(tmp_path)) == (JobStatus.DONE, ["ran", "ran"])
    assert [child.state for child in job.child_processes] == [AttemptState.UNKNOWN, AttemptState.DONE]
    assert not alive("sleep 30017")


def test_f44_a_killed_command_is_a_failure_by_its_signal(jobs: Shop) -> None:
    uid = jobs.submit({"1": "exec sleep 30027"})[0]
    jobs.until(lambda: len(alive("sleep 30027")) == 1, "the command")
    os.kill(alive("sleep 30027")[0], signal.SIGKILL)
    job = jobs.ended([uid])[0]
    assert (job.status, job.cause, job.child_processes[0].signal) == (JobStatus.FAILED, Cause.SIGNAL, signal.SIGKILL)


def test_f44_a_killed_spawner_is_replaced_and_its_runners_go_on(jobs: Shop, tmp_path: Path) -> None:
    first = jobs.submit({"1": f"while ! test -e {tmp_path}/go; do sleep 0.02; done"})[0]
    jobs.until((attempt_directory(jobs.rules.work, first, 1) / "started").exists, "the command")
    spawner = int(Path(f"/proc/{runner_of(jobs, first)}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(spawner, signal.SIGKILL)
    second = jobs.submit({"1": "true"})
    assert jobs.ended(second)[0].status is JobStatus.DONE
    (tmp_path / "go").touch()
    job = jobs.ended([first])[0]
    assert (job.status, len(job.child_processes)) == (JobStatus.DONE, 1)


def runner_of(jobs: Shop, uid: object) -> int:
    """Return the process that has taken a job's last attempt."""
    claim = max((jobs.rules.work / str(uid)).glob("[0-9]*")) / "claimed.json"
    return int(json.loads(claim.read_text())["pid"])


def test_a_runner_takes_another_attempt_and_a_stop_that_comes_late_ends_nothing_of_it(
    jobs: Shop, tmp_path: Path
) -> None:
    first = jobs.run({"1": "true"}).uid
    second = jobs.submit({"1": f"while ! test -e {tmp_path}/go; do sleep 0.02; done"})[0]
    jobs.until((attempt_directory(jobs.rules.work, second, 1) / "started").exists, "the command")
    assert runner_of(jobs, second) == runner_of(jobs, first)
    (attempt_directory(jobs.rules.work, first, 1) / "stop").touch()
    os.kill(runner_of(jobs, first), signal.SIGTERM)
    (tmp_path / "go").touch()
    assert jobs.ended([second])[0].status is JobStatus.DONE


def test_f44_a_runner_that_is_killed_as_it_waits_loses_no_attempt(jobs: Shop, tmp_path: Path) -> None:
    waits = runner_of(jobs, jobs.run({"1": "true"}).uid)
    os.kill(waits, signal.SIGKILL)
    job = jobs.run({"1": f"echo ran >> {tmp_path}/ran"})
    assert (job.status, runs(tmp_path)) == (JobStatus.DONE, ["ran"])
    assert runner_of(jobs, job.uid) != waits


def test_runners_end_with_their_spawner_once_they_have_nothing_to_do(jobs: Shop, tmp_path: Path) -> None:
    uids = jobs.submit({"1": f"while ! test -e {tmp_path}/go; do sleep 0.02; done"}, count=3)
    jobs.until(lambda: all((jobs.rules.work / str(uid) / "1" / "claimed.json").exists() for uid in uids), "runners")
    pids = {runner_of(jobs, uid) for uid in uids}
    (tmp_path / "go").touch()
    jobs.ended(uids)
    assert len(pids) == 3
    assert all(Path(f"/proc/{pid}").exists() for pid in pids)
    jobs.stop()
    jobs.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "their end")


def test_f45_what_a_command_left_behind_does_not_outlive_it(jobs: Shop) -> None:
    job = jobs.run({"1": "(setsid sleep 30037 &); (nohup sh -c 'setsid sleep 30037' >/dev/null 2>&1 &); sleep 0.05"})
    assert job.status is JobStatus.DONE
    assert not alive("sleep 30037")
    assert job.child_processes[0].left_behind >= 2


def test_f45_a_fork_bomb_is_ended_and_others_do_not_notice(tmp_path: Path) -> None:
    with shop(f"sqlite:///{tmp_path / 'processing.db'}", tmp_path / "work") as made:
        bomb = {"command": "bomb() { sleep 30047 & bomb | bomb & }; bomb; sleep 30047", "resources": {"processes": 60}}
        uid = made.submit({"1": {**bomb, "timeout": 2}})[0]
        made.until(lambda: len(alive("sleep 30047")) > 3, "the bomb")
        assert made.run({"1": "true"}).status is JobStatus.DONE
        job = made.ended([uid])[0]
        assert job.status in (JobStatus.FAILED, JobStatus.DONE)
        assert not alive("sleep 30047")


def test_f50_endless_output_without_a_newline_keeps_its_head_and_its_tail(jobs: Shop) -> None:
    job = jobs.run({"1": "printf begin; head -c 3000000 /dev/zero | tr '\\0' '\\377'; printf end"})
    assert job.status is JobStatus.DONE
    directory = attempt_directory(jobs.rules.work, job.uid, 1)
    kept = sum(path.stat().st_size for path in directory.glob("stdout*"))
    assert kept <= jobs.rules.head_bytes + jobs.rules.tail_bytes + 20

    from beamkeeper.domain import captured

    text = captured.ends(str(directory / "stdout"), 1000)
    assert text.startswith(b"begin\xff")
    assert text.endswith(b"\xffend")
    assert b"bytes left out" in text


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_f50_ten_gigabytes_without_a_newline_take_no_memory_and_keep_nobody_back(jobs: Shop) -> None:
    uid = jobs.submit({"1": "head -c 10G /dev/zero | tr '\\0' '\\377'; printf end"})[0]
    directory = attempt_directory(jobs.rules.work, uid, 1)
    jobs.until((directory / "stdout.size").exists, "its output")
    status = Path(f"/proc/{runner_of(jobs, uid)}/status")
    assert jobs.run({"1": "true"}).status is JobStatus.DONE
    most_kb = 0

    def is_over() -> bool:
        nonlocal most_kb
        if status.exists():
            most_kb = max(most_kb, int(status.read_text().split("VmHWM:")[1].split()[0]))
        return jobs.jobs([uid])[0].has_ended

    jobs.until(is_over, "its end", 1500)
    assert jobs.record(uid).status is JobStatus.DONE
    assert most_kb < 40_000
    assert int((directory / "stdout.size").read_text()) == 10 * 1024**3 + 3
