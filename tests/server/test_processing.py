"""Jobs over HTTP: the real client on real services, on both databases; who may do what with whose."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from beamkeeper.client import Client
from beamkeeper.db.base import new_uid
from beamkeeper.domain.errors import (
    ConflictError,
    InvalidError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
)
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.processing import Cause, Job, JobQuery, JobStatus, NewJob, Rerun
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewUser, Role
from beamkeeper.domain.workflows import checked_definition
from beamkeeper.testing.servers import PostgresServer, drop_database, fresh_database
from beamkeeper.testing.services import Running, running
from beamkeeper.testing.station import until

PASSWORD = "correct horse"
DEFINITIONS: list[dict[str, Any]] = [
    {"name": "plain", "owner": "ada", "stages": {"1": {"command": "echo $word"}}},
    {"name": "each", "owner": "ada", "stages": {"1": {"command": 'cat "$filePath"'}}},
    {
        "name": "strict",
        "owner": "ada",
        "arguments": {"depth": {"type": "int", "required": True}},
        "stages": {"1": {"command": "echo $depth"}},
    },
    {"name": "other", "owner": "ada", "userAccount": "somebody", "stages": {"1": {"command": "id"}}},
]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    server: PostgresServer | None = None
    url = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        url = fresh_database(server)
    settings: dict[str, Any] = {Service.PROCESSING: {"most_queued": 500}}
    directory = tmp_path_factory.mktemp("site")
    with running(Service.PROCESSING, directory=directory, url=url, settings=settings) as beamline:
        with beamline.contexts[Service.PROCESSING].database.write() as tx:
            for definition in DEFINITIONS:
                tx.workflows.add("ada", checked_definition(definition), note="", by="ada")
        yield beamline
    if server is not None and url is not None:
        drop_database(server, url)


@pytest.fixture
def client(site: Running) -> Client:
    return site.client


@pytest.fixture
def coffee(site: Running) -> Experiment:
    made = site.client.experiments.create(NewExperiment(name=f"e{new_uid().hex}", station="station"))
    data = site.area / made.directory / "data"
    data.mkdir(parents=True, exist_ok=True)
    (data / "scan.h5").write_text("photons")
    return made


def member(site: Running, experiment: Experiment, role: Role = Role.USER) -> Client:
    name = f"u{new_uid().hex[-12:]}"
    site.client.users.create(NewUser(username=name, password=PASSWORD))
    site.client.experiments.add_user(experiment.uid, name, role)
    return site.as_(username=name, password=PASSWORD)


def job(workflow: str = "plain", **values: Any) -> NewJob:
    return NewJob(workflow=workflow, **values)


def test_a_job_is_taken_once_however_often_it_is_sent(client: Client) -> None:
    new = job(uid=new_uid(), arguments={"word": "hello"}, priority=3)
    first, again = client.jobs.submit(new), client.jobs.submit(new)
    assert first == again
    assert (first.status, first.workflow.name, first.workflow.version, first.priority) == (
        JobStatus.PENDING,
        "plain",
        1,
        3,
    )
    assert client.jobs.get(first.uid) == first
    assert client.jobs.record(first.uid).definition["name"] == "plain"


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ({"workflow": "none"}, NotFoundError, 'no workflow "none"'),
        ({"workflow": "plain", "version": 9}, NotFoundError, "9"),
        ({"workflow": "strict"}, InvalidError, "depth"),
        ({"workflow": "strict", "arguments": {"depth": 1, "dept": 2}}, InvalidError, "dept"),
        ({"workflow": "other"}, ConflictError, "somebody"),
        ({"workflow": "each", "arguments": {"filePath": "scan.h5"}}, InvalidError, "scan.h5"),
        ({"workflow": "each", "arguments": {"fileQueryDict": {"run": "142"}}}, InvalidError, "dm job submit --query"),
        ({"workflow": "each", "arguments": {"filePathPattern": "/nowhere/*.h5"}}, InvalidError, "/nowhere/"),
    ],
)
def test_what_cannot_run_is_refused_as_it_is_submitted(
    client: Client, values: dict[str, Any], error: type[Exception], words: str
) -> None:
    before = len(list(client.jobs.list()))
    with pytest.raises(error, match=words.replace("*", ".")):
        client.jobs.submit_many([job(), NewJob(**values)])
    assert len(list(client.jobs.list())) == before


def test_a_job_without_the_file_that_it_needs_fails_as_in_the_original(client: Client) -> None:
    found = client.jobs.submit(job("each"))
    assert (found.status, found.message, found.cause, found.count_files) == (
        JobStatus.FAILED,
        "Invalid input file specification.",
        Cause.INPUT,
        0,
    )
    assert client.jobs.wait(found.uid) == found


def test_jobs_are_found_by_file_experiment_and_owner_newest_last(client: Client, coffee: Experiment) -> None:
    new = job("each", experiment_uid=coffee.uid, arguments={"filePathList": ["data/scan.h5"]})
    made = [client.jobs.submit(new).uid for _ in range(3)]
    page = client.jobs.page(JobQuery(file="data/scan.h5", experiment_uid=coffee.uid, limit=2))
    assert [one.uid for one in page.items] == made[1:]
    assert page.next is not None
    older = client.jobs.page(JobQuery(experiment_uid=coffee.uid, after=page.next))
    assert [one.uid for one in older.items] == made[:1]
    assert [one.uid for one in client.jobs.list(experiment_uid=coffee.uid)] == made[::-1]
    record = client.jobs.record(made[0])
    assert [file.experiment_path for file in record.files] == ["data/scan.h5"]


def test_who_logged_out_while_they_waited_for_a_job_is_told_no_more_of_it(site: Running, coffee: Experiment) -> None:
    ada = member(site, coffee)
    job = ada.jobs.submit(NewJob(workflow="plain", experiment_uid=coffee.uid))
    session = ada.sessions.whoami().session
    assert session is not None
    waits = site.as_(ada.credentials.token)
    waits.credentials.mirror = ada.credentials.mirror
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(waits.jobs.get, job.uid, wait_s=20)
        until(lambda: len(site.contexts[Service.PROCESSING].crowd) or None, "the question")
        ada.sessions.revoke(session.uid)
        site.client.jobs.stop(job.uid)
        with pytest.raises(NotAuthenticatedError):
            answer.result(timeout=20)


def test_waiting_jobs_end_as_they_are_stopped_and_may_be_repeated_and_forgotten(client: Client) -> None:
    made = [client.jobs.submit(job(arguments={"word": str(n)})) for n in range(3)]
    uids = [one.uid for one in made]
    assert client.jobs.stop(*uids) == 3
    stopped = client.jobs.get(uids[0])
    assert (stopped.status, stopped.cause) == (JobStatus.ABORTED, Cause.STOPPED)
    assert client.jobs.stop(*uids) == 0
    again = client.jobs.rerun(uids[0], {"word": "other"})
    assert (again.rerun_of, again.arguments["word"], again.status) == (uids[0], "other", JobStatus.PENDING)
    retried = client.jobs.retry(*uids, cause=Cause.STOPPED)
    assert [one.rerun_of for one in retried] == uids
    assert client.jobs.delete(*uids) == 3
    with pytest.raises(NotFoundError):
        client.jobs.get(uids[0])
    with pytest.raises(ConflictError, match="stop it first"):
        client.jobs.delete(again.uid)


def test_failures_of_one_cause_are_run_again_once(client: Client, coffee: Experiment) -> None:
    failed = [client.jobs.submit(job("each", experiment_uid=coffee.uid)) for _ in range(2)]
    stopped = client.jobs.submit(job(experiment_uid=coffee.uid))
    client.jobs.stop(stopped.uid)
    again = client.jobs.retry(cause=Cause.INPUT, experiment_uid=coffee.uid)
    assert [one.rerun_of for one in again] == [one.uid for one in failed]
    third = client.jobs.retry(cause=Cause.INPUT, experiment_uid=coffee.uid)
    assert [one.rerun_of for one in third] == [one.uid for one in again]
    assert [one.rerun_of for one in client.jobs.retry(cause=Cause.STOPPED, experiment_uid=coffee.uid)] == [stopped.uid]
    assert client.jobs.retry(cause=Cause.TIMEOUT, experiment_uid=coffee.uid) == ()


def test_more_jobs_than_the_limit_are_refused(client: Client) -> None:
    with pytest.raises(ConflictError, match="most_queued"):
        client.jobs.submit_many([job()] * 501)


def test_people_of_an_experiment_run_jobs_on_its_own_files_only(site: Running, coffee: Experiment) -> None:
    ada, eve = member(site, coffee), member(site, coffee)
    made = ada.jobs.submit(job("each", experiment_uid=coffee.uid, arguments={"filePath": "data/scan.h5"}))
    assert eve.jobs.get(made.uid).uid == made.uid
    (site.area / coffee.directory / "data" / "out").symlink_to("/etc/passwd")
    for path in ("/etc/passwd", "../../secret", "data/out"):
        with pytest.raises(NotPermittedError):
            ada.jobs.submit(job("each", experiment_uid=coffee.uid, arguments={"filePath": path}))
    with pytest.raises(NotPermittedError):
        ada.jobs.submit(job())
    for forbidden in (eve.jobs.stop, eve.jobs.delete, eve.jobs.retry, eve.jobs.rerun):
        with pytest.raises(NotPermittedError):
            forbidden(made.uid)
    assert member(site, coffee, Role.PI).jobs.stop(made.uid) == 1


def test_a_pattern_tells_nobody_what_there_is_outside_of_the_experiment(site: Running, coffee: Experiment) -> None:
    ada, home = member(site, coffee), site.area / coffee.directory
    (home.parent / "secret-sample.h5").write_text("theirs")
    (home / "data" / "out").symlink_to(home.parent)
    for pattern in (f"{home.parent}/*.h5", "../*.h5", "data/*/../../../*.h5", "data/out/*.h5"):
        with pytest.raises((NotPermittedError, InvalidError)) as refused:
            ada.jobs.submit(job("each", experiment_uid=coffee.uid, arguments={"filePathPattern": pattern}))
        assert "secret" not in str(refused.value)
    own = job("each", experiment_uid=coffee.uid, arguments={"filePathPattern": "data/*.h5"})
    assert ada.jobs.submit(own).count_files == 1


def test_a_repetition_whose_uid_is_somebody_elses_job_does_not_show_it(site: Running, coffee: Experiment) -> None:
    other = site.client.experiments.create(NewExperiment(name=f"o{new_uid().hex}", station="station"))
    theirs = site.client.jobs.submit(job(experiment_uid=other.uid, arguments={"word": "secret"}))
    ada = member(site, coffee)
    own = ada.jobs.submit(job(experiment_uid=coffee.uid))
    with pytest.raises(NotFoundError):
        ada.http(Service.PROCESSING).call("POST", f"{ada.jobs.path}/{own.uid}:rerun", Job, body=Rerun(uid=theirs.uid))


def test_who_is_not_of_the_experiment_does_not_hear_of_its_jobs(
    site: Running, coffee: Experiment, tmp_path: Path
) -> None:
    other = site.client.experiments.create(NewExperiment(name=f"o{new_uid().hex}", station="station"))
    made = site.client.jobs.submit(job(experiment_uid=coffee.uid))
    stranger = member(site, other)
    jobs = stranger.jobs
    for look in (jobs.get, jobs.record, jobs.original, jobs.rerun, jobs.stop):
        with pytest.raises(NotFoundError):
            look(made.uid)
    with pytest.raises(NotFoundError):
        stranger.jobs.log(made.uid, 1)
    assert made.uid not in [one.uid for one in stranger.jobs.list()]
    with pytest.raises(NotFoundError):
        stranger.jobs.submit(job(experiment_uid=coffee.uid))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "jobs"),
        ("GET", "jobs"),
        ("GET", f"jobs/{new_uid()}"),
        ("GET", f"jobs/{new_uid()}/record"),
        ("GET", f"jobs/{new_uid()}/original"),
        ("GET", f"jobs/{new_uid()}/log/1"),
        ("POST", "jobs:stop"),
        ("POST", "jobs:retry"),
        ("POST", "jobs:delete"),
        ("POST", f"jobs/{new_uid()}:rerun"),
        ("GET", "processing"),
    ],
)
def test_nobody_hears_anything(site: Running, method: str, path: str) -> None:
    url = f"{site.urls[Service.PROCESSING]}/api/v1/{path}"
    assert httpx2.request(method, url, json={} if method == "POST" else None, trust_env=False).status_code == 401


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("jobs", {"jobs": []}),
        ("jobs", {"jobs": [{}]}),
        ("jobs", {"jobs": [{"workflow": "plain", "colour": 1}]}),
        ("jobs", {"jobs": [{"workflow": "plain", "priority": 1000}]}),
        ("jobs", {"jobs": [{"workflow": "plain", "files": [{"path": "relative"}]}]}),
        ("jobs:stop", {}),
        ("jobs:retry", {"cause": "bad luck"}),
    ],
)
def test_what_makes_no_sense_is_refused(site: Running, path: str, body: dict[str, Any]) -> None:
    headers = {"Authorization": f"Bearer {site.bootstrap.operator.token}"}
    url = f"{site.urls[Service.PROCESSING]}/api/v1/{path}"
    assert httpx2.post(url, json=body, headers=headers, trust_env=False).status_code == 422


def test_the_service_says_how_commands_run(client: Client) -> None:
    info = client.jobs.info()
    assert (info.slots, info.accounts, info.most_queued) == (8, (), 500)
    assert info.account
