"""Files over HTTP: the real client on real services, on both databases."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any

import httpx2
import pytest

from beamkeeper.client import Client
from beamkeeper.client import files as client_files
from beamkeeper.core import files as core_files
from beamkeeper.db.base import new_uid
from beamkeeper.domain.errors import (
    ConflictError,
    InvalidError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
)
from beamkeeper.domain.experiments import Experiment, ExperimentChange, NewExperiment
from beamkeeper.domain.files import FileQuery, NewFile, NewFiles, ReadFrom, RegisteredAs
from beamkeeper.domain.ledger import NewVerification, ReplicaQuery
from beamkeeper.domain.runs import NewRunRule, RunQuery
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewUser, Role
from beamkeeper.testing.catalogue import new_file
from beamkeeper.testing.servers import PostgresServer, drop_database, fresh_database
from beamkeeper.testing.services import Running, running
from beamkeeper.testing.station import until

PASSWORD = "correct horse"


@dataclass
class Site:
    """Services that run for all tests of this module; each test takes an experiment of its own."""

    beamline: Running
    counter: Iterator[int] = field(default_factory=count)

    @property
    def client(self) -> Client:
        return self.beamline.client

    @property
    def url(self) -> str:
        return self.beamline.urls[Service.CATALOG]

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.beamline.bootstrap.operator.token}"}

    def experiment(self) -> Experiment:
        station = self.beamline.settings.station.name
        return self.client.experiments.create(NewExperiment(name=f"e{next(self.counter)}", station=station))

    def person(self, experiment: Experiment, role: Role | None) -> Client:
        username = f"u{next(self.counter)}"
        self.client.users.create(NewUser(username=username, password=PASSWORD))
        if role is not None:
            self.client.experiments.add_user(experiment.uid, username, role)
        return self.beamline.as_(username=username, password=PASSWORD)

    def fill(self, experiment: Experiment, *files: NewFile | str) -> None:
        service = self.beamline.as_service()
        service.credentials.mirror = self.client.credentials.mirror
        new = [file if isinstance(file, NewFile) else new_file(file) for file in files]
        answers = service.files.register([file.model_copy(update={"experiment_uid": experiment.uid}) for file in new])
        assert {answer.result for answer in answers.files} == {RegisteredAs.CREATED}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    server: PostgresServer | None = None
    url = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        url = fresh_database(server)
    with running(Service.CATALOG, directory=tmp_path_factory.mktemp("site"), url=url) as beamline:
        yield Site(beamline)
    if server is not None and url is not None:
        drop_database(server, url)


def test_more_files_than_go_in_one_call_are_registered_and_found(site: Site) -> None:
    experiment = site.experiment()
    paths = [f"data/{i:04}" for i in range(1001)]
    site.fill(experiment, *paths)
    found = site.client.files.find(FileQuery(experiment_uid=experiment.uid, limit=400))
    assert [file.path for file in found] == paths
    files = site.client.files.lookup(experiment.uid, [path.encode() for path in [*paths, "data/none"]])
    assert sorted(file.path or "" for file in files) == paths
    assert site.client.files.summary(experiment.uid).files == 1001


def test_while_files_are_registered_the_service_tells_those_who_can_wait(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, bulk = site.experiment(), site.beamline.contexts[Service.CATALOG].bulk
    seen, plain = [], core_files.register_text

    def register(*given: Any) -> Any:
        seen.append(bulk.is_any)
        return plain(*given)

    monkeypatch.setattr(core_files, "register_text", register)
    site.fill(experiment, "data/told")
    assert seen == [True]
    with pytest.raises(NotFoundError):
        site.beamline.as_service().files.register([new_file("data/nowhere", experiment_uid=new_uid())])
    until(lambda: not bulk.is_any, "the call has ended")


def test_calls_side_by_side_keep_the_order_of_versions_and_answer_in_the_order_asked(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_files, "REGISTER_LIMIT", 10)
    uid, service = site.experiment().uid, site.beamline.as_service()
    service.credentials.mirror = site.client.credentials.mirror
    first = [new_file(f"data/{i}", experiment_uid=uid) for i in range(12)]
    then = [new_file(f"data/{i}", content=b"other", number=2, experiment_uid=uid) for i in range(10)]
    more = [new_file(f"data/more{i}", experiment_uid=uid) for i in range(15)]
    asked = [*first, *then, *more, first[0]]
    answers = service.files.register(asked).files
    assert [answer.version_uid for answer in answers] == [file.version_uid for file in asked]
    assert {answer.result for answer in answers[:-1]} == {RegisteredAs.CREATED}
    assert answers[-1].result is RegisteredAs.EXISTS
    assert answers[-1].file_uid == answers[0].file_uid
    assert service.files.register([]).files == ()


def test_two_clients_that_bring_some_of_the_same_at_once_lose_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_files, "REGISTER_LIMIT", 10)
    uid = site.experiment().uid
    site.client.runs.add_rule(NewRunRule(experiment_uid=uid, path="data/{run}_*"))

    def bring(first: int) -> list[RegisteredAs]:
        service = site.beamline.as_service()
        service.credentials.mirror = site.client.credentials.mirror
        new = [new_file(f"data/{i % 3}_{i:03}", experiment_uid=uid) for i in range(first, first + 120)]
        return [answer.result for answer in service.files.register(new).files]

    with ThreadPoolExecutor() as pool:
        both = [result for answers in pool.map(bring, (0, 60)) for result in answers]
    assert Counter(both) == {RegisteredAs.CREATED: 180, RegisteredAs.EXISTS: 60}
    runs = {
        run.name: site.client.runs.count(run.uid).files for run in site.client.runs.list(RunQuery(experiment_uid=uid))
    }
    assert runs == {"0": 60, "1": 60, "2": 60}


def test_after_a_call_that_is_refused_no_more_are_begun(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_files, "REGISTER_LIMIT", 10)
    uid, service = site.experiment().uid, site.beamline.as_service()
    service.credentials.mirror = site.client.credentials.mirror
    files = [new_file(f"data/{i}", experiment_uid=uid) for i in range(100)]
    files[15] = files[15].model_copy(update={"experiment_uid": new_uid()})
    with pytest.raises(NotFoundError):
        service.files.register(files)
    taken = site.client.files.summary(uid).files
    # The first call has ended; the second, which is refused, had three after it under way.
    assert taken in range(10, 10 * client_files.IN_FLIGHT + 1, 10), "those after it may have been under way, no others"


def test_bodies_stay_below_what_services_take(site: Site) -> None:
    experiment = site.experiment()
    heavy = {"note": "x" * 900_000}
    site.fill(experiment, *(new_file(f"data/{i}", metadata=heavy) for i in range(90)))
    assert site.client.files.summary(experiment.uid).files == 90


def test_one_files_bad_metadata_does_not_hold_up_the_others(site: Site) -> None:
    experiment = site.experiment()
    deep: Any = 1
    for _ in range(100):
        deep = {"a": deep}
    bad: list[dict[str, Any]] = [{"a": float("nan")}, {"a": 2**70}, {"a": "\0"}, deep, {"a": "x" * 70_000_000}]
    new = [new_file(f"data/{i}").model_copy(update={"metadata": metadata}) for i, metadata in enumerate(bad)]
    site.fill(experiment, *new, "data/good")
    found = list(site.client.files.find(FileQuery(experiment_uid=experiment.uid)))
    assert [list(file.metadata) for file in found] == [["extraction"]] * len(bad) + [[]]


def test_a_search_is_by_path_size_and_metadata(site: Site) -> None:
    experiment = site.experiment()
    energy = {"energy": {"value": 7.1, "unit": "keV"}}
    site.fill(experiment, new_file("data/a.tif", metadata=energy), new_file("data/b.tif"), new_file("data/c.txt"))
    query = FileQuery(experiment_uid=experiment.uid, glob="*.tif", min_size=1, query="energy > 7keV", order="path")
    assert [file.path for file in site.client.files.find(query)] == ["data/a.tif"]
    assert [file.path for file in site.client.files.page(query.model_copy(update={"query": None})).items] == [
        "data/a.tif",
        "data/b.tif",
    ]


def test_the_simple_list_has_pages_too(site: Site) -> None:
    experiment = site.experiment()
    site.fill(experiment, "data/a", "data/b", "other/c")
    query = {"experiment_uid": str(experiment.uid), "glob": "data/*", "limit": "1"}
    with httpx2.Client(base_url=site.url, headers=site.headers, trust_env=False) as http:
        first = http.get("/api/v1/files", params=query).json()
        second = http.get("/api/v1/files", params={**query, "after": first["next"]}).json()
    assert [item["path"] for item in (*first["items"], *second["items"])] == ["data/a", "data/b"]
    assert second["next"] is None


def test_metadata_is_changed_and_removed(site: Site) -> None:
    experiment = site.experiment()
    site.fill(experiment, new_file("data/a", metadata={"sample": {"name": "Ag", "mass": 1}, "x/y?z": 1}))
    person = site.person(experiment, Role.USER)
    (file,) = person.files.lookup(experiment.uid, [b"data/a"])
    changed = person.files.set_metadata(file.uid, {"sample": {"name": None, "shape": "rod"}})
    assert changed.metadata == {"sample": {"mass": 1, "shape": "rod"}, "x/y?z": 1}
    assert person.files.remove_metadata(file.uid, "sample.mass").metadata == {"sample": {"shape": "rod"}, "x/y?z": 1}
    assert person.files.remove_metadata(file.uid, "x/y?z").metadata == {"sample": {"shape": "rod"}}
    with pytest.raises(NotFoundError):
        person.files.remove_metadata(file.uid, "x/y?z")
    with pytest.raises(InvalidError, match="64 bits"):
        person.files.set_metadata(file.uid, {"a": 2**70})
    assert person.files.history(file.uid).file.metadata == {"sample": {"shape": "rod"}}


def test_a_deletion_counts_first_and_can_be_undone(site: Site) -> None:
    experiment = site.experiment()
    site.fill(experiment, "data/a", "data/b")
    query = FileQuery(experiment_uid=experiment.uid, glob="data/*")
    manager, user = site.person(experiment, Role.MANAGER), site.person(experiment, Role.USER)
    with pytest.raises(NotPermittedError):
        user.files.delete(query)
    counted = manager.files.delete(query)
    assert (counted.files, counted.bytes, counted.is_done) == (2, 10, False)
    site.fill(experiment, "data/c")
    with pytest.raises(ConflictError):
        manager.files.delete(query, counted.files)
    assert manager.files.delete(query, 3).is_done
    assert list(user.files.find(query)) == []
    assert manager.files.restore(query.model_copy(update={"glob": "*/a"})).files == 1
    assert [file.path for file in user.files.find(query)] == ["data/a"]


def test_who_has_no_part_in_an_experiment_sees_nothing_of_it(site: Site) -> None:
    experiment = site.experiment()
    site.fill(experiment, "data/a")
    (file,) = site.client.files.lookup(experiment.uid, [b"data/a"])
    stranger = site.person(experiment, None)
    assert list(stranger.files.find(FileQuery(limit=1))) == []
    for ask in (
        lambda: stranger.files.get(file.uid),
        lambda: stranger.files.history(file.uid),
        lambda: stranger.files.summary(experiment.uid),
        lambda: stranger.files.set_metadata(file.uid, {"a": 1}),
        lambda: list(stranger.files.find(FileQuery(experiment_uid=experiment.uid))),
    ):
        with pytest.raises(NotFoundError):
            ask()


def test_the_right_to_read_ends_with_the_role(site: Site) -> None:
    experiment = site.experiment()
    site.fill(experiment, "data/a")
    person = site.person(experiment, Role.USER)
    assert len(list(person.files.find())) == 1
    username = person.sessions.whoami().user
    assert username is not None
    site.client.experiments.remove_user(experiment.uid, username.username)
    assert list(person.files.find()) == []


ROUTES = [
    ("POST", "/api/v1/files:register"),
    ("POST", "/api/v1/files:lookup"),
    ("POST", "/api/v1/files:find"),
    ("POST", "/api/v1/files:facets"),
    ("GET", "/api/v1/stats"),
    ("GET", "/api/v1/files"),
    ("GET", f"/api/v1/files/{new_uid()}"),
    ("GET", f"/api/v1/files/{new_uid()}/history"),
    ("GET", f"/api/v1/files/{new_uid()}/metadata/history"),
    ("PATCH", f"/api/v1/files/{new_uid()}/metadata"),
    ("DELETE", f"/api/v1/files/{new_uid()}/metadata/a"),
    ("POST", "/api/v1/files:delete"),
    ("POST", "/api/v1/files:restore"),
    ("GET", f"/api/v1/experiments/{new_uid()}/summary"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_nobody_gets_in_without_a_session(site: Site, method: str, path: str) -> None:
    with closing(site.beamline.as_()) as nobody, pytest.raises(NotAuthenticatedError):
        nobody.on(Service.CATALOG)().call(method, path, content=b"{}")


BAD = [
    ("files:register", {"files": []}),
    ("files:register", {"files": [new_file("data/a").model_dump(mode="json")] * 1001}),
    ("files:register", {"files": [{**new_file("data/a").model_dump(mode="json"), "extra": 1}]}),
    ("files:register", {"files": [{**new_file("data/a").model_dump(mode="json"), "size": str(2**63)}]}),
    ("files:register", {"files": [{**new_file("data/a").model_dump(mode="json"), "path": "../etc/passwd"}]}),
    ("files:find", {"limit": 0}),
    ("files:find", {"limit": 1001}),
    ("files:find", {"after": "nonsense"}),
    ("files:find", {"glob": "a\0b"}),
    ("files:find", {"query": "a like 1"}),
    ("files:find", {"filter": {"a": {"$where": "1"}}}),
    ("files:find", {"order": "random"}),
    ("files:find", {"unknown": 1}),
    ("files:facets", {"keys": []}),
    ("files:facets", {"keys": ["a..b"]}),
    ("files:facets", {"keys": ["a"] * 11}),
    ("files:facets", {"keys": ["a"], "limit": 101}),
    ("files:facets", {"keys": ["a"], "files": {"query": "size >"}}),
    ("files:lookup", {"experiment_uid": str(new_uid()), "paths": []}),
    ("files:delete", {"query": {}}),
]


@pytest.mark.parametrize(("verb", "body"), BAD, ids=[f"{i}-{verb}" for i, (verb, _) in enumerate(BAD)])
def test_what_makes_no_sense_is_refused_with_a_sentence(site: Site, verb: str, body: dict[str, Any]) -> None:
    with httpx2.Client(base_url=site.url, headers=site.headers, trust_env=False) as http:
        answer = http.post(f"/api/v1/{verb}", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid"
    assert len(answer.json()["message"]) > 10


# The ledger


def test_verifications_are_recorded_by_services_and_shown_to_all(site: Site) -> None:
    experiment = site.experiment()
    site.fill(experiment, *(f"data/{i:04}" for i in range(1001)))
    service = site.beamline.as_service()
    service.credentials.mirror = site.client.credentials.mirror
    query = ReplicaQuery(experiment_uid=experiment.uid, limit=1000)
    first = service.files.replicas(query)
    second = service.files.replicas(query.model_copy(update={"after": first.next}))
    found = [*first.items, *second.items]
    assert len(found) == 1001
    now = datetime.now(UTC)
    items = [
        NewVerification(
            uid=new_uid(),
            replica_uid=one.replica.uid,
            verified_at=now,
            is_match=one.path != "data/0007",
            read_from=ReadFrom.DEVICE,
            checksum=one.checksums[0],
        )
        for one in found
    ]
    with pytest.raises(NotPermittedError):
        site.client.files.verified(items[:1])
    recorded = service.files.verified(items, on_behalf_of="ada")
    assert [one.uid for one in recorded] == [item.uid for item in items]
    assert service.files.verified(items) == recorded
    summary = site.client.files.summary(experiment.uid)
    assert (summary.verified, summary.unverified) == (1000, 1)
    (counted,) = site.client.files.directories(experiment.uid)
    assert (counted.path, counted.files, counted.verified, counted.suspect) == ("data", 1001, 1000, 1)
    assert list(site.client.files.directories(experiment.uid, b"data/none")) == []
    proofs = site.client.files.proofs(experiment.uid, [b"data/0006", b"data/0007"])
    assert [proof.replicas[0].is_fresh(now) for proof in proofs] == [True, False]
    (bad,) = service.files.lookup(experiment.uid, [b"data/0007"])
    assert not bad.is_verified
    assert [row.is_match for row in site.client.files.history(bad.uid).ledger] == [True, False]


# Searches

DEEP: Any = {"a": 1}
for _ in range(200):
    DEEP = {"$not": DEEP}

HOSTILE: list[tuple[str, dict[str, Any]]] = [
    ("character 4", {"query": "a; drop table files"}),
    ("$where", {"filter": {"$where": "sleep(1000)"}}),
    ("$function", {"filter": {"a": {"$function": {"body": "x"}}}}),
    ("begins with ^", {"query": 'a matches "(a+)+$"'}),
    ("refused", {"filter": {"a": {"$regex": "^((a{100}){100}){100}"}}}),
    ("refused", {"filter": {"a": {"$regex": r"^(a)\1"}}}),
    ("8192 characters", {"query": "a = 1 and " * 900}),
    ("more than 200", {"filter": {"$or": [{"a": 1}] * 5000}}),
    ("at most 500", {"filter": {"a": {"$in": [1] * 5000}}}),
    ("deeper than 20", {"filter": DEEP}),
    ("a text of", {"filter": {"a": "x" * 1_000_000}}),
    ("double", {"filter": {"a": 10**400}}),
    ("NUL", {"filter": {"a": "\0"}}),
    ("NUL", {"filter": {"a\0b": 1}}),
    ("surrogate", {"filter": {"a": "\ud800"}}),
    ("cursor", {"query": "a = 1", "after": "WyJ4IiwxXQ"}),
]
RAW: list[bytes] = [
    b'{"filter": {"a": NaN}}',
    b'{"filter": {"a": 1e999}}',
    b'{"filter": ' + b'{"$not":' * 100_000 + b"1" + b"}" * 100_001,
    b'{"filter": {"a": 1, "a": {"$where": 1}}}',
    b'{"query": "a = \xff"}',
    b'{"filter": [1]}',
]
HARMLESS = ['a"); --', "'; DROP TABLE files; --", "$ne", "%", "_", "*", "\\", "a' OR '1'='1", "\u202e", "{}"]


@pytest.mark.parametrize(("reason", "body"), HOSTILE, ids=[f"{i}-{reason}" for i, (reason, _) in enumerate(HOSTILE)])
def test_a_hostile_search_is_refused_with_the_reason(site: Site, reason: str, body: dict[str, Any]) -> None:
    with httpx2.Client(base_url=site.url, headers=site.headers, trust_env=False) as http:
        answer = http.post("/api/v1/files:find", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code in (413, 422), answer.text[:500]
    assert reason in answer.json()["message"]


@pytest.mark.parametrize("body", RAW, ids=range(len(RAW)))
def test_a_search_that_is_hardly_json_is_refused(site: Site, body: bytes) -> None:
    with httpx2.Client(base_url=site.url, headers=site.headers, trust_env=False) as http:
        answer = http.post("/api/v1/files:find", content=body, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500, answer.text[:500]
    assert len(answer.json()["message"]) < 1000


def test_what_looks_like_code_is_a_value_or_a_key(site: Site) -> None:
    experiment = site.experiment()
    site.fill(
        experiment,
        *(new_file(f"data/{i}", metadata={text: text}) for i, text in enumerate(HARMLESS) if "." not in text),
    )
    for i, text in enumerate(HARMLESS):
        for asked in ({text: text} if not text.startswith("$") else {}, {text: {"$in": [text]}}):
            if text.startswith("$"):
                continue
            query = FileQuery(experiment_uid=experiment.uid, filter=asked)
            assert [file.path for file in site.client.files.find(query)] == [f"data/{i}"], text


def test_a_search_shows_what_the_caller_may_see(site: Site) -> None:
    mine, other = site.experiment(), site.experiment()
    for experiment in (mine, other):
        site.fill(experiment, new_file("data/a", metadata={"who": "me", "secret": str(experiment.uid)}))
    person = site.person(mine, Role.USER)
    asked = [
        'who = "me"',
        "not who = you",
        "who exists or not who exists",
        f'experiment = "{other.name}" or experiment = "{mine.name}"',
        f'secret = "{other.uid}" or secret = "{mine.uid}"',
        "data",
        "size >= 0",
        "",
    ]
    for query in asked:
        assert {file.experiment_uid for file in person.files.find(query)} == {mine.uid}, query
    assert list(person.files.find(f'secret = "{other.uid}"')) == []
    with httpx2.Client(base_url=site.url, headers=site.headers, trust_env=False) as http:
        found = http.get("/api/v1/files", params={"query": f'secret = "{other.uid}"', "order": "newest"}).json()
    assert [item["experiment_uid"] for item in found["items"]] == [str(other.uid)]


# Metadata that nobody could keep


HOSTILE_METADATA = [
    ('{"a": 1, "a": 2}', "stands twice in one object"),
    ('{"a": {"b": NaN}}', "knows no NaN"),
    ('{"a": -Infinity}', "knows no -Infinity"),
    ('{"a": 1e999}', "inf, which JSON does not know"),
    (f'{{"a": {2**70}}}', "beyond 64 bits"),
    ('{"a": ' + "9" * 5000 + "}", "5000 digits"),
    ('{"a": "\\u0000"}', "NUL"),
    ('{"\\u0000": 1}', "NUL"),
    ('{"a": "\\ud800"}', "Unicode"),
    ('{"a":' * 1000 + "1" + "}" * 1000, ""),
    ('{"a":' * 100 + "1" + "}" * 100, "nested deeper than 32"),
    ('{"a":' * 100_000, "nested too deeply"),
    ('{"a": "' + "x" * 2**21 + '"}', "accepted"),
    ('{"a": "' + "x" * 10_000_000 + '"}', "at most"),
    ("[1]", ""),
    ("{", "Expecting"),
]


@pytest.mark.parametrize(("body", "reason"), HOSTILE_METADATA, ids=range(len(HOSTILE_METADATA)))
@pytest.mark.parametrize("noun", ["files", "experiments"])
def test_metadata_that_nobody_could_keep_is_refused_with_the_reason(
    site: Site, noun: str, body: str, reason: str
) -> None:
    experiment = site.experiment()
    site.fill(experiment, new_file("data/a", metadata={"kept": 1}))
    (file,) = site.client.files.lookup(experiment.uid, [b"data/a"])
    if noun == "files":
        url, path = site.url, f"/api/v1/files/{file.uid}/metadata"
    else:
        url, path = site.beamline.urls[Service.STORAGE], f"/api/v1/experiments/{experiment.uid}"
        body = f'{{"metadata": {body}}}'
    with httpx2.Client(base_url=url, headers=site.headers, trust_env=False) as http:
        answer = http.patch(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (413, 422)
    assert reason in answer.json()["message"]
    assert site.client.files.get(file.uid).metadata == {"kept": 1}
    assert list(site.client.files.metadata_history(file.uid)) == []
    assert site.client.experiments.by_uid(experiment.uid).metadata == {}


def test_an_experiments_metadata_has_a_history(site: Site) -> None:
    experiment = site.experiment()
    for value in (1, 2):
        site.client.experiments.update(experiment.uid, ExperimentChange(metadata={"n": value}))
    changes = list(site.client.experiments.metadata_history(experiment.uid))
    assert [(change.patch, change.before) for change in changes] == [({"n": 2}, {"n": 1}), ({"n": 1}, {})]
    with pytest.raises(NotFoundError):
        list(site.person(experiment, None).experiments.metadata_history(experiment.uid))


def test_a_batch_in_which_a_key_stands_twice_is_refused_with_the_place(site: Site) -> None:
    key = '"energy"'
    new = new_file("data/a", metadata={"energy": 1, "other": 2})
    twice = NewFiles(files=(new,)).model_dump_json().replace('"other":', '"energy":')
    with httpx2.Client(base_url=site.url, headers=site.headers, trust_env=False) as http:
        answer = http.post("/api/v1/files:register", content=twice, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert 'the key "energy" stands twice' in answer.json()["message"]
    assert f"character {twice.rindex(key)}" in answer.json()["message"]
