"""The settings of the portal."""

from __future__ import annotations

from pydantic import Field

from beamkeeper.config.values import Address, Endpoint, Number


class Portal(Endpoint):
    """The portal: pages for browsers. It keeps nothing but who is logged in."""

    listen: Address = Field(default="127.0.0.1:22240", description="HOST:PORT to listen on; port 0 takes a free one.")
    idle_hours: Number = Field(
        default=8.0,
        gt=0,
        le=24 * 366,
        description="A browser that asked for no page for so many hours is logged out; each login ends after "
        "storage.session_hours.",
    )
    enabled: bool = Field(default=True, description="Whether `dm up` runs it with the services.")
