"""Commands for stations: who may give them, that they are done once, and with the rights of both ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import IntegrityError
from uuid6 import uuid7

from beamkeeper.client import Client
from beamkeeper.core.sources import Rules
from beamkeeper.domain.acquisition import NewDaq, State
from beamkeeper.domain.commands import Command, CommandAnswer, CommandKind, CommandState, NewCommand
from beamkeeper.domain.errors import DmError, InvalidError, NotFoundError, NotPermittedError
from beamkeeper.domain.names import to_b64
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import Role, UserChange
from beamkeeper.engine.commands import CommandLoop
from beamkeeper.testing.services import Running, running
from beamkeeper.testing.shelf import Shelf


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(Service.CATALOG, Service.ACQUISITION, directory=tmp_path_factory.mktemp("site")) as beamline:
        yield beamline


@pytest.fixture
def shelf(site: Running) -> Shelf:
    return Shelf(site)


@pytest.fixture
def loop(site: Running) -> CommandLoop:
    context = site.contexts[Service.ACQUISITION]
    return CommandLoop(context.database, site.as_service(), Rules.of(site.settings), report=print)


def start(shelf: Shelf, directory: Path, **more: Any) -> NewCommand:
    daq = NewDaq(experiment_uid=shelf.experiment.uid, path_b64=to_b64(bytes(directory).lstrip(b"/")))
    return NewCommand(uid=new_uid(), kind=CommandKind.START_DAQ, experiment_uid=shelf.experiment.uid, daq=daq, **more)


def stop(shelf: Shelf, uid: UUID) -> NewCommand:
    return NewCommand(
        uid=new_uid(), kind=CommandKind.STOP, experiment_uid=shelf.experiment.uid, acquisition_uid=uid, now=True
    )


def new_uid() -> UUID:
    return UUID(bytes=uuid7().bytes)


def give(client: Client, shelf: Shelf, new: NewCommand) -> Command:
    return client.commands.give(shelf.experiment.station, new)


def test_a_station_collects_what_it_is_to_do_and_does_it_once(
    shelf: Shelf, loop: CommandLoop, tmp_path: Path, site: Running
) -> None:
    new = start(shelf, tmp_path)
    given = give(shelf.client, shelf, new)
    assert (given.state, given.asked_by) == (CommandState.WAITING, site.bootstrap.operator.session.username)
    assert give(shelf.client, shelf, new) == given
    service = site.as_service()
    waiting = service.commands.waiting()
    assert [each.command for each in waiting] == [new]
    loop.step()
    done = shelf.client.commands.wait(new.uid, 10)
    assert done.state is CommandState.DONE
    daq = shelf.client.daqs.get(new.uid)
    assert (daq.started_by, daq.state) == (given.asked_by, State.PENDING)
    assert not service.commands.waiting()
    late = service.commands.answer(new.uid, CommandAnswer(is_done=False, code="conflict", message="a lost answer"))
    assert late == done
    ended = stop(shelf, new.uid)
    give(shelf.client, shelf, ended)
    loop.step()
    assert shelf.client.commands.get(ended.uid).state is CommandState.DONE
    assert shelf.client.daqs.get(new.uid).stop_requested_at is not None


def test_who_has_lost_the_right_meanwhile_is_refused_at_the_station(
    shelf: Shelf, loop: CommandLoop, tmp_path: Path
) -> None:
    name, person = shelf.named(Role.PI)
    station_manager, managing = shelf.named(Role.STATION_MANAGER)
    new = start(shelf, tmp_path)
    give(managing, shelf, new)
    other = stop(shelf, new.uid)
    give(person, shelf, other)
    shelf.client.users.change(station_manager, UserChange(is_enabled=False))
    shelf.client.experiments.remove_user(shelf.experiment.uid, name)
    loop.step()
    refused = [shelf.client.commands.get(each.uid) for each in (new, other)]
    assert [each.state for each in refused] == [CommandState.REFUSED, CommandState.REFUSED]
    assert "disabled" in refused[0].message
    with pytest.raises(NotFoundError):
        shelf.client.daqs.get(new.uid)


def test_a_refusal_at_the_station_is_told_with_its_reason(shelf: Shelf, loop: CommandLoop, tmp_path: Path) -> None:
    new = start(shelf, tmp_path / "absent")
    give(shelf.client, shelf, new)
    loop.step()
    told = shelf.client.commands.get(new.uid)
    assert (told.state, told.code) == (CommandState.REFUSED, "source")
    assert "absent" in told.message


def test_a_command_that_nobody_collected_in_time_is_not_done(shelf: Shelf, loop: CommandLoop, tmp_path: Path) -> None:
    new = start(shelf, tmp_path, hours=1e-9)
    give(shelf.client, shelf, new)
    assert shelf.client.commands.get(new.uid).state is CommandState.EXPIRED
    assert [each for each in shelf.site.as_service().commands.waiting() if each.command.uid == new.uid] == []


@pytest.mark.parametrize(
    ("role", "may"),
    [
        (Role.ADMINISTRATOR, True),
        (Role.STATION_MANAGER, True),
        (Role.STATION_VIEWER, False),
        (Role.PI, True),
        (Role.MANAGER, True),
        (Role.USER, True),
        (None, False),
    ],
)
def test_only_those_who_may_run_daqs_give_commands(shelf: Shelf, tmp_path: Path, role: Role | None, may: bool) -> None:
    person, other = shelf.person(role), shelf.person(Role.USER)
    new = start(shelf, tmp_path, hours=1e-9)
    with pytest.raises(NotPermittedError):
        person.commands.waiting()
    mine = start(shelf, tmp_path, hours=1e-9)
    give(shelf.client, shelf, mine)
    with pytest.raises(NotPermittedError):
        person.commands.answer(mine.uid, CommandAnswer(is_done=True))
    if may:
        assert give(person, shelf, new).uid == new.uid
        assert person.commands.get(new.uid).uid == new.uid
        with pytest.raises(NotFoundError):
            other.commands.get(new.uid)
        assert new.uid not in {each.uid for each in other.commands.list(shelf.experiment.station)}
        return
    with pytest.raises((NotPermittedError, NotFoundError)):
        give(person, shelf, new)


def test_a_command_that_cannot_be_done_yet_holds_up_no_other_experiment(
    shelf: Shelf, site: Running, loop: CommandLoop, tmp_path: Path
) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    new, other = start(shelf, tmp_path / "one"), Shelf(site)
    following, free = stop(shelf, new.uid), start(other, tmp_path / "other")
    give(shelf.client, shelf, new)
    give(shelf.client, shelf, following)
    give(other.client, other, free)
    engine = site.contexts[Service.ACQUISITION].database.engine.execution_options(beamkeeper_write=True)
    refuse = (
        f"CREATE TRIGGER refuse BEFORE INSERT ON acquisitions WHEN NEW.experiment_uid = '{shelf.experiment.uid.hex}' "
        "BEGIN SELECT RAISE(ABORT, 'not now'); END"
    )
    with engine.begin() as connection:
        connection.exec_driver_sql(refuse)
    try:
        with pytest.raises(IntegrityError, match="not now"):
            loop.step()
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TRIGGER refuse")
    states = [shelf.client.commands.get(each.uid).state for each in (new, following, free)]
    assert states == [CommandState.WAITING, CommandState.WAITING, CommandState.DONE]
    loop.step()
    assert shelf.client.commands.get(following.uid).state is CommandState.DONE
    ended = stop(other, free.uid)
    give(other.client, other, ended)
    loop.step()


def test_one_finds_ones_own_commands_among_many_of_others(shelf: Shelf, tmp_path: Path) -> None:
    person, other = shelf.person(Role.USER), shelf.person(Role.USER)
    mine = start(shelf, tmp_path, hours=1e-9)
    give(person, shelf, mine)
    for _ in range(3):
        give(other, shelf, start(shelf, tmp_path, hours=1e-9))
    path = f"/api/v1/stations/{shelf.experiment.station}/commands"
    found = person.http(Service.STORAGE).get(path, Sequence[Command], query={"limit": 1})
    assert [each.uid for each in found] == [mine.uid]


def test_commands_that_make_no_sense_are_refused(shelf: Shelf, tmp_path: Path) -> None:
    new = start(shelf, tmp_path, hours=1e-9)
    with pytest.raises(DmError):
        shelf.client.commands.give("NOWHERE", new)
    plain = new.model_dump(mode="json", exclude_none=True)
    for change in ({"kind": "run-anything"}, {"kind": "stop"}, {"acquisition_uid": str(new_uid())}, {"hours": 0}):
        with pytest.raises(InvalidError):
            shelf.client.http(Service.STORAGE).call(
                "POST", f"/api/v1/stations/{shelf.experiment.station}/commands", Command, body={**plain, **change}
            )
