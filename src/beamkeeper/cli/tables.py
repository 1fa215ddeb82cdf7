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
    "info": ("jobs:info", "Show how commands run at the station."),
}
