"""The mirror of identities: what a station's database takes over from the storage service's, on both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from beamkeeper.db import CatalogTransaction, Database, StorageTransaction
from beamkeeper.db.schema import create
from beamkeeper.domain.experiments import Experiment, ExperimentChange, NewExperiment, NewExperimentType, NewStation
from beamkeeper.domain.mirror import Mirror
from beamkeeper.domain.status import Service
from beamkeeper.domain.storage import NewStorageArea
from beamkeeper.domain.users import SESSIONS_KEPT, Grant, NewUser, Role, User, UserChange
from beamkeeper.testing.beamline import Clock

Storage = Database[StorageTransaction]
Catalog = Database[CatalogTransaction]


@pytest.fixture
def source(tmp_path: Path, clock: Clock) -> Iterator[Storage]:
    """A storage service's database, from which another of the kind under test is mirrored."""
    with closing(Database(f"sqlite:///{tmp_path / 'source.db'}", StorageTransaction, clock=clock)) as database:
        create(database, Service.STORAGE)
        yield database


@pytest.fixture
def mirror(database_url: str, clock: Clock) -> Iterator[Catalog]:
    with closing(Database(database_url, CatalogTransaction, clock=clock)) as database:
        create(database, Service.CATALOG)
        yield database


def fill(storage: Storage, clock: Clock, name: str = "ada") -> tuple[User, Experiment]:
    with storage.write() as tx:
        area = (tx.storage.list() or [tx.storage.add(NewStorageArea(name="hot", station_url="file:///s", path="/s"))])[
            0
        ]
        station = tx.experiments.find_station("8ID") or tx.experiments.add_station(NewStation(name="8ID"))
        user = tx.users.add(NewUser(username=name))
        tx.users.set_password_hash(user.uid, "secret")
        user = tx.users.get(user.uid)
        tx.experiments.add_type(NewExperimentType(name=f"type-of-{name}", index_keys=["a"] if name == "ada" else None))
        made = tx.experiments.add(
            NewExperiment(name=f"of-{name}", station="8ID", metadata={"a": [1]}),
            station=station,
            cycle="1",
            area_uid=area.uid,
            directory=f"1/of-{name}",
        )
        tx.users.grant(Grant(user_uid=user.uid, role=Role.PI, experiment_uid=made.uid))
        tx.users.add_session((name * 64)[:64], user_uid=user.uid, expires_at=clock.now + timedelta(hours=1))
        return user, made


def changed(storage: Storage, after: int = 0) -> Mirror:
    with storage.read() as tx:
        return tx.mirror.changed(after)


def apply(mirror: Catalog, news: Mirror) -> None:
    with mirror.write() as tx:
        tx.mirror.apply(news)


def identities(database: Database[Any]) -> dict[str, Any]:
    """Return all that a database holds of the identities, but for what is the storage service's own."""
    with database.read() as tx:
        found = tx.mirror.changed(0).model_dump()
    del found["epoch"], found["number"]
    return {
        key: sorted(value, key=lambda item: item["uid"]) if isinstance(value, list | tuple) else value
        for key, value in found.items()
    }


def test_a_whole_mirror_is_the_same_as_its_source(source: Storage, mirror: Catalog, clock: Clock) -> None:
    user, made = fill(source, clock)
    news = changed(source)
    assert news.is_whole
    assert "secret" not in news.model_dump_json()
    for _ in range(2):
        apply(mirror, Mirror.model_validate_json(news.model_dump_json()))
        assert identities(mirror) == identities(source)
    with mirror.read() as tx:
        state = tx.mirror.state()
        assert state is not None
        assert (state.epoch, state.number, state.heard_at) == (news.epoch, news.number, clock.now)
        assert tx.experiments.get(made.uid) == made
        assert [grant.role for grant in tx.users.grants_of(user.uid)] == [Role.PI]


def test_sessions_that_are_long_over_are_forgotten_in_the_mirror_too(
    source: Storage, mirror: Catalog, clock: Clock
) -> None:
    fill(source, clock)
    apply(mirror, changed(source))
    clock.tick((SESSIONS_KEPT + timedelta(hours=2)).total_seconds())
    before = changed(source).number
    fill(source, clock, "bob")
    apply(mirror, changed(source, before))
    with mirror.read() as tx:
        assert tx.users.session_of(("ada" * 64)[:64]) is None
        assert tx.users.session_of(("bob" * 64)[:64]) is not None


def test_a_mirror_that_was_never_filled_has_no_state(mirror: Catalog) -> None:
    with mirror.read() as tx:
        assert tx.mirror.state() is None


