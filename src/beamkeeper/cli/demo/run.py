"""A run of the demo: the beamline up, an experiment, a DAQ, the detector, the check, and what to look at then."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from beamkeeper.cli import output
from beamkeeper.cli.demo import curves
from beamkeeper.cli.demo.beamline import STATION, Beamline, database_urls
from beamkeeper.cli.demo.check import judge
from beamkeeper.cli.demo.evidence import gather
from beamkeeper.cli.demo.place import Place, Run
from beamkeeper.cli.demo.progress import Display, Standing, Tail, display
from beamkeeper.cli.demo.report import Result, report
from beamkeeper.client import Client
from beamkeeper.domain.acquisition import ACTIVE, Acquisition, NewDaq, State
from beamkeeper.domain.errors import (
    ConflictError,
    DmError,
    NotFoundError,
    SettingsError,
    SourceError,
    UnavailableError,
)
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.names import Uid, path_fields
from beamkeeper.domain.status import Service

EXIT_WANTING = 10
_POLL_S = 0.25
_PATIENCE_S = 120.0
"""How long nothing may move before the demo checks what is there, and how long services may be away."""

_FRAME_BYTES = 530_000
_OTHER_BYTES = 120_000_000
"""NeXus files, databases and logs, amply."""

_KEPT_BYTES = 1_000_000_000
"""How much disk runs may take together that were kept."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for on the command line."""

    torture: bool
    copies: tuple[Path, ...]
    frames: int
    rate: float
    resume: bool
    keep: bool | None
    databases: tuple[str, ...]


def stop_beamline(place: Place) -> int:
    """Stop the demo's beamline; what it keeps stays on disk."""
    if not place.is_ours:
        raise NotFoundError(f"there is no demo in {place.directory}: `dm demo` makes one")
    Beamline(place.beamline).down()
    output.say(f"The demo's beamline is stopped; its files stay in {place.directory}.")
    return 0


def run(place: Place, wish: Wish) -> int:
    """Run the demo to its end; return 0 only where every file matches."""
    _require_server()
    try:
        return _run(place, wish, Beamline(place.beamline))
    except KeyboardInterrupt:
        output.note("interrupted: `dm demo` goes on with it, and `dm demo --stop` stops the beamline")
        raise


def _run(place: Place, wish: Wish, beamline: Beamline) -> int:
    with place.held():
        this = _begin(place, wish, beamline)
        output.note(f"bringing the beamline up in {place.beamline}")
        beamline.up()
        with beamline.client() as client:
            _show_the_way(client)
            experiment = _experiment(client, this)
            daq = _measure(client, place, this, _daq(client, place, this, experiment).uid)
            output.note("waiting for the curves of the scans' first frames")
            curves.wait(client, daq.uid)
            output.note("checking every file from its bytes")
            evidence = gather(client, experiment, daq, source=place.detector(this), truth=place.truth(this))
            verdict = judge(evidence, with_seconds=not this.times_interrupted)
            place.update(this.model_copy(update={"is_finished": daq.state not in ACTIVE}))
            result = Result.of(client, experiment, daq, verdict, source=place.detector(this))
            report(result, used_bytes=place.used_bytes())
    is_whole = verdict.is_match and daq.state is State.DONE and not result.curves.wanting
    return 0 if is_whole else EXIT_WANTING


def _show_the_way(client: Client) -> None:
    """Say where one can watch it in a browser: from now on, and not at the end alone."""
    with suppress(DmError):  # who has turned the portal off watches here
        if portal := client.site().portal:
            output.note(f"watch it in a browser: {client.portal_way(portal)}")


