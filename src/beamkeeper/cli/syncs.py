"""`dm sync`: taking over the facility's people and proposals."""

from __future__ import annotations

import time
from collections.abc import Callable

import click

from beamkeeper.cli import common, output
from beamkeeper.cli.app import EXIT_WANTING
from beamkeeper.client import Client
from beamkeeper.domain.people import Sync, SyncKind, SyncState

WATCH = click.option("--watch", is_flag=True, help="Again and again, until stopped.")
EVERY = click.option(
    "--every", type=click.FloatRange(min=1), default=300.0, show_default=True, help="With --watch, seconds in between."
)


@click.command()
@WATCH
@EVERY
@click.option("--to-ldap", is_flag=True, help="Maintain the accounts of the site's own directory server as well.")
@click.option("--may-leave", type=click.IntRange(min=0), help="How many may be deactivated this once.")
def users(watch: bool, every: float, to_ldap: bool, may_leave: int | None) -> int:
    """Take over the facility's people: add, update, and deactivate who left; nobody is deleted."""
    client = common.client()
    return _again(lambda: client.syncs.run(SyncKind.USERS, to_ldap=to_ldap, may_leave=may_leave), watch, every)


@click.command()
@WATCH
@EVERY
def proposals(watch: bool, every: float) -> int:
    """Take over the facility's proposals and forms; roles in experiments follow them."""
    client: Client = common.client()
    return _again(lambda: client.syncs.run(SyncKind.PROPOSALS), watch, every)


def _again(run: Callable[[], Sync], watch: bool, every: float) -> int:
    while True:
        status = _tell(run())
        if not watch:
            return status
        time.sleep(every)


def _tell(done: Sync) -> int:
    report = done.report
    if output.is_json():
        output.data(done)
    elif done.state is SyncState.FAILED:
        output.say(f"the sync of {done.kind} failed: {output.safe(done.message)}")
    elif report is not None:
        counts = report.model_dump(exclude={"refused", "accounts"}, exclude_defaults=True)
        accounts = report.accounts.model_dump(exclude={"refused"}, exclude_defaults=True) if report.accounts else {}
        output.pairs(
            [
                *((name.replace("_", " "), count) for name, count in counts.items()),
                *((f"directory server: {name}", count) for name, count in accounts.items()),
            ],
            title=f"sync of {done.kind}",
        )
        for one in (*report.refused, *(report.accounts.refused if report.accounts else ())):
            output.say(f"refused: {output.safe(one.what)}: {output.safe(one.why)}")
        if report.held_back:
            output.say("More people left at once than the cap allows: look whether that is so, then use --may-leave.")
    is_good = report is not None and done.state is SyncState.DONE and not report.held_back
    return 0 if is_good else EXIT_WANTING
