"""How a service is doing, over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter

import beamkeeper
from beamkeeper.core import status as core
from beamkeeper.domain.status import Service, Status
from beamkeeper.server.bodies import StrictRoute
from beamkeeper.server.deps import AnyTx, Ctx, Who

router = APIRouter(route_class=StrictRoute, tags=["status"])


@router.get("/status", summary="How the service is doing")
def status(ctx: Ctx, who: Who, tx: AnyTx) -> Status:
    """Version, uptime, database, queue lengths, age of the oldest unfinished item, last error."""
    work = core.unfinished(tx, ctx.settings.catalog.site_url)
    return Status(
        service=ctx.service,
        station=None if ctx.service is Service.STORAGE else ctx.settings.station.name,
        version=beamkeeper.__version__,
        uptime_s=(datetime.now(UTC) - ctx.started_at).total_seconds(),
        database=f"{ctx.database.name}: answers",
        queues=work.queues,
        oldest_unfinished_s=work.oldest_s,
        mirror_behind_s=core.behind_s(tx),
        last_error=ctx.last_error,
        unsent=work.unsent[0],
        unsent_refused=work.unsent[1],
        paused=work.paused,
        contacts=core.contacts(tx, ctx.heard),
        spaces=tuple(ctx.spaces[name] for name in sorted(ctx.spaces)),
        site=work.site,
        followers=work.followers,
    )
