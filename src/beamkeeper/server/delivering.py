"""Sending bytes: whole or in parts, from any position on, as long as the right to have them lasts.

A disk that is slow holds up no other request, and a client that is slow holds no thread: threads of a small pool of
their own have the kernel send the files. Where bytes have to go through TLS, they read blocks, the next while one is
sent.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Generator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

import anyio
from anyio import CapacityLimiter, to_thread
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from beamkeeper.core.archive import Piece, blocks
from beamkeeper.core.downloads import Content
from beamkeeper.core.recording import Recorder
from beamkeeper.db.base import new_uid
from beamkeeper.domain.downloads import Delivery
from beamkeeper.domain.errors import DmError
from beamkeeper.server.deps import Context
from beamkeeper.server.direct import Direct, GoneError
from beamkeeper.server.ranges import NotSatisfiableError, wanted

logger = logging.getLogger(__name__)

READERS = 8
"""How many blocks are read at the same time."""

STALL_S = 300.0
"""A client that takes nothing for so long has gone."""


class Sending:
    """What deliveries of one service share."""

    def __init__(self, context: Context, recorder: Recorder) -> None:
        self.context = context
        self.recorder = recorder
        self.readers = CapacityLimiter(READERS)


class Delivered(Response):
    """The answer that sends content; it closes the content's source whatever happens."""

    def __init__(self, content: Content, sending: Sending, media_type: str = "application/octet-stream") -> None:
        self.content = content
        self.sending = sending
        self.media_type = media_type
        self.status_code = 200
        self.background = None
        self.sent = 0
        self.count = 0
        self.checked_at = 0.0
        self.init_headers(
            {
                "accept-ranges": "bytes",
                "etag": content.etag,
                "content-disposition": _disposition(content.filename),
            }
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a GET or HEAD."""
        try:
            await self._answer(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(self.content.source.close)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        size, etag = self.content.source.size, self.content.etag
        asked = Headers(scope=scope)
        if asked.get("if-none-match") in (etag, "*"):
            await send(self._start(304, {}))
            await send({"type": "http.response.body", "body": b""})
            return
        try:
            parts = wanted(asked, size, etag)
        except NotSatisfiableError:
            await send(self._start(416, {"content-range": f"bytes */{size}", "content-length": "0"}))
            await send({"type": "http.response.body", "body": b""})
            return
        plan = _plan(parts, size, self.media_type or "")
        await send(self._start(206 if parts else 200, plan.headers))
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        await self._deliver(plan, scope, receive, send)

    def _start(self, status: int, more: dict[str, str]) -> Message:
        headers = {**{key.decode("latin-1"): value.decode("latin-1") for key, value in self.raw_headers}, **more}
        raw = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in headers.items()]
        return {"type": "http.response.start", "status": status, "headers": raw}

    async def _deliver(self, plan: _Plan, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what is planned, and keep a record; the connection is broken off where that cannot go on."""
        told = self._begun(plan)
        self.sending.recorder.tell(told)
        message = ""
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_watch, receive, group.cancel_scope)
                try:
                    await self._send_all(plan, told, send, Direct.of(scope))
                except GoneError:
                    logger.info("the client has gone", extra={"who": self.content.username})
                except (DmError, TimeoutError) as error:
                    message = error.message if isinstance(error, DmError) else "the client took nothing any more"
                    logger.warning("download broken off", extra={"who": self.content.username, "why": message})
                group.cancel_scope.cancel()
        finally:
            # A client that has everything may be gone before we hear that it was sent: count, and do not wait for that.
            is_whole = not message and self.count == sum(end - begin for _, (begin, end) in plan.parts)
            at = {"end_byte": self.sent, "heard_at": datetime.now(UTC)}
            self.sending.recorder.tell(told.model_copy(update={**at, "is_whole": is_whole, "message": message[:2000]}))

    async def _send_all(self, plan: _Plan, told: Delivery, send: Send, direct: Direct | None) -> None:
        self.checked_at = anyio.current_time()
        with direct or nullcontext():
            for head, (begin, end) in plan.parts:
                if head:
                    await send({"type": "http.response.body", "body": head, "more_body": True})
                self.sent = begin
                pieces = self.content.source.pieces(begin, end)
                if direct is None:
                    await self._send_part(blocks(pieces), told, send)
                else:
                    await self._push_part(pieces, told, direct)
        await send({"type": "http.response.body", "body": plan.tail})

    async def _push_part(self, pieces: Generator[Piece], told: Delivery, direct: Direct) -> None:
        """Have threads push a part into the connection, a while each."""
        await direct.begin(STALL_S)
        is_end = False
        try:
            while not is_end:
                await self._recheck(told)
                before = direct.sent
                try:
                    is_end = await to_thread.run_sync(direct.push, pieces, limiter=self.sending.readers)
                finally:
                    count = direct.account(before)
                    self.sent += count
                    self.count += count
                if not is_end:
                    await direct.wait(STALL_S)
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(pieces.close)

    async def _recheck(self, told: Delivery) -> None:
        """See now and then whether the right to have the bytes lasts, and tell how far they have come."""
        if anyio.current_time() - self.checked_at > self.sending.context.recheck_s:
            await to_thread.run_sync(self.content.check, limiter=self.sending.readers)
            self.checked_at = anyio.current_time()
            at = {"end_byte": self.sent, "heard_at": datetime.now(UTC)}
            self.sending.recorder.tell(told.model_copy(update=at))

    async def _send_part(self, parts: Generator[bytes], told: Delivery, send: Send) -> None:
        """Send blocks; the next is read while one is sent."""
        block = await self._next(parts)
        while block is not None:
            await self._recheck(told)
            after: list[bytes | DmError | None] = []
            with anyio.fail_after(STALL_S):
                async with anyio.create_task_group() as group:
                    group.start_soon(self._read_into, parts, after)
                    await send({"type": "http.response.body", "body": block, "more_body": True})
                    self.sent += len(block)
                    self.count += len(block)
            if isinstance(after[0], DmError):
                raise after[0]
            block = after[0]

    async def _next(self, blocks: Iterator[bytes]) -> bytes | None:
        return await to_thread.run_sync(next, blocks, None, limiter=self.sending.readers)

    async def _read_into(self, blocks: Iterator[bytes], after: list[bytes | DmError | None]) -> None:
        try:
            after.append(await self._next(blocks))
        except DmError as error:
            after.append(error)

    def _begun(self, plan: _Plan) -> Delivery:
        content, now = self.content, datetime.now(UTC)
        first = plan.parts[0][1][0]
        return Delivery(
            uid=new_uid(),
            experiment_uid=content.experiment_uid,
            username=content.username,
            link_uid=content.link_uid,
            set_uid=content.set_uid,
            path_b64=content.path_b64,
            size=content.source.size,
            first_byte=first,
            end_byte=first,
            is_whole=False,
            begun_at=now,
            heard_at=now,
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    """The headers of an answer, its parts each with what stands before it, and what stands at the end."""

    headers: dict[str, str]
    parts: Sequence[tuple[bytes, tuple[int, int]]]
    tail: bytes = b""


def _plan(parts: Sequence[tuple[int, int]] | None, size: int, media_type: str) -> _Plan:
    if parts is None:
        return _Plan({"content-length": str(size), "content-type": media_type}, [(b"", (0, size))])
    if len(parts) == 1:
        begin, end = parts[0]
        ranged = {"content-range": f"bytes {begin}-{end - 1}/{size}", "content-length": str(end - begin)}
        return _Plan({**ranged, "content-type": media_type}, [(b"", parts[0])])
    boundary = secrets.token_hex(16)
    heads = [
        f"\r\n--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: bytes {begin}-{end - 1}/{size}\r\n\r\n"
        for begin, end in parts
    ]
    tail = f"\r\n--{boundary}--\r\n".encode("ascii")
    length = sum(map(len, heads)) + sum(end - begin for begin, end in parts) + len(tail)
    headers = {"content-type": f"multipart/byteranges; boundary={boundary}", "content-length": str(length)}
    return _Plan(headers, [(head.encode("ascii"), part) for head, part in zip(heads, parts, strict=True)], tail)


async def _watch(receive: Receive, scope: anyio.CancelScope) -> None:
    """End a delivery whose client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _disposition(filename: str) -> str:
    plain = filename.encode("utf-8", "surrogateescape")
    shown = "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "_" for c in filename)
    return f"attachment; filename=\"{shown}\"; filename*=UTF-8''{quote(plain)}"
