"""What `dm daq` and `dm upload` share of trying files again, and of letting some go first."""

from __future__ import annotations

import click

from beamkeeper.cli import acquiring, following, output
from beamkeeper.client import Client
from beamkeeper.client.acquisition import Daqs, Uploads
from beamkeeper.domain.errors import InvalidError

WHICH = click.argument("uid")
PATTERN = click.argument("pattern", required=False)
PATTERNS = click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
FOLLOW = click.option("--follow", is_flag=True, help="Stay until it has ended.")
NONE = click.option("--none", "is_none", is_flag=True, help="No file goes before others any more.")


def retry(of: Daqs | Uploads, client: Client, uid: str, pattern: str | None, *, is_followed: bool) -> int:
    """Try quarantined files again, and say what comes of it."""
    meant = acquiring.meant(client, of, uid)
    picked = of.retry(meant.uid, pattern)
    if is_followed:
        return following.report(of, following.follow(of, meant.uid))
    if output.is_json():
        output.data(picked)
        return 0
    name = f"{acquiring.NOUNS[meant.kind]} {meant.uid}"
    again = f", for which {name} runs again" if meant.ended_at is not None else f" of {name}"
    output.say(f"Tried again: {acquiring.files(picked.files)}{again}.")
    output.say(f"`dm {meant.kind} watch {meant.uid}` follows it.")
    return 0


def prioritise(of: Daqs | Uploads, client: Client, uid: str, patterns: tuple[str, ...], *, is_none: bool) -> None:
    """Let files go before all others, and say how many wait."""
    if is_none == bool(patterns):
        raise InvalidError("name the patterns of files that are to go first, or --none")
    meant = acquiring.meant(client, of, uid)
    picked = of.prioritise(meant.uid, patterns)
    name = f"{acquiring.NOUNS[meant.kind]} {meant.uid}"
    if output.is_json():
        output.data(picked)
    elif is_none:
        output.say(f"No file of {name} goes before others any more.")
    else:
        output.say(f"{acquiring.files(picked.files)} that wait of {name}, and those to come, go before all others.")
