"""A station and its site on two hosts, with a firewall and TLS between: the link is cut, flaps, loses and crawls."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import pytest
from uuid6 import uuid7

from beamkeeper.cli.app import run
from beamkeeper.client import Client
from beamkeeper.client.fetching import Fetcher, Got
from beamkeeper.client.landing import Landing
from beamkeeper.client.logins import Logins
from beamkeeper.domain.acquisition import JournalState, NewDaq, State
from beamkeeper.domain.commands import CommandKind, CommandState, NewCommand
from beamkeeper.domain.errors import DmError, NotAuthenticatedError, UnavailableError
from beamkeeper.domain.experiments import Experiment, NewExperiment, NewStation
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.names import to_b64
from beamkeeper.domain.status import Service, Status
from beamkeeper.domain.users import NewUser
from beamkeeper.testing.netns import End, Wire, why_not, wire
from beamkeeper.testing.station import popen, until

pytestmark = [pytest.mark.skipif(bool(why_not()), reason=why_not() or "it can be tested"), pytest.mark.timeout(300)]

NAME = "8ID"
FILES = 20
PASSWORD = "a long enough password"
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
        clean = {k: v for k, v in os.environ.items() if not k.startswith("BEAMKEEPER_")}
        words = [*self.services, "--data", str(self.data)]
        self.process = popen(words, clean, self.data / "log", wrap=self.wire.command(self.end))

    def client(self, url: str, token: str, urls: dict[Service, str], ca: Path) -> Client:
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
        self.station = Host(
            made, End.STATION, directory, (Service.CATALOG, Service.ACQUISITION), self._station_settings()
        )
        (self.station.data / "service.key").write_text(key or "")
        (self.station.data / "service.key").chmod(0o600)
        stack.callback(self.station.close)
        self.station.start()
        self.local = self.local_client(token)
        until(lambda: self.at_station(lambda: self.local.status(Service.ACQUISITION)), "the station")

    def _site_settings(self, ca: Path, address: str) -> str:
        return (
            f'[station]\nname = "site"\n[tls]\ncertificate_file = "{ca}/site.pem"\nkey_file = "{ca}/site.key"\n'
            f'ca_file = "{ca}/ca.pem"\n[storage]\nlisten = "{address}:22236"\n[catalog]\nlisten = "{address}:22237"\n'
        )

    def _station_settings(self) -> str:
        return (
            f'[station]\nname = "{NAME}"\n[tls]\nca_file = "{self.ca}"\n[storage]\nurl = "{self.storage}"\n'
            f'[catalog]\nlisten = "127.0.0.1:22237"\nsite_url = "{self.catalog}"\n'
            '[acquisition]\nlisten = "127.0.0.1:22238"\nquiet_s = 0.2\nscan_interval_s = 1.0\n'
        )

    def _first_session(self) -> str:
        first = self.site.data / "first-session.json"
        until(first.exists, "the first session")
        return str(json.loads(first.read_text())["token"])

    def _join(self) -> str:
        self.admin.stations.create(NewStation(name=NAME))
        return self.admin.stations.join(self.admin.stations.make_token(NAME).token).key

    def at_site(self, question: Callable[[], FoundT]) -> FoundT | None:
        return self.site.ask(question)

    def at_station(self, question: Callable[[], FoundT]) -> FoundT | None:
        return self.station.ask(question)

    def count(self, at: Callable[[Callable[[], int]], int | None], client: Client, experiment: Experiment) -> int:
        query = FileQuery(experiment_uid=experiment.uid, limit=1000)
        return at(lambda: sum(1 for _ in client.files.find(query))) or 0

    def local_client(self, token: str) -> Client:
        """Return somebody's client at the station, which has seen nothing of what was changed at the site."""
        local = {Service.CATALOG: "http://127.0.0.1:22237", Service.ACQUISITION: "http://127.0.0.1:22238"}
        return self.station.client(self.storage, token, local, self.ca)

    def dm(self, *words: str) -> str:
        """Run a command at the station, and return all that it printed."""
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        facts = {"HOME": str(home), "BEAMKEEPER_URL": self.storage, "BEAMKEEPER_CA": str(self.ca)}
        environ = {"PATH": os.environ["PATH"], **facts, "BEAMKEEPER_TOKEN": self.admin.credentials.token or ""}
        program = (sys.executable, "-c", "from beamkeeper.cli.app import main; main()", *words)
        command = [*self.wire.command(End.STATION), *program, "--data", str(self.station.data)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=90)
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    with wire() as made, ExitStack() as stack:
        yield Apart(made, tmp_path_factory.mktemp("apart"), stack)


def give(both: Apart, experiment: Experiment, **what: object) -> UUID:
    uid = UUID(bytes=uuid7().bytes)
    new = NewCommand.model_validate({"uid": uid, "experiment_uid": experiment.uid, **what})
    assert both.at_site(lambda: both.admin.commands.give(NAME, new)) is not None
    return uid


def write(directory: Path, name: str) -> None:
    for number in range(FILES):
        (directory / f"{name}_{number}.tif").write_bytes(f"{name} {number}".encode())


