"""F47 to F49 on real schedulers: what a scheduler does not say, says twice, or says of somebody else's job."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from beamkeeper.cli.app import run
from beamkeeper.db import schema
from beamkeeper.domain.errors import ConflictError, NotFoundError
from beamkeeper.domain.processing import JobStatus
from beamkeeper.domain.status import Service
from beamkeeper.plugins import batch
from beamkeeper.testing.grid_engine import GridEngine
from beamkeeper.testing.jobs import Shop, rules
from beamkeeper.testing.slurm import Slurm

DM = str(Path(sys.executable).parent / "dm")
PATIENCE_S = 60.0
Wrap = Callable[[str, str], None]


@pytest.fixture
def here(slurm_server: Slurm, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    for name, value in slurm_server.environment.items():
        monkeypatch.setenv(name, value)
    return slurm_server


@pytest.fixture
def wrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wrap:
    """Put a script before a program, which it reaches as $real."""
    directory = tmp_path / "wrapped"
    directory.mkdir()
    path = os.environ["PATH"]

    def put(program: str, script: str) -> None:
        file = directory / program
        file.write_text(f"#!/bin/sh\nreal=/usr/bin/{program}\n{script}\n")
        file.chmod(0o755)

    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{path}")
    return put


def _submit(argv: Sequence[str], key: str, said: list[str] | None = None) -> batch.Submission:
    tell = (said if said is not None else []).append
    return batch.submit(batch.scheduler_of(argv[0]), argv, key, patience_s=PATIENCE_S, tell=tell, again_s=0.3)


def _wait(tmp_path: Path, *jobs: batch.Handle, lost_s: float = PATIENCE_S) -> list[batch.BatchJob]:
    board = batch.Board(batch.scheduler_of(jobs[0].scheduler), tmp_path / "board", 0.3)
    found = batch.wait(board, jobs, every_s=0.3, timeout_s=PATIENCE_S * 3, tell=lambda _: None, lost_s=lost_s)
    return [found[job] for job in jobs]


def _counting(tmp_path: Path) -> tuple[Path, list[str]]:
    """Return a file, and a command whose job adds a line to it."""
    ran = tmp_path / "ran"
    return ran, ["sbatch", "--output=/dev/null", "--wrap", f"echo ran >> '{ran}'"]


def _wait_for_the_cancelled(tmp_path: Path, made: batch.Submission) -> None:
    """Wait until nothing of the one job goes on that was taken too many."""
    double, key = *made.cancelled, made.handle.key
    assert _wait(tmp_path, batch.Handle(made.handle.scheduler, double, key))[0].state is batch.BatchState.CANCELLED


def test_f47_a_job_that_was_taken_with_an_error_is_adopted(here: Slurm, wrap: Wrap, tmp_path: Path) -> None:
    ran, command = _counting(tmp_path)
    wrap("sbatch", '$real "$@" >/dev/null; echo "sbatch: error: Socket timed out" >&2; exit 1')
    made = _submit(command, "f47-error")
    assert made.is_found
    assert _wait(tmp_path, made.handle)[0].state is batch.BatchState.DONE
    again = _submit(command, "f47-error")  # as in a try of its stage that comes later
    assert again.handle == made.handle
    assert ran.read_text() == "ran\n"


def test_f47_a_job_that_was_taken_twice_runs_once(here: Slurm, wrap: Wrap, tmp_path: Path) -> None:
    ran, command = _counting(tmp_path)
    goes_on = tmp_path / "goes on"
    command[-1] = f"until [ -e '{goes_on}' ]; do sleep 0.1; done; {command[-1]}"  # both may have begun by then
    wrap("sbatch", '$real "$@" >/dev/null; exec $real "$@"')
    made = _submit(command, "f47-twice")
    _wait_for_the_cancelled(tmp_path, made)
    goes_on.touch()
    here.empty()
    assert ran.read_text() == "ran\n"
    assert _submit(command, "f47-twice").is_found


def test_f47_of_a_job_that_grid_engine_took_twice_one_goes_on(
    grid_engine_server: GridEngine, wrap: Wrap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in grid_engine_server.environment.items():
        monkeypatch.setenv(name, value)
    goes_on, ran = tmp_path / "goes on", tmp_path / "ran"
    script = tmp_path / "work.sh"
    script.write_text(f"#!/bin/sh\nuntil [ -e '{goes_on}' ]; do sleep 0.1; done\necho ran >> '{ran}'\n")
    script.chmod(0o755)
    wrap("qsub", '$real "$@" >/dev/null; exec $real "$@"')
    made = _submit(["qsub", "-o", "/dev/null", "-j", "y", str(script)], "f47-sge-twice")
    _wait_for_the_cancelled(tmp_path, made)
    goes_on.touch()
    assert _wait(tmp_path, made.handle)[0].state is batch.BatchState.DONE
    assert ran.read_text() == "ran\n"


def test_what_others_forget_meanwhile_stops_no_submission(tmp_path: Path) -> None:
    once = batch.Once(tmp_path, "an attempt")
    once.note("first")
    notes = tmp_path / "submitted"
    (notes / "gone meanwhile").symlink_to(tmp_path / "nothing")  # what is listed, and is no more when it is looked at
    once.note("second")
    assert (notes / "an attempt.second").exists()
    with pytest.raises(ConflictError):
        once.check("second")


def test_a_command_that_is_refused_fails_with_what_the_scheduler_says(here: Slurm) -> None:
    with pytest.raises(Exception, match="invalid partition"):
        _submit(["sbatch", "--partition=nowhere", "--wrap", "true"], "refused")


def test_f48_a_number_that_is_another_jobs_by_now_is_not_taken_for_it(here: Slurm, wrap: Wrap, tmp_path: Path) -> None:
    other = _submit(["sbatch", "--output=/dev/null", "--wrap", "sleep 30"], "f48-other").handle
    old = batch.Handle("slurm", other.id, "f48-of-last-year")
    with pytest.raises(ConflictError, match="another job by now"):
        batch.cancel(batch.scheduler_of("slurm"), old)
    wrap("sacct", f"echo '{other.id}|{other.id}|an old one|COMPLETED|0:0'")
    with pytest.raises(NotFoundError, match="unknown"):
        _wait(tmp_path, old, lost_s=0.5)
    batch.cancel(batch.scheduler_of("slurm"), other)
    assert _wait(tmp_path, other)[0].state is batch.BatchState.CANCELLED


def _outage(here: Slurm, tmp_path: Path, seconds: float) -> None:
    """Submit and wait while the controller is away: once it answers, each job is there once and its end is known."""
    ran, command = _counting(tmp_path)
    before = _submit(["sbatch", "--output=/dev/null", "--wrap", "sleep 1; exit 4"], f"f49-before-{seconds}").handle
    here.stop("controller")
    heard = threading.Event()
    results: dict[str, object] = {}

    def submit() -> None:
        results["made"] = batch.submit(
            batch.scheduler_of("slurm"),
            command,
            f"f49-during-{seconds}",
            patience_s=PATIENCE_S * 3,
            tell=lambda _: heard.set(),
            again_s=0.3,
        )

    threads = [
        threading.Thread(target=submit),
        threading.Thread(target=lambda: results.update(end=_wait(tmp_path, before, lost_s=PATIENCE_S))),
    ]
    for thread in threads:
        thread.start()
    assert heard.wait(PATIENCE_S)
    time.sleep(seconds)
    here.start("controller")
    for thread in threads:
        thread.join(PATIENCE_S * 2)
    made, end = results["made"], results["end"]
    assert isinstance(made, batch.Submission)
    assert isinstance(end, list)
    assert (end[0].state, end[0].exit_status) == (batch.BatchState.FAILED, 4)
    assert _wait(tmp_path, made.handle)[0].state is batch.BatchState.DONE
    assert ran.read_text() == "ran\n"


def test_f49_a_scheduler_that_is_down_is_waited_for(here: Slurm, tmp_path: Path) -> None:
    _outage(here, tmp_path, 0)


@pytest.mark.long
def test_f49_a_scheduler_that_is_down_for_a_minute_is_waited_for(here: Slurm, tmp_path: Path) -> None:
    _outage(here, tmp_path, 60)


@pytest.mark.long
def test_f49_accounts_that_are_down_leave_nothing_concluded(here: Slurm, tmp_path: Path) -> None:
    here.stop("accounts")
    try:
        with pytest.raises(TimeoutError):
            batch.wait(
                batch.Board(batch.scheduler_of("slurm"), tmp_path, 0.2),
                [batch.Handle("slurm", "999999", "f49-gone")],
                every_s=0.2,
                timeout_s=2.0,
                tell=lambda _: None,
                lost_s=0.1,
            )
    finally:
        here.start("accounts")


def test_all_who_wait_share_one_question(here: Slurm, wrap: Wrap, tmp_path: Path) -> None:
    jobs = [_submit(["sbatch", "--output=/dev/null", "--wrap", "sleep 2"], f"shared-{n}").handle for n in range(4)]
    asked = tmp_path / "asked"
    wrap("squeue", f'echo asked >> {asked}; exec $real "$@"')
    every_s, ends = 0.5, []

    def wait(job: batch.Handle) -> None:
        board = batch.Board(batch.scheduler_of("slurm"), tmp_path / "board", every_s)
        ends.append(batch.wait(board, [job], every_s=every_s, timeout_s=PATIENCE_S, tell=lambda _: None)[job])

    threads = [threading.Thread(target=wait, args=[job]) for job in jobs * 5]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    took_s = time.monotonic() - begun
    assert [end.state for end in ends] == [batch.BatchState.DONE] * len(threads)
    assert len(asked.read_text().split()) <= took_s / every_s + 1


@pytest.mark.parametrize("which", ["slurm", "sge"])
def test_a_stage_that_is_tried_again_submits_once(which: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The pipeline of the founding paper: a stage submits, and the next one follows the job to its end."""
    server: Slurm | GridEngine = request.getfixturevalue("slurm_server" if which == "slurm" else "grid_engine_server")
    ran, script = tmp_path / "ran", tmp_path / "work.sh"
    script.write_text(f"#!/bin/sh\necho ran >> '{ran}'\nexit ${{STATUS:-0}}\n")
    script.chmod(0o755)
    command = {"slurm": "sbatch -o /dev/null", "sge": "qsub -o /dev/null -j y"}[which]
    shop = Shop(f"sqlite:///{tmp_path / 'jobs.db'}", tmp_path / "jobs")
    path = os.pathsep.join([str(Path(DM).parent), os.environ["PATH"]])
    shop.rules = rules(tmp_path / "jobs", path=path, environment=dict(server.environment))
    stages = {
        "1-submit": {
            "command": f"{DM} batch submit -- {command} {script}; test -e again || {{ touch again; exit 1; }}",
            "outputVariableRegexList": ["Batch job: (?P<batchJob>.*)"],
            "retries": {"max": 1, "delay": 0},
        },
        "2-monitor": {"command": f"{DM} batch wait --every 0.3 $batchJob"},
    }
    with closing(shop.database):
        schema.create(shop.database, Service.PROCESSING)
        shop.start()
        try:
            ended = shop.run(stages)
        finally:
            shop.stop()
    assert ended.status is JobStatus.DONE, ended
    assert [child.try_number for child in ended.child_processes] == [1, 2, 1]
    assert ran.read_text() == "ran\n"


