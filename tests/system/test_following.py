"""A station's catalogue and the site's as real processes: killed in the middle of batches, cut off, together again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from beamkeeper.client import Client
from beamkeeper.config.failpoints import VARIABLE, CopyPoint
from beamkeeper.db import open_database
from beamkeeper.domain.experiments import NewExperiment, NewStation
from beamkeeper.domain.replication import Kind, SiteLink
from beamkeeper.domain.status import Service
from beamkeeper.testing.catalogue import new_file
from beamkeeper.testing.following import documents
from beamkeeper.testing.servers import free_port
from beamkeeper.testing.station import Started, Station, popen, station, until

NAME = "8ID"
FILES = 600
"""More than one batch. Before the first one each kind says that it has nothing; after a start datasets and runs do."""


class Hutch:
    """The catalog service of a station whose storage and site's catalogue are elsewhere."""

    def __init__(self, directory: Path, site: Station, key: str) -> None:
        self.data = directory / "hutch"
        self.data.mkdir(mode=0o700)
        self.url = f"http://127.0.0.1:{free_port()}"
        (self.data / "service.key").write_text(key)
        (self.data / "service.key").chmod(0o600)
        (self.data / "beamkeeper.toml").write_text(
            f'[station]\nname = "{NAME}"\n[storage]\nurl = "http://127.0.0.1:{site.port(Service.STORAGE)}"\n'
            f'[catalog]\nlisten = "{self.url.removeprefix("http://")}"\n'
            f'site_url = "http://127.0.0.1:{site.port(Service.CATALOG)}"\n'
        )
        self.client = Client(
            f"http://127.0.0.1:{site.port(Service.STORAGE)}", token=key, urls={Service.CATALOG: self.url}
        )
        self.process: Started | None = None

    def start(self, **environ: str) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("BEAMKEEPER_")}
        self.process = popen(["catalog", "--data", str(self.data)], {**clean, **environ}, self.data / "log")
        until(lambda: self.answers() or self.process.poll() is not None, "the station's catalogue")  # type: ignore[union-attr]

    def answers(self) -> bool:
        try:
            return self.client.health(Service.CATALOG).status == "ok"
        except Exception:
            return False

    def link(self) -> SiteLink | None:
        return self.client.status(Service.CATALOG).site

    def cut_off(self) -> SiteLink | None:
        found = self.link()
        return found if found is not None and found.cut_off_since is not None else None

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.wait()

    def close(self) -> None:
        self.kill()
        self.client.close()


@contextmanager
def hutch(directory: Path, site: Station, client: Client) -> Iterator[Hutch]:
    client.stations.create(NewStation(name=NAME))
    made = Hutch(directory, site, client.stations.join(client.stations.make_token(NAME).token).key)
    try:
        yield made
    finally:
        made.close()


def are_equal(site: Station, made: Hutch, station_uid: UUID, count: int) -> bool:
    """Whether the site has all files of the station, and just as the station has them."""
    found = []
    for data in (site.data, made.data):
        with closing(open_database(f"sqlite:///{data / 'catalog.db'}", Service.CATALOG)) as database:
            found.append(documents(database, station_uid))
    return len(found[0]) == count and found[0] == found[1]


@pytest.mark.timeout(300)
def test_the_site_has_what_the_station_has_whoever_dies_in_the_middle(tmp_path: Path) -> None:
    with station(tmp_path) as site:
        client = site.start()
        with hutch(tmp_path, site, client) as made:
            experiment = client.experiments.create(NewExperiment(name="coffee", station=NAME))

            def register(name: str, count: int = FILES) -> None:
                files = [
                    new_file(f"data/{name}/{i}").model_copy(update={"experiment_uid": experiment.uid})
                    for i in range(count)
                ]
                made.client.files.register(files)

            made.client.credentials.mirror = client.credentials.mirror
            made.start(**{VARIABLE: f"{CopyPoint.COPY_SENDING}:{len(Kind) + 2}:kill"})
            register("one")
            assert made.wait() == -signal.SIGKILL
            made.start(**{VARIABLE: f"{CopyPoint.COPY_TAKEN}:3:kill"})
            assert made.wait() == -signal.SIGKILL
            made.start()
            site.kill()
            register("two")  # the station works on
            link = until(made.cut_off, "that it is cut off")
            assert link.waiting >= FILES
            site.launch(environ={VARIABLE: f"{CopyPoint.COPY_TAKING}:3:kill"})
            assert site.processes[0].wait(timeout=60) == -signal.SIGKILL
            site.kill()
            client = site.start()
            until(lambda: (found := made.link()) is not None and found.waiting == 0, "the site's catalogue", 90)
            until(lambda: are_equal(site, made, experiment.station_uid, 2 * FILES), "the same files", 90)
            followers = client.status(Service.CATALOG).followers
            assert {each.kind for each in followers} == set(Kind)
            assert {(each.station, each.waiting, each.refused) for each in followers} == {(NAME, 0, 0)}
            found = made.link()
            assert found is not None
            assert (found.waiting, found.cut_off_since) == (0, None)
