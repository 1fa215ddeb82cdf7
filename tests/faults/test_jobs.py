"""F46 to F55, those that need no batch system: what goes wrong in a job harms no other, and is said by its name.

F43 to F45 and F50, kills and what commands leave behind, are in test_jobs_killed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from beamkeeper.core.job_logs import with_output
from beamkeeper.db.base import new_uid
from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.processing import Cause, JobStatus
from beamkeeper.domain.workflows import checked_definition
from beamkeeper.engine.processes import Process
from beamkeeper.testing.jobs import Shop, alive, rules, shop


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Shop]:
    with shop(f"sqlite:///{tmp_path / 'processing.db'}", tmp_path / "work") as made:
        yield made
        assert made.faults == []


def test_f46_a_worker_whose_row_went_first_loses_no_job(jobs: Shop) -> None:
    jobs.stop()
    uid = jobs.submit({"1": "true"})[0]
    gone, me = new_uid(), Process.this()
    with jobs.database.write() as tx:
        tx.workers.add(gone, host=me.host, boot_id=me.boot_id, pid=me.pid, start_ticks=me.start_ticks + 1)
        tx.engine_jobs.claim(gone, 1, {})
        tx.workers.remove(gone)
    jobs.start()
    assert jobs.ended([uid])[0].status is JobStatus.DONE


def test_f50_what_is_no_text_is_kept_as_it_is_and_read_as_far_as_it_is_one(jobs: Shop) -> None:
    writes = "printf 'value=a\\377\\033[31mb\\n'; printf '\\377\\n' >&2"
    stages = {"1": {"command": writes, "outputVariableRegexList": ["value=(?P<value>.*)"]}, "2": "echo $value; exit 3"}
    job = jobs.run(stages)
    assert (job.status, job.cause, job.variables["value"]) == (JobStatus.FAILED, Cause.EXIT, "a\ufffd\x1b[31mb")
    assert jobs.output(job.uid) == b"value=a\xff\x1b[31mb\n"
    shown = with_output(job, jobs.rules.work).child_processes
    assert [(child.stdout, child.stderr) for child in shown] == [
        ("value=a\ufffd\x1b[31mb\n", "\ufffd\n"),
        ("a\ufffd\x1b[31mb\n", ""),
    ]


def test_f51_an_evil_pattern_takes_no_time(jobs: Shop) -> None:
    stage = {"command": "head -c 200000 /dev/zero | tr '\\0' a; echo b", "outputVariableRegexList": ["(?P<all>(a+)+)$"]}
    assert jobs.run({"1": stage}).has_ended


def test_f51_ten_thousand_groups_are_refused_at_registration() -> None:
    pattern = "".join(f"(?P<g{n}>a)?" for n in range(10_000))
    with pytest.raises(InvalidError, match="characters"):
        checked_definition({"name": "a", "stages": {"1": {"command": "true", "outputVariableRegexList": [pattern]}}})


@pytest.mark.parametrize("name", ["a$(touch pwned)b; echo #.raw", "it's", 'say "so"', "-rf", "a\nb", "`touch pwned`"])
def test_f52_a_hostile_name_is_a_name_in_every_quoting(jobs: Shop, tmp_path: Path, name: str) -> None:
    frame = tmp_path / name
    frame.write_text("photons")
    forms = [
        'cat "$filePath"',
        "cat $filePath",
        "cat -- ${filePath}",
        "cat '$filePath'",
        "printf '%s' \"$(cat $filePath)\"",
    ]
    job = jobs.run({str(n): form for n, form in enumerate(forms)}, [frame])
    assert job.status is JobStatus.DONE, job.message
    assert [jobs.output(job.uid, n) for n in range(1, 6)] == [b"photons"] * 5
    assert not list(tmp_path.rglob("pwned"))


def test_f53_a_command_out_of_memory_says_so(jobs: Shop) -> None:
    stage = {"command": "x=$(head -c 300000000 /dev/zero | tr '\\0' a); echo ${#x}", "resources": {"memory": "50MB"}}
    job = jobs.run({"1": stage})
    assert job.status is JobStatus.FAILED
    if os.geteuid() == 0:
        assert job.cause is Cause.MEMORY, job.message


def test_f53_a_file_larger_than_the_limit_ends_its_command(tmp_path: Path) -> None:
    with shop(f"sqlite:///{tmp_path / 'p.db'}", tmp_path / "work") as made:
        made.stop()
        made.rules = rules(tmp_path / "work", file_bytes=100_000)
        made.start()
        job = made.run({"1": "exec head -c 1000000 /dev/zero > big"})
        assert (job.status, job.cause) == (JobStatus.FAILED, Cause.SIGNAL)
        assert "SIGXFSZ" in job.message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a disk that is full soon")
def test_f53_a_full_disk_is_said_by_its_name_and_work_goes_on_when_there_is_room(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", small], check=True)
    try:
        with shop(f"sqlite:///{tmp_path / 'p.db'}", small / "work") as made:
            full = made.run({"1": "cat /dev/zero > big"})
            assert (full.status, full.cause) == (JobStatus.FAILED, Cause.STORAGE)
            assert "No space left on device" in full.message
            assert len(full.child_processes) == 1
            waits = made.submit({"1": "true"})
            made.until(lambda: any("No space left" in fault for fault in made.faults), "a word of it")
            (Path(full.child_processes[0].working_dir) / "big").unlink()
            assert made.ended(waits)[0].status is JobStatus.DONE
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)


def test_f53_a_time_out_at_the_moment_of_the_end_gives_one_end(jobs: Shop) -> None:
    uids = jobs.submit({"1": {"command": "sleep 0.1", "timeout": 0.1}}, count=12)
    ended = jobs.ended(uids)
    assert {job.status for job in ended} <= {JobStatus.DONE, JobStatus.FAILED}
    assert all(len(job.child_processes) == 1 for job in ended)


def test_f53_a_working_directory_that_vanishes_harms_its_job_only(jobs: Shop, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    job = jobs.run({"1": f"rmdir {place}", "2": {"command": "pwd", "workingDir": str(place)}})
    assert (job.status, job.cause) == (JobStatus.FAILED, Cause.DIRECTORY)
    assert jobs.run({"1": "pwd"}).status is JobStatus.DONE


def test_f55_many_queued_and_running_jobs_are_stopped_at_once(tmp_path: Path) -> None:
    with shop(f"sqlite:///{tmp_path / 'p.db'}", tmp_path / "work", slots=20) as made:
        uids = made.submit({"1": "exec sleep 30057"}, count=1000)
        made.until(lambda: len(alive("sleep 30057")) == 20, "the commands")
        made.halt(uids)
        assert {job.status for job in made.ended(uids)} == {JobStatus.ABORTED}
        assert not alive("sleep 30057")
