"""A station and its site on two hosts, with a firewall and TLS between: the link is cut, flaps, loses and crawls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import pytest
from pydantic import JsonValue, SecretStr
from uuid6 import uuid7

from beamkeeper.cli.app import EXIT_CODES
from beamkeeper.client import Client
from beamkeeper.client.fetching import Fetcher, Got
from beamkeeper.client.landing import Landing
from beamkeeper.domain.acquisition import JournalState, NewDaq, State
from beamkeeper.domain.commands import CommandKind, CommandState, NewCommand
from beamkeeper.domain.datasets import NewDataset
from beamkeeper.domain.errors import DmError, NotAuthenticatedError
from beamkeeper.domain.experiments import Experiment, NewExperiment, StationChange
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.names import to_b64
from beamkeeper.domain.processing import JobStatus, NewJob
from beamkeeper.domain.status import Service, Status
from beamkeeper.domain.users import NewKey, NewUser, Role, Scope, UserChange
from beamkeeper.domain.workflows import checked_definition
from beamkeeper.testing.apart import LOCAL, NAME, Apart
from beamkeeper.testing.listening import Listener
from beamkeeper.testing.netns import End, why_not, wire
from beamkeeper.testing.station import until

pytestmark = [pytest.mark.skipif(bool(why_not()), reason=why_not() or "it can be tested"), pytest.mark.timeout(300)]

FILES = 20
PASSWORD = "a long enough password"
AT_A_STATION_S = 5.0
"""So soon a connected station hears that a right has ended."""
FoundT = TypeVar("FoundT")


def there(found: FoundT | None) -> FoundT:
    assert found is not None
    return found


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
    new = NewExperiment(name="coffee", station=NAME, storage_area_uid=there(both.far).uid)
    experiment = there(both.at_site(lambda: both.admin.experiments.create(new)))
    nothing_comes_in(both)
    daq = started_from_the_site(both, experiment, detector)
    write(detector, "one")
    both_have(both, experiment, FILES)
    password = somebody_logs_in_at_the_station(both, experiment, tmp_path)
    both.wire.cut()
    write(detector, "two")
    stop = give(both, experiment, kind=CommandKind.STOP, acquisition_uid=daq)
    the_station_works_on(both, experiment, daq)
    a_job_is_done(both, experiment)
    people_at_the_station_work_on(both, experiment, password)
    tonight = made_at_the_station(both, tmp_path / "tonight")
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
    the_site_has_made(both, tonight)
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


def test_what_is_open_at_the_station_ends_with_the_right_to_it(both: Apart) -> None:
    kept, lost = (there(both.at_site(partial(make, both.admin, name))) for name in ("kept", "lost"))
    told = StationChange(processing_url=LOCAL[Service.PROCESSING])
    assert both.at_site(lambda: both.admin.stations.update(NAME, told))
    bea = member(both, "bea", kept, lost)
    day = datetime.now(UTC) + timedelta(days=1)
    key = there(both.at_site(lambda: bea.keys.create(NewKey(name="script", scopes=(Scope.READ,), expires_at=day))))
    the_station_has_heard(both, bea)
    bea_here = both.local_client(bea.credentials.token or "")
    with_key = both.listener(key.token)
    hers = both.listener(bea.credentials.token or "")
    with both.dm_of(bea.credentials.token or "", "job", "log", slow_job(both, bea_here, lost), "-f") as log:
        assert there(log.stdout).readline() == "begun\n"
        until(lambda: is_heard(both, hers, lost, kept), "her events of both experiments")
        with both.wire.at(End.SITE):
            both.admin.experiments.remove_user(lost.uid, "bea")
            bea.keys.revoke(key.key.uid)
        until(with_key.is_over.is_set, "the end of what the key has open", AT_A_STATION_S)
        assert log.wait(AT_A_STATION_S) == EXIT_CODES["not_found"]
        until(lambda: not is_heard(both, hers, lost, kept), "that she hears no more", AT_A_STATION_S)
    assert not is_heard(both, hers, lost, kept)
    assert there(both.at_station(lambda: both.local.jobs.stop(experiment_uid=lost.uid))) == 1
    assert both.at_site(lambda: both.admin.users.change("bea", UserChange(is_enabled=False)))
    until(hers.is_over.is_set, "the end of what she has open", AT_A_STATION_S)


def make(client: Client, name: str) -> Experiment:
    return client.experiments.create(NewExperiment(name=name, station=NAME))


def member(both: Apart, name: str, *experiments: Experiment) -> Client:
    """Make somebody who is of these experiments; return their client at the site."""
    entering = both.site.client(both.storage, "", {}, both.ca)
    new = NewUser(username=name, password=SecretStr(PASSWORD))
    assert both.at_site(lambda: both.admin.users.create(new))
    for experiment in experiments:
        assert both.at_site(partial(both.admin.experiments.add_user, experiment.uid, name, Role.USER))
    assert both.at_site(lambda: entering.sessions.login(name, PASSWORD))
    return entering


def slow_job(both: Apart, client: Client, experiment: Experiment) -> str:
    """Start a job that says a word and goes on for a long time."""
    stages: JsonValue = {"1": {"command": "echo begun; exec sleep 90"}}
    slow = checked_definition({"name": "slow", "stages": stages})
    assert both.at_station(lambda: both.local.workflows.add(slow))
    job = there(both.at_station(lambda: client.jobs.submit(NewJob(workflow="slow", experiment_uid=experiment.uid))))
    until(lambda: there(both.at_station(lambda: client.jobs.record(job.uid))).child_processes, "the command")
    return str(job.uid)


def is_heard(both: Apart, listener: Listener, experiment: Experiment, other: Experiment) -> bool:
    """Make news of two experiments; whether the one's was heard when the other's was, which came after it."""
    name = uuid7().hex
    for one in (experiment, other):
        new = NewDataset(experiment_uid=one.uid, name=name)
        assert both.at_station(partial(both.local.datasets.create, new))
    until(lambda: listener.heard(name=name, of=other.uid), "her event of the other experiment")
    return listener.heard(name=name, of=experiment.uid)


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
    until(lambda: both.at_station(lambda: is_cut_off(both.local.status(Service.CATALOG))), "that it is cut off")
    assert "cut off from the site's catalogue" in both.dm("status")
    found = both.at_station(lambda: both.local.daqs.get(daq))
    assert found is not None
    assert found.state is State.RUNNING


def a_job_is_done(both: Apart, experiment: Experiment) -> None:
    """Nobody gives its commands a token now, and they run without."""
    definition = checked_definition({"name": "quick", "stages": {"1": {"command": "echo done"}}})
    assert both.at_station(lambda: both.local.workflows.add(definition))
    new = NewJob(workflow="quick", experiment_uid=experiment.uid)
    job = there(both.at_station(lambda: both.local.jobs.submit(new)))
    until(lambda: there(both.at_station(lambda: both.local.jobs.get(job.uid))).status is JobStatus.DONE, "the job", 60)


def somebody_logs_in_at_the_station(both: Apart, experiment: Experiment, directory: Path) -> Path:
    """Let somebody of the experiment log in there; returns the file with her password."""
    both.at_site(lambda: both.admin.users.create(NewUser(username="nell")))
    both.at_site(lambda: both.admin.users.set_password("nell", PASSWORD))
    both.at_site(lambda: both.admin.experiments.add_user(experiment.uid, "nell", Role.PI))
    (file := directory / "password").touch(mode=0o600)
    file.write_text(PASSWORD)
    with both.dm_of("", "login", "nell", "--password-file", str(file)) as program:
        assert "nell is logged in" in program.communicate(timeout=90)[0]
    return file


def people_at_the_station_work_on(both: Apart, experiment: Experiment, password: Path) -> None:
    """At 2 a.m. somebody looks at the experiment, and somebody logs in who did so here before."""
    kept = both.directory / "home/.config/beamkeeper/logins.json"
    before = json.loads(kept.read_text())["default"]["token"]
    admin = both.admin.credentials.token or ""
    with (
        both.dm_of(admin, "experiment", "show", "coffee") as showing,
        both.dm_of("", "login", "nell", "--password-file", str(password)) as entering,
    ):
        shown, entered = showing.communicate(timeout=90)[0], entering.communicate(timeout=90)[0]
    assert "nell" in shown
    assert "as the station heard of it last" in shown
    assert "counts at the station alone" in entered
    token = json.loads(kept.read_text())["default"]["token"]
    assert token != before
    nell = both.local_client(token)
    assert both.at_station(lambda: [daq.experiment for daq in nell.daqs.list()]) == ["coffee"]
    assert both.count(both.at_station, nell, experiment) == FILES


def made_at_the_station(both: Apart, detector: Path) -> Experiment:
    """Make an experiment at 2 a.m. and take data for it; its name is given at the site meanwhile."""
    new = NewExperiment(name="tonight", station=NAME)
    made = both.at_station(lambda: both.local.experiments.create(new))
    assert made is not None
    assert both.at_station(lambda: both.local.experiments.get("tonight")) == made
    detector.mkdir()
    write(detector, "night")
    path_b64 = to_b64(bytes(detector).lstrip(b"/"))
    daq = both.at_station(lambda: both.local.daqs.start(NewDaq(experiment_uid=made.uid, path_b64=path_b64)))
    assert daq is not None
    assert both.at_site(lambda: both.admin.experiments.create(new))
    return made


def the_site_has_made(both: Apart, tonight: Experiment) -> None:
    both_have(both, tonight, FILES)
    both_names = {both.at_site(lambda: both.admin.experiments.by_uid(tonight.uid).name)}
    both_names.add(both.at_station(lambda: both.local.experiments.get("tonight-2").name))
    assert both_names == {"tonight-2"}
    assert "tonight-2" in (both.station.data / "log").read_text()


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
