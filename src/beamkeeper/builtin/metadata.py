"""Metadata on arrival: what the files say of themselves, and what a beamline's own program says of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, JsonValue

from beamkeeper.builtin.frames import picture_of
from beamkeeper.builtin.program import run_program
from beamkeeper.builtin.values import from_output
from beamkeeper.builtin.worker import ExtractionWorker
from beamkeeper.config.failpoints import is_armed
from beamkeeper.domain.errors import SettingsError, UnavailableError
from beamkeeper.domain.files import FileKind
from beamkeeper.domain.frames import FRAME
from beamkeeper.domain.metadata import EXTRACTION
from beamkeeper.plugins.api import Options, Picture, PictureError, Processed, ProcessorContext, StoredFile
from beamkeeper.plugins.extractors import ExtractionError, Recognised, Recogniser, packed, shipped
from beamkeeper.plugins.helpers import HelperEndedError, Helpers

HELPED_FILES = 32
"""So many files at once are recognised by a helper process."""

_Known = dict[bytes, Recognised | OSError | None]


class MetadataOptions(Options):
    """How metadata are extracted."""

    executable: Path | None = Field(
        default=None,
        description="A program of the beamline's own: run with a file's path, it prints JSON or `key: value` lines.",
    )
    timeout_s: float = Field(default=30.0, gt=0, le=3600, description="How long one file may take.")
    max_output_bytes: int = Field(
        default=64 * 1024, ge=1024, le=1024 * 1024, description="The most metadata of a file."
    )
    memory_bytes: int = Field(
        default=2 * 1024**3, ge=512 * 1024**2, description="The most memory of the reading process, and of the program."
    )
    without: tuple[str, ...] = Field(
        default=(), description="Extractors that are not to be used, by their names in `dm plugin list`."
    )
    thumbnails: bool = Field(
        default=True,
        description="Read the first frame of images too, when they are available, for its numbers and a small picture.",
    )
    idle_s: float = Field(default=60.0, gt=0, description="After this time without work the reading process ends.")


class MetadataProcessor:
    """Reads files by the extractors that are installed, in a process of its own, and runs the beamline's program."""

    options: ClassVar[type[Options]] = MetadataOptions
    summary: ClassVar[str] = "Reads the metadata of files by the extractors, and runs a program of one's own."

    def __init__(self, options: MetadataOptions) -> None:
        self._options = options
        self._executable = _checked(options.executable)
        limits: dict[str, Any] = {
            "timeout_s": options.timeout_s,
            "idle_s": options.idle_s,
            "max_answer_bytes": options.max_output_bytes,
            "memory_bytes": options.memory_bytes,
        }
        self.worker = ExtractionWorker(**limits)
        self.artist = ExtractionWorker(**limits, is_last=True)
        formats = shipped(options.without)
        self._recogniser = Recogniser(formats)
        self._packed = packed(formats)
        self.helpers = Helpers("beamkeeper.plugins.extractors")

    def process(self, files: Sequence[StoredFile], context: ProcessorContext) -> Sequence[Processed]:
        """Return what is found of each file; a broken file gives the reason in place of its metadata."""
        answers = []
        known = self._recognised(
            [os.fsencode(f.local_path) for f in files if f.local_path is not None and f.kind is FileKind.FILE]
        )
        for file in files:
            if context.stop():
                raise UnavailableError("metadata: stopped in the middle of a batch, which is taken again later")
            answers.append(self._processed(file, known))
        return answers

    def picture(self, path: Path, told: Mapping[str, JsonValue]) -> Picture | None:
        """Return the small picture of a file's first frame, made in a process of its own."""
        try:
            return self.artist.picture(os.fsencode(path), told)
        except ExtractionError as error:
            raise PictureError(str(error)) from error

    def _recognised(self, paths: Sequence[bytes]) -> _Known:
        """Return which extractor each file is for, where many are asked at once; the others are looked at one by one.

        Each has to be opened for it, and calls to the kernel cost a helper process less than they do here.
        """
        if len(paths) < HELPED_FILES or is_armed():
            return {}
        known: _Known = dict.fromkeys(paths)
        try:
            order = {"formats": self._packed, "paths": [os.fsdecode(path) for path in paths]}
            for place, found in self.helpers.work([order], lambda moved: False):
                is_error = isinstance(found, int)
                known[paths[place]] = OSError(found, os.strerror(found)) if is_error else Recognised(*found)
        except HelperEndedError:
            return {}
        return known

    def _processed(self, file: StoredFile, known: _Known) -> Processed:
        if file.kind is not FileKind.FILE or file.local_path is None:
            return Processed(file.new.version_uid)
        path = os.fsencode(file.local_path)
        read: dict[str, JsonValue] = {}
        ran: dict[str, JsonValue] = {}
        reasons = []
        for step, found in ((partial(self._read, known), read), (self._run, ran)):
            try:
                found.update(step(path))
            except ExtractionError as error:
                reasons.append(str(error))
            except OSError as error:
                reasons.append(f"the file cannot be read: {os.strerror(error.errno or 0)}")
        every = read | ran
        if reasons:
            every[EXTRACTION] = {"error": "; ".join(dict.fromkeys(reasons))}
        metadata = {key: value for key, value in every.items() if key not in file.new.metadata}
        is_wanted = self._options.thumbnails and FRAME not in file.new.metadata
        return Processed(file.new.version_uid, metadata, picture=_picture(known, path, read) if is_wanted else None)

    def _read(self, known: _Known, path: bytes) -> dict[str, JsonValue]:
        if path not in known:
            known[path] = self._recogniser.recognise(path)
        found = known[path]
        if isinstance(found, OSError):
            raise found
        return {} if found is None else self.worker.extract(found, path)

    def _run(self, path: bytes) -> dict[str, JsonValue]:
        if self._executable is None:
            return {}
        output = run_program(
            self._executable,
            path,
            timeout_s=self._options.timeout_s,
            max_output_bytes=self._options.max_output_bytes,
            memory_bytes=self._options.memory_bytes,
        )
        try:
            return from_output(output)
        except ExtractionError as error:
            raise ExtractionError(f"{self._executable}: {error}") from error


def _picture(known: _Known, path: bytes, metadata: Mapping[str, JsonValue]) -> Mapping[str, JsonValue] | None:
    """Return what is to be known to make the picture of a file; None where there is no frame."""
    of = known.get(path)
    return picture_of(of.extractor, metadata) if isinstance(of, Recognised) else None


def _checked(executable: Path | None) -> str | None:
    """Return the program's path; refuse at the start what could not be run later."""
    if executable is None:
        return None
    if not executable.is_absolute() or not executable.is_file() or not os.access(executable, os.X_OK):
        raise SettingsError(
            f'plugin "metadata": setting "executable" is wrong: "{executable}" is not the absolute path of a program '
            "that may be run here"
        )
    return str(executable)
