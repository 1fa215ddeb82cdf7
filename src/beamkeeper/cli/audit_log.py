"""`dm audit-log`: who changed what, and whether the log of it still stands."""

from __future__ import annotations

import re
from collections.abc import Mapping

import click

from beamkeeper.cli import common, output
from beamkeeper.cli.app import EXIT_WANTING
from beamkeeper.domain.audit_log import AuditedChange, AuditEntry, AuditQuery
from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.status import Service

_KEPT = re.compile(r"([0-9]+):([0-9a-f]{64})")

service_option = click.option(
    "--service",
    type=click.Choice([str(service) for service in Service]),
    default=str(Service.STORAGE),
    show_default=True,
    help="Of which service; each has a log of its own.",
)


@click.command(name="list")
@service_option
@click.option("--user", "username", metavar="NAME", help="What this user changed.")
@click.option("--action", metavar="TEXT", help="What has this in its method and route, such as DELETE or /users.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="The most rows.")
def list_(service: str, username: str | None, action: str | None, limit: int) -> None:
    """Show who changed what, newest first; for administrators."""
    query = AuditQuery(username=username, action=action, limit=min(limit, 1000))
    found = list(common.client().audit_log(Service(service)).find(query, most=limit))
    columns = {
        "number": lambda row: row.number,
        "at": lambda row: row.at,
        "who": lambda row: row.username,
        "from": lambda row: row.address,
        "what": _what,
        "result": lambda row: row.result,
        "changed": _changed,
    }
    output.rows(found, columns)


@click.command()
@service_option
@click.option("--expect", metavar="NUMBER:DIGEST", help="What an earlier run gave: that row must still be the same.")
def verify(service: str, expect: str | None) -> int:
    """Follow the chain of rows: a row that was changed, removed or put between shows.

    Keep what it prints where nobody can reach it who can reach the database: with --expect, a log that was
    written anew as a whole shows as well.
    """
    kept = _KEPT.fullmatch(expect) if expect else None
    if expect and not kept:
        raise InvalidError(f'"{expect}" is not NUMBER:DIGEST: take what an earlier `dm audit-log verify` gave')
    number, digest = (int(kept[1]), kept[2]) if kept else (None, None)
    found = common.client().audit_log(Service(service)).check(number, digest)
    if output.is_json():
        output.data(found)
    else:
        for fault in found.faults:
            output.say(fault)
        state = "do not fit together" if found.faults else "fit together"
        output.say(f"{found.rows} rows {state}; the newest is {found.number}:{found.digest}")
    return EXIT_WANTING if found.faults else 0


def _what(row: AuditEntry) -> str:
    action = row.action
    for name, value in row.target.items():
        action = action.replace("{" + name + "}", value)
    return action


def _changed(row: AuditEntry) -> str:
    parts = [_one(change) for change in row.changes] + ([f"and {row.more} more"] if row.more else [])
    return "; ".join(parts) or row.message


def _one(change: AuditedChange) -> str:
    if change.before is None:
        return f"{change.table} +{_pairs(change.after or {})}"
    if change.after is None:
        return f"{change.table} -{_pairs(change.before)}"
    pairs = ", ".join(f"{key} {change.before.get(key)} -> {value}" for key, value in change.after.items())
    return f"{change.table} {pairs}"


def _pairs(values: Mapping[str, object]) -> str:
    shown = values.get("name") or values.get("username") or values.get("uid") or ""
    return f" {shown}" if shown else ""
