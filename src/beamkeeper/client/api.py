"""The client: one object with an attribute for each noun.

from beamkeeper import Client

client = Client()                       # as `dm login` left it
for file in client.files.find("energy >= 12keV and modified > -7d"): ...
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from functools import cached_property, partial
from pathlib import Path
from threading import RLock
from typing import Self

from pydantic import SecretStr

from beamkeeper.client.access import Accesses
from beamkeeper.client.acquisition import Daqs, Plugins, Uploads
from beamkeeper.client.arrays import Arrays
from beamkeeper.client.arrivals import Arrivals
from beamkeeper.client.audit_log import AuditLogs
from beamkeeper.client.catalogues import Catalogues
from beamkeeper.client.commands import Commands
from beamkeeper.client.datasets import Datasets
from beamkeeper.client.downloads import Downloads, Links
from beamkeeper.client.events import EventFeed
from beamkeeper.client.experiments import Experiments, ExperimentTypes, Stations
from beamkeeper.client.files import Files
from beamkeeper.client.groups import Groups
from beamkeeper.client.http import TRIES, Credentials, Http
from beamkeeper.client.identities import Identities
from beamkeeper.client.inspections import Audits, Scrubs
from beamkeeper.client.keys import Keys
from beamkeeper.client.logins import DEFAULT, LOGIN_FILE, Logins, Profile, read_login_file
from beamkeeper.client.mirror import Mirrors
from beamkeeper.client.permissions import Permissions
from beamkeeper.client.places import Away, known_stations
from beamkeeper.client.processing import Jobs
from beamkeeper.client.provenance import ProvenanceOf
from beamkeeper.client.replicas import Replicas
from beamkeeper.client.replication import Replication
from beamkeeper.client.runs import Runs
from beamkeeper.client.storage import Checks, Copies, Discards, Listings, Probes, Publishes, StorageAreas
from beamkeeper.client.syncs import Syncs
from beamkeeper.client.thumbnails import ThumbnailStore
from beamkeeper.client.users import Sessions, Users
from beamkeeper.client.wipes import Holds, Wipes
from beamkeeper.client.workflows import Workflows
from beamkeeper.domain.errors import NotFoundError, SettingsError
from beamkeeper.domain.status import Health, Service, SiteServices, StationServices, Status


class Client:
    """A session with a site and one of its stations.

    `url` is the address of the storage service, from which the others are found; without it, the profile's
    (as `dm login` left it). With `username` and `password` the client logs in by itself, and again when its
    session ends; so it does by the file with user|password that DM_LOGIN_FILE names, where nobody is logged in.
    `urls` names services whose address is known; `ca` is a file of authorities to believe, in place of the system's.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        profile: str | None = None,
        token: str | None = None,
        username: str | None = None,
        password: str | None = None,
        station: str | None = None,
        urls: dict[Service, str] | None = None,
        ca: str | None = None,
        timeout_s: float = 30.0,
        tries: int = TRIES,
        logins: Logins | None = None,
    ) -> None:
        self.logins = logins or Logins()
        self.profile_name = profile or os.environ.get("BEAMKEEPER_PROFILE") or DEFAULT
        kept = self.logins.get(self.profile_name)
        self.url = (url or os.environ.get("BEAMKEEPER_URL") or (kept.url if kept else "")).rstrip("/")
        if not self.url and urls and Service.STORAGE in urls:
            self.url = urls[Service.STORAGE]
        if not self.url:
            raise SettingsError(
                f'profile "{self.profile_name}" has no address: start a beamline here with `dm up`, '
                f"or log in to one with `dm login --url http://HOST:PORT`"
            )
        self.profile = kept if kept and kept.url.rstrip("/") == self.url else Profile(url=self.url)
        self.station_name = station or os.environ.get("BEAMKEEPER_STATION") or self.profile.station or None
        self._username, self._password = username, SecretStr(password) if password else None
        self.credentials = self._credentials(token)
        self._urls = dict(urls or {})
        self.ca = ca or os.environ.get("BEAMKEEPER_CA") or self.profile.ca or None
        self._to = partial(Http, credentials=self.credentials, ca=self.ca, timeout_s=timeout_s, tries=tries)
        self._open: dict[Service, Http] = {}
        self._opening = RLock()
        self.away = Away()

    def _credentials(self, token: str | None) -> Credentials:
        """Return what this client logs in with: a token, or a name and password of its own or of a login file."""
        kept = self.profile.token.get_secret_value() if self.profile.token else None
        given = token or os.environ.get("BEAMKEEPER_TOKEN")
        file = os.environ.get(LOGIN_FILE)
        if file and not (self._username or given or kept):
            self._username, self._password = read_login_file(Path(file))
        is_logging_in = self._username is not None and self._password is not None
        found = Credentials(given or kept, self._login if is_logging_in else None)
        if is_logging_in and not token:
            found.token = None
        found.mirror = (given and os.environ.get("BEAMKEEPER_MIRROR")) or self.profile.mirror
        return found

    def _login(self) -> str | None:
        if self._username is None or self._password is None:
            return None
        return self.sessions.login(self._username, self._password.get_secret_value()).token

    def http(self, service: Service) -> Http:
        """Return the connection to a service; of the station's, where there are several."""
        with self._opening:  # threads that ask at once have one connection pool
            if service not in self._open:
                url = self.url if service is Service.STORAGE else self._urls.get(service) or self._find(service)
                self._open[service] = self._to(url)
            return self._open[service]

    def site(self) -> SiteServices:
        """Return where the services of the site and its stations are."""
        found: SiteServices = self.http(Service.STORAGE).get("/api/v1/site", SiteServices)
        return found

    def portal_way(self, portal: str) -> str:
        """Return an address that opens the portal in a browser under this client's session; it works once."""
        with closing(self._to(portal)) as way:
            return str(way.call("POST", "/enter", dict[str, str])["address"])

    def station(self) -> StationServices:
        """Return where the services of this client's station are."""
        stations = known_stations(self)
        if self.station_name is None and len(stations) == 1:
            return stations[0]
        for station in stations:
            if station.name == self.station_name:
                return station
        names = ", ".join(s.name for s in stations) or "none"
        if self.station_name is None:
            raise SettingsError(f"the site has several stations ({names}): say which with --station")
        raise NotFoundError(f'there is no station "{self.station_name}": the site has {names}')

    def _find(self, service: Service) -> str:
        station = self.station()
        url = {
            Service.CATALOG: station.catalog,
            Service.ACQUISITION: station.acquisition,
            Service.PROCESSING: station.processing,
        }[service]
        if not url:
            raise NotFoundError(f'station "{station.name}" has told no address of its {service} service')
        return url

    def health(self, service: Service, timeout_s: float = 5.0) -> Health:
        """Return that a service answers."""
        found: Health = self.http(service).get("/health", Health, timeout_s=timeout_s)
        return found

    def status(self, service: Service) -> Status:
        """Return how a service is doing."""
        found: Status = self.http(service).get("/api/v1/status", Status)
        return found

    def on(self, service: Service) -> Callable[[], Http]:
        """Return what gives the connection to a service when it is first needed."""
        return lambda: self.http(service)

    @cached_property
    def sessions(self) -> Sessions:
        """Logging in and out."""
        return Sessions(self)

    @cached_property
    def users(self) -> Users:
        """Accounts and the roles they hold."""
        return Users(self.on(Service.STORAGE))

    @cached_property
    def identities(self) -> Identities:
        """Identity providers, logins by them, and who an account is there."""
        return Identities(self)

    @cached_property
    def keys(self) -> Keys:
        """API keys for instruments and scripts."""
        return Keys(self.on(Service.STORAGE))

    @cached_property
    def groups(self) -> Groups:
        """Groups of experiments in a directory server."""
        return Groups(self.on(Service.STORAGE))

    @cached_property
    def permissions(self) -> Permissions:
        """Looking through the rights of an experiment's files."""
        return Permissions(self.on(Service.STORAGE))

    @cached_property
    def syncs(self) -> Syncs:
        """Taking over the facility's people and proposals."""
        return Syncs(self.on(Service.STORAGE))

    @cached_property
    def stations(self) -> Stations:
        """Stations of the site."""
        return Stations(self.on(Service.STORAGE))

    @cached_property
    def experiment_types(self) -> ExperimentTypes:
        """Kinds of experiments."""
        return ExperimentTypes(self.on(Service.STORAGE))

    @cached_property
    def experiments(self) -> Experiments:
        """Experiments and their people."""
        return Experiments(self)

    @cached_property
    def storage_areas(self) -> StorageAreas:
        """Places that hold files."""
        return StorageAreas(self.on(Service.STORAGE))

    @cached_property
    def commands(self) -> Commands:
        """What stations are asked to do from the site."""
        return Commands(self.on(Service.STORAGE))

    @cached_property
    def downloads(self) -> Downloads:
        """The bytes of files, and archives of many."""
        return Downloads(self.on(Service.STORAGE))

    @cached_property
    def links(self) -> Links:
        """Links for people without an account."""
        return Links(self.on(Service.STORAGE))

    @cached_property
    def thumbnails(self) -> ThumbnailStore:
        """Small pictures of versions."""
        return ThumbnailStore(lambda: self.http(Service.STORAGE))

    @cached_property
    def publishes(self) -> Publishes:
        """Batches on their way to their plain names."""
        return Publishes(self.on(Service.STORAGE))

    @cached_property
    def checks(self) -> Checks:
        """Looks at stored files, for services."""
        return Checks(self.on(Service.STORAGE))

    @cached_property
    def copies(self) -> Copies:
        """Copies between storage areas, for services."""
        return Copies(self.on(Service.STORAGE))

    @cached_property
    def probes(self) -> Probes:
        """Probes that the station sends to storage areas."""
        return Probes(self.on(Service.ACQUISITION))

    @cached_property
    def discards(self) -> Discards:
        """Staging directories to be removed, for services."""
        return Discards(self.on(Service.STORAGE))

    @cached_property
    def listings(self) -> Listings:
        """Plain names as they stand in the storage, for services."""
        return Listings(self.on(Service.STORAGE))

    @cached_property
    def access(self) -> Accesses:
        """Why somebody may do something, or may not."""
        return Accesses(self.on(Service.STORAGE))

    @cached_property
    def mirror(self) -> Mirrors:
        """The identities of the site, for services."""
        return Mirrors(self.on(Service.STORAGE))

    @cached_property
    def files(self) -> Files:
        """The station's catalogue."""
        return Files(self.on(Service.CATALOG), self.arrays)

    @cached_property
    def arrays(self) -> Arrays:
        """What is in stored files; `files.open` is the door for people."""
        return Arrays(self.on(Service.STORAGE), lambda name: self.experiments.get(name).uid)

    @cached_property
    def catalogue(self) -> Catalogues:
        """The station's catalogue as a whole: exporting, importing, checking."""
        return Catalogues(self.on(Service.CATALOG))

    @cached_property
    def replicas(self) -> Replicas:
        """Copies of files in several storage areas."""
        return Replicas(self.on(Service.CATALOG))

    @cached_property
    def replication(self) -> Replication:
        """What a catalogue takes over from a station's, for services."""
        return Replication(self.on(Service.CATALOG))

    @cached_property
    def datasets(self) -> Datasets:
        """Named sets of files."""
        return Datasets(self.on(Service.CATALOG))

    @cached_property
    def runs(self) -> Runs:
        """Scans and measurements."""
        return Runs(self.on(Service.CATALOG))

    @cached_property
    def provenance(self) -> ProvenanceOf:
        """What files were made from."""
        return ProvenanceOf(self.on(Service.CATALOG))

    @cached_property
    def daqs(self) -> Daqs:
        """Running watches of directories."""
        return Daqs(self.on(Service.ACQUISITION))

    @cached_property
    def uploads(self) -> Uploads:
        """Single passes over directories, and files sent from this machine."""
        return Uploads(self.on(Service.ACQUISITION))

    @cached_property
    def arrivals(self) -> Arrivals:
        """What was seen for an experiment and is not delivered."""
        return Arrivals(self.on(Service.ACQUISITION))

    @cached_property
    def wipes(self) -> Wipes:
        """Whether directories at the source may be wiped, and wiping them."""
        return Wipes(self.on(Service.ACQUISITION))

    @cached_property
    def holds(self) -> Holds:
        """What may not be wiped."""
        return Holds(self.on(Service.ACQUISITION))

    @cached_property
    def scrubs(self) -> Scrubs:
        """Reading replicas again."""
        return Scrubs(self.on(Service.ACQUISITION))

    @cached_property
    def audits(self) -> Audits:
        """Comparing the catalogue with the storage."""
        return Audits(self.on(Service.ACQUISITION))

    @cached_property
    def jobs(self) -> Jobs:
        """Executions of workflows."""
        return Jobs(self.on(Service.PROCESSING))

    @cached_property
    def plugins(self) -> Plugins:
        """The plugins that the station can use."""
        return Plugins(self.on(Service.ACQUISITION))

    def audit_log(self, service: Service) -> AuditLogs:
        """Return who changed what at a service."""
        return AuditLogs(self.on(service))

    @cached_property
    def workflows(self) -> Workflows:
        """What may be run at the station."""
        return Workflows(self.on(Service.PROCESSING))

    def events(self, service: Service) -> EventFeed:
        """Return the feed of a service."""
        return EventFeed(self.http(service))

    def close(self) -> None:
        """Close the connections."""
        while self._open:
            self._open.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
