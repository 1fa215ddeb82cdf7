"""Paths that no client writes: on every route that has one, nobody comes further by writing it in another way."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr

from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewUser
from beamkeeper.testing.services import Running, running

DOCUMENTS = Path(__file__).parents[2] / "docs/reference/openapi"
PASSWORD = "correct horse battery"
CANARY = "canary-of-somebody-else"
ROUTES = [
    (service, verb.upper(), path)
    for service in Service
    for path, verbs in json.loads((DOCUMENTS / f"{service}.json").read_text())["paths"].items()
    for verb in verbs
    if "{" in path
]
VARIANTS: dict[str, Callable[[str], str]] = {
    "as it is": lambda path: path,
    "a slash at the end": lambda path: path + "/",
    "two slashes": lambda path: path.replace("/api/v1/", "/api/v1//"),
    "dots": lambda path: path.replace("/api/v1/", "/api/v1/whoami/../"),
    "dots in code": lambda path: path.replace("/api/v1/", "/api/v1/x/%2e%2e/"),
    "dots in code twice": lambda path: path.replace("/api/v1/", "/api/v1/x/%252e%252e/"),
    "slashes in code": lambda path: "/api/v1/" + path.removeprefix("/api/v1/").replace("/", "%2f"),
    "slashes in code twice": lambda path: "/api/v1/" + path.removeprefix("/api/v1/").replace("/", "%252f"),
    "out of the tree": lambda path: path + "/..%2f..%2f..%2fetc%2fpasswd",
    "other letters": str.upper,
    "a parameter": lambda path: path + ";admin=1",
    "a zero": lambda path: path + "%00",
    "a zero within": lambda path: path.replace("/api/v1/", "/api/v1/%00"),
    "no text": lambda path: path + "%ff%fe",
    "too long a dot": lambda path: path.replace("/api/v1/", "/api/v1/x/%c0%ae%c0%ae/"),
    "very long": lambda path: path + "x" * 5000,
    "like what is public": lambda path: path + "/health",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(*Service, directory=tmp_path_factory.mktemp("paths")) as made:
        yield made


@pytest.fixture(scope="module")
def hidden(site: Running) -> Experiment:
    return site.client.experiments.create(NewExperiment(name="hidden", station="station", title=CANARY))


@pytest.fixture(scope="module")
def token(site: Running) -> str:
    site.client.users.create(NewUser(username="eve", password=SecretStr(PASSWORD)))
    site.client.users.create(NewUser(username="ada", full_name=CANARY))
    return site.as_().sessions.login("eve", PASSWORD).token


THIRDS = [pytest.param(variant, first % 3, id=variant) for first, variant in enumerate(VARIANTS)]
"""Every way with a third of the routes, which is another one for the next way."""
ALL = [pytest.param(v, n, id=f"{v} {n}", marks=pytest.mark.long) for v in VARIANTS for n in range(3)]


@pytest.mark.parametrize(("variant", "third"), THIRDS + ALL)
def test_nobody_comes_further_by_another_way_of_writing(
    site: Running, hidden: Experiment, token: str, variant: str, third: int
) -> None:
    names = {"username": "ada", "name": "hidden", "number": "1", "path_b64": "eA==", "key": "note"}
    faults = []
    for service in Service:
        host, port = site.urls[service].removeprefix("http://").split(":")
        with closing(http.client.HTTPConnection(host, int(port), timeout=30)) as connection:
            for verb, path in [(verb, path) for of, verb, path in ROUTES[third::3] if of is service]:
                filled = re.sub(r"\{(\w+)\}", lambda found: names.get(found[1], str(hidden.uid)), path)
                target = VARIANTS[variant](filled)
                connection.request(verb, target, headers={"Authorization": f"Bearer {token}"})
                answer = connection.getresponse()
                said = answer.read().decode("utf-8", "replace")
                if not 400 <= answer.status < 500 or CANARY in said or answer.getheader("location"):
                    faults.append(f"{verb} {target[:200]}: {answer.status} {said[:200]}")
    assert faults == []


def test_objects_that_are_named_like_what_is_public_stay_hidden(site: Running, token: str) -> None:
    names = ("health", "ready", "login", "static", "docs", "openapi.json", "sessions")
    made = [site.client.experiments.create(NewExperiment(name=name, station="station", title=CANARY)) for name in names]
    eve = site.as_(token)
    assert list(eve.experiments.list()) == []
    host, port = site.urls[Service.STORAGE].removeprefix("http://").split(":")
    with closing(http.client.HTTPConnection(host, int(port), timeout=30)) as connection:
        for name, one in zip(names, made, strict=True):
            for path in (f"/api/v1/experiments/{one.uid}", f"/api/v1/experiments/{name}", f"/api/v1/stations/{name}"):
                for target in (path, f"{path}/health", f"/health/..{path}"):
                    connection.request("GET", target)
                    answer = connection.getresponse()
                    answer.read()
                    assert answer.status in (401, 404), target
