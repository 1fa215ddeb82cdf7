"""A site for tests of rights: two stations, three experiments full of canaries, and somebody of every kind."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import Template
from typing import Any
from uuid import UUID

import httpx2

from beamkeeper.core.tokens import new_token, token_sha256
from beamkeeper.db.base import new_uid
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import Scope
from beamkeeper.testing.catalogue import new_file
from beamkeeper.testing.services import Running

PASSWORD = "correct horse battery"
PLACES = ("own", "same", "elsewhere", "missing")
EXPERIMENTS = {"own": "alpha", "same": "beta", "elsewhere": "gamma"}
STATIONS = {"own": "station", "elsewhere": "other"}
NOBODY = ("anonymous", "expired", "revoked")
API = "/api/v1"
SERVICES = {
    "dataset": Service.CATALOG,
    "run": Service.CATALOG,
    "rule": Service.CATALOG,
    "replica_request": Service.CATALOG,
    "file": Service.CATALOG,
    "daq": Service.ACQUISITION,
    "upload": Service.ACQUISITION,
    "put": Service.ACQUISITION,
    "wipe": Service.ACQUISITION,
    "hold": Service.ACQUISITION,
    "scrub": Service.ACQUISITION,
    "audit": Service.ACQUISITION,
}
OF_STATION = frozenset({"wipe", "hold", "scrub", "audit"})


@dataclass(frozen=True)
class Person:
    """Who asks: by which role, and where that role counts."""

    role: str
    places: frozenset[str] = frozenset()
    token: str | None = None
    scopes: frozenset[str] = frozenset()
    """Of an API key; none on a session."""


@dataclass
class World:
    """Everything there is, by its place: of one's own experiment, of another one of the station, of another station."""

    running: Running
    people: dict[str, Person] = field(default_factory=dict)
    objects: dict[str, dict[str, str]] = field(default_factory=dict)
    canaries: dict[str, str] = field(default_factory=dict)
    serial: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        for service, context in self.running.contexts.items():
            if service is not Service.PROCESSING:
                context.database.home = None  # so that this catalogue takes files of both stations
            self.people.setdefault("operator", Person("administrator", token=self.running.bootstrap.operator.token))
            self._http = getattr(self, "_http", {}) | {service: httpx2.Client(base_url=self.running.urls[service])}
        Path("/", self.roots).mkdir()
        self._make_stations()
        for place, name in EXPERIMENTS.items():
            self._make_experiment(place, name)
        self._make_people()
        for place in EXPERIMENTS:
            self._fill(place)
        with self.running.database.write() as tx:
            tx.groups.name_new("canary-{experiment}")

    @property
    def roots(self) -> str:
        """Return where sources are, as paths of disks are written."""
        return str(self.running.directory / "roots").lstrip("/")

    def send(
        self, service: Service, method: str, path: str, body: Any = None, *, token: str | None, raw: bytes | None = None
    ) -> httpx2.Response:
        """Send one request as somebody."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        content = raw if raw is not None else None if body is None else json.dumps(body).encode()
        if content is not None:
            headers["Content-Type"] = "application/octet-stream" if raw is not None else "application/json"
        answer: httpx2.Response = self._http[service].request(
            method, path, content=content, headers=headers, timeout=30
        )
        return answer

    def make(self, service: Service, path: str, body: Any, *, token: str | None = None) -> Any:
        """Make something as the operator."""
        operator = self.people["operator"].token
        answer = self.send(service, "POST", API + path, body, token=token or operator)
        assert answer.is_success, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    def _make_stations(self) -> None:
        client = self.running.client
        area = client.storage_areas.list()[0]
        second = self.running.directory / "second"
        second.mkdir()
        new = {"name": "cold", "station_url": second.as_uri(), "path": str(second)}
        cold = self.make(Service.STORAGE, "/storage-areas", new)
        new = {"name": STATIONS["elsewhere"], "storage_area_uid": cold["uid"], "title": "canary-elsewhere station"}
        made = self.make(Service.STORAGE, "/stations", new)
        own = client.stations.get(STATIONS["own"])
        join = self.make(Service.STORAGE, f"/stations/{made['name']}/tokens", None)
        key = self.make(Service.STORAGE, "/stations/join", {"token": join["token"]})["key"]
        self.objects["station"] = {"own": own.name, "elsewhere": made["name"], "missing": "nowhere"}
        self.objects["station_uid"] = {"own": str(own.uid), "elsewhere": made["uid"]}
        self.objects["here"] = {"own": own.name}
        self.objects |= {kind: {"missing": str(new_uid())} for kind in ("link", "nothing")}
        self.objects["area"] = {"own": area.name, "elsewhere": "cold", "missing": "none"}
        self.objects["area_uid"] = {"own": str(area.uid), "same": str(area.uid), "elsewhere": cold["uid"]}
        self.people["service"] = Person("service", frozenset({"own", "same"}), self.running.bootstrap.service_key)
        self.people["service of another station"] = Person("service", frozenset({"elsewhere"}), key)

    def _make_experiment(self, place: str, name: str) -> None:
        canary = self.canaries[place] = f"canary-{place}"
        new = {
            "name": f"{name}-{canary}",
            "station": STATIONS["elsewhere" if place == "elsewhere" else "own"],
            "storage_area_uid": self.objects["area_uid"][place],
            "title": f"title {canary}",
            "description": f"description {canary}",
            "proposal": f"p-{canary}",
            "esaf": f"e-{canary}",
            "licence": f"licence {canary}",
            "metadata": {"note": f"metadata {canary}", f"key {canary}": 1},
        }
        made = self.make(Service.STORAGE, "/experiments", new)
        self.objects.setdefault("experiment", {"missing": str(new_uid())})[place] = made["uid"]

    def _make_people(self) -> None:
        both, everywhere = frozenset({"own", "same"}), frozenset({"own", "same", "elsewhere"})
        kinds = {
            "administrator": ("administrator", everywhere),
            "station manager": ("station-manager", both),
            "station viewer": ("station-viewer", both),
            "manager of another station": ("station-manager", frozenset({"elsewhere"})),
            "pi": ("pi", frozenset({"own"})),
            "manager": ("manager", frozenset({"own"})),
            "member": ("user", frozenset({"own"})),
            "member of another": ("user", frozenset({"same"})),
            "user": ("nothing", frozenset[str]()),
            "self": ("oneself", frozenset({"own"})),
        }
        for name, (role, places) in kinds.items():
            self.people[name] = Person(role, places, self._account(name, role, places))
        self.people["shared account"] = Person("user", frozenset({"own"}), self._shared())
        for scope in Scope:
            self.people[f"key with {scope}"] = Person("administrator", everywhere, *self._key(scope))
        self.objects["user"] = {"own": "self", "missing": "nobody-here"}
        self.make(Service.STORAGE, "/users", {"username": "somebody"})
        self.people |= {name: Person("nothing") for name in NOBODY}
        for name, token in self._ended().items():
            self.people[name] = Person("nothing", token=token)

    def _key(self, scope: Scope) -> tuple[str, frozenset[str]]:
        scopes = sorted({scope, *((Scope.READ,) if scope is Scope.ANNOTATE else ())})  # what one reads one annotates
        soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        new = {"name": f"for {scope}", "scopes": scopes, "expires_at": soon, "username": "administrator"}
        return str(self.make(Service.STORAGE, "/keys", new)["token"]), frozenset(scopes)

    def _account(self, name: str, role: str, places: frozenset[str]) -> str:
        username = name.replace(" ", "-")
        new = {"username": username, "password": PASSWORD, "is_administrator": role == "administrator"}
        self.make(Service.STORAGE, "/users", new)
        where = {"own", "elsewhere"} & places
        for place in where if role.startswith("station") else ():
            grant = {"username": username, "role": role, "station_uid": self.objects["station_uid"][place]}
            self.make(Service.STORAGE, "/grants", grant)
        for place in places if role in ("pi", "manager", "user") else ():
            path = f"{API}/experiments/{self.objects['experiment'][place]}/people/{username}"
            operator = self.people["operator"].token
            assert self.send(Service.STORAGE, "PUT", path, {"role": role}, token=operator).is_success
        return self.login(username)

    def login(self, username: str, experiment: str | None = None) -> str:
        """Log somebody in."""
        wanted = {"username": username, "password": PASSWORD, "experiment_uid": experiment}
        return str(self.make(Service.STORAGE, "/sessions", wanted)["token"])

    def _shared(self) -> str:
        self.make(Service.STORAGE, "/users", {"username": "hutch", "password": PASSWORD, "is_shared": True})
        uid = self.objects["experiment"]["own"]
        operator = self.people["operator"].token
        answer = self.send(
            Service.STORAGE, "PUT", f"{API}/experiments/{uid}/people/hutch", {"role": "user"}, token=operator
        )
        assert answer.is_success, answer.text
        return self.login("hutch", uid)

    def _ended(self) -> Mapping[str, str]:
        revoked, expired = self.login("administrator"), new_token()
        assert self.send(Service.STORAGE, "DELETE", f"{API}/sessions/current", token=revoked).status_code == 204
        with self.running.database.write() as tx:
            user = tx.users.named("administrator")
            tx.users.add_session(token_sha256(expired), user_uid=user.uid, expires_at=tx.now - timedelta(hours=1))
        return {"revoked": revoked, "expired": expired}

    def _fill(self, place: str) -> None:
        canary, uid = self.canaries[place], self.objects["experiment"][place]
        key = self.people["service of another station" if place == "elsewhere" else "service"].token
        files = {"files": [self.new_file(place, f"data/{canary}.h5")]}
        registered = self.make(Service.CATALOG, "/files:register", files, token=key)["files"][0]
        self._keep("file", place, registered["file_uid"])
        self._keep("version", place, registered["version_uid"])
        self._keep("replica", place, self._replica(registered["file_uid"]))
        for kind in SERVICES:
            if kind != "file" and (kind not in OF_STATION or place == "own"):
                self._keep(kind, place, self.fresh(kind, place))
        checks = {"uid": str(new_uid()), "experiment_uid": uid}
        items = [{"version_uid": str(new_uid()), "number": 1, "path_b64": b64(f"data/{canary}")}]
        items = [{**items[0], "size": 1}]
        published = {**checks, "items": [{**items[0], "checksums": [digest()]}]}
        items_copied = [{**items[0], "checksums": [digest()], "is_plain": True}]
        copied = {**checks, "storage_area_uid": self.objects["area_uid"][place], "items": items_copied}
        for kind, path, body in (
            ("publish", "/publishes", published),
            ("check", "/checks", {**checks, "uid": str(new_uid()), "mode": "stat", "items": items}),
            ("listing", "/listings", {**checks, "uid": str(new_uid())}),
            ("set", "/sets", {"uid": str(new_uid()), "experiment_uid": uid, "name": canary}),
            ("copy", "/copies", {**copied, "uid": str(new_uid())}),
            ("discard", "/discards", {**checks, "uid": str(new_uid()), "batch_uid": str(new_uid())}),
            ("walk", f"/experiments/{uid}/permission-walks", {"uid": str(new_uid())}),
        ):
            token = None if kind in ("set", "walk") else key
            self._keep(kind, place, self.make(Service.STORAGE, path, body, token=token)["uid"])

    def _keep(self, kind: str, place: str, uid: str) -> None:
        self.objects.setdefault(kind, {"missing": str(new_uid())})[place] = uid

    def _replica(self, file_uid: str) -> str:
        operator = self.people["operator"].token
        history = self.send(Service.CATALOG, "GET", f"{API}/files/{file_uid}/history", token=operator).json()
        return str(history["replicas"][0]["uid"])

    def new_file(self, place: str, path: str) -> Any:
        """Return a file as the station's services register it."""
        uid, area = (UUID(self.objects[kind][place]) for kind in ("experiment", "area_uid"))
        metadata = {"note": f"file {self.canaries[place]}"}
        return new_file(path, experiment_uid=uid, storage_area_uid=area, metadata=metadata).model_dump(
            mode="json", exclude_unset=True
        )

    def fresh(self, kind: str, place: str) -> str:
        """Make one more of a kind, and return its uid."""
        canary, uid, serial = self.canaries[place], self.objects["experiment"][place], next(self.serial)
        root = f"{self.roots}/{kind}-{serial}-{canary}"
        Path("/", root).mkdir()
        Path("/", root, canary).touch()
        named = {"experiment_uid": uid, "name": f"{kind} {serial} {canary}"}
        bodies: dict[str, tuple[str, Mapping[str, Any]]] = {
            "dataset": ("/datasets", {**named, "title": canary, "metadata": {"note": canary}}),
            "run": ("/runs", {**named, "start": {"note": canary}}),
            "rule": ("/run-rules", {"experiment_uid": uid, "path": f"{canary}-{serial}/{{run}}/*"}),
            "replica_request": (
                "/replica-requests",
                {"uid": str(new_uid()), "action": "verify", "experiment_uid": uid},
            ),
            "daq": ("/daqs", {"experiment_uid": uid, "path": root, "metadata": {"note": canary}}),
            "upload": ("/uploads", {"experiment_uid": uid, "path": root, "metadata": {"note": canary}}),
            "put": ("/puts", {"experiment_uid": uid, "metadata": {"note": canary}}),
            "wipe": ("/wipes", {"path": self.roots}),
            "hold": ("/holds", {"path": root}),
            "scrub": ("/scrubs", {"experiment_uid": uid}),
            "audit": ("/audits", {"experiment_uid": uid}),
        }
        if kind == "experiment":
            station = STATIONS["elsewhere" if place == "elsewhere" else "own"]
            new = {"name": f"x{serial}-{canary}", "station": station}
            return str(self.make(Service.STORAGE, "/experiments", new)["uid"])
        if kind == "key":
            soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
            key: dict[str, Any] = {"name": f"key {serial}", "scopes": ["read"], "expires_at": soon, "username": "self"}
            return str(self.make(Service.STORAGE, "/keys", key)["key"]["uid"])
        if kind == "session":
            self.login("self")
            operator = self.people["operator"].token
            found = self.send(Service.STORAGE, "GET", f"{API}/sessions?username=self", token=operator).json()
            return str(max(found, key=lambda session: session["created_at"])["uid"])
        path, body = bodies[kind]
        return str(self.make(SERVICES[kind], path, body)["uid"])

    def filled(self, text: str, place: str) -> str:
        """Return a text with the names of things of a place put in."""
        serial = str(next(self.serial))
        Path("/", self.roots, f"d{serial}").mkdir()
        Path("/", self.roots, f"d{serial}/x").touch()
        known = {kind: found.get(place, found.get("own", "")) for kind, found in self.objects.items()}
        file = self.new_file(place if place != "missing" else "own", f"data/new{next(self.serial)}")
        if place == "missing":
            file["experiment_uid"] = self.objects["experiment"]["missing"]
        return Template(text).safe_substitute(
            {
                **known,
                "new": str(new_uid()),
                "serial": serial,
                "roots": self.roots,
                "password": PASSWORD,
                "soon": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
                "digest": "0" * 64,
                "newfile": json.dumps(file),
            }
        )

    def close(self) -> None:
        """Close the connections."""
        for http in self._http.values():
            http.close()


def b64(path: str) -> str:
    """Return a path as it stands on the wire."""
    return base64.urlsafe_b64encode(path.encode()).decode()


def digest() -> Mapping[str, str]:
    """Return a checksum."""
    return {"algorithm": "blake3", "value": "0" * 64}


def settings(directory: Path) -> Mapping[str, Any]:
    """Return the settings of a site in whose acquisition members may start DAQs."""
    return {"acquisition": {"roots": [str(directory / "roots")]}}
