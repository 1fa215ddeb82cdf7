"""What the demo says at its end: one table, what does not match, one search, and how to look around."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from beamkeeper.cli import output
from beamkeeper.cli.demo.beamline import PROFILE
from beamkeeper.cli.demo.check import Row, Verdict
from beamkeeper.cli.demo.curves import Curves
from beamkeeper.cli.demo.proof import Proof, answer
from beamkeeper.cli.ledger import sentence
from beamkeeper.client import Client
from beamkeeper.domain.acquisition import Acquisition, State
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import File, FileOrder, FileQuery
from beamkeeper.domain.names import Model, show_path

SEARCH = "energy >= 12keV"
"""The question that is put to the catalogue: which measurements were made at 12 keV or more?"""

_SHOWN_MISMATCHES = 20


class Hit(Model):
    """A file that the search found."""

    path: str
    energy: str


class Result(Model):
    """The end of a run."""

    experiment: str
    daq: str
    state: State
    message: str
    verdict: Verdict
    search: str
    hits: Sequence[Hit]
    curves: Curves
    source: str
    proof: Proof | None
    """None where not every file matches: then nobody should ask whether the source may go."""

    @classmethod
    def of(cls, client: Client, experiment: Experiment, daq: Acquisition, verdict: Verdict, *, source: Path) -> Self:
        """Return the result with the answer to the search, and what proves that the source may go."""
        found = client.files.find(FileQuery(experiment_uid=experiment.uid, query=SEARCH, order=FileOrder.PATH))
        return cls(
            experiment=experiment.name,
            daq=str(daq.uid),
            state=daq.state,
            message=daq.message,
            verdict=verdict,
            search=SEARCH,
            hits=[Hit(path=show_path(file.relpath), energy=_energy(file)) for file in found],
            curves=Curves.of(client, experiment, client.daqs.get(daq.uid)),
            source=str(source),
            proof=Proof.of(client, experiment, source) if verdict.is_match else None,
        )


def _energy(file: File) -> str:
    energy = file.metadata.get("energy")
    return output.safe("{value:g} {unit}".format_map(energy) if isinstance(energy, dict) else energy)


def report(result: Result, *, used_bytes: int) -> None:
    """Print the result for a person, or as JSON."""
    if output.is_json():
        output.data(result)
        return
    verdict = result.verdict
    output.rows(
        verdict.rows,
        {"": "what", "files": "files", "bytes": lambda row: output.size(row.bytes), "rate": _rate},
        title=f'experiment "{result.experiment}"',
    )
    output.pairs(
        [
            ("last byte written to catalogued", f"median {_seconds(verdict.median_s)}, p99 {_seconds(verdict.p99_s)}"),
            ("skipped with a reason", verdict.skipped or None),
            ("older versions kept", verdict.older_versions or None),
        ]
    )
    _say_verdict(result)
    output.say("")
    output.say(f"Which files were measured at 12 keV or more ({result.search})?")
    for hit in result.hits:
        output.say(f"    {hit.path}  {hit.energy}")
    _say_curves(result)
    _say_proof(result)
    _say_how_to_go_on(result, used_bytes)


def _say_curves(result: Result) -> None:
    curves = result.curves
    output.say("")
    output.say(f"{curves.jobs} frames became curves; the first ring is at {curves.ring} A (silver behenate: 58.4).")
    for fault in curves.wanting:
        output.say(f"    {fault}")
    if curves.why:
        why = f"why {shlex.quote(curves.path)} --experiment {result.experiment}"
        output.say(f"What was a curve made from ({dm_command()} --profile {PROFILE} {why})?")
    for line in curves.why:
        output.say(f"    {line}")


def _say_proof(result: Result) -> None:
    dm, profile, proof = dm_command(), f"--profile {PROFILE}", result.proof
    if proof is None:
        output.say("")
        output.say("Whether the detector's directory may be wiped is not asked, since not every file matches.")
        return
    output.say("")
    output.say(f"What has arrived, and is it verified ({dm} {profile} ledger show {result.experiment})?")
    output.say(f"    {sentence(proof.ledger)}")
    output.say(f"May the detector's directory be wiped ({dm} {profile} wipe plan {shlex.quote(result.source)})?")
    output.say(f"    {answer(proof.by_rule)}. Files have to be older than {proof.by_rule.min_age_hours:g} h.")
    output.say(f"    With --min-age 0, for files of any age: {answer(proof.of_any_age)}.")


def _say_verdict(result: Result) -> None:
    verdict = result.verdict
    if result.state is not State.DONE:
        output.say(f"The DAQ ended {result.state}: {result.message}")
    if verdict.is_match:
        output.say("Every file is stored, verified and catalogued as it was written.")
        return
    output.say(f"{len(verdict.mismatches)} mismatches:")
    for mismatch in verdict.mismatches[:_SHOWN_MISMATCHES]:
        output.say(f"    {mismatch.path}: {mismatch.what}")
    if len(verdict.mismatches) > _SHOWN_MISMATCHES:
        output.say(f"    and {len(verdict.mismatches) - _SHOWN_MISMATCHES} more")


def _say_how_to_go_on(result: Result, used_bytes: int) -> None:
    dm, profile = dm_command(), f"--profile {PROFILE}"
    output.say("")
    output.say(f"The beamline stays up ({output.size(used_bytes)} on disk). Look around, and stop it:")
    for line in (
        f"{dm} {profile} portal",
        f"{dm} {profile} experiment show {result.experiment}",
        f"{dm} {profile} file find --experiment {result.experiment} 'data/scan_001/*'",
        f"{dm} {profile} daq show {result.daq}",
        f"{dm} {profile} status",
        f"{dm} demo --stop",
    ):
        output.say(f"    {line}")


def dm_command() -> str:
    """Return how this person calls `dm`: by its name where that finds this one, else by its path."""
    found = shutil.which("dm")
    return "dm" if found is not None and found == shutil.which(sys.argv[0]) else sys.argv[0]


def _rate(row: Row) -> str:
    return "" if row.bytes_per_s is None else f"{output.size(round(row.bytes_per_s))}/s"


def _seconds(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f} s"
