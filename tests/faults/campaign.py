"""The long form of the campaign: `make faults`. Plays every fault, kills the services some hundred times, and reports.

Each trial prints its seed; `--only F30 --seed N` plays one again. The report says for each fault how many trials there
were and what the checker found, and how often it may happen all the same: with 0 harms in n trials, less than 3/n of
all trials with 95 % confidence.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from beamkeeper import __version__
from beamkeeper.config.failpoints import FailPoint, TroublePoint
from beamkeeper.testing.checker import Finding, Harm
from faults import arrival, kills, transfer
from faults.lab import CannotInjectError, Lab, Trial, laboratory
from faults.registry import FAULTS, may_play, play

REPORT = Path(__file__).parents[2] / "docs" / "reference" / "fault-report.md"
ENOUGH = 10
"""From so many trials on a bound means something."""

TRIALS_OF_ONE_DAQ = 12
"""Then a new DAQ begins, so that the checker has not ever more to read."""

INTRODUCTION = """\
Written by `make faults`. Each trial breaks something, waits until the station has recovered, and then lets a checker
read the source, every byte in storage, the catalogue and the journal. The columns count what it found: files *lost*
(neither stored nor listed with a reason), *corrupt*, *false-complete* (called stored or verified and not so, or taken
while they were written), *duplicate* and *dark* (bytes that nothing knows of). *failed* counts trials that did not
recover by themselves in time. Where n trials found nothing, the true rate is below 3/n with 95 % confidence; of a few
trials nothing is said."""

NOT_HERE = {"F31": "needs a C compiler, and the shim that it makes"}
"""Faults that this campaign does not play where there is no shim."""

SMALLER = {
    "F08": "20,000 files in one directory and 2,000 directories; a million files are scanned by `make bench-ingest`",
    "F38": "the storage service is stopped; no disk hangs in the kernel, which nothing here can inject",
    "F39": "a wire between processes is cut, slow and comes and goes; packets are not lost one by one",
    "F41": "8 GiB with islands; 1 TiB of zeros would be hashed for an hour, and so would 64 GiB of real bytes",
}
"""Faults that are played smaller than one would wish, or in another way, and how."""

PointT = TypeVar("PointT", FailPoint, TroublePoint)

WAYS = {"F32": len(FailPoint) - 4, "F35": 4, "F41": 2}
"""Faults that have several ways, which the seed chooses: each is gone at least once."""

TITLES = {
    "F30": "kill -9 at each fail point, with files of 0 to 65,537 bytes, and now and then of 192 MiB",
    "F30 trouble": "kill -9 while the services cope with a storage area that fails, or with what was left in staging",
    "F30 random": "kill -9 at a moment of chance while a detector writes",
    "F31": "kill -9 at the n-th call that changes a file system",
}


@dataclass(slots=True)
class Result:
    """What became of a fault's trials."""

    title: str
    trials: int = 0
    harms: Counter[Harm] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    refused: str = ""

    @property
    def is_clean(self) -> bool:
        """Whether nothing went wrong in any trial."""
        return not self.harms and not self.failures


class Campaign:
    """Plays, prints and counts."""

    def __init__(self, lab: Lab, seed: int) -> None:
        self.lab = lab
        self.seed = seed
        self.results: dict[str, Result] = {}
        self._began = time.monotonic()

    def note(self, id_: str, title: str, seed: int, trial: Callable[[], Sequence[Finding]]) -> None:
        """Run one trial and take down what it found; an exception is a failure of the trial, not the end."""
        result = self.results.setdefault(id_, Result(title))
        result.trials += 1
        began = time.monotonic()
        findings: Sequence[Finding] = ()
        failure = ""
        try:
            findings = trial()
        except Exception as error:
            failure = f"seed {seed}: {type(error).__name__}: {str(error)[:300]}"
            result.failures.append(failure)
            self.lab.down()
        result.harms.update(finding.harm for finding in findings)
        said = "; ".join(map(str, findings)) or failure or result.refused or "ok"
        sys.stdout.write(f"{time.monotonic() - self._began:7.1f} s  {id_:10} seed {seed}  ")
        sys.stdout.write(f"{time.monotonic() - began:5.1f} s  {said}\n")
        sys.stdout.flush()

    def play_faults(self, times: int, only: Sequence[str]) -> None:
        """Play each fault of the registry some times."""
        for found in FAULTS:
            if only and found.id not in only:
                continue
            if not may_play(found):
                self.results[found.id] = Result(found.title, refused="needs root")
                continue
            for number in range(max(times, WAYS.get(found.id, 0))):
                seed = number if found.id in WAYS else self.seed + number

                def trial(found=found, seed=seed) -> Sequence[Finding]:  # type: ignore[no-untyped-def]
                    outcome = play(self.lab, found, seed=seed)
                    self.results[found.id].refused = outcome.refused
                    return outcome.findings

                self.note(found.id, found.title, seed, trial)

    def kill(self, id_: str, times: int, one: Callable[[Trial, int, random.Random], list[Finding]]) -> None:
        """Kill and recover some times, on a few DAQs."""
        for first in range(0, times, TRIALS_OF_ONE_DAQ):
            with kills.watched(self.lab, id_.replace(" ", "-"), self.seed + first) as trial:
                for number in range(first, min(first + TRIALS_OF_ONE_DAQ, times)):
                    seed = self.seed + number
                    rng = random.Random(f"{id_} {seed}")
                    self.note(id_, TITLES[id_], seed, lambda n=number, r=rng, t=trial: one(t, n, r))  # type: ignore[misc]


