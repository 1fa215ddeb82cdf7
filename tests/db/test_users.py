"""The tables of users, roles and sessions, on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest

from beamkeeper.db import Database, StorageTransaction
from beamkeeper.db.base import new_uid
from beamkeeper.domain.errors import AlreadyExistsError, InvalidError, NotFoundError
from beamkeeper.domain.experiments import Experiment, Member, NewExperiment, NewStation
from beamkeeper.domain.storage import NewStorageArea
from beamkeeper.domain.users import SESSIONS_KEPT, Grant, NewUser, Role, User, UserChange
from beamkeeper.testing.beamline import Clock

Storage = Database[StorageTransaction]


def add(storage: Storage, name: str = "ada", **fields: object) -> User:
    with storage.write() as tx:
        return tx.users.add(NewUser.model_validate({"username": name, **fields}))


def experiment(storage: Storage) -> Experiment:
    with storage.write() as tx:
        area = tx.storage.add(NewStorageArea(name="hot", station_url="file:///s", path="/s"))
        station = tx.experiments.add_station(NewStation(name="8ID"))
        new = NewExperiment(name="coffee", station="8ID")
        return tx.experiments.add(new, station=station, cycle="1", area_uid=area.uid, directory="1/coffee")


def test_a_user_comes_back_as_made(storage: Storage, clock: Clock) -> None:
    user = add(storage, full_name="Ada Löwe", email="a@b", badge="7", is_shared=True)
    with storage.read() as tx:
        assert tx.users.get(user.uid) == tx.users.named("ada") == user
    assert (user.full_name, user.is_shared, user.is_enabled, user.created_at) == ("Ada Löwe", True, True, clock.now)


def test_users_are_numbered_and_a_name_is_given_once(storage: Storage) -> None:
    assert [add(storage, name).number for name in ("ada", "bob")] == [1, 2]
    with pytest.raises(AlreadyExistsError, match='"ada"'):
        add(storage)
    assert add(storage, "eve").number == 3


def test_an_unknown_user_is_none_or_an_error_that_names_it(storage: Storage) -> None:
    with storage.read() as tx:
        assert tx.users.find("ada") is None
        with pytest.raises(NotFoundError, match='"ada"'):
            tx.users.named("ada")
        with pytest.raises(NotFoundError):
            tx.users.get(new_uid())


def test_pages_hold_every_user_once_in_byte_order(storage: Storage) -> None:
    names = ["a-b", "a.b", "a_b", "ab", "b", "_a"]
    for name in names:
        add(storage, name)
    found: list[str] = []
    after: str | None = None
    with storage.read() as tx:
        while True:
            page = tx.users.page(after=after, limit=4)
            found.extend(user.username for user in page.items)
            if (after := page.next) is None:
                break
        with pytest.raises(InvalidError, match="cursor"):
            tx.users.page(after="nonsense", limit=2)
    assert found == sorted(names)


def test_a_change_leaves_what_is_not_given(storage: Storage) -> None:
    user = add(storage, full_name="Ada", email="a@b")
    with storage.write() as tx:
        changed = tx.users.change(user.uid, UserChange(email="", is_enabled=False))
    assert changed == user.model_copy(update={"email": "", "is_enabled": False})


def test_a_password_hash_is_replaced(storage: Storage) -> None:
    user = add(storage)
    with storage.write() as tx:
        assert tx.users.password_hash(user.uid) is None
        for text in ("one", "two"):
            tx.users.set_password_hash(user.uid, text)
        assert tx.users.password_hash(user.uid) == "two"


def test_a_role_is_held_once_taken_back_and_given_again(storage: Storage) -> None:
    user = add(storage)
    grant = Grant(user_uid=user.uid, role=Role.ADMINISTRATOR)
    for _ in range(2):
        with storage.write() as tx:
            tx.users.grant(grant)
            tx.users.grant(grant)
            assert tx.users.grants_of(user.uid) == [grant]
            assert not tx.users.is_granted(Role.ADMINISTRATOR, besides=user.uid)
            assert tx.users.is_granted(Role.ADMINISTRATOR, besides=new_uid())
        with storage.write() as tx:
            assert tx.users.revoke(grant)
            assert not tx.users.revoke(grant)
            assert tx.users.grants_of(user.uid) == []


def test_a_disabled_administrator_does_not_count(storage: Storage) -> None:
    user = add(storage)
    with storage.write() as tx:
        tx.users.grant(Grant(user_uid=user.uid, role=Role.ADMINISTRATOR))
        tx.users.change(user.uid, UserChange(is_enabled=False))
        assert not tx.users.is_granted(Role.ADMINISTRATOR, besides=new_uid())


def test_members_are_those_with_a_role_in_the_experiment(storage: Storage) -> None:
    of, bob, ada = experiment(storage), add(storage, "bob"), add(storage, full_name="Ada")
    with storage.write() as tx:
        tx.users.grant(Grant(user_uid=bob.uid, role=Role.USER, experiment_uid=of.uid))
        tx.users.grant(Grant(user_uid=ada.uid, role=Role.PI, experiment_uid=of.uid))
        tx.users.grant(Grant(user_uid=ada.uid, role=Role.STATION_VIEWER, station_uid=of.station_uid))
        assert tx.users.members(of.uid) == [
            Member(username="ada", full_name="Ada", role=Role.PI),
            Member(username="bob", role=Role.USER),
        ]


def test_a_session_is_found_by_the_hash_of_its_token(storage: Storage, clock: Clock) -> None:
    user, of = add(storage), experiment(storage)
    with storage.write() as tx:
        made = tx.users.add_session("a" * 64, user_uid=user.uid, experiment_uid=of.uid, expires_at=clock.now)
        key = tx.users.add_session("b" * 64, station_uid=of.station_uid)
    with storage.read() as tx:
        assert tx.users.session_of("a" * 64) == tx.users.get_session(made.uid) == made
        assert tx.users.session_of("b" * 64) == key
        assert tx.users.session_of("c" * 64) is None


def test_sessions_that_hold_are_those_not_expired_nor_revoked(storage: Storage, clock: Clock) -> None:
    user = add(storage)
    with storage.write() as tx:
        kept, revoked, short = (
            tx.users.add_session(letter * 64, user_uid=user.uid, expires_at=clock.now + timedelta(seconds=seconds))
            for letter, seconds in (("a", 100), ("b", 100), ("c", 10))
        )
        tx.users.revoke_sessions([revoked.uid])
    with storage.read() as tx:
        assert {session.uid for session in tx.users.sessions_of(user.uid)} == {kept.uid, short.uid}
    revoked_at = clock.now
    clock.tick(10)
    with storage.write() as tx:
        assert [session.uid for session in tx.users.sessions_of(user.uid)] == [kept.uid]
        tx.users.revoke_sessions([revoked.uid])
        assert tx.users.get_session(revoked.uid).revoked_at == revoked_at
        tx.users.forget_sessions()
        assert tx.users.session_of("c" * 64) is not None
    clock.tick(SESSIONS_KEPT.total_seconds() + 1)
    with storage.write() as tx:
        tx.users.forget_sessions()
        assert tx.users.session_of("c" * 64) is None
        assert tx.users.session_of("a" * 64) == kept
