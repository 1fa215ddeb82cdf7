"""The record of a job in the words of the original."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import JsonValue

from beamkeeper.domain.job_record import original_record
from beamkeeper.domain.processing import (
    AttemptState,
    ChildProcess,
    JobRecord,
    JobStatus,
    StageOfJob,
    StageStatus,
    WorkflowOfJob,
)
from beamkeeper.domain.workflows import checked_definition

UID = UUID(int=7)
BEGUN = datetime(2026, 1, 31, 23, 30, 0, 500_000, tzinfo=UTC)
CHICAGO = ZoneInfo("America/Chicago")


def child(number: int, stage: str, state: AttemptState = AttemptState.DONE, **values: Any) -> ChildProcess:
    return ChildProcess(
        uid=UUID(int=number),
        number=number,
        stage=stage,
        state=state,
        command="wc a.h5",
        working_dir="/w",
        account="user8id",
        submitted_at=BEGUN,
        **values,
    )


def record(**values: Any) -> dict[str, Any]:
    stages: JsonValue = {"1-count": {"command": "wc $filePath", "parallelExec": True}, "2-sum": {"command": "sum"}}
    definition = checked_definition({"name": "average", "stages": stages})
    plain: dict[str, Any] = {
        "uid": UID,
        "number": 1,
        "owner": "ada",
        "status": JobStatus.RUNNING,
        "workflow": WorkflowOfJob(uid=UID, name="average", owner="8id", version=3),
        "count_files": 3,
        "stage": "1-count",
        "submitted_at": BEGUN,
        "started_at": BEGUN + timedelta(seconds=1),
        "stages": (StageOfJob(name="1-count", status=StageStatus.RUNNING),),
        "definition": definition.model_dump(mode="json"),
    }
    found: dict[str, Any] = original_record(JobRecord(**plain | values), CHICAGO)
    assert json.loads(json.dumps(found)) == found
    return found


def test_a_record_has_the_names_and_forms_of_the_original() -> None:
    end = BEGUN + timedelta(seconds=3)
    found = record(status=JobStatus.DONE, ended_at=end, completed=4, failed=1)
    assert (found["id"], found["owner"], found["status"], found["stage"]) == (str(UID), "ada", "done", "1-count")
    assert (found["submissionTime"], found["submissionTimestamp"]) == (BEGUN.timestamp(), "2026/01/31 17:30:00 CST")
    assert (found["endTime"], found["runTime"]) == (end.timestamp(), 2.0)
    assert (found["countFiles"], found["nCompletedChildProcesses"], found["nFailedChildProcesses"]) == (3, 4, 1)
    workflow = found["workflow"]
    assert (workflow["name"], workflow["owner"], workflow["version"]) == ("average", "8id", "3")
    assert workflow["stages"]["1-count"]["parallelExec"] is True
    assert "status" not in workflow["stages"]["2-sum"]


def test_what_has_not_come_is_left_out() -> None:
    found = record(started_at=None)
    assert not {"startTime", "startTimestamp", "endTime", "runTime"} & set(found)


def test_arguments_and_captured_variables_are_at_the_top_and_hide_nothing() -> None:
    found = record(
        arguments={"filePathList": ["a", "b"], "depth": 4, "status": "mine", "word": "given"},
        variables={"depth": "4", "word": "captured", "peak": "58.4", "id": "0"},
    )
    assert (found["filePathList"], found["depth"]) == (["a", "b"], 4)
    assert (found["word"], found["peak"]) == ("captured", "58.4")
    assert (found["status"], found["id"]) == ("running", str(UID))


def test_child_processes_are_in_their_stage_by_their_number_in_the_job() -> None:
    times: dict[str, Any] = {"started_at": BEGUN, "ended_at": BEGUN + timedelta(seconds=2), "run_time_s": 2.0}
    stage = record(
        child_processes=(
            child(1, "1-count", file=0, exit_status=0, stdout="12 a.h5", stderr="slow", **times),
            child(2, "1-count", AttemptState.RUNNING, file=1),
            child(3, "2-sum", AttemptState.FAILED, signal=9, message="it was killed by SIGKILL"),
            child(4, "2-sum", AttemptState.UNKNOWN),
        )
    )["workflow"]["stages"]
    first = stage["1-count"]
    assert list(first["childProcesses"]) == ["1"]  # one that runs has no exit status, and readers want a number
    assert first["childProcesses"]["1"] == {
        "stageId": "1-count",
        "childProcessNumber": 1,
        "command": "wc a.h5",
        "workingDir": "/w",
        "userAccount": "user8id",
        "status": "done",
        "submitTime": BEGUN.timestamp(),
        "startTime": BEGUN.timestamp(),
        "endTime": BEGUN.timestamp() + 2,
        "runTime": 2.0,
        "exitStatus": 0,
        "stdOut": "12 a.h5",
        "stdErr": "slow",
    }
    counts = ("nRunningChildProcesses", "nQueuedChildProcesses", "nCompletedChildProcesses")
    assert [first[name] for name in counts] == [1, 1, 1]
    killed, unknown = stage["2-sum"]["childProcesses"].values()
    assert (killed["status"], killed["exitStatus"], killed["stdErr"]) == ("failed", -9, "it was killed by SIGKILL")
    assert (unknown["status"], unknown["exitStatus"]) == ("failed", -1)
