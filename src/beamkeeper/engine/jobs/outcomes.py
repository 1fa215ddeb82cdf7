"""What a runner's result means: done, failed and why, stopped, or unknown."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from beamkeeper.domain import captured
from beamkeeper.domain.processing import AttemptState, Cause
from beamkeeper.engine.jobs.stages import Ended

NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit statuses of a shell that did not find a command, or may not run it."""

SEARCHED = 2_000_000
"""So many bytes of the output are searched for output variables: the first and the last half of them."""

UNKNOWN = (
    "its runner was killed or the machine restarted while it ran, so it is unknown what it has done: "
    "see what there is, then run the job again"
)
LOST = (
    "the machine that ran it ended it, or its worker there was killed, so it is unknown how far it came: "
    "see what there is, then run the job again"
)
NEVER_BEGUN = "the service ended before it began: it was begun anew"

_WHY = {
    "timeout": (Cause.TIMEOUT, "it took longer than {timeout_s:g} s"),
    "memory": (Cause.MEMORY, "it was killed: out of memory, of which it may use {memory_bytes} bytes"),
    "processes": (Cause.PROCESSES, "it was killed: it started more than {processes} processes"),
}


def read(
    result: Mapping[str, Any] | None, *, has_begun: bool, order: Mapping[str, Any], outputs: Sequence[str]
) -> Ended:
    """Return what came of an attempt; without a result that is unknown, or that it never began."""
    if result is None:
        if not has_begun:
            return Ended(AttemptState.ABORTED, None, NEVER_BEGUN, has_begun=False)
        return Ended(AttemptState.UNKNOWN, Cause.UNKNOWN, UNKNOWN)
    if result["fault"]:
        return _fault(result["fault"], order)
    why = str(result["why"])
    if why == "lost":
        return Ended(AttemptState.UNKNOWN, Cause.UNKNOWN, LOST)
    if why == "stopped":
        return Ended(AttemptState.ABORTED, Cause.STOPPED, "it was stopped", exit_status=result["exit_status"])
    if why in _WHY:
        cause, text = _WHY[why]
        return Ended(AttemptState.FAILED, cause, text.format(**order), exit_status=result["exit_status"])
    if why:
        return Ended(AttemptState.FAILED, Cause.STORAGE, f"what it wrote could not be kept ({why})")
    return _exit(result, order, outputs)


def _fault(fault: Mapping[str, Any], order: Mapping[str, Any]) -> Ended:
    why = fault["error"]
    if fault["what"] == "directory":
        return Ended(AttemptState.FAILED, Cause.DIRECTORY, f'working directory "{order["cwd"]}": {why}')
    if fault["what"] == "input":
        return Ended(AttemptState.FAILED, Cause.INPUT, f"it cannot be sent to the nodes: {why}")
    if fault["what"] == "fetch":
        return Ended(AttemptState.FAILED, Cause.STORAGE, f"what it wrote cannot be brought back: {why}")
    if fault["what"] == "executor":
        return Ended(AttemptState.FAILED, Cause.NOT_FOUND, why)
    if fault["what"] == "account":
        return Ended(AttemptState.FAILED, Cause.ACCOUNT, f'it cannot run as "{order["account"]}": {why}')
    return Ended(AttemptState.FAILED, Cause.NOT_FOUND, f'"{order["argv"][0]}" cannot be started: {why}')


def _exit(result: Mapping[str, Any], order: Mapping[str, Any], outputs: Sequence[str]) -> Ended:
    directory = Path(order["directory"])
    status, number = result["exit_status"], result["signal"]
    if number is not None:
        return Ended(AttemptState.FAILED, Cause.SIGNAL, f"it was killed by {_signal_name(number)}")
    if status:
        cause = Cause.NOT_FOUND if status in (NOT_FOUND, NOT_EXECUTABLE) else Cause.EXIT
        last = _last_line(directory / "stderr")
        return Ended(
            AttemptState.FAILED, cause, f"exit status {status}{': ' if last else ''}{last}", exit_status=status
        )
    missing = [name for name in outputs if not _is_there(Path(order["cwd"]) / name)]
    if missing:
        why = f'it ended well, but "{missing[0]}", which it should have written, is missing or empty'
        return Ended(AttemptState.FAILED, Cause.OUTPUTS, why, exit_status=status)
    text = captured.ends(str(directory / "stdout"), SEARCHED).decode("utf-8", "replace")
    for there, here in result.get("names", {}).items():  # what a node calls our paths
        text = text.replace(there, here)
    return Ended(AttemptState.DONE, exit_status=status, stdout=text)


def _is_there(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _last_line(path: Path) -> str:
    text = captured.ends(str(path), 4096).decode("utf-8", "replace").strip()
    return text.splitlines()[-1][:300] if text else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
