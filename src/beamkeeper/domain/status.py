"""What a service says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field

from beamkeeper.domain.names import Model, StationName, Title, UtcTime
from beamkeeper.domain.replication import Follower, SiteLink
from beamkeeper.domain.storage import AreaPause


class Service(StrEnum):
    """The services that own something."""

    STORAGE = "storage"
    CATALOG = "catalog"
    ACQUISITION = "acquisition"
    PROCESSING = "processing"


class Health(Model):
    """Small and public: the service answers."""

    service: Service
    status: str = "ok"
    version: str
    api: int = 1
    features: tuple[str, ...] = ()


class LastError(Model):
    """The last thing that went wrong, as an operator should hear it."""

    at: UtcTime
    message: Title


class Status(Model):
    """How a service is doing."""

    service: Service
    station: StationName | None
    version: str
    uptime_s: float
    database: str = Field(description="SQLite or PostgreSQL, and whether it answers.")
    queues: Mapping[str, int] = Field(default_factory=dict, description="Unfinished work by kind.")
    oldest_unfinished_s: float | None = None
    mirror_behind_s: float | None = None
    last_error: LastError | None = None
    paused: tuple[AreaPause, ...] = Field(default=(), description="Storage areas that take nothing at present.")
    site: SiteLink | None = Field(default=None, description="Of a catalogue that the site's follows: how that goes.")
    followers: tuple[Follower, ...] = Field(
        default=(), description="Of the site's catalogue: how it follows each other."
    )


class SiteServices(Model):
    """Where the services are: public, so that a client needs one address only."""

    site: str
    storage: str
    stations: tuple[StationServices, ...] = ()


class StationServices(Model):
    """Where a station's services are."""

    name: StationName
    catalog: str
    acquisition: str
    processing: str = ""
