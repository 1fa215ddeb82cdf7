"""An experiment whose files are stored and catalogued alike, people with roles, and a wire that breaks."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

from beamkeeper.client import Client
from beamkeeper.core.sessions import begin_session
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.files import NewFile
from beamkeeper.domain.names import to_b64
from beamkeeper.domain.users import NewGrant, NewUser, Publicity, Role
from beamkeeper.testing.catalogue import new_file
from beamkeeper.testing.services import Running

NUMBERS = count()


class Shelf:
    """An experiment with files."""

    def __init__(self, site: Running, publicity: Publicity = Publicity.PROPRIETARY) -> None:
        name = f"shelf{next(NUMBERS)}"
        new = NewExperiment(name=name, station=site.settings.station.name, publicity=publicity)
        self.site = site
        self.experiment: Experiment = site.client.experiments.create(new)
        self.root = site.area / self.experiment.directory
        self.files: dict[bytes, bytes] = {}

    @property
    def client(self) -> Client:
        """An administrator's client."""
        return self.site.client

    def path(self, path: bytes) -> Path:
        """Return where a file lies."""
        return Path(os.fsdecode(os.path.join(os.fsencode(self.root), path)))

    def put(self, path: bytes, content: bytes) -> None:
        """Store a file, and register it."""
        self.put_all({path: content})

    def put_all(self, files: dict[bytes, bytes]) -> None:
        """Store files, and register them."""
        new = []
        for path, content in files.items():
            self.path(path).parent.mkdir(parents=True, exist_ok=True)
            self.path(path).write_bytes(content)
            new.append(new_file(path, content=content, experiment_uid=self.experiment.uid))
        self._register(new)
        self.files |= files

    def link(self, path: bytes, target: bytes) -> None:
        """Register a symbolic link."""
        link: dict[str, Any] = {"kind": "link", "size": 0, "checksums": (), "link_target_b64": to_b64(target)}
        self._register([new_file(path, experiment_uid=self.experiment.uid, **link)])

    def _register(self, new: Sequence[NewFile]) -> None:
        service = self.site.as_service()
        service.credentials.mirror = self.client.credentials.mirror
        service.files.register(new)

    def person(self, role: Role | None, *, is_bound: bool = False) -> Client:
        """Return somebody with this role, of the station or of the experiment."""
        return self.named(role, is_bound=is_bound)[1]

    def named(self, role: Role | None, *, is_bound: bool = False) -> tuple[str, Client]:
        """Return somebody with this role, by name and as a client."""
        user = self.client.users.create(NewUser(username=f"s{next(NUMBERS)}"))
        if role in (Role.STATION_MANAGER, Role.STATION_VIEWER, Role.ADMINISTRATOR):
            station = None if role is Role.ADMINISTRATOR else self.experiment.station_uid
            self.client.users.grant(NewGrant(username=user.username, role=role, station_uid=station))
        elif role is not None:
            self.client.experiments.add_user(self.experiment.uid, user.username, role)
        with self.site.database.write() as tx:
            bound = self.experiment if is_bound else None
            made = begin_session(tx, user, expires_at=tx.now + timedelta(days=1), experiment=bound)
        client = self.site.as_(made.token)
        client.credentials.mirror = self.client.credentials.mirror
        return user.username, client


class Breaking:
    """A relay on loopback that breaks each connection after so many bytes of the answer; `left` more times."""

    def __init__(self, url: str, *, after: int, times: int) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._target = (host, int(port))
        self._after = after
        self.left = times
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near = self._listening.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, socket.create_connection(self._target) as far:
            up = threading.Thread(target=self._relay, args=(near, far, -1), daemon=True)
            up.start()
            limit = self._after if self.left > 0 else -1
            if self._relay(far, near, limit):
                self.left -= 1
            for each in (near, far):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            up.join()

    def _relay(self, source: socket.socket, target: socket.socket, limit: int) -> bool:
        passed = 0
        with suppress(OSError):
            while block := source.recv(65536):
                target.sendall(block)
                passed += len(block)
                if 0 <= limit <= passed:
                    return True
        return False

    def close(self) -> None:
        """Take no connection more."""
        self._listening.close()


@contextmanager
def breaking(url: str, *, after: int, times: int) -> Iterator[Breaking]:
    """Give a relay while the block lasts."""
    made = Breaking(url, after=after, times=times)
    try:
        yield made
    finally:
        made.close()
