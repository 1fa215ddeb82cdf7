"""Stages on a real Slurm by Parsl: each part of the way is killed, and nothing runs twice without that it is said."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from beamkeeper.builtin.parsl_executor import ParslOptions, provider_of
from beamkeeper.config import Settings
from beamkeeper.db import schema
from beamkeeper.domain.errors import SettingsError
from beamkeeper.domain.processing import AttemptState, Cause, JobRecord, JobStatus
from beamkeeper.domain.status import Service
from beamkeeper.engine.jobs.carrying import Staging
from beamkeeper.engine.jobs.local import read_claim
from beamkeeper.engine.jobs.orders import FILES, attempt_directory
from beamkeeper.engine.jobs.remote import ExecutorSpec
from beamkeeper.serve.processing import executor_specs
from beamkeeper.testing.jobs import Shop, rules
from beamkeeper.testing.remotes import Sshd
from beamkeeper.testing.slurm import Slurm

NAME = "hpc"
PATIENCE_S = 150.0


@contextmanager
def _cluster(slurm: Slurm, place: Path, staging: Staging | None = None, **options: Any) -> Iterator[Shop]:
    """Give a shop whose stages of the role `heavy` run on Slurm."""
    shop = Shop(f"sqlite:///{place / 'jobs.db'}", place / "jobs")
    shop.rules = rules(place / "jobs")
    told = {
        "provider": "slurm",
        "options": {"partition": "batch", "exclusive": False, "cmd_timeout": 30},
        "workers_per_node": 4,
        "address": "127.0.0.1",
        "heartbeat_s": 1,
        **options,
    }
    spec = ExecutorSpec("parsl", told, place / "jobs" / "executor-hpc", slots=20, staging=staging)
    shop.settings = replace(shop.settings, executors={NAME: spec}, roles={"heavy": NAME})
    with closing(shop.database), pytest.MonkeyPatch.context() as patch:
        for name, value in slurm.environment.items():
            patch.setenv(name, value)
        schema.create(shop.database, Service.PROCESSING)
        shop.start()
        try:
            yield shop
        finally:
            shop.stop()
            for pid in _below(place, ""):
                with suppress(ProcessLookupError):  # they end by themselves meanwhile
                    os.kill(pid, signal.SIGTERM)
            slurm.call("scancel", "--user", "root" if os.geteuid() == 0 else str(os.geteuid()))
            slurm.empty()


@pytest.fixture(scope="module")
def cluster(slurm_server: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with _cluster(slurm_server, tmp_path_factory.mktemp("cluster")) as shop:
        yield shop


def _below(place: Path, words: str) -> list[int]:
    """Return the processes of an executor, which all have its directory for their own, with words in their command."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{name}/cwd").startswith(str(place / "jobs" / "executor-")):
                line = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if words in line:
                    found.append(int(name))
        except OSError:
            continue
    return found


def _heavy(command: str, **more: Any) -> dict[str, Any]:
    return {"command": command, "executor": "heavy", **more}


def test_a_stage_of_a_role_runs_on_the_cluster_and_the_others_here(cluster: Shop) -> None:
    stages = {
        "1-here": {"command": "echo file=/a/b", "outputVariableRegexList": ["file=(?P<found>.*)"]},
        "2-there": _heavy(
            "echo got $found; test $found = /a/b && test $OMP_NUM_THREADS = 3",
            outputVariableRegexList=["got (?P<again>.*)"],
            resources={"cpus": 3},
        ),
        "3-here": "test $again = /a/b",
    }
    ended = cluster.run(stages)
    assert ended.status is JobStatus.DONE, ended.message
    claims = [read_claim(attempt_directory(cluster.rules.work, ended.uid, number)) for number in (1, 2, 3)]
    places = [claim["place"] for claim in claims if claim is not None]
    assert [place and (place["executor"], place["scheduler"]) for place in places] == [None, (NAME, "slurm"), None]


def test_a_command_that_fails_there_fails_as_it_would_here(cluster: Shop) -> None:
    ended = cluster.run({"1": _heavy("echo no such sample >&2; exit 3")})
    assert ended.status is JobStatus.FAILED
    assert (ended.child_processes[0].exit_status, ended.child_processes[0].cause) == (3, Cause.EXIT)
    assert "no such sample" in ended.message


def test_a_job_is_stopped_there_with_all_that_it_started(cluster: Shop, tmp_path: Path) -> None:
    mark = tmp_path / "began"
    uids = cluster.submit({"1": _heavy(f"touch {mark}; sleep 301.5 & sleep 301.5")})
    cluster.until(mark.exists, "the command's begin")
    cluster.halt(uids)
    ended = cluster.ended(uids)[0]
    assert ended.status is JobStatus.ABORTED
    assert ended.child_processes[0].state is AttemptState.ABORTED
    assert not _sleeping("301.5")


