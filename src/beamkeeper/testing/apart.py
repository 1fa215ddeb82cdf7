"""A station and its site on two hosts, with TLS and a firewall between them, for tests; the wire can be cut."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from beamkeeper.cli.app import run
from beamkeeper.client import Client
from beamkeeper.client.logins import Logins
from beamkeeper.domain.errors import NotAuthenticatedError, UnavailableError
from beamkeeper.domain.experiments import Experiment, NewStation
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.status import Service
from beamkeeper.domain.storage import NewStorageArea, StorageArea
from beamkeeper.testing.listening import Listener
from beamkeeper.testing.netns import End, Wire
from beamkeeper.testing.remotes import sshd
from beamkeeper.testing.station import popen, until

NAME = "8ID"
LOCAL = {
    Service.CATALOG: "http://127.0.0.1:22237",
    Service.ACQUISITION: "http://127.0.0.1:22238",
    Service.PROCESSING: "http://127.0.0.1:22239",
}
"""Where the services of the station are, for those who are there."""
FoundT = TypeVar("FoundT")


class Host:
    """Some services at one end of the wire."""

    def __init__(self, made: Wire, end: End, directory: Path, services: tuple[Service, ...], settings: str) -> None:
        self.wire, self.end, self.services = made, end, services
        self.data = directory / end.name.lower()
        self.data.mkdir(mode=0o700)
        (self.data / "beamkeeper.toml").write_text(settings)
        self.process: subprocess.Popen[bytes] | None = None
        self.clients = ExitStack()

    def start(self) -> None:
        """Start them, and wait for nothing."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("BEAMKEEPER_")}
        words = [*self.services, "--data", str(self.data)]
        self.process = popen(words, clean, self.data / "log", wrap=self.wire.command(self.end))

    def client(self, url: str, token: str, urls: dict[Service, str], ca: Path) -> Client:
        """Return somebody's client, which is to be used at this end."""
        logins = Logins(self.data / "logins.json")
        made = Client(url, token=token, urls=urls, logins=logins, station=NAME, ca=str(ca), timeout_s=5.0, tries=1)
        return self.clients.enter_context(made)

    def ask(self, question: Callable[[], FoundT]) -> FoundT | None:
        """Return an answer that is asked for at this end; None where nothing answers yet."""
        with self.wire.at(self.end):
            try:
                return question()
            except (UnavailableError, NotAuthenticatedError):  # its mirror is not filled yet
                return None

    def close(self) -> None:
        """End them, and what was opened here."""
        self.clients.close()
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)  # an orderly stop lets each waiting question end: 5 s
            self.process.wait(60)


