"""The executor Protocol: what begins commands on other machines, and what it may and may not say of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from beamkeeper.plugins.api import Options

EXECUTORS = "beamkeeper.executors"

RETURNED = ""
"""What is told of a task whose function returned."""


@dataclass(frozen=True, slots=True)
class Task:
    """A function to be called once, on a machine that sees this one's shared directories.

    `entry` is MODULE:NAME of a function in this package, and `order` its only argument, which JSON can say.
    """

    attempt: str
    entry: str
    order: Mapping[str, Any]


Told = Callable[[str], None]
"""Called once for each task, from any thread: with RETURNED, or with why the executor lost sight of it."""


@runtime_checkable
class Executor(Protocol):
    """Begins tasks on other machines. It lives in a process of its own, which is started anew when it ends.

    It is not believed: what came of an attempt is decided from what the attempt wrote and from the scheduler's word. So
    it may lose tasks, tell of an end too early, or begin a task again: the attempt can be taken only once.
    """

    def start(self, task: Task, told: Told) -> None:
        """Take a task; returns at once. Whatever it raises is told of the task."""
        ...

    def fault(self) -> str:
        """Return why it can begin nothing more and is to be started anew; empty while it can. Asked every second."""
        ...

    def close(self) -> None:
        """Give back the machines that it has; what still runs there is ended."""
        ...


class ExecutorFactory(Protocol):
    """What the entry point of an executor names: a class with an options model, built once a process."""

    options: ClassVar[type[Options]]
    summary: ClassVar[str]

    def __call__(self, options: Options, directory: Path) -> Executor:
        """Build the executor from its validated options; it may write into `directory`, which other machines see."""
        ...
