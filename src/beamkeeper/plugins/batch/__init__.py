"""Batch systems to which users' commands submit: asked without doing anything twice, and once for all who wait."""

from beamkeeper.plugins.batch.jobs import BatchJob, BatchState, Handle, Scheduler, name_of, scheduler_of
from beamkeeper.plugins.batch.submitting import Once, Submission, key_of, submit
from beamkeeper.plugins.batch.waiting import Board, cancel, wait

__all__ = [
    "BatchJob",
    "BatchState",
    "Board",
    "Handle",
    "Once",
    "Scheduler",
    "Submission",
    "cancel",
    "key_of",
    "name_of",
    "scheduler_of",
    "submit",
    "wait",
]
