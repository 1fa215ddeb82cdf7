"""Runs services in this process: one loop of HTTP servers, and the threads of their engines."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from beamkeeper import config
from beamkeeper.domain.errors import ConflictError, InvalidError, SettingsError
from beamkeeper.domain.status import PORTAL, SERVED, Service
from beamkeeper.engine.processes import die_with_supervisor
from beamkeeper.portal.door import Door
from beamkeeper.serve import certificates, databases, logs, people, restoring
from beamkeeper.serve.engines import Engine, build_engine
from beamkeeper.server.app import build_app
from beamkeeper.server.deps import Context
from beamkeeper.server.direct import Protocol

logger = logging.getLogger(__name__)

MAX_HEADER_BYTES = 64 * 1024
"""The largest head of a request."""

GRACE_S = 5
"""How long open answers may take when the services stop."""


SWITCH_S = 0.0005
"""A thread that computes gives others their turn after so long.

With Python's five milliseconds a request waits as long for each row that it reads and each packet that it answers,
while the indexer or another loop computes.
"""


class _Server(uvicorn.Server):
    """A server that leaves signals to us: several of them share this process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def run(config_file: Path | None, data_dir: Path | None, names: Sequence[str]) -> int:
    """Run services until SIGTERM or SIGINT; returns the exit status."""
    die_with_supervisor()
    overrides = {"data_dir": str(data_dir)} if data_dir else None
    settings = config.load(config_file, overrides=overrides).settings
    logs.set_up(settings.log.level, settings.log.format)
    served = _served(names, settings)
    settings.data_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    restoring.refuse_unfinished(settings)
    sockets = {name: _bind(settings, name) for name in served}
    databases.make_tables(settings, [Service(name) for name in served if name != PORTAL])
    contexts = {Service(name): _context(settings, Service(name)) for name in served if name != PORTAL}
    if Service.STORAGE in contexts:
        databases.bootstrap(contexts[Service.STORAGE])
    engines = [build_engine(context) for context in contexts.values()]
    gc.collect()
    gc.freeze()  # what lives as long as the process need not be looked at again
    gc.set_threshold(5_000, 20, 20)  # a batch makes thousands of objects, and few cycles; a page waits for each look
    sys.setswitchinterval(SWITCH_S)
    gc.enable()  # it was off while everything was imported
    doors = [Door(settings)] if PORTAL in served else []
    try:
        asyncio.run(_serve(settings, contexts, doors, sockets, engines))
    finally:
        for context in contexts.values():
            context.database.close()
    return 0


def _context(settings: config.Settings, service: Service) -> Context:
    database = databases.opened(settings, service)
    if service is not Service.STORAGE:
        return Context(service, settings, database)
    return Context(
        service,
        settings,
        database,
        authenticators=people.authenticators(settings),
        identity_providers=people.identity_providers(settings),
    )


def _served(names: Sequence[str], settings: config.Settings) -> list[str]:
    """Return what is to run; without names, everything that the settings want."""
    if unknown := [name for name in names if name not in SERVED]:
        raise InvalidError(f'there is no service "{unknown[0]}": the services are {", ".join(SERVED)}')
    wanted = list(dict.fromkeys(names))
    return wanted or [name for name in SERVED if name != PORTAL or settings.portal.enabled]


def _bind(settings: config.Settings, service: str) -> socket.socket:
    host, port = settings.listen(service)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bound = socket.create_server((host, port), family=family, backlog=128)
        # Inherited by each connection. asyncio would set it only where the socket names its protocol, and
        # without it every answer waits 40 ms for the client's delayed acknowledgement.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise ConflictError(
            f"the {service} service cannot listen on {host}:{port} ({error.strerror}): "
            f"another program has it; set {service}.listen to a free one"
        ) from error
    return bound


async def _serve(
    settings: config.Settings,
    contexts: dict[Service, Context],
    doors: Sequence[Door],
    sockets: dict[str, socket.socket],
    engines: Sequence[Engine],
) -> None:
    apps = {service: build_app(context) for service, context in contexts.items()}
    everything: dict[str, ASGIApp] = {str(service): app for service, app in apps.items()}
    everything.update(zip([PORTAL], doors, strict=False))
    servers = {name: _server(app, settings, name) for name, app in everything.items()}
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    tasks = [asyncio.create_task(server.serve(sockets=[sockets[s]])) for s, server in servers.items()]
    while not all(server.started for server in servers.values()):
        await asyncio.sleep(0.01)
        _raise_first(tasks)
    for engine in engines:
        await loop.run_in_executor(None, engine.start)
    logger.info("services are up", extra={"services": " ".join(servers)})
    ends = asyncio.create_task(stopping.wait())
    await asyncio.wait([ends, *tasks], return_when=asyncio.FIRST_COMPLETED)
    # Loops first: their last steps need the services of this very process. Who waits there is sent home.
    for engine in engines:
        engine.stop()
    for closing in (*(app.state.bell for app in apps.values()), *doors):
        closing.close()
    for engine in reversed(engines):
        await loop.run_in_executor(None, engine.join)
    for server in servers.values():
        server.should_exit = True
    await asyncio.gather(*tasks)
    logger.info("services are down")


def _server(app: ASGIApp, settings: config.Settings, service: str) -> _Server:
    certificate, key = settings.certificate(service)
    options = uvicorn.Config(
        app,
        http=Protocol,
        log_config=None,
        access_log=False,
        lifespan="off" if service == PORTAL else "on",
        timeout_graceful_shutdown=GRACE_S,
        server_header=False,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )
    options.load()
    options.ssl = certificates.server_context(certificate, key) if certificate else None
    return _Server(options)


def _raise_first(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done():
            task.result()
            raise SettingsError("a service ended as it started: the log has the reason")
