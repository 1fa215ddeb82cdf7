"""`dm auth`: who checks passwords, and whether they can be asked."""

from __future__ import annotations

import click

from beamkeeper.cli import common, output
from beamkeeper.cli.app import EXIT_WANTING


@click.command()
@click.argument("username", required=False)
def check(username: str | None) -> int:
    """Try the connection to each directory that checks passwords and to each identity provider, in words, step by step.

    With USERNAME, whether that is known there. No password is asked for.
    """
    found = common.client().sessions.try_authenticators(username)
    if not found and not output.is_json():
        output.say("Passwords are checked here alone: the settings name no authenticator and no identity provider.")
        return 0
    columns = {"by": "authenticator", "step": "step", "": lambda f: "ok" if f.is_good else "FAILED", "words": "words"}
    output.rows(found, columns)
    return 0 if all(finding.is_good for finding in found) else EXIT_WANTING
