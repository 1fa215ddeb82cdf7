"""The matrix of rights: every route with every kind of caller on every kind of object, against the one table."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2
import pytest

from beamkeeper.domain.status import Service
from beamkeeper.domain.users import Scope
from beamkeeper.testing.services import running
from beamkeeper.testing.world import API, NOBODY, PLACES, Person, World, settings

TABLE = tomllib.loads((Path(__file__).parent / "matrix.toml").read_text())
DOCUMENTS = Path(__file__).parents[2] / "docs/reference/openapi"
OF_EXPERIMENT = frozenset({"experiment", "file", "replica", "dataset", "run", "rule", "daq", "upload", "put"})
OF_EXPERIMENT |= {"publish", "check", "listing", "discard", "walk", "copy", "replica_request", "version"}
KNOWS_ALL = frozenset({"administrator", *(f"key with {scope}" for scope in Scope)})
NOWHERE = "01900000-0000-7000-8000-000000000000"
MIRROR = "GET /mirror"
"""Has all identities of the site, for the services of every station."""

TRIED_IN_VAIN = {
    "POST /sessions": (401, 429),
    "POST /offline-sessions": (409,),
    "PUT /offline-login": (401, 403, 409),
    "GET /shared/{token}/{name}": (404,),
    "POST /stations/join": (401, 403, 404),
    "POST /identity-providers/{name}/logins": (404,),
    "POST /identity-providers/{name}/sessions": (401,),
    "POST /identity-providers/{name}/links": (401, 403, 404, 422),
    "POST /identity-providers/{name}/identities": (401, 403, 422),
}
"""Routes for everybody that are called with what does not hold."""
GONE_AFTER = {
    "DELETE /experiments/{uid}": "experiment",
    "DELETE /run-rules/{uid}": "rule",
    "DELETE /holds/{uid}": "hold",
    "DELETE /sessions/{uid}": "session",
    "DELETE /keys/{uid}": "key",
}
"""What is made anew for each call that may."""
MISSING_INSIDE = frozenset(
    f"{verb} {path}"
    for verb, path in (
        ("GET", "/experiments/{uid}/arrays/node"),
        ("GET", "/experiments/{uid}/content"),
        ("GET", "/experiments/{uid}/arrays/members"),
        ("GET", "/experiments/{uid}/arrays/tree"),
        ("GET", "/experiments/{uid}/arrays/values"),
        ("DELETE", "/experiments/{uid}/people/{username}"),
        ("DELETE", "/files/{uid}/metadata/{key}"),
        ("POST", "/datasets/{uid}/files:add"),
        ("POST", "/datasets/{uid}/files:remove"),
        ("POST", "/runs/{uid}/files:add"),
        ("POST", "/runs/{uid}/files:remove"),
        ("DELETE", "/grants"),
        ("GET", "/syncs/{uid}"),
        ("PATCH", "/experiment-types/{name}"),
        ("POST", "/jobs:stop"),
        ("POST", "/jobs:retry"),
        ("POST", "/jobs:delete"),
        ("POST", "/jobs"),
        ("GET", "/storage-areas/{name}"),
        ("POST", "/users/{username}/identities"),
        ("DELETE", "/users/{username}/identities/{identity}"),
    )
)
"""Who may is answered 404 by these as well: what they are asked about within the object is not there."""


def documented(service: Service) -> dict[str, set[str]]:
    """Return the routes that a service's document has, each with the statuses of its answers."""
    document = json.loads((DOCUMENTS / f"{service}.json").read_text())
    return {
        f"{verb.upper()} {path.removeprefix(API)}": set(operation["responses"])
        for path, verbs in document["paths"].items()
        for verb, operation in verbs.items()
    }


DOCUMENTED = {service: documented(service) for service in Service}


