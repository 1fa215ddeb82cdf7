"""Experiments that are made at a station while its site cannot be reached, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from beamkeeper.client import Client
from beamkeeper.client.logins import Logins, Profile
from beamkeeper.core import users as core_users
from beamkeeper.domain.acquisition import NewDaq, State
from beamkeeper.domain.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidError,
    NotFoundError,
    NotPermittedError,
    UnavailableError,
)
from beamkeeper.domain.experiments import (
    Experiment,
    ExperimentQuery,
    NewExperiment,
    NewStation,
    SentExperiment,
    UnsentChange,
)
from beamkeeper.domain.mirror import MirrorState
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.status import Service, StationServices
from beamkeeper.domain.users import NewUser
from beamkeeper.engine.unsent import UnsentLoop
from beamkeeper.testing.beamline import Clock
from beamkeeper.testing.services import Running, running

STATION, NOWHERE = "8ID", "http://127.0.0.1:1"
NEW = NewExperiment(name="tonight", station=STATION)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def site(tmp_path: Path, clock: Clock) -> Iterator[Running]:
    with running(
        Service.ACQUISITION, directory=tmp_path, clock=clock, settings={"station": {"name": STATION}}
    ) as services:
        yield services


def cut_off(site: Running, token: str | None = None) -> Client:
    """Return the client of somebody who cannot reach the site, as the login of before has it."""
    logins = Logins(site.directory / "cut.json")
    services = StationServices(name=STATION, catalog="", acquisition=site.urls[Service.ACQUISITION])
    held = SecretStr(token or site.bootstrap.operator.token)
    logins.put("default", Profile(url=NOWHERE, token=held, stations=(services,)))
    return site.stack.enter_context(Client(NOWHERE, logins=logins, station=STATION, tries=1))


def heard(site: Running) -> MirrorState | None:
    with site.contexts[Service.ACQUISITION].database.read() as tx:
        return core_users.mirror_state(tx)


def loop(site: Running, told: list[str]) -> UnsentLoop:
    database = site.contexts[Service.ACQUISITION].database
    return UnsentLoop(
        database, site.as_service(), report=told.append, tell=lambda problem: told.append(problem.message)
    )


def test_a_client_that_cannot_reach_the_site_asks_the_station(site: Running) -> None:
    made = site.client.experiments.create(NEW)
    client = cut_off(site)
    assert client.experiments.get("tonight") == client.experiments.by_uid(made.uid) == made
    assert [member.username for member in client.experiments.people(made.uid)] == []
    assert client.sessions.whoami() == site.client.sessions.whoami()
    (heard_at,) = [state.heard_at for state in [heard(site)] if state]
    assert client.away.as_of == heard_at  # from when it is what was told
    assert site.client.away.as_of is None
    with pytest.raises(UnavailableError):
        client.users.get("administrator")


def test_only_a_station_that_is_cut_off_makes_experiments_and_only_for_those_who_may(
    site: Running, clock: Clock
) -> None:
    person = site.client.users.create(NewUser(username="ada", password=SecretStr("a long enough password")))
    token = site.as_().sessions.login(person.username, "a long enough password").token
    client = cut_off(site)
    with pytest.raises(ConflictError, match="not cut off"):
        client.experiments.create(NEW)
    clock.tick(60)
    with pytest.raises(NotPermittedError):
        cut_off(site, token).experiments.create(NEW)
    with pytest.raises(InvalidError, match="before it starts"):
        client.experiments.create(NEW.model_copy(update={"starts_at": clock(), "ends_at": clock()}))
    with pytest.raises(NotFoundError, match="nobody"):  # the site would refuse it for ever
        client.experiments.create(NEW.model_copy(update={"pi": "nobody"}))
    made = client.experiments.create(NEW)
    assert (made.name, made.directory, made.number) == ("tonight", "", -1)
    assert [found.uid for found in client.experiments.list(ExperimentQuery(name="tonight"))] == [made.uid]
    assert client.experiments.create(NEW.model_copy(update={"uid": made.uid})) == made
    with pytest.raises(AlreadyExistsError):
        client.experiments.create(NEW)


def test_the_site_makes_it_afterwards_under_a_name_that_is_free(site: Running, clock: Clock) -> None:
    told: list[str] = []
    clock.tick(60)
    client = cut_off(site)
    made, other = client.experiments.create(NEW), client.experiments.create(NEW.model_copy(update={"name": "other"}))
    meanwhile = site.client.experiments.create(NEW)  # of which the station hears
    loop(site, told).step()
    assert site.client.experiments.by_uid(other.uid).name == "other"
    renamed = site.client.experiments.by_uid(made.uid)
    assert (renamed.name, renamed.uid == meanwhile.uid) == ("tonight-2", False)
    assert [('"tonight"' in text and '"tonight-2"' in text) for text in told] == [True, True]
    assert (site.area / renamed.directory).is_dir()
    assert client.experiments.by_uid(made.uid) == renamed
    told.clear()
    loop(site, told).step()
    assert told == []
    sent = SentExperiment(new=NEW.model_copy(update={"uid": made.uid}), by="ada")
    assert site.as_service().experiments.send(sent) == renamed


@pytest.fixture
def refused(site: Running, clock: Clock) -> Experiment:
    """An experiment that was made at the station, and whose directory is another one's by now."""
    clock.tick(60)
    made = cut_off(site).experiments.create(NEW.model_copy(update={"root_path": "a/b"}))
    site.client.experiments.create(NEW.model_copy(update={"name": "before", "root_path": "a/b"}))
    return made