class Apart:
    """A site and a station on two hosts."""

    def __init__(self, made: Wire, directory: Path, stack: ExitStack) -> None:
        self.wire, self.directory = made, directory
        ca, address = directory / "ca", made.addresses[End.SITE]
        assert run(["tls", "make-ca", str(ca)]) == 0
        assert run(["tls", "issue", str(ca), "site", address]) == 0
        self.ca = ca / "ca.pem"
        self.ssh = stack.enter_context(sshd(address, wrap=made.command(End.SITE), there=partial(made.at, End.SITE)))
        self.storage, self.catalog = f"https://{address}:22236", f"https://{address}:22237"
        self.site = Host(
            made, End.SITE, directory, (Service.STORAGE, Service.CATALOG), self._site_settings(ca, address)
        )
        stack.callback(self.site.close)
        self.site.start()
        token = self._first_session()
        self.admin = self.site.client(self.storage, token, {Service.CATALOG: self.catalog}, self.ca)
        until(lambda: self.at_site(lambda: self.admin.status(Service.CATALOG)), "the site")
        key = self.at_site(self._join)
        self.far = self.at_site(self._far_area)
        self.station = Host(
            made,
            End.STATION,
            directory,
            (Service.CATALOG, Service.ACQUISITION, Service.PROCESSING),
            self._station_settings(),
        )
        (self.station.data / "service.key").write_text(key or "")
        (self.station.data / "service.key").chmod(0o600)
        stack.callback(self.station.close)
        self.station.start()
        self.local = self.local_client(token)
        for service in self.station.services:
            until(lambda one=service: self.at_station(lambda: self.local.status(one)), f"the station's {service}")  # type: ignore[misc]

    def _site_settings(self, ca: Path, address: str) -> str:
        return (
            f'[station]\nname = "site"\n[tls]\ncertificate_file = "{ca}/site.pem"\nkey_file = "{ca}/site.key"\n'
            f'ca_file = "{ca}/ca.pem"\n[storage]\nlisten = "{address}:22236"\n[catalog]\nlisten = "{address}:22237"\n'
        )

    def _station_settings(self) -> str:
        return (
            f'[station]\nname = "{NAME}"\noffline_login = true\n'
            f'[tls]\nca_file = "{self.ca}"\n[storage]\nurl = "{self.storage}"\n'
            f'[catalog]\nlisten = "127.0.0.1:22237"\nsite_url = "{self.catalog}"\n'
            '[acquisition]\nlisten = "127.0.0.1:22238"\nquiet_s = 0.2\nscan_interval_s = 1.0\n'
            '[processing]\nlisten = "127.0.0.1:22239"\n'
            f'[transfer.rsync]\nkey_file = "{self.ssh.key}"\nknown_hosts = "{self.ssh.known_hosts}"\n'
        )

    def _first_session(self) -> str:
        first = self.site.data / "first-session.json"
        until(first.exists, "the first session")
        return str(json.loads(first.read_text())["token"])

    def _join(self) -> str:
        self.admin.stations.create(NewStation(name=NAME, **{f"{service}_url": url for service, url in LOCAL.items()}))
        return self.admin.stations.join(self.admin.stations.make_token(NAME).token).key

    def _far_area(self) -> StorageArea:
        """Add a storage area that the station reaches over the wire alone."""
        (path := self.directory / "far").mkdir()
        return self.admin.storage_areas.add(NewStorageArea(name="far", station_url=self.ssh.url(path), path=str(path)))

    def at_site(self, question: Callable[[], FoundT]) -> FoundT | None:
        """Ask at the site; None where nothing answers."""
        return self.site.ask(question)

    def at_station(self, question: Callable[[], FoundT]) -> FoundT | None:
        """Ask at the station; None where nothing answers."""
        return self.station.ask(question)

    def count(self, at: Callable[[Callable[[], int]], int | None], client: Client, experiment: Experiment) -> int:
        """Count the files of an experiment that one finds at one end."""
        query = FileQuery(experiment_uid=experiment.uid, limit=1000)
        return at(lambda: sum(1 for _ in client.files.find(query))) or 0

    def local_client(self, token: str) -> Client:
        """Return somebody's client at the station, which has seen nothing of what was changed at the site."""
        return self.station.client(self.storage, token, LOCAL, self.ca)

    def listener(self, token: str) -> Listener:
        """Return somebody who listens to the events of the station's catalogue."""
        return Listener(LOCAL[Service.CATALOG], token, place=self.wire.at(End.STATION))

    def dm(self, *words: str) -> str:
        """Run a command at the station as the administrator, and return all that it printed."""
        with self.dm_of(self.admin.credentials.token or "", *words, "--data", str(self.station.data)) as program:
            return program.communicate(timeout=90)[0]

    @contextmanager
    def dm_of(self, token: str, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Give somebody's command that runs at the station; its answers and its errors come together."""
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        facts = {"HOME": str(home), "BEAMKEEPER_URL": self.storage, "BEAMKEEPER_CA": str(self.ca)}
        environ = {"PATH": os.environ["PATH"], **facts, "BEAMKEEPER_TOKEN": token, "BEAMKEEPER_STATION": NAME}
        program = (sys.executable, "-c", "from beamkeeper.cli.app import main; main()", *words)
        command = [*self.wire.command(End.STATION), *program]
        with subprocess.Popen(
            command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()
