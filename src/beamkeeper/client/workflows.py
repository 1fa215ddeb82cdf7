"""Workflows of a station."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from uuid import UUID

from beamkeeper.client.http import Http
from beamkeeper.domain.errors import ConflictError, NotFoundError
from beamkeeper.domain.workflows import Definition, Finding
from beamkeeper.domain.workflows.stored import (
    Findings,
    NewWorkflow,
    Workflow,
    WorkflowHistory,
    WorkflowPage,
    WorkflowQuery,
)


class Workflows:
    """What may be run at a station."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def add(self, definition: Definition, *, note: str = "") -> Workflow:
        """Keep a workflow; asking again for the same one gives it."""
        return self._send("POST", "/api/v1/workflows", definition, note)

    def upsert(self, definition: Definition, *, note: str = "") -> Workflow:
        """Keep a workflow, or a new version of the one that has its name."""
        return self._send("POST", "/api/v1/workflows:upsert", definition, note)

    def update(self, uid: UUID, definition: Definition, *, note: str = "") -> Workflow:
        """Keep a new version of a workflow."""
        return self._send("PUT", f"/api/v1/workflows/{uid}", definition, note)

    def _send(self, method: str, path: str, definition: Definition, note: str) -> Workflow:
        kept: Workflow = self._http().call(method, path, Workflow, body=NewWorkflow(definition=definition, note=note))
        return kept

    def lint(self, definition: Definition) -> Sequence[Finding]:
        """Return what is wrong or dangerous in a definition; it is not kept."""
        body = NewWorkflow(definition=definition)
        found: Findings = self._http().call("POST", "/api/v1/workflows:lint", Findings, body=body)
        return found.items

    def list(self, query: WorkflowQuery | None = None) -> Iterator[Workflow]:
        """Yield workflows by name, each in its newest version."""
        wanted = query or WorkflowQuery(limit=1000)
        while True:
            page = self.page(wanted)
            yield from page.items
            if page.next is None:
                return
            wanted = wanted.model_copy(update={"after": page.next})

    def page(self, query: WorkflowQuery) -> WorkflowPage:
        """Return one page of workflows by name, each in its newest version."""
        page: WorkflowPage = self._http().get("/api/v1/workflows", WorkflowPage, query=query)
        return page

    def named(self, name: str, owner: str | None = None) -> Workflow:
        """Return a workflow by its name; the owner may be left out where only one has it."""
        found = list(self.list(WorkflowQuery(name=name, owner=owner)))
        if not found:
            raise NotFoundError(f'there is no workflow "{name}": `dm workflow list` shows all', name=name)
        if len(found) > 1:
            owners = ", ".join(one.owner for one in found)
            raise ConflictError(f'several people have a workflow "{name}": say whose it is ({owners})', name=name)
        return found[0]

    def get(self, uid: UUID, number: int | None = None) -> Workflow:
        """Return a workflow in its newest version, or another."""
        query = {} if number is None else {"number": str(number)}
        found: Workflow = self._http().get(f"/api/v1/workflows/{uid}", Workflow, query=query)
        return found

    def history(self, uid: UUID) -> Sequence[Workflow]:
        """Return every version of a workflow, newest first."""
        found: WorkflowHistory = self._http().get(f"/api/v1/workflows/{uid}/history", WorkflowHistory)
        return found.items

    def delete(self, uid: UUID) -> None:
        """Hide a workflow; its history stays."""
        self._http().call("DELETE", f"/api/v1/workflows/{uid}", None)
