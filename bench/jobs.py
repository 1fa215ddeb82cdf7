"""Jobs a second, against a shell's loop, Prefect and Parsl; and stopping 10,000 at once: `make bench-jobs`.

One line a row, with tabs between: bench, name, figure, what is asked, ok or short.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import JsonValue
from report import Row, machine, status, table, write_part

from beamkeeper.client import Client
from beamkeeper.domain.acquisition import NewDaq
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.processing import Job, NewJob
from beamkeeper.domain.status import Service
from beamkeeper.domain.workflows import checked_definition
from beamkeeper.domain.workflows.plans import JobPlan
from beamkeeper.testing.station import experiment, station, until

JOBS, STAGES = 300, 3
QUEUED, RUNNING = 10_000, 200
FRAMES, FRAME_S = 200, 0.05
"""Frames of a detector whose jobs' first commands are waited for, and the time between two."""
TEXT = """\
## Jobs

What `make bench-jobs` measured here, in one run. Ours are submitted at once and durable in each step; the loop is
`sh -c /bin/true` one after another; Prefect runs flows of as many shell tasks, fewer of them, and Parsl as many bash
apps, which it keeps nowhere. Where the time goes: see [what a job costs](../explanations/what-a-job-costs.md).
"""

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
        time.sleep(1)  # who looks all the time is part of what is measured
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


def rows(directory: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Measure everything, peers beside us."""
    with station(directory) as made:
        client = made.start()
        add_workflows(client)
        yield from speed_rows(client, directory, options)
        yield from latency_rows(client, directory)
        made.kill(signal.SIGTERM)
        client = made.start({"BEAMKEEPER_PROCESSING__SLOTS": str(RUNNING)})
        seconds, grown = stop_s(client, made.pid)
        name = f"{QUEUED:,} queued and {RUNNING} running jobs stopped"
        yield Row(f"{name}: all have ended", seconds, "s", 10)
        yield Row(f"{name}: growth of memory meanwhile", grown, "MB", 50)


def speed_rows(client: Client, directory: Path, options: argparse.Namespace) -> Iterator[Row]:
    """Run many short jobs, and what others make of the same work."""
    all_done_s(client)
    base, ours = loop_s(), all_done_s(client)
    rate = JOBS * STAGES / ours
    name = f"{JOBS} jobs of {STAGES} stages"
    note = f"ours {ours:.2f} s, the loop {base:.2f} s"
    yield Row(f"{name} / a loop of {JOBS * STAGES} commands", ours / base, "x", 4, note=note)
    yield Row(f"{name}: stages", rate, "/s")
    if options.no_peers:
        return
    runs = options.prefect_runs
    prefect = peer_s(directory, "prefect", PREFECT.format(count=runs))
    if prefect is not None:
        its = runs * STAGES / prefect
        yield Row(f"{name}: speed / Prefect", rate / its, "x", least=20, note=f"its {runs} runs: {its:.1f} stages/s")
    parsl = peer_s(directory, "parsl", PARSL.format(count=JOBS * STAGES, workers=os.cpu_count() or 2))
    if parsl is not None:
        its = JOBS * STAGES / parsl
        yield Row(f"{name}: speed / Parsl", rate / its, "x", least=0.5, note=f"its {its:.0f} stages/s")


def latency_rows(client: Client, directory: Path) -> Iterator[Row]:
    """Watch a detector whose every frame has a job."""
    waited = first_command_s(client, directory)
    note = f"{len(waited)} of {FRAMES} frames, one each {FRAME_S:g} s"
    median = 1000 * waited[len(waited) // 2]
    p99 = 1000 * waited[int(len(waited) * 0.99) - 1] if len(waited) == FRAMES else float("inf")
    yield Row("file available to first command, median", median, "ms", note=note)
    yield Row("file available to first command, p99", p99, "ms", 500, note=note)


def main(words: list[str]) -> int:
    """Measure, print a line for each row, and write where that is asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-peers", action="store_true", help="leave Prefect and Parsl out")
    parser.add_argument("--prefect-runs", type=int, default=30, help="flow runs of Prefect; scaled up")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the results into this page")
    options = parser.parse_args(words)
    facts, found = machine("bench-jobs"), []
    with tempfile.TemporaryDirectory(prefix="bench-jobs-") as name:
        for row in rows(Path(name), options):
            found.append(row)
            print(row.line(), flush=True)
    if options.write:
        write_part(options.write, "jobs", [TEXT, *table(found, facts)])
    return status(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
