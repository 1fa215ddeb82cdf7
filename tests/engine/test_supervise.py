"""The supervisor, with real processes: what dies comes back, what is stopped ends, and there is only one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamkeeper.domain.errors import UnavailableError
from beamkeeper.engine import supervise
from beamkeeper.engine.processes import SUPERVISOR_VARIABLE, Process, die_with_supervisor
from beamkeeper.engine.supervise import find_running, log_file, next_pause, run_file, start_detached, stop_running

CHILD = """
import os, signal, subprocess, sys, time
from pathlib import Path
from beamkeeper.engine.processes import die_with_supervisor

die_with_supervisor()
what, notes = sys.argv[1], Path(sys.argv[2])
def note(word):
    with notes.open("a") as file:
        file.write(f"{word} {os.getpid()}\\n")
def bye(*_):
    note("bye")
    sys.exit(0)
if what == "deaf":
    signal.signal(signal.SIGTERM, lambda *_: note("told"))
else:
    signal.signal(signal.SIGTERM, bye)
if what == "parent":
    left = subprocess.Popen(["sleep", "600"])
    note(f"left {left.pid}")
print("hello from the child", flush=True)
note("up")
if what == "refuses":
    sys.exit(78)
if what == "crashes":
    sys.exit(3)
while True:
    time.sleep(600)
"""

SUPERVISOR = """
import sys
from pathlib import Path
from beamkeeper.domain.errors import DmError
from beamkeeper.engine.supervise import log_file, supervise
data_dir = Path(sys.argv[1])
try:
    sys.exit(supervise(sys.argv[3:], data_dir, log=log_file(data_dir), grace_s=float(sys.argv[2])))
except DmError as error:
    sys.exit(f"{error.code}: {error}")
"""


class Station:
    """A data directory, the command of its supervisor, and what its processes have noted."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.notes = data_dir / "notes"
        self.started: list[subprocess.Popen[bytes]] = []

    def command(self, what: str, grace_s: float = 15) -> list[str]:
        child = [sys.executable, "-c", CHILD, what, str(self.notes)]
        return [sys.executable, "-c", SUPERVISOR, str(self.data_dir), str(grace_s), *child]

    def start(self, what: str, grace_s: float = 15) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self.command(what, grace_s), stderr=subprocess.PIPE)
        self.started.append(process)
        return process

    def noted(self, word: str) -> list[int]:
        """Return the pids of who wrote a word."""
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        return [int(line.split()[-1]) for line in lines if line.startswith(word)]


