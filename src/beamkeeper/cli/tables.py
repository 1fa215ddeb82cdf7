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

BATCH: Mapping[str, tuple[str, str]] = {
    "submit": ("batch:submit", "Submit to Slurm or Grid Engine, once whatever happens."),
    "wait": ("batch:wait", "Wait for the end of jobs there."),
    "cancel": ("batch:cancel", "End jobs there."),
}

REPLICAS: Mapping[str, tuple[str, str]] = {
    "list": ("replicas:list_", "List the copies of files, and when each was last verified."),
    "add": ("replicas:add", "Copy stored files to a further storage area."),
    "verify": ("replicas:verify", "Read copies again."),
    "drop": ("replicas:drop", "Remove copies where another verified one remains."),
    "requests": ("replicas:requests", "List what was asked for copies."),
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

SUBGROUPS: Mapping[tuple[str, str], tuple[str, Mapping[str, tuple[str, str]]]] = {
    ("file", "meta"): (
        "A file's metadata, and how it came about.",
        {
            "set": ("file_meta:set_", "Change metadata."),
            "get": ("file_meta:get", "Show metadata."),
            "history": ("file_meta:history", "Show who changed what when."),
        },
    ),
    ("dataset", "meta"): (
        "A dataset's metadata, and how it came about.",
        {
            "set": ("datasets:meta_set", "Change metadata."),
            "get": ("datasets:meta_get", "Show metadata."),
            "history": ("datasets:meta_history", "Show who changed what when."),
        },
    ),
    ("run", "meta"): (
        "A run's metadata, and how it came about.",
        {
            "set": ("runs:meta_set", "Change metadata."),
            "get": ("runs:meta_get", "Show metadata."),
            "history": ("runs:meta_history", "Show who changed what when."),
        },
    ),
    ("experiment", "meta"): (
        "An experiment's metadata, and how it came about.",
        {
            "set": ("experiment_meta:set_", "Change metadata."),
            "get": ("experiment_meta:get", "Show metadata."),
            "history": ("experiment_meta:history", "Show who changed what when."),
        },
    ),
    ("experiment", "permissions"): (
        "The rights of an experiment's files.",
        {
            "check": ("permissions:check", "Say which files have other rights than they should."),
            "repair": ("permissions:repair", "Put the rights of files right."),
            "show": ("permissions:show", "Show how far a check or a repair is."),
            "stop": ("permissions:stop", "Stop a check or a repair."),
        },
    ),
    ("experiment", "groups"): (
        "Groups of experiments in the directory server.",
        {"check": ("groups:check", "Compare groups now, and say what differs.")},
    ),
}
"""What belongs to a noun and has verbs of its own."""
