"""What routes ask for: a transaction of their service, who is calling, and pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Semaphore
from typing import Annotated, Any, cast
from uuid import UUID

from fastapi import Depends, Header, Request

from beamkeeper import config
from beamkeeper.core import sessions as core_sessions
from beamkeeper.core import users as core_users
from beamkeeper.core.arrays import ArrayReaders
from beamkeeper.core.authenticators import Authenticators
from beamkeeper.core.copies_read import CopiesRead
from beamkeeper.core.identity_providers import IdentityProviders
from beamkeeper.core.parsing import Parser
from beamkeeper.core.passwords import Passwords
from beamkeeper.core.storage import Probes
from beamkeeper.db import (
    AcquisitionTransaction,
    CatalogTransaction,
    Database,
    ProcessingTransaction,
    StorageTransaction,
    Transaction,
)
from beamkeeper.domain.errors import MirrorBehindError, NotAuthenticatedError
from beamkeeper.domain.events import Cursor
from beamkeeper.domain.status import AreaSpace, LastError, Service
from beamkeeper.domain.users import Caller
from beamkeeper.server.auditing import audited
from beamkeeper.server.crowd import Calls, Crowd

MIRROR_HEADER = "Beamkeeper-Mirror"
MIRROR_PATIENCE_S = 5.0
MOST_WAITING = 16
"""So many requests at most hold a thread each, of all that there are, while they wait for the mirror."""
BODY_STALL_S = 30.0
"""A body of which nothing comes for so long is given up."""

RECHECK_S = 2.0
"""So often it is asked during a long download and for who listens to events whether that is still allowed. It is to end
within five seconds: this, and what it takes a station to hear of it, and a second in which nothing happens.
"""


class ErrorLog:
    """Remembers the last fault, for the status page; the log has them all."""

    def __init__(self) -> None:
        self.last: LastError | None = None

    def append(self, message: str) -> None:
        """Remember a fault."""
        self.last = LastError(at=datetime.now(UTC), message=message[:2000])


@dataclass
class Context:
    """What one service's application holds: built in serve.py and put on `app.state.context`."""

    service: Service
    settings: config.Settings
    database: Database[Any]
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    errors: ErrorLog = field(default_factory=ErrorLog)
    authenticators: Authenticators = field(default_factory=Authenticators)
    identity_providers: IdentityProviders = field(default_factory=IdentityProviders)
    passwords: Passwords = field(default_factory=Passwords)
    probes: Probes = field(default_factory=Probes)
    spaces: dict[str, AreaSpace] = field(default_factory=dict)
    """Of the storage areas, by their names, as the engine measured them."""
    heard: dict[UUID, tuple[datetime, str]] = field(default_factory=dict)
    """Of the stations' services, by the station: when they last asked, and as which program."""
    arrays: ArrayReaders = field(default_factory=ArrayReaders)
    copies: CopiesRead = field(default_factory=CopiesRead)
    mirror_patience_s: float = MIRROR_PATIENCE_S
    waiting_room: Semaphore = field(default_factory=lambda: Semaphore(MOST_WAITING))
    recheck_s: float = RECHECK_S
    crowd: Crowd = field(default_factory=Crowd)
    bulk: Calls = field(default_factory=Calls)
    """Those with large bodies: what can wait waits for them."""
    parser: Parser = field(default_factory=Parser)
    body_stall_s: float = BODY_STALL_S

    def end_helpers(self) -> None:
        """End the processes that read for requests."""
        self.arrays.close()
        self.parser.close()

    @property
    def last_error(self) -> LastError | None:
        """The last thing that went wrong."""
        return self.errors.last


def context(request: Request) -> Context:
    """Return what this application holds."""
    return cast(Context, request.app.state.context)


def source(request: Request) -> str:
    """Return where a request comes from."""
    return request.client.host if request.client else ""


async def _held(request: Request) -> Context:
    """Give what this application holds; asynchronous, since FastAPI takes what is not to a thread and back."""
    return context(request)


Ctx = Annotated[Context, Depends(_held)]


@dataclass(frozen=True, slots=True)
class Presented:
    """What a request says of who is calling, before anybody has looked whether it holds."""

    request: Request
    ctx: Context
    token: str = field(repr=False)
    mirror: str | None

    @contextmanager
    def opened(self) -> Iterator[tuple[Caller, Transaction]]:
        """Give who is calling, and the transaction that only reads in which that was asked."""
        ctx, request = self.ctx, self.request
        if self.mirror is not None and ctx.service is not Service.STORAGE:
            _await_mirror(ctx, Cursor.parse(self.mirror))
        with ctx.database.read() as tx:
            found = request.state.caller = core_sessions.authenticate(tx, self.token)
            request.state.leave = (ctx.crowd.enter(found),)  # called by server.limits, when all is answered
            if found.is_service and found.station_uid is not None:
                ctx.heard[found.station_uid] = (datetime.now(UTC), request.headers.get("user-agent", "")[:100])
            yield found, tx


async def presented(
    request: Request,
    beamkeeper_mirror: Annotated[str | None, Header(description="Wait until identities are as new as this.")] = None,
) -> Presented:
    """Return what is to be looked at; refuse who names no session."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise NotAuthenticatedError("nobody is logged in: log in with `dm login`")
    return Presented(request, context(request), token, beamkeeper_mirror)


def caller(given: Annotated[Presented, Depends(presented)]) -> Caller:
    """Return who is calling; refuse nobody and who has no session any more."""
    with given.opened() as (found, _):
        return found


def _await_mirror(ctx: Context, cursor: Cursor) -> None:
    def is_there() -> bool:
        with ctx.database.read() as tx:
            return core_users.mirror_cursor(tx) >= cursor

    if is_there():
        return
    # Who waits may be nobody: they must not have all the threads.
    is_room = ctx.waiting_room.acquire(blocking=False)
    try:
        if not is_room or not ctx.database.wait(is_there, ctx.mirror_patience_s):
            raise MirrorBehindError(
                f"the {ctx.service} service has not heard of the latest change of users or experiments yet: try again"
            )
    finally:
        if is_room:
            ctx.waiting_room.release()


Who = Annotated[Caller, Depends(caller)]


def _read(request: Request) -> Iterator[Transaction]:
    with context(request).database.read() as tx:
        yield tx


def writing(request: Request) -> AbstractContextManager[Any]:
    """Open a transaction of this service that changes something, which the audit log tells of."""
    return audited(request, context(request).database)


def _write(request: Request) -> Iterator[Transaction]:
    with writing(request) as tx:
        yield tx


# scope="function": the transaction ends before the answer is sent. With FastAPI's default a commit that
# fails would still be answered with success (ADR 0002).
AnyTx = Annotated[Transaction, Depends(_read, scope="function")]
AnyWriteTx = Annotated[Transaction, Depends(_write, scope="function")]
StorageTx = Annotated[StorageTransaction, Depends(_read, scope="function")]
StorageWriteTx = Annotated[StorageTransaction, Depends(_write, scope="function")]
CatalogTx = Annotated[CatalogTransaction, Depends(_read, scope="function")]
CatalogWriteTx = Annotated[CatalogTransaction, Depends(_write, scope="function")]
ProcessingTx = Annotated[ProcessingTransaction, Depends(_read, scope="function")]
ProcessingWriteTx = Annotated[ProcessingTransaction, Depends(_write, scope="function")]
AcquisitionTx = Annotated[AcquisitionTransaction, Depends(_read, scope="function")]
AcquisitionWriteTx = Annotated[AcquisitionTransaction, Depends(_write, scope="function")]
