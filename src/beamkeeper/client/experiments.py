"""Stations, experiment types, experiments and their people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import UUID

from uuid6 import uuid7

from beamkeeper.client.http import Http
from beamkeeper.client.metadata import changes
from beamkeeper.client.places import asked
from beamkeeper.domain.errors import ConflictError, NotFoundError
from beamkeeper.domain.experiments import (
    Experiment,
    ExperimentChange,
    ExperimentPage,
    ExperimentQuery,
    ExperimentType,
    ExperimentTypeChange,
    Join,
    JoinToken,
    Member,
    MemberRole,
    NewExperiment,
    NewExperimentType,
    NewStation,
    SentExperiment,
    ServiceKey,
    Station,
    StationChange,
    UnsentChange,
    UnsentExperiment,
)
from beamkeeper.domain.metadata import MetadataChange
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import Role

if TYPE_CHECKING:
    from beamkeeper.client.api import Client


class Stations:
    """Stations of the site."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def list(self) -> Sequence[Station]:
        """Return the stations that one is staff of."""
        found: Sequence[Station] = self._http().get("/api/v1/stations", Sequence[Station])
        return found

    def get(self, name: str) -> Station:
        """Return a station."""
        found: Station = self._http().get(_station(name), Station)
        return found

    def create(self, new: NewStation) -> Station:
        """Make a station."""
        made: Station = self._http().call("POST", "/api/v1/stations", Station, body=new)
        return made

    def update(self, name: str, change: StationChange) -> Station:
        """Change what is given of a station."""
        body = change.model_dump(mode="json", exclude_unset=True)
        changed: Station = self._http().call("PATCH", _station(name), Station, body=body)
        return changed

    def make_token(self, name: str) -> JoinToken:
        """Return a one-time token with which the station's services get their key."""
        made: JoinToken = self._http().call("POST", f"{_station(name)}/tokens", JoinToken)
        return made

    def join(self, token: str) -> ServiceKey:
        """Get the key of a station's services for its one-time token; needs no login."""
        given: ServiceKey = self._http().call("POST", "/api/v1/stations/join", ServiceKey, body=Join(token=token))
        return given


class ExperimentTypes:
    """Kinds of experiments."""

    def __init__(self, http: Callable[[], Http]) -> None:
        self._http = http

    def list(self) -> Sequence[ExperimentType]:
        """Return every type."""
        found: Sequence[ExperimentType] = self._http().get("/api/v1/experiment-types", Sequence[ExperimentType])
        return found

    def create(self, new: NewExperimentType) -> ExperimentType:
        """Make a type."""
        made: ExperimentType = self._http().call("POST", "/api/v1/experiment-types", ExperimentType, body=new)
        return made

    def change(self, name: str, change: ExperimentTypeChange) -> ExperimentType:
        """Change what is given of a type."""
        path = f"/api/v1/experiment-types/{quote(name, safe='')}"
        body = change.model_dump(mode="json", exclude_unset=True)
        changed: ExperimentType = self._http().call("PATCH", path, ExperimentType, body=body)
        return changed