def test_what_the_site_refuses_is_told_once_and_tried_again_ever_more_seldom(
    site: Running, clock: Clock, refused: Experiment
) -> None:
    told: list[str] = []
    for wait, tries in ((0, 1), (5, 1), (6, 2), (15, 2), (6, 3), *((3601, n) for n in range(4, 14)), (3500, 13)):
        clock.tick(wait)
        loop(site, told).step()
        (one,) = site.client.experiments.unsent()
        assert (one.uid, one.tries) == (refused.uid, tries), wait
    assert ['"a/b"' in text for text in told] == [True, True]  # the log, and the station's people
    assert "dm experiment drop tonight" in told[0]
    status = site.client.status(Service.ACQUISITION)
    assert (status.unsent, status.unsent_refused) == (1, 1)


def test_what_the_site_refuses_is_sent_again_with_changes_at_once(site: Running, refused: Experiment) -> None:
    told: list[str] = []
    loop(site, told).step()
    site.client.experiments.create(NEW.model_copy(update={"name": "taken"}))
    change = UnsentChange(name="tomorrow", root_path="c")
    with pytest.raises(AlreadyExistsError):
        site.client.experiments.resend(refused.uid, change.model_copy(update={"name": "taken"}))
    with pytest.raises(NotFoundError, match="nobody"):
        site.client.experiments.resend(refused.uid, UnsentChange(pi="nobody"))
    sent = site.client.experiments.resend(refused.uid, change)
    assert (sent.name, sent.message, sent.tries, sent.made_by) == (
        "tomorrow",
        "",
        0,
        site.bootstrap.operator.session.username,
    )
    assert cut_off(site).experiments.by_uid(refused.uid).name == "tomorrow"
    loop(site, told).step()
    made = site.client.experiments.by_uid(refused.uid)
    assert (made.name, made.directory) == ("tomorrow", "c")
    assert list(site.client.experiments.unsent()) == []


def test_what_is_null_when_an_experiment_is_sent_again_is_nothing_or_stays_as_it_was(
    site: Running, clock: Clock
) -> None:
    clock.tick(60)
    new = NEW.model_copy(update={"root_path": "a/b", "proposal": "12345", "esaf": "271828"})
    made = cut_off(site).experiments.create(new)
    nothing = UnsentChange.model_validate(dict.fromkeys(UnsentChange.model_fields.keys() - {"name"}))
    assert (
        site.client.experiments.resend(made.uid, UnsentChange(esaf=None, proposal="54321")).wanted.new.esaf == "271828"
    )
    sent = site.client.experiments.resend(made.uid, nothing).wanted.new
    assert (sent.proposal, sent.esaf, sent.root_path) == ("54321", "271828", None)
    with pytest.raises(InvalidError, match="has a name"):
        site.client.experiments.resend(made.uid, UnsentChange(name=None))


def test_what_the_site_refuses_can_be_given_up_once_its_daqs_have_ended(
    site: Running, refused: Experiment, tmp_path: Path
) -> None:
    (source := tmp_path / "detector").mkdir()
    daq = site.client.daqs.start(NewDaq(experiment_uid=refused.uid, **path_fields(bytes(source).lstrip(b"/"))))
    with pytest.raises(ConflictError, match="has not ended"):
        site.client.experiments.drop(refused.uid)
    with site.contexts[Service.ACQUISITION].database.write() as tx:
        tx.acquisitions.mark_ended(daq.uid, State.ABORTED)
    site.client.experiments.drop(refused.uid)
    assert list(site.client.experiments.unsent()) == []
    with pytest.raises(NotFoundError, match="was dropped"):
        site.client.experiments.drop(refused.uid)
    client = cut_off(site)
    assert "tonight" not in [found.name for found in client.experiments.list()]
    assert site.client.daqs.get(daq.uid).state is State.ABORTED  # what was done stays to be seen
    told: list[str] = []
    loop(site, told).step()
    assert told == []


def test_only_those_who_make_experiments_see_and_change_what_waits(site: Running, refused: Experiment) -> None:
    site.client.users.create(NewUser(username="ada", password=SecretStr("a long enough password")))
    ada = site.as_(site.as_().sessions.login("ada", "a long enough password").token)
    for ask in (ada.experiments.unsent, lambda: ada.experiments.drop(refused.uid)):
        with pytest.raises(NotPermittedError):
            ask()


def test_a_station_sends_its_own_experiments_only(site: Running) -> None:
    site.client.stations.create(NewStation(name="other"))
    service = site.as_service()
    with pytest.raises(NotPermittedError):
        service.experiments.send(SentExperiment(new=NEW.model_copy(update={"station": "other"}), by="ada"))


def test_asking_the_site_twice_makes_one(site: Running) -> None:
    new = NEW.model_copy(update={"uid": site.client.experiments.create(NEW).uid})
    assert site.client.experiments.create(new).uid == new.uid


def test_a_login_keeps_where_the_services_are(site: Running) -> None:
    logins = Logins(site.directory / "kept.json")
    url, token = site.urls[Service.STORAGE], SecretStr(site.bootstrap.operator.token)
    logins.put("default", Profile(url=url, token=token))
    with Client(logins=logins) as client:
        found = client.station()
    kept = logins.get("default")
    assert kept is not None
    assert kept.stations == (found,)
