"""The laboratory: a station that may be killed at will, and trials that end with the checker's findings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from beamkeeper.client import Client
from beamkeeper.config import failpoints
from beamkeeper.config.failpoints import FailPoint
from beamkeeper.domain.acquisition import UNDELIVERED, Acquisition, JournalState, NewDaq
from beamkeeper.domain.errors import DmError
from beamkeeper.domain.names import path_fields, show_path
from beamkeeper.domain.status import Service
from beamkeeper.testing.checker import Finding, Scene, check
from beamkeeper.testing.nursery import Nursery
from beamkeeper.testing.servers import free_port
from beamkeeper.testing.station import Spawn, Station, experiment, until
from beamkeeper.testing.truth import Truth, Writer, start_writer
from faults.shim import Shim

SETTINGS = "batch_files = 8\n"
DEADLINE_S = 60.0


LOCAL = "http://127.0.0.1:"

T = TypeVar("T")


class CannotInjectError(Exception):
    """This machine does not let the fault happen: what its result says, and no skip."""


class Lab:
    """One station at a time, and what makes it suffer."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.shim = Shim(directory)
        self.nursery = Nursery(self.shim.environ)
        self._stack = ExitStack()
        self._numbers = iter(range(10**9))
        self.station = self._new_station()
        self._client: Client | None = None
        self._is_armed = False

    def _new_station(
        self, settings: str = SETTINGS, databases: Mapping[Service, str] | None = None, spawn: Spawn | None = None
    ) -> Station:
        directory = self.directory / f"station_{next(self._numbers)}"
        return Station(directory, databases, settings, spawn or self.nursery.spawn)

    @contextmanager
    def other_station(self, **options: Any) -> Iterator[Station]:
        """Give a station of its own for one trial; the shared one rests meanwhile."""
        shared = self.station
        self.down()
        self.station = self._new_station(**options)
        try:
            yield self.station
        finally:
            self.down()
            self.station = shared

    def up(self, *points: str) -> Client:
        """Bring the station up, with these fail points; what runs already runs on where none is set."""
        if self._client is not None and not points and not self._is_armed and self.is_alive:
            return self._client
        self.down()
        self.launch(*points)
        self._client = self.station.client()
        return self._client

    def launch(self, *points: str) -> None:
        """Start the services, and wait for nothing."""
        self._is_armed = bool(points)
        self.station.launch(environ={failpoints.VARIABLE: ",".join(points)})

    # A station in several processes.

    def launch_apart(self, *points: str) -> None:
        """Start acquisition in a process of its own, with these fail points."""
        self._is_armed = True
        self.station.launch(Service.STORAGE, Service.CATALOG)
        self.station.launch(Service.ACQUISITION, environ={failpoints.VARIABLE: ",".join(points)})

    def second_acquisition(self) -> Client:
        """Start a second acquisition service on the same database, and return a client of it."""
        port = free_port()
        config = self._changed("second.toml", str(self.station.port(Service.ACQUISITION)), str(port))
        self.station.launch(Service.ACQUISITION, config=config)
        session = json.loads((self.station.data / "first-session.json").read_text())
        urls = {Service.ACQUISITION: f"http://127.0.0.1:{port}"}
        client = self._stack.enter_context(
            Client(session["url"], token=session["token"], urls=urls, logins=self.station.logins)
        )
        until(lambda: _answers(client), "the second acquisition service")
        return client

    def launch_split(self, storage_port: int | None = None) -> int:
        """Start storage in a process of its own, which the others reach at this port; return its process."""
        storage = self.station.launch(Service.STORAGE)
        port = str(self.station.port(Service.STORAGE))
        config = self._changed(
            "split.toml", f'"127.0.0.1:{port}"', f'"127.0.0.1:{port}"\nurl = "{LOCAL}{storage_port or port}"'
        )
        self.station.launch(Service.CATALOG, Service.ACQUISITION, config=config)
        self._client = self.station.client()
        self._is_armed = False
        return storage.pid

    def _changed(self, name: str, old: str, new: str) -> Path:
        changed = self.station.data / name
        changed.write_text(self.station.settings.read_text().replace(old, new))
        return changed

    @property
    def is_standing_still(self) -> bool:
        """Whether a process of the services is stopped."""
        return any(state_of(process.pid) == "T" for process in self.station.processes)

    def join(self) -> None:
        """Take the services as they run for those of the trials."""
        self._client, self._is_armed = self.station.client(), False

    @property
    def is_alive(self) -> bool:
        """Whether the services run."""
        return bool(self.station.processes) and all(p.poll() is None for p in self.station.processes)

    def down(self) -> None:
        """Kill the services."""
        self.station.kill()
        self._client = None

    def await_death(self, timeout_s: float = 30.0) -> int:
        """Wait until the services have died, and return how."""
        status = self.station.processes[0].wait(timeout=timeout_s)
        self.down()
        return status

    def await_stop(self, point: FailPoint, timeout_s: float = 30.0) -> int:
        """Wait until the services stand still at a fail point that was set to `stop`; return their process."""
        pid = self.station.pid
        until(lambda: state_of(pid) == "T" or not self.is_alive, f"the stop at {point}", timeout_s)
        assert self.is_alive, f"the services ended before they came to {point}"
        return pid

    def trial(self, name: str, *, seed: int = 0) -> Trial:
        """Begin a trial with an experiment and a directory of its own."""
        self.shim.clear()
        return Trial(self, f"{name}-{next(self._numbers)}".lower(), seed)

    def close(self) -> None:
        """End everything."""
        self.down()
        self.nursery.close()
        self._stack.close()