def _sleeping(seconds: str) -> list[str]:
    lines = [Path(f"/proc/{name}/cmdline") for name in filter(str.isdigit, os.listdir("/proc"))]
    return [str(line) for line in lines if line.exists() and line.read_bytes() == f"sleep\0{seconds}\0".encode()]


def _submit_two(shop: Shop, place: Path, seconds: float) -> tuple[list[Any], list[Path]]:
    """Submit a job that may be run again and one that may not, and wait until both run."""
    marks = [place / name for name in ("again", "once")]
    commands = [f"echo began >> {mark}; sleep {seconds}; echo ended >> {mark}" for mark in marks]
    uids = shop.submit({"1": _heavy(commands[0], idempotent=True)}) + shop.submit({"1": _heavy(commands[1])})
    shop.until(lambda: all(mark.exists() for mark in marks), "the commands' begin", PATIENCE_S)
    return uids, marks


def _check_two(ended: Sequence[JobRecord], marks: Sequence[Path]) -> None:
    """Nothing ran twice that may not; what is said to be done is; what is not known is said to be unknown."""
    again, once = ended
    said = [mark.read_text().split() for mark in marks]
    assert again.status is JobStatus.DONE, again.message
    assert said[0].count("began") == len([c for c in again.child_processes if c.state is not AttemptState.ABORTED])
    assert "ended" in said[0]
    assert said[1].count("began") == 1
    if once.status is JobStatus.DONE:
        assert "ended" in said[1]
    else:
        assert (once.status, once.cause) == (JobStatus.FAILED, Cause.UNKNOWN), once.message


def test_a_service_that_is_started_anew_finds_what_runs_there(cluster: Shop, tmp_path: Path) -> None:
    uids, marks = _submit_two(cluster, tmp_path, 2)
    cluster.stop()
    cluster.start()
    ended = cluster.ended(uids, PATIENCE_S)
    assert [job.status for job in ended] == [JobStatus.DONE] * 2
    assert [mark.read_text() for mark in marks] == ["began\nended\n"] * 2


VICTIMS = {
    "manager": "process_worker_pool.py",
    "interchange": "interchange",
    "host": "engine.jobs.host",
    "hand": "engine.jobs.nodehand",
    "worker": "engine.jobs.nodehand",
}


@pytest.mark.long
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_part_of_the_way_that_is_killed_loses_no_job(victim: str, slurm_server: Slurm, tmp_path: Path) -> None:
    with _cluster(slurm_server, tmp_path) as shop:
        uids, marks = _submit_two(shop, tmp_path, 5)
        pids = _below(tmp_path, VICTIMS[victim])
        if victim == "worker":
            pids = [int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in pids]
        assert pids
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        _check_two(shop.ended(uids, PATIENCE_S), marks)
        assert shop.ended(shop.submit({"1": _heavy("true")}), PATIENCE_S)[0].status is JobStatus.DONE


@pytest.mark.long
def test_a_block_that_its_scheduler_kills_loses_no_job(slurm_server: Slurm, tmp_path: Path) -> None:
    """As where its node ends: everything of it at once, and nobody tells."""
    with _cluster(slurm_server, tmp_path) as shop:
        uids, marks = _submit_two(shop, tmp_path, 5)
        (block,) = slurm_server.call("squeue", "--noheader", "--format=%i").split()
        slurm_server.call("scancel", "--signal=KILL", "--full", block)
        _check_two(shop.ended(uids, PATIENCE_S), marks)


@pytest.mark.long
def test_blocks_are_given_back_and_asked_for_again(slurm_server: Slurm, tmp_path: Path) -> None:
    with _cluster(slurm_server, tmp_path, idle_s=1.0, max_blocks=2, workers_per_node=1) as shop:
        marks = [tmp_path / name for name in "ab"]
        together = [f"touch {mark}; until test -e {other}; do sleep 0.1; done" for mark, other in (marks, marks[::-1])]
        uids = [uid for command in together for uid in shop.submit({"1": _heavy(command)})]
        assert [job.status for job in shop.ended(uids, PATIENCE_S)] == [JobStatus.DONE] * 2  # so there were two blocks
        slurm_server.empty()
        assert shop.ended(shop.submit({"1": _heavy("true")}), PATIENCE_S)[0].status is JobStatus.DONE


@pytest.mark.long
def test_a_block_whose_time_is_over_leaves_its_commands_unknown(slurm_server: Slurm, tmp_path: Path) -> None:
    with _cluster(slurm_server, tmp_path, walltime="00:01:00") as shop:
        uids, marks = _submit_two(shop, tmp_path, 1000)
        first = marks[0].read_text()
        shop.until(lambda: len(marks[0].read_text().split()) > 1, "the second try of the one", 180)
        (once,) = shop.ended(uids[1:], PATIENCE_S)
        assert (once.status, once.cause) == (JobStatus.FAILED, Cause.UNKNOWN)
        assert (first, marks[1].read_text()) == ("began\n", "began\n")
        shop.halt(uids[:1])
        shop.ended(uids[:1])


