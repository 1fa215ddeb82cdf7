"""`dm job`: submitting jobs, following them, and doing something about those that failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import click

from beamkeeper.cli import common, job_inputs, output
from beamkeeper.cli.app import EXIT_WANTING
from beamkeeper.cli.runs import run_meant
from beamkeeper.cli.workflows import argument_lines
from beamkeeper.domain.errors import DmError, InvalidError, NotFoundError
from beamkeeper.domain.processing import (
    ACTIVE_ATTEMPTS,
    Cause,
    ChildProcess,
    Job,
    JobRecord,
    JobSelection,
    JobStatus,
    LogQuery,
    NewJob,
)

COLUMNS: dict[str, Any] = {
    "job": "uid",
    "workflow": lambda job: f"{job.workflow.name} {job.workflow.version}",
    "status": "status",
    "stage": "stage",
    "owner": "owner",
    "submitted": "submitted_at",
    "ended": "ended_at",
    "message": "message",
}
_CHILD: dict[str, Any] = {
    "number": "number",
    "stage": "stage",
    "state": "state",
    "exit": "exit_status",
    "run time (s)": "run_time_s",
    "command": "command",
    "message": "message",
}
EXPERIMENT = click.option("--experiment", metavar="NAME", help="The experiment; without any, for managers only.")


def _selection(function: Callable[..., Any]) -> Callable[..., Any]:
    for decorate in (
        click.option("--all", "everything", is_flag=True, help="All jobs that one may change."),
        click.option("--workflow", metavar="NAME", help="Those of a workflow."),
        click.option("--cause", type=click.Choice(common.values(Cause)), help="Those that failed by this."),
        click.option("--status", type=click.Choice(common.values(JobStatus)), help="Those in a status."),
        click.argument("jobs", metavar="[JOB]...", nargs=-1),
    ):
        function = decorate(function)
    return function


_NAMED = f"{__name__}.workflow"


class _Submit(click.Command):
    """Has in its help the arguments of the workflow, where one is named beside `--help`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take note of what is named before anything else: help comes before arguments."""
        ctx.meta[_NAMED] = self.make_parser(ctx).parse_args(list(args))[0].get("workflow")
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what the workflow declares, as one gives it."""
        name = ctx.meta.get(_NAMED)
        if not isinstance(name, str):
            formatter.write_paragraph()
            formatter.write_text("With the name of a workflow beside --help: which arguments it has.")
            return
        with formatter.section(f"Arguments of {name}"):
            try:
                lines = argument_lines(common.client().workflows.named(name, None).definition)
            except DmError as error:
                formatter.write_text(error.message)
            else:
                formatter.write_dl(lines)


@click.command(cls=_Submit)
@click.argument("workflow")
@click.argument("words", metavar="[KEY:VALUE]...", nargs=-1)
@click.option("--owner", metavar="NAME", help="Whose workflow, where two have one of that name.")
@click.option("--version", type=int, help="Which version; the newest unless given.")
@click.option("--file", "files", multiple=True, metavar="PATH", help="An input file; may be given again.")
@click.option("--query", metavar="QUERY", help="On the files of the experiment that this finds.")
@click.option("--dataset", metavar="NAME", help="On the files of this dataset.")
@click.option("--run", metavar="NAME", help="On the files of this run; the job is found by it.")
@click.option("--priority", type=int, default=0, help="Higher goes first.")
@click.option("--wait", "is_waiting", is_flag=True, help="Return when it has ended; status 10 unless it is done.")
@EXPERIMENT
def submit(
    *,
    workflow: str,
    words: tuple[str, ...],
    owner: str | None,
    version: int | None,
    files: tuple[str, ...],
    query: str | None,
    dataset: str | None,
    run: str | None,
    priority: int,
    is_waiting: bool,
    experiment: str | None,
) -> int:
    """Submit a job of WORKFLOW; KEY:VALUE are its arguments, such as filePath:/data/scan.h5."""
    client = common.client()
    arguments = common.key_values(words)
    if files:
        arguments["filePathList"] = list(files)
    uid = common.experiment(client, experiment).uid if experiment or client.profile.experiment else None
    of_run = run_meant(client, run, experiment).uid if run else None
    new = common.build(
        NewJob,
        workflow=workflow,
        workflow_owner=owner,
        version=version,
        arguments=arguments,
        paths=job_inputs.paths(client, uid, query, dataset, of_run),
        run_uid=of_run,
        priority=priority,
        experiment_uid=uid,
    )
    job = client.jobs.submit(new)
    if is_waiting:
        job = client.jobs.wait(job.uid)
    return _told(job, is_ended=is_waiting)


def _told(job: Job, *, is_ended: bool) -> int:
    output.record(job, COLUMNS)
    for warning in job.warnings:
        output.note(warning)
    return EXIT_WANTING if is_ended and job.status is not JobStatus.DONE else 0


