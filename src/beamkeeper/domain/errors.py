"""The one tree of errors, each class with a stable code that crosses the wire.

    DmError                         error
    ├── InvalidError                invalid             a value or a request is wrong
    │   ├── SettingsError           settings            a setting is wrong, unknown or missing
    │   ├── TooLargeError           too_large           more than we accept at once
    │   └── UnsafeValueError        unsafe_value        a value that a command would read as more than a value
    ├── NotAuthenticatedError       not_authenticated   nobody, or a session that has ended
    ├── TooManyAttemptsError        too_many_attempts   logins failed too often: try again after a while
    ├── NotPermittedError           not_permitted       somebody who may not do this
    ├── NotFoundError               not_found           no such thing, or none that the caller may see
    ├── ConflictError               conflict            the thing is in a state that forbids it
    │   ├── AlreadyExistsError      already_exists      the name is taken
    │   └── OverlapError            overlap             a running DAQ holds the directory
    ├── GoneError                   gone                a cursor that is beyond retention
    ├── UnavailableError            unavailable         try again: a service or database does not answer
    │   ├── CollisionError          collision           another call writes the same at this moment
    │   └── MirrorBehindError       mirror_behind       this service has not yet heard of a recent change
    ├── FileError                   file                a file could not be handled
    │   ├── SourceError             source              at the source: unreadable, changed, gone
    │   └── DestinationError        destination         at the storage: full, read-only, not there
    └── InternalError               internal            our own fault

Source and destination have different types so that a failing storage can never be taken for a warning
about one file (borg#9853).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class DmError(Exception):
    """Anything that Beamkeeper refuses or fails to do; catch this to catch all of it.

    The message is one sentence that names the thing, what is wrong and what to do. `details` holds the same
    facts as data (JSON values only) for programs.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.details: Mapping[str, object] = details


class InvalidError(DmError):
    """A value or a request is wrong."""

    code = "invalid"


class SettingsError(InvalidError):
    """A setting is wrong, unknown or missing."""

    code = "settings"


class TooLargeError(InvalidError):
    """More than is accepted at once."""

    code = "too_large"


class UnsafeValueError(InvalidError):
    """A value would be read as code where a command has it; the stage fails before it begins."""

    code = "unsafe_value"


class NotAuthenticatedError(DmError):
    """Nobody, or a session that has ended."""

    code = "not_authenticated"


class TooManyAttemptsError(DmError):
    """Logins failed too often, of this account or from this place; `retry_after_s` says how long to wait."""

    code = "too_many_attempts"


class NotPermittedError(DmError):
    """Somebody who may not do this."""

    code = "not_permitted"


class NotFoundError(DmError):
    """No such thing, or none that the caller may see."""

    code = "not_found"


class ConflictError(DmError):
    """The thing is in a state that forbids it."""

    code = "conflict"


class AlreadyExistsError(ConflictError):
    """The name is taken."""

    code = "already_exists"


class OverlapError(ConflictError):
    """A running DAQ holds the directory, or one above or below it."""

    code = "overlap"


class GoneError(DmError):
    """A cursor that is beyond retention; list again and go on from there."""

    code = "gone"


class UnavailableError(DmError):
    """A service or database does not answer; trying again later may help."""

    code = "unavailable"


class CollisionError(UnavailableError):
    """Another call writes the same at this moment, or waits for this one as this one waits for that."""

    code = "collision"


class MirrorBehindError(UnavailableError):
    """This service has not yet heard of a change that the caller has just made."""

    code = "mirror_behind"


class FileError(DmError):
    """A file could not be handled."""

    code = "file"


class SourceError(FileError):
    """A fault at the source: unreadable, changed while it was copied, gone."""

    code = "source"


class DestinationError(FileError):
    """A fault at the storage: full, read-only, not there, other bytes than were sent."""

    code = "destination"


class InternalError(DmError):
    """Our own fault."""

    code = "internal"


def error_classes() -> dict[str, type[DmError]]:
    """Return every class of the tree by its code."""
    found: dict[str, type[DmError]] = {}
    waiting: list[type[DmError]] = [DmError]
    while waiting:
        cls = waiting.pop()
        found[cls.code] = cls
        waiting.extend(cls.__subclasses__())
    return found