CASES = [(service, route) for service in Service for route in sorted(TABLE[service])]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The site with everybody and everything in it; changed by what is allowed, and by nothing else."""
    directory = tmp_path_factory.mktemp("matrix")
    with running(*Service, directory=directory, settings=settings(directory)) as services:
        made = World(services)
        yield made
        made.close()


@pytest.mark.parametrize("service", Service)
def test_every_route_has_its_row(service: Service) -> None:
    assert set(TABLE[service]) == set(DOCUMENTED[service])
    used = {rule.partition(" of ")[0] for each in Service for rule in TABLE[each].values()}
    assert used == set(TABLE["groups"])


@dataclass(frozen=True)
class Attempt:
    """One caller's request for one object."""

    world: World
    service: Service
    route: str
    place: str
    name: str

    @property
    def kind(self) -> str:
        """Of what the object is."""
        return str(TABLE[self.service][self.route].partition(" of ")[2])

    @property
    def person(self) -> Person:
        """Who asks."""
        return self.world.people[self.name]

    @property
    def is_allowed(self) -> bool:
        """Whether the table lets them."""
        group = TABLE["groups"][TABLE[self.service][self.route].partition(" of ")[0]]
        if "anonymous" in group["may"]:
            return True
        if self.name in NOBODY:
            return False
        reach = {"site": frozenset(PLACES), "station": frozenset({"own", "same"})}.get(
            group.get("anywhere"), {self.place}
        )
        is_there = not self.kind or bool(reach & self.person.places)
        if self.person.scopes and self.person.scopes.isdisjoint(group["keys"]):
            return False
        return "everybody" in group["may"] or (self.person.role in group["may"] and is_there)

    @property
    def may_know(self) -> bool:
        """Whether they may know of the object."""
        return self.kind not in OF_EXPERIMENT or self.place in self.person.places

    def send(self) -> httpx2.Response:
        """Make anew what a call would remove, and send the request."""
        ends_session = self.route == "DELETE /sessions/current" and self.name not in NOBODY
        token = self.person.token
        if self.name == "self" and (self.kind in ("user", "session") or ends_session):
            token = self.world.login(self.name)
        if ends_session and token == self.person.token:
            return httpx2.Response(204)  # of those who are asked again later
        if self.route in GONE_AFTER and (
            self.kind in ("session", "key") or (self.is_allowed and self.place != "missing")
        ):
            kept = self.world.objects.setdefault(self.kind, {})
            before, kept[self.place] = kept.get(self.place), self.world.fresh(GONE_AFTER[self.route], self.place)
            answer = call(self.world, self.service, self.route, place=self.place, token=token)
            kept[self.place] = before or kept[self.place]
            return answer
        answer = call(self.world, self.service, self.route, place=self.place, token=token)
        if self.route.endswith("/password"):  # which ends the sessions of who it is of
            self.world.people["self"] = replace(self.world.people["self"], token=self.world.login("self"))
        return answer

    def faults(self) -> Iterator[str]:
        """Yield what is not as the table has it."""
        answer = self.send()
        status = answer.status_code
        shown = f"{self.name} on {self.place}: {status} {answer.text[:200]}"
        if status >= 500 and status != 507:
            yield f"{shown}: should not fail"
        if str(status) not in DOCUMENTED[self.service][self.route]:
            yield f"{shown}: is not in the document"
        is_told = status < 400 and self.is_allowed
        hidden = [c for place, c in self.world.canaries.items() if place not in self.person.places]
        said = answer.text + str(answer.headers.raw)
        if found := [
            canary for canary in hidden if canary in said and self.name not in KNOWS_ALL and self.route != MIRROR
        ]:
            yield f"{shown}: tells of {found}{' to one who may' if is_told else ''}"
        if (wanted := self.wanted()) and status not in wanted:
            yield f"{shown}: should be {' or '.join(map(str, wanted))}"
        elif not wanted and status in (401, 403, 404) and not (status == 404 and self.route in MISSING_INSIDE):
            yield f"{shown}: should be let in"

    def wanted(self) -> Sequence[int]:
        """Return the statuses that are right; none where any is but those of refusal."""
        if self.route in TRIED_IN_VAIN:
            return TRIED_IN_VAIN[self.route]
        if self.name in NOBODY and not self.is_allowed:
            return (401,)
        if self.place == "missing":
            return (403, 404)
        if self.is_allowed:
            return ()
        return (403, 404) if self.may_know else (404,)


def call(world: World, service: Service, route: str, *, place: str, token: str | None) -> httpx2.Response:
    """Send the request of a route for the object of a place."""
    verb, _, path = route.partition(" ")
    kind = TABLE[service][route].partition(" of ")[2]
    uid = world.objects.get(kind, {}).get(place, "") or NOWHERE
    names = {
        "uid": uid,
        "name": uid,
        "username": uid if kind == "user" else "somebody",
        "key": "note",
        "path_b64": "eA==",
        "token": "none",
        "number": "1",
        "identity": NOWHERE,
    }
    if path.startswith("/stations/") and kind == "experiment":
        names["name"] = world.objects["station"]["elsewhere" if place == "elsewhere" else "own"]
    filled = re.sub(r"\{(\w+)\}", lambda found: names[found[1]], path)
    if asked := TABLE["ask"].get(route):
        filled += "?" + world.filled(asked, place)
    text = TABLE["send"].get(route)
    body = None if text is None else json.loads(world.filled(text, place))
    raw = b"" if "{path_b64}" in path else None
    return world.send(service, verb, ("" if path == "/health" else API) + filled, body, token=token, raw=raw)


def asked_of(kind: str, name: str, places: Sequence[str]) -> Sequence[str]:
    """Return the places that somebody is tried with: what is nowhere is the same for most."""
    if name in NOBODY or not kind:
        return ["own"] if "own" in places else places[:1]
    return [place for place in places if place != "missing" or name in ("administrator", "member", "user", "service")]


@pytest.mark.parametrize(("service", "route"), CASES, ids=[f"{service} {route}" for service, route in CASES])
def test_a_route_lets_in_whom_the_table_says_and_nobody_else(world: World, service: Service, route: str) -> None:
    kind = TABLE[service][route].partition(" of ")[2]
    places = [place for place in PLACES if place in world.objects.get(kind, {"own": ""})]
    faults: list[str] = []
    for name in sorted(world.people.keys() - {"operator"}):
        for place in asked_of(kind, name, places):
            faults += Attempt(world, service, route, place, name).faults()
    assert not faults, "\n".join(faults)


def test_what_one_may_not_know_of_is_answered_like_what_is_not_there(world: World) -> None:
    uid = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
    token = world.people["user"].token
    for service, route in CASES:
        if TABLE[service][route].partition(" of ")[2] in OF_EXPERIMENT:
            hidden, missing = (call(world, service, route, place=place, token=token) for place in ("own", "missing"))
            assert uid.sub("U", hidden.text) == uid.sub("U", missing.text), route
            assert hidden.status_code == missing.status_code == 404, route
