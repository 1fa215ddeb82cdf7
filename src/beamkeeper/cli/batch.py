"""`dm batch`: what commands of workflows call that submit to a batch system themselves; it asks no service of ours."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from beamkeeper.cli import output
from beamkeeper.cli.app import EXIT_WANTING
from beamkeeper.domain.errors import UnavailableError
from beamkeeper.plugins import batch

EVERY_S = 10.0
EXIT_CANCELLED = 130


def _state() -> Path:
    """Return the directory in which this user's processes leave things for one another."""
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "beamkeeper" / "batch"


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--key", default="", help="What names this job for ever, instead of what the job and stage are.")
@click.option("--patience", default=3600.0, help="Seconds for which a scheduler is waited for that does not answer.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def submit(key: str, patience: float, command: tuple[str, ...]) -> None:
    """Run COMMAND, a `sbatch ...` or `qsub ...`, so that its job is there once, and print what names the job.

    The job is marked with a key that is the same whenever this stage of a workflow's job is tried again: a try that
    finds it there submits nothing. Put `--` before COMMAND.
    """
    scheduler = batch.scheduler_of(command[0])
    once = batch.Once(_state(), os.environ.get("BEAMKEEPER_ATTEMPT", ""))
    key = key or batch.key_of(command, os.environ.get("BEAMKEEPER_COMMAND", ""))
    once.check(key)
    made = batch.submit(scheduler, command, key, patience_s=patience, tell=output.note)
    once.note(key)
    if made.is_found:
        output.note("it was submitted before: it is not submitted again")
    for double in made.cancelled:
        output.note(f"{scheduler.name} had taken it twice: {double} was cancelled")
    if output.is_json():
        output.data({"job": str(made.handle), "id": made.handle.id, "is_found": made.is_found})
        return
    output.raw(f"Batch job: {made.handle}\n")


@click.command()
@click.option("--timeout", type=float, help="Seconds after which to give up; the jobs go on.")
@click.option("--every", default=EVERY_S, help="Seconds between two questions, which all who wait here share.")
@click.argument("jobs", nargs=-1, required=True)
def wait(timeout: float | None, every: float, jobs: tuple[str, ...]) -> int:
    """Wait until JOBS have ended, as `dm batch submit` named them. The exit status is that of the first that failed.

    A scheduler that does not answer is waited for.
    """
    found: dict[batch.Handle, batch.BatchJob] = {}
    for name, handles in _by_scheduler(jobs).items():
        board = batch.Board(batch.scheduler_of(name), _state(), every)
        try:
            found |= batch.wait(board, handles, every_s=every, timeout_s=timeout, tell=output.note)
        except TimeoutError:
            raise UnavailableError(f"not all of {', '.join(map(str, handles))} ended within {timeout:g} s") from None
    ends = [found[batch.Handle.parse(text)] for text in jobs]
    if output.is_json():
        output.data(
            [{"job": t, "state": str(e.state), "exit_status": e.exit_status} for t, e in zip(jobs, ends, strict=True)]
        )
    else:
        for text, end in zip(jobs, ends, strict=True):
            output.raw(f"{text} {end.state} {end.exit_status}{f' ({end.word})' if end.word else ''}\n")
    return next((_status(end) for end in ends if end.state is not batch.BatchState.DONE), 0)


@click.command()
@click.argument("jobs", nargs=-1, required=True)
def cancel(jobs: tuple[str, ...]) -> None:
    """End JOBS, as `dm batch submit` named them; a number that is another job's by now is left alone."""
    for name, handles in _by_scheduler(jobs).items():
        scheduler = batch.scheduler_of(name)
        for handle in handles:
            was = batch.cancel(scheduler, handle)
            output.note(f"{handle} {'had ended' if was.state.has_ended else 'is being cancelled'}")


def _by_scheduler(jobs: Sequence[str]) -> Mapping[str, list[batch.Handle]]:
    found: dict[str, list[batch.Handle]] = {}
    for text in jobs:
        handle = batch.Handle.parse(text)
        found.setdefault(handle.scheduler, []).append(handle)
    return found


def _status(end: batch.BatchJob) -> int:
    """Return the exit status that tells of a job: its own, unless that were one of a job that ended well."""
    if end.state is batch.BatchState.CANCELLED:
        return end.exit_status or EXIT_CANCELLED
    return end.exit_status or EXIT_WANTING
