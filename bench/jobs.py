"""Jobs a second, against a shell's loop, Prefect and Parsl; and stopping 10,000 at once: `make bench-jobs`."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pydantic import JsonValue

from beamkeeper.client import Client
from beamkeeper.domain.acquisition import NewDaq
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.processing import Job, NewJob
from beamkeeper.domain.status import Service
from beamkeeper.domain.workflows import checked_definition
from beamkeeper.domain.workflows.plans import JobPlan
from beamkeeper.testing.station import Station, experiment, station, until

JOBS, STAGES = 300, 3
QUEUED, RUNNING = 10_000, 200
FRAMES, FRAME_S = 200, 0.05
"""Frames of a detector whose jobs' first commands are waited for, and the time between two."""

PREFECT = """
import subprocess, time
from prefect import flow, task
@task
def shell():
    subprocess.run(["sh", "-c", "/bin/true"], check=True)
@flow
def three():
    for _ in range(3):
        shell()
three()
begun = time.perf_counter()
for _ in range({count}):
    three()
print("seconds", time.perf_counter() - begun)
"""

PARSL = """
import time, parsl
from parsl.app.app import bash_app
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider
parsl.load(Config(executors=[HighThroughputExecutor(label="here", address="127.0.0.1", max_workers_per_node={workers},
    provider=LocalProvider(init_blocks=1, max_blocks=1))]))
@bash_app
def true():
    return "/bin/true"
true().result()
begun = time.perf_counter()
for future in [true() for _ in range({count})]:
    future.result()
print("seconds", time.perf_counter() - begun, flush=True)
parsl.dfk().cleanup()
"""


def row(name: str, figure: float, asked: str, is_ok: bool) -> None:
    """Print one line of the result."""
    sys.stdout.write(f"bench {name} {figure:.3g} {asked} {'ok' if is_ok else 'short'}\n")
    sys.stdout.flush()


def loop_s() -> float:
    """Return how long a shell takes for as many commands, one after another."""
    begun = time.perf_counter()
    for _ in range(JOBS * STAGES):
        subprocess.run(["sh", "-c", "/bin/true"], check=True)
    return time.perf_counter() - begun


def submit(client: Client, workflow: str, count: int) -> list[str]:
    """Submit jobs, a thousand at a time."""
    uids = []
    for start in range(0, count, 1000):
        new = [NewJob(workflow=workflow)] * min(1000, count - start)
        uids += [str(job.uid) for job in client.jobs.submit_many(new)]
    return uids


def active(client: Client) -> int:
    """Return how many jobs have not ended."""
    return sum(client.status(Service.PROCESSING).queues.values())


def all_done_s(client: Client) -> float:
    """Return how long 300 jobs take from the first word to the last end."""
    begun = time.perf_counter()
    submit(client, "three", JOBS)
    while active(client):
        time.sleep(0.1)
    return time.perf_counter() - begun


def stop_s(client: Client, services: int) -> tuple[float, float]:
    """Return how long it takes until 10,000 queued and 200 running jobs have ended, and the growth of memory in MB."""
    submit(client, "sleep", QUEUED)
    while client.jobs.info().running < RUNNING:
        time.sleep(0.1)
    before = memory_mb(services)
    begun = time.perf_counter()
    client.jobs.stop(everything=True)
    while active(client):
        time.sleep(0.05)
    return time.perf_counter() - begun, memory_mb(services) - before


def first_command_s(client: Client, directory: Path) -> list[float]:
    """Return how long after each file became available the first command of its job began, shortest first."""
    watched = directory / "detector"
    watched.mkdir()
    made = experiment(client)
    plan = JobPlan(workflow="each")
    daq = client.daqs.start(NewDaq(experiment_uid=made.uid, path=str(watched)[1:], workflow=plan))
    for number in range(FRAMES):
        (watched / f"frame_{number:04}.tif").write_bytes(os.urandom(10_000))
        time.sleep(FRAME_S)

    def ended() -> list[Job] | None:
        jobs = list(client.jobs.list(experiment_uid=made.uid))
        return jobs if len(jobs) == FRAMES and all(job.has_ended for job in jobs) else None

    jobs = until(ended, "a job for each frame", 120)
    client.daqs.stop(daq.uid)
    available = {
        file.path: file.catalogued_at for file in client.files.find(FileQuery(experiment_uid=made.uid, limit=1000))
    }
    begun = [client.jobs.record(job.uid) for job in jobs]
    starts = {job.files[0].experiment_path: job.child_processes[0].started_at for job in begun}
    return sorted((at - available[path]).total_seconds() for path, at in starts.items() if at is not None)


