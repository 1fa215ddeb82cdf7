"""Routes that only read: one connection of the database each, and what is refused first."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest
from sqlalchemy import event

from beamkeeper.domain.status import Service
from beamkeeper.testing.services import Running, running

REFUSED = {
    ("/api/v1/files?limit=0", ""): 401,
    ("/api/v1/files?limit=0", "nobody's"): 422,
    ("/api/v1/files", "nobody's"): 401,
}
"""The status of a request, by what it asks and whose token it has."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(Service.CATALOG, directory=tmp_path_factory.mktemp("reading")) as services:
        yield services


def test_a_request_that_only_reads_takes_one_connection(site: Running) -> None:
    taken: list[object] = []
    engine = site.contexts[Service.CATALOG].database.engine
    headers = {"Authorization": f"Bearer {site.bootstrap.operator.token}"}
    event.listen(engine, "checkout", lambda *given: taken.append(given[0]))
    answer = httpx2.get(f"{site.urls[Service.CATALOG]}/api/v1/files", headers=headers)
    assert (answer.status_code, answer.json()["items"], len(taken)) == (200, [], 1)


@pytest.mark.parametrize(("path", "token"), REFUSED)
def test_who_names_no_session_is_refused_before_anything_is_looked_at(site: Running, path: str, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = httpx2.get(f"{site.urls[Service.CATALOG]}{path}", headers=headers)
    assert answer.status_code == REFUSED[path, token]
