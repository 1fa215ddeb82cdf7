"""`dm workflow`: what may be run at a station."""

from __future__ import annotations

from pathlib import Path

import click

from beamkeeper.cli import common, output
from beamkeeper.cli.files import YES
from beamkeeper.client import Client
from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.workflows import Definition, Finding, Severity, format_of, lint, parse_definition
from beamkeeper.domain.workflows.stored import Workflow, WorkflowQuery

FILE = click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
NAME = click.argument("name", metavar="WORKFLOW")
OWNER = click.option("--owner", metavar="NAME", help="Whose it is, where several have one of this name.")
NO_ARGUMENTS = "it declares no arguments: each name is taken, and what is not set is empty"
NOTE = click.option("--note", default="", help="Why it is changed, for its history.")


def read(file: Path) -> Definition:
    """Return the workflow that a file defines."""
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(f"cannot read {file}: name a text file with the definition of a workflow") from error
    return parse_definition(text, format_of(file.name, text))


@click.command()
@FILE
@NOTE
def add(file: Path, note: str) -> None:
    """Add a workflow, written as a Python dictionary, JSON, YAML or TOML. For managers of the station."""
    kept(common.client().workflows.add(_checked(file), note=note))


@click.command()
@FILE
@NOTE
def update(file: Path, note: str) -> None:
    """Change the workflow that has the name in the file; jobs from now on run the new version."""
    client = common.client()
    definition = _checked(file)
    kept(client.workflows.update(client.workflows.named(definition.name, definition.owner).uid, definition, note=note))


@click.command()
@FILE
@NOTE
def upsert(file: Path, note: str) -> None:
    """Add a workflow, or change the one that has its name."""
    kept(common.client().workflows.upsert(_checked(file), note=note))


@click.command("list")
@OWNER
def list_(owner: str | None) -> None:
    """List the workflows of the station."""
    query = common.build(WorkflowQuery, owner=owner, limit=1000)
    output.rows(
        list(common.client().workflows.list(query)),
        {
            "name": "name",
            "owner": "owner",
            "version": _version,
            "stages": lambda one: len(one.definition.stages),
            "arguments": lambda one: " ".join(one.definition.arguments or ()),
            "description": lambda one: one.definition.description,
        },
        empty="no workflow yet: `dm workflow add FILE` adds one",
    )


def argument_lines(definition: Definition) -> list[tuple[str, str]]:
    """Return the arguments that a workflow declares, as one gives them with a job, each with what is to be known."""
    if definition.arguments is None:
        return [("KEY:VALUE", NO_ARGUMENTS)]
    lines = []
    for key, one in definition.arguments.items():
        default = "" if one.default in (None, "") else f"default: {one.default}"
        words = [one.help.rstrip("."), "required" if one.required else default]
        words.append(f"one of {', '.join(map(str, one.choices))}" if one.choices else "")
        lines.append((f"{key}:{one.type.upper()}", "; ".join(word for word in words if word) or " "))
    return lines


@click.command()
@NAME
@OWNER
@click.option("--version", "number", type=click.IntRange(1), help="Not the newest, but this one.")
def show(name: str, owner: str | None, number: int | None) -> None:
    """Show a workflow: its arguments, as one gives them with a job, and its stages."""
    workflow = _meant(common.client(), name, owner, number)
    if output.is_json():
        output.data(workflow)
        return
    output.record(
        workflow, {"name": "name", "owner": "owner", "version": _version, "added": "added_at", "by": "added_by"}
    )
    definition = workflow.definition
    output.pairs(
        [("description", definition.description), ("runs as", definition.user_account or "the service's account")]
    )
    output.table(
        ["argument", "type", "required", "choices", "default", "help"],
        [
            (key, a.type, "yes" if a.required else "", ", ".join(map(str, a.choices)), a.default or "", a.help)
            for key, a in (definition.arguments or {}).items()
        ],
        empty=NO_ARGUMENTS,
    )
    output.table(["stage", "command"], [(id_, stage.command) for id_, stage in sorted(definition.stages.items())])


@click.command()
@NAME
@OWNER
def history(name: str, owner: str | None) -> None:
    """Show every version of a workflow: who changed it when, and why."""
    client = common.client()
    output.rows(
        client.workflows.history(_meant(client, name, owner).uid),
        {"version": _version, "added": "added_at", "by": "added_by", "note": "note"},
    )


@click.command()
@NAME
@OWNER
@YES
def delete(name: str, owner: str | None, yes: bool) -> None:
    """Delete a workflow: no job can be submitted with it any more; its history stays."""
    client = common.client()
    workflow = _meant(client, name, owner)
    output.confirm(f'Delete workflow "{workflow.name}" of {workflow.owner}?', yes=yes)
    client.workflows.delete(workflow.uid)
    output.say(f'deleted workflow "{workflow.name}"')


@click.command("lint")
@FILE
def lint_(file: Path) -> None:
    """Say what is wrong or dangerous in a definition, and how to write it; needs no service."""
    findings = lint(read(file))
    if output.is_json():
        output.data(findings)
    else:
        for finding in findings:
            output.say(_sentence(finding))
        if not findings:
            output.say("nothing is wrong with it")
    if any(finding.severity is Severity.ERROR for finding in findings):
        raise click.exceptions.Exit(10)


def _checked(file: Path) -> Definition:
    """Return the definition in a file, with its warnings told; what is wrong the service refuses."""
    definition = read(file)
    for finding in lint(definition):
        if finding.severity is Severity.WARNING:
            output.note(_sentence(finding))
    return definition


def _sentence(finding: Finding) -> str:
    where = f'stage "{finding.stage}": ' if finding.stage else ""
    return f"{finding.severity}: {where}{finding.message}"


def kept(workflow: Workflow) -> None:
    """Say which workflow is kept now, and in which version."""
    if output.is_json():
        output.data(workflow)
    else:
        output.say(f'workflow "{workflow.name}" of {workflow.owner} is in version {workflow.number}')


def _version(workflow: Workflow) -> str:
    said = workflow.definition.version
    return f"{workflow.number} ({said})" if said else str(workflow.number)


def _meant(client: Client, name: str, owner: str | None, number: int | None = None) -> Workflow:
    found = client.workflows.named(name, owner)
    return found if number is None else client.workflows.get(found.uid, number)
