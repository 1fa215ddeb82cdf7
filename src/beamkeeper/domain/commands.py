"""What the site wants of a station: commands that wait at the site until the station collects them."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from beamkeeper.domain.acquisition import NewDaq, NewUpload
from beamkeeper.domain.names import Input, Metadata, Model, StationName, Title, Uid, UtcTime, WireInt

LONGEST_HOURS = 168


class CommandKind(StrEnum):
    """Everything that a station can be asked to do from afar; nothing else is taken."""

    START_DAQ = "start-daq"
    START_UPLOAD = "start-upload"
    STOP = "stop"


class CommandState(StrEnum):
    """Where a command stands."""

    WAITING = "waiting"
    DONE = "done"
    REFUSED = "refused"
    EXPIRED = "expired"
    """The station did not collect it in time, and will not do it any more."""


class NewCommand(Input):
    """A command for a station; asking again with the same uid gives the same command, and it is done once."""

    uid: Uid
    kind: CommandKind
    experiment_uid: Uid
    daq: NewDaq | None = Field(default=None, description="Of `start-daq`; its uid becomes that of the command.")
    upload: NewUpload | None = Field(default=None, description="Of `start-upload`, likewise.")
    acquisition_uid: Uid | None = Field(default=None, description="Of `stop`: which DAQ or upload.")
    now: bool = Field(default=False, description="Of `stop`: leave the rest to a later DAQ.")
    hours: float = Field(default=1.0, gt=0, le=LONGEST_HOURS, description="How long it may wait for the station.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        given = {"daq": self.daq, "upload": self.upload, "acquisition_uid": self.acquisition_uid}
        needed = {"start-daq": "daq", "start-upload": "upload", "stop": "acquisition_uid"}[self.kind]
        if [name for name, value in given.items() if value is not None] != [needed]:
            raise ValueError(f"a command {self.kind} has just `{needed}`")
        new = self.daq or self.upload
        if new is not None and (new.experiment_uid != self.experiment_uid or new.uid not in (None, self.uid)):
            raise ValueError("what is to be started is of the command's experiment, and has no uid of its own")
        return self


class Command(Model):
    """A command, on whose behalf, and what became of it."""

    uid: Uid
    station: StationName
    kind: CommandKind
    experiment_uid: Uid
    asked_by: str
    created_at: UtcTime
    expires_at: UtcTime
    state: CommandState
    code: str = Field(default="", description="Of a command that was refused: why, as a code of errors.")
    message: Title = ""
    answer: Metadata | None = Field(default=None, description="The DAQ or upload, as the station tells of it.")
    ended_at: UtcTime | None = None


class WaitingCommand(Model):
    """A command as the station gets it."""

    command: NewCommand
    asked_by_uid: Uid
    bound_experiment_uid: Uid | None = None
    identities: WireInt = Field(description="The station must know of identities up to this number first.")


class CommandAnswer(Input):
    """What became of a command at the station; the first answer counts."""

    is_done: bool
    code: str = ""
    message: Title = ""
    answer: Metadata | None = None
