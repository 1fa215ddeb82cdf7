"""XPCS on a cluster: what the system adds to the 8-ID pipeline's own time, and what a second worker brings."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from report import Row

from beamkeeper.client import Client
from beamkeeper.domain.acquisition import NewPut
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.names import RelPath
from beamkeeper.domain.processing import Job, JobRecord, JobStatus, NewJob
from beamkeeper.library.entries import adapted, entry
from beamkeeper.testing.daemons import account
from beamkeeper.testing.grid import Authority, gsi_gridftp
from beamkeeper.testing.slurm import Slurm
from beamkeeper.testing.speckles import apart
from beamkeeper.testing.station import experiment, station, until

FILES = 20
SHOT_S = 580.0
MOST_OVERHEAD, LEAST_SCALE = 10.0, 1.7
EXECUTOR = """
[executors.{name}]
provider = "slurm"
options = {{ partition = "batch", exclusive = false, cmd_timeout = 30 }}
workers_per_node = {workers}
address = "127.0.0.1"
"""
NUMBERS = {"one": 1, "two": 2}
"""Executors, and their workers."""


def keep(client: Client, made: Experiment, place: Path, count: int) -> list[str]:
    """Keep files of frames in an experiment, all with the same content, and return their paths."""
    apart(place / "brown.h5")
    names = []
    for number in range(count):
        file = place / f"brown_{number:02}.h5"
        shutil.copyfile(place / "brown.h5", file)
        names.append((RelPath(file.name), file))
    put = client.uploads.put(NewPut(experiment_uid=made.uid), names)
    until(lambda: client.uploads.get(put.uid).ended_at, "the upload's end", SHOT_S)
    return sorted(file.path for file in client.files.find(FileQuery(experiment_uid=made.uid, limit=1000)) if file.path)


def ended(client: Client, jobs: Sequence[Job]) -> list[JobRecord]:
    """Return jobs when all have ended, and well; waited for as scripts do, not by asking again and again."""
    for job in jobs:
        if (found := client.jobs.wait(job.uid, SHOT_S)).status is not JobStatus.DONE:
            raise SystemExit(f"a job was not done: {found.message or found.status.value}")
    return [client.jobs.record(job.uid) for job in jobs]


def own_s(records: Sequence[JobRecord]) -> float:
    """Return how long the commands of jobs took by themselves."""
    return sum(child.run_time_s or 0.0 for record in records for child in record.child_processes)


def overhead(server: Slurm, place: Path, count: int = FILES) -> Iterator[Row]:
    """Run the 8-ID pipeline, all six steps, on files one after another: whatever is no command's time is ours."""
    authority = Authority(place)
    badge = {"X509_USER_PROXY": authority.proxy("ada"), "X509_CERT_DIR": authority.trusted}
    variables = [f"{name}={value}" for name, value in {**server.environment, **badge}.items()]
    told = {"BEAMKEEPER_PROCESSING__ENVIRONMENT": json.dumps(variables)}
    (place / "scratch").mkdir()
    with station(place) as made, gsi_gridftp(authority, common_name="ada", acts_as=account()) as grid:
        client = made.start(environ=told)
        cluster = grid.url(Path("/")).rstrip("/")
        settings = {"cluster": cluster, "directory": str(place / "scratch"), "queue": "batch"}
        client.workflows.add(adapted(entry("xpcs-8id"), None, settings))
        kept = experiment(client)
        paths = keep(client, kept, place, count)
        new = NewJob(workflow="xpcs-8id", experiment_uid=kept.uid, paths=tuple(paths))
        begun = time.perf_counter()
        records = ended(client, [client.jobs.submit(new)])
        wall_s = time.perf_counter() - begun
    own = own_s(records)
    note = f"{wall_s:.1f} s, of which commands {own:.1f} s, {sum(len(one.child_processes) for one in records)} of them"
    name = f"8-ID pipeline on {count} files by GridFTP and Slurm: overhead"
    yield Row(name, 100 * (wall_s - own) / wall_s, "%", MOST_OVERHEAD, note=note)


def scale(server: Slurm, place: Path, count: int = FILES) -> Iterator[Row]:
    """Run XPCS on as many files at once, on one worker of Parsl over Slurm and on two."""
    settings = "".join(EXECUTOR.format(name=name, workers=workers) for name, workers in NUMBERS.items())
    walls, owns = {}, {}
    with station(place, settings=settings) as made:
        paths: list[str] = []
        for name in NUMBERS:
            roles = {"BEAMKEEPER_PROCESSING__ROLES": json.dumps([f"default={name}"])}
            client = made.start(environ={**server.environment, **roles})
            if not paths:
                client.workflows.add(adapted(entry("xpcs"), None, {"rings": "6", "qMin": "0.0028", "qMax": "0.0095"}))
                kept = experiment(client)
                paths = keep(client, kept, place, count)
            new = [NewJob(workflow="xpcs", experiment_uid=kept.uid, paths=(path,)) for path in paths]
            ended(client, [client.jobs.submit(new[0])])  # the block of nodes is there
            begun = time.perf_counter()
            records = ended(client, client.jobs.submit_many(new))
            walls[name], owns[name] = time.perf_counter() - begun, own_s(records)
            made.kill(signal.SIGTERM)
            server.empty()
    note = (
        f"one worker {walls['one']:.1f} s, of which commands {owns['one']:.1f} s; "
        f"two {walls['two']:.1f} s, of which each {owns['two'] / 2:.1f} s"
    )
    name = f"XPCS on {count} files at once"
    yield Row(f"{name}: speed of 2 workers / 1", walls["one"] / walls["two"], "x", least=LEAST_SCALE, note=note)
    spent = 100 * (walls["one"] - owns["one"]) / walls["one"]
    yield Row(f"{name}, on 1 worker: overhead", spent, "%", MOST_OVERHEAD)
    # What two commands at once take from each other is the machine's: it is in their own time.
    spent = 100 * (walls["two"] - owns["two"] / 2) / walls["two"]
    yield Row(f"{name}, on 2 workers: overhead", spent, "%", MOST_OVERHEAD)
    yield Row(f"{name}: a command's time alone / beside another", owns["one"] / owns["two"], "x")


PARTS: Mapping[str, Callable[[Slurm, Path, int], Iterator[Row]]] = {"overhead": overhead, "scale": scale}
