"""Commands for stations: given at the site by those who may, done at the station for those who still may."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from beamkeeper.core import acquisition, rights
from beamkeeper.core.sources import Rules
from beamkeeper.db import AcquisitionTransaction, Database, StorageTransaction, Transaction
from beamkeeper.db.commands import HeldCommand
from beamkeeper.domain.acquisition import Acquisition, StopRequest
from beamkeeper.domain.commands import Command, CommandAnswer, CommandKind, NewCommand, WaitingCommand
from beamkeeper.domain.errors import DmError, InvalidError, NotFoundError, NotPermittedError, UnavailableError
from beamkeeper.domain.events import NewEvent
from beamkeeper.domain.users import Action, Caller, Target, may, require

CHANGED = "command.changed"


def give(tx: StorageTransaction, caller: Caller, station: str, new: NewCommand) -> Command:
    """Let a command wait for a station; the same uid again gives the same command."""
    experiment = rights.experiment(tx, caller, Action.ACQUISITION_RUN, new.experiment_uid)
    if experiment.station != station:
        raise InvalidError(f'experiment "{experiment.name}" is of station "{experiment.station}", not of "{station}"')
    if caller.user_uid is None:
        raise NotPermittedError("a command is given by a person: a station's services act at the station themselves")
    found = tx.commands.find(new.uid)
    if found is None:
        tx.commands.add(
            new,
            station_uid=experiment.station_uid,
            user_uid=caller.user_uid,
            by=caller.username,
            bound=caller.bound_experiment_uid,
            identities=tx.mirror.latest(),
        )
        _tell(tx, found := tx.commands.get(new.uid))
    elif found.user_uid != caller.user_uid or found.new != new:
        raise NotFoundError(f"{new.uid} is another command: give each a uid of its own")
    return _command(tx, found)


def show(tx: StorageTransaction, caller: Caller, uid: UUID) -> Command:
    """Return a command: to whoever gave it, and to the station's staff."""
    found = tx.commands.get(uid)
    if not _may_see(caller, found):
        raise NotFoundError(f"there is no command {uid}", uid=str(uid))
    return _command(tx, found)


def list_(tx: StorageTransaction, caller: Caller, station: str, *, limit: int) -> Sequence[Command]:
    """Return the commands of a station that the caller may see, newest first."""
    uid = tx.experiments.station_named(station).uid
    if may(caller, Action.STATION_READ, Target(station_uid=uid)):
        return [_command(tx, each) for each in tx.commands.of_station(uid, limit=limit)]
    if caller.user_uid is None:
        return ()
    own = tx.commands.of_station(uid, limit=limit, user_uid=caller.user_uid, bound=caller.bound_experiment_uid)
    return [_command(tx, each) for each in own]


def _may_see(caller: Caller, found: HeldCommand) -> bool:
    is_own = caller.user_uid == found.user_uid and caller.bound_experiment_uid in (None, found.new.experiment_uid)
    return is_own or may(caller, Action.STATION_READ, Target(station_uid=found.station_uid))


def waiting(tx: StorageTransaction, caller: Caller) -> Sequence[WaitingCommand]:
    """Return the commands that the calling station should do now."""
    require(caller, Action.COMMAND_COLLECT, Target(station_uid=caller.station_uid), "the commands of a station")
    if caller.station_uid is None:
        return ()
    return [
        WaitingCommand(
            command=each.new,
            asked_by_uid=each.user_uid,
            bound_experiment_uid=each.bound_experiment_uid,
            identities=each.identities,
        )
        for each in tx.commands.waiting(caller.station_uid)
    ]


def answered(tx: StorageTransaction, caller: Caller, uid: UUID, answer: CommandAnswer) -> Command:
    """Keep what became of a command of the calling station; the first answer counts."""
    found = tx.commands.get(uid)
    require(caller, Action.COMMAND_COLLECT, Target(station_uid=found.station_uid), f"command {uid}")
    tx.commands.end(uid, answer)
    _tell(tx, found := tx.commands.get(uid))
    return _command(tx, found)


def _tell(tx: StorageTransaction, found: HeldCommand) -> None:
    facts = {"uid": str(found.new.uid), "state": str(found.state)}
    news = NewEvent(kind=CHANGED, station_uid=found.station_uid, experiment_uid=found.new.experiment_uid, data=facts)
    tx.events.add(news)


def _command(tx: StorageTransaction, found: HeldCommand) -> Command:
    return Command(
        uid=found.new.uid,
        station=tx.experiments.get_station(found.station_uid).name,
        kind=found.new.kind,
        experiment_uid=found.new.experiment_uid,
        asked_by=found.asked_by,
        created_at=found.created_at,
        expires_at=found.expires_at,
        state=found.state,
        code=found.code,
        message=found.message,
        answer=found.answer,
        ended_at=found.ended_at,
    )


def knows(tx: Transaction, waiting: WaitingCommand) -> bool:
    """At the station: whether its mirror has everything that the command may be about."""
    state = tx.mirror.state()
    return state is not None and state.number >= waiting.identities


def carry_out(database: Database[AcquisitionTransaction], waiting: WaitingCommand, *, rules: Rules) -> CommandAnswer:
    """At the station: do a command with the rights that its giver has here and now; doing it twice does it once."""
    try:
        done = _carry_out(database, waiting, rules)
    except UnavailableError:
        raise
    except DmError as error:
        return CommandAnswer(is_done=False, code=error.code, message=error.message[:2000])
    return CommandAnswer(is_done=True, answer=done.model_dump(mode="json"))


def _carry_out(database: Database[AcquisitionTransaction], waiting: WaitingCommand, rules: Rules) -> Acquisition:
    command = waiting.command
    with database.read() as tx:
        caller = _giver(tx, waiting)
    if command.kind is CommandKind.STOP and command.acquisition_uid is not None:
        with database.write() as tx:
            found = acquisition.readable(tx, caller, command.acquisition_uid, kind=None)
            if found.experiment_uid != command.experiment_uid:
                raise NotFoundError(f"experiment {command.experiment_uid} has no DAQ or upload {found.uid}")
            return acquisition.stop(tx, caller, found.uid, request=StopRequest(now=command.now))
    new = command.daq or command.upload
    if new is None:
        raise InvalidError(f"command {command.uid} says not what is to be done")
    new = new.model_copy(update={"uid": command.uid})
    with database.read() as tx:
        place = acquisition.look(tx, caller, new, rules=rules)  # with no writing transaction: a disk may hang
    with database.write() as tx:
        if command.daq is not None:
            return acquisition.start_daq(tx, caller, new, place=place)  # type: ignore[arg-type]
        return acquisition.start_upload(tx, caller, new, place=place)  # type: ignore[arg-type]


def _giver(tx: Transaction, waiting: WaitingCommand) -> Caller:
    user = tx.users.get(waiting.asked_by_uid)
    if not user.is_enabled:
        raise NotPermittedError(f'the account "{user.username}" is disabled')
    return Caller(
        username=user.username,
        user_uid=user.uid,
        bound_experiment_uid=waiting.bound_experiment_uid,
        grants=tuple(tx.users.grants_of(user.uid)),
    )
