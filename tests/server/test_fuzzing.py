"""Whatever is sent to a route, by whomever, is answered as its document says.

Schemathesis makes the requests from the OpenAPI documents. Most are made to name things that are there, so that they
come further than to what is not found. Nothing but what the document says of the route may come back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from beamkeeper.core.tokens import new_token, token_sha256
from beamkeeper.domain.status import Service
from beamkeeper.testing.services import running
from beamkeeper.testing.world import API, PLACES, World
from beamkeeper.testing.world import settings as world_settings
from server.fuzzing_hooks import waits_shortly
from server.test_matrix import GONE_AFTER, TABLE

DOCUMENTS = Path(__file__).parents[2] / "docs/reference/openapi"
ROLES = ("anonymous", "user", "member", "station manager", "administrator", "service")
EXAMPLES = 3
"""Of each route; the program itself, in `make test-long`, makes many more."""
ANSWERED_WELL = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
KINDS = {
    "experiment_uid": "experiment",
    "storage_area_uid": "area_uid",
    "station_uid": "station_uid",
    "station": "station",
}
KINDS |= {
    "station": "station",
    "set_uid": "set",
    "file_uid": "file",
    "dataset_uid": "dataset",
    "username": "user",
    "replica_uid": "replica",
}
PROGRAM = ["--phases=examples,coverage,fuzzing,stateful", "--max-examples=20", "--seed=8", "--no-color"]
PROGRAM += ["--checks=not_a_server_error,status_code_conformance,content_type_conformance"]
PROGRAM += ["--checks=response_schema_conformance,ignored_auth,use_after_free", "--request-timeout=100"]
QUICKLY = settings(
    max_examples=EXAMPLES,
    phases=[Phase.generate],
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def has_inputs(operation: Mapping[str, Any]) -> bool:
    """Whether more can be sent to a route than uids: only that is worth the time of every run."""
    inputs = [each for each in operation.get("parameters", ()) if each["in"] != "header" and each["name"] != "uid"]
    return bool(inputs) or "requestBody" in operation


OPERATIONS = [
    pytest.param(service, f"{verb.upper()} {path}", marks=() if has_inputs(operation) else pytest.mark.long)
    for service in Service
    for path, verbs in json.loads((DOCUMENTS / f"{service}.json").read_text())["paths"].items()
    for verb, operation in verbs.items()
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The site with everybody and everything in it."""
    directory = tmp_path_factory.mktemp("fuzzing")
    with running(*Service, directory=directory, settings=world_settings(directory)) as services:
        made = World(services)
        yield made
        made.close()


@pytest.fixture(scope="module")
def schemas() -> dict[Service, Any]:
    """What the documents say."""
    return {service: schemathesis.openapi.from_path(str(DOCUMENTS / f"{service}.json")) for service in Service}


def token_of(world: World, name: str) -> str | None:
    """Return a token of somebody that holds, whatever was done with the one before."""
    token = world.people[name].token
    if token is None or world.send(Service.STORAGE, "GET", API + "/whoami", token=token).is_success:
        return token
    fresh = new_token()
    with world.running.database.write() as tx:
        own: dict[str, Any] = {"expires_at": tx.now + timedelta(hours=1)}
        if name == "service":
            own = {"station_uid": UUID(world.objects["station_uid"]["own"])}
        else:
            own["user_uid"] = tx.users.named(name.replace(" ", "-")).uid
        tx.users.add_session(token_sha256(fresh), **own)
    world.people[name] = replace(world.people[name], token=fresh)
    return fresh


def known(world: World, value: Any, place: str) -> Any:
    """Return what is sent with things that are there in it."""
    if isinstance(value, list):
        return [known(world, each, place) for each in value]
    if not isinstance(value, dict):
        return value
    there = {key: world.objects[kind].get(place) for key, kind in KINDS.items()}
    return {key: there.get(key) or known(world, each, place) for key, each in value.items()}


@dataclass
class Fuzzed:
    """One route of the site, to which anything may be sent."""

    world: World
    service: Service
    route: str

    def send(self, case: Any, name: str, place: str, how: int) -> None:
        """Send one case as somebody; `how` says how much of it is made to name what is there."""
        kind = TABLE[self.service][self.route].partition(" of ")[2]
        if how:
            self._aim(case, kind, place)
        if isinstance(case.query, dict):
            waits_shortly(case.query)
        token = token_of(self.world, name)
        for header in ("authorization", "beamkeeper-mirror"):  # the latter waits for what never comes
            case.headers.pop(header, None)
        case.call_and_validate(
            base_url=self.world.running.urls[self.service],
            headers={"Authorization": f"Bearer {token}"} if token else None,
            checks=ANSWERED_WELL,
        )

    def _aim(self, case: Any, kind: str, place: str) -> None:
        uid = self.world.objects.get(kind, {}).get(place)
        if uid and place != "missing" and self.route in GONE_AFTER:
            uid = self.world.fresh(kind, place)
        if isinstance(case.path_parameters, dict) and uid:
            case.path_parameters |= {one: uid for one in ("uid", "name", "username") if one in case.path_parameters}
        case.body, case.query = known(self.world, case.body, place), known(self.world, case.query, place)


@pytest.mark.parametrize(("service", "route"), OPERATIONS)
def test_whatever_is_sent_is_answered_as_documented(
    request: pytest.FixtureRequest, world: World, schemas: dict[Service, Any], service: Service, route: str
) -> None:
    verb, _, path = route.partition(" ")
    fuzzed = Fuzzed(world, service, f"{verb} {path.removeprefix(API)}")
    operation = schemas[service][path][verb]
    cases = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode]
    if template := TABLE["send"].get(fuzzed.route):
        bodies = [json.loads(world.filled(template, place)) for place in PLACES]
        cases.append(st.builds(with_body, cases[0], st.sampled_from(bodies)))

    @QUICKLY
    @given(case=st.one_of(cases), name=st.sampled_from(ROLES), place=st.sampled_from(PLACES), how=st.integers(0, 3))
    def attempt(case: Any, name: str, place: str, how: int) -> None:
        fuzzed.send(case, name, place, how)

    attempt()


def with_body(case: Any, body: Any) -> Any:
    """Return a case that sends this."""
    case.body = body
    return case


@pytest.mark.long
@pytest.mark.parametrize("name", ROLES)
@pytest.mark.parametrize("service", Service)
def test_the_program_finds_nothing_in_a_service_that_serves_somebody(
    tmp_path: Path, service: Service, name: str
) -> None:
    with running(*Service, directory=tmp_path, settings=world_settings(tmp_path)) as services:
        world = World(services)
        token = world.people[name].token
        configuration = tmp_path / "schemathesis.toml"
        with services.database.read() as tx:
            here = tx.events.cursor()  # any other is waited for in vain
        seen = f'[parameters]\n"header.beamkeeper-mirror" = "{here}"\n'
        configuration.write_text((f'headers = {{ Authorization = "Bearer {token}" }}\n' if token else "") + seen)
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(configuration), "run"]
        command += [str(DOCUMENTS / f"{service}.json"), "--url", services.urls[service], *PROGRAM]
        hooks = {"SCHEMATHESIS_HOOKS": "server.fuzzing_hooks", "PYTHONPATH": str(Path(__file__).parents[1])}
        environ = os.environ | hooks
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environ)
        world.close()
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr
