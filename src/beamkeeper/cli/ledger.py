"""`dm ledger`: which files of an experiment arrived, are stored, and are verified, by directory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import click

from beamkeeper.cli import common, output, replicas
from beamkeeper.client import Client
from beamkeeper.domain.errors import NotFoundError
from beamkeeper.domain.ledger import DirectoryTally, LedgerCounts, LedgerLine, ledger_lines, ledger_total
from beamkeeper.domain.names import Model, RelPath, show_path
from beamkeeper.domain.replicas import AreaReplicas

SHOWN_FIRST = 50
"""So many directories are listed without --all; those where something is missing come first."""


class LedgerView(Model):
    """Where the files of an experiment stand."""

    experiment: str
    total: LedgerCounts
    directories: tuple[LedgerLine, ...]
    copies: tuple[AreaReplicas, ...] = ()


@click.command
@click.argument("experiment", required=False)
@click.option("--directory", metavar="DIR", help="This directory of the experiment and those below it.")
@click.option("--all", "is_all", is_flag=True, help="List every directory, not the first only.")
def show(experiment: str | None, directory: str | None, is_all: bool) -> None:
    """Show by directory how many files arrived, are stored and verified, and what is not.

    EXPERIMENT is that of `dm experiment use` where it is left out. DIR begins with data/ or analysis/.
    """
    client = common.client()
    within = common.experiment(client, experiment)
    below = None if directory is None else RelPath(os.fsencode(directory.strip("/")))
    lines = look(client, within.uid, below)
    if below is not None and not lines:
        raise NotFoundError(
            f'experiment "{within.name}" has no directory "{show_path(below)}": `dm ledger show` lists them'
        )
    total = ledger_total(lines)
    if output.is_json():
        output.data(
            LedgerView(
                experiment=within.name,
                total=total,
                directories=tuple(lines),
                copies=tuple(client.replicas.by_area(within.uid)),
            )
        )
        return
    _print(within.name, total, lines, is_all=is_all)
    _print_copies(client, within.uid)


def _print_copies(client: Client, experiment_uid: UUID) -> None:
    """Print how many copies are in each storage area, where there is more than one."""
    areas = client.replicas.by_area(experiment_uid)
    if len(areas) > 1:
        output.say("")
        output.rows(areas, replicas.AREAS, title="copies")


def look(client: Client, experiment_uid: UUID, below: bytes | None = None) -> list[LedgerLine]:
    """Return where the files of an experiment stand, by directory."""
    stored = client.files.directories(experiment_uid, below)
    return ledger_lines(stored, _below(client.arrivals.directories(experiment_uid), below))


def _below(tallies: Iterable[DirectoryTally], top: bytes | None) -> Iterable[DirectoryTally]:
    if top is None:
        return tallies
    return (tally for tally in tallies if tally.relpath == top or tally.relpath.startswith(top + b"/"))


def _print(name: str, total: LedgerCounts, lines: Sequence[LedgerLine], *, is_all: bool) -> None:
    shown = list(lines)
    if not is_all and len(shown) > SHOWN_FIRST:
        first = sorted(shown, key=lambda line: not line.needs_somebody)[:SHOWN_FIRST]
        shown = sorted(first, key=lambda line: line.relpath)
    output.rows(shown, _columns(total), title=f'experiment "{name}"', empty="nothing has arrived yet")
    if len(lines) > len(shown):
        output.note(f"and {len(lines) - len(shown)} directories more: --all lists them")
    if lines:
        output.say("")
        output.say(sentence(total))


def _columns(total: LedgerCounts) -> dict[str, Any]:
    """Return the columns; what is nowhere other than zero is left out, but for the six that are always asked for."""
    names = ("arrived", "stored", "verified", "missing", "growing", "quarantined")
    more = tuple(name for name in ("skipped", "suspect") if getattr(total, name))
    columns: dict[str, Any] = {"directory": lambda line: show_path(line.relpath)}
    return columns | {name: name for name in (*names, *more)} | {"size": lambda line: output.size(line.bytes)}


def sentence(total: LedgerCounts) -> str:
    """Return how many files are stored and verified, and what the others wait for."""
    wanted = total.arrived - total.skipped
    if not total.needs_somebody:
        every = "The one file is" if wanted == 1 else f"All {wanted} files are"
        return f"{every} stored and verified ({output.size(total.bytes)})."
    parts = [
        (total.stored - total.verified, "stored and not verified (yet)"),
        (total.missing, "seen and not stored"),
        (total.growing, "growing"),
        (total.quarantined, "quarantined: `dm daq show` says why, and `dm daq retry` tries them again"),
    ]
    rest = ", ".join(f"{count} {what}" for count, what in parts if count)
    return f"{total.verified} of {wanted} files are stored and verified ({output.size(total.bytes)} stored); {rest}."
