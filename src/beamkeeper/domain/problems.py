"""Problems: what somebody should know of at once, and a site's own hook is told of."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from beamkeeper.domain.names import Model, Uid, UtcTime


class ProblemKind(StrEnum):
    """What went wrong."""

    WATCH_RESTARTED = "watch-restarted"
    """A watch was dead, or could not be started; files are found by scans until it works."""
    QUEUE_OVERFLOW = "queue-overflow"
    """The kernel could not keep all changes; everything is scanned."""
    DIRECTORY_UNAVAILABLE = "directory-unavailable"
    """A watched directory is not there, or is another mount."""
    DIRECTORY_REPLACED = "directory-replaced"
    """Another directory stands where the watched one was."""
    DIRECTORY_BACK = "directory-back"
    """A watched directory is there again: the one good news."""
    FILES_QUARANTINED = "files-quarantined"
    """Files cannot be delivered without somebody's help."""
    FILES_UNFINISHED = "files-unfinished"
    """Files are stored as their writer left them, and by all signs it did not finish them: it may have been killed."""
    DESTINATION_PAUSED = "destination-paused"
    """The storage takes nothing for now."""
    COPIES_DAMAGED = "copies-damaged"
    """Copies in the storage have other bytes, are not there, or cannot be read: a scrub found them, twice."""
    NAMES_DIFFER = "names-differ"
    """What stands in the storage is not what is catalogued: two audits found it, one after the other."""
    AUDIT_STOPPED = "audit-stopped"
    """An audit has found so much that it no longer believes it: part of the storage may not be mounted."""
    PUT_EXPIRED = "put-expired"
    """The client of a put never came back: the put is given up, and what it sent is removed."""
    EXPERIMENT_CHANGED = "experiment-changed"
    """An experiment that was made while the station was cut off has another name at the site, or is refused there."""
    DAQ_FAILED = "daq-failed"
    """A DAQ or upload has ended without all of its files."""


class Problem(Model):
    """One problem, or several of one kind and of one DAQ or upload that came close together."""

    kind: ProblemKind
    message: str
    at: UtcTime
    acquisition_uid: Uid | None = None
    experiment: str = ""
    directory: str = Field(default="", description="The watched directory, as it is shown.")
    count: int = Field(default=1, description="How many times it happened, or how many files it concerns.")
    paths: tuple[str, ...] = Field(default=(), description="The first of the files, as they are shown.")
