"""Stations, experiments and their people: the real client against the real service."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from beamkeeper.client import Client
from beamkeeper.core.sessions import begin_session
from beamkeeper.domain.errors import (
    AlreadyExistsError,
    ConflictError,
    DestinationError,
    DmError,
    InvalidError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
)
from beamkeeper.domain.experiments import (
    Experiment,
    ExperimentChange,
    ExperimentQuery,
    ExperimentTypeChange,
    NewExperiment,
    NewExperimentType,
    NewStation,
    StationChange,
)
from beamkeeper.domain.status import Service
from beamkeeper.domain.storage import NewStorageArea
from beamkeeper.domain.users import NewGrant, NewUser, Publicity, Role
from beamkeeper.testing.beamline import Clock
from beamkeeper.testing.services import Running, running

STATION = "8ID"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def site(tmp_path: Path, clock: Clock) -> Iterator[Running]:
    settings = {"station": {"name": STATION, "cycle": "2026-1", "timezone": "America/Chicago"}}
    with running(directory=tmp_path, clock=clock, settings=settings) as services:
        yield services


def user(site: Running, name: str, role: Role | None = None) -> Client:
    """Make an account, with a role on the site's station, and return a client with a session of it."""
    made = site.client.users.create(NewUser(username=name))
    if role is not None:
        site.client.users.grant(NewGrant(username=name, role=role, station_uid=site.bootstrap.station.uid))
    with site.database.write() as tx:
        return site.as_(begin_session(tx, made, expires_at=tx.now + timedelta(days=1)).token)


def new(name: str = "coffee", **fields: Any) -> NewExperiment:
    return NewExperiment(name=name, station=STATION, **fields)


def make(site: Running, name: str = "coffee", **fields: Any) -> Experiment:
    return site.client.experiments.create(new(name, **fields))


def directories(site: Running) -> set[str]:
    """Return what is in the storage area, but for what is in experiments."""
    return {str(path.relative_to(site.area)) for path in site.area.rglob("*") if path.is_dir()}


def test_experiments_work_on_both_databases(tmp_path: Path, database_url: str) -> None:
    with running(directory=tmp_path, url=database_url, settings={"station": {"name": STATION}}) as site:
        site.client.users.create(NewUser(username="ada"))
        made = make(site, pi="ada", title="Foam", metadata={"sample": "latte"})
        assert site.client.experiments.get("coffee") == made
        with pytest.raises(AlreadyExistsError):
            make(site)
        changed = site.client.experiments.update(made.uid, ExperimentChange(metadata={"sample": None, "T": 300}))
        assert (changed.title, changed.metadata) == ("Foam", {"T": 300})
        assert [one.role for one in site.client.experiments.people(made.uid)] == [Role.PI]
        assert site.client.experiments.delete(made.uid).deleted_at is not None
        assert list(site.client.experiments.list()) == []


def test_an_experiment_has_its_directories_with_their_rights(site: Running) -> None:
    made = make(site)
    assert made.directory == "2026-1/coffee"
    top = site.area / made.directory
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in top.iterdir()}
    assert modes == {"data": 0o2750, "analysis": 0o2770, "system": 0o2750, ".dm": 0o700}


def test_the_layout_is_filled_by_the_stations_clock_and_a_change_is_for_new_experiments(
    site: Running, clock: Clock
) -> None:
    old = make(site)
    layout = "{station}/{year}/{month}/{proposal}_{pi}/{type}/{experiment}"
    site.client.stations.update(STATION, StationChange(layout=layout))
    site.client.users.create(NewUser(username="ada"))
    site.client.experiment_types.create(NewExperimentType(name="XPCS"))
    clock.now = clock.now.replace(month=1, day=1, hour=3)  # still last year in Chicago
    made = make(site, "tea", proposal="GUP 1/2", pi="ada", type="XPCS")
    assert made.directory == "8ID/2025/12/GUP 1_2_ada/XPCS/tea"
    assert site.client.experiments.get("coffee") == old
    with pytest.raises(InvalidError, match="has no pi"):
        make(site, "milk", proposal="1", type="XPCS")
    assert "8ID/2025/12/1_" not in directories(site)


