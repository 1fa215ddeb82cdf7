"""The audit log: every change of a person leaves one row with what was before and after, and nobody changes a row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from beamkeeper.client import Client
from beamkeeper.db.audit_log import release
from beamkeeper.domain.audit_log import AuditEntry, AuditQuery
from beamkeeper.domain.datasets import NewDataset
from beamkeeper.domain.errors import NotAuthenticatedError, NotPermittedError
from beamkeeper.domain.experiments import ExperimentChange, NewExperiment
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewUser, UserChange
from beamkeeper.testing.services import Running, running

PASSWORD = "correct horse battery"


@pytest.fixture
def services(tmp_path: Path, database_url: str) -> Iterator[Running]:
    """The storage service on either database, and a catalogue beside it."""
    with running(Service.STORAGE, Service.CATALOG, directory=tmp_path, url=database_url) as made:
        yield made


def rows(services: Running, service: Service = Service.STORAGE) -> list[AuditEntry]:
    """Return the log, oldest first."""
    return list(services.client.audit_log(service).find(AuditQuery(), most=1000))[::-1]


def ada(services: Running) -> Client:
    """Return the client of a user who holds no role."""
    services.client.users.create(NewUser(username="ada", full_name="Ada", password=SecretStr(PASSWORD)))
    return services.as_(services.as_().sessions.login("ada", PASSWORD).token)


def test_a_change_leaves_a_row_with_who_from_where_and_what_differs(services: Running) -> None:
    ada(services)
    services.client.users.change("ada", UserChange(full_name="Ada L."))
    made, login, changed = rows(services)
    operator = services.client.sessions.whoami().user
    assert operator is not None
    assert (made.username, made.user_uid, made.address) == (operator.username, operator.uid, "127.0.0.1")
    assert (made.action, made.result) == ("POST /users", "done")
    assert {change.table for change in made.changes} == {"users", "credentials"}
    assert (login.username, login.action, [c.table for c in login.changes]) == (
        "ada",
        "POST /sessions",
        ["sessions"],
    )
    assert (changed.action, changed.target) == ("PATCH /users/{username}", {"username": "ada"})
    (difference,) = changed.changes
    assert (difference.before, difference.after) == ({"full_name": "Ada"}, {"full_name": "Ada L."})


def test_what_is_refused_leaves_a_row_and_what_is_only_read_leaves_none(services: Running) -> None:
    user = ada(services)
    with pytest.raises(NotPermittedError):
        user.users.create(NewUser(username="eve"))
    with pytest.raises(NotAuthenticatedError):
        services.as_().sessions.login("ada", "wrong password")
    with pytest.raises(NotAuthenticatedError):
        services.as_().sessions.login("a password typed as a name", "x")
    user.sessions.whoami()
    refused, failed = rows(services)[2:]
    assert (refused.username, refused.result, list(refused.changes)) == ("ada", "not_permitted", [])
    assert (failed.username, failed.action, failed.result) == ("ada", "POST /sessions", "not_authenticated")


def test_no_secret_is_in_a_row(services: Running) -> None:
    user = ada(services)
    user.users.set_password("ada", "another horse battery", present=PASSWORD)
    written = "".join(row.model_dump_json() for row in rows(services))
    with services.database.read() as tx:
        hidden = [*tx.session.execute(text("SELECT password_hash FROM credentials")).scalars()]
        hidden += [*tx.session.execute(text("SELECT token_sha256 FROM sessions")).scalars()]
    assert len(hidden) > 2
    for secret in (PASSWORD, "another horse", user.credentials.token or "?", *hidden):
        assert secret not in written
    assert "(secret)" in written


def test_each_service_has_a_log_and_a_failed_change_keeps_no_row_of_success(services: Running) -> None:
    made = services.client.experiments.create(NewExperiment(name="coffee", station="station"))
    services.client.experiments.update(made.uid, ExperimentChange(title="Beans"))
    assert [row.action for row in rows(services)] == ["POST /experiments", "PATCH /experiments/{uid}"]
    assert rows(services, Service.CATALOG) == []
    services.client.datasets.create(NewDataset(experiment_uid=made.uid, name="set"))
    assert [row.action for row in rows(services, Service.CATALOG)] == ["POST /datasets"]


def test_only_administrators_see_it(services: Running) -> None:
    user = ada(services)
    with pytest.raises(NotPermittedError):
        user.audit_log(Service.STORAGE).page(AuditQuery())
    with pytest.raises(NotPermittedError):
        user.audit_log(Service.STORAGE).check()
    with pytest.raises(NotPermittedError):
        services.as_service().audit_log(Service.STORAGE).check()


@pytest.mark.parametrize("statement", ["UPDATE audit_log SET username = 'eve'", "DELETE FROM audit_log"])
def test_the_database_itself_refuses_to_change_a_row(services: Running, statement: str) -> None:
    ada(services)
    with pytest.raises(DatabaseError, match="stay"), services.database.engine.begin() as connection:
        connection.execute(text(statement))


TAMPERING = {
    "UPDATE audit_log SET username = 'eve' WHERE number = 1": "row 1 is not what was written",
    "UPDATE audit_log SET changes = '[]' WHERE number = 2": "row 2 is not what was written",
    "DELETE FROM audit_log WHERE number = 2": "rows 2 to 2 are gone",
    "DELETE FROM audit_log WHERE number = 3": "row 3 is gone",
}


@pytest.mark.parametrize("statement", TAMPERING)
def test_tampering_with_a_row_is_found(services: Running, statement: str) -> None:
    user = ada(services)
    log = services.client.audit_log(Service.STORAGE)
    user.sessions.logout()
    kept = log.check()
    assert (kept.rows, kept.number, list(kept.faults)) == (3, 3, [])
    with services.database.engine.begin() as connection:
        release(connection)
        connection.execute(text(statement))
    found = log.check(kept.number, kept.digest)
    assert any(TAMPERING[statement] in fault for fault in found.faults), found
