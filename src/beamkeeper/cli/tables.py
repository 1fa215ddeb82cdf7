"""Verbs of nouns that have many: a part of the table of commands, and as light as it."""

from __future__ import annotations

from collections.abc import Mapping

JOBS: Mapping[str, tuple[str, str]] = {
    "submit": ("jobs:submit", "Submit a job."),
    "list": ("jobs:list_", "List jobs."),
    "show": ("jobs:show", "Show a job, its stages and child processes."),
    "log": ("jobs:log", "Show what a child process wrote."),
    "wait": ("jobs:wait", "Wait for the end of a job."),
    "stop": ("jobs:stop", "Stop jobs."),
    "rerun": ("jobs:rerun", "Run a job again."),
    "retry": ("jobs:retry", "Run jobs that failed again."),
    "delete": ("jobs:delete", "Forget jobs that have ended."),
    "make-key": ("job_keys:make_key", "Make a key for the job socket."),
    "info": ("jobs:info", "Show how commands run at the station."),
}

RUNS: Mapping[str, tuple[str, str]] = {
    "create": ("runs:create", "Say that a run has begun."),
    "stop": ("runs:stop", "Say that a run has ended."),
    "list": ("runs:list_", "List runs."),
    "show": ("runs:show", "Show a run and its files."),
    "add": ("runs:add", "Add files to a run."),
    "remove": ("runs:remove", "Take files out of a run that were added."),
    "rules": ("runs:rules", "Show and change the rules by which files come to runs."),
}
