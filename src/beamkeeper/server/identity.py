"""Transactions that may change identities: their answers say which cursor a mirror must reach to know of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Depends, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from beamkeeper.db import StorageTransaction
from beamkeeper.server.deps import MIRROR_HEADER, writing


@contextmanager
def changing(request: Request) -> Iterator[StorageTransaction]:
    """Open a transaction of the storage service that may change identities."""
    with writing(request) as tx:
        yield tx
    request.state.mirror = tx.events.changed


def _changing(request: Request) -> Iterator[StorageTransaction]:
    with changing(request) as tx:
        yield tx


IdentityTx = Annotated[StorageTransaction, Depends(_changing, scope="function")]


class MirrorHeader:
    """Puts the cursor on the answer. Plain ASGI: the transaction ends after the route has made its response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and say with its answer how far a mirror must have come."""

        async def with_number(message: Message) -> None:
            cursor = scope.get("state", {}).get("mirror")
            if message["type"] == "http.response.start" and cursor is not None:
                header = (MIRROR_HEADER.lower().encode(), str(cursor).encode())
                message["headers"] = [*message.get("headers", ()), header]
            await send(message)

        await self.app(scope, receive, with_number)
