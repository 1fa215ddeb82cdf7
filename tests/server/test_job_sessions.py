"""Sessions of jobs: begun by the station's services for who may run jobs there, and good for no more than that."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from beamkeeper.client import Client
from beamkeeper.db.base import new_uid
from beamkeeper.db.processing.engine import HeldJob
from beamkeeper.domain.errors import NotAuthenticatedError, NotFoundError, NotPermittedError
from beamkeeper.domain.experiments import ExperimentChange, NewExperiment
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.processing import JobStatus, NewJob
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import SESSIONS_KEPT, NewJobSession, NewUser, Role
from beamkeeper.domain.users.jobs import session_name
from beamkeeper.domain.workflows import checked_definition
from beamkeeper.engine.jobs.plan import JobRun
from beamkeeper.engine.jobs.sessions import JobSessions
from beamkeeper.engine.jobs.starting import StartLoop
from beamkeeper.testing.beamline import Clock
from beamkeeper.testing.jobs import shop
from beamkeeper.testing.services import Running, running
from beamkeeper.testing.station import until


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    services = (Service.STORAGE, Service.CATALOG, Service.ACQUISITION, Service.PROCESSING)
    with running(*services, directory=tmp_path_factory.mktemp("site")) as made:
        made.client.users.create(NewUser(username="ada"))
        yield made


def experiment(site: Running, name: str) -> UUID:
    return site.client.experiments.create(NewExperiment(name=name, station=site.settings.station.name)).uid


def operator(site: Running) -> str:
    user = site.client.sessions.whoami().user
    assert user is not None
    return user.username


def begun(site: Running, uid: UUID, owner: str) -> tuple[UUID, Client] | None:
    """Begin a session for a job of somebody, and return a client that uses it."""
    service = site.as_service()
    made = service.sessions.begin_for_jobs([NewJobSession(job_uid=new_uid(), username=owner, experiment_uid=uid)])
    return (made[0].job_uid, site.as_(made[0].token)) if made else None


def held(uid: UUID, owner: str, now: datetime, job_uid: UUID | None = None) -> HeldJob:
    """Return a job as the engine has it in hand."""
    definition: dict[str, Any] = {"name": "plain", "stages": {"1": {"command": "true"}}}
    return HeldJob(
        id=1,
        uid=job_uid or new_uid(),
        owner=owner,
        status=JobStatus.RUNNING,
        workflow_name="plain",
        workflow_owner="ada",
        definition=checked_definition(definition).model_dump(mode="json"),
        experiment_uid=uid,
        arguments={},
        variables={},
        warnings=(),
        submitted_at=now,
        started_at=now,
        completed=0,
        failed=0,
        files=(),
        stages=(),
        attempts=(),
    )


def test_a_command_behind_a_door_has_it_too_and_it_ends_where_a_dead_service_has_not_ended_it(site: Running) -> None:
    uid, told, now = experiment(site, "doors"), list[str](), datetime.now(UTC)
    job = held(uid, operator(site), now)
    before = JobSessions(site.as_service(), {}, report=told.append)
    before.begin([job])
    order = {"door": ["/usr/bin/sudo"], "environment": {}, "secrets": [], "argv": ["/usr/bin/sudo"]}
    made = before.into(order, JobRun(job, {}, now=now))
    token = made["environment"]["BEAMKEEPER_TOKEN"]
    assert (made["argv"], made["secrets"]) == (order["argv"], [token])
    assert site.as_(token).experiments.get("doors").uid == uid
    after = JobSessions(site.as_service(), {}, report=told.append)
    after.end_before([job.uid])
    after.flush()
    with pytest.raises(NotAuthenticatedError):
        site.as_(token).experiments.get("doors")
    assert told == []


def test_jobs_that_wait_have_it_before_anybody_takes_them_and_what_is_stopped_then_has_it_no_more(
    site: Running,
) -> None:
    uid, told = experiment(site, "early"), list[str]()
    site.client.workflows.add(checked_definition({"name": "early", "stages": {"1": {"command": "true"}}}))
    job = site.client.jobs.submit(NewJob(workflow="early", experiment_uid=uid))
    service = site.as_service()
    sessions = JobSessions(service, {}, report=told.append)
    starting = StartLoop(site.contexts[Service.PROCESSING].database, sessions, report=told.append)
    starting.step()
    waits = held(uid, job.owner, datetime.now(UTC), job.uid)
    assert not sessions.is_wanted(waits)
    token = sessions.into({"environment": {}, "secrets": []}, JobRun(waits, {}, now=datetime.now(UTC)))["secrets"][0]
    assert site.as_(token).experiments.get("early").uid == uid
    site.client.jobs.stop(job.uid)

    def has_ended() -> bool:
        starting.step()
        with site.database.read() as tx:
            return not tx.users.sessions_named([session_name(job.uid)])

    until(has_ended, "the end of the session", 10)
    assert sessions.is_wanted(waits)
    starting.ended()
    assert told == []


def test_of_jobs_that_ended_those_are_known_that_may_have_a_session(database_url: str, tmp_path: Path) -> None:
    with shop(database_url, tmp_path / "work") as made:
        uids = [job.uid for job in made.ended([*made.submit({"1": "true"}, experiment_uid=new_uid(), count=2)])]
        made.run({"1": "true"})
        with made.database.read() as tx:
            assert sorted(tx.engine_jobs.ended_since(tx.now - timedelta(hours=1))) == sorted(uids)
            assert tx.engine_jobs.ended_since(tx.now + timedelta(seconds=1)) == []


@pytest.mark.parametrize("owner", ["ada", None])
def test_it_reads_and_keeps_in_its_experiment_and_does_nothing_else(site: Running, owner: str | None) -> None:
    own, other = experiment(site, f"own-{owner}"), experiment(site, f"other-{owner}")
    for uid in (own, other):
        site.client.experiments.add_user(uid, "ada", Role.PI)
    found = begun(site, own, owner or operator(site))
    assert found is not None
    _, job = found
    assert job.files.page(FileQuery(experiment_uid=own)).items == ()
    with pytest.raises(NotFoundError):
        job.files.page(FileQuery(experiment_uid=other))
    for refused in (
        lambda: job.experiments.update(own, ExperimentChange(title="tea")),
        lambda: job.experiments.add_user(own, "ada", Role.USER),
        lambda: job.users.create(NewUser(username="eve")),
        lambda: job.jobs.submit(NewJob(workflow="none", experiment_uid=own)),
        lambda: job.sessions.begin_for_jobs([NewJobSession(job_uid=own, username="ada", experiment_uid=own)]),
    ):
        with pytest.raises((NotPermittedError, NotFoundError)):
            refused()


@pytest.mark.parametrize("by", ["itself", "the beginning of another"])
def test_it_ends_with_its_job_and_is_no_key_of_its_owner(site: Running, by: str) -> None:
    name = f"ending-by-{by.replace(' ', '-')}"
    uid = experiment(site, name)
    site.client.experiments.add_user(uid, "ada", Role.USER)
    found = begun(site, uid, "ada")
    assert found is not None
    job_uid, job = found
    assert job.experiments.get(name).uid == uid
    assert list(site.client.keys.list("ada")) == []
    sessions = site.as_service().sessions
    if by == "itself":
        sessions.end_of_jobs([job_uid, new_uid()])
    else:
        other = NewJobSession(job_uid=new_uid(), username="ada", experiment_uid=uid)
        assert len(sessions.begin_for_jobs([other], ended=[job_uid, new_uid()])) == 1
    with pytest.raises(NotAuthenticatedError):
        job.experiments.get(name)


def test_who_may_run_no_jobs_there_gets_none_and_who_is_no_service_neither(site: Running) -> None:
    uid = experiment(site, "closed")
    assert begun(site, uid, "ada") is None
    assert begun(site, uid, "nobody") is None
    with pytest.raises(NotPermittedError):
        site.client.sessions.begin_for_jobs([NewJobSession(job_uid=uid, username="ada", experiment_uid=uid)])
    found = begun(site, experiment(site, "open"), operator(site))
    assert found is not None
    with pytest.raises(NotPermittedError):
        site.client.sessions.end_of_jobs([found[0]])


def test_it_holds_when_the_beam_time_is_over_and_ends_by_itself_after_a_day(tmp_path: Path) -> None:
    clock = Clock()
    with running(
        Service.STORAGE, directory=tmp_path, clock=clock, settings={"storage": {"session_hours": 100}}
    ) as site:
        uid = experiment(site, "over")
        site.client.experiments.update(uid, ExperimentChange(ends_at=clock() + timedelta(hours=1)))
        owner = operator(site)
        found = begun(site, uid, owner)
        assert found is not None
        clock.tick(2 * 3600)
        assert found[1].experiments.get("over").uid == uid
        own = found[1].sessions.whoami().session
        assert own is not None
        clock.tick(23 * 3600)
        with pytest.raises(NotAuthenticatedError):
            found[1].experiments.get("over")
        clock.tick(SESSIONS_KEPT.total_seconds())
        assert begun(site, uid, owner) is not None
        with site.database.read() as tx, pytest.raises(NotFoundError):
            tx.users.get_session(own.uid)  # forgotten, though nobody logged in
