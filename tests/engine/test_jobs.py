"""Jobs run by the real loop, spawner and runners, on both databases: graph, files, outputs, retries, stops."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from beamkeeper.db import schema
from beamkeeper.domain.processing import AttemptState, Cause, JobStatus, StageStatus
from beamkeeper.domain.status import Service
from beamkeeper.domain.workflows.names import PER_FILE, SYSTEM
from beamkeeper.testing.jobs import Shop, alive, shop


@pytest.fixture
def jobs(database_url: str, tmp_path: Path) -> Iterator[Shop]:
    with shop(database_url, tmp_path / "work") as made:
        yield made
        assert made.faults == []


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Shop]:
    """On SQLite only: what does not depend on the database."""
    with shop(f"sqlite:///{tmp_path / 'processing.db'}", tmp_path / "work") as made:
        yield made
        assert made.faults == []


def files(directory: Path, *names: str) -> list[Path]:
    made = [directory / name for name in names]
    for path in made:
        path.write_text(path.name)
    return made


def test_stages_run_in_the_order_of_their_ids_and_hand_values_on(jobs: Shop) -> None:
    stages = {
        "2-use": 'echo "got $answer for $sample" > used; cat used',
        "1-make": {"command": "echo answer=42; exit 0", "outputVariableRegexList": ["answer=(?P<answer>\\d+)"]},
    }
    job = jobs.run(stages, arguments={"sample": "silver $(touch /tmp/pwned)"})
    assert (job.status, job.message, job.cause) == (JobStatus.DONE, "", None)
    assert [(stage.name, stage.status) for stage in job.stages] == [
        ("1-make", StageStatus.DONE),
        ("2-use", StageStatus.DONE),
    ]
    assert job.variables["answer"] == "42"
    assert [child.number for child in job.child_processes] == [1, 2]
    assert jobs.output(job.uid, 2) == b"got 42 for silver $(touch /tmp/pwned)\n"
    assert all(child.state is AttemptState.DONE and child.exit_status == 0 for child in job.child_processes)
    assert (job.completed, job.failed) == (2, 0)


def test_a_command_finds_every_variable_of_the_system(local: Shop, tmp_path: Path) -> None:
    names = sorted((SYSTEM | PER_FILE | {"stationName"}) - {"startTime", "submissionTime"})
    command = (
        "; ".join(f'echo "{name}=${name}"' for name in names) + '; test -n "$startTime" && test -n "$submissionTime"'
    )
    job = local.run({"1": {"command": command}}, files(tmp_path, "a"), definition={"arguments": {}})
    assert job.status is JobStatus.DONE, job.message
    found = dict(line.split("=", 1) for line in local.output(job.uid).decode().splitlines())
    assert found == {
        "countFiles": "1",
        "endTime": "",
        "execHost": socket.gethostname(),
        "experimentFilePath": "a",
        "filePath": str(tmp_path / "a"),
        "id": str(job.uid),
        "owner": "ada",
        "stage": "1",
        "stationName": "TEST",
        "username": "ada",
        "workflowName": "test",
        "workflowOwner": "ada",
    }


def test_one_process_runs_for_each_file_and_its_values_stay_with_it(jobs: Shop, tmp_path: Path) -> None:
    stages = {
        "1": {
            "command": 'echo size=$(wc -c < "$filePath")',
            "outputVariableRegexList": ["size=(?P<size>\\d+)"],
            "parallelExec": True,
        },
        "2": 'echo "$experimentFilePath $size"',
        "3": "echo last $size",
    }
    job = jobs.run(stages, files(tmp_path, "a", "bbb", "cc"))
    assert job.status is JobStatus.DONE, job.message
    assert job.count_files == 3
    second = [child for child in job.child_processes if child.stage == "2"]
    assert [jobs.output(job.uid, child.number) for child in second] == [b"a 1\n", b"bbb 3\n", b"cc 2\n"]
    assert [child.number for child in job.child_processes] == [1, 2, 3, 4, 5, 6, 7]
    assert jobs.output(job.uid, 7) == b"last 2\n"


def test_a_failed_stage_fails_the_job_and_the_rest_is_not_run(jobs: Shop) -> None:
    job = jobs.run({"1": "echo no such luck >&2; exit 3", "2": "echo never"})
    assert (job.status, job.cause) == (JobStatus.FAILED, Cause.EXIT)
    assert job.message == 'stage "1": exit status 3: no such luck'
    assert [child.stage for child in job.child_processes] == ["1"]


def test_a_stage_whose_condition_does_not_hold_is_skipped(local: Shop) -> None:
    stages = {"1": {"command": "exit 1", "runIf": '"$mode" == "slow"'}, "2": "true"}
    job = local.run(stages, arguments={"mode": "fast"})
    assert job.status is JobStatus.DONE
    assert [stage.status for stage in job.stages] == [StageStatus.SKIPPED, StageStatus.DONE]


def test_a_stage_repeats_until_its_condition_holds(local: Shop) -> None:
    stage = {
        "command": "echo count=`expr $count + 1`",
        "outputVariableRegexList": ["count=(?P<count>\\d+)"],
        "repeatPeriod": 0.01,
        "repeatUntil": '"$count" == "3"',
        "maxRepeats": 10,
    }
    job = local.run({"1": stage}, arguments={"count": "0"})
    assert job.status is JobStatus.DONE, job.message
    assert [child.repeat for child in job.child_processes] == [1, 2, 3]
    never = local.run({"1": {**stage, "repeatUntil": '"$count" == "x"', "maxRepeats": 2}}, arguments={"count": "0"})
    assert (never.status, never.cause) == (JobStatus.FAILED, Cause.REPEATS)


def test_a_command_is_tried_again_after_the_exit_codes_that_say_so(local: Shop) -> None:
    stage = {"command": "test -e again && exit 0; touch again; exit 75", "retries": {"max": 2, "delay": 0.01}}
    job = local.run({"1": stage})
    assert job.status is JobStatus.DONE, job.message
    assert [(child.try_number, child.exit_status) for child in job.child_processes] == [(1, 75), (2, 0)]
    assert (job.completed, job.failed) == (1, 1)
    other = local.run({"1": {"command": "exit 3", "retries": {"max": 2, "exitCodes": [75], "delay": 0.01}}})
    assert (other.status, len(other.child_processes)) == (JobStatus.FAILED, 1)


def test_stages_without_a_path_between_them_run_at_the_same_time(local: Shop) -> None:
    meet = "touch {1}; for i in $(seq 500); do test -e {0} && exit 0; sleep 0.02; done; exit 1"
    stages = {
        "a": {"command": meet.format("right", "left"), "needs": []},
        "b": {"command": meet.format("left", "right"), "needs": []},
        "c": {"command": "test -e left -a -e right", "needs": ["a", "b"]},
    }
    assert local.run(stages).status is JobStatus.DONE


@pytest.mark.parametrize("is_parallel", [True, False])
def test_the_commands_of_a_stage_run_side_by_side_where_it_says_so(
    local: Shop, tmp_path: Path, *, is_parallel: bool
) -> None:
    waits = "for i in $(seq 500); do test -e met-a -a -e met-b && exit; sleep 0.02; done; false"
    meet = f'touch "met-$experimentFilePath"; {waits}'
    alone = "mkdir busy && sleep 0.1 && rmdir busy"
    command = f'test -e "$filePath" || exit 1; {meet if is_parallel else alone}'
    job = local.run({"1": {"command": command, "parallelExec": is_parallel}}, files(tmp_path, "a", "b"))
    assert (job.status, job.completed) == (JobStatus.DONE, 2), job.message


def test_a_command_has_nothing_of_the_environment_of_the_service(local: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SERVICE", "tea")
    job = local.run({"1": {"command": "env", "environment": {"OWN": "given"}}})
    names = {line.partition("=")[0] for line in local.output(job.uid).decode().splitlines()}
    assert {"OWN", "PATH", "HOME", "TMPDIR"} <= names
    assert "SECRET_OF_THE_SERVICE" not in names


def test_done_means_that_the_outputs_are_there(local: Shop) -> None:
    job = local.run({"1": {"command": "touch result.dat", "outputs": ["result.dat"]}})
    assert (job.status, job.cause) == (JobStatus.FAILED, Cause.OUTPUTS)
    assert "result.dat" in job.message
    good = local.run({"1": {"command": "echo 1 > result.dat", "outputs": ["result.dat"]}})
    assert good.status is JobStatus.DONE


@pytest.mark.parametrize(
    ("stage", "cause", "words"),
    [
        ({"command": "no-such-program-here"}, Cause.NOT_FOUND, "no-such-program-here"),
        ({"command": "true", "workingDir": "/nowhere/at/all"}, Cause.DIRECTORY, "/nowhere/at/all"),
        ({"command": "sleep 3001", "timeout": 0.2}, Cause.TIMEOUT, "0.2 s"),
        ({"command": "trap '' TERM; sleep 3001; sleep 3001", "timeout": 0.2}, Cause.TIMEOUT, "0.2 s"),
        ({"command": "kill -SEGV $$"}, Cause.SIGNAL, "SIGSEGV"),
    ],
)
def test_what_went_wrong_is_said_by_name(local: Shop, stage: dict[str, object], cause: Cause, words: str) -> None:
    job = local.run({"1": stage})
    assert (job.status, job.cause) == (JobStatus.FAILED, cause)
    assert words in job.message
    assert not alive("sleep 3001")


def test_a_job_is_stopped_with_all_that_it_started(jobs: Shop) -> None:
    command = "trap '' TERM; (setsid sleep 3002 &); (sleep 3002 & sleep 3002) & sleep 3002; wait"
    running, waiting = jobs.submit({"1": command})[0], jobs.submit({"1": "true"}, priority=-1, count=20)
    jobs.until(lambda: len(alive("sleep 3002")) >= 4, "the command's processes")
    jobs.halt([running])
    job = jobs.ended([running])[0]
    assert (job.status, job.cause, job.message) == (JobStatus.ABORTED, Cause.STOPPED, "stopped by ada")
    assert not alive("sleep 3002")
    assert {one.status for one in jobs.ended(waiting)} == {JobStatus.DONE}


def test_urgent_jobs_go_first_and_a_workflow_has_its_limit(database_url: str, tmp_path: Path) -> None:
    with shop(database_url, tmp_path / "work", slots=4, limits={"narrow": 1}) as made:
        made.stop()
        narrow = made.submit(
            {"1": "mkdir one || exit 1; sleep 0.05; rmdir one".replace("one", str(tmp_path / "one"))},
            count=5,
            workflow_name="narrow",
        )
        late = made.submit({"1": "true"}, count=30)
        urgent = made.submit({"1": "true"}, priority=10)
        made.start()
        assert {job.status for job in made.ended(narrow)} == {JobStatus.DONE}
        first = made.ended(urgent)[0].child_processes[0].submitted_at
        assert all(job.child_processes[0].submitted_at >= first for job in made.ended(late))


def test_secrets_are_left_out_of_all_that_a_command_writes(tmp_path: Path) -> None:
    made = Shop(f"sqlite:///{tmp_path / 'processing.db'}", tmp_path / "work")
    made.rules = replace(made.rules, secrets={"KEY": "correct horse"}, head_bytes=1000, tail_bytes=1000)
    with closing(made.database):
        schema.create(made.database, Service.PROCESSING)
        made.start()
        halves = 'printf "%s" "${KEY%horse}"; sleep 0.1; printf "horse"; '
        job = made.run({"1": f'{halves} for n in $(seq 500); do echo "$KEY" $n; done; echo "$KEY" >&2; exit 3'})
        made.stop()
    assert job.child_processes[0].message == "exit status 3: [redacted]"
    kept = {path.name: path.read_bytes() for path in (tmp_path / "work").rglob("*") if path.is_file()}
    assert {"stdout", "stderr", "result.json"} <= set(kept)
    assert not [name for name, data in kept.items() if b"correct horse" in data]
    assert b"correct horse" not in (tmp_path / "processing.db").read_bytes()


def busy(made: Shop, gate: Path, count: int) -> list[UUID]:
    """Let two long commands run, and as many short ones be ordered ahead of their turn; the long ones come first."""
    ran, short = gate.parent / "ran", {"1": f"echo $id >> {gate.parent}/ran"}
    made.ended(made.submit(short, count=3, workflow_name="short"))
    ran.unlink()
    long = made.submit({"1": f"while ! test -e {gate}; do sleep 0.02; done"}, count=2)
    made.until(lambda: all((made.rules.work / str(uid) / "1" / "started").exists() for uid in long), "the commands")
    ahead = made.submit(short, count=count, workflow_name="short")
    made.until(lambda: all(made.record(uid).child_processes for uid in ahead), "their orders")
    return [*long, *ahead]


def test_what_is_ordered_ahead_of_its_turn_waits_and_may_be_stopped_or_begun_anew(tmp_path: Path) -> None:
    with shop(f"sqlite:///{tmp_path / 'processing.db'}", tmp_path / "work", slots=2) as made:
        *long, stopped, first, second = busy(made, tmp_path / "go", 3)
        waits = made.submit({"1": "true"})  # nobody knows whether it is short
        made.halt([stopped])
        assert made.ended([stopped])[0].status is JobStatus.ABORTED
        runner = json.loads((made.rules.work / str(long[0]) / "1" / "claimed.json").read_text())["pid"]
        spawner = Path(f"/proc/{runner}/stat").read_text().rpartition(")")[2].split()[1]
        os.kill(int(spawner), signal.SIGKILL)
        made.until(lambda: made.record(second).child_processes[0].state is AttemptState.ABORTED, "word of the orders")
        assert made.record(waits[0]).status is JobStatus.PENDING
        (tmp_path / "go").touch()
        assert {job.status for job in made.ended([*long, first, second, *waits])} == {JobStatus.DONE}
        assert sorted((tmp_path / "ran").read_text().split()) == sorted(map(str, (first, second)))


def test_what_was_ordered_ahead_as_the_service_ended_has_certainly_not_begun(tmp_path: Path) -> None:
    with shop(f"sqlite:///{tmp_path / 'processing.db'}", tmp_path / "work", slots=2) as made:
        *_, ahead = busy(made, tmp_path / "go", 1)
        made.stop()
        (tmp_path / "go").touch()
        claim = json.loads((made.rules.work / str(ahead) / "1" / "claimed.json").read_text())
        assert claim["words"] == "the service ended"
        assert not (tmp_path / "ran").exists()