def test_commands_on_grid_engine_tell_of_failures_and_end_jobs(
    grid_engine_server: GridEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in grid_engine_server.environment.items():
        monkeypatch.setenv(name, value)
    plain = ["qsub", "-o", "/dev/null", "-j", "y", "-b", "y"]
    script = tmp_path / "fails"
    script.write_text("#!/bin/sh\nexit 7\n")
    script.chmod(0o755)
    assert run(["batch", "submit", "--", *plain, "-N", "mine", str(script)]) == 0
    failing = capsys.readouterr().out.removeprefix("Batch job: ").strip()
    assert run(["batch", "submit", "--key", "long-one", "--", *plain, "-t", "1-2", "/bin/sleep", "60"]) == 0
    lasting = capsys.readouterr().out.removeprefix("Batch job: ").strip()
    assert run(["batch", "submit", "--key", "long-one", "--", *plain, "-t", "1-2", "/bin/sleep", "60"]) == 0
    assert capsys.readouterr().out.strip().endswith(lasting)
    assert run(["batch", "cancel", lasting]) == 0
    assert run(["batch", "wait", "--every", "0.3", failing, lasting]) == 7
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"{failing} failed 7"
    assert shown[1].startswith(f"{lasting} cancelled")


@pytest.mark.parametrize("which", ["slurm", "sge"])
def test_a_batch_job_does_not_count_as_of_the_attempt_and_grid_engine_shows_no_token(
    which: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    server: Slurm | GridEngine = request.getfixturevalue("slurm_server" if which == "slurm" else "grid_engine_server")
    for name, value in {**server.environment, "BEAMKEEPER_ATTEMPT": "a", "BEAMKEEPER_TOKEN": "dmt_of_a_job"}.items():
        monkeypatch.setenv(name, value)
    said = tmp_path / "said"
    command = {
        "slurm": ["sbatch", f"--output={said}", "--wrap", "env"],
        "sge": ["qsub", "-V", "-o", str(said), "-j", "y", "-b", "y", "/usr/bin/env"],
    }[which]
    made = _submit(command, f"environment-of-{which}")
    assert _wait(tmp_path, made.handle)[0].state is batch.BatchState.DONE
    names = {line.partition("=")[0] for line in said.read_text().splitlines()}
    assert "PATH" in names
    assert "BEAMKEEPER_ATTEMPT" not in names
    assert ("BEAMKEEPER_TOKEN" in names) is (which == "slurm")
