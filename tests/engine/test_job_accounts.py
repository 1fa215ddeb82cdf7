"""Commands of jobs under another account: real accounts, a real sudo, and no secret where others look."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import pwd
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from beamkeeper.core import job_accounts
from beamkeeper.db import schema
from beamkeeper.db.base import new_uid
from beamkeeper.domain.processing import Cause, JobRecord, JobStatus
from beamkeeper.domain.status import Service
from beamkeeper.domain.workflows import Command, StageDefinition
from beamkeeper.engine.jobs import orders, runner, tree
from beamkeeper.engine.jobs.stages import Launch
from beamkeeper.testing.jobs import Shop, alive, rules
from beamkeeper.testing.station import until

SERVICE, ACCOUNT, OTHER = "daemon", "games", "nobody"
"""The account of the service, the one that workflows name, and one without a rule; every Linux has them."""

SUDO = ("/usr/bin/sudo", "-n", "-u", "{account}", "--")
LONG = "sleep 5151"
SECRET = "k3y 'of\" the $(beamline)\nin two lines"
_NEW_MOUNTS, _PRIVATE, _BIND = 0x20000, 1 << 18 | 1 << 14, 1 << 12

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be other accounts")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory that every account can reach, which those of pytest are not."""
    made = Path("/tmp") / f"beamkeeper-door-{os.getpid()}-{time.monotonic_ns()}"  # noqa: S108 - not ours alone
    made.mkdir(mode=0o711)
    os.chown(made, pwd.getpwnam(SERVICE).pw_uid, -1)
    yield made
    shutil.rmtree(made)


