"""Datasets, runs and provenance over HTTP, as the client asks for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import UUID

import httpx2
import pytest

from beamkeeper.client import Client
from beamkeeper.db.base import new_uid
from beamkeeper.domain.datasets import NewDataset
from beamkeeper.domain.errors import AlreadyExistsError, ConflictError, NotAuthenticatedError, NotFoundError
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.provenance import Towards
from beamkeeper.domain.runs import NewRun, NewRunRule, RunStop
from beamkeeper.domain.status import Service
from beamkeeper.server.crowd import MOST
from beamkeeper.testing.catalogue import new_file
from beamkeeper.testing.services import Running, running


@dataclass
class Site:
    beamline: Running
    counter: Iterator[int] = field(default_factory=count)

    @property
    def client(self) -> Client:
        return self.beamline.client

    def experiment(self) -> Experiment:
        station = self.beamline.settings.station.name
        return self.client.experiments.create(NewExperiment(name=f"e{next(self.counter)}", station=station))

    def fill(self, experiment: Experiment, *paths: str) -> list[UUID]:
        service = self.beamline.as_service()
        service.credentials.mirror = self.client.credentials.mirror
        answers = service.files.register([new_file(path, experiment_uid=experiment.uid) for path in paths])
        return [answer.file_uid for answer in answers.files if answer.file_uid is not None]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Service.CATALOG, directory=tmp_path_factory.mktemp("site")) as beamline:
        yield Site(beamline)


def test_a_dataset_is_filled_listed_and_frozen(site: Site) -> None:
    experiment = site.experiment()
    uids = site.fill(experiment, *(f"data/{i:04}" for i in range(1001)))
    made = site.client.datasets.create(NewDataset(experiment_uid=experiment.uid, name="all"))
    assert site.client.datasets.named(experiment.uid, "all") == made == site.client.datasets.get(made.uid)
    assert site.client.datasets.add_files(made.uid, uids) == 1001
    assert site.client.datasets.remove_files(made.uid, uids[:1]) == 1
    # Two calls register at once: the second may be there first.
    assert {member.file.uid for member in site.client.datasets.files(made.uid)} == set(uids[1:])
    assert site.client.datasets.count(made.uid).files == 1000
    site.client.datasets.set_metadata(made.uid, {"sample": "Ag"})
    assert [change.patch for change in site.client.datasets.metadata_history(made.uid)] == [{"sample": "Ag"}]
    assert site.client.datasets.freeze(made.uid).frozen_at is not None
    with pytest.raises(ConflictError):
        site.client.datasets.add_files(made.uid, uids[:1])
    with pytest.raises(AlreadyExistsError):
        site.client.datasets.create(NewDataset(experiment_uid=experiment.uid, name="all", title="other"))
    with pytest.raises(NotFoundError):
        site.client.datasets.named(experiment.uid, "none")


def test_a_run_begins_takes_files_and_ends(site: Site) -> None:
    experiment = site.experiment()
    rule = site.client.runs.add_rule(NewRunRule(experiment_uid=experiment.uid, path="data/{run}_?"))
    uids = site.fill(experiment, "data/142_0", "data/142_1", "data/notes")
    run = site.client.runs.create(NewRun(experiment_uid=experiment.uid, name="142", start={"plan": "scan"}))
    assert site.client.runs.add_files(run.uid, uids[2:]) == 1
    assert [member.file.uid for member in site.client.runs.files(run.uid)] == uids
    assert site.client.runs.count(run.uid).files == 3
    assert site.client.runs.remove_files(run.uid, uids) == 1
    assert site.client.runs.stop(run.uid, RunStop(stop={"points": 2})).state == "stopped"
    site.client.runs.set_metadata(run.uid, {"note": "good"})
    found = site.client.runs.named(experiment.uid, "142")
    assert found == site.client.runs.get(run.uid)
    assert found.metadata == {"start": {"plan": "scan"}, "stop": {"points": 2}, "note": "good"}
    assert len(list(site.client.runs.metadata_history(run.uid))) == 3
    assert [one.uid for one in site.client.runs.rules(experiment.uid)] == [rule.uid]
    site.client.runs.remove_rule(rule.uid)
    assert site.client.runs.rules(experiment.uid) == ()
    with pytest.raises(NotFoundError):
        site.client.runs.named(experiment.uid, "7")


def test_of_many_files_is_asked_at_once_where_they_belong(site: Site) -> None:
    experiment, other = site.experiment(), site.experiment()
    uids = site.fill(experiment, *(f"data/{i:04}" for i in range(1001)))
    runs = [site.client.runs.create(NewRun(experiment_uid=experiment.uid, name=name)).uid for name in ("1", "2")]
    sets = [site.client.datasets.create(NewDataset(experiment_uid=experiment.uid, name=n)).uid for n in ("a", "b")]
    for run, dataset, members in zip(runs, sets, (uids[:2], uids[1:3]), strict=True):
        site.client.runs.add_files(run, members)
        site.client.datasets.add_files(dataset, members)
    assert site.client.runs.of_files(experiment.uid, uids) == dict(zip(uids, [runs[0], *runs[1:] * 2], strict=False))
    assert site.client.datasets.of_files(experiment.uid, uids) == dict(
        zip(uids, [sets[0], *sets[1:] * 2], strict=False)
    )
    assert site.client.runs.of_files(other.uid, uids[:3]) == {}


def test_a_chain_is_recorded_and_told(site: Site) -> None:
    experiment = site.experiment()
    raw, mean = site.fill(experiment, "data/raw", "analysis/mean")
    assert site.client.provenance.record(mean, [raw], job="reduce", stage="average") == 1
    assert site.client.provenance.record(mean, [raw]) == 0
    with pytest.raises(ConflictError):
        site.client.provenance.record(raw, [mean])
    down = site.client.provenance.why(mean)
    assert [(file.file.path if file.file else None) for file in down.files] == ["analysis/mean", "data/raw"]
    assert (down.links[0].job, down.links[0].stage) == ("reduce", "average")
    assert len(site.client.provenance.why(raw, Towards.RESULTS).links) == 1


def test_all_of_a_file_is_told_at_once(site: Site) -> None:
    experiment = site.experiment()
    raw, mean, late = site.fill(experiment, "data/raw", "analysis/mean", "analysis/late")
    site.client.provenance.record(mean, [raw], job="reduce")
    site.client.provenance.record(late, [mean])
    for number in range(60):
        site.client.files.set_metadata(mean, {"n": number})
    found, history = site.client.files.record(mean), site.client.files.history(mean)
    assert (found.file, found.versions, found.replicas, found.ledger) == (
        history.file,
        history.versions,
        history.replicas,
        history.ledger,
    )
    assert list(found.changes) == list(site.client.files.metadata_history(mean))[:50]
    assert found.made_from == site.client.provenance.why(mean)
    assert found.made_into == site.client.provenance.why(mean, Towards.RESULTS)
    site.client.files.delete(FileQuery(experiment_uid=experiment.uid, glob="analysis/mean"), 1)
    hidden = site.client.files.record(mean)
    assert (hidden.file.deleted_at is None, hidden.made_from, hidden.made_into) == (False, None, None)
    with pytest.raises(NotFoundError):
        site.client.files.record(experiment.uid)


def test_a_result_is_stale_once_what_it_was_made_from_has_a_newer_version(site: Site) -> None:
    experiment = site.experiment()
    raw, mean, _ = site.fill(experiment, "data/raw", "analysis/mean", "analysis/other")
    site.client.provenance.record(mean, [raw])

    def stale() -> list[str | None]:
        found = site.client.files.find(FileQuery(experiment_uid=experiment.uid, stale=True))
        return [file.path for file in found]

    assert (stale(), site.client.provenance.why(mean).is_stale) == ([], False)
    for number, path in ((2, "data/raw"), (2, "analysis/mean")):
        new = new_file(path, content=b"other", number=number, experiment_uid=experiment.uid)
        site.beamline.as_service().files.register([new])
        if path == "data/raw":
            assert (stale(), site.client.provenance.why(mean).is_stale) == (["analysis/mean"], True)
            assert not site.client.provenance.why(raw, Towards.RESULTS).is_stale
    assert stale() == []  # made again


UID = str(new_uid())
ROUTES = [
    ("POST", "/api/v1/datasets"),
    ("GET", "/api/v1/datasets"),
    ("POST", "/api/v1/datasets:of-files"),
    ("GET", f"/api/v1/datasets/{UID}"),
    ("GET", f"/api/v1/datasets/{UID}/summary"),
    ("GET", f"/api/v1/datasets/{UID}/files"),
    ("POST", f"/api/v1/datasets/{UID}/files:add"),
    ("POST", f"/api/v1/datasets/{UID}/files:remove"),
    ("POST", f"/api/v1/datasets/{UID}/freeze"),
    ("PATCH", f"/api/v1/datasets/{UID}/metadata"),
    ("GET", f"/api/v1/datasets/{UID}/metadata/history"),
    ("POST", "/api/v1/runs"),
    ("GET", "/api/v1/runs"),
    ("POST", "/api/v1/runs:of-files"),
    ("GET", f"/api/v1/runs/{UID}"),
    ("POST", f"/api/v1/runs/{UID}/stop"),
    ("GET", f"/api/v1/runs/{UID}/summary"),
    ("GET", f"/api/v1/runs/{UID}/files"),
    ("POST", f"/api/v1/runs/{UID}/files:add"),
    ("POST", f"/api/v1/runs/{UID}/files:remove"),
    ("PATCH", f"/api/v1/runs/{UID}/metadata"),
    ("GET", f"/api/v1/runs/{UID}/metadata/history"),
    ("GET", f"/api/v1/run-rules?experiment_uid={UID}"),
    ("POST", "/api/v1/run-rules"),
    ("DELETE", f"/api/v1/run-rules/{UID}"),
    ("POST", f"/api/v1/files/{UID}/sources"),
    ("GET", f"/api/v1/files/{UID}/provenance"),
]


def test_the_routes_of_these_nouns_are_all_named_here(site: Site) -> None:
    document = httpx2.get(f"{site.beamline.urls[Service.CATALOG]}/api/v1/openapi.json", trust_env=False).json()
    nouns = {"datasets", "runs", "provenance"}
    routes = {
        (method.upper(), path.replace("{uid}", UID))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if nouns & set(operation["tags"])
    }
    assert routes == {(method, path.partition("?")[0]) for method, path in ROUTES}


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_nobody_gets_in_without_a_session(site: Site, method: str, path: str) -> None:
    with closing(site.beamline.as_()) as nobody, pytest.raises(NotAuthenticatedError):
        nobody.on(Service.CATALOG)().call(method, path, content=b"{}")


BAD: list[tuple[str, Any]] = [
    ("datasets", {"experiment_uid": UID, "name": "../x"}),
    ("datasets", {"experiment_uid": UID, "name": "x", "query": ""}),
    ("datasets", {"experiment_uid": UID, "name": "x", "unknown": 1}),
    (f"datasets/{UID}/files:add", {"file_uids": []}),
    (f"datasets/{UID}/files:add", {"file_uids": [UID] * 1001}),
    ("runs", {"experiment_uid": UID, "name": ""}),
    ("runs", {"experiment_uid": UID, "name": "a/b"}),
    ("runs", {"experiment_uid": UID, "name": "a\0"}),
    ("runs", {"experiment_uid": UID, "name": "1", "started_at": "2026-01-01T00:00:00"}),
    ("run-rules", {"experiment_uid": UID, "path": "data/*"}),
    ("run-rules", {"experiment_uid": UID, "path": "{run}" + "*a" * 40}),
    (f"files/{UID}/sources", {"sources": []}),
    (f"files/{UID}/sources", {"sources": [{"file_uid": UID, "version": 0}]}),
    (f"files/{UID}/sources", {"sources": [{"file_uid": UID}], "job": "\0"}),
]


@pytest.mark.parametrize(("path", "body"), BAD, ids=range(len(BAD)))
def test_what_makes_no_sense_is_refused_with_a_sentence(site: Site, path: str, body: Any) -> None:
    headers = {
        "Authorization": f"Bearer {site.beamline.bootstrap.operator.token}",
        "Content-Type": "application/json",
    }
    url = f"{site.beamline.urls[Service.CATALOG]}/api/v1/{path}"
    answer = httpx2.post(url, content=json.dumps(body), headers=headers, trust_env=False)
    assert answer.status_code == 422
    assert len(answer.json()["message"]) > 10


def test_all_that_one_person_may_have_open_can_write_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for its turn to write holds a thread; who has the turn needs one more, and would wait for them."""
    monkeypatch.setattr("beamkeeper.db.base.SQLITE_BUSY_S", 600.0)
    experiment = site.experiment()
    site.client.datasets.create(NewDataset(experiment_uid=experiment.uid, name="first"))  # the mirror knows of it

    def create(number: int) -> str:
        return site.client.datasets.create(NewDataset(experiment_uid=experiment.uid, name=f"d{number}")).name

    with ThreadPoolExecutor(MOST) as pool:
        names = list(pool.map(create, range(3 * MOST)))
    assert names == [f"d{number}" for number in range(3 * MOST)]