@click.command("list")
@click.option("--status", type=click.Choice(common.values(JobStatus)), help="Those in a status.")
@click.option("--active", is_flag=True, default=None, help="Those that have not ended.")
@click.option("--workflow", metavar="NAME", help="Those of a workflow.")
@click.option("--owner", metavar="NAME", help="Somebody's.")
@click.option("--file", metavar="PATH", help="Those that worked on a file.")
@click.option("--cause", type=click.Choice(common.values(Cause)), help="Those that failed by this.")
@click.option("--run", metavar="NAME", help="Those of a run, by the control system's name or by uid.")
@click.option("--since", type=common.Moment(), help="Those submitted since then.")
@click.option("--until", type=common.Moment(is_end=True), help="Those submitted before then.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="How many at most.")
@EXPERIMENT
def list_(*, limit: int, experiment: str | None, run: str | None, **wanted: Any) -> None:
    """List jobs, newest last."""
    client = common.client()
    if run:
        wanted["run_uid"] = run_meant(client, run, experiment).uid
    if experiment:
        wanted["experiment_uid"] = common.experiment(client, experiment).uid
    found = []
    for job in client.jobs.list(**{key: value for key, value in wanted.items() if value is not None}):
        found.append(job)
        if len(found) == limit:
            break
    output.rows(list(reversed(found)), COLUMNS, empty="no such jobs.")


@click.command()
@click.argument("job")
@click.option("--record", "is_original", is_flag=True, help="Its record in the words of the original, as JSON.")
def show(*, job: str, is_original: bool) -> None:
    """Show JOB, its stages and its child processes."""
    if is_original:
        output.data(common.client().jobs.original(_uid(job)))
        return
    record = common.client().jobs.record(_uid(job))
    if output.is_json():
        output.data(record)
        return
    output.record(record, {**COLUMNS, "arguments": lambda one: dict(one.arguments), "files": "count_files"})
    output.say("")
    output.rows(record.stages, {"stage": "name", "status": "status", "repeats": "repeats", "message": "message"})
    output.say("")
    output.rows(record.child_processes, _CHILD, empty="no child process yet.")


@click.command()
@click.argument("job")
@click.option("--number", type=int, help="Of this child process; the last unless given.")
@click.option("--stderr", "is_stderr", is_flag=True, help="What it wrote to standard error.")
@click.option("-f", "--follow", "is_followed", is_flag=True, help="Go on until it has ended.")
@click.option("--tail", type=int, metavar="BYTES", help="Only the last bytes.")
def log(*, job: str, number: int | None, is_stderr: bool, is_followed: bool, tail: int | None) -> None:
    """Show what a child process of JOB wrote."""
    client, uid = common.client(), _uid(job)
    child = _child(client.jobs.record(uid), number)
    stream = "stderr" if is_stderr else "stdout"
    offset = -tail if tail else 0
    while True:
        query = LogQuery(stream=stream, offset=offset, wait=10 if is_followed else 0)
        piece = client.jobs.log(uid, child.number, query)
        if offset >= 0 and piece.begin > offset:
            output.note(f"[{piece.begin - offset} bytes are kept no more]")
        output.raw(piece.text)
        offset = piece.next
        if piece.is_end or (not is_followed and piece.next >= piece.size):
            return


def _child(record: JobRecord, number: int | None) -> ChildProcess:
    children = {child.number: child for child in record.child_processes}
    if not children:
        raise NotFoundError(f"job {record.uid} has no child process yet: it is {record.status}")
    if number is None:
        running = [child for child in children.values() if child.state in ACTIVE_ATTEMPTS]
        return running[0] if running else children[max(children)]
    if number not in children:
        raise NotFoundError(f"job {record.uid} has no child process {number}: it has 1 to {max(children)}")
    return children[number]


@click.command()
@click.argument("job")
@click.option("--timeout", type=float, metavar="S", help="Return after so many seconds, as it stands.")
def wait(job: str, timeout: float | None) -> int:
    """Wait for the end of JOB: done, failed, or stopped. Ends with status 10 unless it is done."""
    return _told(common.client().jobs.wait(_uid(job), timeout), is_ended=True)


@click.command()
@_selection
@click.option("--yes", is_flag=True, help="Do not ask.")
def stop(*, jobs: tuple[str, ...], yes: bool, **wanted: Any) -> None:
    """Stop JOBs, with all that they have started; or all that fit."""
    selection = _chosen(jobs, wanted)
    if not jobs:
        output.confirm("Stop all jobs that fit?", yes=yes)
    output.say(f"{_call(common.client().jobs.stop, selection)} jobs are stopped.")


@click.command()
@_selection
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(*, jobs: tuple[str, ...], yes: bool, **wanted: Any) -> None:
    """Forget JOBs that have ended, with what they wrote; or all that fit."""
    selection = _chosen(jobs, wanted)
    output.confirm("Forget these jobs, with what they wrote?", yes=yes)
    output.say(f"{_call(common.client().jobs.delete, selection)} jobs are forgotten.")


@click.command()
@_selection
def retry(*, jobs: tuple[str, ...], **wanted: Any) -> None:
    """Run JOBs that failed again; or all that fit and were not repeated, such as --cause timeout."""
    made = _call(common.client().jobs.retry, _chosen(jobs, wanted))
    output.rows(made, COLUMNS, empty="no job that failed fits.")


@click.command()
@click.argument("job")
@click.argument("words", metavar="[KEY:VALUE]...", nargs=-1)
@click.option("--newest", is_flag=True, help="With the newest version of its workflow, not the one that it ran.")
def rerun(job: str, words: tuple[str, ...], newest: bool) -> None:
    """Run JOB again, as it was; KEY:VALUE are arguments that are to be different."""
    output.record(common.client().jobs.rerun(_uid(job), common.key_values(words), newest=newest), COLUMNS)


@click.command()
def info() -> None:
    """Show how commands run at the station: under which account, and how many at once."""
    found = common.client().jobs.info()
    fields = {name.replace("_", " "): name for name in type(found).model_fields}
    output.record(found, fields)


def _chosen(jobs: tuple[str, ...], wanted: dict[str, Any]) -> JobSelection:
    given = {key: value for key, value in wanted.items() if value}
    return common.build(JobSelection, uids=[_uid(job) for job in jobs], **given)


def _call(verb: Callable[..., Any], selection: JobSelection) -> Any:
    return verb(*selection.uids, **selection.model_dump(exclude={"uids"}, exclude_defaults=True))


def _uid(word: str) -> UUID:
    try:
        return UUID(word)
    except ValueError as error:
        raise InvalidError(f'"{word}" is no job: `dm job list` shows their uids') from error
