"""What a runner is told: the command, its environment from an allow-list, its directories, account and limits."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

from beamkeeper.core import job_accounts
from beamkeeper.engine.jobs import tree
from beamkeeper.engine.jobs.stages import Launch

JOB_MODE, ATTEMPT_MODE = 0o711, 0o700
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
) -> dict[str, Any]:
    """Return what a runner is told of an attempt."""
    resources, own = launch.definition.resources, pwd.getpwuid(os.getuid())
    entry = pwd.getpwnam(account) if account else own
    is_other = entry.pw_uid != os.getuid()
    door = job_accounts.door(rules.run_as, account)
    environment = _environment(rules, launch, job=job, attempt=attempt, entry=entry)
    argv = [shell(), "-c", launch.command.text]
    told = {"PATH", "LANG", "TZ", *rules.environment, *launch.definition.environment} - rules.secrets.keys()
    return {
        "attempt": str(attempt),
        "directory": str(directory),
        "argv": job_accounts.behind(door, f"{tree.MARKER}={attempt}", argv),
        "cwd": working_directory(rules.work, job, launch),
        "environment": environment,
        "told_environment": {name: value for name, value in environment.items() if name in told},
        "timeout_s": launch.definition.timeout or rules.timeout_s or None,
        "grace_s": rules.grace_s,
        "memory_bytes": resources.memory or rules.memory_bytes,
        "processes": resources.processes or rules.processes,
        "file_bytes": rules.file_bytes,
        "head_bytes": rules.head_bytes,
        "tail_bytes": rules.tail_bytes,
        "secrets": list(rules.secrets.values()),
        "door": door,
        "account": entry.pw_name,
        "uid": entry.pw_uid if is_other and not os.getuid() else None,
        "gid": entry.pw_gid,
        "groups": dict(groups),
    }


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
    own = {"BEAMKEEPER_JOB": str(job), tree.MARKER: str(attempt)}
    return {**base, **rules.environment, **rules.secrets, **launch.command.environment, **own}
