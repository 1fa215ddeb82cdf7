"""Builds the application of one service: its routes, errors, health and feed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp

import beamkeeper
from beamkeeper.core.recording import Recorder
from beamkeeper.domain.catalogues import NewDocuments
from beamkeeper.domain.files import FileLookup, NewFiles
from beamkeeper.domain.ledger import NewVerifications
from beamkeeper.domain.processing import NewJobs
from beamkeeper.domain.replicas import NewCopy, SettledReplicas, WantedReplicas
from beamkeeper.domain.replication import NewChanges
from beamkeeper.domain.status import OFFLINE_LOGIN, Health, Service
from beamkeeper.domain.storage import NewCheck, NewPublish
from beamkeeper.server import (
    access,
    acquisition,
    arrays,
    arrivals,
    audit_log,
    bodies,
    catalogues,
    commands,
    datasets,
    describing,
    downloads,
    errors,
    events,
    experiments,
    files,
    groups,
    identities,
    inspections,
    keys,
    ledger,
    permissions,
    processing,
    provenance,
    replicas,
    replication,
    runs,
    stats,
    status,
    storage,
    syncs,
    thumbnails,
    unsent,
    users,
    wipes,
    workflows,
)
from beamkeeper.server.auditing import refused
from beamkeeper.server.delivering import Sending
from beamkeeper.server.deps import Context
from beamkeeper.server.identity import MirrorHeader
from beamkeeper.server.limits import Headers, Limits
from beamkeeper.server.stream import Bell, Stream

API_VERSION = "1.0.0"
"""Of the interface, in openapi.json: a change of the document needs a step here."""

OPENAPI = "/api/v1/openapi.json"

THREADS = 128
"""So many requests at most hold a thread each, of all services of a process; threads are made when they are needed.

Who waits to write holds one, and who has the turn needs one more to answer: there are twice as many as one person may
have requests open.
"""

ROUTERS: dict[Service, tuple[APIRouter, ...]] = {
    Service.STORAGE: (
        users.router,
        users.mirror_router,
        keys.router,
        identities.router,
        syncs.router,
        experiments.router,
        groups.router,
        permissions.router,
        access.router,
        storage.router,
        arrays.router,
        thumbnails.router,
        audit_log.router,
        downloads.router,
        commands.router,
        events.router,
        status.router,
    ),
    Service.CATALOG: (
        files.router,
        stats.router,
        ledger.router,
        datasets.router,
        runs.router,
        provenance.router,
        catalogues.router,
        replicas.router,
        replication.router,
        audit_log.router,
        events.router,
        status.router,
    ),
    Service.ACQUISITION: (
        acquisition.router,
        unsent.router,
        arrivals.router,
        wipes.router,
        inspections.router,
        audit_log.router,
        events.router,
        status.router,
    ),
    Service.PROCESSING: (
        audit_log.router,
        workflows.router,
        processing.router,
        events.router,
        status.router,
    ),
}

LARGE_BODIES: dict[Service, tuple[type[BaseModel], ...]] = {
    Service.STORAGE: (NewPublish, NewCheck, NewCopy),
    Service.CATALOG: (
        NewFiles,
        FileLookup,
        NewVerifications,
        NewChanges,
        NewDocuments,
        WantedReplicas,
        SettledReplicas,
    ),
    Service.ACQUISITION: (),
    Service.PROCESSING: (NewJobs,),
}


class _Application(FastAPI):
    """An application all of whose answers carry our headers, and where an address is written in one way."""

    def __init__(self, **values: Any) -> None:
        super().__init__(redoc_url=None, redirect_slashes=False, **values)

    def build_middleware_stack(self) -> ASGIApp:
        """Put the headers around everything, also around the answer to what nobody expected."""
        return Headers(super().build_middleware_stack())


def build_app(context: Context, *, on_start: Callable[[], None] | None = None) -> FastAPI:
    """Return the application of a service."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = THREADS
        app.state.bell = Bell(context.database)
        app.state.stream = Stream(context, app.state.bell)
        app.state.readers = CapacityLimiter(context.arrays.count)
        recorder = Recorder(context.database)
        app.state.sending = Sending(context, recorder)
        if on_start is not None:
            on_start()
        yield
        await to_thread.run_sync(recorder.close)
        await app.state.stream.close()
        app.state.bell.stop()
        context.end_helpers()

    app = _Application(
        title=f"Beamkeeper {context.service}",
        version=API_VERSION,
        description=f"The {context.service} service of Beamkeeper.",
        lifespan=lifespan,
        docs_url=None,
        openapi_url=OPENAPI,
    )
    app.state.context = context
    errors.install(app, context.errors, lambda request, error: refused(request, context.database, error))
    app.add_middleware(Limits)
    app.add_middleware(MirrorHeader)

    @app.get("/health", tags=["status"], summary="That the service answers")
    def health() -> Health:
        features = (OFFLINE_LOGIN,) if context.service is Service.ACQUISITION and context.database.offline_key else ()
        return Health(service=context.service, version=beamkeeper.__version__, features=features)

    _include(app, context.service)
    return app


def _include(app: FastAPI, service: Service) -> None:
    """Give the application its routes; let its OpenAPI document say what FastAPI does not know, and have a page."""
    for router in ROUTERS[service]:
        app.include_router(router, prefix="/api/v1")
    bodies.document(app, LARGE_BODIES[service])
    describing.document(app, ROUTERS[service], "/api/v1")

    @app.get("/api/v1/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        from beamkeeper.server import interface

        return HTMLResponse(interface.page(app.openapi(), OPENAPI))
