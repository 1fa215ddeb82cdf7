"""Workflows tried out on this machine, before they go live: in private directories, and without a login."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.workflows import Command, Definition, InputFile, commands_for, graph, holds, outputs_of

MAX_OUTPUT = 4 * 1024 * 1024
MAX_REPEATS = 20
STAND_IN = """#!/bin/sh
echo "dm $*: not done, since this is a test" >&2
"""


@dataclass
class Trial:
    """How a workflow went on one file."""

    file: str
    seconds: float = 0.0
    failure: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)
    """The files that it left in its directories, each with its digest."""

    def differences(self, other: Trial) -> list[str]:
        """Return what is another result than in another trial."""
        found = [] if bool(self.failure) == bool(other.failure) else [self.failure or f"no more: {other.failure}"]
        for what, mine, theirs in (("$", self.variables, other.variables), ("", self.results, other.results)):
            for name in sorted(mine.keys() | theirs.keys()):
                if mine.get(name) != theirs.get(name):
                    was, now = (shown.get(name, "nothing")[:40] for shown in (theirs, mine))
                    found.append(f"{what}{name}: {was} before, {now} now")
        return found


def try_out(definition: Definition, values: Mapping[str, str], file: InputFile, timeout_s: float) -> Trial:
    """Run a workflow on one file as it would be run, and return how it went; what it makes is thrown away.

    `dm` is a stand-in that does nothing, and there is no login to be found, so that no result is kept anywhere.
    """
    trial = Trial(file.path, variables=dict(values))
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dm-workflow-test-") as kept:
        place = Path(kept)
        stand_in = place / ".bin" / "dm"
        stand_in.parent.mkdir()
        stand_in.write_text(STAND_IN)
        stand_in.chmod(0o755)
        for id_ in graph(definition):
            trial.failure = _stage(definition, id_, file, trial=trial, place=place, timeout_s=timeout_s)
            if trial.failure:
                break
        trial.results = _digests(place)
    trial.seconds = time.monotonic() - begin
    return trial


def _stage(definition: Definition, id_: str, file: InputFile, *, trial: Trial, place: Path, timeout_s: float) -> str:
    """Run a stage; return why it failed, or nothing."""
    stage = definition.stages[id_]
    known = {**trial.variables, "filePath": file.path, "experimentFilePath": file.experiment_path}
    if stage.run_if and not holds(stage.run_if, known):
        return ""
    try:
        for _ in range(min(stage.max_repeats or 1, MAX_REPEATS)):
            for command in commands_for(definition, id_, {**trial.variables, "stage": id_}, [file]):
                failure, printed = _run(
                    command, place / id_, place / ".bin", min(stage.timeout or timeout_s, timeout_s)
                )
                trial.variables |= outputs_of(stage.output_variable_regex_list, printed)
                failure = failure or _missing(command, place / id_)
                if failure:
                    return f'stage "{id_}": {failure}'
            if not stage.repeat_until or holds(stage.repeat_until, {**known, **trial.variables}):
                return ""
    except InvalidError as error:
        return error.message
    return f'stage "{id_}": {stage.repeat_until} did not come true' if stage.repeat_until else ""


def _run(command: Command, place: Path, stand_ins: Path, timeout_s: float) -> tuple[str, str]:
    """Run a command; return why it failed, or nothing, and what it printed."""
    place.mkdir(exist_ok=True)
    shell = shutil.which("bash") or "/bin/sh"
    environment = {
        "PATH": f"{stand_ins}:{os.environ.get('PATH', os.defpath)}",
        "HOME": str(place),
        "TMPDIR": str(place),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        **command.environment,
    }
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [shell, "-c", command.text],
            cwd=os.path.expanduser(command.working_dir) or place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
        try:
            status = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        printed, said = (_tail(stream.fileno()) for stream in (output, errors))
    if status is None:
        return f"not done after {timeout_s:g} s", printed
    last = said.strip().splitlines()[-1:] or [""]
    return (f"exit status {status}: {last[0][:200]}" if status else ""), printed


def _tail(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, MAX_OUTPUT, max(0, size - MAX_OUTPUT)).decode("utf-8", "replace")


def _missing(command: Command, place: Path) -> str:
    for output in command.outputs:
        path = Path(place / output)
        if not path.is_file() or path.stat().st_size == 0:
            return f'no result: "{output}" is not there, or empty'
    return ""


def _digests(place: Path) -> dict[str, str]:
    found = {}
    for path in sorted(place.rglob("*")):
        if path.is_file() and not path.is_symlink() and ".bin" not in path.parts:
            with path.open("rb") as opened:
                found[str(path.relative_to(place))] = hashlib.file_digest(opened, "blake2b").hexdigest()[:16]
    return found


def summary(trials: Sequence[Trial]) -> str:
    """Return one sentence about all trials."""
    failed = sum(bool(trial.failure) for trial in trials)
    seconds = sorted(trial.seconds for trial in trials)
    middle = seconds[len(seconds) // 2]
    return f"{len(trials)} files, {failed} failed; {middle:.2f} s each in the middle, {seconds[-1]:.2f} s the longest"