def _require_server() -> None:
    missing = [name for name in ("h5py", "tifffile", "sqlalchemy", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"the demo runs the services, and {missing[0]} is missing: pip install 'beamkeeper[server]'"
        )


def _begin(place: Place, wish: Wish, beamline: Beamline) -> Run:
    """Decide which run this is: one that was interrupted, or a new one, on a beamline kept or made anew."""
    unfinished = None if wish.keep is False else place.read().unfinished
    if unfinished is not None:
        return _resumed(place, wish, unfinished, databases=beamline.databases)
    if wish.resume:
        raise NotFoundError(f"no demo was interrupted in {place.directory}: run `dm demo` without --resume")
    databases = database_urls(wish.databases)
    if not wish.keep:
        _clear(place, wish, beamline)
    if not beamline.exists():
        beamline.make(databases)
    elif databases:
        raise ConflictError("the demo's beamline has its databases already: give --database without --keep")
    _require_space(place, wish)
    now = datetime.now(UTC).replace(microsecond=0)
    return place.update(
        Run(
            experiment=f"demo-{now:%Y%m%d-%H%M%S}",
            start=now,
            torture=wish.torture,
            copies=wish.copies,
            frames=wish.frames,
            rate=wish.rate,
        )
    )


def _resumed(place: Place, wish: Wish, unfinished: Run, *, databases: Mapping[Service, str]) -> Run:
    is_other = (wish.torture, wish.copies) not in ((False, ()), (unfinished.torture, tuple(unfinished.copies)))
    if is_other or (wish.databases and database_urls(wish.databases) != databases):
        raise ConflictError(
            f'the demo "{unfinished.experiment}" was interrupted, and had other options: '
            f"finish it with `dm demo --resume`, or begin anew with --fresh"
        )
    output.note(f'going on with "{unfinished.experiment}", which was interrupted')
    return place.update(unfinished.model_copy(update={"times_interrupted": unfinished.times_interrupted + 1}))


def _clear(place: Place, wish: Wish, beamline: Beamline) -> None:
    """Make room for a new beamline."""
    if wish.keep is None and (foreign := place.foreign_experiments()):
        raise ConflictError(
            f'experiment "{foreign[0]}" in {place.beamline} was not made by the demo: '
            f"go on beside it with --keep, or remove everything with --fresh"
        )
    old, new = beamline.databases, database_urls(wish.databases)
    if old and (new == old or (not new and wish.keep is None)):
        raise ConflictError(
            "the demo's last beamline is in PostgreSQL: go on with --keep, name empty databases, "
            "or begin anew on SQLite with --fresh"
        )
    beamline.down()
    place.clear()


def _require_space(place: Place, wish: Wish) -> None:
    copied = sum(
        os.lstat(os.path.join(top, name)).st_size
        for copy in wish.copies
        for top, _, names in os.walk(copy)
        for name in names
    )
    needed = 2 * (wish.frames * _FRAME_BYTES + copied) + _OTHER_BYTES
    if wish.keep and place.used_bytes() + needed > _KEPT_BYTES:
        raise ConflictError(
            f"{place.directory} has {output.size(place.used_bytes())} of earlier runs, and another one would "
            f"bring it above {output.size(_KEPT_BYTES)}: begin anew with --fresh"
        )
    free = shutil.disk_usage(place.directory).free
    if free < needed:
        raise SettingsError(
            f"the demo needs {output.size(needed)}, and {place.directory} has {output.size(free)} free: "
            f"name another place with --directory"
        )


def _experiment(client: Client, this: Run) -> Experiment:
    """Return the run's experiment, made if a kill came before."""
    try:
        return client.experiments.get(this.experiment, station=STATION)
    except NotFoundError:
        title = "A simulated detector, and a check of every file"
        return client.experiments.create(NewExperiment(name=this.experiment, station=STATION, title=title))


def _daq(client: Client, place: Place, this: Run, experiment: Experiment) -> Acquisition:
    """Return the run's DAQ: the one that it started and that still runs, or a new one."""
    directory = place.detector(this)
    directory.mkdir(parents=True, exist_ok=True)
    below_root = os.fsencode(directory).lstrip(b"/")
    for daq in client.daqs.list(experiment_uid=experiment.uid, active=True):
        if daq.relpath == below_root:
            return daq
    plan = curves.plan(client)
    return client.daqs.start(NewDaq(experiment_uid=experiment.uid, workflow=plan, **path_fields(below_root)))


def _measure(client: Client, place: Place, this: Run, uid: Uid) -> Acquisition:
    """Run the detector to its end, then the DAQ to its; return the DAQ."""
    with display() as shown, _detector(place, this) as is_writing:
        watch = _Watch(client, uid, Tail(place.truth(this)), shown)
        watch.follow("measuring", lambda _: not is_writing())
        if watch.look("stopping").state in (State.PENDING, State.RUNNING):
            client.daqs.stop(uid)
        return watch.follow("delivering", lambda daq: daq.state not in ACTIVE)


class _Watch:
    """Looks at a DAQ again and again, and shows it."""

    def __init__(self, client: Client, uid: Uid, tail: Tail, shown: Display) -> None:
        self._client, self._uid, self._tail, self._shown = client, uid, tail, shown

    def look(self, phase: str) -> Acquisition:
        """Return the DAQ; services that are away come back, since their supervisor brings them."""
        patience_ends = time.monotonic() + _PATIENCE_S
        while True:
            try:
                daq = self._client.daqs.get(self._uid)
            except UnavailableError:
                if time.monotonic() > patience_ends:
                    raise
                time.sleep(1)
                continue
            self._shown.show(Standing.of(phase, self._tail, daq))
            return daq

    def follow(self, phase: str, is_over: Callable[[Acquisition], bool]) -> Acquisition:
        """Look until it is over, or until nothing has moved for so long that nothing will."""
        seen, patience_ends = None, 0.0
        while not is_over(daq := self.look(phase)):
            if seen != (now := (daq.state, daq.tallies, self._tail.files)):
                seen, patience_ends = now, time.monotonic() + _PATIENCE_S
            elif time.monotonic() > patience_ends:
                output.note(f"nothing has moved for {_PATIENCE_S:.0f} s; checking what is there")
                return daq
            time.sleep(_POLL_S)
        return daq


@contextmanager
def _detector(place: Place, this: Run) -> Iterator[Callable[[], bool]]:
    """Run the detector as a process of its own; gives what says whether it still writes."""
    words = [f"--frames={this.frames}", f"--rate={this.rate}", f"--start={this.start.isoformat()}"]
    words += [f"--copy={copy}" for copy in this.copies]
    words += ["--torture"] if this.torture else []
    command = [sys.executable, "-m", "beamkeeper.cli.demo.detector", str(place.detector(this))]
    command += [f"--truth={place.truth(this)}", *words]
    # One small addition a frame is no work for a pool of threads.
    environ = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as process:

        def is_writing() -> bool:
            if process.poll() is None:
                return True
            if process.returncode != 0:
                told = process.stderr.read().strip() if process.stderr else ""
                raise SourceError(told or f"the simulated detector ended with status {process.returncode}")
            return False

        try:
            yield is_writing
        finally:
            process.terminate()
