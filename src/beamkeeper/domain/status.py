"""What a service says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field

from beamkeeper.domain.names import Model, PlainName, StationName, Title, UtcTime, WireInt
from beamkeeper.domain.replication import Follower, SiteLink
from beamkeeper.domain.storage import AreaPause


class Service(StrEnum):
    """The services that own something."""

    STORAGE = "storage"
    CATALOG = "catalog"
    ACQUISITION = "acquisition"
    PROCESSING = "processing"


HEARD_HEADER = "Beamkeeper-Heard"
"""On answers of a station that are as old as the last word of its site: when that was."""

OFFLINE_LOGIN = "offline_login"
"""What a station can do that lets people log in while it is cut off."""

PORTAL = "portal"
"""The service that owns nothing: a client with pages."""

SERVED: tuple[str, ...] = (*Service, PORTAL)
"""Everything that listens."""


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


class AreaSpace(Model):
    """How much space a storage area had when it was looked at."""

    name: PlainName
    free_bytes: WireInt
    total_bytes: WireInt
    measured_at: UtcTime


class Contact(Model):
    """When the services of a station last asked the site for anything, and of which version they are."""

    station: StationName
    at: UtcTime
    version: Title = ""


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
    unsent: int = Field(default=0, description="Experiments that were made here and that the site does not have yet.")
    unsent_refused: int = Field(default=0, description="How many of them the site refuses.")
    paused: tuple[AreaPause, ...] = Field(default=(), description="Storage areas that take nothing at present.")
    spaces: tuple[AreaSpace, ...] = Field(default=(), description="Of the storage service: space of its areas.")
    contacts: tuple[Contact, ...] = Field(
        default=(), description="Of the storage service: which stations it has heard of since it started, and when."
    )
    site: SiteLink | None = Field(default=None, description="Of a catalogue that the site's follows: how that goes.")
    followers: tuple[Follower, ...] = Field(
        default=(), description="Of the site's catalogue: how it follows each other."
    )


class SiteServices(Model):
    """Where the services are: public, so that a client needs one address only."""

    site: str
    storage: str
    portal: str = Field(default="", description="Where people look at it in a browser; empty where there is none.")
    stations: tuple[StationServices, ...] = ()


class StationServices(Model):
    """Where a station's services are."""

    name: StationName
    catalog: str
    acquisition: str
    processing: str = ""
    timezone: str = Field(default="UTC", description="The zone in which its people read times.")
