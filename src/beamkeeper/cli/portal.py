"""`dm portal`: the address of the portal, and a way in for who is logged in here already."""

from __future__ import annotations

import click
from pydantic import BaseModel

from beamkeeper.cli import common, output
from beamkeeper.domain.errors import NotAuthenticatedError, NotFoundError


class Way(BaseModel):
    """Where the portal is, and the address that leads in, once and within minutes."""

    portal: str
    address: str


@click.command()
def show() -> None:
    """Show an address that opens the portal in a browser, as who is logged in here; it works once, for ten minutes.

    Who has a password can as well log in there with it.
    """
    client = common.client()
    portal = client.site().portal
    if not portal:
        raise NotFoundError("this site has no portal: `portal.enabled` in the settings of the storage service says so")
    if client.credentials.token is None:
        raise NotAuthenticatedError("nobody is logged in here: `dm login`, or log in at the portal itself")
    way = Way(portal=portal, address=client.portal_way(portal))
    if output.is_json():
        output.data(way)
        return
    output.say(way.address)