class Trial:
    """One fault, played once: a detector's directory, an experiment, and what is found wrong at the end."""

    def __init__(self, lab: Lab, name: str, seed: int) -> None:
        self.lab = lab
        self.seed = seed
        self.directory = lab.directory / name
        self.source = self.directory / "detector"
        self.source.mkdir(parents=True)
        self.shim = lab.shim
        self._name = name
        self._stack = ExitStack()
        self._logs = [self.directory / "truth.log"]
        self.writer = Writer(self.source, self._logs[0])
        self._stack.callback(self.writer.close)
        self.foreign: set[bytes] = set()
        self.is_clock_true = True
        self._daqs: list[Acquisition] = []
        self._begun = False

    # The beamline's side.

    def begin(self, *points: str, **options: Any) -> Acquisition:
        """Make the experiment, and start a DAQ on the directory; then start anew with these fail points."""
        client = self.lab.up()
        self.experiment = experiment(client, self._name)
        self._begun = True
        daq = self.start_daq(**options)
        if points:
            self.lab.up(*points)
        return daq

    def start_daq(self, source: Path | None = None, **options: Any) -> Acquisition:
        """Start a DAQ."""
        values = {"experiment_uid": self.experiment.uid, "quiet_s": 0.1, **options}
        new = NewDaq.model_validate({**values, **path_fields(os.fsencode(source or self.source)[1:])})
        daq = self.client.daqs.start(new)
        self._daqs.append(daq)
        return daq

    @property
    def client(self) -> Client:
        """An administrator's client of the station as it runs."""
        return self.lab.up()

    @property
    def daq(self) -> Acquisition:
        """The first DAQ as it is now."""
        return self.client.daqs.get(self._daqs[0].uid)

    @property
    def daq_uid(self) -> UUID:
        """The first DAQ."""
        return self._daqs[0].uid

    @property
    def stored(self) -> Path:
        """The experiment's directory in storage."""
        return self.lab.station.storage / self.experiment.directory

    def states(self) -> Mapping[str, str]:
        """Return the state of each file in the journal by its path, with the code of its reason."""
        entries = [entry for daq in self._daqs for entry in self.client.daqs.entries(daq.uid)]
        return {show_path(bytes(e.relpath)): f"{e.state} {e.reason_code}".strip() for e in entries}

    def await_state(self, path: str, state: str) -> None:
        """Wait until a file is in a state."""
        until(lambda: self.states().get(path, "").startswith(state), f"{path} {state}: {self.states()}")

    def await_available(self, count: int, timeout_s: float = DEADLINE_S) -> None:
        """Wait until so many files are available."""
        until(lambda: self.daq.count(JournalState.AVAILABLE) >= count, f"{count} files available", timeout_s)

    def enter(self, context: AbstractContextManager[T]) -> T:
        """Enter something that is left with the trial."""
        return self._stack.enter_context(context)

    # The detector's side.

    def write(self, mode: str, **options: int | float | str) -> None:
        """Let a detector of its own process write, and wait for its end."""
        with self.writing(mode, **options) as process:
            assert process.wait(timeout=DEADLINE_S) == 0

    @contextmanager
    def writing(self, mode: str, **options: int | float | str) -> Iterator[subprocess.Popen[bytes]]:
        """Let a detector write meanwhile; it is ended with the block."""
        log = self.directory / f"truth_{len(self._logs)}.log"
        log.touch()
        self._logs.append(log)
        prefix = f"w{len(self._logs)}_"
        process = start_writer(self.source, log, mode, **{"seed": self.seed, "prefix": prefix, **options})
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()

    # The end.

    def settle(self, timeout_s: float = DEADLINE_S) -> list[Finding]:
        """Wait until nothing is on its way and nothing is found wrong; return what is still wrong in the end."""
        deadline = time.monotonic() + timeout_s
        while True:
            late = time.monotonic() > deadline
            if late or not any(self.client.daqs.get(d.uid).count(*UNDELIVERED) for d in self._daqs):
                findings = self.findings()
                if late or not findings:
                    return findings
            time.sleep(0.05)

    def finish(self, timeout_s: float = DEADLINE_S) -> list[Finding]:
        """Stop the DAQs, wait for their end, and return what is wrong then."""
        for daq in self._daqs:
            self.client.daqs.stop(daq.uid)
        for daq in self._daqs:
            self.client.daqs.wait(daq.uid, timeout_s=timeout_s)
        return self.findings()

    def findings(self) -> list[Finding]:
        """Return what the checker finds now."""
        database = self.lab.station.data / "catalog.db"
        return check(
            Scene(
                client=self.client,
                experiment=self.experiment,
                acquisitions=self._daqs,
                source=self.source,
                storage=self.stored,
                truth=Truth.read(*self._logs),
                database=database if database.exists() else None,
                is_clock_true=self.is_clock_true,
                foreign=frozenset(self.foreign),
            )
        )

    def close(self) -> None:
        """Forget the trial: its DAQs end, and its files go."""
        if self._begun and self.lab.is_alive:
            for daq in self._daqs:
                with suppress(Exception):
                    self.client.daqs.stop(daq.uid, now=True)
        self._stack.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def _answers(client: Client) -> bool:
    try:
        client.status(Service.ACQUISITION)
    except DmError:
        return False
    return True


def state_of(pid: int) -> str:
    """Return the letter of a process's state (proc(5)); empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def command(words: Sequence[str]) -> str:
    """Run a command that injects a fault, and return what it prints; what is refused cannot be injected here."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotInjectError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def written(path: Path, value: str) -> Callable[[], None]:
    """Write a value of the kernel's, and return what puts the old one back."""

    def put_back() -> None:
        path.write_text(old)

    try:
        old = path.read_text()
        path.write_text(value)
    except OSError as error:
        raise CannotInjectError(f"{path}: {error.strerror}") from error
    return put_back


@contextmanager
def laboratory() -> Iterator[Lab]:
    """Give a laboratory in a directory that goes with it."""
    with tempfile.TemporaryDirectory(prefix="beamkeeper-faults-", ignore_cleanup_errors=True) as directory:
        lab = Lab(Path(directory))
        try:
            yield lab
        finally:
            lab.close()
