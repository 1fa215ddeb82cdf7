"""Where the demo keeps everything: a directory of its own, with a mark, a lock and the state of its runs."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field, ValidationError

from beamkeeper.domain.errors import ConflictError, SettingsError
from beamkeeper.domain.names import ExperimentName, Input, UtcTime

MARK = ".beamkeeper-demo"
_MARK_TEXT = "This directory was made by `dm demo`, which may remove everything in it.\n"
_LOCK = ".lock"


def default_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the demo lives unless told otherwise (XDG base directories)."""
    base = environ.get("XDG_DATA_HOME", "")
    home = Path(environ.get("HOME") or Path.home())
    return (Path(base) if os.path.isabs(base) else home / ".local" / "share") / "beamkeeper-demo"


class Run(Input):
    """One run of the demo, so that it can be finished when it was killed."""

    experiment: ExperimentName
    start: UtcTime
    torture: bool = False
    copies: Sequence[Path] = ()
    frames: int = 300
    rate: float = 100.0
    times_interrupted: int = 0
    is_finished: bool = False


class Runs(Input):
    """What the demo has done in its directory; the last run is the one that may be unfinished."""

    runs: Sequence[Run] = Field(default=())

    @property
    def unfinished(self) -> Run | None:
        """The run that was interrupted, if one was."""
        return self.runs[-1] if self.runs and not self.runs[-1].is_finished else None


class Place:
    """The demo's directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.beamline = directory / "beamline"

    def detector(self, run: Run) -> Path:
        """Return the directory that a run's detector writes to."""
        return self.directory / run.experiment / "detector"

    def truth(self, run: Run) -> Path:
        """Return the file in which a run's detector says what it wrote."""
        return self.directory / run.experiment / "truth.jsonl"

    @property
    def is_ours(self) -> bool:
        """Whether the demo made this directory."""
        return (self.directory / MARK).is_file()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the directory, made and marked if it is new; refuse one that somebody else made or holds."""
        if not self.is_ours:
            self._make()
        with (self.directory / _LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConflictError(f"another `dm demo` is running in {self.directory}: wait for its end") from None
            yield

    def _make(self) -> None:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(self.directory.iterdir()):
                raise ConflictError(
                    f"{self.directory} was not made by `dm demo`, which keeps away from it: "
                    f"name an empty or a new directory with --directory"
                )
            (self.directory / MARK).write_text(_MARK_TEXT)
        except OSError as error:
            raise SettingsError(f"the demo cannot use {self.directory} ({error.strerror}): name another") from error

    def read(self) -> Runs:
        """Return the state of the runs."""
        file = self.directory / "demo.json"
        try:
            return Runs.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return Runs()
        except ValidationError as error:
            raise SettingsError(f"{file} is damaged: begin anew with `dm demo --fresh`") from error

    def write(self, runs: Runs) -> None:
        """Keep the state of the runs; whole or not at all."""
        new = self.directory / "demo.json.new"
        with new.open("w") as file:
            json.dump(runs.model_dump(mode="json"), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.directory / "demo.json")

    def update(self, run: Run) -> Run:
        """Keep what is new of a run, and return it."""
        others = [one for one in self.read().runs if one.experiment != run.experiment]
        self.write(Runs(runs=[*others, run]))
        return run

    def clear(self) -> None:
        """Remove everything that the demo has made here, but for the mark and the lock."""
        for path in self.directory.iterdir():
            if path.name not in (MARK, _LOCK):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def foreign_experiments(self) -> list[str]:
        """Return the experiments in the demo's storage that people made, as their directories tell."""
        ours = {run.experiment for run in self.read().runs}
        found = {path.name for path in (self.beamline / "storage").glob("*/*") if path.is_dir()}
        return sorted(found - ours)

    def used_bytes(self) -> int:
        """Return how much disk everything here takes."""
        total = 0
        for top, _, names in os.walk(os.fsencode(self.directory)):
            total += sum(os.lstat(os.path.join(top, name)).st_blocks * 512 for name in names)
        return total
