"""What the demo asks of its beamline at the end: what the ledger says, and whether the detector's disk may be wiped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from beamkeeper.cli.ledger import look
from beamkeeper.client import Client
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.ledger import LedgerCounts, ledger_total
from beamkeeper.domain.names import Model, path_fields
from beamkeeper.domain.wipes import NewWipe, Wipe


class Proof(Model):
    """The ledger in numbers, and two plans to wipe the detector's directory."""

    ledger: LedgerCounts
    by_rule: Wipe
    """By the rules of the station, for which files that were written a moment ago are too young."""
    of_any_age: Wipe
    """By the same rules, but for the age."""

    @classmethod
    def of(cls, client: Client, experiment: Experiment, source: Path) -> Self:
        """Ask for it. Nothing is deleted."""
        total = ledger_total(look(client, experiment.uid))
        return cls(ledger=total, by_rule=_plan(client, source), of_any_age=_plan(client, source, min_age_hours=0))


def _plan(client: Client, source: Path, min_age_hours: float | None = None) -> Wipe:
    where = path_fields(os.path.realpath(os.fsencode(source)).lstrip(b"/"))
    new = NewWipe.model_validate({**where, "min_age_hours": min_age_hours})
    return client.wipes.wait(client.wipes.plan(new).uid)


def answer(plan: Wipe) -> str:
    """Return YES or NO and why, as a sentence without its end."""
    if plan.is_safe:
        return f"YES, all {plan.proven_files} files are proven"
    why = [f"{t.reason} ({t.files} {'file' if t.files == 1 else 'files'})" for t in plan.not_proven] or [plan.message]
    return f"NO: {', '.join(why)}"
