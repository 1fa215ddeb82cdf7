"""A catalogue to be measured: real services as a process, its database, people, and how long each answer takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import catalog_data as data

from beamkeeper.client import Client
from beamkeeper.client.logins import Logins
from beamkeeper.db.base import new_uid
from beamkeeper.domain.experiments import NewExperiment, NewExperimentType
from beamkeeper.domain.files import NewFile, Source, SourceIdentity
from beamkeeper.domain.names import Algorithm, Checksum, to_b64
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewUser, Role
from beamkeeper.testing.servers import free_ports, fresh_database, postgres

PASSWORD = "a password of the bench"  # noqa: S105
POSTGRES = {
    "shared_buffers": "2GB",
    "effective_cache_size": "8GB",
    "work_mem": "32MB",
    "random_page_cost": "1.1",
    "max_wal_size": "8GB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "maintenance_work_mem": "1GB",
    "fsync": "on",
    "synchronous_commit": "on",
    "jit": "off",
}
"""As somebody would set up a small server; the rest are PostgreSQL's own."""


@dataclass
class Site:
    """The services that run, who asks them, and the experiments."""

    url: str
    service_url: str
    client: Client
    service: Client
    member: Client
    experiments: list[UUID]


@contextmanager
def site(kind: str, place: Path) -> Iterator[Site]:
    """Run storage and catalog, with the catalogue in PostgreSQL or SQLite."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="beamkeeper-bench-", dir=place)))
        url = f"sqlite:///{directory / 'beamline' / 'catalog.db'}"
        if kind == "PostgreSQL":
            url = fresh_database(stack.enter_context(postgres(**POSTGRES)))
        ports = free_ports(3)
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("BEAMKEEPER_", "XDG_"))}
        environ |= {"HOME": str(directory), "BEAMKEEPER_DATA_DIR": str(directory / "beamline")}
        for name, port in zip(("STORAGE", "CATALOG", "ACQUISITION"), ports, strict=True):
            environ[f"BEAMKEEPER_{name}__LISTEN"] = f"127.0.0.1:{port}"
        environ["BEAMKEEPER_CATALOG__DATABASE"] = url.replace("+psycopg", "")
        command = [sys.executable, "-m", "beamkeeper.serve", "run", "storage", "catalog"]
        process = stack.enter_context(subprocess.Popen(command, env=environ, stderr=(directory / "log").open("wb")))
        stack.callback(process.terminate)
        for port in ports[:2]:
            _await_answer(f"http://127.0.0.1:{port}/health")
        yield _people(stack, directory, url, [f"http://127.0.0.1:{port}" for port in ports])


def _await_answer(url: str) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with suppress(OSError), urllib.request.urlopen(url, timeout=1):  # noqa: S310
            return
        time.sleep(0.05)
    raise TimeoutError(f"{url} does not answer")


def _people(stack: ExitStack, directory: Path, url: str, addresses: list[str]) -> Site:
    urls = dict(zip((Service.STORAGE, Service.CATALOG, Service.ACQUISITION), addresses, strict=True))
    logins = Logins(directory / "logins.json")

    def client(**options: Any) -> Client:
        return stack.enter_context(Client(addresses[0], urls=urls, logins=logins, **options))

    first = json.loads((directory / "beamline" / "first-session.json").read_text())
    administrator = client(token=first["token"])
    administrator.experiment_types.create(NewExperimentType(name="bench", index_keys=data.INDEX_KEYS))
    made = [
        administrator.experiments.create(NewExperiment(name=f"bench{n:03d}", station=first["station"], type="bench"))
        for n in range(data.EXPERIMENTS)
    ]
    administrator.users.create(NewUser(username="member", password=PASSWORD))
    for number in (3, 40, 150):
        administrator.experiments.add_user(made[number].uid, "member", Role.USER)
    service = client(token=(directory / "beamline" / "service.key").read_text().strip())
    member = client(username="member", password=PASSWORD)
    for each in (service, member):
        each.credentials.mirror = administrator.credentials.mirror
    return Site(url, addresses[1], administrator, service, member, [experiment.uid for experiment in made])


def batches(experiment: UUID, count: int, *, first: int = 0, size: int = 1000) -> Iterator[list[NewFile]]:
    """Yield files to be registered, as the acquisition makes them, with 25 keys each."""
    area, at, at_ns = uuid4(), datetime.now(UTC), time.time_ns()
    for number in range(count):
        scan = next(data.scans(1, seed=10_000 + first + number))
        yield [
            NewFile(
                path_b64=to_b64(f"data/new{first + number:05d}/frame_{frame:05d}.h5".encode()),
                experiment_uid=experiment,
                version_uid=new_uid(),
                number=1,
                size=scan.size(frame),
                checksums=(Checksum(algorithm=Algorithm.BLAKE3, value=f"{frame:064x}"),),
                source=Source(agent="det", path_b64=to_b64(f"disk/{number}/{frame}".encode())),
                identity=SourceIdentity(
                    dev=1, ino=frame, size=scan.size(frame), mtime_ns=at_ns, ctime_ns=at_ns + frame
                ),
                storage_area_uid=area,
                read_from="device",
                modified_at=at,
                finished_at=at,
                transferred_at=at,
                verified_at=at,
                metadata=scan.of(frame),
            )
            for frame in range(size)
        ]


def p95(times: list[float]) -> float:
    """Return the time within which 19 of 20 answers came."""
    return sorted(times)[max(0, -(-len(times) * 95 // 100) - 1)]


def timed(call: Callable[[], object]) -> float:
    """Return how many seconds a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
