"""Real services in this process: real HTTP on loopback, a real database, and a client that is logged in."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import uvicorn
from argon2 import PasswordHasher

from beamkeeper import config
from beamkeeper.client import Client
from beamkeeper.client.logins import Logins
from beamkeeper.core import bootstrap
from beamkeeper.core import users as core_users
from beamkeeper.core.bootstrap import Bootstrap
from beamkeeper.core.offline_tokens import key_of
from beamkeeper.core.passwords import Passwords
from beamkeeper.db import Database
from beamkeeper.db.opening import TRANSACTIONS
from beamkeeper.db.schema import create
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import Caller
from beamkeeper.server.app import build_app
from beamkeeper.server.deps import Context
from beamkeeper.server.direct import Protocol

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 2
"""How long requests that are open may go on when the services stop."""


@dataclass(frozen=True)
class Running:
    """The services that run, and what is known of them."""

    directory: Path
    settings: config.Settings
    contexts: Mapping[Service, Context]
    urls: Mapping[Service, str]
    bootstrap: Bootstrap
    stack: ExitStack

    @cached_property
    def client(self) -> Client:
        """A client that is logged in as the administrator."""
        return self.as_(self.bootstrap.operator.token)

    @property
    def database(self) -> Database[Any]:
        """The storage service's database."""
        return self.contexts[Service.STORAGE].database

    @property
    def area(self) -> Path:
        """The storage area."""
        return self.settings.storage.area_path

    def as_(self, token: str | None = None, **options: Any) -> Client:
        """Return a client for somebody else; nobody without a token. It is closed with the beamline."""
        logins = Logins(self.directory / "logins.json")
        client = Client(self.urls[Service.STORAGE], token=token, logins=logins, **options)
        return self.stack.enter_context(client)

    def as_service(self) -> Client:
        """Return a client that acts under the station's service key."""
        return self.as_(self.bootstrap.service_key)


@contextmanager
def running(
    *services: Service,
    directory: Path,
    url: str | None = None,
    settings: Mapping[str, Any] | None = None,
    clock: Callable[[], datetime] | None = None,
) -> Iterator[Running]:
    """Run services while the block lasts; storage always runs, and the others mirror it at once.

    `url` is the database of the first service named (an empty one); the others get SQLite files in
    `directory`. Where it is a PostgreSQL that two services would share, give only one. No engine runs.
    """
    wanted = services or (Service.STORAGE,)
    with ExitStack() as stack:
        sockets = {service: stack.enter_context(_listening()) for service in {Service.STORAGE, *wanted}}
        tree = _settings(directory, sockets, {} if url is None else {wanted[0]: url}, settings or {})
        contexts = {service: _context(service, tree, clock or _now) for service in sockets}
        for context in contexts.values():
            stack.callback(context.database.close)
        with contexts[Service.STORAGE].database.write() as tx:
            made = bootstrap.bootstrap(tx, tree)
        for service, context in contexts.items():
            if tree.station.offline_login and service is not Service.STORAGE:
                context.database.offline_key = key_of(made.service_key)
        stack.callback(_mirroring(contexts))
        for service, context in contexts.items():
            stack.enter_context(_serving(context, sockets[service]))
        urls = {service: tree.url(service) for service in sockets}
        yield Running(directory, tree, contexts, urls, made, stack.enter_context(ExitStack()))


def _listening() -> socket.socket:
    """Return a socket that listens on a free port of loopback."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as in serve: else each answer takes 40 ms
    return listening


def _settings(
    directory: Path,
    sockets: Mapping[Service, socket.socket],
    databases: Mapping[Service, str],
    given: Mapping[str, Any],
) -> config.Settings:
    """Return the settings of a beamline that listens on these sockets."""
    data_dir = directory / "beamline"
    data_dir.mkdir(parents=True, exist_ok=True)
    tree: dict[str, Any] = {"data_dir": data_dir, **given}
    for service, listening in sockets.items():
        host, port = listening.getsockname()
        tree[service] = {"listen": f"{host}:{port}", **given.get(service, {})}
        if service in databases:
            tree[service]["database"] = databases[service].replace("postgresql+psycopg://", "postgresql://")
    return config.Settings.model_validate(tree)


def _now() -> datetime:
    return datetime.now(UTC)


def _context(service: Service, settings: config.Settings, clock: Callable[[], datetime]) -> Context:
    database = Database(settings.database_url(service), TRANSACTIONS[service], clock=clock)
    create(database, service)
    database.home = settings.station.name
    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    return Context(service, settings, database, passwords=Passwords(cheap))


def _mirroring(contexts: Mapping[Service, Context]) -> Callable[[], None]:
    """Bring every mirror up to date after each commit at the storage service; returns what ends that."""
    storage = contexts[Service.STORAGE].database
    others = [context.database for service, context in contexts.items() if service is not Service.STORAGE]
    engine = Caller(username="testing", is_service=True)

    def bring() -> None:
        for database in others:
            with database.read() as tx:
                state = core_users.mirror_state(tx)
            with storage.read() as tx:
                mirror = core_users.mirror_after(
                    tx, engine, number=state.number if state else 0, epoch=state.epoch if state else None
                )
            with database.write() as tx:
                core_users.apply_mirror(tx, mirror)

    bring()
    return storage.listen(bring)


@contextmanager
def _serving(context: Context, listening: socket.socket) -> Iterator[None]:
    """Serve an application on a socket that listens, in a thread of its own."""
    options = uvicorn.Config(
        build_app(context),
        http=Protocol,
        log_config=None,
        lifespan="on",
        timeout_graceful_shutdown=STOP_TIMEOUT_S,
        ws="none",
    )
    server = uvicorn.Server(options)
    thread = threading.Thread(target=server.run, args=([listening],), name=f"{context.service} service", daemon=True)
    thread.start()
    deadline = time.monotonic() + START_TIMEOUT_S
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert server.started, f"the {context.service} service did not start"
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(START_TIMEOUT_S)
