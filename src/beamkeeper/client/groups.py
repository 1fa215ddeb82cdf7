"""Groups of experiments in a directory server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import UUID

from beamkeeper.client.http import Http
from beamkeeper.domain.groups import Compared, ExperimentGroup, GroupPage, GroupQuery, NewComparison

WAIT_S = 20.0


class Groups:
    """Groups of the experiments on whose people one decides."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def get(self, experiment_uid: UUID, *, wait_s: float = 0.0) -> ExperimentGroup:
        """Return the group of an experiment, waiting a while for a comparison that was asked for."""
        path, query = f"/api/v1/experiments/{experiment_uid}/group", {"wait": wait_s}
        found: ExperimentGroup = self._http().get(path, ExperimentGroup, query=query, timeout_s=wait_s + 30)
        return found

    def list(self, *, is_differing: bool = False) -> Iterator[ExperimentGroup]:
        """Yield the groups by name, as they were when last compared."""
        query = GroupQuery(is_differing=is_differing, limit=1000)
        while True:
            page: GroupPage = self._http().get("/api/v1/experiment-groups", GroupPage, query=query)
            yield from page.items
            if page.next is None:
                return
            query = query.model_copy(update={"after": page.next})

    def compare(self, experiment_uid: UUID, *, is_repair: bool = False) -> ExperimentGroup:
        """Have the group of an experiment compared now, and wait until that was tried."""
        path, body = f"/api/v1/experiments/{experiment_uid}/group:compare", NewComparison(is_repair=is_repair)
        found: ExperimentGroup = self._http().call("POST", path, ExperimentGroup, body=body)
        while found.is_pending:
            found = self.get(experiment_uid, wait_s=WAIT_S)
        return found

    def compare_all(self, *, is_repair: bool = False) -> int:
        """Have all groups compared now; return of how many that was asked."""
        body = NewComparison(is_repair=is_repair)
        asked: Compared = self._http().call("POST", "/api/v1/experiment-groups:compare", Compared, body=body)
        return asked.groups