def test_an_own_root_path_takes_the_place_of_the_layout(site: Running) -> None:
    assert make(site, root_path="/special/place/").directory == "special/place"
    assert (site.area / "special" / "place" / "data").is_dir()
    for path in ("../out", "a//b", "a/./b", "..", ""):
        with pytest.raises(InvalidError):
            make(site, "tea", root_path=path)


@pytest.mark.parametrize(
    "layout",
    ["{cycle}", "{experiment}/../..", "/abs/{experiment}", "{experiment.name}", "{0}{experiment}", "{experiment", ""],
)
def test_a_layout_that_could_mix_experiments_or_climb_out_is_refused(site: Running, layout: str) -> None:
    with pytest.raises(InvalidError):
        site.client.stations.update(STATION, StationChange(layout=layout))
    assert make(site).directory == "2026-1/coffee"


def test_nothing_is_left_of_an_experiment_that_cannot_be_made(site: Running) -> None:
    make(site, "there", root_path="taken/here")
    site.client.users.create(NewUser(username="hutch", is_shared=True))
    before = directories(site)
    (site.area / "full" / "data").mkdir(parents=True)
    (site.area / "full" / "data" / "precious").write_bytes(b"1")
    (site.area / "file").write_bytes(b"")
    refused: list[tuple[type[DmError], dict[str, Any]]] = [
        (NotFoundError, {"pi": "nobody"}),
        (InvalidError, {"pi": "hutch"}),
        (NotFoundError, {"type": "unknown"}),
        (NotFoundError, {"storage_area_uid": site.bootstrap.station.uid}),
        (InvalidError, {"starts_at": "2026-02-01T00:00Z", "ends_at": "2026-01-01T00:00Z"}),
        (ConflictError, {"root_path": "taken"}),
        (ConflictError, {"root_path": "taken/here/below"}),
        (AlreadyExistsError, {"root_path": "full"}),
        (DestinationError, {"root_path": "file/below"}),
    ]
    for kind, fields in refused:
        with pytest.raises(kind):
            make(site, "broken", **fields)
    assert directories(site) == before | {"full", "full/data"}
    assert [one.name for one in site.client.experiments.list()] == ["there"]
    assert make(site, "broken").number == 2


def test_a_storage_area_that_is_away_is_said_so_and_back_again_works(site: Running) -> None:
    site.area.rename(site.area.with_name("away"))
    with pytest.raises(DestinationError, match="mounted"):
        make(site)
    site.area.with_name("away").rename(site.area)
    assert make(site).number == 1


def test_of_two_at_once_with_one_name_one_is_made_whole(site: Running) -> None:
    clients = [site.as_(site.bootstrap.operator.token) for _ in range(4)]

    def act(number: int) -> Experiment | None:
        try:
            return clients[number].experiments.create(new(root_path=f"place/{number}"))
        except AlreadyExistsError:
            return None

    with ThreadPoolExecutor(len(clients)) as pool:
        made = [one for one in pool.map(act, range(len(clients))) if one is not None]
    assert len(made) == 1
    assert [path.name for path in (site.area / "place").iterdir()] == [made[0].directory.partition("/")[2]]
    assert (site.area / made[0].directory / "data").is_dir()


def test_of_two_at_once_with_one_directory_one_is_made_whole(site: Running) -> None:
    clients = [site.as_(site.bootstrap.operator.token) for _ in range(4)]

    def act(number: int) -> Experiment | None:
        try:
            return clients[number].experiments.create(new(f"e{number}", root_path="place" + "/below" * (number % 2)))
        except ConflictError:
            return None

    with ThreadPoolExecutor(len(clients)) as pool:
        made = [one for one in pool.map(act, range(len(clients))) if one is not None]
    assert len(made) == 1
    assert (site.area / made[0].directory / ".dm" / "staging").is_dir()


