"""How the stations of a site stand: their versions, when they were heard of, and what waits at them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from beamkeeper.domain.errors import DmError
from beamkeeper.domain.status import Service
from beamkeeper.portal.visits import Visit


@dataclass(frozen=True)
class Standing:
    """How one station stands; what is not known is None."""

    version: str = ""
    contact: datetime | None = None
    backlog: int | None = None
    """Files that wait at the station; known of the portal's own station."""
    behind: int | None = None
    """Changes that waited for the site's catalogue when the station was heard of last."""


def standing(visit: Visit) -> Mapping[str, Standing]:
    """Return how each station stands that the site has heard of: no station is asked but one's own."""
    found: dict[str, Standing] = {}
    with suppress(DmError):
        for contact in visit.client.status(Service.STORAGE).contacts:
            found[contact.station] = Standing(version=contact.version, contact=contact.at)
    with suppress(DmError):
        for one in visit.client.status(Service.CATALOG).followers:
            known = found.get(one.station, Standing())
            latest = max(filter(None, (known.contact, one.heard_at)))
            found[one.station] = replace(known, contact=latest, behind=(known.behind or 0) + one.waiting)
    with suppress(DmError):
        own = visit.client.status(Service.ACQUISITION)
        if own.station is not None:
            known = found.get(own.station, Standing())
            found[own.station] = replace(
                known, version=own.version, backlog=sum(own.queues.values()) - own.queues.get("pictures", 0)
            )
    return found
