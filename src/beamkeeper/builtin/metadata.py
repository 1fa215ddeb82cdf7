"""Metadata on arrival: what the files say of themselves, and what a beamline's own program says of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from pydantic import Field, JsonValue

from beamkeeper.builtin.program import run_program
from beamkeeper.builtin.values import from_output
from beamkeeper.builtin.worker import ExtractionWorker
from beamkeeper.config.failpoints import is_armed
from beamkeeper.domain.errors import SettingsError, UnavailableError
from beamkeeper.domain.files import FileKind
from beamkeeper.plugins.api import Options, Processed, ProcessorContext, StoredFile
from beamkeeper.plugins.extractors import ExtractionError, Recognised, Recogniser, packed, shipped
from beamkeeper.plugins.helpers import HelperEndedError, Helpers

EXTRACTION = "extraction"
"""Under this key a file's metadata say why there are no more of them."""

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
    idle_s: float = Field(default=60.0, gt=0, description="After this time without work the reading process ends.")


class MetadataProcessor:
    """Reads files by the extractors that are installed, in a process of its own, and runs the beamline's program."""

    options: ClassVar[type[Options]] = MetadataOptions
    summary: ClassVar[str] = "Reads the metadata of files by the extractors, and runs a program of one's own."

    def __init__(self, options: MetadataOptions) -> None:
        self._options = options
        self._executable = _checked(options.executable)
        self.worker = ExtractionWorker(
            timeout_s=options.timeout_s,
            idle_s=options.idle_s,
            max_answer_bytes=options.max_output_bytes,
            memory_bytes=options.memory_bytes,
        )
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
            answers.append(Processed(file.new.version_uid, self._found(file, known)))
        return answers

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

    def _found(self, file: StoredFile, known: _Known) -> dict[str, JsonValue]:
        if file.kind is not FileKind.FILE or file.local_path is None:
            return {}
        path = os.fsencode(file.local_path)
        found: dict[str, JsonValue] = {}
        reasons = []
        for read in (partial(self._read, known), self._run):
            try:
                found |= read(path)
            except ExtractionError as error:
                reasons.append(str(error))
            except OSError as error:
                reasons.append(f"the file cannot be read: {os.strerror(error.errno or 0)}")
        if reasons:
            found[EXTRACTION] = {"error": "; ".join(dict.fromkeys(reasons))}
        return {key: value for key, value in found.items() if key not in file.new.metadata}

    def _read(self, known: _Known, path: bytes) -> dict[str, JsonValue]:
        found = known[path] if path in known else self._recogniser.recognise(path)
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