@pytest.fixture(params=["use_pty", "!use_pty"])
def sudoers(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Rules that let the service's account be the other one, and nobody else."""
    if shutil.which("sudo") is None:
        pytest.skip("there is no sudo here: install it")
    made = tmp_path / "sudoers"
    made.write_text(f"Defaults env_reset, {request.param}\n{SERVICE} ALL=({ACCOUNT}) NOPASSWD: ALL\n")
    made.chmod(0o440)
    return made


begun: list[int] = []


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Leave no process where a test failed: the next one would fail of it, and who reads our output wait for it."""
    yield
    while begun:
        with suppress(ChildProcessError):  # it was waited for
            if os.waitpid(pid := begun.pop(), os.WNOHANG) == (0, 0):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    for pid in alive(LONG):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def as_service(sudoers: Path, act: Callable[[], None]) -> int:
    """Do something in a process of the service's account, to which these are the machine's rules; return its pid."""
    pid = os.fork()
    if pid:
        begun.append(pid)
        return pid
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.unshare(_NEW_MOUNTS) == 0
        assert libc.mount(b"none", b"/", None, _PRIVATE, None) == 0
        assert libc.mount(os.fsencode(sudoers), b"/etc/sudoers", None, _BIND, None) == 0
        entry = pwd.getpwnam(SERVICE)
        os.initgroups(SERVICE, entry.pw_gid)
        os.setresgid(*[entry.pw_gid] * 3)
        os.setresuid(*[entry.pw_uid] * 3)
        act()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)


def order_of(place: Path, command: str) -> dict[str, Any]:
    """Return what a runner of the service is told of a command under the other account."""
    how = replace(rules(place), run_as=SUDO, accounts=(ACCOUNT,), secrets={"KEY": SECRET})
    job, attempt = new_uid(), new_uid()
    own = Command(text=command, environment={"given": "a b"}, working_dir="", outputs=(), shown=command)
    directory = orders.make_directories(how, job, 1, ACCOUNT)
    launch = Launch("1", own, 1, 1, StageDefinition(command=command))
    return orders.order(
        how, launch, job=job, attempt=attempt, directory=directory, account=ACCOUNT, groups={}, executor="local"
    )


class Behind:
    """A command that runs through the door, under its runner."""

    def __init__(self, sudoers: Path, place: Path, command: str) -> None:
        def act() -> None:
            order = order_of(place, command)
            (place / "order").write_text(json.dumps(order))
            runner.run(order)

        self.pid = as_service(sudoers, act)
        until((place / "order").exists, "the runner's start")
        self.order = json.loads((place / "order").read_text())
        self.files = Path(self.order["cwd"])
        until((self.files / "ready").exists, "the command's start")

    def ended(self) -> dict[str, Any]:
        """Return its result."""
        assert os.waitpid(self.pid, 0)[1] == 0
        found: dict[str, Any] = json.loads((Path(self.order["directory"]) / runner.RESULT).read_bytes())
        return found


def test_a_command_has_its_environment_behind_the_door_and_nobody_sees_it(sudoers: Path, place: Path) -> None:
    command = (
        'id -un; printf %s "$KEY" | md5sum; echo "$given $HOME"; touch ready; until [ -e go ]; do sleep 0.02; done'
    )
    behind = Behind(sudoers, place, command)
    assert len(alive(behind.order["attempt"])) >= 1  # the door, with the mark of the attempt
    assert alive("k3y") == []
    (behind.files / "go").touch()
    assert behind.ended()["exit_status"] == 0
    digest = hashlib.md5(SECRET.encode(), usedforsecurity=False).hexdigest()
    said = (Path(behind.order["directory"]) / "stdout").read_text()
    assert said == f"{ACCOUNT}\n{digest}  -\na b {pwd.getpwnam(ACCOUNT).pw_dir}\n"


HIDDEN = f"trap '' TERM; setsid sh -c 'trap \"\" TERM; {LONG}' & touch ready; {LONG}"


def test_a_stopped_command_ends_behind_the_door_with_all_that_it_started(sudoers: Path, place: Path) -> None:
    behind = Behind(sudoers, place, HIDDEN)
    (Path(behind.order["directory"]) / runner.STOP).touch()
    os.kill(behind.pid, signal.SIGTERM)
    assert behind.ended()["why"] == "stopped"
    assert alive(LONG) == []


def test_what_a_killed_runner_left_behind_the_door_is_found_and_ended(sudoers: Path, place: Path) -> None:
    behind = Behind(sudoers, place, HIDDEN)
    os.kill(behind.pid, signal.SIGKILL)
    os.waitpid(behind.pid, 0)
    assert alive(LONG)

    def end() -> None:
        assert tree.end_left({}, behind.order["attempt"], behind.order["door"])

    assert os.waitpid(as_service(sudoers, end), 0)[1] == 0
    until(lambda: not alive(LONG), "their end")


@pytest.mark.parametrize(("account", "why"), [(OTHER, "password"), ("nobody-of-this-name", "no such account")])
def test_an_account_that_is_not_set_up_is_refused(sudoers: Path, place: Path, account: str, why: str) -> None:
    def ask() -> None:
        assert job_accounts.refusal(SUDO, ACCOUNT) == ""
        (place / "said").write_text(job_accounts.refusal(SUDO, account))

    assert os.waitpid(as_service(sudoers, ask), 0)[1] == 0
    assert why in (place / "said").read_text()


def as_root(place: Path, account: str, *accounts: str) -> JobRecord:
    """Run a job under an account by a service that is root."""
    shop = Shop(f"sqlite:///{place / 'processing.db'}", place / "work")
    shop.rules = replace(shop.rules, accounts=accounts, secrets={"KEY": SECRET})
    (place / "work").mkdir(mode=0o711)
    with closing(shop.database):
        schema.create(shop.database, Service.PROCESSING)
        shop.start()
        try:
            return shop.run({"1": 'id -un > mine; [ -n "$KEY" ]'}, definition={"userAccount": account})
        finally:
            shop.stop()


def test_a_service_that_is_root_runs_commands_as_the_account(place: Path) -> None:
    job = as_root(place, ACCOUNT, ACCOUNT)
    assert (job.status, job.message) == (JobStatus.DONE, "")
    made = Path(job.child_processes[0].working_dir) / "mine"
    assert (made.read_text(), made.owner()) == (f"{ACCOUNT}\n", ACCOUNT)


@pytest.mark.parametrize("account", [ACCOUNT, "nobody-of-this-name"])
def test_a_job_of_an_account_that_cannot_be_used_fails_before_it_begins(place: Path, account: str) -> None:
    job = as_root(place, account, *([] if account == ACCOUNT else [account]))
    assert (job.status, job.cause, job.child_processes) == (JobStatus.FAILED, Cause.ACCOUNT, ())
    assert account in job.message