def test_only_managers_of_the_station_make_and_delete_experiments(site: Running) -> None:
    made = make(site)
    manager = user(site, "max", Role.STATION_MANAGER)
    assert manager.experiments.create(new("tea")).number == 2
    for name, role in (("vera", Role.STATION_VIEWER), ("paul", None)):
        other = user(site, name, role)
        if role is None:
            site.client.experiments.add_user(made.uid, name, Role.PI)
        with pytest.raises(NotPermittedError):
            other.experiments.create(new("milk"))
        with pytest.raises(NotPermittedError):
            other.experiments.delete(made.uid)
    assert manager.experiments.delete(made.uid).deleted_at is not None


def test_who_has_no_role_learns_nothing_of_an_experiment(site: Running) -> None:
    made = make(site)
    stranger = user(site, "eve")
    told = set()
    unknown = site.bootstrap.station.uid
    acts: list[Callable[[Any], object]] = [
        stranger.experiments.by_uid,
        stranger.experiments.people,
        stranger.experiments.delete,
        lambda uid: stranger.experiments.update(uid, ExperimentChange(title="x")),
        lambda uid: stranger.experiments.add_user(uid, "eve"),
        lambda uid: stranger.experiments.remove_user(uid, "eve"),
    ]
    for act in acts:
        for uid in (made.uid, unknown):
            with pytest.raises(NotFoundError) as caught:
                act(uid)
            told.add(caught.value.message.replace(str(uid), "UID"))
    assert len(told) == 1
    assert list(stranger.experiments.list()) == []
    with pytest.raises(NotFoundError, match='"coffee"'):
        stranger.experiments.get("coffee")


def test_an_open_experiment_is_read_by_everybody_once_its_embargo_is_over(site: Running, clock: Clock) -> None:
    made = make(site, publicity=Publicity.FACILITY, embargo_until=clock.now + timedelta(days=1))
    reader = user(site, "eve")
    assert list(reader.experiments.list()) == []
    clock.tick(23 * 3600)
    with pytest.raises(NotFoundError):
        reader.experiments.by_uid(made.uid)
    reader = site.as_(_again(site, "eve"))
    clock.tick(3600)
    assert reader.experiments.get("coffee").uid == made.uid
    with pytest.raises(NotPermittedError):
        reader.experiments.update(made.uid, ExperimentChange(title="x"))


def _again(site: Running, name: str) -> str:
    with site.database.write() as tx:
        return begin_session(tx, tx.users.named(name), expires_at=tx.now + timedelta(days=1)).token


def test_a_pi_manages_the_people_and_a_manager_does_not(site: Running) -> None:
    pi, manager = user(site, "paul"), user(site, "mia")
    user(site, "ada")
    made = make(site, pi="paul")
    assert pi.experiments.add_user(made.uid, "mia", Role.MANAGER).role is Role.MANAGER
    with pytest.raises(NotPermittedError):
        manager.experiments.add_user(made.uid, "ada")
    assert manager.experiments.update(made.uid, ExperimentChange(title="T")).title == "T"
    pi.experiments.add_user(made.uid, "ada")
    pi.experiments.add_user(made.uid, "ada", Role.MANAGER)
    assert [(one.username, one.role) for one in pi.experiments.people(made.uid)] == [
        ("ada", Role.MANAGER),
        ("mia", Role.MANAGER),
        ("paul", Role.PI),
    ]
    pi.experiments.remove_user(made.uid, "mia")
    with pytest.raises(NotFoundError):
        manager.experiments.by_uid(made.uid)
    with pytest.raises(NotFoundError, match="has no role"):
        pi.experiments.remove_user(made.uid, "mia")
    with pytest.raises(NotFoundError, match='"nobody"'):
        pi.experiments.add_user(made.uid, "nobody")
    with pytest.raises(InvalidError, match="no role in an experiment"):
        pi.experiments.add_user(made.uid, "mia", Role.ADMINISTRATOR)


