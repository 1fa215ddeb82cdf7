"""No-op stages and XPCS on a real Slurm, through us and by Parsl alone: `make bench-cluster`.

One line a row, with tabs between: bench, name, figure, what is asked, ok or short.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import cluster_xpcs
from report import Row, machine, status, table, write_part

from beamkeeper.db import schema
from beamkeeper.domain.processing import JobStatus
from beamkeeper.domain.status import Service
from beamkeeper.engine.jobs.remote import ExecutorSpec
from beamkeeper.testing.jobs import Shop, rules
from beamkeeper.testing.slurm import Slurm, slurm

STAGES, WORKERS = 900, 4
AT_LEAST = 0.5
SHOT_S = 600.0
TEXT = f"""\
## Stages on a cluster

What `make bench-cluster` measured here: no-op stages on Parsl with {WORKERS} workers over a Slurm of one node, as jobs
of one stage from their submission to the end of the last, and by Parsl alone, which keeps nothing durable. And XPCS on
{cluster_xpcs.FILES} files: the pipeline of 8-ID as one job, where all that is not its commands' own time is overhead,
and the workflow `xpcs` as a job for each file on one worker of Parsl and on two.
"""

ALONE = """
import os, time, parsl
from parsl.app.app import bash_app
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.launchers import SimpleLauncher
from parsl.providers import SlurmProvider
provider = SlurmProvider("batch", exclusive=False, init_blocks=1, max_blocks=1, launcher=SimpleLauncher(),
    walltime="01:00:00", cmd_timeout=30, worker_init="export PATH={bin}:$PATH")
os.environ["PATH"] = "{bin}:" + os.environ["PATH"]
parsl.load(Config(executors=[HighThroughputExecutor(label="h", provider=provider, address="127.0.0.1",
    max_workers_per_node={workers})], run_dir="{place}/alone", initialize_logging=False))
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


def alone_s(server: Slurm, place: Path, count: int) -> float:
    """Return how long Parsl takes by itself, without what it needs to start."""
    text = ALONE.format(bin=Path(sys.executable).parent, place=place, workers=WORKERS, count=count)
    (place / "alone.py").write_text(text)
    said = server.call(sys.executable, str(place / "alone.py"), timeout_s=SHOT_S)
    server.empty()
    return float(said.split()[-1])


def through_us_s(place: Path, count: int) -> float:
    """Return how long the same takes as jobs of one stage, from their submission to the end of the last."""
    shop = Shop(f"sqlite:///{place / 'jobs.db'}", place / "jobs")
    shop.rules = rules(place / "jobs")
    options = {
        "provider": "slurm",
        "options": {"partition": "batch", "exclusive": False, "cmd_timeout": 30},
        "workers_per_node": WORKERS,
        "address": "127.0.0.1",
    }
    spec = ExecutorSpec("parsl", options, place / "jobs" / "executor-hpc", slots=200)
    shop.settings = replace(shop.settings, executors={"hpc": spec}, roles={"default": "hpc"})
    with closing(shop.database):
        schema.create(shop.database, Service.PROCESSING)
        shop.start()
        try:
            shop.run({"1": "/bin/true"})
            begun = time.perf_counter()
            uids = shop.submit({"1": "/bin/true"}, count=count)
            while active(shop):  # who looks at each job all the time is part of what is measured
                time.sleep(0.05)
            took_s = time.perf_counter() - begun
            ended = shop.ended(uids)
        finally:
            shop.stop()
    if any(job.status is not JobStatus.DONE for job in ended):
        raise SystemExit("not every job was done")
    return took_s


def active(shop: Shop) -> int:
    """Return how many jobs have not ended."""
    with shop.database.read() as tx:
        return sum(tx.jobs.counts().values())


def stage_rows(server: Slurm, place: Path, count: int) -> Iterator[Row]:
    """Run no-op stages both ways."""
    parsl_s, own_s = alone_s(server, place, count), through_us_s(place, count)
    subprocess.run(["scancel", "--partition=batch"], check=False)
    server.empty()
    name, note = f"{count} stages on Slurm", f"Parsl alone {parsl_s:.2f} s, through us {own_s:.2f} s"
    yield Row(f"{name}: speed / Parsl alone", parsl_s / own_s, "x", least=AT_LEAST, note=note)
    yield Row(f"{name}: stages", count / own_s, "/s")


PARTS = {"stages": stage_rows, **cluster_xpcs.PARTS}


def main() -> int:
    """Measure the parts that are asked for, and say whether we keep what the project promises."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all of them unless said")
    parser.add_argument("--stages", type=int, default=STAGES)
    parser.add_argument("--files", type=int, default=cluster_xpcs.FILES)
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the results into this page")
    options = parser.parse_args()
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    facts, rows = machine("bench-cluster"), []
    with slurm() as server:
        os.environ.update(server.environment)
        for part in options.parts or PARTS:
            with tempfile.TemporaryDirectory(prefix="bench-cluster-") as made:
                for row in PARTS[part](server, Path(made), options.stages if part == "stages" else options.files):
                    rows.append(row)
                    print(row.line(), flush=True)
    if options.write:
        write_part(options.write, "cluster", [TEXT, *table(rows, facts)])
    return status(rows)


if __name__ == "__main__":
    raise SystemExit(main())