def test_what_changed_since_a_number_is_all_that_is_needed(source: Storage, mirror: Catalog, clock: Clock) -> None:
    ada, of_ada = fill(source, clock)
    bob, _ = fill(source, clock, "bob")
    apply(mirror, changed(source))
    before = changed(source).number
    with source.write() as tx:
        tx.users.change(ada.uid, UserChange(is_enabled=False))
        tx.users.revoke_sessions([session.uid for session in tx.users.sessions_of(bob.uid)])
        tx.users.revoke(Grant(user_uid=ada.uid, role=Role.PI, experiment_uid=of_ada.uid))
        tx.experiments.change(of_ada.uid, ExperimentChange(title="T"))
        tx.experiments.delete(of_ada.uid)
    fill(source, clock, "eve")
    news = changed(source, before)
    assert not news.is_whole
    assert {user.username for user in news.users} == {"ada", "eve"}
    assert {experiment.name for experiment in news.experiments} == {"of-ada", "of-eve"}
    assert [station.name for station in news.stations] == []
    assert [kind.name for kind in news.experiment_types] == ["type-of-eve"]
    apply(mirror, news)
    assert identities(mirror) == identities(source)
    with mirror.read() as tx:
        assert tx.users.grants_of(ada.uid) == []
        assert tx.users.sessions_of(bob.uid) == []
    assert changed(source, news.number).is_news is False


def test_changes_that_arrive_apart_end_the_same_as_together(source: Storage, mirror: Catalog, clock: Clock) -> None:
    number = 0
    for name in ("ada", "bob", "eve"):
        user, made = fill(source, clock, name)
        apply(mirror, news := changed(source, number))
        number = news.number
        with source.write() as tx:
            tx.users.revoke(Grant(user_uid=user.uid, role=Role.PI, experiment_uid=made.uid))
    apply(mirror, changed(source, number))
    assert identities(mirror) == identities(source)


def test_expired_and_revoked_sessions_are_not_in_a_whole_mirror(source: Storage, clock: Clock) -> None:
    user, _ = fill(source, clock)
    with source.write() as tx:
        revoked = tx.users.add_session("b" * 64, user_uid=user.uid, expires_at=clock.now + timedelta(days=9))
        tx.users.revoke_sessions([revoked.uid])
    assert len(changed(source).sessions) == 1
    clock.tick(3600)
    assert changed(source).sessions == ()


def test_a_mirror_of_another_storage_database_lets_nobody_in_from_the_old_one(
    source: Storage, mirror: Catalog, clock: Clock, tmp_path: Path
) -> None:
    user, made = fill(source, clock)
    apply(mirror, changed(source))
    with closing(Database(f"sqlite:///{tmp_path / 'restored.db'}", StorageTransaction, clock=clock)) as restored:
        create(restored, Service.STORAGE)
        new_user, new_made = fill(restored, clock)
        apply(mirror, changed(restored))
        with mirror.read() as tx:
            assert tx.users.named("ada") == new_user
            assert not tx.users.get(user.uid).is_enabled
            assert tx.users.grants_of(user.uid) == []
            assert tx.experiments.get(new_made.uid) == new_made
            assert tx.experiments.get(made.uid).name != made.name
            assert tx.experiments.find(new_made.station_uid, made.name) == new_made
        apply(mirror, changed(source))
        with mirror.read() as tx:
            assert tx.users.named("ada") == user
            assert tx.experiments.get(made.uid) == made


def test_applying_news_wakes_those_who_wait_for_it(source: Storage, mirror: Catalog, clock: Clock) -> None:
    fill(source, clock)
    news = changed(source)

    def is_there() -> bool:
        with mirror.read() as tx:
            state = tx.mirror.state()
            return state is not None and state.number >= news.number

    told = []
    ended = mirror.listen(lambda: told.append(1))
    waiting = Thread(target=lambda: told.append(mirror.wait(is_there, 30)))
    waiting.start()
    apply(mirror, news)
    waiting.join()
    ended()
    assert True in told


def test_the_latest_revision_moves_with_every_change_of_identities_and_nothing_else(
    storage: Storage, clock: Clock
) -> None:
    with storage.read() as tx:
        assert tx.mirror.latest() == 0
    user, _ = fill(storage, clock)
    seen = []
    acts: list[Callable[[StorageTransaction], object]] = [
        lambda tx: tx.users.change(user.uid, UserChange(email="x")),
        lambda tx: tx.users.add_session("d" * 64, user_uid=user.uid),
        lambda tx: tx.storage.add(NewStorageArea(name="more", station_url="file:///m", path="/m")),
        lambda tx: tx.experiments.add_station(NewStation(name="9ID")),
    ]
    for act in acts:
        with storage.write() as tx:
            act(tx)
        with storage.read() as tx:
            seen.append(tx.mirror.latest())
            assert tx.events.cursor().number >= seen[-1]
    assert seen == sorted(set(seen))
    with storage.write() as tx:
        tx.events.next_number()
    with storage.read() as tx:
        assert tx.mirror.latest() == seen[-1]
