"""The job socket: ZeroMQ with CURVE keys, where instruments submit jobs by one message each."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from beamkeeper.config import curve
from beamkeeper.engine.jobs.messages import LARGEST, Messages, Sender
from beamkeeper.engine.worker import Loop, Report

if TYPE_CHECKING:
    import zmq

logger = logging.getLogger(__name__)

POLL_MS = 500
ZAP = "inproc://zeromq.zap.01"
"""Where libzmq asks whether a key is known; the address is of its protocol (ZeroMQ RFC 27)."""

DROPPED_FROM = 4 * LARGEST
"""A connection that sends a frame as large as this is closed without an answer."""

MOST_UNREAD = 16
"""Messages of one connection that are read ahead."""

MOST_TOLD = 1000
"""Unknown keys that the log tells of."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the socket listens, and its secret key."""

    host: str
    port: int
    secret_key: str = field(repr=False)

    @property
    def url(self) -> str:
        """The address as ZeroMQ writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host or '*'}:{self.port}"


class SocketLoop(Loop):
    """Answers one message after another.

    Keys are checked before a connection is of any use: who has none that is known gets no answer at all.
    """

    def __init__(self, place: Place, messages: Messages, *, report: Report) -> None:
        super().__init__("job socket", report=report)
        self._zmq: Any = curve.library()
        self._place = place
        self._messages = messages
        self._refused: set[bytes] = set()
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._keys: zmq.Socket[bytes] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self.endpoint = ""
        """Where it listens, once it does: with the port where the settings leave it open."""
        self.listens = threading.Event()

    def step(self) -> bool:
        """Wait a moment for a message or a connection, and answer it."""
        if self._socket is None or self._keys is None:
            self._open()
            return True
        zmq = self._zmq
        poller = zmq.Poller()
        for each in (self._keys, self._socket):
            poller.register(each, zmq.POLLIN)
        ready = dict(poller.poll(POLL_MS))
        if self._keys in ready:
            self._check_key(self._keys)
        if self._socket in ready:
            self._answer(self._socket)
        return True

    def ended(self) -> None:
        """Close the socket; answers that are under way are sent."""
        for each in (self._socket, self._keys):
            if each is not None:
                each.close(linger=1000)
        if self._context is not None:
            self._context.term()
        self._socket = self._keys = self._context = None

    def _open(self) -> None:
        zmq = self._zmq
        try:
            self._context = zmq.Context()
            self._keys = self._context.socket(zmq.REP)
            self._keys.bind(ZAP)
            self._socket = self._context.socket(zmq.ROUTER)
            self._socket.setsockopt(zmq.IPV6, int(":" in self._place.host))
            self._socket.setsockopt(zmq.MAXMSGSIZE, DROPPED_FROM)
            self._socket.setsockopt(zmq.RCVHWM, MOST_UNREAD)
            self._socket.setsockopt(zmq.CURVE_SERVER, 1)
            self._socket.setsockopt(zmq.CURVE_SECRETKEY, self._place.secret_key.encode("ascii"))
            self._socket.setsockopt(zmq.ZAP_DOMAIN, b"jobs")
            self._socket.bind(self._place.url)
        except zmq.ZMQError:
            self.ended()
            raise
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        self.listens.set()
        logger.info("the job socket listens", extra={"endpoint": self.endpoint})

    def _check_key(self, socket: zmq.Socket[bytes]) -> None:
        """Answer libzmq, which asks for every connection whether its key is known."""
        from zmq.utils import z85

        version, request, _, address, _, mechanism, *credentials = socket.recv_multipart()
        key = z85.encode(credentials[0]) if mechanism == b"CURVE" and credentials else b""
        if self._messages.is_known(str(key, "ascii")):
            socket.send_multipart([version, request, b"200", b"OK", key, b""])
            return
        socket.send_multipart([version, request, b"400", b"unknown key", b"", b""])
        if key not in self._refused and len(self._refused) < MOST_TOLD:
            self._refused.add(key)
            logger.warning("job socket: an unknown key", extra={"key": key.decode(), "address": address.decode()})

    def _answer(self, socket: zmq.Socket[bytes]) -> None:
        frames = socket.recv_multipart(copy=False)
        route, parts = frames[:1], frames[1:]
        if len(parts) > 1 and len(parts[0]) == 0:  # what a REQ socket puts before its message, and wants to see again
            route, parts = frames[:2], frames[2:]
        sender = Sender(str(parts[0].get("User-Id")), str(parts[0].get("Peer-Address")))
        answer = self._messages.answer(sender, [part.bytes for part in parts])
        try:
            socket.send_multipart([*(frame.bytes for frame in route), answer], flags=self._zmq.NOBLOCK)
        except self._zmq.ZMQError as error:
            logger.info("an answer of the job socket could not be sent", extra={"why": str(error)})
