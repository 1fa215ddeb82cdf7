"""Stored files, a context and a catalogue in memory, for tests of a FileProcessor."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue
from uuid6 import uuid7

from beamkeeper.domain.acquisition import Acquisition, Finished, Kind, State
from beamkeeper.domain.errors import TooLargeError
from beamkeeper.domain.experiments import Experiment, Tree
from beamkeeper.domain.files import (
    REGISTER_LIMIT,
    FileKind,
    NewFile,
    Registered,
    RegisteredAs,
    RegisteredFiles,
    Source,
    SourceIdentity,
)
from beamkeeper.domain.names import path_fields
from beamkeeper.plugins.api import Catalogue, ProcessorContext, StoredFile

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EXPERIMENT = uuid7()
AREA = uuid7()


def writable(path: Path) -> Path:
    """Return a stored file that may be written now, as only root and failing disks otherwise can."""
    path.chmod(path.stat().st_mode | 0o200)
    return path


def stored_file(
    path: Path, *, metadata: dict[str, JsonValue] | None = None, kind: FileKind = FileKind.FILE, is_local: bool = True
) -> StoredFile:
    """Return a file of this disk as the chain of processors gets it."""
    source = os.fsencode(path)
    new = NewFile(
        **path_fields(b"data/" + os.path.basename(source)),
        experiment_uid=EXPERIMENT,
        version_uid=uuid7(),
        number=1,
        kind=kind,
        size=0,
        source=Source(agent="here", **path_fields(source.lstrip(b"/"))),
        identity=SourceIdentity(dev=1, ino=1, size=0, mtime_ns=0, ctime_ns=0),
        storage_area_uid=AREA,
        modified_at=NOW,
        finished_at=NOW,
        transferred_at=NOW,
        metadata=metadata or {},
    )
    return StoredFile(new, path if is_local else None, source)


class MemoryCatalogue:
    """A catalogue that keeps what is registered; a path belongs to the version that came first."""

    def __init__(self) -> None:
        self.files: dict[str, NewFile] = {}
        self.calls: list[int] = []

    def register(self, files: Sequence[NewFile]) -> RegisteredFiles:
        """Register versions as the service does: idempotent, and never more than the limit."""
        self.calls.append(len(files))
        if len(files) > REGISTER_LIMIT:
            raise TooLargeError(f"{len(files)} files are too many: send at most {REGISTER_LIMIT}")
        return RegisteredFiles(files=[self._register(file) for file in files])

    def _register(self, file: NewFile) -> Registered:
        known = self.files.setdefault(file.path_b64, file)
        if known is file:
            result = RegisteredAs.CREATED
        else:
            result = RegisteredAs.EXISTS if known.version_uid == file.version_uid else RegisteredAs.CONFLICT
        message = "another source delivered this path first" if result is RegisteredAs.CONFLICT else ""
        return Registered(version_uid=file.version_uid, file_uid=None, result=result, message=message)


def _experiment() -> Experiment:
    return Experiment(
        uid=EXPERIMENT,
        number=1,
        name="test",
        station="15ID",
        station_uid=uuid7(),
        storage_area_uid=AREA,
        directory="2026-1/test",
        created_at=NOW,
    )


def processor_context(catalogue: Catalogue | None = None, stop: Callable[[], bool] = lambda: False) -> ProcessorContext:
    """Return what a processor may use, of a DAQ of an experiment `test`."""
    acquisition = Acquisition(
        **path_fields(b"detector"),
        uid=uuid7(),
        kind=Kind.DAQ,
        state=State.RUNNING,
        experiment_uid=EXPERIMENT,
        experiment="test",
        agent="here",
        destination="",
        tree=Tree.DATA,
        include=(),
        exclude=(),
        with_hidden=True,
        with_existing=True,
        resend=False,
        finished=Finished.EVIDENCE,
        quiet_s=None,
        metadata={},
        processors=None,
        skip_processors=(),
        max_run_time_s=None,
        started_by="tester",
        created_at=NOW,
    )
    return ProcessorContext(acquisition, _experiment(), catalogue or MemoryCatalogue(), stop)