def test_the_experiments_pi_is_always_somebody_who_holds_that_role(site: Running) -> None:
    for name in ("paul", "ada"):
        user(site, name)
    made = make(site, pi="paul")

    def pi() -> str | None:
        return site.client.experiments.by_uid(made.uid).pi

    site.client.experiments.add_user(made.uid, "ada", Role.PI)
    assert pi() == "paul"
    site.client.experiments.add_user(made.uid, "paul", Role.USER)
    assert pi() == "ada"
    site.client.experiments.remove_user(made.uid, "ada")
    assert pi() is None
    site.client.experiments.add_user(made.uid, "paul", Role.PI)
    assert pi() == "paul"


def test_a_deleted_experiment_is_hidden_from_its_people_and_its_files_stay(site: Running) -> None:
    member, manager = user(site, "ada"), user(site, "max", Role.STATION_MANAGER)
    made = make(site, pi="ada")
    (site.area / made.directory / "data" / "frame").write_bytes(b"1")
    manager.experiments.delete(made.uid)
    with pytest.raises(NotFoundError):
        member.experiments.by_uid(made.uid)
    assert list(member.experiments.list(ExperimentQuery(with_deleted=True))) == []
    assert [one.name for one in manager.experiments.list(ExperimentQuery(with_deleted=True))] == ["coffee"]
    with pytest.raises(ConflictError, match="is deleted"):
        manager.experiments.update(made.uid, ExperimentChange(title="x"))
    assert manager.experiments.by_uid(made.uid).deleted_at is not None
    assert (site.area / made.directory / "data" / "frame").read_bytes() == b"1"
    with pytest.raises(AlreadyExistsError, match="is or was"):
        make(site, root_path="elsewhere")


