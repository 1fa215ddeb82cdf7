"""Sending parts of files from the kernel's cache to a connection, with no copy of the bytes in between (sendfile).

An answer's head goes the usual way; its body may then be pushed into the connection's own socket by a thread, which may
wait for the disk. Where the client takes no more for a moment, the thread is given back until it does.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, cast

import anyio
import h11
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from beamkeeper.core.archive import FilePart, Piece

AT_ONCE = 8 * 1024 * 1024
PATIENCE_MS = 20
"""A thread waits so long for a client that takes no more, then it does something else."""

TURN_S = 0.5
"""A thread pushes for so long, then it is asked whether that may go on."""

_NO_SENDFILE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_GONE = frozenset(
    {
        *(errno.EPIPE, errno.ECONNRESET, errno.ECONNABORTED, errno.ENOTCONN, errno.ESHUTDOWN, errno.ETIMEDOUT),
        *(errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENETDOWN),
    }
)
"""What is of the connection; everything else is of the file, such as one that is gone from a file server (ESTALE)."""


class Protocol(H11Protocol):
    """HTTP/1.1 as uvicorn has it; requests find their connection in their state, and a head has to come in time."""

    head_s = 20.0
    """The head of a request has to come within so many seconds."""
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Let requests on this connection find it."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "connection": self}
        self._mind_head()

    def data_received(self, data: bytes) -> None:
        """Take what came; whoever begins the head of a request has to end it."""
        super().data_received(data)
        self._mind_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._forget_head()
        super().connection_lost(exc)

    def _mind_head(self) -> None:
        """Wait for a head only so long: a connection whose client says half a request would stay open for ever."""
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if self.conn.their_state is not h11.IDLE or is_answering:
            self._forget_head()
        elif self._patience is None:
            self._patience = self.loop.call_later(self.head_s, self.transport.close)

    def _forget_head(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


class GoneError(Exception):
    """The client has gone."""


class _Count:
    """What counts as so many bytes that were sent another way."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count


class Direct:
    """The socket of a connection whose answer has begun. `push` is called in threads, one at a time."""

    def __init__(self, protocol: Protocol) -> None:
        self.sent = 0
        """How many bytes went this way."""
        self._protocol = protocol
        self._socket: socket.socket | None = None
        self._rest: deque[Piece | memoryview] = deque()

    @classmethod
    def of(cls, scope: Scope) -> Direct | None:
        """Return the connection of a request; None where bytes have to go through something else, such as TLS."""
        protocol = scope.get("state", {}).get("connection")
        is_plain = isinstance(protocol, Protocol) and protocol.transport.get_extra_info("sslcontext") is None
        return cls(protocol) if is_plain else None

    async def begin(self, timeout_s: float) -> None:
        """Take the socket, once what went the usual way has left."""
        transport: Any = self._protocol.transport
        with anyio.fail_after(timeout_s):
            while transport.get_write_buffer_size() and not transport.is_closing():
                await anyio.sleep(0.005)
        if transport.is_closing():
            raise GoneError
        if self._socket is None:
            self._socket = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
            self._socket.setblocking(False)

    def push(self, pieces: Iterator[Piece]) -> bool:
        """Send pieces for a while; return whether there are no more."""
        to, ends = self._open(), time.monotonic() + TURN_S
        while time.monotonic() < ends:
            if not self._rest:
                if (more := next(pieces, None)) is None:
                    return True
                self._rest.append(more)
            piece = self._rest.popleft()
            is_taken = self._send_part(to, piece) if isinstance(piece, FilePart) else self._send(to, memoryview(piece))
            if not is_taken and not _is_writable(to):
                break
        return False

    def _send(self, to: socket.socket, piece: memoryview) -> bool:
        """Send as much of a piece as the client takes at once; False where it takes nothing."""
        try:
            count = to.send(piece)
        except BlockingIOError:
            count = 0
        except OSError as error:
            raise GoneError from error
        self.sent += count
        if count < len(piece):
            self._rest.appendleft(piece[count:])
        return count > 0

    def _send_part(self, to: socket.socket, part: FilePart) -> bool:
        try:
            count = os.sendfile(to.fileno(), part.descriptor, part.begin, min(AT_ONCE, len(part)))
        except BlockingIOError:
            self._rest.appendleft(part)
            return False
        except OSError as error:
            if error.errno in _GONE:
                raise GoneError from error
            if error.errno not in _NO_SENDFILE:
                raise part.unreadable(error) from error
            block = part.read()  # this file system has none
            self._rest += [block, *([part.after(len(block))] if len(block) < len(part) else [])]
            return True
        if not count:
            raise part.shorter()
        self.sent += count
        if count < len(part):
            self._rest.appendleft(part.after(count))
        return True

    def account(self, before: int) -> int:
        """Tell who speaks HTTP on this connection of what was sent since `before`, and return how much it was."""
        count = self.sent - before
        with suppress(h11.LocalProtocolError):  # the client has what it wanted, and went before we heard of it
            self._protocol.conn.send_with_data_passthrough(h11.Data(data=cast(bytes, _Count(count))))
        return count

    async def wait(self, timeout_s: float) -> None:
        """Wait until the client takes more."""
        with anyio.fail_after(timeout_s):
            await anyio.wait_writable(self._open())

    def _open(self) -> socket.socket:
        if self._socket is None:
            raise GoneError
        return self._socket

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()


def _is_writable(to: socket.socket) -> bool:
    poll = select.poll()
    poll.register(to, select.POLLOUT)
    return bool(poll.poll(PATIENCE_MS))