def memory_mb(pid: int) -> float:
    """Return the memory of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1000


def peer_s(directory: Path, package: str, code: str) -> float | None:
    """Return how long a peer takes, in an environment of its own; None where it cannot be had."""
    place = directory / package
    python = place / "bin" / "python"
    try:
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True, capture_output=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "-q", package], check=True, capture_output=True, timeout=600
        )
        path = f"{python.parent}:{os.environ['PATH']}"
        environ = {**os.environ, "PATH": path, "PREFECT_HOME": str(place / "home"), "PREFECT_LOGGING_LEVEL": "ERROR"}
        script = place / "measured.py"
        script.write_text(code)
        done = subprocess.run(
            [str(python), str(script)], capture_output=True, check=True, text=True, cwd=place, env=environ, timeout=600
        )
        return float(done.stdout.split("seconds")[1].split()[0])
    except (subprocess.SubprocessError, OSError, IndexError, ValueError) as error:
        said = getattr(error, "stderr", None) or ""
        sys.stderr.write(f"{package}: {error}\n{said if isinstance(said, str) else ''}\n")
        return None


def add_workflows(client: Client) -> None:
    """Add what is run."""
    three: JsonValue = {str(n): {"command": "/bin/true"} for n in range(1, STAGES + 1)}
    sleep: JsonValue = {"1": {"command": "exec sleep 600"}}
    each: JsonValue = {"1": {"command": 'test -s "$filePath"'}}
    for name, stages in (("three", three), ("sleep", sleep), ("each", each)):
        client.workflows.add(checked_definition({"name": name, "stages": stages}))


def main(words: list[str]) -> int:
    """Measure, and print a line for each row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-peers", action="store_true", help="leave Prefect and Parsl out")
    parser.add_argument("--prefect-runs", type=int, default=30, help="flow runs of Prefect; scaled up")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="bench-jobs-") as name:
        directory = Path(name)
        with station(directory) as made:
            measure(made, directory, options)
    return 0


def measure(made: Station, directory: Path, options: argparse.Namespace) -> None:
    """Measure our rows, and those of peers beside them."""
    client = made.start()
    add_workflows(client)
    all_done_s(client)
    base, ours = loop_s(), all_done_s(client)
    rate = JOBS * STAGES / ours
    row("300-jobs-of-3-stages-against-a-loop-times", ours / base, "at most 4", ours <= 4 * base)
    row("stages-a-second", rate, "-", is_ok=True)
    if not options.no_peers:
        runs = options.prefect_runs
        prefect = peer_s(directory, "prefect", PREFECT.format(count=runs))
        if prefect is not None:
            times = rate / (runs * STAGES / prefect)
            row(f"against-prefect-times-(its-{runs}-runs)", times, "at least 20", times >= 20)
        parsl = peer_s(directory, "parsl", PARSL.format(count=JOBS * STAGES, workers=os.cpu_count() or 2))
        if parsl is not None:
            times = rate / (JOBS * STAGES / parsl)
            row("stages-a-second-against-parsl-times", times, "at least 0.5", times >= 0.5)
    waited = first_command_s(client, directory)
    p99 = 1000 * waited[int(len(waited) * 0.99) - 1]
    row("file-available-to-first-command-median-ms", 1000 * waited[len(waited) // 2], "-", is_ok=True)
    row("file-available-to-first-command-p99-ms", p99, "at most 500", len(waited) == FRAMES and p99 <= 500)
    made.kill(signal.SIGTERM)
    client = made.start({"BEAMKEEPER_PROCESSING__SLOTS": str(RUNNING)})
    seconds, grown = stop_s(client, made.pid)
    row("stop-10000-queued-200-running-s", seconds, "at most 10", seconds <= 10)
    row("memory-grown-meanwhile-mb", grown, "at most 50", grown <= 50)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
