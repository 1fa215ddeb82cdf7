"""Stages on nodes that do not see our storage: their data are carried there and back, whole, whatever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from beamkeeper.config import Settings, failpoints
from beamkeeper.config.failpoints import JobPoint
from beamkeeper.db import schema
from beamkeeper.domain.errors import SettingsError
from beamkeeper.domain.processing import Cause, JobStatus
from beamkeeper.domain.status import Service
from beamkeeper.engine.jobs.carrying import MARKS
from beamkeeper.engine.jobs.far import BACK, LEFT
from beamkeeper.engine.jobs.leavings import LeavingsLoop
from beamkeeper.serve.processing import executor_specs
from beamkeeper.testing import beside
from beamkeeper.testing.jobs import PATIENCE_S, Shop
from beamkeeper.testing.remotes import RsyncDaemon

NAME = "far"
SERVE = """
import json, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from faults.test_staging import shop_of
made = shop_of(Path(sys.argv[2]), json.loads(sys.argv[3]))
made.start()
print("up", flush=True)
time.sleep(600)
"""


def shop_of(place: Path, table: dict[str, Any]) -> Shop:
    """Return a shop whose stages of the role `heavy` run where its storage is not seen."""
    made = Shop(f"sqlite:///{place / 'jobs.db'}", place / "jobs")
    settings = Settings.model_validate(
        {
            "data_dir": place,
            "station": {"agent": "here"},
            "processing": {"work": place / "jobs"},
            "transfer": {"rsync": {"password_file": table["password_file"]}},
            "executors": {NAME: {"plugin": beside.NAME, "staging": table["url"], "staging_root": table["root"]}},
        }
    )
    specs, _ = executor_specs(settings)
    made.settings = type(made.settings)("TEST", 8, {}, specs, {"heavy": NAME})
    return made


class Far:
    """A shop, and a directory that nodes have, which it reaches by a daemon of rsync alone."""

    def __init__(self, place: Path, server: RsyncDaemon) -> None:
        self.place, self.root = place, server.root / place.name
        self.root.mkdir()
        (place / "in").mkdir()
        self.table = {
            "url": server.url(self.root),
            "root": str(self.root),
            "password_file": str(server.password_file),
        }
        self.shop = shop_of(place, self.table)

    def serve(self, points: str) -> subprocess.Popen[str]:
        """Start the loops in a process of their own, with fail points."""
        words = [str(Path(__file__).parent.parent), str(self.place), json.dumps(self.table)]
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, *words],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, failpoints.VARIABLE: points},
        )
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == "up\n"
        return process

    def file(self, name: str, text: str) -> Path:
        path = self.place / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def made(self, uid: UUID) -> dict[str, str]:
        """Return what the job has in its working directory."""
        top = self.place / "jobs" / str(uid) / "files"
        return {str(path.relative_to(top)): path.read_text() for path in top.rglob("*") if path.is_file()}

    def clean(self) -> list[Path]:
        """Have removed what jobs left there that have ended, and return what is there still."""
        spec = self.shop.settings.executors[NAME]
        assert spec.staging is not None
        LeavingsLoop(
            self.shop.database, {spec.directory: spec.staging}, report=self.shop.faults.append, settled_s=0
        ).step()
        assert not list((spec.directory / MARKS).iterdir())
        return list(self.root.iterdir())


@pytest.fixture
def far(tmp_path: Path, rsync_server: RsyncDaemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[Far]:
    path = os.pathsep.join(filter(None, [str(beside.install(tmp_path)), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.syspath_prepend(str(tmp_path / "beside"))
    made = Far(tmp_path, rsync_server)
    with closing(made.shop.database):
        schema.create(made.shop.database, Service.PROCESSING)
        yield made
        made.shop.stop()


def _heavy(command: str, **more: Any) -> dict[str, Any]:
    return {"command": command, "executor": "heavy", **more}


def test_a_workflow_is_the_same_where_nodes_see_nothing_of_ours(far: Far) -> None:
    """Inputs with odd names, files of earlier stages, variables with paths, outputs, and sub-directories."""
    files = [far.file("a $b'.dat", "one\n"), far.file("n/ü.dat", "two\n")]
    far.file("n/more.txt", "more\n")
    stages = {
        "1-here": "mkdir -p made; echo dark > made/dark.txt; echo same > same.txt; echo dir=$PWD/made",
        "2-there": _heavy(
            'case "$filePath" in $AWAY/*) ;; *) exit 9;; esac; name=$(basename "$filePath"); '
            'mkdir -p "sums/$name" && cat "$dir/dark.txt" "$filePath" > "sums/$name/sum.txt"; rm -f same.txt; '
            'echo "sum=$PWD/sums/$name/sum.txt"; touch "$TMPDIR/scratch"',
            outputs=["sums"],
            parallelExec=True,
            environment={"AWAY": str(far.root)},
            outputVariableRegexList=["sum=(?P<sum>.*)"],
        ),
        "3-there": _heavy('cat "$dataDir/n/more.txt" > more.txt; ls "$dataDir"', dataDir=str(far.place / "in")),
        "4-here": f'test "$sum" = "{far.place}/jobs/$id/files/sums/ü.dat/sum.txt" && cat "$sum" more.txt',
    }
    stages["1-here"] = {"command": stages["1-here"], "outputVariableRegexList": ["dir=(?P<dir>.*)"]}
    far.shop.start()
    ended = far.shop.run(stages, files)
    assert ended.status is JobStatus.DONE, (ended.message, far.shop.faults)
    assert far.made(ended.uid) == {
        "made/dark.txt": "dark\n",
        "same.txt": "same\n",
        "sums/a $b'.dat/sum.txt": "dark\none\n",
        "sums/ü.dat/sum.txt": "dark\ntwo\n",
        "more.txt": "more\n",
    }
    assert far.clean() == []


def test_what_a_command_there_does_not_make_or_cannot_be_sent_fails_its_stage(far: Far) -> None:
    file = far.file("a.dat", "one\n")
    far.shop.start()
    missing = far.shop.run({"1": _heavy("true", outputs=["never.txt"])})
    assert (missing.status, missing.cause) == (JobStatus.FAILED, Cause.OUTPUTS)
    failed = far.shop.run({"1": _heavy('cat "$filePath" >&2; exit 3')}, [file])
    assert (failed.status, failed.cause, "one" in failed.message) == (JobStatus.FAILED, Cause.EXIT, True)
    gone = far.shop.run({"1": _heavy('cat "$filePath"')}, [far.place / "in" / "gone.dat"])
    assert (gone.status, gone.cause) == (JobStatus.FAILED, Cause.INPUT)
    assert "gone.dat" in gone.message
    assert far.clean() == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root runs commands under another account without a door")
def test_a_command_under_another_account_is_not_sent_there(far: Far) -> None:
    far.shop.rules = replace(far.shop.rules, accounts=("nobody",))
    far.shop.start()
    refused = far.shop.run({"1": _heavy("echo made > made.txt")}, definition={"userAccount": "nobody"})
    assert (refused.status, refused.cause) == (JobStatus.FAILED, Cause.ACCOUNT)
    assert "own account" in refused.message
    assert not list(far.root.iterdir())


@pytest.mark.long
def test_a_place_that_is_away_makes_jobs_wait(far: Far) -> None:
    aside = far.root.with_name(far.root.name + ".aside")
    far.root.rename(aside)
    far.shop.start()
    uids = far.shop.submit({"1": _heavy('cat "$filePath"')}, [far.file("a.dat", "one\n")])
    far.shop.until(lambda: far.shop.faults, "a word of it")
    assert not far.shop.jobs(uids)[0].has_ended
    aside.rename(far.root)
    assert far.shop.ended(uids)[0].status is JobStatus.DONE


IN_SERVICE = (
    JobPoint.INPUTS_SENDING,
    JobPoint.INPUTS_SENT,
    JobPoint.OUTPUTS_FETCHED,
    JobPoint.OUTPUTS_NAMED,
    JobPoint.OUTPUTS_BROUGHT,
)


@pytest.mark.long
@pytest.mark.parametrize("point", IN_SERVICE)
def test_a_service_that_is_killed_while_it_carries_takes_nothing_half(far: Far, point: JobPoint) -> None:
    """The next one goes on: the command has run once, and all that it made is here."""
    mark = far.place / "begun"
    command = f'echo begun >> {mark}; for n in 1 2 3; do cat "$filePath" > "$n.txt"; done'
    (uid,) = far.shop.submit({"1": _heavy(command, outputs=["3.txt"])}, [far.file("a.dat", "one\n" * 100_000)])
    first = far.serve(f"{point}:kill")
    assert first.wait(60) == -9
    assert not far.shop.jobs([uid])[0].has_ended
    far.shop.start()
    ended = far.shop.ended([uid])[0]
    assert ended.status is JobStatus.DONE, ended.message
    assert mark.read_text() == "begun\n"
    assert far.made(uid) == {f"{n}.txt": "one\n" * 100_000 for n in (1, 2, 3)}
    assert far.clean() == []


@pytest.mark.long
def test_a_node_that_dies_before_it_tells_what_was_made_is_asked_again(far: Far) -> None:
    mark = far.place / "begun"
    process = far.serve(f"{JobPoint.OUTPUTS_GATHERING}:kill")
    (uid,) = far.shop.submit({"1": _heavy(f"echo begun >> {mark}; echo made > made.txt")})
    far.shop.until(lambda: list((far.place / "jobs").glob(f"{uid}/*/result.json")), "the command's end")
    process.kill()
    process.wait()
    far.shop.start()  # its nodes have no such point
    ended = far.shop.ended([uid])[0]
    assert (ended.status, mark.read_text()) == (JobStatus.DONE, "begun\n"), ended.message
    assert far.made(uid) == {"made.txt": "made\n"}


def _go_on(process: subprocess.Popen[str], change: Callable[[], object]) -> None:
    """Change something while a process stands still at a fail point, and let it go on."""
    deadline = time.monotonic() + PATIENCE_S
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline, "it does not come to its fail point"
        time.sleep(0.02)
    change()
    process.send_signal(signal.SIGCONT)


@pytest.mark.long
def test_a_byte_that_changes_there_before_the_command_begins_is_sent_again(far: Far) -> None:
    """With the times of the file as they were, so that nobody but who reads it can notice."""
    (uid,) = far.shop.submit({"1": _heavy('cat "$filePath" > copy.txt')}, [far.file("a.dat", "one\n" * 1000)])
    process = far.serve(f"{JobPoint.INPUTS_SENT}:stop")

    def damage() -> None:
        (sent,) = [path for path in far.root.rglob("*") if path.is_file()]
        times = sent.stat()
        sent.write_text("One\n" + "one\n" * 999)
        os.utime(sent, ns=(times.st_atime_ns, times.st_mtime_ns))

    _go_on(process, damage)
    ended = far.shop.ended([uid])[0]
    process.kill()
    process.wait()
    assert (ended.status, len(ended.child_processes)) == (JobStatus.DONE, 1), ended.message
    assert far.made(uid) == {"copy.txt": "one\n" * 1000}


def _left(far: Far, command: str) -> tuple[UUID, Path]:
    """Run a command there while nobody is here who fetches what it makes; return its job, and what lies there."""
    begun, go = far.place / "begun", far.place / "go"
    far.shop.start()
    (uid,) = far.shop.submit({"1": _heavy(f"touch {begun}; until test -e {go}; do sleep 0.02; done; {command}")})
    far.shop.until(begun.exists, "the command's begin")
    far.shop.stop()
    go.touch()
    far.shop.until((far.place / "jobs" / str(uid) / "1" / LEFT).exists, "the command's end")
    (kept,) = list(far.root.glob(f"*/{BACK}/0"))
    return uid, kept


@pytest.mark.long
def test_a_byte_that_changes_on_the_way_back_is_noticed_and_fetched_again(far: Far) -> None:
    uid, kept = _left(far, "echo one > made.txt")
    kept.write_text("onE\n")
    far.shop.start()
    told = '"made.txt" did not come back whole'
    far.shop.until(lambda: any(told in word for word in far.shop.faults), "a word of it")
    assert not far.made(uid)
    kept.write_text("one\n")
    ended = far.shop.ended([uid])[0]
    assert ended.status is JobStatus.DONE, ended.message
    assert far.made(uid) == {"made.txt": "one\n"}
    assert far.clean() == []


@pytest.mark.long
def test_what_never_comes_back_whole_fails_its_stage_by_its_name(far: Far) -> None:
    uid, kept = _left(far, "echo one > made.txt")
    kept.write_text("onE\n")
    far.shop.start()
    ended = far.shop.ended([uid])[0]
    assert (ended.status, "made.txt" in ended.message) == (JobStatus.FAILED, True), ended.message
    assert not far.made(uid)
    assert far.clean() == []


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ({"staging": "/scratch"}, "address of a directory"),
        ({"staging": "nowhere://host/scratch"}, "nowhere"),
        ({"staging": "gsiftp://host/scratch", "staging_transfer": "gridftp"}, "bring nothing back"),
        ({"staging_root": "/scratch"}, "not set"),
        ({"staging": "file:///scratch", "staging_root": "scratch"}, "address of a directory"),
    ],
)
def test_a_staging_that_cannot_be_is_refused_by_the_name_of_its_setting(
    tmp_path: Path, table: dict[str, str], word: str
) -> None:
    settings = {
        "data_dir": tmp_path,
        "station": {"agent": "here"},
        "executors": {NAME: {"provider": "slurm", **table}},
    }
    with pytest.raises(SettingsError, match=word):
        executor_specs(Settings.model_validate(settings))
