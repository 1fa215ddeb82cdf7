"""What a runner is told: the command, its environment from an allow-list, its directories, account and limits."""

from __future__ import annotations

import os
import pwd
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

from beamkeeper.core import job_accounts
from beamkeeper.domain.experiments import Tree
from beamkeeper.domain.workflows import names_used
from beamkeeper.domain.workflows.names import PER_FILE
from beamkeeper.engine.jobs import tree
from beamkeeper.engine.jobs.stages import Launch

JOB_MODE, ATTEMPT_MODE = 0o711, 0o700
LOCAL = "local"
"""The executor of this machine."""

THREADS = "OMP_NUM_THREADS"
TREES = (f"{Tree.DATA}/", f"{Tree.ANALYSIS}/")
_PLAIN = re.compile(r"[A-Za-z0-9_.+-]*/[A-Za-z0-9_./+-]*( [A-Za-z0-9_./+:=@%,-]+)*")
FILES = "files"
"""The directory of a job in which its commands run, unless its workflow names another."""


@dataclass(frozen=True, slots=True)
class RunRules:
    """How this station runs commands."""

    work: Path
    path: str
    grace_s: float
    timeout_s: float
    memory_bytes: int
    processes: int
    file_bytes: int
    head_bytes: int
    tail_bytes: int
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    accounts: tuple[str, ...] = ()
    run_as: tuple[str, ...] = ()


@cache
def shell() -> str:
    """Return the shell that runs commands: bash where there is one, since beamlines write for it."""
    return shutil.which("bash", path="/bin:/usr/bin:/usr/local/bin") or "/bin/sh"


def job_directory(work: Path, job: UUID) -> Path:
    """Return the directory of a job."""
    return work / str(job)


def attempt_directory(work: Path, job: UUID, number: int) -> Path:
    """Return the directory of an attempt: what it wrote, who took it, what came of it."""
    return job_directory(work, job) / str(number)


def working_directory(work: Path, job: UUID, launch: Launch) -> str:
    """Return where a command runs."""
    own = job_directory(work, job) / FILES
    return str(own / launch.command.working_dir) if launch.command.working_dir else str(own)


def make_directories(rules: RunRules, job: UUID, number: int, account: str) -> Path:
    """Make the directories of an attempt, and return its own."""
    directory = attempt_directory(rules.work, job, number)
    files = job_directory(rules.work, job) / FILES
    if not files.exists():
        files.mkdir(mode=JOB_MODE, parents=True, exist_ok=True)
        files.parent.chmod(JOB_MODE)
        # Another account has to write here; who does not know the job's uid does not come this far.
        files.chmod(0o1777 if account else ATTEMPT_MODE)
    directory.mkdir(mode=ATTEMPT_MODE, exist_ok=True)
    return directory


def order(
    rules: RunRules,
    launch: Launch,
    *,
    job: UUID,
    attempt: UUID,
    directory: Path,
    account: str,
    groups: Mapping[str, str],
    executor: str,
) -> dict[str, Any]:
    """Return what a runner is told of an attempt."""
    own = pwd.getpwuid(os.getuid())
    entry = pwd.getpwnam(account) if account else own
    door = job_accounts.door(rules.run_as, account)
    environment = _environment(rules, launch, job=job, attempt=attempt, entry=entry)
    argv = [shell(), "-c", launch.command.text]
    told = {"PATH", "LANG", "TZ", THREADS, *rules.environment, *launch.definition.environment} - rules.secrets.keys()
    return {
        "attempt": str(attempt),
        "executor": executor,
        "directory": str(directory),
        "argv": job_accounts.behind(door, f"{tree.MARKER}={attempt}", argv),
        "words": _words(launch.command.text),
        "cwd": working_directory(rules.work, job, launch),
        "environment": environment,
        "told_environment": {name: value for name, value in environment.items() if name in told},
        **_limits(rules, launch),
        "secrets": list(rules.secrets.values()),
        "door": door,
        "account": entry.pw_name,
        "uid": entry.pw_uid if entry.pw_uid != os.getuid() and not os.getuid() else None,
        "gid": entry.pw_gid,
        "groups": dict(groups),
        "data": {} if executor == LOCAL else _data(launch),
    }


def _limits(rules: RunRules, launch: Launch) -> dict[str, Any]:
    resources = launch.definition.resources
    return {
        "timeout_s": launch.definition.timeout or rules.timeout_s or None,
        "grace_s": rules.grace_s,
        "memory_bytes": resources.memory or rules.memory_bytes,
        "processes": resources.processes or rules.processes,
        "file_bytes": rules.file_bytes,
        "head_bytes": rules.head_bytes,
        "tail_bytes": rules.tail_bytes,
    }


def _data(launch: Launch) -> dict[str, Any]:
    """Return which files a command names, for nodes that do not see our storage."""
    used, values = names_used(launch.definition), launch.command.environment
    named = [values.get(name, "") for name in used - PER_FILE]
    return {
        "filePath": values.get("filePath", "") if "filePath" in used else "",
        "dataDir": values.get("dataDir", ""),
        "is_whole": "dataDir" in used,
        "named": [value for value in named if value.startswith(TREES)],
        "command": None if launch.command.file is None else launch.command.shown,
    }


def _words(text: str) -> list[str]:
    """Return a program and its arguments where a command is nothing else: it needs no shell to be read."""
    return text.split(" ") if _PLAIN.fullmatch(text) else []


def _environment(
    rules: RunRules, launch: Launch, *, job: UUID, attempt: UUID, entry: pwd.struct_passwd
) -> dict[str, str]:
    """Return the environment of a command: never ours, which holds what no command may know."""
    base = {
        "PATH": rules.path,
        "HOME": entry.pw_dir,
        "USER": entry.pw_name,
        "LOGNAME": entry.pw_name,
        "SHELL": shell(),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "TMPDIR": str(job_directory(rules.work, job) / FILES),
    }
    if zone := os.environ.get("TZ"):
        base["TZ"] = zone
    if cpus := launch.definition.resources.cpus:
        base[THREADS] = str(cpus)  # libraries would start as many threads as their machine has processors
    # The same in each try of one command, so that what it does elsewhere can be found again.
    which = f"{job}/{launch.stage}/{launch.repeat}/{'' if launch.command.file is None else launch.command.file}"
    own = {"BEAMKEEPER_JOB": str(job), "BEAMKEEPER_COMMAND": which, tree.MARKER: str(attempt)}
    return {**base, **rules.environment, **rules.secrets, **launch.command.environment, **own}
