"""`dm scrub` reads copies again, `dm audit` compares names; both only tell."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import click

from beamkeeper.cli import acquiring, common, output
from beamkeeper.cli.app import EXIT_WANTING
from beamkeeper.cli.files import Size
from beamkeeper.client import Client
from beamkeeper.client.inspections import Audits, Scrubs
from beamkeeper.domain.experiments import Experiment, ExperimentQuery
from beamkeeper.domain.inspections import (
    RATE_BYTES_S,
    WEEK_S,
    Audit,
    Finding,
    InspectionState,
    NewAudit,
    NewScrub,
    Scrub,
)
from beamkeeper.domain.names import show_path

FIRST = 50
"""So many findings are listed without --all."""

EXPERIMENT = click.argument("experiment", required=False)
NO_WAIT = click.option("--no-wait", is_flag=True, help="Only ask for it.")
STOP = click.option("--stop", "is_stop", is_flag=True, help="Stop those that run.")
ALL = click.option("--all", "is_all", is_flag=True, help="List every finding, not the first only.")


class Rate(Size):
    """A rate such as 100MB/s; in bytes a second."""

    name = "RATE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes a second."""
        return super().convert(value.strip().removesuffix("/s") if isinstance(value, str) else value, param, ctx)


class ScrubShown(Scrub):
    """A scrub with what it found."""

    findings: tuple[Finding, ...]


class AuditShown(Audit):
    """An audit with what it found."""

    findings: tuple[Finding, ...]


@click.command
@EXPERIMENT
@click.option(
    "--older-than",
    "older_than_s",
    type=acquiring.Duration(),
    default=WEEK_S,
    show_default="7d",
    help="Copies that were read longer ago than this.",
)
@click.option("--rate", type=Rate(), default=RATE_BYTES_S, show_default="100MB/s", help="Read about so fast.")
@NO_WAIT
@STOP
@ALL
def scrub(experiment: str | None, older_than_s: float, rate: int, *, no_wait: bool, is_stop: bool, is_all: bool) -> int:
    """Read copies in the storage again, those read longest ago first: of EXPERIMENT, or of the whole station.

    A copy with other bytes is read a second time, marked suspect, and told of; nothing is mended or deleted. The exit
    status is 10 where a copy is not as it should be. Leaving with Ctrl-C does not stop it.
    """
    client = common.client()
    if is_stop:
        return _stop(client.scrubs)
    uid = common.experiment(client, experiment).uid if experiment else None
    new = common.build(NewScrub, experiment_uid=uid, older_than_s=older_than_s, rate_bytes_s=rate)
    started = client.scrubs.start(new)
    if no_wait:
        output.record(started, _SCRUB)
        return 0
    ended = client.scrubs.wait(started.uid)
    found = list(islice(client.scrubs.findings(ended.uid), None if is_all else FIRST))
    if output.is_json():
        output.data(ScrubShown(**ended.model_dump(), findings=tuple(found)))
    else:
        output.record(ended, _SCRUB)
        _list(found, more=ended.bad > len(found))
    return 0 if ended.state is InspectionState.DONE and not ended.bad else EXIT_WANTING


@click.command
@EXPERIMENT
@NO_WAIT
@STOP
@ALL
def audit(experiment: str | None, *, no_wait: bool, is_stop: bool, is_all: bool) -> int:
    """Compare what is catalogued with what stands in the storage: of EXPERIMENT, or of all of the station.

    Dark is what the storage has and the catalogue does not know, lost what the catalogue has and the storage does
    not. Only what two audits find one after the other is confirmed; an audit that would find too much stops by
    itself. Nothing is moved or deleted. The exit status is 10 where something was found.
    """
    client = common.client()
    if is_stop:
        return _stop(client.audits)
    audits = [client.audits.start(NewAudit(experiment_uid=one.uid)) for one in _experiments(client, experiment)]
    if not no_wait:
        audits = [client.audits.wait(one.uid) for one in audits]
    found = {one.uid: list(islice(client.audits.findings(one.uid), None if is_all else FIRST)) for one in audits}
    if output.is_json():
        output.data([AuditShown(**one.model_dump(), findings=tuple(found[one.uid])) for one in audits])
    else:
        output.rows(audits, _AUDITS, empty="there is no experiment to audit")
        for one in audits:
            _list(found[one.uid], more=one.dark + one.lost > len(found[one.uid]), title=one.experiment)
    is_clean = all(one.state is InspectionState.DONE and not one.dark + one.lost for one in audits)
    return 0 if is_clean or no_wait else EXIT_WANTING


def _experiments(client: Client, name: str | None) -> Sequence[Experiment]:
    if name is not None:
        return [common.experiment(client, name)]
    station = client.station().name
    return list(client.experiments.list(ExperimentQuery(station=station, limit=1000)))


def _stop(of: Scrubs | Audits) -> int:
    running = list(of.list(active=True))
    for one in running:
        of.stop(one.uid)
    output.say(f"{len(running)} asked to stop." if running else "none runs.")
    return 0


def _list(found: Sequence[Finding], *, more: bool, title: str | None = None) -> None:
    if not found:
        return
    output.say("")
    columns: dict[str, Any] = {
        "file": lambda finding: show_path(finding.relpath),
        "version": "number",
        "what": "kind",
        "why": "message",
        "confirmed": "is_confirmed",
    }
    output.rows(found, columns, title=title)
    if more:
        output.note("there are more: --all lists them")


_SCRUB: dict[str, Any] = {
    "uid": "uid",
    "experiment": lambda scrub: scrub.experiment or "all of the station",
    "state": "state",
    "message": "message",
    "copies read": lambda scrub: f"{scrub.files} ({output.size(scrub.bytes)})",
    "as they should be": "matched",
    "with other bytes": lambda scrub: scrub.different or "",
    "not there": lambda scrub: scrub.missing or "",
    "unreadable": lambda scrub: scrub.unreadable or "",
    "ended": "ended_at",
}
_AUDITS: dict[str, Any] = {
    "experiment": "experiment",
    "state": "state",
    "catalogued": "catalogued",
    "in the storage": "listed",
    "dark": "dark",
    "lost": "lost",
    "confirmed": "confirmed",
    "message": "message",
}
