"""Workflows as a station keeps them: every version, and which of them is the present one."""

from __future__ import annotations

from pydantic import Field

from beamkeeper.domain.names import Input, Model, Title, Uid, UtcTime
from beamkeeper.domain.workflows.lint import Finding
from beamkeeper.domain.workflows.model import Definition, Owner, WorkflowName


class NewWorkflow(Input):
    """A workflow to be added, or a new version of one."""

    definition: Definition
    note: Title = Field(default="", description="Why it was changed, for its history.")


class Workflow(Model):
    """A workflow in one of its versions."""

    uid: Uid
    name: WorkflowName
    owner: Owner
    number: int = Field(description="The version that we count; `definition.version` is its author's own.")
    is_newest: bool = True
    definition: Definition
    note: Title = ""
    added_at: UtcTime
    added_by: str
    deleted_at: UtcTime | None = None


class WorkflowQuery(Input):
    """Which workflows are wanted, by owner and name."""

    owner: Owner | None = None
    name: WorkflowName | None = None
    after: str | None = Field(default=None, description="The `next` of the page before.")
    limit: int = Field(default=100, ge=1, le=1000)


class WorkflowPage(Model):
    """Some workflows in their newest versions, and the cursor that continues the list."""

    items: tuple[Workflow, ...]
    next: str | None = None


class WorkflowHistory(Model):
    """Every version of a workflow, newest first."""

    items: tuple[Workflow, ...]


class Findings(Model):
    """What the linter says of a definition."""

    items: tuple[Finding, ...]
