"""Names of variables: which a workflow may have, which the system gives, and which could change what a program does."""

from __future__ import annotations

import re

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")

PER_FILE = frozenset({"filePath", "experimentFilePath"})
"""A command that names one of these is run once for each file."""

SUPPLIED = PER_FILE | {"experimentName", "stationName", "dataDir"}
"""What the system fills in where the submission says nothing else."""

SYSTEM = frozenset(
    {
        "id",
        "owner",
        "username",
        "workflowName",
        "workflowOwner",
        "stage",
        "execHost",
        "submissionTime",
        "startTime",
        "endTime",
        "countFiles",
    }
)
"""What only the system may set."""

INPUTS = frozenset({"filePath", "filePathList", "filePathPattern"})
"""Arguments that say which files a job runs on."""

QUERY = "fileQueryDict"
"""How the original names a query for its input: who submits asks the catalogue first."""

JOB_FIELDS = frozenset(
    {
        "status",
        "workflow",
        "stages",
        "submissionTimestamp",
        "startTimestamp",
        "endTimestamp",
        "runTime",
        "errorMessage",
        "nCompletedChildProcesses",
        "nFailedChildProcesses",
    }
)
"""Fields of a job's record, beside which its variables stand."""

RESERVED = SYSTEM | JOB_FIELDS

FROM_THE_ACCOUNT = frozenset({"HOME", "USER", "LOGNAME", "LANG", "TZ", "PATH", "TMPDIR", "SHELL", "PWD", "OLDPWD"})
"""What every command finds in its environment, set by the runner or the shell."""

FROM_THE_SHELL = frozenset({"HOSTNAME", "RANDOM", "SECONDS", "UID", "EUID", "PPID", "LINENO", "IFS", "_"})

_MEANT_FOR_PROGRAMS = re.compile(
    r"IFS|ENV|PS\d|PROMPT_COMMAND|CDPATH|GLOBIGNORE|SHELLOPTS|OPTARG|OPTIND|BASH.*|LD_.*|DYLD_.*|PYTHON.*|PERL.*|RUBY.*"
    r"|NODE_.*|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS|GCONV_PATH|LOCPATH|NLSPATH|LC_.*|LANGUAGE|TERMINFO.*|MALLOC_.*"
    r"|GLIBC_.*|GIT_.*|SSH_.*|HOSTALIASES|RES_OPTIONS|LOCALDOMAIN|EDITOR|VISUAL|PAGER|BROWSER|HDF5_PLUGIN_.*"
    r"|MAKEFLAGS|MAKEFILES|DM_.*|BEAMKEEPER_.*|.*_PROXY|_",
    re.IGNORECASE,
)
"""Names by which the environment changes what shells and programs do."""


def is_variable(name: str) -> bool:
    """Whether a variable may have this name."""
    return (
        VARIABLE.fullmatch(name) is not None
        and name not in FROM_THE_ACCOUNT | FROM_THE_SHELL
        and _MEANT_FOR_PROGRAMS.fullmatch(name) is None
    )


def check_variable(name: str) -> str:
    """Return a name that a variable may have; ValueError says why another may not."""
    if VARIABLE.fullmatch(name) is None:
        raise ValueError(f'"{name[:80]}" can name no variable: write letters, digits and _, at most 64')
    if name in RESERVED:
        raise ValueError(f'"{name}" is a field of each job: choose another name')
    if not is_variable(name):
        raise ValueError(f'"{name}" is read from the environment by shells or programs: choose another name')
    return name


def check_environment_name(name: str) -> str:
    """Return a name that a stage may set in its environment: programs' own too, but not what takes a shell over."""
    if VARIABLE.fullmatch(name) is None:
        raise ValueError(f'"{name[:80]}" can name no environment variable: write letters, digits and _, at most 64')
    if re.fullmatch(r"IFS|ENV|BASH_ENV|SHELLOPTS|BASHOPTS|PS4|PROMPT_COMMAND|_|DM_.*|BEAMKEEPER_.*", name):
        raise ValueError(f'"{name}" changes how each command is read: set it inside the command')
    return name