@pytest.mark.parametrize(
    "metadata",
    [{"a": "x\0y"}, {"big": 2**64}, {"k" * 2_000_000: 1}, {"deep": __import__("json").loads("[" * 40 + "]" * 40)}],
)
def test_metadata_that_a_database_does_not_keep_is_refused(site: Running, metadata: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        make(site, metadata=metadata)
    made = make(site)
    with pytest.raises(InvalidError):
        site.client.experiments.update(made.uid, ExperimentChange(metadata=metadata))
    assert site.client.experiments.by_uid(made.uid).metadata == {}


@pytest.mark.parametrize("name", ["", "a b", ".hidden", "a/b", "é", "x" * 129, "a\0", "a\nb"])
def test_a_name_that_is_no_plain_word_is_refused(site: Running, name: str) -> None:
    with pytest.raises(InvalidError, match="name"):
        site.client.http(Service.STORAGE).call(
            "POST", "/api/v1/experiments", Experiment, body={"name": name, "station": STATION}
        )


def test_fields_that_nobody_knows_are_refused_by_name(site: Running) -> None:
    with pytest.raises(InvalidError, match="colour"):
        site.client.http(Service.STORAGE).call(
            "POST", "/api/v1/experiments", Experiment, body={"name": "a", "station": STATION, "colour": 1}
        )


class TestStations:
    """Stations, and how their services get a key."""

    def test_a_new_station_takes_the_only_storage_area(self, site: Running) -> None:
        made = site.client.stations.create(NewStation(name="9ID", layout="{station}/{experiment}"))
        assert made.storage_area_uid == site.bootstrap.station.storage_area_uid
        experiment = site.client.experiments.create(NewExperiment(name="coffee", station="9ID"))
        assert experiment.directory == "9ID/coffee"
        make(site)
        with pytest.raises(ConflictError, match="8ID and 9ID"):
            site.client.experiments.get("coffee")
        assert site.client.experiments.get("coffee", station="9ID") == experiment

    def test_a_station_without_a_storage_area_says_what_to_do(self, site: Running, tmp_path: Path) -> None:
        site.client.storage_areas.add(
            NewStorageArea(name="other", station_url=(tmp_path / "o").as_uri(), path=str(tmp_path / "o"))
        )
        site.client.stations.create(NewStation(name="9ID"))
        with pytest.raises(ConflictError, match="--storage-area"):
            site.client.experiments.create(NewExperiment(name="coffee", station="9ID"))

    def test_what_makes_no_sense_is_refused(self, site: Running) -> None:
        for change in (
            StationChange(timezone="Mars/Olympus"),
            StationChange(timezone="../../etc/passwd"),
            StationChange(catalog_url="ftp://x"),
            StationChange(acquisition_url="localhost:1"),
        ):
            with pytest.raises(InvalidError):
                site.client.stations.update(STATION, change)
        with pytest.raises(NotFoundError):
            site.client.stations.update(STATION, StationChange(storage_area_uid=site.bootstrap.station.uid))
        with pytest.raises(NotFoundError, match='"9ID"'):
            site.client.stations.get("9ID")
        with pytest.raises(AlreadyExistsError):
            site.client.stations.create(NewStation(name=STATION))

    def test_where_services_are_is_public_and_their_own_key_may_tell_it(self, site: Running) -> None:
        service = site.as_service()
        service.stations.update(STATION, StationChange(catalog_url="http://other:1"))
        assert site.as_().site().stations[0].catalog == "http://other:1"
        with pytest.raises(NotPermittedError):
            service.stations.update(STATION, StationChange(layout="{experiment}"))
        site.client.stations.create(NewStation(name="9ID"))
        with pytest.raises(NotPermittedError):
            service.stations.update("9ID", StationChange(catalog_url="http://other:1"))

    def test_a_one_time_token_gives_one_key(self, site: Running, clock: Clock) -> None:
        made = site.client.stations.make_token(STATION)
        given = site.as_().stations.join(made.token)
        assert given.station.name == STATION
        who = site.as_(given.key).sessions.whoami()
        assert (who.is_service, who.station_uid) == (True, given.station.uid)
        with pytest.raises(NotAuthenticatedError, match="dm station token"):
            site.as_().stations.join(made.token)
        late = site.client.stations.make_token(STATION)
        clock.now = late.expires_at
        with pytest.raises(NotAuthenticatedError):
            site.as_().stations.join(late.token)

    def test_only_managers_make_tokens(self, site: Running) -> None:
        viewer = user(site, "vera", Role.STATION_VIEWER)
        with pytest.raises(NotPermittedError):
            viewer.stations.make_token(STATION)
        assert viewer.stations.get(STATION).name == STATION
        with pytest.raises(NotPermittedError):
            user(site, "eve").stations.get(STATION)


def test_types_are_made_by_administrators_and_seen_by_all(site: Running) -> None:
    made = site.client.experiment_types.create(NewExperimentType(name="XPCS", description="speckle"))
    ada = user(site, "ada")
    assert ada.experiment_types.list() == [made]
    with pytest.raises(NotPermittedError):
        ada.experiment_types.create(NewExperimentType(name="SAXS"))
    with pytest.raises(AlreadyExistsError):
        site.client.experiment_types.create(NewExperimentType(name="XPCS"))
    changed = site.client.experiment_types.change("XPCS", ExperimentTypeChange(index_keys=("energy",)))
    assert (changed.description, changed.index_keys) == ("speckle", ("energy",))
    again = site.client.experiment_types.change("XPCS", ExperimentTypeChange(index_keys=None))
    assert again.index_keys is None
    assert ada.experiment_types.list() == [again]
    with pytest.raises(NotPermittedError):
        ada.experiment_types.change("XPCS", ExperimentTypeChange(description="mine"))
    with pytest.raises(NotFoundError):
        site.client.experiment_types.change("SAXS", ExperimentTypeChange(description="none"))