class Experiments:
    """Experiments and their people."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(self, new: NewExperiment) -> Experiment:
        """Make an experiment and its directories.

        Where the site cannot be reached, its station makes it for now, if it knows that it is cut off.
        """
        if new.uid is None:
            new = new.model_copy(update={"uid": UUID(bytes=uuid7().bytes)})
        made: Experiment = self._asked(lambda http: http.call("POST", "/api/v1/experiments", Experiment, body=new))
        return made

    def send(self, made: SentExperiment) -> Experiment:
        """Have the site make what was made at a station; for its services."""
        path = f"{_station(made.new.station)}/experiments"
        taken: Experiment = self._http().call("POST", path, Experiment, body=made)
        return taken

    def _asked(self, ask: Callable[[Http], Any]) -> Any:
        return asked(self._client, ask)

    def unsent(self) -> Sequence[UnsentExperiment]:
        """Return what was made at this client's station while it was cut off, and that the site does not have yet."""
        path = "/api/v1/unsent-experiments"
        found: Sequence[UnsentExperiment] = self._station().get(path, Sequence[UnsentExperiment])
        return found

    def resend(self, uid: UUID, change: UnsentChange) -> UnsentExperiment:
        """Have such an experiment sent to the site now, with changes."""
        body, path = change.model_dump(mode="json", exclude_unset=True), f"/api/v1/unsent-experiments/{uid}:send"
        sent: UnsentExperiment = self._station().call("POST", path, UnsentExperiment, body=body)
        return sent

    def drop(self, uid: UUID) -> None:
        """Give such an experiment up; its files stay at the source."""
        self._station().call("DELETE", f"/api/v1/unsent-experiments/{uid}")

    def get(self, name: str, *, station: str | None = None) -> Experiment:
        """Return an experiment by its name; of this client's station, where there are several."""
        wanted = ExperimentQuery(name=name, station=station or self._client.station_name)
        found = list(self.list(wanted))
        if not found:
            raise NotFoundError(
                f'there is no experiment "{name}" that you may see: `dm experiment list` shows those', name=name
            )
        if len(found) > 1:
            stations = " and ".join(sorted(experiment.station for experiment in found))
            raise ConflictError(f'there is an experiment "{name}" on {stations}: say which with --station')
        return found[0]

    def by_uid(self, uid: UUID) -> Experiment:
        """Return an experiment by its uid."""
        found: Experiment = self._asked(lambda http: http.get(f"/api/v1/experiments/{uid}", Experiment))
        return found

    def list(self, query: ExperimentQuery | None = None) -> Iterator[Experiment]:
        """Yield every experiment that is wanted and that one may see, newest first."""
        wanted = query or ExperimentQuery(limit=1000)
        while True:
            page = self.page(wanted)
            yield from page.items
            if page.next is None:
                return
            wanted = wanted.model_copy(update={"after": page.next})

    def page(self, query: ExperimentQuery) -> ExperimentPage:
        """Return one page of the experiments that are wanted and that one may see."""
        page: ExperimentPage = self._asked(lambda http: http.get("/api/v1/experiments", ExperimentPage, query=query))
        return page

    def update(self, uid: UUID, change: ExperimentChange) -> Experiment:
        """Change what is given of an experiment."""
        body = change.model_dump(mode="json", exclude_unset=True)
        changed: Experiment = self._http().call("PATCH", f"/api/v1/experiments/{uid}", Experiment, body=body)
        return changed

    def metadata_history(self, uid: UUID) -> Iterator[MetadataChange]:
        """Yield every change of an experiment's metadata, newest first."""
        return changes(self._http, f"/api/v1/experiments/{uid}/metadata/history")

    def delete(self, uid: UUID) -> Experiment:
        """Hide an experiment; its files stay."""
        hidden: Experiment = self._http().call("DELETE", f"/api/v1/experiments/{uid}", Experiment)
        return hidden

    def people(self, uid: UUID) -> Sequence[Member]:
        """Return the people of an experiment with their roles."""
        path = f"/api/v1/experiments/{uid}/people"
        found: Sequence[Member] = self._asked(lambda http: http.get(path, Sequence[Member]))
        return found

    def add_user(self, uid: UUID, username: str, role: Role = Role.USER) -> Member:
        """Give somebody a role in an experiment, in place of the one held before."""
        member: Member = self._http().call("PUT", _member(uid, username), Member, body=MemberRole(role=role))
        return member

    def remove_user(self, uid: UUID, username: str) -> None:
        """Take somebody's role in an experiment away."""
        self._http().call("DELETE", _member(uid, username))

    def _http(self) -> Http:
        return self._client.http(Service.STORAGE)

    def _station(self) -> Http:
        return self._client.http(Service.ACQUISITION)


def _station(name: str) -> str:
    return f"/api/v1/stations/{quote(name, safe='')}"


def _member(uid: UUID, username: str) -> str:
    return f"/api/v1/experiments/{uid}/people/{quote(username, safe='')}"