def again(points: type[PointT]) -> Iterator[PointT]:
    """Yield fail points, again and again."""
    while True:
        yield from points


def run(campaign: Campaign, options: argparse.Namespace) -> None:
    """Play what is asked for."""
    only = options.only
    if not only or "F30" in only:
        order, troubles = again(FailPoint), again(TroublePoint)
        sizes = (*kills.SIZES, 3 * kills.CHUNK)

        def at_point(trial: Trial, number: int, rng: random.Random) -> list[Finding]:
            # The largest size takes a second of this machine: now and then is enough.
            return kills.kill_at(trial, next(order), number, rng, sizes if number % 20 == 7 else kills.SIZES)

        def in_trouble(trial: Trial, number: int, rng: random.Random) -> list[Finding]:
            with suppress(CannotInjectError):
                return kills.kill_in_trouble(trial, next(troubles), number, rng)
            return []

        campaign.kill("F30", options.kills, at_point)
        campaign.kill("F30 trouble", options.kills // 6, in_trouble)
        campaign.kill("F30 random", options.kills // 2, kills.kill_anywhere)
    if campaign.lab.shim.is_there and (not only or "F31" in only):
        campaign.kill("F31", options.kills // 2, lambda t, n, r: kills.kill_at_call(t, 1 + 2 * n, n, r))
    campaign.play_faults(options.repeat, only)


def report(campaign: Campaign, command: str, took_s: float) -> str:
    """Return the report's page."""
    results = campaign.results
    trials = sum(result.trials for result in results.values() if not result.refused)
    harms = sum(sum(result.harms.values()) for result in results.values())
    lines = [
        "# The campaign of faults",
        "",
        INTRODUCTION,
        "",
        f"* {trials} trials, {harms} harms found; without one, below {3 / max(trials, 1):.2%} of such a mix of faults",
        f"* {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, Beamkeeper {__version__} at {_commit()}, "
        f"Python {platform.python_version()}",
        f"* Linux {platform.release()}, {os.cpu_count()} processors, {_who()}",
        f"* `{command}`, {took_s / 60:.0f} minutes",
        "",
        "| fault | what is broken | trials | lost | corrupt | false-complete | duplicate | dark | failed | below |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(id_, results[id_]) for id_ in sorted(results)]
    missing = {} if campaign.lab.shim.is_there else NOT_HERE
    if missing:
        lines += ["", "Not played here:", "", *(f"* {id_}: {why}" for id_, why in sorted(missing.items()))]
    if smaller := {id_: how for id_, how in SMALLER.items() if id_ in results}:
        lines += ["", "Played in a smaller or another form:", ""]
        lines += [f"* {id_}: {how}" for id_, how in sorted(smaller.items())]
    if broken := [f"* {id_}, {failure}" for id_, result in sorted(results.items()) for failure in result.failures]:
        lines += ["", "Trials that failed:", "", *broken]
    return "\n".join(lines) + "\n"


def _commit() -> str:
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(words, check=False, capture_output=True, text=True).stdout.strip() or "no commit"


def _who() -> str:
    return "root" if os.geteuid() == 0 else "an ordinary user"


def _row(id_: str, result: Result) -> str:
    if result.refused:
        return f"| {id_} | {result.title} | 0 | | | | | | | cannot be injected here: {result.refused} |"
    counts = " | ".join(str(result.harms[harm]) for harm in Harm)
    bound = f"{3 / result.trials:.1%}" if result.is_clean and result.trials >= ENOUGH else ""
    return f"| {id_} | {result.title} | {result.trials} | {counts} | {len(result.failures)} | {bound} |"


def main(words: Sequence[str]) -> int:
    """Run the campaign and write the report; the exit status tells whether all is well."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--repeat", type=int, default=3, help="trials of each fault")
    parser.add_argument("--kills", type=int, default=120, help="trials at fail points; half as many of the other kinds")
    parser.add_argument("--only", nargs="*", default=(), help="the ids of some faults")
    parser.add_argument("--report", type=Path, default=REPORT)
    options = parser.parse_args(words)
    began = time.monotonic()
    sys.stdout.write(f"seed {options.seed}; faults of {arrival.__name__} and {transfer.__name__}\n")
    with laboratory() as lab:
        campaign = Campaign(lab, options.seed)
        with suppress(KeyboardInterrupt):  # what was played until then is reported
            run(campaign, options)
    command = f"make faults FAULTS='--seed {options.seed} --repeat {options.repeat} --kills {options.kills}'"
    options.report.write_text(report(campaign, command, time.monotonic() - began))
    return 0 if all(result.is_clean for result in campaign.results.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