def until(condition: Callable[[], object], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    return Process.of(pid) is not None


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    station = Station(tmp_path)
    yield station
    stop_running(tmp_path, 0)
    for process in station.started:
        process.communicate(timeout=20)


def test_a_process_that_dies_is_started_again(station: Station) -> None:
    station.start("stays")
    until(lambda: station.noted("up"))
    os.kill(station.noted("up")[0], signal.SIGKILL)
    until(lambda: len(station.noted("up")) == 2)
    first, second = station.noted("up")
    running = find_running(station.data_dir)
    assert running is not None
    assert running.restarts == 1
    assert running.child is not None
    assert running.child.pid == second != first
    assert f"ended with status -{int(signal.SIGKILL)}" in log_file(station.data_dir).read_text()


def test_a_process_that_keeps_dying_is_started_after_longer_and_longer_pauses(station: Station) -> None:
    supervisor = station.start("crashes")
    until(lambda: len(station.noted("up")) == 3)
    until(lambda: log_file(station.data_dir).read_text().count("again in") == 3)
    log = log_file(station.data_dir).read_text()
    assert [line.rpartition("again in ")[2] for line in log.splitlines() if "again" in line] == [
        "0.2 s",
        "0.4 s",
        "0.8 s",
    ]
    supervisor.terminate()  # in the middle of a pause, which must not be waited for
    assert supervisor.wait(20) == 0
    assert len(station.noted("up")) == 3


@given(st.lists(st.floats(0, supervise.STEADY_S, exclude_max=True), min_size=1, max_size=20))
def test_pauses_grow_to_a_limit_and_begin_anew_after_a_steady_life(lives: list[float]) -> None:
    pauses: list[float] = []
    for lived_s in lives:
        pauses.append(next_pause(pauses[-1] if pauses else None, lived_s))
    assert pauses == sorted(pauses)
    assert pauses[0] == supervise.FIRST_PAUSE_S
    assert pauses[-1] <= supervise.LONGEST_PAUSE_S
    assert next_pause(pauses[-1], supervise.STEADY_S) == supervise.FIRST_PAUSE_S


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_lets_the_process_end_in_good_order(station: Station, number: int) -> None:
    supervisor = station.start("stays")
    until(lambda: station.noted("up"))
    supervisor.send_signal(number)
    assert supervisor.wait(20) == 0
    assert station.noted("bye") == station.noted("up")
    assert not run_file(station.data_dir).exists()
    assert log_file(station.data_dir).read_text() == "hello from the child\n"


def test_a_process_that_does_not_end_when_told_is_killed(station: Station) -> None:
    supervisor = station.start("deaf", grace_s=0.1)
    until(lambda: station.noted("up"))
    supervisor.terminate()
    assert supervisor.wait(20) == 0
    assert station.noted("told")
    assert not is_alive(station.noted("up")[0])


def test_a_second_signal_does_not_wait(station: Station) -> None:
    supervisor = station.start("deaf", grace_s=600)
    until(lambda: station.noted("up"))
    supervisor.terminate()
    until(lambda: station.noted("told"))
    supervisor.terminate()
    assert supervisor.wait(20) == 0
    assert not is_alive(station.noted("up")[0])


def test_a_process_that_refuses_to_run_is_not_tried_again(station: Station) -> None:
    supervisor = station.start("refuses")
    assert supervisor.wait(20) == supervise.REFUSED
    assert len(station.noted("up")) == 1
    assert not run_file(station.data_dir).exists()


def test_what_a_dead_process_left_behind_is_killed(station: Station) -> None:
    station.start("parent")
    until(lambda: station.noted("up"))
    (left,) = (int(line.split()[1]) for line in station.notes.read_text().splitlines() if line.startswith("left"))
    assert is_alive(left)
    os.kill(station.noted("up")[0], signal.SIGKILL)
    until(lambda: not is_alive(left))


def test_a_data_directory_has_one_supervisor(station: Station) -> None:
    first = station.start("stays")
    until(lambda: station.noted("up"))
    second = station.start("stays")
    _, told = second.communicate(timeout=20)
    assert told.decode().startswith(f"conflict: a beamline runs already on {station.data_dir} (process {first.pid})")
    assert len(station.noted("up")) == 1
    assert find_running(station.data_dir) is not None


def test_a_process_ends_with_its_supervisor(station: Station) -> None:
    supervisor = station.start("stays")
    until(lambda: station.noted("up"))
    supervisor.kill()
    until(lambda: station.noted("bye"))
    supervisor.wait(20)
    assert find_running(station.data_dir) is None


def test_a_new_supervisor_first_ends_what_a_killed_one_left(station: Station) -> None:
    killed = station.start("deaf")
    until(lambda: station.noted("up"))
    killed.kill()
    until(lambda: station.noted("told"))
    station.start("stays", grace_s=0.1)
    until(lambda: len(station.noted("up")) == 2)
    assert not is_alive(station.noted("up")[0])
    assert is_alive(station.noted("up")[1])


def test_stopping_ends_also_what_a_killed_supervisor_left(station: Station) -> None:
    killed = station.start("deaf")
    until(lambda: station.noted("up"))
    killed.kill()
    killed.wait(20)
    assert stop_running(station.data_dir, 0.1)
    assert not is_alive(station.noted("up")[0])
    assert not stop_running(station.data_dir, 0.1)


def test_a_detached_supervisor_outlives_who_started_it(station: Station) -> None:
    code = "import sys, pathlib; from beamkeeper.engine.supervise import start_detached as start; "
    code += "start(sys.argv[2:], pathlib.Path(sys.argv[1]))"
    starter = [sys.executable, "-c", code, str(station.data_dir), *station.command("stays")]
    # The output is a pipe: were it handed on to the supervisor, this would wait for the supervisor's end.
    subprocess.run(starter, check=True, capture_output=True, timeout=30)
    running = find_running(station.data_dir)
    assert running is not None
    assert running.started_at
    assert os.getsid(running.process.pid) == running.process.pid
    assert Path(f"/proc/{running.process.pid}/fd/0").readlink() == Path(os.devnull)
    until(lambda: station.noted("up"))
    assert stop_running(station.data_dir)
    assert station.noted("bye") == station.noted("up")
    assert find_running(station.data_dir) is None


def test_starting_twice_is_starting_once(station: Station) -> None:
    first = start_detached(station.command("stays"), station.data_dir)
    second = start_detached(station.command("stays"), station.data_dir)
    assert first.process == second.process
    until(lambda: station.noted("up"))
    stop_running(station.data_dir)
    assert len(station.noted("up")) == 1


def test_a_supervisor_that_cannot_start_is_told_of(station: Station) -> None:
    with pytest.raises(UnavailableError, match="says why"):
        start_detached([sys.executable, "-c", "raise SystemExit('no disk')"], station.data_dir)
    assert log_file(station.data_dir).read_text() == "no disk\n"


def test_a_supervisor_that_hangs_is_killed(station: Station) -> None:
    with pytest.raises(UnavailableError, match="did not start within"):
        start_detached(["sleep", "600"], station.data_dir, timeout_s=0.1)


def test_another_process_with_the_same_pid_is_not_taken_for_the_supervisor(tmp_path: Path) -> None:
    this = Process.this()
    facts = {"pid": this.pid, "start_ticks": this.start_ticks, "host": this.host, "boot_id": this.boot_id}
    facts |= {"argv": ["x"], "started_at": "2026-01-01T00:00:00+00:00", "restarts": 0, "child": None}
    run_file(tmp_path).parent.mkdir()
    run_file(tmp_path).write_text(json.dumps(facts))
    assert find_running(tmp_path) is not None
    for lie in ({"start_ticks": this.start_ticks + 1}, {"boot_id": "another"}):
        run_file(tmp_path).write_text(json.dumps(facts | lie))
        assert find_running(tmp_path) is None
        assert not stop_running(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "start_ticks": 1, "boot_id": "", "host": ""}']
)
def test_a_run_file_that_cannot_be_read_is_no_running_supervisor(tmp_path: Path, text: str) -> None:
    run_file(tmp_path).parent.mkdir()
    run_file(tmp_path).write_text(text)
    assert find_running(tmp_path) is None
    assert not stop_running(tmp_path)


