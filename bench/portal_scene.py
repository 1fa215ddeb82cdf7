"""The beamline that `make bench-portal` looks at: its experiments, accounts and files, loaded in bulk."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import catalog_data as data
import httpx2
from catalog_load import load
from sqlalchemy import text

from beamkeeper.client import Client
from beamkeeper.db import open_database
from beamkeeper.domain.acquisition import NewUpload
from beamkeeper.domain.experiments import Experiment, NewExperiment, NewExperimentType
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.people import Person
from beamkeeper.domain.status import Service
from beamkeeper.domain.workflows import checked_definition
from beamkeeper.testing.portal import PASSWORD, Site
from beamkeeper.testing.station import Station, station, until

ACCOUNTS = 300
BEGAN = time.perf_counter()


def say(what: str) -> None:
    """Print what is done now."""
    print(f"# {time.perf_counter() - BEGAN:6.0f} s  {what}", flush=True)


@dataclass
class Scene:
    """The beamline that is looked at."""

    site: Site
    experiments: Sequence[Experiment]

    @property
    def client(self) -> Client:
        """An administrator's client."""
        return self.site.client

    @property
    def large(self) -> Experiment:
        """The experiment with the most files."""
        return self.experiments[0]


@contextmanager
def scene(directory: Path, files: int, experiments: int) -> Iterator[Scene]:
    """Give a beamline with so much in it."""
    with station(directory, with_portal=True) as made:
        client = made.start()
        client.experiment_types.create(NewExperimentType(name="bench", index_keys=data.INDEX_KEYS))
        say(f"making {experiments} experiments and {ACCOUNTS} accounts")
        # Those two get files by the services, and so need their directories; the others are rows alone.
        first, last = (client.experiments.create(_new(number)) for number in (0, experiments - 1))
        found = Scene(Site(made, client), [first, *_rows(made, range(1, experiments - 1)), last])
        say(f"loading {files} files")
        load(f"sqlite:///{made.data / 'catalog.db'}", files, [one.uid for one in found.experiments], say)
        upload(found)
        until(lambda: _is_followed(made, experiments), "the catalogue knows all experiments")
        yield found


def _new(number: int) -> NewExperiment:
    fields = {"title": f"Measurement {number}", "proposal": f"GUP-{number}", "type": "bench"}
    return NewExperiment.model_validate({"name": f"bench{number:04}", "station": "TEST", **fields})


def _rows(made: Station, numbers: Sequence[int]) -> Sequence[Experiment]:
    """Make experiments and accounts in one transaction; the services follow as they do with any change."""
    people = [Person(username=f"user{number:04}", full_name=f"Somebody {number}") for number in range(ACCOUNTS)]
    with (
        closing(open_database(f"sqlite:///{made.data / 'storage.db'}", Service.STORAGE)) as database,
        database.write() as tx,
    ):
        tx.people.take(people, source="bench")
        of, (area, *_) = tx.experiments.stations()[0], tx.storage.list()
        where = {"station": of, "cycle": "2026-1", "area_uid": area.uid}
        return [
            tx.experiments.add(_new(number), directory=f"{of.name}/2026-1/bench{number:04}", **where)
            for number in numbers
        ]


def _is_followed(made: Station, experiments: int) -> bool:
    """Whether the catalogue's mirror has as many experiments as the site."""
    with (
        closing(open_database(f"sqlite:///{made.data / 'catalog.db'}", Service.CATALOG)) as database,
        database.engine.connect() as connection,
    ):
        return bool(connection.scalar(text("SELECT count(*) FROM experiments")) >= experiments)


def upload(of: Scene) -> None:
    """Store a few files that are really there, keep a workflow, and run it."""
    source = of.site.source("bench")
    for number in range(20):
        (source / f"note_{number}.txt").write_text(f"note {number}")
    new = NewUpload.model_validate({"experiment_uid": of.experiments[-1].uid, **path_fields(os.fsencode(source)[1:])})
    of.client.uploads.wait(of.client.uploads.start(new).uid, timeout_s=120)
    stages: dict[str, Any] = {"1-see": {"command": "ls -l $filePath"}, "2-tell": {"command": "true"}}
    of.client.workflows.upsert(checked_definition({"name": "see", "stages": stages}))


@contextmanager
def browser(of: Scene, username: str) -> Iterator[httpx2.Client]:
    """Give what asks for pages, logged in; compressed as a browser takes it."""
    headers = {"Accept-Encoding": "gzip"}
    with httpx2.Client(base_url=of.site.url, trust_env=False, timeout=60, headers=headers) as opened:
        done = opened.post("/login", data={"username": username, "password": PASSWORD})
        if done.status_code != 303:
            raise RuntimeError(f"{username} cannot log in: {done.text[:500]}")
        yield opened
