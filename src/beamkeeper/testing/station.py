"""A whole beamline for a test: the services as real processes, on free ports and a fresh data directory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, TypeVar

from beamkeeper.client import Client
from beamkeeper.client.logins import Logins
from beamkeeper.domain.errors import DmError
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.status import PORTAL, SERVED, Service
from beamkeeper.testing.servers import free_ports

START_S = 60.0


T = TypeVar("T")


def until(look: Callable[[], T | None], what: str, timeout_s: float = 60.0) -> T:
    """Ask again and again until there is an answer that counts, and return it."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.02)
    return found


class Started(Protocol):
    """A process of the services: a subprocess.Popen, or what stands for it."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None:
        """Return how it ended; None while it runs."""
        ...

    def wait(self, timeout: float) -> int:
        """Wait for its end."""
        ...


Spawn = Callable[[Sequence[str], Mapping[str, str], Path], Started]
"""Starts `python -m beamkeeper.serve run` with arguments and an environment, its output going to a file."""


def popen(
    arguments: Sequence[str], environ: Mapping[str, str], log: Path, wrap: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Start the services as a process of their own; `wrap` is a command that runs them, such as unshare."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [*wrap, sys.executable, "-m", "beamkeeper.serve", "run", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environ,
            start_new_session=True,
        )


_usual: list[Spawn] = [popen]


@contextmanager
def usually(spawn: Spawn) -> Iterator[None]:
    """Start stations in this way while the block lasts, where nothing else is said."""
    _usual.append(spawn)
    try:
        yield
    finally:
        _usual.remove(spawn)


class Station:
    """The services of one data directory; `start` and `kill` as often as a test likes."""

    def __init__(
        self,
        directory: Path,
        databases: Mapping[Service, str] | None = None,
        settings: str = "",
        spawn: Spawn | None = None,
        *,
        with_portal: bool = False,
    ) -> None:
        self.directory = directory
        self.with_portal = with_portal
        self.data = directory / "beamline"
        self.data.mkdir(parents=True, exist_ok=True)
        self.logins = Logins(directory / "logins.json")
        self.spawn = spawn or _usual[-1]
        self._ports = dict(zip(SERVED, free_ports(len(SERVED)), strict=True))
        self.processes: list[Started] = []
        self._launched: set[Service] = set()
        self._clients: list[Client] = []
        self._write_settings(databases or {}, settings)

    def _write_settings(self, databases: Mapping[Service, str], more: str) -> None:
        lines = ['site = "test"', "[station]", 'name = "TEST"', 'cycle = "2026-1"', 'agent = "detector-pc"']
        # Most tests look at no page, and are spared the port.
        lines += ["[portal]", f'listen = "127.0.0.1:{self._ports[PORTAL]}"', f"enabled = {self.with_portal}".lower()]
        for service in sorted(Service, key=lambda one: one is Service.ACQUISITION):  # its own settings come last
            lines += [f"[{service}]", f'listen = "127.0.0.1:{self._ports[service]}"']
            if service in databases:
                lines.append(f'database = "{databases[service]}"')
            if service is Service.ACQUISITION:
                quick = {"quiet_s": 0.3, "scan_interval_s": 2.0}
                lines += [f"{name} = {value}" for name, value in quick.items() if name not in more]
        self.settings.write_text("\n".join(lines) + "\n" + more)

    @property
    def settings(self) -> Path:
        """The file of settings."""
        return self.data / "beamkeeper.toml"

    def port(self, service: str) -> int:
        """Return the port that a service listens on."""
        return self._ports[service]

    @property
    def log(self) -> Path:
        """What the services write."""
        return self.directory / "services.log"

    @property
    def storage(self) -> Path:
        """The storage area."""
        return self.data / "storage"

    @property
    def pid(self) -> int:
        """The process of the services."""
        return self.processes[0].pid

    def start(self, environ: Mapping[str, str] | None = None) -> Client:
        """Start the services and return an administrator's client."""
        self.launch(environ=environ)
        return self.client()

    def launch(
        self, *services: Service, environ: Mapping[str, str] | None = None, config: Path | None = None
    ) -> Started:
        """Start a process of the services named (of all where none is), and wait for nothing."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("BEAMKEEPER_")}
        more = ["--config", str(config)] if config else []
        started = self.spawn([*services, "--data", str(self.data), *more], {**clean, **(environ or {})}, self.log)
        self.processes.append(started)
        self._launched |= set(services or Service)
        return started

    def client(self) -> Client:
        """Wait until the services that were started answer, and return an administrator's client."""
        first = self.data / "first-session.json"
        until(lambda: self._alive() and first.exists(), "first session", START_S)
        session = json.loads(first.read_text())
        client = Client(session["url"], token=session["token"], logins=self.logins, station="TEST")
        self._clients.append(client)
        until(lambda: self._alive() and self._answers(client), "the services", START_S)
        return client

    def _alive(self) -> bool:
        for process in self.processes:
            if process.poll() is not None:
                raise AssertionError(f"the services ended with {process.returncode}:\n{self.log.read_text()[-4000:]}")
        return True

    def _answers(self, client: Client) -> bool:
        try:
            for service in self._launched:
                client.health(service)
                client.status(service)
        except DmError:
            return False
        return True

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End every process of the services with a signal, and wait for it."""
        while self._clients:
            self._clients.pop().close()
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        while self.processes:
            self.processes[-1].wait(timeout=40)
            self.processes.pop()
        self._launched.clear()


@contextmanager
def station(
    directory: Path,
    databases: Mapping[Service, str] | None = None,
    settings: str = "",
    spawn: Spawn | None = None,
    *,
    with_portal: bool = False,
) -> Iterator[Station]:
    """Give a station that is not started yet, and end what it started."""
    made = Station(directory, databases, settings, spawn, with_portal=with_portal)
    try:
        yield made
    finally:
        made.kill(signal.SIGTERM)


def experiment(client: Client, name: str = "coffee") -> Experiment:
    """Make an experiment."""
    return client.experiments.create(NewExperiment(name=name, station="TEST"))
