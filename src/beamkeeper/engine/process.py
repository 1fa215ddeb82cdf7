"""The chain of processors that every stored file goes through: metadata, catalogue, and what a beamline adds."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit
from uuid import UUID

from beamkeeper.config.failpoints import FailPoint, hit
from beamkeeper.db.journal import Claimed
from beamkeeper.db.pictures import WantedPicture
from beamkeeper.domain.acquisition import Acquisition
from beamkeeper.domain.errors import DmError, NotFoundError, UnavailableError
from beamkeeper.domain.files import NewFile, ReadFrom, Verify
from beamkeeper.domain.names import Algorithm, Checksum, path_fields, to_b64
from beamkeeper.engine.scene import Scene
from beamkeeper.plugins.api import Catalogue, FileProcessor, Processed, ProcessorContext, StoredFile

LATEST = datetime(9999, 12, 31, tzinfo=UTC)
EARLIEST = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ChainResult:
    """What the chain made of one file."""

    error: str = ""
    is_final: bool = False
    """Trying again cannot help."""
    passed: StoredFile | None = None
    """The file with all its metadata, where every processor has taken it."""
    picture: WantedPicture | None = None
    """The small picture that is to be made of it then."""

    def as_error(self) -> DmError:
        """Return it as an error with a code."""
        return DmError(self.error, code="processor" if not self.is_final else "conflict")


class Chain:
    """The processors by name, and the order that the settings and a DAQ ask for."""

    def __init__(
        self,
        order: Sequence[str],
        processors: Callable[[str], FileProcessor],
        catalogue: Callable[[], Catalogue],
    ) -> None:
        self._order = list(order)
        self._processor = processors
        self._catalogue = catalogue

    def names(self, acquisition: Acquisition) -> list[str]:
        """Return the names of the processors for an acquisition, in order."""
        order = list(acquisition.processors) if acquisition.processors is not None else self._order
        return [name for name in order if name not in acquisition.skip_processors]

    def run(self, files: Sequence[Claimed], scene: Scene, *, stop: Callable[[], bool]) -> dict[UUID, ChainResult]:
        """Run the chain over files that are stored; one result each.

        UnavailableError of a processor is raised: the whole batch waits. Anything else that it raises fails
        the files for which it raises it, not the others and not the service.
        """
        context = ProcessorContext(scene.acquisition, scene.experiment, self._catalogue(), stop)
        results = {file.version_uid: ChainResult() for file in files}
        pictures: dict[UUID, WantedPicture] = {}
        going = [_stored(file, scene) for file in files]
        for name in self.names(scene.acquisition):
            if not going:
                break
            answers = self._answers(name, going, context)
            pictures |= _pictures(name, going, answers)
            going = self._passed(name, going, answers, results)
        uids = {file.new.version_uid: file for file in going}
        return results | {uid: ChainResult(passed=file, picture=pictures.get(uid)) for uid, file in uids.items()}

    def _passed(
        self,
        name: str,
        files: list[StoredFile],
        answers: Mapping[UUID, Processed],
        results: dict[UUID, ChainResult],
    ) -> list[StoredFile]:
        passed = []
        for file in files:
            answer = answers.get(file.new.version_uid)
            if answer is not None and answer.error:
                results[file.new.version_uid] = ChainResult(f'processor "{name}": {answer.error}')
            else:
                passed.append(_with_metadata(file, answer.metadata if answer else {}))
        return passed

    def _answers(self, name: str, files: Sequence[StoredFile], context: ProcessorContext) -> Mapping[UUID, Processed]:
        """Return what a processor says of files; where it raises for several, it gets each alone, to find which."""
        try:
            hit(FailPoint.PROCESSING)
            answers = self._processor(name).process(files, context)
            hit(FailPoint.PROCESSED)
            return {answer.version_uid: answer for answer in answers}
        except UnavailableError:
            raise
        except NotFoundError as error:
            raise UnavailableError(error.message) from error
        except Exception as error:
            if len(files) == 1:
                why = error.message if isinstance(error, DmError) else f"{type(error).__name__}: {error}"
                return {files[0].new.version_uid: Processed(files[0].new.version_uid, error=why)}
        found: dict[UUID, Processed] = {}
        for file in files:
            if context.stop():
                raise UnavailableError("the service stops; the batch goes on when it is up again")
            found.update(self._answers(name, [file], context))
        return found


def _pictures(
    name: str, files: Sequence[StoredFile], answers: Mapping[UUID, Processed]
) -> Mapping[UUID, WantedPicture]:
    """Return the pictures that a processor wants to make of files later."""
    wanted: dict[UUID, WantedPicture] = {}
    for file in files:
        answer = answers.get(file.new.version_uid)
        if answer is None or answer.picture is None or file.local_path is None:
            continue
        path = os.fsencode(file.local_path)
        with suppress(OSError):  # gone already
            uid = file.new.version_uid
            wanted[uid] = WantedPicture(uid, file.new.experiment_uid, path, name, dict(answer.picture), state_of(path))
    return wanted


def state_of(path: bytes) -> str:
    """Return how a stored file looks: other content under its name looks different."""
    found = os.stat(path)
    return f"{found.st_size} {found.st_mtime_ns}"


def _with_metadata(file: StoredFile, more: Mapping[str, object]) -> StoredFile:
    if not more:
        return file
    merged = {**file.new.metadata, **more}
    return replace(file, new=file.new.model_copy(update={"metadata": merged}))


def _stored(file: Claimed, scene: Scene) -> StoredFile:
    path, source = scene.path(file), scene.source(file)
    # From our own journal, where it is sound; the catalogue checks what it is sent.
    new = NewFile.model_construct(
        **path_fields(path),
        experiment_uid=scene.experiment.uid,
        version_uid=file.version_uid,
        number=file.number,
        kind=file.kind,
        size=file.identity.size,
        checksums=tuple(
            Checksum.model_construct(algorithm=Algorithm(c["algorithm"]), value=c["value"]) for c in file.checksums
        ),
        chunks=tuple(file.chunks),
        link_target_b64=to_b64(file.link_target) if file.link_target is not None else None,
        source=scene.origin(file),
        identity=file.identity,
        is_snapshot=file.is_snapshot,
        storage_area_uid=scene.area.uid,
        read_from=ReadFrom(file.read_from) if file.read_from else None,
        modified_at=_time(file.identity.mtime_ns),
        finished_at=file.finished_at,
        transferred_at=file.staged_at or file.finished_at,
        verified_at=file.stored_at if file.read_from else None,
        is_to_read=scene.acquisition.verify is not Verify.NONE and not file.read_from,
        also=scene.also,
        metadata=dict(scene.acquisition.metadata),
    )
    return StoredFile(new, _local(scene, path), source)


def _local(scene: Scene, path: bytes) -> Path | None:
    """Return where the stored bytes can be read here; only a mounted area has such a place."""
    url = urlsplit(scene.area.station_url)
    if url.scheme != "file":
        return None

    return Path(unquote(url.path)) / scene.experiment.directory / os.fsdecode(path)


def _time(nanoseconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(nanoseconds / 1e9, tz=UTC)
    except (OverflowError, ValueError, OSError):
        return LATEST if nanoseconds > 0 else EARLIEST
