"""A relay on loopback that cuts, stalls and slows what passes through it, or swallows one answer."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Self

COMMIT = b"COMMIT"


class Proxy:
    """Relays one port to another; what it does to the bytes can be changed at any time."""

    def __init__(self, port: int) -> None:
        self.is_cut = False
        self.delay_s = 0.0
        self.bytes_a_second = 0
        self.swallow_commits = 0
        """So many connections are cut when a COMMIT has gone to the server: its answer never arrives."""
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listening.getsockname()[1])
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Let nobody through, and end what is under way."""
        self.is_cut = True
        with self._lock:
            for connection in self._open:
                _end(connection)

    def mend(self) -> None:
        """Be a wire again."""
        self.is_cut, self.delay_s, self.bytes_a_second = False, 0.0, 0

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            try:
                if self.is_cut:
                    raise ConnectionError
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            with self._lock:
                self._open |= {near, far}
            for one, other, is_up in ((near, far, True), (far, near, False)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._relay, args=(one, other, is_up), daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket, is_up: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                time.sleep(self.delay_s + (len(piece) / self.bytes_a_second if self.bytes_a_second else 0))
                is_lost = is_up and self.swallow_commits > 0 and COMMIT in piece
                if is_lost:
                    self.swallow_commits -= 1
                    _end(source)  # before the server can answer
                target.sendall(piece)
                if is_lost:
                    time.sleep(0.2)
                    break
        for connection in (source, target):
            _end(connection)
        with self._lock:
            self._open -= {source, target}
        for connection in (source, target):
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