def test_a_station_works_on_while_the_link_is_bad_or_gone_and_catches_up(both: Apart, tmp_path: Path) -> None:
    detector = tmp_path / "detector"
    detector.mkdir()
    experiment = both.at_site(lambda: both.admin.experiments.create(NewExperiment(name="coffee", station=NAME)))
    assert experiment is not None
    nothing_comes_in(both)
    daq = started_from_the_site(both, experiment, detector)
    write(detector, "one")
    both_have(both, experiment, FILES)
    both.wire.cut()
    write(detector, "two")
    stop = give(both, experiment, kind=CommandKind.STOP, acquisition_uid=daq)
    the_station_works_on(both, experiment, daq)
    the_site_goes_on_answering(both, experiment, tmp_path / "downloaded")
    for _ in range(3):
        both.wire.mend()
        both.wire.cut()
    both.wire.mend()
    both.wire.worsen(loss_percent=3, rate="256kbit")
    both_have(both, experiment, 2 * FILES)
    ended(both, daq, stop)
    assert both.wire.lost() > 0
    both.wire.mend()
    versions = both.at_site(lambda: both.admin.files.summary(experiment.uid))
    assert versions is not None
    assert (versions.files, versions.versions, versions.verified) == (2 * FILES, 2 * FILES, 2 * FILES)


def test_a_session_that_ended_at_the_site_is_refused_at_the_station_once_its_mirror_has_heard(both: Apart) -> None:
    both.at_site(lambda: both.admin.users.create(NewUser(username="anna")))
    both.at_site(lambda: both.admin.users.set_password("anna", PASSWORD))
    entering = both.site.client(both.storage, "", {}, both.ca)
    both.at_site(lambda: entering.sessions.login("anna", PASSWORD))
    anna = both.local_client(entering.credentials.token or "")
    asks = (lambda: list(anna.daqs.list()), lambda: list(anna.files.find(FileQuery(limit=1))))
    the_station_has_heard(both, entering)
    for ask in asks:
        assert both.at_station(ask) == []
    both.at_site(entering.sessions.logout)
    the_station_has_heard(both, entering)
    for ask in asks:
        with both.wire.at(End.STATION), pytest.raises(NotAuthenticatedError):
            ask()


def the_station_has_heard(both: Apart, client: Client) -> None:
    """Let the services wait for what somebody has seen at the site: for no longer than five seconds, or they refuse."""
    both.local.credentials.saw(client.credentials.mirror)
    for service in (Service.CATALOG, Service.ACQUISITION):
        with both.wire.at(End.STATION):
            both.local.status(service)


def nothing_comes_in(both: Apart) -> None:
    """The firewall of the station refuses the site, on the port that its catalogue has and on any other."""
    with both.wire.at(End.SITE), pytest.raises(DmError):
        both.site.client(f"http://{both.wire.addresses[End.STATION]}:22237", "x", {}, both.ca).stations.list()


def started_from_the_site(both: Apart, experiment: Experiment, detector: Path) -> UUID:
    new = NewDaq(experiment_uid=experiment.uid, path_b64=to_b64(bytes(detector).lstrip(b"/")))
    uid = give(both, experiment, kind=CommandKind.START_DAQ, daq=new)
    done = both.at_site(lambda: both.admin.commands.wait(uid, 30))
    assert done is not None
    assert (done.state, done.message) == (CommandState.DONE, "")
    return uid


def both_have(both: Apart, experiment: Experiment, count: int) -> None:
    until(lambda: both.count(both.at_station, both.local, experiment) == count, "the station's catalogue", 90)
    until(lambda: both.count(both.at_site, both.admin, experiment) == count, "the site's catalogue", 90)


def the_station_works_on(both: Apart, experiment: Experiment, daq: UUID) -> None:
    def waiting() -> bool:
        found = both.at_station(lambda: both.local.daqs.get(daq))
        return found is not None and found.count(JournalState.READY, JournalState.STAGED) == FILES

    until(waiting, "the files that wait for the site")
    assert both.count(both.at_station, both.local, experiment) == FILES
    both.wire.refuse()
    until(lambda: both.at_station(lambda: is_cut_off(both.local.status(Service.CATALOG))), "that it is cut off")
    assert "cut off from the site's catalogue" in both.dm("status")
    found = both.at_station(lambda: both.local.daqs.get(daq))
    assert found is not None
    assert found.state is State.RUNNING


def is_cut_off(status: Status) -> bool:
    return status.site is not None and status.site.cut_off_since is not None


def the_site_goes_on_answering(both: Apart, experiment: Experiment, directory: Path) -> None:
    assert both.count(both.at_site, both.admin, experiment) == FILES
    with both.wire.at(End.SITE), Landing(directory) as landing:
        fetcher = Fetcher(both.admin.downloads, landing)
        query = FileQuery(experiment_uid=experiment.uid)
        assert {fetcher.fetch(file).got for file in both.admin.files.find(query)} == {Got.GOT}
    assert (directory / "data/one_7.tif").read_bytes() == b"one 7"
    status = both.at_site(lambda: both.admin.status(Service.CATALOG))
    assert status is not None
    assert {each.station for each in status.followers} == {NAME}


def ended(both: Apart, daq: UUID, stop: UUID) -> None:
    done = both.at_site(lambda: both.admin.commands.wait(stop, 60))
    assert done is not None
    assert done.state is CommandState.DONE

    def is_over() -> bool:
        found = both.at_station(lambda: both.local.daqs.get(daq))
        return found is not None and found.state is State.DONE

    until(is_over, "the end of the DAQ")