def test_a_large_log_is_moved_aside_at_the_start_and_five_are_kept(station: Station) -> None:
    log = log_file(station.data_dir)
    log.parent.mkdir()
    with log.open("wb") as file:
        file.truncate(supervise.LARGEST_LOG + 1)
    for number in range(1, 6):
        log.with_name(f"{log.name}.{number}").write_text(f"old {number}")
    station.start("stays")
    until(lambda: station.noted("up"))
    assert log.read_text() == "hello from the child\n"
    assert log.with_name(f"{log.name}.1").stat().st_size > supervise.LARGEST_LOG
    assert log.with_name(f"{log.name}.5").read_text() == "old 4"
    assert len(list(log.parent.iterdir())) == 6


def test_a_supervisor_costs_next_to_nothing(station: Station) -> None:
    supervisor = station.start("stays")
    until(lambda: station.noted("up"))
    lines = Path(f"/proc/{supervisor.pid}/smaps_rollup").read_text().splitlines()
    (pss_kb,) = (int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    assert pss_kb < 20_000


def test_a_process_whose_supervisor_is_gone_already_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SUPERVISOR_VARIABLE, str(os.getpid() + 1))  # our own pid is its parent
    code = "from beamkeeper.engine.processes import die_with_supervisor; die_with_supervisor(); print('lives')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "gone" in ended.stderr


def test_without_a_supervisor_nothing_is_asked_for() -> None:
    die_with_supervisor()