@pytest.mark.long
def test_a_node_that_is_drained_makes_jobs_wait(slurm_server: Slurm, tmp_path: Path) -> None:
    node = f"nodename={slurm_server.node}"
    with _cluster(slurm_server, tmp_path) as shop:
        slurm_server.call("scontrol", "update", node, "state=drain", "reason=test")
        try:
            uids = shop.submit({"1": _heavy("true")})
            shop.until(lambda: slurm_server.call("squeue", "--noheader"), "a block that waits")
            time.sleep(2)
            assert shop.jobs(uids)[0].status is JobStatus.RUNNING
        finally:
            slurm_server.call("scontrol", "update", node, "state=resume")
        assert shop.ended(uids, PATIENCE_S)[0].status is JobStatus.DONE


@pytest.mark.long
def test_a_scheduler_that_is_down_for_a_minute_makes_jobs_wait(slurm_server: Slurm, tmp_path: Path) -> None:
    with _cluster(slurm_server, tmp_path) as shop:
        uids, marks = _submit_two(shop, tmp_path, 20)
        slurm_server.stop("controller")
        more = shop.submit({"1": _heavy("true")})
        time.sleep(60)
        slurm_server.start("controller")
        _check_two(shop.ended(uids, PATIENCE_S), marks)
        assert shop.ended(more, PATIENCE_S)[0].status is JobStatus.DONE


@pytest.mark.long
def test_nodes_that_see_another_directory_get_their_data_by_ssh(
    slurm_server: Slurm, ssh_server: Sshd, tmp_path: Path
) -> None:
    """Our storage is gone while the command runs, and its nodes have what they were sent under another path."""
    served, scratch, source = (tmp_path / name for name in ("served", "scratch", "in"))
    served.mkdir()
    source.mkdir()
    scratch.symlink_to(served)
    (source / "a b.dat").write_text("one\n")
    keys = {"key_file": str(ssh_server.key), "known_hosts": str(ssh_server.known_hosts)}
    staging = Staging(ssh_server.url(served), str(scratch), "rsync", {"rsync": keys})
    with _cluster(slurm_server, tmp_path, staging) as shop:
        command = f'touch {scratch}/begun; until test -e {scratch}/go; do sleep 0.1; done; cat "$filePath" > sum.txt'
        (uid,) = shop.submit({"1": _heavy(command, outputs=["sum.txt"])}, [source / "a b.dat"])
        shop.until((served / "begun").exists, "the command's begin", PATIENCE_S)
        source.rename(tmp_path / "away")
        (served / "go").touch()
        ended = shop.ended([uid], PATIENCE_S)[0]
        assert ended.status is JobStatus.DONE, (ended.message, shop.faults)
        claim = read_claim(attempt_directory(shop.rules.work, uid, 1))
        assert claim is not None
        assert claim["place"]["scheduler"] == "slurm"
        assert (tmp_path / "jobs" / str(uid) / FILES / "sum.txt").read_text() == "one\n"
        assert {path.name for path in served.iterdir()} == {"begun", "go"}


def _settings(place: Path, **executor: Any) -> Settings:
    table = {"data_dir": place, "station": {"agent": "here"}, "executors": {NAME: executor}}
    return Settings.model_validate(table)


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ({"provider": "slurmm"}, "provider"),
        ({"provider": "slurm", "partition": "x"}, "partition"),
        ({"plugin": "nowhere"}, "nowhere"),
        ({"provider": "slurm", "slots": 0}, "slots"),
        ({"provider": "pbs", "nodes_per_block": 2}, "max_blocks"),
        ({"provider": "kubernetes"}, "image"),
    ],
)
def test_an_executor_that_cannot_be_is_refused_by_the_name_of_its_setting(
    tmp_path: Path, table: dict[str, Any], word: str
) -> None:
    with pytest.raises(Exception, match=word):
        executor_specs(_settings(tmp_path, **table))


@pytest.mark.parametrize("provider", ["slurm", "grid-engine", "pbs", "torque", "lsf", "condor", "local"])
def test_parsl_takes_what_a_table_says_for_each_of_its_providers(provider: str) -> None:
    options = {"scheduler_options": "# of ours"} if provider != "local" else {}
    table = {"provider": provider, "options": options, "max_blocks": 3, "worker_init": "module load beamkeeper"}
    made = provider_of(ParslOptions.model_validate(table))
    assert (made.max_blocks, made.init_blocks, made.worker_init.strip()) == (3, 0, "module load beamkeeper")
    with pytest.raises(SettingsError, match="partitoin"):
        provider_of(ParslOptions.model_validate({**table, "options": {"partitoin": "x"}}))


def test_a_role_goes_to_an_executor_that_there_is(tmp_path: Path) -> None:
    settings = _settings(tmp_path, provider="slurm")
    wrong = settings.model_copy(update={"processing": settings.processing.model_copy(update={"roles": ("a=b",)})})
    with pytest.raises(SettingsError, match='"b"'):
        executor_specs(wrong)
